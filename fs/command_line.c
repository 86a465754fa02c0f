#define FUSE_USE_VERSION 314

#include "command_line.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "../core/pools.h"
#include "file.h"
#include "text.h"
#include "tree.h"

static const char usage[] =
	"usage: agentpoolfs [-f] [-d] [-o OPT[,OPT...]] REPO MOUNTPOINT [-- PROGRAM [ARG...]]\n"
	"       agentpoolfs --list | --forget REPO | --list-files | --list-options | -h | -V\n"
	"\n"
	"Mounts a pool of agents, each a PROGRAM (bash by default) in a tmux session and a git\n"
	"worktree of REPO, on the empty directory MOUNTPOINT. See agentpoolfs(1).\n"
	"\n"
	"  -f                 stay in the foreground\n"
	"  -d                 stay in the foreground and trace FUSE requests\n"
	"  -o OPT[,OPT...]    options of the pool (--list-options) and of FUSE\n"
	"  --list             your pools, mounted or not\n"
	"  --forget REPO      remove what pools of REPO have left, unless work is in it\n"
	"  --list-files       the files of a mount, with mode and meaning\n"
	"  --list-options     the options, with default, meaning and words to choose from\n";

/* --- options --- */

/* Options in fstab for mount(8) itself, or about times that a pool does not keep; mount.fuse passes
 * them on to us. */
static bool is_for_mount(const char *name)
{
	static const char *const names[] = {
		"_netdev",    "_rnetdev",      "auto",	      "comment",    "defaults",
		"diratime",   "group",	       "lazytime",    "loud",	    "noauto",
		"nodiratime", "nofail",	       "nogroup",     "nolazytime", "noowner",
		"norelatime", "nostrictatime", "nouser",      "nousers",    "owner",
		"relatime",   "silent",	       "strictatime", "user",	    "users"};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		if (strcmp(name, names[i]) == 0)
			return true;
	}
	return strncmp(name, "x-", 2) == 0 || strncmp(name, "X-", 2) == 0;
}

static int pool_option(struct command_line *line, const char *name, const char *value,
		       struct ap_err *err)
{
	int option = ap_option_find(name);
	bool profile = strcmp(name, "profile") == 0;
	if (option < 0 && !profile)
		return is_for_mount(name) ? 0 : 1; /* else FUSE's */
	if (!value && !profile)
		value = ap_options[option].alone;
	if (!value)
		return ap_err_set(err, -EINVAL, "-o %s needs a value: -o %s=VALUE", name, name);
	if (profile)
		return ap_config_profile(&line->config, value, err);
	return ap_config_set(&line->config, (enum ap_option)option, value, true, err);
}

static int one_option(struct command_line *line, char *option, struct ap_err *err)
{
	char *equals = strchr(option, '=');
	if (equals)
		*equals = '\0';
	int r = pool_option(line, option, equals ? equals + 1 : NULL, err);
	if (equals)
		*equals = '=';
	if (r <= 0)
		return r;
	if (strncmp(option, "max_read=", 9) == 0) /* FUSE checks that it is a number */
		line->max_read = (unsigned)strtoul(option + 9, NULL, 10);
	if (fuse_opt_add_arg(&line->fuse, "-o") < 0 || fuse_opt_add_arg(&line->fuse, option) < 0)
		return ap_err_errno(err, -ENOMEM, "-o %s", option);
	return 0;
}

/* Splits at commas; a backslash before a comma keeps it. */
static int options_add(struct command_line *line, const char *text, struct ap_err *err)
{
	char *option = strdup(text);
	if (!option)
		return ap_err_errno(err, -ENOMEM, "-o");
	int r = 0;
	for (const char *at = text; r == 0 && *at;) {
		size_t n = 0;
		for (; *at && *at != ','; at++) {
			if (*at == '\\' && at[1] == ',')
				at++;
			option[n++] = *at;
		}
		option[n] = '\0';
		if (*at)
			at++;
		if (n > 0)
			r = one_option(line, option, err);
	}
	free(option);
	return r;
}

/* One line, which completions of shells read too: name, default, meaning and, where one of a few
 * words is wanted, "[WORD|WORD...]". */
static void list_option(const char *name, const char *initial, const char *doc, const char *choices)
{
	printf("%-22s %-12s %s", name, *initial ? initial : "-", doc);
	for (const char *at = choices; at && *at; at += strspn(at, " ")) {
		size_t n = strcspn(at, " ");
		printf("%s%.*s", at == choices ? " [" : "|", (int)n, at);
		at += n;
	}
	puts(choices ? "]" : "");
}

static void list_options(void)
{
	for (int i = 0; i < AP_N_OPTIONS; i++)
		list_option(ap_options[i].name, ap_options[i].initial, ap_options[i].doc,
			    ap_options[i].choices);
	list_option("profile", "", "values of several options; later ones override",
		    "development production high-load");
}

static void print_pool(void *data, const struct ap_pool_found *pool)
{
	const char *const paths[] = {pool->repo, pool->mountpoint, pool->state_dir};
	(void)data;
	printf("%s\t", pool->pid != 0 ? "alive" : "dead");
	(void)(pool->n_leases < 0 ? printf("-") : printf("%d", pool->n_leases));
	printf("\t%u", pool->n_kept);
	for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
		char text[4 * PATH_MAX]; /* as many as an escaped byte has */
		snprintf(text, sizeof text, "%s", *paths[i] ? paths[i] : "-");
		ap_text_escape(text, sizeof text);
		printf("\t%s", text);
	}
	printf("\n");
}

/* Says how that went. Returns the exit code. */
static int done(int result, const struct ap_err *err)
{
	if (result < 0)
		fprintf(stderr, "agentpoolfs: %s\n", err->text);
	return result < 0 ? 1 : 0;
}

/* Cuts the words behind -- off. */
static const char *const *program_words(int *argc, char **argv)
{
	for (int i = 1; i < *argc; i++) {
		if (strcmp(argv[i], "--") != 0)
			continue;
		const char *const *program = (const char *const *)&argv[i + 1];
		*argc = i;
		argv[i] = NULL;
		return program[0] ? program : NULL;
	}
	return NULL;
}

/* --- the words --- */

/* A third word usually belongs to the program. */
static int too_many_words(const struct command_line *line, const char *word)
{
	if (line->program)
		fprintf(stderr,
			"agentpoolfs: '%s' is one word too many: before -- stand REPO and "
			"MOUNTPOINT\n",
			word);
	else
		fprintf(stderr,
			"agentpoolfs: '%s' is one word too many; a program stands behind --: "
			"agentpoolfs %s %s -- %s\n",
			word, line->repo, line->mountpoint, word);
	return 3;
}

static int bad_usage(void)
{
	fputs(usage, stderr);
	return 3;
}

int command_line_parse(struct command_line *line, int argc, char **argv)
{
	static const struct option options[] = {
		{"list-files", no_argument, NULL, 'F'}, {"list-options", no_argument, NULL, 'O'},
		{"list", no_argument, NULL, 'L'},	{"forget", required_argument, NULL, 'R'},
		{"help", no_argument, NULL, 'h'},	{"version", no_argument, NULL, 'V'},
		{"foreground", no_argument, NULL, 'f'}, {0},
	};
	struct ap_err err;
	line->program = program_words(&argc, argv);
	if (fuse_opt_add_arg(&line->fuse, argv[0]) < 0)
		return 2;
	int c;
	while ((c = getopt_long(argc, argv, "-fdo:hV", options, NULL)) != -1) {
		switch (c) {
		case 1: /* a word */
			if (line->mountpoint)
				return too_many_words(line, optarg);
			*(line->repo ? &line->mountpoint : &line->repo) = optarg;
			break;
		case 'f':
			line->foreground = true;
			break;
		case 'd':
			line->foreground = line->debug = true;
			break;
		case 'o':
			if (options_add(line, optarg, &err) == 0)
				break;
			fprintf(stderr, "agentpoolfs: %s\n", err.text);
			return 3;
		case 'F':
			tree_print();
			return 1;
		case 'O':
			list_options();
			return 1;
		case 'L':
			return done(ap_pools_list(print_pool, NULL, &err), &err) + 1;
		case 'R':
			return done(ap_pool_forget(optarg, &err), &err) + 1;
		case 'h':
			fputs(usage, stdout);
			return 1;
		case 'V':
			printf("agentpoolfs %s\n", AP_VERSION);
			return 1;
		default:
			return bad_usage();
		}
	}
	if (!line->mountpoint)
		return bad_usage();
	if (line->program &&
	    ap_config_set(&line->config, AP_OPT_PROGRAM, line->program[0], true, &err) < 0) {
		fprintf(stderr, "agentpoolfs: %s\n", err.text);
		return 3;
	}
	return 0;
}

/* --- what FUSE makes of its options --- */

/* The options that people write; FUSE takes more. */
static const char *const fuse_options[] = {
	"allow_other", "allow_root", "auto_unmount", "debug",	 "default_permissions",
	"dev",	       "exec",	     "fsname",	     "max_read", "noatime",
	"nodev",       "noexec",     "nosuid",	     "ro",	 "rw",
	"suid",	       "subtype",
};

static void take_nearer(const char *name, const char *option, const char **nearest,
			unsigned *distance)
{
	unsigned n = ap_text_distance(name, option);
	if (strncmp(name, option, strlen(name)) == 0) /* `name` is the start of one */
		n = 1;
	if (n < *distance) {
		*nearest = option;
		*distance = n;
	}
}

/* The option that is nearest to `name`, or NULL: none is near. */
static const char *nearest_option(const char *name)
{
	const char *nearest = NULL;
	unsigned distance = (unsigned)strlen(name) / 3 + 1;
	for (int i = 0; i < AP_N_OPTIONS; i++)
		take_nearer(name, ap_options[i].name, &nearest, &distance);
	take_nearer(name, "profile", &nearest, &distance);
	for (size_t i = 0; i < sizeof fuse_options / sizeof *fuse_options; i++)
		take_nearer(name, fuse_options[i], &nearest, &distance);
	return nearest;
}

static char complaint[1024]; /* what FUSE logs while it parses its options, in pieces */

static void __attribute__((format(printf, 2, 0)))
keep_complaint(enum fuse_log_level level, const char *fmt, va_list args)
{
	size_t len = strlen(complaint);
	(void)level;
	vsnprintf(complaint + len, sizeof complaint - len, fmt, args);
}

/* FUSE says "fuse: unknown option(s): `-o NAME=VALUE,NAME'", and frees its arguments. */
static void refuse_option(void)
{
	struct ap_err err;
	const char *what = strncmp(complaint, "fuse: ", 6) == 0 ? complaint + 6 : complaint;
	const char *unknown = strstr(what, "unknown option(s): `");
	if (unknown) {
		char name[128];
		unknown += strlen("unknown option(s): `");
		unknown += strncmp(unknown, "-o ", 3) == 0 ? 3 : 0;
		snprintf(name, sizeof name, "%.*s", (int)strcspn(unknown, ",=' \n"), unknown);
		const char *nearest = nearest_option(name);
		ap_err_set(&err, 0, "there is no option -o %s%s%s: see agentpoolfs --list-options",
			   name, nearest ? ", the nearest is " : "", nearest ? nearest : "");
	} else {
		ap_err_set(&err, 0, "FUSE refuses an option: %.*s", (int)strcspn(what, "\n"), what);
	}
	fprintf(stderr, "agentpoolfs: %s\n", err.text);
}

/* Sets the repository as the mount's source, so that mount -a knows which lines of fstab are
 * mounted. */
static int add_source(const struct command_line *line, char **options)
{
	AP_CLEANUP_FREE char *repo = NULL;
	AP_CLEANUP_BUF struct ap_buf option = {0};
	bool named = file_resolve(line->repo, &repo, NULL) == 0 && !strpbrk(repo, "\n\t");
	ap_buf_printf(&option, "fsname=%s", named ? repo : "agentpool");
	return option.failed ? -1 : fuse_opt_add_opt_escaped(options, option.data);
}

/* Adds our options before those of the command line, which override them; the type comes last, as
 * we recognise dead mounts by it. */
static int add_own_options(struct command_line *line)
{
	char *options = NULL;
	int r = fuse_opt_add_opt(&options, "default_permissions");
	if (r == 0)
		r = add_source(line, &options);
	if (r == 0)
		r = fuse_opt_insert_arg(&line->fuse, 1, options);
	if (r == 0)
		r = fuse_opt_insert_arg(&line->fuse, 1, "-o");
	if (r == 0)
		r = fuse_opt_add_arg(&line->fuse, "-osubtype=agentpoolfs");
	if (r == 0 && line->debug)
		r = fuse_opt_add_arg(&line->fuse, "-d");
	free(options);
	return r;
}

struct fuse_session *command_line_session(struct command_line *line,
					  const struct fuse_lowlevel_ops *ops, size_t ops_size,
					  void *data)
{
	if (add_own_options(line) < 0) {
		fprintf(stderr, "agentpoolfs: out of memory\n");
		return NULL;
	}
	fuse_set_log_func(keep_complaint);
	struct fuse_session *session = fuse_session_new(&line->fuse, ops, ops_size, data);
	fuse_set_log_func(NULL);
	if (!session)
		refuse_option();
	return session;
}
