/* Command lines, one each for acquire, release, scale and a table of commands; the pool behind them
 * is none, and takes all that it is asked. */
#include "fuzz.h"

#include <errno.h>
#include <inttypes.h>

#include "../../fs/control.c"

#define CENTURY (INT64_C(100) * 366 * 86400 * AP_SECOND)

static struct ap_acquire asked;
static unsigned n_asked, n_run, n_submitted;

int ap_pool_acquire(struct ap_pool *pool, const struct ap_acquire *acquire,
		    struct ap_request *request, struct ap_err *err)
{
	asked = *acquire;
	n_asked++;
	return 0;
}

int ap_pool_release(struct ap_pool *pool, const char *lease, bool discard, uid_t uid,
		    struct ap_request *request, struct ap_err *err)
{
	HOLDS(*lease && !strpbrk(lease, " \t"));
	n_asked++;
	return 0;
}

int ap_pool_may_release(struct ap_pool *pool, const char *lease, uid_t uid, struct ap_err *err)
{
	return 0;
}

int ap_pool_scale(struct ap_pool *pool, int target, struct ap_request *request, struct ap_err *err)
{
	HOLDS(target >= -1 && target <= 4096);
	n_asked++;
	return 0;
}

void ap_pool_stats(struct ap_pool *pool, struct ap_stats *ret)
{
	*ret = (struct ap_stats){.n_total = 3, .target = -1};
}

static int run(const struct tree_call *call)
{
	n_run++;
	return 0;
}

static int submit(const struct tree_call *call, const char *words, struct ap_request *request)
{
	HOLDS(!*words);
	n_submitted++;
	return 0;
}

static int submit_words(const struct tree_call *call, const char *words, struct ap_request *request)
{
	HOLDS(*words && *words != ' ' && *words != '\t');
	n_submitted++;
	return 0;
}

/* An answer with its sentence, and either asked once or refused. */
static void answer_holds(int r, const struct tree_call *call, unsigned n)
{
	HOLDS(r == 0 || r == 1 || r == -EINVAL || r == -ERANGE);
	HOLDS((r < 0) == (call->err->text[0] != '\0'));
	HOLDS(n == (r >= 0));
}

static void word_holds(const char *word, size_t size)
{
	HOLDS(memchr(word, '\0', size));
	HOLDS(!strpbrk(word, " \t"));
}

static void add_word(struct ap_buf *line, const char *key, const char *value)
{
	if (*value)
		ap_buf_printf(line, "%s%s ", key, value);
}

static void add_duration(struct ap_buf *line, const char *key, int64_t ns)
{
	char text[32];
	if (ns < 0)
		return;
	ap_duration_format(ns, text, sizeof text);
	add_word(line, key, text);
}

/* What was asked for, written anew, asks for the same. */
static void asks_again(struct tree_call *call)
{
	AP_CLEANUP_BUF struct ap_buf line = {0};
	struct ap_acquire first = asked;
	ap_buf_adds(&line, "");
	add_word(&line, "", first.label);
	add_duration(&line, "timeout=", first.timeout_ns);
	add_duration(&line, "ttl=", first.ttl_ns);
	if (first.holder)
		ap_buf_printf(&line, "pid=%d ", (int)first.holder);
	add_word(&line, "agent=", first.agent);
	add_word(&line, "affinity=", first.affinity);
	add_word(&line, "base=", first.base);
	if (first.permission >= 0) {
		char word[AP_PERMISSION_MAX];
		ap_permission_format((uint32_t)first.permission, word, sizeof word);
		add_word(&line, "permission=", word);
	}
	HOLDS(control_acquire(call, line.data, NULL) == 0);
	HOLDS(strcmp(first.label, asked.label) == 0 && strcmp(first.agent, asked.agent) == 0);
	HOLDS(strcmp(first.affinity, asked.affinity) == 0 && strcmp(first.base, asked.base) == 0);
	HOLDS(first.timeout_ns == asked.timeout_ns && first.ttl_ns == asked.ttl_ns);
	HOLDS(first.holder == asked.holder && first.permission == asked.permission);
}

static void acquire_holds(struct tree_call *call, char *line)
{
	n_asked = 0;
	int r = control_acquire(call, line, NULL);
	answer_holds(r, call, n_asked);
	if (r < 0)
		return;
	HOLDS(!asked.label[0] || ap_label_valid(asked.label));
	HOLDS(asked.timeout_ns >= -1 && asked.timeout_ns <= CENTURY);
	HOLDS(asked.permission >= -1 && asked.permission <= (int)AP_PERMISSION_REJECT);
	HOLDS(asked.ttl_ns >= -1 && asked.ttl_ns <= CENTURY && asked.holder >= 0);
	word_holds(asked.agent, sizeof asked.agent);
	word_holds(asked.affinity, sizeof asked.affinity);
	word_holds(asked.base, sizeof asked.base);
	asks_again(call);
}

static void command_holds(struct tree_call *call, char *line)
{
	static const struct control_command commands[] = {
		{"maintain", "one pass now", .run = run},
		{"drain", "end all", .submit = submit},
		{"commit", "with words", .submit = submit_words, .takes = "MESSAGE"},
		{0},
	};
	n_run = n_submitted = 0;
	int r = control_run(commands, call, line, NULL);
	answer_holds(r, call, n_run + n_submitted);
	HOLDS(r < 0 || n_submitted == (r == TREE_PENDING));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = {data, size};
	char *text = fuzz_text(&input);
	for (int i = 0; i < 4; i++) {
		char *line = fuzz_copy(text, strlen(text));
		struct ap_err err = {""};
		struct tree_call call = {.uid = 1000, .err = &err};
		n_asked = 0;
		if (i == 0)
			acquire_holds(&call, line);
		else if (i == 1)
			answer_holds(control_release(&call, line, NULL), &call, n_asked);
		else if (i == 2)
			answer_holds(control_scale(&call, line, NULL), &call, n_asked);
		else
			command_holds(&call, line);
		free(line);
	}
	free(text);
	return 0;
}
