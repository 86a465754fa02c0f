/* What is typed into an agent's terminal: prompts, keys; and the program started again by hand. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "file.h"
#include "jobs_internal.h"

/* Longest line that a terminal in canonical mode takes whole: N_TTY_BUF_SIZE less its end. */
#define CANONICAL_LINE 4095
/* Keys of one write: a line has 4096 bytes at most, and a blank between two. */
#define KEYS_MAX 2048

/* Line ends become newlines, and what could drive the terminal is left out: a prompt is text. */
static size_t clean_text(char *text, size_t len)
{
	size_t n = 0;
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];
		if (c == '\r') {
			if (i + 1 < len && text[i + 1] == '\n')
				continue;
			c = '\n';
		}
		if (c == '\n' || c == '\t' || (c >= 0x20 && c != 0x7f))
			text[n++] = (char)c;
	}
	if (n > 0 && text[n - 1] == '\n')
		n--; /* the shell's own */
	return n;
}

static bool has_long_line(const char *text, size_t len)
{
	while (len > 0) {
		const char *newline = memchr(text, '\n', len);
		size_t line = newline ? (size_t)(newline - text) : len;
		if (line > CANONICAL_LINE)
			return true;
		if (!newline)
			break;
		len -= line + 1;
		text = newline + 1;
	}
	return false;
}

/* A program that draws its own input takes a moment to show a paste, and an Enter before that would
 * be part of it. Waits until the screen shows something new and stays, or long enough for one that
 * shows nothing. */
static void await_settled(struct ap_agent *agent, const struct ap_buf *before)
{
	struct ap_pool *pool = agent->pool;
	AP_CLEANUP_BUF struct ap_buf last = {0};
	int64_t start = ap_clock_ns();
	for (;;) {
		struct ap_buf now = {0};
		poll(NULL, 0, 60);
		int r = pool->backend->ops->capture(pool->backend, &agent->terminal, &now, NULL);
		bool same = strcmp(ap_buf_text(&now), ap_buf_text(&last)) == 0;
		bool shown = strcmp(ap_buf_text(&now), ap_buf_text(before)) != 0;
		ap_buf_fini(&last);
		last = now;
		int64_t waited = ap_clock_ns() - start;
		if (r < 0 || (same && shown) || waited > (shown ? 4 : 1) * AP_SECOND)
			return;
	}
}

static int type_prompt(struct ap_agent *agent, char *text, size_t len, struct ap_err *err)
{
	struct ap_pool *pool = agent->pool;
	const struct backend_ops *ops = pool->backend->ops;
	static const char *const enter[] = {"Enter", NULL};
	AP_CLEANUP_BUF struct ap_buf file = {0};
	AP_CLEANUP_BUF struct ap_buf before = {0};
	len = clean_text(text, len);
	if (has_long_line(text, len) && ops->canonical(pool->backend, &agent->terminal))
		return ap_err_set(err, -EMSGSIZE,
				  "a line over %d bytes would be cut by the terminal of %s",
				  CANONICAL_LINE, agent->name);
	ap_buf_printf(&file, "%s/prompt", agent->dir);
	int r = 0;
	if (len > 0) {
		r = file_write(ap_buf_text(&file), text, len, err);
		if (r == 0 && !pool->is_shell)
			r = ops->capture(pool->backend, &agent->terminal, &before, err);
		if (r == 0)
			r = ops->paste(pool->backend, &agent->terminal, ap_buf_text(&file), err);
		unlink(ap_buf_text(&file));
		if (r == 0 && !pool->is_shell)
			await_settled(agent, &before);
	}
	if (r < 0)
		return r;
	pthread_mutex_lock(&pool->lock);
	agent->entered_ns = ap_clock_ns();
	pthread_mutex_unlock(&pool->lock);
	return ops->keys(pool->backend, &agent->terminal, enter, err);
}

static struct prompt *first_prompt(struct ap_agent *agent)
{
	struct prompt *prompt = NULL;
	pthread_mutex_lock(&agent->pool->lock);
	if (!ap_list_empty(&agent->prompts)) {
		prompt = ap_container_of(agent->prompts.next, struct prompt, link);
		ap_list_remove(&prompt->link);
		agent->n_prompts_queued--;
		agent->prompt_bytes -= prompt->len;
	}
	pthread_mutex_unlock(&agent->pool->lock);
	return prompt;
}

static void job_prompt(struct worker_job *job)
{
	struct ap_agent *agent = ap_container_of(job, struct ap_agent, prompt_job);
	struct ap_pool *pool = agent->pool;
	struct ap_err err = {""};
	struct prompt *prompt = first_prompt(agent); /* NULL: its lease has ended */
	if (prompt)
		type_prompt(agent, prompt->text, prompt->len, &err);
	free(prompt);
	pthread_mutex_lock(&pool->lock);
	agent->delivering = false;
	agent->prompt_error = err;
	agent->recheck_ns = ap_clock_ns();
	pthread_mutex_unlock(&pool->lock);
	maintenance_poke(pool);
}

void job_prompt_locked(struct ap_agent *agent)
{
	agent->delivering = true;
	agent_submit(agent, &agent->prompt_job, job_prompt);
}

static void job_keys(struct worker_job *worker_job)
{
	struct agent_job *job = ap_container_of(worker_job, struct agent_job, job);
	struct ap_pool *pool = job->agent->pool;
	const char *keys[KEYS_MAX + 1];
	size_t n = 0;
	char *cursor = job->keys;
	while (n < KEYS_MAX && (keys[n] = ap_word_next(&cursor)))
		n++;
	keys[n] = NULL;
	if (n > 0)
		pool->backend->ops->keys(pool->backend, &job->agent->terminal, keys, NULL);
	agent_job_free(job);
}

static int same_lease(struct ap_pool *pool, struct ap_agent *agent, uint64_t token,
		      struct ap_err *err)
{
	pthread_mutex_lock(&pool->lock);
	bool same = token == 0 || token == pool->machine.slots[agent->slot].token;
	pthread_mutex_unlock(&pool->lock);
	return pool_refused(same ? 0 : -ESTALE, err);
}

int ap_agent_keys(struct ap_pool *pool, struct ap_agent *agent, uint64_t token, const char *keys,
		  struct ap_err *err)
{
	int r = agent_running(pool, agent, false, err);
	if (r == 0)
		r = same_lease(pool, agent, token, err);
	if (r < 0)
		return r;
	struct agent_job *job = agent_job_new(agent, NULL, job_keys, keys);
	if (!job)
		return ap_err_errno(err, -ENOMEM, "keys");
	agent_job_in_lane(job);
	return 0;
}

static void job_restart(struct worker_job *worker_job)
{
	struct agent_job *job = ap_container_of(worker_job, struct agent_job, job);
	struct ap_agent *agent = job->agent;
	struct ap_err err = {""};
	int r = agent_end_program(agent, &err);
	if (r == 0)
		r = launch_program(agent, LAUNCH_AGAIN, &err);
	if (r < 0)
		agent_restart_failed(agent, &err);
	agent_job_free(job);
}

int ap_agent_restart(struct ap_pool *pool, struct ap_agent *agent, struct ap_err *err)
{
	int r = agent_running(pool, agent, true, err);
	if (r < 0)
		return r;
	struct agent_job *job = agent_job_new(agent, NULL, job_restart, "");
	if (!job)
		return ap_err_errno(err, -ENOMEM, "restart");
	agent_restarts(agent);
	agent_job_in_lane(job);
	return 0;
}
