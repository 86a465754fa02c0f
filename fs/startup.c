#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "notify.h"
#include "process.h"
#include "startup.h"

extern char **environ;

/* --- descriptors --- */

static int *inherited; /* beside the standard ones */
static unsigned n_inherited;

/* Opens the missing standard descriptors: no later file must become somebody's standard output. */
static void have_standard_files(void)
{
	int fd;
	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd > STDERR_FILENO)
		close(fd);
}

static void note_inherited(void)
{
	DIR *fds = opendir("/proc/self/fd");
	struct dirent *entry;
	while (fds && (entry = readdir(fds))) {
		int fd = atoi(entry->d_name);
		if (fd <= STDERR_FILENO || fd == dirfd(fds))
			continue;
		fcntl(fd, F_SETFD, FD_CLOEXEC);
		int *grown = realloc(inherited, (n_inherited + 1) * sizeof *grown);
		if (!grown)
			break;
		inherited = grown;
		inherited[n_inherited++] = fd;
	}
	if (fds)
		closedir(fds);
}

void startup_let_go(void)
{
	for (unsigned i = 0; i < n_inherited; i++)
		close(inherited[i]);
	free(inherited);
	inherited = NULL;
	n_inherited = 0;
}

/* --- signals --- */

/* Resets all signals: the caller may have ignored or blocked some, and with SIGCHLD ignored nobody
 * can wait for a child. Ignores SIGPIPE and SIGXFSZ: a pipe or a file that takes no more is an
 * errno. */
static void set_signals(void)
{
	sigset_t none;
	for (int i = 1; i < _NSIG; i++) /* some cannot be set */
		(void)sigaction(i, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGXFSZ, SIG_IGN);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

void startup_block_signals(sigset_t *ret)
{
	sigemptyset(ret);
	sigaddset(ret, SIGTERM);
	sigaddset(ret, SIGINT);
	sigaddset(ret, SIGHUP);
	pthread_sigmask(SIG_BLOCK, ret, NULL);
}

/* --- environment --- */

/* What an agent, tmux, screen or a shell's options leave in the environment, and agents must not
 * get; nor what a service manager tells the process that it has started. */
static const char *const foreign[] = {
	"TMUX",		  "TMUX_PANE",	      "STY",	       "CLAUDECODE",
	"SHELLOPTS",	  "BASHOPTS",	      "INVOCATION_ID", "JOURNAL_STREAM",
	"LISTEN_FDNAMES", "LISTEN_FDS",	      "LISTEN_PID",    "MANAGERPID",
	"NOTIFY_SOCKET",  "SYSTEMD_EXEC_PID", "WATCHDOG_PID",  "WATCHDOG_USEC",
};

/* What people set for git on purpose, for any repository; * stands for any end. Git passes all else
 * to a hook or an alias, for its own repository and commit. */
static const char *const git_settings[] = {
	"GIT_ALLOW_PROTOCOL",  "GIT_ASKPASS",
	"GIT_ATTR_NOSYSTEM",   "GIT_CEILING_DIRECTORIES",
	"GIT_COMPLETION_*",    "GIT_CONFIG_COUNT",
	"GIT_CONFIG_GLOBAL",   "GIT_CONFIG_KEY_*",
	"GIT_CONFIG_NOSYSTEM", "GIT_CONFIG_SYSTEM",
	"GIT_CONFIG_VALUE_*",  "GIT_CURL_*",
	"GIT_DEFAULT_*",       "GIT_DISCOVERY_ACROSS_FILESYSTEM",
	"GIT_EDITOR",	       "GIT_EXEC_PATH",
	"GIT_HTTP_*",	       "GIT_LFS_*",
	"GIT_MERGE_AUTOEDIT",  "GIT_PAGER",
	"GIT_PROXY_*",	       "GIT_PS1_*",
	"GIT_SEQUENCE_EDITOR", "GIT_SSH*",
	"GIT_SSL_*",	       "GIT_TEMPLATE_DIR",
	"GIT_TERMINAL_PROMPT", "GIT_TRACE*",
};

/* Git passes at least one of these to whatever it starts. */
static const char *const git_marks[] = {
	"GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE", "GIT_CONFIG_PARAMETERS", "GIT_DIR",
	"GIT_INDEX_FILE",  "GIT_PREFIX",	 "GIT_QUARANTINE_PATH",	  "GIT_REFLOG_ACTION",
};

/* Who makes commits: people set these too, and git passes them to a hook with all the rest. */
static const char *const git_names[] = {"GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME",
					"GIT_COMMITTER_EMAIL"};

/* Directories of the user's own, by the XDG base directory specification and by custom. */
static const char *const own_dirs[] = {"XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME",
				       "XDG_RUNTIME_DIR", "XDG_STATE_HOME"};

#define N_OF(array) (sizeof(array) / sizeof *(array))

static bool is_one_of(const char *name, const char *const *patterns, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		size_t len = strlen(patterns[i]);
		bool prefix = patterns[i][len - 1] == '*';
		if (prefix ? strncmp(name, patterns[i], len - 1) == 0
			   : strcmp(name, patterns[i]) == 0)
			return true;
	}
	return false;
}

static bool is_handed_over(const char *name)
{
	return strncmp(name, "GIT_", 4) == 0 && !is_one_of(name, git_names, N_OF(git_names)) &&
	       !is_one_of(name, git_settings, N_OF(git_settings));
}

/* Unsets the next variable that git passed on. False: there is none. */
static bool drop_handed_over(void)
{
	for (char **at = environ; at && *at; at++) {
		char name[256];
		size_t len = strcspn(*at, "=");
		if (len >= sizeof name || (*at)[len] != '=')
			continue;
		snprintf(name, sizeof name, "%.*s", (int)len, *at);
		if (is_handed_over(name))
			return unsetenv(name) == 0;
	}
	return false;
}

static void clean_git(void)
{
	static const char *const editors[] = {"GIT_EDITOR", "GIT_SEQUENCE_EDITOR"};
	bool in_git = false;
	for (size_t i = 0; i < N_OF(git_marks); i++)
		in_git = in_git || getenv(git_marks[i]);
	for (size_t i = 0; in_git && i < N_OF(git_names); i++)
		unsetenv(git_names[i]);
	for (size_t i = 0; i < N_OF(editors); i++) { /* ":": git tells a hook not to ask */
		const char *editor = getenv(editors[i]);
		if (editor && strcmp(editor, ":") == 0)
			unsetenv(editors[i]);
	}
	while (drop_handed_over())
		;
}

static bool is_dir_of(const char *path, uid_t uid)
{
	struct stat st;
	return path && path[0] == '/' && stat(path, &st) == 0 && S_ISDIR(st.st_mode) &&
	       st.st_uid == uid;
}

/* Whether a directory, or the nearest existing one above it, in which it would be made, belongs to
 * the daemon's user or root, and is readable. */
static bool is_own_place(const char *path)
{
	char at[PATH_MAX];
	struct stat st;
	if (path[0] != '/' || strlen(path) >= sizeof at)
		return false;
	strcpy(at, path);
	while (stat(at, &st) < 0) {
		char *slash = strrchr(at, '/');
		if (errno != ENOENT || !slash)
			return false;
		if (slash == at) /* the root is there */
			slash++;
		*slash = '\0';
	}
	return S_ISDIR(st.st_mode) && (st.st_uid == geteuid() || st.st_uid == 0) &&
	       (geteuid() == 0 || access(at, R_OK | X_OK) == 0);
}

/* Sets HOME to that of the user that the daemon runs as: mount(8), sudo and setuid= pass that of
 * root on, cron and services none. */
static void set_home(void)
{
	const char *home = getenv("HOME");
	const struct passwd *user = getpwuid(geteuid());
	if (is_dir_of(home, geteuid()))
		return;
	if (user && is_dir_of(user->pw_dir, geteuid()))
		setenv("HOME", user->pw_dir, 1);
	else if (!home || home[0] != '/' || access(home, R_OK | W_OK | X_OK) < 0)
		unsetenv("HOME"); /* the user has no home, and HOME is none that is of use */
}

static void set_user(void)
{
	static const char *const names[] = {"USER", "LOGNAME"};
	for (size_t i = 0; i < N_OF(names); i++) {
		const char *name = getenv(names[i]);
		const struct passwd *user = name ? getpwnam(name) : NULL;
		if (user && user->pw_uid == geteuid())
			continue;
		user = getpwuid(geteuid());
		if (user)
			setenv(names[i], user->pw_name, 1);
		else
			unsetenv(names[i]);
	}
}

static void set_environment(void)
{
	(void)notify_open(getenv("NOTIFY_SOCKET")); /* if that is none, nobody can be told */
	for (size_t i = 0; i < N_OF(foreign); i++)
		unsetenv(foreign[i]);
	clean_git();
	set_home();
	set_user();
	for (size_t i = 0; i < N_OF(own_dirs); i++) {
		const char *dir = getenv(own_dirs[i]);
		if (dir && !is_own_place(dir))
			unsetenv(own_dirs[i]);
	}
	const char *temporary = getenv("TMPDIR");
	if (temporary && access(temporary, W_OK | X_OK) < 0)
		unsetenv("TMPDIR");
	setenv("PATH", "/usr/local/bin:/usr/bin:/bin", 0);
}

/* --- limits --- */

/* Files that a daemon has open: its own, and those of each agent with a lease. */
#define FILES_OWN   128
#define FILES_AGENT 12

/* Raises the daemon's own limit. Programs start with the limit as it was: some close all that may
 * be open, and those with select() count on few. */
static void raise_files(void)
{
	struct rlimit files;
	if (getrlimit(RLIMIT_NOFILE, &files) < 0 || files.rlim_cur == files.rlim_max)
		return;
	rlim_t before = files.rlim_cur;
	files.rlim_cur = files.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &files) == 0)
		process_limit_files(before);
}

bool startup_lacks_files(unsigned n_agents, struct ap_err *ret)
{
	struct rlimit files;
	rlim_t needed = FILES_OWN + (rlim_t)FILES_AGENT * n_agents;
	if (getrlimit(RLIMIT_NOFILE, &files) < 0 || files.rlim_cur >= needed)
		return false;
	ap_err_set(ret, 0,
		   "%llu files can be open at once, and hard_cap=%u agents need %llu: raise the "
		   "limit (ulimit -n)",
		   (unsigned long long)files.rlim_cur, n_agents, (unsigned long long)needed);
	return true;
}

void startup(void)
{
	have_standard_files();
	note_inherited();
	set_signals();
	set_environment();
	umask(umask(0) & 077); /* masks the same for others, but nothing for the owner */
	raise_files();
}
