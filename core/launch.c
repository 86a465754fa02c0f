/* Starting an agent's program, and the commands that come before and after it: their environment,
 * their output, their time limits. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cleanup.h"
#include "file.h"
#include "jobs_internal.h"
#include "process.h"
#include "seed.h"

/* Ports of agents: below those that the kernel gives out by itself, from 32768 on. */
#define PORT_FIRST 20000
#define PORTS	   12000

/* --- words with what they mean for one agent --- */

/* The words of a command line or an environment, with a NULL behind them. */
struct words {
	char **at; /* each owned */
	unsigned n;
	bool failed; /* one was lost to ENOMEM */
};

static void words_fini(struct words *words)
{
	for (unsigned i = 0; i < words->n; i++)
		free(words->at[i]);
	free(words->at);
}

#define CLEANUP_WORDS __attribute__((cleanup(words_fini)))

/* Takes the text over. */
static void words_add(struct words *words, struct ap_buf *text)
{
	char **grown = realloc(words->at, (words->n + 2) * sizeof *grown);
	if (grown)
		words->at = grown;
	ap_buf_adds(text, "");
	words->failed = words->failed || !grown || text->failed || !text->data;
	if (words->failed) {
		ap_buf_fini(text);
		return;
	}
	words->at[words->n++] = ap_steal(text->data);
	words->at[words->n] = NULL;
	*text = (struct ap_buf){0};
}

static void words_addf(struct words *words, const char *name, const char *value)
{
	struct ap_buf text = {0};
	ap_buf_printf(&text, "%s=%s", name, value);
	words_add(words, &text);
}

/* What a name stands for in a profile: of this agent, else of the environment. */
static void add_variable(const struct ap_agent *agent, const char *name, struct ap_buf *ret)
{
	const struct ap_pool *pool = agent->pool;
	const char *value = getenv(name);
	if (strcmp(name, "DIR") == 0)
		value = agent->dir;
	else if (strcmp(name, "NAME") == 0)
		value = agent->name;
	else if (strcmp(name, "WORKTREE") == 0)
		value = agent->worktree_path;
	else if (strcmp(name, "WORKTREES") == 0) {
		ap_buf_printf(ret, "%s/worktrees", pool->state_dir);
		return;
	} else if (strcmp(name, "REPO") == 0)
		value = pool->repo.main_path;
	ap_buf_adds(ret, value ? value : "");
}

/* The closing brace of what begins behind "${". NULL: there is none. */
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

static void expand(const struct ap_agent *agent, const char *text, size_t len, struct ap_buf *ret);

/* "NAME" or "NAME:-OTHERWISE" */
static void expand_one(const struct ap_agent *agent, const char *text, size_t len,
		       struct ap_buf *ret)
{
	char name[64];
	size_t n = strcspn(text, ":}");
	if (n > len)
		n = len;
	snprintf(name, sizeof name, "%.*s", (int)n, text);
	size_t before = ret->len;
	add_variable(agent, name, ret);
	if (ret->len == before && len > n + 2 && strncmp(text + n, ":-", 2) == 0)
		expand(agent, text + n + 2, len - n - 2, ret);
}

/* Puts what they stand for in place of ${NAME} and ${NAME:-OTHERWISE}. */
static void expand(const struct ap_agent *agent, const char *text, size_t len, struct ap_buf *ret)
{
	const char *end = text + len;
	while (text < end) {
		const char *close =
			text[0] == '$' && text[1] == '{' ? closing_brace(text + 2) : NULL;
		if (close && close < end) {
			expand_one(agent, text + 2, (size_t)(close - text - 2), ret);
			text = close + 1;
		} else {
			ap_buf_add(ret, text++, 1);
		}
	}
}

static void words_expand(struct words *words, const struct ap_agent *agent, const char *text)
{
	struct ap_buf word = {0};
	expand(agent, text, strlen(text), &word);
	words_add(words, &word);
}

/* What the profile says of PATH: "NAME=VALUE", or the name alone. NULL: nothing. */
static const char *profile_path(const struct ap_pool *pool)
{
	const struct profile_words *env = &profile_values(pool->profile)->env;
	const char *found = NULL;
	for (unsigned i = 0; i < env->n; i++) {
		if (strcmp(env->at[i], "PATH") == 0 || strncmp(env->at[i], "PATH=", 5) == 0)
			found = env->at[i];
	}
	return found;
}

/* What an agent's programs find in their environment; a NAME alone is taken out of it. */
static int agent_env(struct words *ret, const struct ap_agent *agent, struct ap_err *err)
{
	const struct profile_words *more = &profile_values(agent->pool->profile)->env;
	AP_CLEANUP_BUF struct ap_buf dir = {0};
	char port[16];
	ap_buf_printf(&dir, "%s/agents/%s", agent->pool->mountpoint, agent->name);
	snprintf(port, sizeof port, "%u", agent->port);
	words_addf(ret, "AGENTPOOL_DIR", ap_buf_text(&dir));
	words_addf(ret, "AGENTPOOL_NAME", agent->name);
	words_addf(ret, "AGENTPOOL_WORKTREE", agent->worktree.path);
	words_addf(ret, "AGENTPOOL_PORT", port);
	if (!profile_path(agent->pool) && getenv("PATH")) /* not that of an older tmux server */
		words_addf(ret, "PATH", getenv("PATH"));
	for (unsigned i = 0; i < more->n; i++)
		words_expand(ret, agent, more->at[i]);
	return ret->failed || dir.failed ? ap_err_errno(err, -ENOMEM, "%s", agent->name) : 0;
}

/* The program, the arguments of its profile, then the user's own. */
static int agent_argv(struct words *ret, const struct ap_agent *agent, struct ap_err *err)
{
	const struct profile_words *more = &profile_values(agent->pool->profile)->args;
	const char *const *own = agent->pool->argv;
	for (const char *const *word = own; *word; word++) {
		struct ap_buf text = {0};
		ap_buf_adds(&text, *word);
		words_add(ret, &text);
		for (unsigned i = 0; word == own && i < more->n; i++)
			words_expand(ret, agent, more->at[i]);
	}
	return ret->failed ? ap_err_errno(err, -ENOMEM, "%s", agent->name) : 0;
}

/* The files that the profile has an agent have. */
static int write_files(const struct ap_agent *agent, struct ap_err *err)
{
	const struct profile_pairs *files = &profile_values(agent->pool->profile)->files;
	for (unsigned i = 0; i < files->n; i++) {
		AP_CLEANUP_BUF struct ap_buf path = {0};
		AP_CLEANUP_BUF struct ap_buf text = {0};
		const char *value = files->at[i].value;
		ap_buf_printf(&path, "%s/%s", agent->dir, files->at[i].name);
		expand(agent, value, strlen(value), &text);
		int r = path.failed || text.failed
				? ap_err_errno(err, -ENOMEM, "%s", agent->name)
				: file_write(ap_buf_text(&path), ap_buf_text(&text), text.len, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* --- settings that the program needs to be asked nothing --- */

/* Puts what a string of JSON says in place of its variables. */
static void expand_json(void *data, const char *text, struct ap_buf *ret)
{
	expand(data, text, strlen(text), ret);
}

static void seed_settings(struct ap_agent *agent)
{
	struct ap_pool *pool = agent->pool;
	const struct profile_pairs *seeds = &profile_values(pool->profile)->seeds;
	for (unsigned i = 0; i < seeds->n; i++) {
		AP_CLEANUP_BUF struct ap_buf path = {0};
		struct ap_err err = {""};
		expand(agent, seeds->at[i].name, strlen(seeds->at[i].name), &path);
		if (seed_json(ap_buf_text(&path), seeds->at[i].value, expand_json, agent, &err) < 0)
			events_add(pool->events, "seed_failed",
				   EVENT_FIELDS({"reason", err.text, 0}));
	}
}

/* Before the first program starts; others wait for it. */
static void seed_once(struct ap_agent *agent)
{
	struct ap_pool *pool = agent->pool;
	pthread_mutex_lock(&pool->seeding);
	if (!pool->seeded)
		seed_settings(agent);
	pool->seeded = true;
	pthread_mutex_unlock(&pool->seeding);
}

/* --- commands --- */

#define TOLD_KEPT (64 << 10) /* bytes: of what a command printed, the last are looked at */

/* What a command said, of what a file has from an offset on. */
static void what_it_said(int fd, off_t from, struct ap_buf *ret)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	off_t end = lseek(fd, 0, SEEK_END);
	off_t at = end - TOLD_KEPT > from ? end - TOLD_KEPT : from;
	if (end <= at || !ap_buf_reserve(&text, (size_t)(end - at)))
		return;
	ssize_t n = pread(fd, text.data, (size_t)(end - at), at);
	ap_text_gist(text.data, n > 0 ? (size_t)n : 0, ret);
}

/* Runs the command of an option in the agent's worktree, as its programs are run, what it prints
 * into the agent's output. Whatever it leaves in its process group ends with it. */
static int run_command(struct ap_agent *agent, enum ap_option option, struct ap_err *err)
{
	struct ap_pool *pool = agent->pool;
	AP_CLEANUP_FREE char *command = config_text(pool, option);
	AP_CLEANUP_BUF struct ap_buf raw = {0};
	CLEANUP_WORDS struct words env = {NULL, 0, false};
	if (!command)
		return ap_err_errno(err, -ENOMEM, "%s", agent->name);
	if (!*command)
		return 0;
	output_raw_path(agent, &raw);
	AP_CLEANUP_CLOSE int log = file_open(ap_buf_text(&raw), O_RDWR | O_APPEND | O_NOFOLLOW, 0);
	if (log < 0)
		return ap_err_errno(err, log, "%s", ap_buf_text(&raw));
	int r = agent_env(&env, agent, err);
	if (r < 0)
		return r;
	off_t from = lseek(log, 0, SEEK_END);
	r = process_run(
		&(struct process_run){
			.argv = (const char *const[]){"/bin/sh", "-c", command, NULL},
			.env = (const char *const *)env.at,
			.dir = agent->worktree.path,
			.limit_ns = ap_pool_config_number(pool, AP_OPT_SPAWN_TIMEOUT),
			.log_fd = log,
			.kill_group = true,
		},
		err);
	if (r > 0) {
		AP_CLEANUP_BUF struct ap_buf said = {0};
		what_it_said(log, from, &said);
		r = ap_err_set(err, -EIO, "exit code %d%s%s", r, said.len ? ": " : "",
			       ap_buf_text(&said));
	}
	if (r < 0)
		ap_err_wrap(err, r, "%s", ap_options[option].name);
	return r;
}

int launch_setup(struct ap_agent *agent, struct ap_err *err)
{
	AP_CLEANUP_FREE char *command = config_text(agent->pool, AP_OPT_SETUP);
	struct layer_list *before;
	if (!command || !*command)
		return command ? 0 : ap_err_errno(err, -ENOMEM, "%s", agent->name);
	int r = worktree_before_setup(&agent->worktree, &before, err);
	if (r < 0)
		return r;
	r = run_command(agent, AP_OPT_SETUP, err);
	int noted = worktree_after_setup(&agent->worktree, before, r < 0 ? NULL : err);
	return r < 0 ? r : noted;
}

void launch_teardown(struct ap_agent *agent)
{
	struct ap_err err = {""};
	AP_CLEANUP_BUF struct ap_buf raw = {0};
	if (agent->n_starts == 0 || run_command(agent, AP_OPT_TEARDOWN, &err) == 0)
		return;
	output_raw_path(agent, &raw);
	AP_CLEANUP_CLOSE int log =
		file_open(ap_buf_text(&raw), O_WRONLY | O_APPEND | O_NOFOLLOW, 0);
	if (log >= 0) /* fails on a full disk */
		(void)dprintf(log, "agentpoolfs: %s\n", err.text);
}

/* --- the program --- */

static int start_program(struct ap_agent *agent, enum launch_kind kind, struct ap_err *err)
{
	struct ap_pool *pool = agent->pool;
	const struct backend_ops *ops = pool->backend->ops;
	AP_CLEANUP_BUF struct ap_buf raw = {0};
	CLEANUP_WORDS struct words env = {NULL, 0, false};
	CLEANUP_WORDS struct words argv = {NULL, 0, false};
	int r = agent_env(&env, agent, err);
	if (r == 0)
		r = agent_argv(&argv, agent, err);
	if (r < 0)
		return r;
	output_raw_path(agent, &raw);
	struct backend_spawn spawn = {
		.name = agent->name,
		.dir = agent->worktree.path,
		.argv = (const char *const *)argv.at,
		.env = (const char *const *)env.at,
		.record_dir = agent->dir,
		.output_file = ap_buf_text(&raw),
		.by_lines = profile_values(pool->profile)->stream,
	};
	agent->input_cut = false; /* what was written to the one before is gone with it */
	agent_starts(agent);
	return kind == LAUNCH_FIRST ? ops->spawn(pool->backend, &spawn, &agent->terminal, err)
				    : ops->respawn(pool->backend, &spawn, &agent->terminal, err);
}

int launch_program(struct ap_agent *agent, enum launch_kind kind, struct ap_err *err)
{
	int r = kind == LAUNCH_AGAIN ? 0 : output_begin(agent, err);
	if (r == 0 && kind != LAUNCH_AGAIN) /* the worktree is new */
		r = launch_setup(agent, err);
	if (r == 0)
		r = write_files(agent, err);
	if (r < 0)
		return r;
	seed_once(agent);
	r = start_program(agent, kind, err);
	return r < 0 ? ap_err_wrap(err, r, "starting %s", agent->name) : agent_started(agent, err);
}

/* A port for the agent's own use: one that nobody listens on now, and no other agent of the pool
 * has. Pools begin at places of their own, as far as chance has it. */
void launch_choose_port(struct ap_agent *agent)
{
	struct ap_pool *pool = agent->pool;
	unsigned first = (unsigned)(ap_hash(pool->state_dir) % PORTS),
		 n_slots = pool->view->n_slots;
	for (unsigned tries = 0; tries < PORTS / n_slots; tries++) {
		unsigned port = PORT_FIRST + (first + tries * n_slots + agent->slot) % PORTS;
		struct sockaddr_in address = {.sin_family = AF_INET,
					      .sin_port = htons((uint16_t)port),
					      .sin_addr = {htonl(INADDR_LOOPBACK)}};
		AP_CLEANUP_CLOSE int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		bool free_now =
			fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
		bool taken = false;
		pthread_mutex_lock(&pool->lock);
		for (unsigned i = 0; i < n_slots; i++)
			taken = taken || (pool->agents[i] && pool->agents[i]->port == port);
		if (free_now && !taken)
			agent->port = port;
		pthread_mutex_unlock(&pool->lock);
		if (agent->port)
			return;
	}
}

bool launch_path(const struct ap_pool *pool, struct ap_buf *ret)
{
	const char *word = profile_path(pool);
	const struct ap_agent nobody = {.pool = (struct ap_pool *)pool, .dir = (char *)""};
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
