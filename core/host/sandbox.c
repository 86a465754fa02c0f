#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "file.h"
#include "process.h"

#define PROBE_LIMIT	(20 * AP_SECOND)
#define USER_NAMESPACES "/proc/sys/user/max_user_namespaces"

void sandbox_begin(struct sandbox_plan *plan)
{
	sandbox_add(&plan->empties, "/tmp");
	sandbox_add(&plan->empties, "/var/tmp");
	sandbox_add(&plan->empties, "/run");
	ap_words_add(&plan->empties, "/dev/shm"); /* in every /dev that bwrap makes */
}

void sandbox_plan_fini(struct sandbox_plan *plan)
{
	ap_words_fini(&plan->empties);
	ap_words_fini(&plan->reads);
	ap_words_fini(&plan->writes);
	ap_words_fini(&plan->hides);
	ap_words_fini(&plan->hidden_files);
	ap_words_fini(&plan->keeps);
	ap_words_fini(&plan->owns);
}

/* --- the words --- */

static void add(struct ap_words *ret, const char *option, const char *path, const char *path_again)
{
	ap_words_add(ret, option);
	ap_words_add(ret, path);
	if (path_again)
		ap_words_add(ret, path_again);
}

/* Whether a path is `dir` or below it. */
static bool is_within(const char *path, const char *dir)
{
	size_t len = strlen(dir);
	return strcmp(dir, "/") == 0 || (strncmp(path, dir, len) == 0 && strchr("/", path[len]));
}

static bool is_within_any(const char *path, const struct ap_words *dirs)
{
	for (unsigned i = 0; i < dirs->n; i++) {
		if (is_within(path, dirs->at[i]))
			return true;
	}
	return false;
}

/* Whether a path is below one of the others. */
static bool is_below_any(const char *path, const struct ap_words *others)
{
	for (unsigned i = 0; i < others->n; i++) {
		if (strcmp(path, others->at[i]) != 0 && is_within(path, others->at[i]))
			return true;
	}
	return false;
}

/* Whether what lies at a path on the machine is not to be seen there after steps 1 to 4. */
static bool is_covered(const struct sandbox_plan *plan, const char *path)
{
	return is_within_any(path, &plan->empties) && !is_within_any(path, &plan->reads) &&
	       !is_within_any(path, &plan->writes);
}

static int by_path(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The same paths in such an order that none comes before one that it is below. Owned by the caller;
 * NULL on ENOMEM. */
static char **in_order(const struct ap_words *paths)
{
	char **at = calloc(paths->n + 1, sizeof *at);
	if (at && paths->n > 0) {
		memcpy(at, paths->at, paths->n * sizeof *at);
		qsort(at, paths->n, sizeof *at, by_path);
	}
	return at;
}

static void bind_all(const char *option, const struct ap_words *paths, struct ap_words *ret)
{
	AP_CLEANUP_FREE char **at = in_order(paths);
	ret->failed = ret->failed || !at;
	for (unsigned i = 0; at && i < paths->n; i++) {
		if (i == 0 || strcmp(at[i], at[i - 1]) != 0)
			add(ret, option, at[i], at[i]);
	}
}

static void add_empty(struct ap_words *ret, const char *mode, const char *what, const char *path)
{
	ap_words_add(ret, "--perms");
	ap_words_add(ret, mode);
	add(ret, what, path, NULL);
}

static void add_machine(const struct sandbox_plan *plan, struct ap_words *ret)
{
	static const char *const first[] = {"--unshare-user",
					    "--unshare-pid",
					    "--unshare-ipc",
					    "--unshare-uts",
					    "--unshare-cgroup-try",
					    "--die-with-parent",
					    "--as-pid-1",
					    "--cap-drop",
					    "ALL",
					    "--ro-bind",
					    "/",
					    "/",
					    "--dev",
					    "/dev",
					    "--proc",
					    "/proc"};
	/* bwrap itself leaves writable what the owner of these files writes without a capability:
	 * as root, core_pattern. -try: not every kernel has all of them */
	static const char *const of_kernel[] = {
		"/proc/sys", "/proc/sysrq-trigger", "/proc/irq",  "/proc/bus",
		"/proc/fs",  "/proc/acpi",	    "/proc/scsi", "/proc/asound"};
	char own[64];
	for (size_t i = 0; i < sizeof first / sizeof *first; i++)
		ap_words_add(ret, first[i]);
	for (size_t i = 0; i < sizeof of_kernel / sizeof *of_kernel; i++)
		add(ret, "--ro-bind-try", of_kernel[i], of_kernel[i]);
	if (!plan->network)
		ap_words_add(ret, "--unshare-net");
	snprintf(own, sizeof own, "/run/user/%u", plan->uid);
	for (unsigned i = 0; i < plan->empties.n; i++) {
		bool is_run = strcmp(plan->empties.at[i], "/run") == 0;
		add_empty(ret, is_run ? "0755" : "1777", "--tmpfs", plan->empties.at[i]);
		if (is_run)
			add_empty(ret, "0700", "--dir", own);
	}
}

/* Those of the hidden paths that are not below another one. */
static void hide_all(const struct sandbox_plan *plan, bool closes, struct ap_words *ret)
{
	AP_CLEANUP_FREE char **at = in_order(&plan->hides);
	ret->failed = ret->failed || !at;
	for (unsigned i = 0; at && i < plan->hides.n; i++) {
		bool again = i > 0 && strcmp(at[i], at[i - 1]) == 0;
		if (!again && !is_covered(plan, at[i]) && !is_below_any(at[i], &plan->hides))
			add(ret, closes ? "--remount-ro" : "--tmpfs", at[i], NULL);
	}
	for (unsigned i = 0; !closes && i < plan->hidden_files.n; i++) {
		const char *path = plan->hidden_files.at[i];
		if (!is_covered(plan, path) && !is_within_any(path, &plan->hides))
			add(ret, "--dev-bind", "/dev/null", path);
	}
}

void sandbox_words(const struct sandbox_plan *plan, struct ap_words *ret)
{
	ap_words_add(ret, plan->bwrap);
	add_machine(plan, ret);
	AP_CLEANUP_WORDS struct ap_words reads = {NULL, 0, false};
	AP_CLEANUP_WORDS struct ap_words writes = {NULL, 0, false};
	for (unsigned i = 0; i < plan->reads.n; i++) {
		if (is_within_any(plan->reads.at[i], &plan->empties))
			ap_words_add(&reads, plan->reads.at[i]);
	}
	for (unsigned i = 0; i < plan->writes.n; i++) {
		const char *path = plan->writes.at[i];
		if (!is_within_any(path, &plan->hides) && !is_within_any(path, &plan->hidden_files))
			ap_words_add(&writes, path);
	}
	bind_all("--ro-bind", &reads, ret);
	bind_all("--bind", &writes, ret);
	hide_all(plan, false, ret);
	bind_all("--ro-bind", &plan->keeps, ret);
	if (plan->pool && (is_covered(plan, plan->pool) || is_within_any(plan->pool, &plan->hides)))
		add(ret, "--bind", plan->pool, plan->pool);
	bind_all("--bind", &plan->owns, ret);
	hide_all(plan, true, ret);
	ret->failed = ret->failed || reads.failed || writes.failed;
	add(ret, "--chdir", plan->dir, NULL);
}

/* --- what is there --- */

void sandbox_add(struct ap_words *paths, const char *path)
{
	AP_CLEANUP_FREE char *real = path[0] == '/' ? realpath(path, NULL) : NULL;
	if (real)
		ap_words_add(paths, real);
}

bool sandbox_may_change(const struct sandbox_plan *plan, const char *path)
{
	AP_CLEANUP_FREE char *above = strdup(path);
	for (char *slash; above && (slash = strrchr(above, '/')) && slash > above;) {
		*slash = '\0';
		AP_CLEANUP_FREE char *real = realpath(above, NULL);
		if (real && is_within_any(real, &plan->writes))
			return true;
	}
	return false;
}

void sandbox_hide(struct sandbox_plan *plan, const char *path)
{
	struct stat st;
	AP_CLEANUP_FREE char *real = path[0] == '/' ? realpath(path, NULL) : NULL;
	if (!real || stat(real, &st) < 0)
		return;
	ap_words_add(S_ISDIR(st.st_mode) ? &plan->hides : &plan->hidden_files, real);
}

/* --- the shim's file --- */

static int words_of(const struct sandbox_plan *plan, struct ap_buf *ret, struct ap_err *err)
{
	AP_CLEANUP_WORDS struct ap_words words = {NULL, 0, false};
	sandbox_words(plan, &words);
	for (unsigned i = 0; i < words.n; i++)
		ap_buf_add(ret, words.at[i], strlen(words.at[i]) + 1);
	bool failed = words.failed || ret->failed || plan->empties.failed || plan->reads.failed ||
		      plan->writes.failed || plan->hides.failed || plan->hidden_files.failed ||
		      plan->keeps.failed || plan->owns.failed;
	return failed ? ap_err_errno(err, -ENOMEM, "sandbox") : 0;
}

int sandbox_write(const struct sandbox_plan *plan, const char *file, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	int r = words_of(plan, &text, err);
	return r < 0 ? r : file_write(file, text.data, text.len, err);
}

int sandbox_find(struct ap_buf *ret, struct ap_err *err)
{
	const char *at = getenv("PATH");
	while (at && *at) {
		size_t len = strcspn(at, ":");
		ret->len = 0;
		ap_buf_printf(ret, "%.*s/bwrap", (int)len, at);
		if (at[0] == '/' && access(ap_buf_text(ret), X_OK) == 0)
			return 0;
		at += len + (at[len] == ':');
	}
	return ap_err_set(err, -ENOENT,
			  "sandbox=yes: there is no bwrap in PATH: install the package bubblewrap");
}

static bool namespaces_are_forbidden(void)
{
	char most[32];
	return file_read_line("/proc/sys/user", "max_user_namespaces", most, sizeof most) == 0 &&
	       strcmp(most, "0") == 0;
}

int sandbox_probe(const struct sandbox_plan *plan, const char *shim, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf text = {0};
	char words[64];
	if (namespaces_are_forbidden())
		return ap_err_set(
			err, -EPERM,
			"sandbox=yes: this machine allows nobody a user namespace: " USER_NAMESPACES
			" is 0");
	int r = words_of(plan, &text, err);
	if (r < 0)
		return r;
	AP_CLEANUP_CLOSE int fd = memfd_create("words", MFD_CLOEXEC);
	if (fd < 0 || write(fd, text.data, text.len) != (ssize_t)text.len)
		return ap_err_errno(err, -errno, "sandbox");
	snprintf(words, sizeof words, "/proc/%d/fd/%d", (int)getpid(), fd);
	r = process_run(
		&(struct process_run){
			.argv = (const char *const[]){shim, "-x", "-w", words, "--", "/", "/bin/sh",
						      "-c", ":", NULL},
			.limit_ns = PROBE_LIMIT,
			.kill_group = true,
		},
		err);
	if (r > 0)
		r = -EPERM;
	return r < 0 ? ap_err_wrap(err, r, "sandbox=yes: it cannot be had here") : 0;
}
