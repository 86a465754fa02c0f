/* The command lines of control files. A line is cut into words; tables say which commands there
 * are. Parses and asks the pool; decides nothing. */
#pragma once

#include "tree.h"

/* A command, named by the first word of its line; the row says what happens with the rest. */
struct control_command {
	const char *name;
	const char *doc;
	/* one of these */
	int (*run)(const struct tree_call *); /* 0: done; or negative errno */
	/* enum tree_submitted, or negative errno. `words` is the rest of the line, "" where the
	 * command takes none */
	int (*submit)(const struct tree_call *, const char *words, struct ap_request *);
	const char *takes; /* name of the words that must follow, in errors; NULL: none may */
};

/* Runs the command that a line names; a row without a name ends the table. Returns enum
 * tree_submitted or a negative errno. -EINVAL: there is no such command (the sentence lists them),
 * or words are missing or too many. */
int control_run(const struct control_command *commands, const struct tree_call *call, char *line,
		struct ap_request *request);

/* acquire: `[LABEL] [timeout=DUR] [ttl=DUR] [pid=N] [agent=NAME] [affinity=KEY] [base=REF]
 * [permission=WORD] [budget=WORD]`. */
int control_acquire(const struct tree_call *call, char *line, struct ap_request *request);

/* release: `LABEL|NAME [discard]`. */
int control_release(const struct tree_call *call, char *line, struct ap_request *request);

/* scale: `N`, `+N`, `-N` or `auto`. */
int control_scale(const struct tree_call *call, char *line, struct ap_request *request);
