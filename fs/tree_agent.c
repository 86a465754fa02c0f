/* agents/NAME/ and leases/: one directory an agent, one link a lease. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "control.h"
#include "tree.h"
#include "when.h"

static int fetch_screen(const struct tree_call *call, struct ap_request *request)
{
	return ap_agent_text(call->pool, call->agent, AP_TEXT_SCREEN, request, call->err);
}

static int fetch_wait(const struct tree_call *call, struct ap_request *request)
{
	return ap_agent_wait(call->pool, call->agent, AP_WAIT_ACTIVITY, call->nonblock, request,
			     call->err);
}

static int fetch_response(const struct tree_call *call, struct ap_request *request)
{
	return ap_agent_wait(call->pool, call->agent, AP_WAIT_RESPONSE, call->nonblock, request,
			     call->err);
}

/* More than the text will have, in whole pages: programs that trust sizes read no more than
 * that. */
static int64_t response_size(const struct tree_call *call)
{
	return (ap_pool_config_number(call->pool, AP_OPT_OUTPUT_LIMIT) | 0xfffff) + 1;
}

static int activity_line(const struct tree_call *call, char *line)
{
	return ap_agent_activity_set(call->pool, call->agent, line, call->err);
}

static int usage_line(const struct tree_call *call, char *line)
{
	return ap_agent_count(call->pool, call->agent, line, call->err);
}

static int fetch_diff(const struct tree_call *call, struct ap_request *request)
{
	return ap_agent_text(call->pool, call->agent, AP_TEXT_DIFF, request, call->err);
}

static int fetch_changes(const struct tree_call *call, struct ap_request *request)
{
	return ap_agent_text(call->pool, call->agent, AP_TEXT_CHANGES, request, call->err);
}

static int fetch_diffstat(const struct tree_call *call, struct ap_request *request)
{
	return ap_agent_text(call->pool, call->agent, AP_TEXT_DIFFSTAT, request, call->err);
}

static int fetch_head(const struct tree_call *call, struct ap_request *request)
{
	return ap_agent_text(call->pool, call->agent, AP_TEXT_HEAD, request, call->err);
}

static int64_t output_size(const struct tree_call *call)
{
	struct ap_agent_info info;
	ap_agent_look(call->pool, call->agent, &info);
	return info.output_size;
}

static int output_read(const struct tree_call *call, int64_t offset, size_t size,
		       struct ap_request *request)
{
	return ap_pool_read_kept(call->pool, call->agent, AP_KEPT_OUTPUT, offset, size, request,
				 call->err);
}

static int64_t raw_size(const struct tree_call *call)
{
	struct ap_agent_info info;
	ap_agent_look(call->pool, call->agent, &info);
	return info.raw_size;
}

static int raw_read(const struct tree_call *call, int64_t offset, size_t size,
		    struct ap_request *request)
{
	return ap_pool_read_kept(call->pool, call->agent, AP_KEPT_RAW, offset, size, request,
				 call->err);
}

static int64_t calls_size(const struct tree_call *call)
{
	struct ap_agent_info info;
	ap_agent_look(call->pool, call->agent, &info);
	return info.calls_size;
}

static int calls_read(const struct tree_call *call, int64_t offset, size_t size,
		      struct ap_request *request)
{
	return ap_pool_read_kept(call->pool, call->agent, AP_KEPT_CALLS, offset, size, request,
				 call->err);
}

static int worktree_link(const struct tree_call *call, struct ap_buf *out)
{
	struct ap_agent_info info;
	ap_agent_look(call->pool, call->agent, &info);
	ap_buf_adds(out, info.worktree);
	return 0;
}

static int fetch_request(const struct tree_call *call, struct ap_request *request)
{
	return ap_agent_text(call->pool, call->agent, AP_TEXT_REQUEST, request, call->err);
}

static int fetch_plan(const struct tree_call *call, struct ap_request *request)
{
	return ap_agent_text(call->pool, call->agent, AP_TEXT_PLAN, request, call->err);
}

static int fetch_stop_reason(const struct tree_call *call, struct ap_request *request)
{
	return ap_agent_text(call->pool, call->agent, AP_TEXT_STOP_REASON, request, call->err);
}

static int answer_submit(const struct tree_call *call, char *line, struct ap_request *request)
{
	return ap_agent_answer(call->pool, call->agent, call->token, call->uid, line, request,
			       call->err);
}

static int fetch_memory(const struct tree_call *call, struct ap_request *request)
{
	return ap_agent_text(call->pool, call->agent, AP_TEXT_MEMORY, request, call->err);
}

static int fetch_cpu(const struct tree_call *call, struct ap_request *request)
{
	return ap_agent_text(call->pool, call->agent, AP_TEXT_CPU, request, call->err);
}

static int fetch_tasks(const struct tree_call *call, struct ap_request *request)
{
	return ap_agent_text(call->pool, call->agent, AP_TEXT_TASKS, request, call->err);
}

static int transitions_show(const struct tree_call *call, struct ap_buf *out)
{
	return ap_agent_transitions(call->pool, call->agent, out)
		       ? 0
		       : ap_err_set(call->err, -ENODEV, "the agent is gone");
}

static const char attach_head[] =
	"#!/bin/sh\n"
	"# sh attach [-r]: the agent's terminal in yours; with -r you look on, and cannot type.\n"
	"# C-b d leaves it (in a tmux of your own C-b C-b d). The agent goes on.\n"
	"case $#$* in\n"
	"0 | 1-r) ;;\n"
	"*) echo 'usage: sh attach [-r]' >&2; exit 2 ;;\n"
	"esac\n";

/* There is a script whatever becomes of the terminal: run, it says what is wrong. */
static int attach_show(const struct tree_call *call, struct ap_buf *out)
{
	struct ap_buf command = {0};
	struct ap_err err = {""};
	ap_buf_adds(out, attach_head);
	if (ap_agent_attach(call->pool, call->agent, &command, &err) < 0) {
		ap_buf_adds(out, "echo ");
		ap_buf_add_quoted(out, err.text);
		ap_buf_adds(out, " >&2\nexit 1\n");
	} else { /* who is attached must not keep the mount busy: cd */
		ap_buf_printf(out, "unset TMUX\ncd / && exec %s \"$@\"\n", ap_buf_text(&command));
	}
	out->failed = out->failed || command.failed;
	ap_buf_fini(&command);
	return 0;
}

static int enter_show(const struct tree_call *call, struct ap_buf *out)
{
	struct ap_agent_info info;
	struct ap_buf path = {0};
	pid_t inside = ap_pool_inside(call->pool);
	(void)ap_agent_look(call->pool, call->agent, &info);
	ap_buf_add_quoted(&path, info.worktree);
	ap_buf_adds(
		out,
		"#!/bin/sh\n"
		"# sh enter [COMMAND [WORD...]]: runs it, or a shell, in the agent's worktree.\n"
		"[ $# -gt 0 ] || set -- \"${SHELL:-sh}\"\n");
	if (inside)
		ap_buf_printf(out,
			      "[ /proc/self/ns/user -ef /proc/%d/ns/user ] ||\n"
			      "\texec nsenter -t %d -U -m --preserve-credentials -- \\\n"
			      "\t\tsh -c 'cd \"$0\" && exec \"$@\"' %s \"$@\"\n",
			      (int)inside, (int)inside, ap_buf_text(&path));
	ap_buf_printf(out, "cd %s && exec \"$@\"\n", ap_buf_text(&path));
	out->failed = out->failed || path.failed;
	ap_buf_fini(&path);
	return 0;
}

static int prompt_take(const struct tree_call *call, const char *text, size_t len)
{
	return ap_agent_prompt(call->pool, call->agent, call->token, text, len, call->err);
}

static int keys_line(const struct tree_call *call, char *line)
{
	return ap_agent_keys(call->pool, call->agent, call->token, line, call->err);
}

static int run_kill(const struct tree_call *call)
{
	return ap_agent_kill(call->pool, call->agent, call->token, call->err);
}

static int run_recycle(const struct tree_call *call)
{
	return ap_agent_recycle(call->pool, call->agent, call->token, call->err);
}

static int run_restart(const struct tree_call *call)
{
	return ap_agent_restart(call->pool, call->agent, call->token, call->err);
}

static int run_pause(const struct tree_call *call)
{
	return ap_agent_pause(call->pool, call->agent, call->token, true, call->err);
}

static int run_resume(const struct tree_call *call)
{
	return ap_agent_pause(call->pool, call->agent, call->token, false, call->err);
}

static int run_reset(const struct tree_call *call)
{
	return ap_agent_reset(call->pool, call->agent, call->token, call->err);
}

static int run_cancel(const struct tree_call *call)
{
	return ap_agent_cancel(call->pool, call->agent, call->token, call->err);
}

static int submit_commit(const struct tree_call *call, const char *message,
			 struct ap_request *request)
{
	return ap_agent_commit(call->pool, call->agent, call->token, message, request, call->err);
}

static const struct control_command commands[] = {
	{"kill", "end the agent; the work of its lease is saved", .run = run_kill},
	{"recycle", "make it as new, at once or when its lease ends", .run = run_recycle},
	{"restart", "start its program anew in the same worktree", .run = run_restart},
	{"pause", "stop its processes", .run = run_pause},
	{"resume", "have them go on", .run = run_resume},
	{"cancel", "have it break off what it does", .run = run_cancel},
	{"reset", "have its program forget what was said", .run = run_reset},
	{"commit", "commit all that has changed", .submit = submit_commit, .takes = "MESSAGE"},
	{0},
};

static int ctl_submit(const struct tree_call *call, char *line, struct ap_request *request)
{
	return control_run(commands, call, line, request);
}

/* --- values: a row names the function that prints its value --- */

static void print_line(struct ap_buf *out, const char *text)
{
	ap_buf_printf(out, "%s\n", text);
}

static void print_number(struct ap_buf *out, uint64_t number)
{
	ap_buf_printf(out, "%" PRIu64 "\n", number);
}

static void print_seconds(struct ap_buf *out, int64_t ns)
{
	ap_buf_printf(out, "%.3f\n", (double)ns / (double)AP_SECOND);
}

static void print_date(struct ap_buf *out, const char *key, int64_t at_ns)
{
	char when[32] = "never";
	if (at_ns)
		ap_clock_rfc3339(at_ns, when, sizeof when);
	ap_buf_printf(out, "%s%s%s\n", key, *key ? " " : "", when);
}

static void print_state(const struct ap_agent_info *a, struct ap_buf *out)
{
	print_line(out, ap_agent_state_name(a->state));
}

static void print_activity(const struct ap_agent_info *a, struct ap_buf *out)
{
	print_line(out, ap_activity_name(a->activity));
}

static void print_why(const struct ap_agent_info *a, struct ap_buf *out)
{
	print_line(out, a->why);
}

static void print_until(const struct ap_agent_info *a, struct ap_buf *out)
{
	char when[32];
	if (!a->until_s)
		return;
	when_format(a->until_s, when, sizeof when);
	print_line(out, when);
}

static void print_lease(const struct ap_agent_info *a, struct ap_buf *out)
{
	if (a->token)
		print_line(out, a->label);
}

static void print_owner(const struct ap_agent_info *a, struct ap_buf *out)
{
	char permission[AP_PERMISSION_MAX], budget[AP_BUDGET_MAX];
	if (!a->token)
		return;
	ap_buf_printf(out, "uid %u\npid %d\n", a->owner_uid, (int)a->owner_pid);
	print_date(out, "granted", a->granted_ns);
	print_date(out, "expires", a->expires_ns);
	ap_permission_format(a->permission, permission, sizeof permission);
	ap_budget_format(a->budget, budget, sizeof budget);
	ap_buf_printf(out, "token %" PRIu64 "\npermission %s\nbudget %s\n", a->token, permission,
		      budget);
}

static void print_usage(const struct ap_agent_info *a, struct ap_buf *out)
{
	if (a->token)
		ap_usage_format(&a->used, "", " ", "\n", out);
	ap_usage_format(&a->used_ever, "agent_", " ", "\n", out);
}

static void print_id(const struct ap_agent_info *a, struct ap_buf *out)
{
	print_line(out, a->name);
}

static void print_pid(const struct ap_agent_info *a, struct ap_buf *out)
{
	if (a->pid)
		print_number(out, (uint64_t)a->pid);
}

static void print_age(const struct ap_agent_info *a, struct ap_buf *out)
{
	print_seconds(out, ap_clock_ns() - a->created_ns);
}

static void print_created(const struct ap_agent_info *a, struct ap_buf *out)
{
	print_date(out, "", a->created_ns);
}

static void print_idle_time(const struct ap_agent_info *a, struct ap_buf *out)
{
	print_seconds(out, a->idle_since_ns ? ap_clock_ns() - a->idle_since_ns : 0);
}

static void print_requests(const struct ap_agent_info *a, struct ap_buf *out)
{
	print_number(out, a->n_requests);
}

static void print_prompts(const struct ap_agent_info *a, struct ap_buf *out)
{
	print_number(out, a->n_prompts);
}

static void print_recycles(const struct ap_agent_info *a, struct ap_buf *out)
{
	print_number(out, a->n_recycles);
}

static void print_generation(const struct ap_agent_info *a, struct ap_buf *out)
{
	print_number(out, a->generation);
}

static void print_branch(const struct ap_agent_info *a, struct ap_buf *out)
{
	if (a->branch[0])
		print_line(out, a->branch);
}

static void print_base(const struct ap_agent_info *a, struct ap_buf *out)
{
	if (a->base[0])
		print_line(out, a->base);
}

static void print_conversation(const struct ap_agent_info *a, struct ap_buf *out)
{
	if (a->conversation[0])
		print_line(out, a->conversation);
}

static void print_exit_status(const struct ap_agent_info *a, struct ap_buf *out)
{
	ap_agent_exit_status(a, out);
	if (out->len > 0)
		ap_buf_adds(out, "\n");
}

static int show(const struct tree_call *call, struct ap_buf *out)
{
	struct ap_agent_info info;
	if (!ap_agent_look(call->pool, call->agent, &info))
		return ap_err_set(call->err, -ENODEV, "the agent is gone");
	tree_agent[call->index].agent_value(&info, out);
	return 0;
}

#define ROW(how, file, about) .name = (file), .doc = (about), .show = show, .agent_value = (how)
#define VALUE(how, file, about)                                                                    \
	{                                                                                          \
		ROW(how, file, about), .wakes = true                                               \
	}
/* A value that changes with time alone, or never, wakes nobody. */
#define SILENT(how, file, about)                                                                   \
	{                                                                                          \
		ROW(how, file, about)                                                              \
	}

const struct tree_row tree_agent[] = {
	VALUE(print_state, "state",
	      "spawning, idle, validating, active, recycling, unhealthy, draining, stopping, lost"),
	{ROW(print_activity, "activity",
	     "what the program does: starting, ready, busy, waiting, limited, exited; its own hook "
	     "may write it"),
	 .wakes = true, .line = activity_line, .writer = TREE_WRITER_HOLDER},
	VALUE(print_why, "why", "the evidence that activity was concluded from"),
	VALUE(print_until, "until",
	      "when the usage limit that it has reached ends, RFC 3339; empty when not known"),
	VALUE(print_lease, "lease", "the label; empty when not leased"),
	VALUE(print_owner, "owner",
	      "uid, pid, granted, expires, token, permission and budget of the lease, a line each"),
	{ROW(print_usage, "usage",
	     "tokens and money that the lease, and the agent ever, have used; its own hook may "
	     "write "
	     "it"),
	 .wakes = true, .line = usage_line, .writer = TREE_WRITER_HOLDER},
	SILENT(print_id, "id", "the agent's name"),
	VALUE(print_pid, "pid",
	      "of the program; empty before it has started and when it has ended"),
	SILENT(print_age, "age", "seconds since it was made"),
	SILENT(print_created, "created", "when it was made, RFC 3339"),
	SILENT(print_idle_time, "idle_time", "seconds without a lease; 0 when leased"),
	VALUE(print_requests, "requests", "leases it has served"),
	VALUE(print_prompts, "prompts", "prompts of this lease"),
	VALUE(print_recycles, "recycles", "times it was recycled"),
	VALUE(print_generation, "generation", "1, and one more for every recycling"),
	VALUE(print_conversation, "conversation",
	      "that the program is in, by its own id; empty when not known"),
	VALUE(print_branch, "branch", "the lease's branch"),
	VALUE(print_base, "base", "commit that the lease started from"),
	VALUE(print_exit_status, "exit_status",
	      "of the program's last end: code or signal, and when; empty: it has not ended"),
	{"transitions", "its last 64 changes of state: time, from, to, reason",
	 .show = transitions_show, .wakes = true},
	{"memory", "bytes, of its whole process tree", .fetch = fetch_memory},
	{"cpu", "percent of one CPU over the last minute, of its whole process tree",
	 .fetch = fetch_cpu},
	{"tasks", "processes of its tree", .fetch = fetch_tasks},
	{"head", "commit of the worktree now", .fetch = fetch_head},
	{"worktree", "link to the worktree", .link = worktree_link},
	{"prompt", "what is written until the last close is one prompt", .take = prompt_take,
	 .writer = TREE_WRITER_HOLDER},
	{"keys", "keys to type, in tmux's names: C-c Escape Enter 1", .line = keys_line,
	 .writer = TREE_WRITER_HOLDER},
	{"request", "what the program asks: id, title, kind, detail, and a line an option",
	 .fetch = fetch_request},
	{"answer", "[ID] and an option of request, or allow, always, reject, cancel",
	 .submit = answer_submit, .writer = TREE_WRITER_HOLDER, .fresh = true},
	{"attach", "a script that attaches your terminal: sh attach, to look only sh attach -r",
	 .show = attach_show},
	{"enter", "a script that runs a command, or a shell, in the worktree: sh enter [COMMAND]",
	 .show = enter_show},
	{"screen", "what is on the terminal now", .fetch = fetch_screen},
	{"output", "all it printed, plain text; grows", .size = output_size, .read = output_read},
	{"output.raw", "the bytes that it printed; grows", .size = raw_size, .read = raw_read},
	{"calls", "its tool calls that have ended, a line of JSON each; grows", .size = calls_size,
	 .read = calls_read},
	{"plan", "what the program means to do: status, priority and text, a line each",
	 .fetch = fetch_plan},
	{"stop_reason", "why the program's last turn ended: end_turn, cancelled, refusal, error, …",
	 .fetch = fetch_stop_reason},
	{"wait",
	 "a read waits until the program is ready, waiting, limited or exited, and prints which",
	 .fetch = fetch_wait, .parks = true, .unlisted = true},
	{"response", "a read waits likewise, and prints what was printed since the last prompt",
	 .fetch = fetch_response, .size = response_size, .parks = true, .unlisted = true},
	{"diff", "worktree against base, untracked files included", .fetch = fetch_diff},
	{"diffstat", "summary of diff", .fetch = fetch_diffstat},
	{"changes", "a line a path that differs from base, as git status --porcelain",
	 .fetch = fetch_changes},
	{"ctl", "kill, recycle, restart, pause, resume, cancel, reset, commit MESSAGE",
	 .submit = ctl_submit, .writer = TREE_WRITER_HOLDER, .fresh = true},
	{0},
};

static int lease_link(const struct tree_call *call, struct ap_buf *out)
{
	struct ap_agent_info info;
	ap_agent_look(call->pool, call->agent, &info);
	ap_buf_printf(out, "../agents/%s", info.name);
	return 0;
}

const struct tree_row tree_lease[] = {
	{"LABEL", "link to the agent of the lease; removing it releases", .link = lease_link},
	{0},
};
