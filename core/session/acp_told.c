/* What a program tells of its work: the text of its answer, its tool calls, its plan, what it asks;
 * as text for people, and as lines of JSON for programs. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "acp_internal.h"
#include "cleanup.h"

#define FIELD_MAX	(64 << 10) /* bytes kept of a field of a tool call */
#define LOCATIONS_MAX	64
#define PLAN_MAX	(64 << 10)
#define PERMISSIONS_MAX 16 /* of one tool call */

/* --- text --- */

void acp_one_line(const json_t *string, char *ret, size_t size)
{
	const char *text = json_is_string(string) ? json_string_value(string) : "";
	size_t n = 0;
	for (; *text && n + 1 < size; text++) {
		if (!isspace((unsigned char)*text))
			ret[n++] = *text;
		else if (n > 0 && ret[n - 1] != ' ')
			ret[n++] = ' ';
	}
	while (n > 0 && (ret[n - 1] == ' ' || (*text && (ret[n - 1] & 0x80))))
		n--; /* a character that was cut */
	ret[n] = '\0';
	ap_text_tame(ret);
}

void acp_end_line(struct acp *acp)
{
	if (acp->line_open)
		ap_buf_adds(&acp->text, "\n");
	acp->line_open = false;
	acp->said = SAID_NOTHING;
	acp->filter = (struct ap_plain){.on_osc = NULL};
}

void acp_say(struct acp *acp, const char *tag, const char *line)
{
	acp_end_line(acp);
	ap_buf_printf(&acp->text, "[%s] %s\n", tag, line);
}

void acp_show_line(struct acp *acp, const char *line, size_t len)
{
	struct ap_plain filter = {.on_osc = NULL};
	acp_end_line(acp);
	ap_plain_add(&filter, line, len, &acp->text);
	ap_plain_add(&filter, "\n", 1, &acp->text);
}

/* A piece of a message as plain text; what is no text is named, and is no part of the answer. */
static bool content_text(struct acp *acp, const json_t *content, struct ap_buf *ret)
{
	const json_t *text = json_object_get(content, "text");
	char word[64], uri[256];
	if (json_is_string(text)) {
		ap_plain_add(&acp->filter, json_string_value(text), json_string_length(text), ret);
		return true;
	}
	acp_one_line(json_object_get(content, "type"), word, sizeof word);
	acp_one_line(json_object_get(content, "uri"), uri, sizeof uri);
	ap_buf_printf(ret, "[%s%s%s]", *word ? word : "content", *uri ? " " : "", uri);
	return false;
}

static void keep_response(struct acp *acp, const json_t *id, const struct ap_buf *piece)
{
	char message[ACP_ID_MAX];
	acp_one_line(id, message, sizeof message);
	/* the last message of the turn is the answer */
	if (*message ? strcmp(message, acp->message) != 0 : acp->interrupted)
		buf_empty(&acp->response);
	memcpy(acp->message, message, sizeof message);
	acp->interrupted = false;
	ap_buf_add(&acp->response, ap_buf_text(piece), piece->len);
	if (acp->response.len > 2 * (size_t)ACP_RESPONSE_MAX)
		ap_buf_drop(&acp->response, acp->response.len - ACP_RESPONSE_MAX);
}

static void take_chunk(struct acp *acp, const json_t *update, bool thought)
{
	AP_CLEANUP_BUF struct ap_buf piece = {0};
	int said = thought ? SAID_THOUGHT : SAID_MESSAGE;
	if (acp->said != SAID_NOTHING && (int)acp->said != said)
		acp_end_line(acp);
	bool is_text = content_text(acp, json_object_get(update, "content"), &piece);
	if (piece.len == 0)
		return;
	if (thought && acp->said == SAID_NOTHING)
		ap_buf_adds(&acp->text, "[thought] ");
	acp->said = said;
	ap_buf_add(&acp->text, piece.data, piece.len);
	acp->line_open = piece.data[piece.len - 1] != '\n';
	if (is_text && !thought)
		keep_response(acp, json_object_get(update, "messageId"), &piece);
}

/* --- tool calls --- */

static struct acp_call *call_find(struct acp *acp, const char *id)
{
	for (unsigned i = 0; i < acp->n_calls; i++) {
		if (strcmp(acp->calls[i].id, id) == 0)
			return &acp->calls[i];
	}
	return NULL;
}

static const char *told(const struct acp_call *call, const char *name)
{
	const char *text = json_string_value(json_object_get(call->told, name));
	return text ? text : "";
}

static void call_forget(struct acp *acp, struct acp_call *call)
{
	json_decref(call->told);
	json_decref(call->permission);
	acp->n_calls--;
	memmove(call, call + 1, (size_t)(&acp->calls[acp->n_calls] - call) * sizeof *call);
}

/* Tells of a call for the last time. Where an earlier owner did, this one does not. */
static void call_end(struct acp *acp, struct acp_call *call)
{
	char when[32];
	time_t now = time(NULL);
	struct tm utc;
	strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
	json_t *line = json_pack("{s:s,s:s,s:o,s:O*}", "time", when, "id", call->id, "call",
				 json_deep_copy(call->told), "permission", call->permission);
	json_t *call_fields = json_object_get(line, "call");
	json_object_update_missing(line, call_fields); /* beside the id, in one object */
	json_object_del(line, "call");
	json_object_set_new(line, "at", json_integer(acp->at));
	if (line && acp->at > acp->calls_known) {
		char *text = json_dumps(line, JSON_COMPACT);
		ap_buf_adds(&acp->ended, text ? text : "");
		ap_buf_adds(&acp->ended, text ? "\n" : "");
		free(text);
	}
	json_decref(line);
	call_forget(acp, call);
}

void acp_end_calls(struct acp *acp)
{
	while (acp->n_calls > 0)
		call_end(acp, &acp->calls[0]);
}

void acp_forget_calls(struct acp *acp)
{
	while (acp->n_calls > 0)
		call_forget(acp, &acp->calls[0]);
}

static struct acp_call *call_add(struct acp *acp, const char *id)
{
	if (acp->n_calls == ACP_CALLS_MAX)
		call_end(acp, &acp->calls[0]);
	struct acp_call *call = &acp->calls[acp->n_calls];
	*call = (struct acp_call){.told = json_object()};
	strcpy(call->id, id);
	acp->n_calls += call->told != NULL;
	return call->told ? call : NULL;
}

/* Keeps a field as it is, if it is not too large. */
static void keep_field(struct acp_call *call, const char *name, json_t *value)
{
	if (!value || json_is_null(value))
		return;
	size_t size = json_dumpb(value, NULL, 0, JSON_COMPACT | JSON_ENCODE_ANY);
	if (size <= FIELD_MAX)
		json_object_set(call->told, name, value);
	else
		json_object_set_new(call->told, name,
				    json_sprintf("(%zu bytes, too long to be kept)", size));
}

static void keep_line(struct acp_call *call, const char *name, json_t *value)
{
	char line[QUESTION_TEXT_MAX];
	acp_one_line(value, line, sizeof line);
	if (*line)
		json_object_set_new(call->told, name, json_string(line));
}

static void add_path(json_t *paths, json_t *path)
{
	if (json_is_string(path) && json_array_size(paths) < LOCATIONS_MAX &&
	    json_string_length(path) < QUESTION_TEXT_MAX)
		json_array_append(paths, path);
}

/* The paths that the call is about: its locations, and the files that it changes. */
static void keep_paths(struct acp_call *call, const json_t *fields)
{
	json_t *paths = json_array(), *entry;
	size_t i;
	json_array_foreach(json_object_get(fields, "locations"), i, entry)
		add_path(paths, json_object_get(entry, "path"));
	json_array_foreach(json_object_get(fields, "content"), i, entry)
	{
		if (json_array_size(json_object_get(fields, "locations")) == 0)
			add_path(paths, json_object_get(entry, "path"));
	}
	if (json_array_size(paths) > 0)
		json_object_set(call->told, "locations", paths);
	json_decref(paths);
}

/* Keeps what the program says of a call; the fields that it leaves out stay as they were. NULL: it
 * has no id, or ENOMEM. */
static struct acp_call *call_keep(struct acp *acp, const json_t *fields)
{
	char id[ACP_ID_MAX];
	acp_one_line(json_object_get(fields, "toolCallId"), id, sizeof id);
	struct acp_call *call = *id ? call_find(acp, id) : NULL;
	if (*id && !call)
		call = call_add(acp, id);
	if (!call)
		return NULL;
	keep_line(call, "title", json_object_get(fields, "title"));
	keep_line(call, "kind", json_object_get(fields, "kind"));
	keep_line(call, "status", json_object_get(fields, "status"));
	keep_field(call, "input", json_object_get(fields, "rawInput"));
	keep_paths(call, fields);
	return call;
}

static void call_say(struct acp *acp, const struct acp_call *call, const char *how)
{
	AP_CLEANUP_BUF struct ap_buf line = {0};
	const char *kind = told(call, "kind");
	ap_buf_printf(&line, "%s%s%s", *told(call, "title") ? told(call, "title") : call->id,
		      *how ? ": " : "", how);
	acp_say(acp, *kind ? kind : "other", ap_buf_text(&line));
}

static void take_call(struct acp *acp, const json_t *update, bool is_new)
{
	struct acp_call *call = call_keep(acp, update);
	if (!call)
		return;
	const char *status = told(call, "status");
	bool ended = strcmp(status, "completed") == 0 || strcmp(status, "failed") == 0;
	acp->interrupted = true;
	if (is_new || ended)
		call_say(acp, call, ended ? status : "");
	if (ended)
		call_end(acp, call);
}

void acp_note_permission(struct acp *acp, const char *id, json_t *permission)
{
	struct acp_call *call = *id ? call_find(acp, id) : NULL;
	if (call && !call->permission)
		call->permission = json_incref(permission);
	json_decref(permission);
}

/* --- the plan --- */

static void take_plan(struct acp *acp, const json_t *update)
{
	size_t i;
	json_t *entry;
	buf_empty(&acp->plan);
	json_array_foreach(json_object_get(update, "entries"), i, entry)
	{
		char content[QUESTION_TEXT_MAX], status[32], priority[32];
		acp_one_line(json_object_get(entry, "content"), content, sizeof content);
		acp_one_line(json_object_get(entry, "status"), status, sizeof status);
		acp_one_line(json_object_get(entry, "priority"), priority, sizeof priority);
		if (acp->plan.len > PLAN_MAX)
			break;
		ap_buf_printf(&acp->plan, "%s %s %s\n", *status ? status : "-",
			      *priority ? priority : "-", content);
		AP_CLEANUP_BUF struct ap_buf line = {0};
		ap_buf_printf(&line, "%s: %s", *status ? status : "-", content);
		acp_say(acp, "plan", ap_buf_text(&line));
	}
}

/* --- all of them --- */

static void take_message_chunk(struct acp *acp, json_t *update)
{
	take_chunk(acp, update, false);
}

static void take_thought_chunk(struct acp *acp, json_t *update)
{
	take_chunk(acp, update, true);
}

static void take_tool_call(struct acp *acp, json_t *update)
{
	take_call(acp, update, true);
}

static void take_tool_call_update(struct acp *acp, json_t *update)
{
	take_call(acp, update, false);
}

static void take_plan_update(struct acp *acp, json_t *update)
{
	take_plan(acp, update);
}

void acp_take_update(struct acp *acp, json_t *update)
{
	static const struct {
		const char *name;
		void (*take)(struct acp *acp, json_t *update);
	} kinds[] = {
		{"agent_message_chunk", take_message_chunk},
		{"agent_thought_chunk", take_thought_chunk},
		{"tool_call", take_tool_call},
		{"tool_call_update", take_tool_call_update},
		{"plan", take_plan_update},
	};
	const char *name = json_string_value(json_object_get(update, "sessionUpdate"));
	for (size_t i = 0; name && i < sizeof kinds / sizeof *kinds; i++) {
		if (strcmp(name, kinds[i].name) == 0)
			kinds[i].take(acp, update);
	}
}

/* --- what it asks --- */

static const char *literal(const char *word, const char *const *words, const char *otherwise)
{
	for (; *words; words++) {
		if (strcmp(word, *words) == 0)
			return *words;
	}
	return otherwise;
}

/* Whether an id can be an option's word: printable, and no blank. */
static bool is_word(const char *id)
{
	size_t n = 0;
	while (isgraph((unsigned char)id[n]))
		n++;
	return n > 0 && id[n] == '\0' && n < sizeof((struct question_option *)0)->id;
}

/* Whether the id of an option that comes next names that: no option before it has it, and it is no
 * word that chooses another, or none. */
static bool is_only_id(const struct question *question, const struct question_option *option)
{
	static const char *const words[][2] = {
		{"allow", "allow_once"},
		{"always", "allow_always"},
		{"reject", "reject_once"},
		{"cancel", NULL},
	};
	bool is_first = true;
	for (unsigned i = 0; i < question->n_options; i++) {
		if (strcmp(question->options[i].id, option->id) == 0)
			return false;
		is_first = is_first && strcmp(question->options[i].kind, option->kind) != 0;
	}
	for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
		if (strcmp(words[i][0], option->id) == 0)
			return is_first && words[i][1] && strcmp(words[i][1], option->kind) == 0;
	}
	return *option->id != '\0';
}

static void add_option(const json_t *option, struct acp_pending *ret)
{
	static const char *const kinds[] = {"allow_once", "allow_always", "reject_once",
					    "reject_always", NULL};
	struct question *question = ret->question;
	const char *id = json_string_value(json_object_get(option, "optionId"));
	const char *kind = json_string_value(json_object_get(option, "kind"));
	unsigned n = question->n_options;
	if (!id || n == QUESTION_OPTIONS_MAX || !(ret->options[n] = strdup(id)))
		return;
	struct question_option *added = &question->options[n];
	*added = (struct question_option){.kind = literal(kind ? kind : "", kinds, "other")};
	snprintf(added->id, sizeof added->id, "%s", is_word(id) ? id : "");
	for (unsigned number = n + 1; !is_only_id(question, added); number++)
		snprintf(added->id, sizeof added->id, "%u", number);
	acp_one_line(json_object_get(option, "name"), added->name, sizeof added->name);
	question->n_options++;
}

/* What the call would do: its command, or the first of its paths. */
static void fill_detail(const struct acp_call *call, struct question *question)
{
	static const char *const names[] = {"command", "cmd", "file_path", "path", "url", "query"};
	const json_t *input = json_object_get(call->told, "input");
	for (size_t i = 0; i < sizeof names / sizeof *names && !question->detail[0]; i++)
		acp_one_line(json_object_get(input, names[i]), question->detail,
			     sizeof question->detail);
	if (!question->detail[0])
		acp_one_line(json_array_get(json_object_get(call->told, "locations"), 0),
			     question->detail, sizeof question->detail);
}

bool acp_fill_question(struct acp *acp, json_t *params, struct acp_pending *ret)
{
	struct acp_call *call = call_keep(acp, json_object_get(params, "toolCall"));
	struct question *question = calloc(1, sizeof *question);
	json_t *option;
	size_t i;
	ret->question = question;
	if (!question || !call)
		return false;
	strcpy(ret->call, call->id);
	snprintf(question->title, sizeof question->title, "%s",
		 *told(call, "title") ? told(call, "title") : call->id);
	int kind = ap_permission_kind(told(call, "kind"));
	question->kind = kind >= 0 ? ap_permission_kinds[kind] : "other";
	fill_detail(call, question);
	json_array_foreach(json_object_get(params, "options"), i, option) add_option(option, ret);
	return question->n_options > 0;
}
