/* The command lines of control files. A line is cut into words; tables say which commands there
 * are. Parses and asks the pool; decides nothing. */
#pragma once

#include "tree.h"

/* A command that is its first word: a row says what it does with the rest. */
struct control_command {
	const char *name;
	const char *doc;
	int (*run)(const struct tree_call *, char *rest);
};

/* Runs the command of a line; the table ends with a row without a name. -EINVAL: there is no such
 * command, the sentence lists them. */
int control_run(const struct control_command *commands, const struct tree_call *call, char *line);

/* acquire: `[LABEL] [timeout=DUR] [ttl=DUR] [agent=NAME] [base=REF]`. */
int control_acquire(const struct tree_call *call, char *line, struct ap_request *request);

/* release: `LABEL|NAME [discard]`. */
int control_release(const struct tree_call *call, char *line, struct ap_request *request);

/* scale: `N`, `+N`, `-N` or `auto`. */
int control_scale(const struct tree_call *call, char *line);
