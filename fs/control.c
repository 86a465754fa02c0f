#include "control.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int control_run(const struct control_command *commands, const struct tree_call *call, char *line,
		struct ap_request *request)
{
	const char *name = ap_word_next(&line);
	for (const struct control_command *command = commands; name && command->name; command++) {
		if (strcmp(name, command->name) != 0)
			continue;
		line += strspn(line, " \t");
		if (!command->takes && *line)
			return ap_err_set(call->err, -EINVAL, "%s takes no words", name);
		if (command->takes && !*line)
			return ap_err_set(call->err, -EINVAL, "write %s %s", name, command->takes);
		if (command->submit)
			return command->submit(call, line, request);
		int r = command->run(call);
		return r < 0 ? r : TREE_DONE;
	}
	struct ap_buf known = {0};
	for (const struct control_command *command = commands; command->name; command++)
		ap_buf_printf(&known, " %s", command->name);
	ap_err_set(call->err, -EINVAL, "'%.64s' is none of:%s", name ? name : "",
		   ap_buf_text(&known));
	ap_buf_fini(&known);
	return -EINVAL;
}

static int set_duration(const struct tree_call *call, const char *key, const char *text,
			int64_t *ret)
{
	int r = ap_duration_parse(text, ret);
	if (r < 0)
		ap_err_set(call->err, r, "%s: '%.64s' is not a duration such as 250ms, 30s or 5m",
			   key, text);
	return r;
}

static int set_word(const struct tree_call *call, const char *key, const char *text, char *ret,
		    size_t size)
{
	if (*text == '\0' || strlen(text) >= size)
		return ap_err_set(call->err, -EINVAL, "%s: '%.64s' is empty or too long", key,
				  text);
	strcpy(ret, text);
	return 0;
}

static int set_pid(const struct tree_call *call, const char *text, pid_t *ret)
{
	int64_t number;
	int r = ap_number_parse(text, &number);
	if (r < 0)
		return ap_err_set(call->err, r, "pid: '%.64s' is not a number", text);
	if (number < 1 || number > INT32_MAX)
		return ap_err_set(call->err, -ERANGE, "pid: '%.64s' is not in its range, 1 to %d",
				  text, INT32_MAX);
	*ret = (pid_t)number;
	return 0;
}

static int set_permission(const struct tree_call *call, const char *text, int *ret)
{
	uint32_t policy;
	int r = ap_permission_parse(text, &policy, call->err);
	if (r < 0)
		return ap_err_wrap(call->err, r, "permission");
	*ret = (int)policy;
	return 0;
}

static int set_budget(const struct tree_call *call, const char *text, int64_t *ret)
{
	int r = ap_budget_parse(text, ret, call->err);
	return r < 0 ? ap_err_wrap(call->err, r, "budget") : 0;
}

static int acquire_option(const struct tree_call *call, const char *key, const char *value,
			  struct ap_acquire *acquire)
{
	if (strcmp(key, "timeout") == 0)
		return set_duration(call, key, value, &acquire->timeout_ns);
	if (strcmp(key, "ttl") == 0)
		return set_duration(call, key, value, &acquire->ttl_ns);
	if (strcmp(key, "pid") == 0)
		return set_pid(call, value, &acquire->holder);
	if (strcmp(key, "affinity") == 0)
		return set_word(call, key, value, acquire->affinity, sizeof acquire->affinity);
	if (strcmp(key, "agent") == 0)
		return set_word(call, key, value, acquire->agent, sizeof acquire->agent);
	if (strcmp(key, "base") == 0)
		return set_word(call, key, value, acquire->base, sizeof acquire->base);
	if (strcmp(key, "permission") == 0)
		return set_permission(call, value, &acquire->permission);
	if (strcmp(key, "budget") == 0)
		return set_budget(call, value, &acquire->budget);
	return ap_err_set(
		call->err, -EINVAL,
		"'%.64s' is none of: timeout ttl pid agent affinity base permission budget", key);
}

int control_acquire(const struct tree_call *call, char *line, struct ap_request *request)
{
	struct ap_acquire acquire = {
		.timeout_ns = -1,
		.ttl_ns = -1,
		.permission = -1,
		.budget = -1,
		.uid = call->uid,
		.pid = call->tid,
		.by_handle = call->by_handle,
	};
	bool first = true;
	for (char *word; (word = ap_word_next(&line)); first = false) {
		char *equals = strchr(word, '=');
		int r = 0;
		if (equals) {
			*equals = '\0';
			r = acquire_option(call, word, equals + 1, &acquire);
		} else if (!first || !ap_label_valid(word)) {
			r = ap_err_set(call->err, -EINVAL,
				       first ? "'%.80s' is not a valid label: letters, digits, "
					       "'.', '_' and '-', "
					       "64 at most"
					     : "'%.80s' is one word too many",
				       word);
		} else {
			strcpy(acquire.label, word);
		}
		if (r < 0)
			return r;
	}
	return ap_pool_acquire(call->pool, &acquire, request, call->err);
}

int control_release(const struct tree_call *call, char *line, struct ap_request *request)
{
	const char *lease = ap_word_next(&line), *how = ap_word_next(&line);
	bool discard = how && strcmp(how, "discard") == 0;
	if (!lease || (how && !discard) || ap_word_next(&line))
		return ap_err_set(call->err, -EINVAL,
				  "write LABEL or NAME, and discard or nothing");
	if (call->opener != call->uid) { /* someone who may not release may have opened it */
		int r = ap_pool_may_release(call->pool, lease, call->opener, call->err);
		if (r < 0)
			return ap_err_wrap(call->err, r, "user %u opened the file", call->opener);
	}
	return ap_pool_release(call->pool, lease, discard, call->uid, request, call->err);
}

int control_scale(const struct tree_call *call, char *line, struct ap_request *request)
{
	const char *word = ap_word_next(&line);
	int64_t number;
	if (!word || ap_word_next(&line))
		return ap_err_set(call->err, -EINVAL, "write N, +N, -N or auto");
	if (strcmp(word, "auto") == 0)
		return ap_pool_scale(call->pool, -1, request, call->err);
	int r = ap_number_parse(word, &number);
	if (r < 0)
		return ap_err_set(call->err, r, "'%.64s' is not N, +N, -N or auto", word);
	if (*word == '+' || *word == '-') {
		struct ap_stats stats;
		ap_pool_stats(call->pool, &stats);
		int64_t from = stats.target >= 0 ? stats.target : (int64_t)stats.n_total;
		if (number > 4096 || number < -4096)
			number = number > 0 ? 4096 : -4096;
		number += from;
	}
	if (number < 0 || number > 4096)
		return ap_err_set(call->err, -ERANGE, "'%.64s' leads to no possible size", word);
	return ap_pool_scale(call->pool, (int)number, request, call->err);
}
