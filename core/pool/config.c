#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "permission.h"
#include "pool_internal.h"
#include "text.h"
#include "usage.h"

#define CENTURY		    (INT64_C(100) * 366 * 86400 * AP_SECOND)
#define NUMBER_OF(lo, hi)   AP_TYPE_NUMBER, .min = (lo), .max = (hi)
#define OCTAL_OF(lo, hi)    AP_TYPE_OCTAL, .min = (lo), .max = (hi)
#define DURATION_OF(lo, hi) AP_TYPE_DURATION, .min = (lo), .max = (hi)
#define SIZE_OF(lo, hi)	    AP_TYPE_SIZE, .min = (lo), .max = (hi)
#define TERMINAL(columns, rows) ((int64_t)(columns) << 16 | (rows))
#define CHOICE_OF(words)    AP_TYPE_CHOICE, .choices = (words)

const struct ap_option_row ap_options[AP_N_OPTIONS] = {
	[AP_OPT_MIN_POOL_SIZE] = {"min_pool_size", .type = NUMBER_OF(1, 4096), .initial = "1",
				  .doc = "agents kept ready"},
	[AP_OPT_MAX_POOL_SIZE] = {"max_pool_size", .type = NUMBER_OF(1, 4096), .initial = "10",
				  .doc = "never more agents than this"},
	[AP_OPT_HARD_CAP] = {"hard_cap", .type = NUMBER_OF(1, 4096), .when = AP_WHEN_MOUNT,
			     .initial = "10", .doc = "bound on max_pool_size"},
	[AP_OPT_IDLE_TIMEOUT] = {"idle_timeout", .type = DURATION_OF(0, CENTURY), .initial = "5m",
				 .doc = "an idle agent above the minimum is retired after this"},
	[AP_OPT_RECYCLE_THRESHOLD] = {"recycle_threshold", .type = NUMBER_OF(0, INT32_MAX),
				      .initial = "1000",
				      .doc = "requests an agent serves before it is recycled"},
	[AP_OPT_MAINTENANCE_INTERVAL] = {"maintenance_interval",
					 .type = DURATION_OF(100 * AP_MS, CENTURY), .word = "auto",
					 .initial = "30s",
					 .doc = "time between maintenance passes; auto adapts it"},
	[AP_OPT_MAX_MEMORY_MB] = {"max_memory_mb", .type = NUMBER_OF(0, INT32_MAX),
				  .initial = "512",
				  .doc = "memory quota of an agent's process tree, MiB"},
	[AP_OPT_MAX_CPU_PERCENT] = {"max_cpu_percent", .type = NUMBER_OF(0, 409600),
				    .initial = "80",
				    .doc = "CPU quota, percent of one CPU over a minute"},
	[AP_OPT_MAX_INSTANCE_AGE] = {"max_instance_age", .type = DURATION_OF(0, CENTURY),
				     .initial = "1h",
				     .doc = "an agent older than this is recycled"},
	[AP_OPT_MAX_RECYCLES_PER_ID] = {"max_recycles_per_id", .type = NUMBER_OF(0, INT32_MAX),
					.initial = "100",
					.doc = "recycles after which an agent gets a new name"},
	[AP_OPT_REQUESTS_PER_QUOTA] = {"requests_per_quota", .type = NUMBER_OF(0, INT32_MAX),
				       .initial = "5000",
				       .doc = "prompts an agent takes in 24 hours"},
	[AP_OPT_ACQUIRE_TIMEOUT] = {"acquire_timeout", .type = DURATION_OF(0, CENTURY),
				    .initial = "30s",
				    .doc = "how long an acquirer waits by default"},
	[AP_OPT_LEASE_TTL] = {"lease_ttl", .type = DURATION_OF(0, CENTURY), .initial = "0",
			      .doc = "default time to live of a lease; 0 is without end"},
	[AP_OPT_PERMISSION] = {"permission", .type = AP_TYPE_PERMISSION,
			       .max = AP_PERMISSION_REJECT, .choices = "ask allow reject",
			       .initial = "ask",
			       .doc = "which questions of a program are answered by rule"},
	[AP_OPT_BUDGET] = {"budget", .type = AP_TYPE_BUDGET, .initial = "none",
			   .doc = "what a lease may use: money (2.50usd) or tokens (200k)"},
	[AP_OPT_OVER_BUDGET] = {"over_budget", .type = CHOICE_OF("finish cancel"),
				.initial = "finish",
				.doc = "a turn that goes beyond: let it end, or break it off"},
	[AP_OPT_POOL_BUDGET] =
		{"pool_budget", .type = AP_TYPE_BUDGET, .initial = "none",
		 .doc =
			 "what the pool may use a day (UTC) before it grants no more"},
	[AP_OPT_SPAWN_TIMEOUT] = {"spawn_timeout", .type = DURATION_OF(AP_SECOND, CENTURY),
				  .initial = "60s", .doc = "time limit of each step of a spawn"},
	[AP_OPT_SPAWN_BACKEND] = {"spawn_backend", .type = CHOICE_OF("auto overlay btrfs copy git"),
				  .when = AP_WHEN_MOUNT, .initial = "auto",
				  .doc = "how worktrees are made; auto: the first that works"},
	[AP_OPT_MAX_SPAWNING] = {"max_spawning", .type = NUMBER_OF(1, AP_MAX_SPAWNING),
				 .initial = "2", .doc = "spawns under way at once"},
	[AP_OPT_SCALE_POLICY] = {"scale_policy", .type = CHOICE_OF("utilization spare target ewma"),
				 .initial = "utilization", .doc = "what decides the pool's size"},
	[AP_OPT_SCALE_UP_AT] = {"scale_up_at", .type = NUMBER_OF(1, 100), .initial = "80",
				.doc = "grow above, or aim at, this utilization, percent"},
	[AP_OPT_SCALE_DOWN_AT] = {"scale_down_at", .type = NUMBER_OF(0, 100), .initial = "20",
				  .doc = "shrink below this utilization, percent"},
	[AP_OPT_SCALE_DOWN_WINDOW] = {"scale_down_window", .type = DURATION_OF(0, CENTURY),
				      .initial = "5m",
				      .doc = "how long utilization must be low before shrinking"},
	[AP_OPT_MIN_IDLE] = {"min_idle", .type = NUMBER_OF(0, 4096), .initial = "2",
			     .doc = "policy spare: idle agents at least"},
	[AP_OPT_MAX_IDLE] = {"max_idle", .type = NUMBER_OF(0, 4096), .initial = "6",
			     .doc = "policy spare: idle agents at most"},
	[AP_OPT_BASE] = {"base", .type = AP_TYPE_TEXT, .initial = "HEAD",
			 .doc = "what a new lease's branch starts from, resolved at grant"},
	[AP_OPT_ON_RELEASE] = {"on_release", .type = CHOICE_OF("auto restart clear keep"),
			       .initial = "auto",
			       .doc = "how a program is made ready for the next lease"},
	[AP_OPT_ON_LIMIT] = {"on_limit", .type = CHOICE_OF("wait continue"), .initial = "wait",
			     .doc = "what follows the end of a usage limit that broke a turn"},
	[AP_OPT_RESUME] = {"resume", .type = CHOICE_OF("no yes"), .initial = "yes", .alone = "yes",
			   .doc = "a label's program goes on with its last conversation"},
	[AP_OPT_PROGRAM] =
		{"program", .type = AP_TYPE_TEXT, .when = AP_WHEN_MOUNT, .initial = "bash",
		 .doc =
			 "the agents' program; arguments stand after -- on the command line"},
	[AP_OPT_PROGRAM_PROFILE] =
		{"program_profile", .type = AP_TYPE_TEXT, .when = AP_WHEN_MOUNT,
		 .initial = "", .doc = "name or path of the program's profile; empty: by its name"},
	[AP_OPT_KEEP_WORK] = {"keep_work", .type = DURATION_OF(0, CENTURY), .initial = "7d",
			      .doc = "how long what a lease left is kept whole; 0: not at all"},
	[AP_OPT_KEEP_WORK_SIZE] = {"keep_work_size", .type = SIZE_OF(0, INT64_C(1) << 50),
				   .initial = "10G",
				   .doc = "bytes of that, the oldest go first; 0: no bound"},
	[AP_OPT_SETUP] = {"setup", .type = AP_TYPE_TEXT, .initial = "",
			  .doc = "command run in a new worktree before the program"},
	[AP_OPT_TEARDOWN] = {"teardown", .type = AP_TYPE_TEXT, .initial = "",
			     .doc = "command run in a worktree before its removal"},
	[AP_OPT_MAX_PROMPT] = {"max_prompt", .type = SIZE_OF(1, 64 << 20), .initial = "1M",
			       .doc = "largest prompt, bytes"},
	[AP_OPT_OUTPUT_LIMIT] = {"output_limit", .type = SIZE_OF(4096, INT64_C(1) << 40),
				 .initial = "16M", .doc = "bytes kept of an agent's output"},
	[AP_OPT_STATUS_COLOR] = {"status_color", .type = CHOICE_OF("no yes"), .initial = "no",
				 .alone = "yes",
				 .doc = "paint status for a terminal: watch -c, less -R"},
	[AP_OPT_ALLOW_FOREIGN_REPO] = {"allow_foreign_repo", .type = CHOICE_OF("no yes"),
				       .when = AP_WHEN_MOUNT, .initial = "no", .alone = "yes",
				       .doc = "take a repository of another user"},
	[AP_OPT_UMASK] = {"umask", .type = OCTAL_OF(0, 0777), .when = AP_WHEN_MOUNT, .initial = "",
			  .doc = "permission bits taken from files that others may use"},
	[AP_OPT_UID] = {"uid", .type = NUMBER_OF(0, UINT32_MAX - 1), .when = AP_WHEN_MOUNT,
			.initial = "", .doc = "owner of the files; empty: who mounts"},
	[AP_OPT_GID] = {"gid", .type = NUMBER_OF(0, UINT32_MAX - 1), .when = AP_WHEN_MOUNT,
			.initial = "", .doc = "group of the files; empty: that of who mounts"},
	[AP_OPT_GIT] = {"git", .type = CHOICE_OF("auto library program"), .when = AP_WHEN_MOUNT,
			.initial = "auto",
			.doc = "what reads and writes the repository; auto: the library where it "
			       "can"},
	[AP_OPT_PORTS] = {"ports", .type = NUMBER_OF(0, 100), .initial = "1",
			  .doc = "TCP ports of an agent made from now on: AGENTPOOL_PORT_1 to _N"},
	[AP_OPT_TERMINAL_SIZE] =
		{"terminal_size",
		 .type = AP_TYPE_TERMINAL, .min = TERMINAL(80, 24), .max = TERMINAL(1000, 500),
		 .initial = "200x50",
		 .doc =
			 "columns and rows of a terminal, from the next start of its program on"},
	[AP_OPT_SANDBOX] = {"sandbox", .type = CHOICE_OF("no yes"), .when = AP_WHEN_MOUNT,
			    .initial = "no", .alone = "yes",
			    .doc = "programs reach their own work and nothing else"},
	[AP_OPT_SANDBOX_NET] = {"sandbox_net", .type = CHOICE_OF("no yes"), .when = AP_WHEN_MOUNT,
				.initial = "yes", .alone = "yes",
				.doc = "a sandbox has the machine's network"},
	[AP_OPT_SANDBOX_HIDE] =
		{"sandbox_hide", .type = AP_TYPE_TEXT,
		 .initial = "~/.ssh ~/.gnupg ~/.aws ~/.azure ~/.kube ~/.docker "
			    "~/.config/gh ~/.config/glab-cli ~/.config/hub "
			    "~/.config/gcloud ~/.config/op ~/.config/containers "
			    "~/.config/git/credentials ~/.git-credentials ~/.netrc "
			    "~/.npmrc ~/.pypirc ~/.cargo/credentials.toml "
			    "~/.password-store ~/.local/share/keyrings ~/.pki ~/.1password "
			    "~/.mozilla ~/.config/google-chrome ~/.config/chromium "
			    "~/.bash_history ~/.zsh_history "
			    "~/.local/share/fish/fish_history /etc/shadow "
			    "/etc/gshadow /etc/sudoers /var/lib/incus /var/lib/lxd "
			    "/var/snap/lxd",
		 .doc =
			 "paths, with blanks between, that a sandbox hides; none: "
			 "nothing more"},
	[AP_OPT_SANDBOX_ENV] = {"sandbox_env", .type = AP_TYPE_TEXT,
				.initial =
					"!SSH_* !GPG_* !DBUS_* !XDG_RUNTIME_DIR !TMPDIR !DISPLAY "
					"!WAYLAND_DISPLAY !XAUTHORITY !DOCKER_HOST !*_TOKEN "
					"!*_SECRET !*_SECRET_* !*_PASSWORD !*_PASSWD "
					"!*_PASSPHRASE !*_CREDENTIALS",
				.doc = "patterns of a sandbox's environment: ! removes a name, the "
				       "last one counts"},
	[AP_OPT_STATE_DIR] = {"state_dir", .type = AP_TYPE_TEXT, .when = AP_WHEN_MOUNT,
			      .initial = "", .doc = "where worktrees, output and sockets lie"},
	[AP_OPT_PERSIST] = {"persist", .type = CHOICE_OF("no yes"), .when = AP_WHEN_MOUNT,
			    .initial = "no", .doc = "keep agents over an unmount"},
	[AP_OPT_DURABILITY] = {"durability", .type = CHOICE_OF("full normal"),
			       .when = AP_WHEN_MOUNT, .initial = "full",
			       .doc = "how hard the state store is synced"},
};

static bool row_is_text(const struct ap_option_row *row)
{
	return row->type == AP_TYPE_TEXT || row->type == AP_TYPE_CHOICE;
}

/* -EINVAL; -ERANGE. */
static int terminal_parse(const char *text, int64_t *ret)
{
	static const char digits[] = "0123456789";
	size_t n_columns = strspn(text, digits);
	const char *rows = text + n_columns + 1;
	if (n_columns == 0 || text[n_columns] != 'x' || !*rows || rows[strspn(rows, digits)])
		return -EINVAL;
	if (n_columns > 4 || strlen(rows) > 4)
		return -ERANGE;
	*ret = TERMINAL(atoi(text), atoi(rows));
	return 0;
}

static bool in_range(const struct ap_option_row *row, int64_t value)
{
	const int64_t rows = row->type == AP_TYPE_TERMINAL ? 0xffff : 0;
	return value >= row->min && value <= row->max && (value & rows) >= (row->min & rows) &&
	       (value & rows) <= (row->max & rows);
}

static void number_show(const struct ap_option_row *row, int64_t number, struct ap_buf *out)
{
	char text[AP_PERMISSION_MAX];
	if (row->word && number == 0) {
		ap_buf_adds(out, row->word);
	} else if (row->type == AP_TYPE_DURATION) {
		ap_duration_format(number, text, sizeof text);
		ap_buf_adds(out, text);
	} else if (row->type == AP_TYPE_OCTAL) {
		ap_buf_printf(out, "%03" PRIo64, number);
	} else if (row->type == AP_TYPE_PERMISSION) {
		ap_permission_format((uint32_t)number, text, sizeof text);
		ap_buf_adds(out, text);
	} else if (row->type == AP_TYPE_BUDGET) {
		ap_budget_format(number, text, sizeof text);
		ap_buf_adds(out, text);
	} else if (row->type == AP_TYPE_TERMINAL) {
		ap_buf_printf(out, "%" PRId64 "x%" PRId64, number >> 16, number & 0xffff);
	} else {
		ap_buf_printf(out, "%" PRId64, number);
	}
}

static int budget_parse(const struct ap_option_row *row, const char *text, int64_t *ret,
			struct ap_err *err)
{
	int r = ap_budget_parse(text, ret, err);
	return r < 0 ? ap_err_wrap(err, r, "%s", row->name) : 0;
}

static int permission_parse(const struct ap_option_row *row, const char *text, int64_t *ret,
			    struct ap_err *err)
{
	uint32_t policy;
	int r = ap_permission_parse(text, &policy, err);
	if (r < 0)
		return ap_err_wrap(err, r, "%s", row->name);
	*ret = policy;
	return 0;
}

/* Says what would be right. */
static int out_of_range(const struct ap_option_row *row, const char *text, struct ap_err *err)
{
	AP_CLEANUP_BUF struct ap_buf min = {0}, max = {0};
	number_show(row, row->min, &min);
	number_show(row, row->max, &max);
	return ap_err_set(err, -ERANGE, "%s: '%.64s' is not in its range, %s%s%s to %s", row->name,
			  text, row->word ? row->word : "", row->word ? " or " : "",
			  ap_buf_text(&min), ap_buf_text(&max));
}

/* Parses and range-checks a number, permission bits, a duration or a size. */
static int value_parse(const struct ap_option_row *row, const char *text, int64_t *ret,
		       struct ap_err *err)
{
	static const struct {
		int (*parse)(const char *, int64_t *);
		const char *form;
	} types[] = {
		[AP_TYPE_NUMBER] = {ap_number_parse, "a whole number"},
		[AP_TYPE_OCTAL] = {ap_octal_parse, "permission bits in octal such as 022"},
		[AP_TYPE_DURATION] = {ap_duration_parse,
				      "a duration such as 250ms, 30s, 5m, 2h or 1d"},
		[AP_TYPE_SIZE] = {ap_size_parse, "a number of bytes such as 4096, 64K or 1M"},
		[AP_TYPE_TERMINAL] = {terminal_parse, "COLUMNSxROWS such as 200x50"},
	};
	int64_t value = 0;
	if (row->type == AP_TYPE_PERMISSION)
		return permission_parse(row, text, ret, err);
	if (row->type == AP_TYPE_BUDGET)
		return budget_parse(row, text, ret, err);
	if (row->word && strcmp(text, row->word) == 0) {
		*ret = 0;
		return 0;
	}
	if (*text == '\0' && *row->initial == '\0') {
		*ret = -1;
		return 0;
	}
	int r = types[row->type].parse(text, &value);
	if (r == -EINVAL)
		return ap_err_set(err, r, "%s: '%.64s' is not %s", row->name, text,
				  types[row->type].form);
	if (r < 0 || !in_range(row, value))
		return out_of_range(row, text, err);
	*ret = value;
	return 0;
}

/* The index of a word among the choices, or -1. */
static int choice_place(const char *choices, const char *word)
{
	size_t len = strlen(word);
	for (int place = 0; *choices; place++) {
		size_t n = strcspn(choices, " ");
		if (n == len && memcmp(choices, word, n) == 0)
			return place;
		choices += n + (choices[n] == ' ');
	}
	return -1;
}

unsigned ap_config_choice(const struct ap_config *config, enum ap_option option)
{
	/* text_parse() has checked that it is one of the choices */
	return (unsigned)choice_place(ap_options[option].choices, config->text[option]);
}

static int text_parse(const struct ap_option_row *row, const char *text, char **ret,
		      struct ap_err *err)
{
	if (strlen(text) >= AP_OPTION_TEXT_MAX)
		return ap_err_set(err, -EINVAL, "%s: longer than %d bytes", row->name,
				  AP_OPTION_TEXT_MAX - 1);
	if (*text == '\0' && *row->initial)
		return ap_err_set(err, -EINVAL, "%s: it cannot be empty", row->name);
	if (row->type == AP_TYPE_CHOICE && choice_place(row->choices, text) < 0)
		return ap_err_set(err, -EINVAL, "%s: '%.64s' is none of: %s", row->name, text,
				  row->choices);
	char *copy = strdup(text);
	if (!copy)
		return ap_err_errno(err, -ENOMEM, "%s", row->name);
	*ret = copy;
	return 0;
}

int ap_config_init(struct ap_config *config)
{
	*config = (struct ap_config){0};
	for (int i = 0; i < AP_N_OPTIONS; i++) {
		const struct ap_option_row *row = &ap_options[i];
		int r = row_is_text(row) ? text_parse(row, row->initial, &config->text[i], NULL)
					 : value_parse(row, row->initial, &config->number[i], NULL);
		if (r < 0) {
			ap_config_fini(config);
			return r;
		}
	}
	return 0;
}

void ap_config_fini(struct ap_config *config)
{
	for (int i = 0; i < AP_N_OPTIONS; i++)
		free(config->text[i]);
	*config = (struct ap_config){0};
}

int ap_config_copy(struct ap_config *ret, const struct ap_config *from)
{
	struct ap_config copy = *from;
	bool failed = false;
	for (int i = 0; i < AP_N_OPTIONS; i++) {
		copy.text[i] = from->text[i] ? strdup(from->text[i]) : NULL;
		failed = failed || (from->text[i] && !copy.text[i]);
	}
	if (failed)
		ap_config_fini(&copy);
	else
		*ret = copy;
	return failed ? -ENOMEM : 0;
}

int ap_option_find(const char *name)
{
	for (int i = 0; i < AP_N_OPTIONS; i++) {
		if (strcmp(name, ap_options[i].name) == 0)
			return i;
	}
	return -ENOENT;
}

int ap_config_check(const struct ap_config *config, struct ap_err *err)
{
	int64_t min = config->number[AP_OPT_MIN_POOL_SIZE];
	int64_t max = config->number[AP_OPT_MAX_POOL_SIZE];
	int64_t cap = config->number[AP_OPT_HARD_CAP];
	if (max > cap)
		return ap_err_set(err, -ERANGE,
				  "max_pool_size %" PRId64 " is over hard_cap %" PRId64, max, cap);
	if (min > max)
		return ap_err_set(err, -ERANGE,
				  "min_pool_size %" PRId64 " is over max_pool_size %" PRId64, min,
				  max);
	if (config->number[AP_OPT_SCALE_DOWN_AT] >= config->number[AP_OPT_SCALE_UP_AT])
		return ap_err_set(
			err, -ERANGE, "scale_down_at %" PRId64 " is not below scale_up_at %" PRId64,
			config->number[AP_OPT_SCALE_DOWN_AT], config->number[AP_OPT_SCALE_UP_AT]);
	if (config->number[AP_OPT_MIN_IDLE] > config->number[AP_OPT_MAX_IDLE])
		return ap_err_set(err, -ERANGE, "min_idle %" PRId64 " is over max_idle %" PRId64,
				  config->number[AP_OPT_MIN_IDLE], config->number[AP_OPT_MAX_IDLE]);
	return 0;
}

/* Whether the option may be set now, and to that text; *ret: the number that it means. At mount the
 * options come one by one: the caller checks at the end whether they fit each other. */
static int check(const struct ap_config *config, enum ap_option option, const char *text,
		 bool at_mount, int64_t *ret, struct ap_err *err)
{
	const struct ap_option_row *row = &ap_options[option];
	AP_CLEANUP_FREE char *copy = NULL;
	int r = row_is_text(row) ? text_parse(row, text, &copy, err)
				 : value_parse(row, text, ret, err);
	if (r < 0)
		return r;
	if (at_mount)
		return 0;
	if (row->when == AP_WHEN_MOUNT)
		return ap_err_set(err, -EPERM, "%s: set at mount only, with -o %s=VALUE", row->name,
				  row->name);
	struct ap_config changed = *config;
	if (!row_is_text(row))
		changed.number[option] = *ret;
	return ap_config_check(&changed, err);
}

int ap_config_try(const struct ap_config *config, enum ap_option option, const char *text,
		  struct ap_err *err)
{
	int64_t value = 0;
	return check(config, option, text, false, &value, err);
}

int ap_config_set(struct ap_config *config, enum ap_option option, const char *text, bool at_mount,
		  struct ap_err *err)
{
	const struct ap_option_row *row = &ap_options[option];
	int64_t value = 0;
	int r = check(config, option, text, at_mount, &value, err);
	if (r < 0)
		return r;
	if (row_is_text(row)) {
		char *copy = NULL;
		r = text_parse(row, text, &copy, err);
		if (r < 0)
			return r;
		free(config->text[option]);
		config->text[option] = copy;
	} else {
		config->number[option] = value;
	}
	config->origin[option] = at_mount ? AP_ORIGIN_MOUNT : AP_ORIGIN_SET;
	return 0;
}

/* --- profiles --- */

static const struct profile {
	const char *name;
	struct {
		enum ap_option option;
		const char *value;
	} settings[11];
} profiles[] = {
	{"development",
	 {{AP_OPT_MIN_POOL_SIZE, "1"},
	  {AP_OPT_MAX_POOL_SIZE, "3"},
	  {AP_OPT_IDLE_TIMEOUT, "30s"},
	  {AP_OPT_RECYCLE_THRESHOLD, "100"},
	  {AP_OPT_MAINTENANCE_INTERVAL, "5s"}}},
	{"production",
	 {{AP_OPT_MIN_POOL_SIZE, "4"},
	  {AP_OPT_MAX_POOL_SIZE, "10"},
	  {AP_OPT_IDLE_TIMEOUT, "5m"},
	  {AP_OPT_RECYCLE_THRESHOLD, "1000"},
	  {AP_OPT_MAINTENANCE_INTERVAL, "30s"},
	  {AP_OPT_MAX_MEMORY_MB, "1024"},
	  {AP_OPT_MAX_CPU_PERCENT, "90"},
	  {AP_OPT_MAX_INSTANCE_AGE, "2h"},
	  {AP_OPT_MAX_RECYCLES_PER_ID, "100"},
	  {AP_OPT_REQUESTS_PER_QUOTA, "5000"}}},
	{"high-load",
	 {{AP_OPT_MIN_POOL_SIZE, "8"},
	  {AP_OPT_MAX_POOL_SIZE, "10"},
	  {AP_OPT_IDLE_TIMEOUT, "2m"},
	  {AP_OPT_RECYCLE_THRESHOLD, "5000"},
	  {AP_OPT_MAINTENANCE_INTERVAL, "10s"},
	  {AP_OPT_MAX_MEMORY_MB, "2048"},
	  {AP_OPT_MAX_CPU_PERCENT, "95"},
	  {AP_OPT_MAX_INSTANCE_AGE, "1h"},
	  {AP_OPT_MAX_RECYCLES_PER_ID, "200"},
	  {AP_OPT_REQUESTS_PER_QUOTA, "10000"}}},
};

int ap_config_profile(struct ap_config *config, const char *name, struct ap_err *err)
{
	for (size_t i = 0; i < sizeof profiles / sizeof *profiles; i++) {
		const struct profile *profile = &profiles[i];
		int r = 0;
		if (strcmp(profile->name, name) != 0)
			continue;
		for (size_t j = 0; r == 0 && profile->settings[j].value; j++)
			r = ap_config_set(config, profile->settings[j].option,
					  profile->settings[j].value, true, err);
		return r;
	}
	return ap_err_set(err, -EINVAL,
			  "profile: '%.64s' is none of: development production high-load", name);
}

void ap_config_show(const struct ap_config *config, enum ap_option option, struct ap_buf *out)
{
	const struct ap_option_row *row = &ap_options[option];
	if (row_is_text(row))
		ap_buf_adds(out, config->text[option]);
	else if (config->number[option] >= 0)
		number_show(row, config->number[option], out);
}

/* --- present values of a pool --- */

int64_t ap_pool_config_number(struct ap_pool *pool, enum ap_option option)
{
	pthread_mutex_lock(&pool->lock);
	int64_t value = pool->config.number[option];
	pthread_mutex_unlock(&pool->lock);
	return value;
}

char *config_text(struct ap_pool *pool, enum ap_option option)
{
	pthread_mutex_lock(&pool->lock);
	char *text = strdup(pool->config.text[option]);
	pthread_mutex_unlock(&pool->lock);
	return text;
}
