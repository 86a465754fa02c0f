/* The variables of a profile, ${NAME} and ${NAME:-OTHERWISE}: what they stand for in a session; and
 * the PATH that it has by them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "session_internal.h"

/* The worktree's path with a dash for all but letters and digits, as programs name directories. */
static void add_dashed(const struct session *session, struct ap_buf *ret)
{
	for (const char *at = session->cwd; *at; at++) {
		bool plain = (*at >= '0' && *at <= '9') || (*at >= 'a' && *at <= 'z') ||
			     (*at >= 'A' && *at <= 'Z');
		ap_buf_add(ret, plain ? at : "-", 1);
	}
}

/* Appends the value of a profile's variable: of this session, else of the environment. */
static void add_variable(const struct session *session, const char *name, struct ap_buf *ret)
{
	const char *value = getenv(name);
	if (strcmp(name, "DIR") == 0)
		value = session->dir;
	else if (strcmp(name, "NAME") == 0)
		value = session->name;
	else if (strcmp(name, "WORKTREE") == 0)
		value = session->cwd;
	else if (strcmp(name, "WORKTREES") == 0)
		value = session->host->worktrees;
	else if (strcmp(name, "REPO") == 0)
		value = session->host->repo;
	if (strcmp(name, "WORKTREE_DASHED") == 0)
		add_dashed(session, ret);
	else
		ap_buf_adds(ret, value ? value : "");
}

/* The closing brace of a variable; `at` is behind "${". NULL: there is none. */
static const char *closing_brace(const char *at)
{
	for (unsigned depth = 1; *at; at++) {
		depth += *at == '{';
		depth -= *at == '}';
		if (depth == 0)
			return at;
	}
	return NULL;
}

/* Appends the value of "NAME" or "NAME:-OTHERWISE". */
static void expand_one(const struct session *session, const char *text, size_t len,
		       struct ap_buf *ret)
{
	char name[64];
	size_t n = strcspn(text, ":}");
	if (n > len)
		n = len;
	snprintf(name, sizeof name, "%.*s", (int)n, text);
	size_t before = ret->len;
	add_variable(session, name, ret);
	if (ret->len == before && len > n + 2 && strncmp(text + n, ":-", 2) == 0)
		expand(session, text + n + 2, len - n - 2, ret);
}

void expand(const struct session *session, const char *text, size_t len, struct ap_buf *ret)
{
	const char *end = text + len;
	while (text < end) {
		const char *close =
			text[0] == '$' && text[1] == '{' ? closing_brace(text + 2) : NULL;
		if (close && close < end) {
			expand_one(session, text + 2, (size_t)(close - text - 2), ret);
			text = close + 1;
		} else {
			ap_buf_add(ret, text++, 1);
		}
	}
}

void expand_with(const struct session *session, const char *text, const char *conversation,
		 struct ap_buf *ret)
{
	static const char variable[] = "${CONVERSATION}";
	AP_CLEANUP_BUF struct ap_buf named = {0};
	const char *at;
	for (; (at = strstr(text, variable)); text = at + sizeof variable - 1) {
		ap_buf_add(&named, text, (size_t)(at - text));
		ap_buf_adds(&named, conversation);
	}
	ap_buf_adds(&named, text);
	expand(session, ap_buf_text(&named), named.len, ret);
}

const char *profile_path(const struct session_host *host)
{
	const struct profile_words *env = &profile_values(host->profile)->env;
	const char *found = NULL;
	for (unsigned i = 0; i < env->n; i++) {
		if (strcmp(env->at[i], "PATH") == 0 || strncmp(env->at[i], "PATH=", 5) == 0)
			found = env->at[i];
	}
	return found;
}

bool session_path(const struct session_host *host, struct ap_buf *ret)
{
	const char *word = profile_path(host);
	const struct session nobody = {.host = (struct session_host *)host, .dir = (char *)""};
	if (!word) {
		ap_buf_adds(ret, getenv("PATH") ? getenv("PATH") : "");
		return true;
	}
	if (strstr(word, "${DIR") || strstr(word, "${NAME") || strstr(word, "${WORKTREE"))
		return false;
	if (word[4] == '=')
		expand(&nobody, word + 5, strlen(word + 5), ret);
	return true;
}
