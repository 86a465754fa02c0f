/* The sandbox of a session's program: which paths it has, of the machine's, the profile's, the
 * user's and the agent's own. What a sandbox is made of is sandbox.h. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "file.h"
#include "mounts.h"
#include "process.h"
#include "sandbox.h"
#include "session_internal.h"
#include "text.h"

#define RENEW_LIMIT (10 * AP_SECOND)

int session_set_wall(struct session *session, const char *hide, const char *env)
{
	char *hides = strdup(hide), *names = strdup(env);
	if (!hides || !names) {
		free(hides);
		free(names);
		return -ENOMEM;
	}
	free(session->hide);
	free(session->env);
	session->hide = hides;
	session->env = names;
	return 0;
}

/* --- paths --- */

/* Appends a path with the home directory in place of ~ at its beginning. */
static void add_home(const char *path, struct ap_buf *ret)
{
	const char *home = getenv("HOME");
	bool at_home = path[0] == '~' && (path[1] == '/' || path[1] == '\0');
	if (at_home)
		ap_buf_adds(ret, home ? home : "/nonexistent");
	ap_buf_adds(ret, path + at_home);
}

/* What the program is started from, should it lie where a sandbox is empty: the directories of
 * PATH, the home directory, the repository, and the files that the command line names. */
static void add_reads(const struct session *session, const struct session_wall *wall,
		      struct sandbox_plan *plan)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	const char *home = getenv("HOME");
	(void)session_path(session->host, &path); /* one that only a worktree could tell is in it */
	AP_CLEANUP_FREE char *dirs = strdup(ap_buf_text(&path));
	char *rest = dirs;
	for (char *dir; (dir = strsep(&rest, ":"));)
		sandbox_add(&plan->reads, dir);
	for (const char *const *word = session->host->argv; *word; word++)
		sandbox_add(&plan->reads, *word);
	sandbox_add(&plan->reads, home ? home : "");
	sandbox_add(&plan->reads, wall->repo);
	sandbox_add(&plan->reads, wall->git_dir);
	sandbox_add(&plan->reads, "/etc/resolv.conf"); /* often a link into /run */
}

static void add_write(struct sandbox_plan *plan, char *path)
{
	size_t len = strlen(path);
	bool is_dir = len > 1 && path[len - 1] == '/';
	while (len > 1 && path[len - 1] == '/')
		path[--len] = '\0';
	if (sandbox_may_change(plan, path)) /* what is there may be an agent's link to anywhere */
		return;
	if (is_dir)
		(void)file_make_dirs(path, NULL); /* else it is not there */
	sandbox_add(&plan->writes, path);
}

static int by_length(const void *a, const void *b)
{
	size_t x = strlen(*(char *const *)a), y = strlen(*(char *const *)b);
	return (x > y) - (x < y);
}

/* What the profile lists; a directory, which a / at the end says it is, is made. A directory comes
 * before what is in it. */
static void add_writes(const struct session *session, struct sandbox_plan *plan)
{
	const struct profile_words *writes = &profile_values(session->host->profile)->writes;
	AP_CLEANUP_WORDS struct ap_words paths = {NULL, 0, false};
	for (unsigned i = 0; i < writes->n; i++) {
		AP_CLEANUP_BUF struct ap_buf text = {0};
		AP_CLEANUP_BUF struct ap_buf path = {0};
		expand(session, writes->at[i], strlen(writes->at[i]), &text);
		add_home(ap_buf_text(&text), &path);
		ap_words_add(&paths, ap_buf_text(&path));
	}
	if (paths.n > 0)
		qsort(paths.at, paths.n, sizeof *paths.at, by_length);
	for (unsigned i = 0; i < paths.n; i++)
		add_write(plan, paths.at[i]);
	plan->writes.failed = plan->writes.failed || paths.failed;
}

/* The state directories of the user's pools: links in that place lead to those elsewhere. */
static void hide_pools(struct sandbox_plan *plan)
{
	const char *state = getenv("XDG_STATE_HOME");
	AP_CLEANUP_BUF struct ap_buf parent = {0};
	struct dirent *entry;
	add_home(state && state[0] == '/' ? state : "~/.local/state", &parent);
	ap_buf_adds(&parent, "/agentpoolfs");
	sandbox_hide(plan, ap_buf_text(&parent));
	DIR *entries = opendir(ap_buf_text(&parent));
	while (entries && (entry = readdir(entries))) {
		AP_CLEANUP_BUF struct ap_buf path = {0};
		if (entry->d_type != DT_LNK)
			continue;
		ap_buf_printf(&path, "%s/%s", ap_buf_text(&parent), entry->d_name);
		sandbox_hide(plan, ap_buf_text(&path));
	}
	if (entries)
		closedir(entries);
}

static void add_hides(const struct session *session, const struct session_wall *wall,
		      struct sandbox_plan *plan)
{
	AP_CLEANUP_FREE char *words = strdup(session->hide ? session->hide : "");
	char *rest = words;
	hide_pools(plan);
	sandbox_hide(plan, wall->state_dir);
	for (const char *word; words && (word = ap_word_next(&rest));) {
		AP_CLEANUP_BUF struct ap_buf path = {0};
		add_home(word, &path);
		sandbox_hide(plan, ap_buf_text(&path));
	}
}

static void add_below(struct ap_words *paths, const char *dir, const char *name)
{
	AP_CLEANUP_BUF struct ap_buf path = {0};
	ap_buf_printf(&path, "%s/%s", dir, name);
	sandbox_add(paths, ap_buf_text(&path));
}

/* What of the agent's and the repository's is there although the state directory is not. */
static void add_own(const struct session *session, const struct session_wall *wall,
		    struct sandbox_plan *plan)
{
	add_below(&plan->keeps, wall->git_dir, "objects");
	add_below(&plan->keeps, wall->git_dir, "lfs");
	sandbox_add(&plan->keeps, session->dir);
	add_below(&plan->owns, session->dir, SESSION_LEFT);
	sandbox_add(&plan->owns, session->cwd);
	sandbox_add(&plan->owns, session->git_dir);
}

/* --- environment --- */

/* The user's patterns; then what the profile lets through, and what the pool itself sets. */
static void add_patterns(const struct session *session, struct ap_words *ret)
{
	const struct profile_values *profile = profile_values(session->host->profile);
	AP_CLEANUP_FREE char *words = strdup(session->env ? session->env : "");
	char *rest = words;
	for (const char *word; words && (word = ap_word_next(&rest));)
		ap_words_add(ret, word);
	for (unsigned i = 0; i < profile->passes.n; i++)
		ap_words_add(ret, profile->passes.at[i]);
	for (unsigned i = 0; i < profile->env.n; i++) {
		AP_CLEANUP_BUF struct ap_buf name = {0};
		ap_buf_add(&name, profile->env.at[i], strcspn(profile->env.at[i], "="));
		ap_words_take(ret, &name);
	}
	ap_words_add(ret, "AGENTPOOL_*");
	ret->failed = ret->failed || !words;
}

/* --- the whole --- */

static bool is_served(const struct session *session)
{
	AP_CLEANUP_BUF struct ap_buf table = {0};
	char type[MOUNTS_TYPE_MAX];
	return !atomic_load(&session->host->unserved) && mounts_read(0, &table) == 0 &&
	       mounts_type_at(ap_buf_text(&table), session->host->mountpoint, type) &&
	       strcmp(type, "fuse.agentpoolfs") == 0;
}

int wall_make(const struct session *session, const char *name, struct wall *ret, struct ap_err *err)
{
	const struct session_wall *wall = session->host->wall;
	bool served = is_served(session);
	struct sandbox_plan plan = {
		.bwrap = wall->bwrap,
		.network = wall->network,
		.uid = geteuid(),
		.dir = session->cwd,
		.pool = served ? session->host->mountpoint : NULL,
	};
	*ret = (struct wall){.shim = {.words = NULL}};
	sandbox_begin(&plan);
	add_reads(session, wall, &plan);
	add_writes(session, &plan);
	add_hides(session, wall, &plan);
	add_own(session, wall, &plan);
	ap_buf_printf(&ret->words, "%s/%s", session->dir, name);
	int r = sandbox_write(&plan, ap_buf_text(&ret->words), err);
	sandbox_plan_fini(&plan);
	add_patterns(session, &ret->patterns);
	ap_buf_printf(&ret->place, "%s/agents/%s", session->host->mountpoint, session->name);
	if (r == 0 && (ret->words.failed || ret->place.failed || ret->patterns.failed))
		r = ap_err_errno(err, -ENOMEM, "%s", session->name);
	ret->shim = (struct backend_wall){
		.words = ap_buf_text(&ret->words),
		.patterns = (const char *const *)ret->patterns.at,
		.place = served ? ap_buf_text(&ret->place) : NULL,
	};
	return r;
}

static void renew(const struct session *session, pid_t program)
{
	AP_CLEANUP_BUF struct ap_buf place = {0};
	char pid[16];
	snprintf(pid, sizeof pid, "%d", (int)program);
	ap_buf_printf(&place, "%s/agents/%s", session->host->mountpoint, session->name);
	if (!is_served(session))
		return;
	(void)process_run(/* fails for who may not mount: it leads nowhere until the next start */
			  &(struct process_run){
				  .may_mount = true,
				  .argv = (const char *const[]){session->host->wall->shim, "-r",
								pid, ap_buf_text(&place), NULL},
				  .limit_ns = RENEW_LIMIT,
			  },
			  NULL);
}

static void job_renew_wall(struct worker_job *worker_job)
{
	struct session_job *job = ap_container_of(worker_job, struct session_job, job);
	struct session *session = job->session;
	pthread_mutex_lock(&session->lock);
	unsigned start = session->start;
	pthread_mutex_unlock(&session->lock);
	know_program(session, start);
	pthread_mutex_lock(&session->lock);
	bool lives = session->start == start && session->walled && session->program_fd >= 0;
	pid_t program = session->program;
	pthread_mutex_unlock(&session->lock);
	if (lives)
		renew(session, program);
	session_job_free(job);
}

void session_renew_wall(struct session *session)
{
	struct session_job *job =
		!session->host->wall ? NULL : session_job_new(session, job_renew_wall, "");
	if (job) /* else AGENTPOOL_DIR leads nowhere until the next start */
		session_submit(session, &job->job, job_renew_wall);
}

void wall_fini(struct wall *wall)
{
	ap_buf_fini(&wall->words);
	ap_buf_fini(&wall->place);
	ap_words_fini(&wall->patterns);
}
