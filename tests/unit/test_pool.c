/* A whole pool without a mount and without programs: leases, prompts, settings, what is seen of it,
 * its end, and what the next one goes on with. On a repository of its own, and the fake backend. */
#include <errno.h>
#include <sys/stat.h>

#include "cleanup.h"
#include "overview.h"
#include "whole_pool.h"

/* --- requests, waited for --- */

struct asked {
	struct ap_request *request;
	struct asked **order; /* a list to which it is appended when it is answered; NULL: none */
	unsigned *n_order;
	bool answered;
	int result;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t news = PTHREAD_COND_INITIALIZER;

static void on_done(struct ap_request *request, int result, void *data)
{
	struct asked *asked = data;
	(void)request;
	pthread_mutex_lock(&lock);
	asked->answered = true;
	asked->result = result;
	if (asked->order)
		asked->order[(*asked->n_order)++] = asked;
	pthread_cond_broadcast(&news);
	pthread_mutex_unlock(&lock);
}

static struct ap_request *ask(struct asked *asked)
{
	asked->answered = false;
	asked->request = ap_request_new(on_done, asked);
	assert_non_null(asked->request);
	return asked->request;
}

static int answer(struct asked *asked)
{
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += WAIT_S;
	int r = 0;
	pthread_mutex_lock(&lock);
	while (!asked->answered && r == 0)
		r = pthread_cond_timedwait(&news, &lock, &until);
	pthread_mutex_unlock(&lock);
	assert_int_equal(r, 0);
	return asked->result;
}

static void let_go(struct asked *asked)
{
	ap_request_free(asked->request);
	asked->request = NULL;
}

/* What was refused at once is never answered. */
static int settled(struct asked *asked, int refused)
{
	int r = refused < 0 ? refused : answer(asked);
	if (refused == 0 && r < 0)
		ap_err_set(&err, r, "%s", ap_request_why(asked->request));
	return r;
}

static struct ap_acquire wanted(const char *label, int64_t timeout_ns)
{
	struct ap_acquire acquire = {
		.timeout_ns = timeout_ns, .ttl_ns = -1, .uid = getuid(), .pid = getpid()};
	snprintf(acquire.label, sizeof acquire.label, "%s", label);
	return acquire;
}

static void acquire_begin(struct asked *asked, const char *label, int64_t timeout_ns)
{
	struct ap_acquire acquire = wanted(label, timeout_ns);
	assert_int_equal(ap_pool_acquire(pool, &acquire, ask(asked), &err), 0);
}

static int acquire_within(const char *label, int64_t timeout_ns)
{
	struct asked asked = {0};
	struct ap_acquire acquire = wanted(label, timeout_ns);
	int r = settled(&asked, ap_pool_acquire(pool, &acquire, ask(&asked), &err));
	let_go(&asked);
	return r;
}

static int acquire(const char *label)
{
	return acquire_within(label, WAIT_S * AP_SECOND);
}

static int release(const char *label)
{
	struct asked asked = {0};
	int r = settled(&asked, ap_pool_release(pool, label, false, getuid(), ask(&asked), &err));
	let_go(&asked);
	return r;
}

static void await(bool (*holds)(const void *), const void *data)
{
	for (int64_t until = ap_clock_ns() + WAIT_S * AP_SECOND; !holds(data);) {
		assert_true(ap_clock_ns() < until);
		usleep(2000);
	}
}

/* Of the agent that serves a lease, or of that name. */
static struct ap_agent_info info_of(const char *label)
{
	struct ap_agent_info info = {.number = 0};
	uint64_t token;
	struct ap_agent *agent = ap_agent_of_label(pool, label, &token);
	if (!agent)
		agent = ap_agent_find(pool, label);
	if (agent) {
		assert_true(ap_agent_look(pool, agent, &info));
		info.worktree = NULL; /* as long as the reference */
	}
	ap_agent_unref(agent);
	return info;
}

static void write_into(const char *label, const char *name, const char *text)
{
	uint64_t token;
	struct ap_agent_info info;
	struct ap_agent *agent = ap_agent_of_label(pool, label, &token);
	assert_non_null(agent);
	assert_true(ap_agent_look(pool, agent, &info));
	run("echo '%s' > %s/%s", text, info.worktree, name);
	ap_agent_unref(agent);
}

static struct ap_stats stats(void)
{
	struct ap_stats ret;
	ap_pool_stats(pool, &ret);
	return ret;
}

/* --- leases --- */

static void a_lease_has_an_agent_a_branch_and_an_end(void **test_state)
{
	START(.min = "1");
	assert_int_equal(acquire("job"), 0);
	assert_int_equal(acquire("job"), -EEXIST);
	assert_string_equal(info_of("job").branch, "agentpool/job");
	write_into("job", "made", "text");
	assert_int_equal(release("job"), 0);
	assert_int_equal(release("job"), -ENOENT);
	run("test \"$(git -C %s show agentpool/job:made)\" = text", repo);
	assert_int_equal(acquire("idle"), 0);
	assert_int_equal(release("idle"), 0);
	run("! git -C %s rev-parse -q --verify agentpool/idle", repo);
}

static void who_waits_is_served_in_order(void **test_state)
{
	struct asked asked[3], *order[3];
	unsigned n = 0;
	START(.max = "1");
	assert_int_equal(acquire("first"), 0);
	for (int i = 0; i < 3; i++) {
		char label[16];
		asked[i] = (struct asked){.order = order, .n_order = &n};
		snprintf(label, sizeof label, "job-%d", i);
		acquire_begin(&asked[i], label, WAIT_S * AP_SECOND);
	}
	assert_int_equal(stats().n_waiting, 3);
	ap_request_cancel(pool, asked[1].request);
	assert_int_equal(answer(&asked[1]), -ECANCELED);
	assert_int_equal(release("first"), 0);
	assert_int_equal(answer(&asked[0]), 0);
	assert_int_equal(stats().n_waiting, 1);
	assert_int_equal(release("job-0"), 0);
	assert_int_equal(answer(&asked[2]), 0);
	assert_ptr_equal(order[0], &asked[1]);
	assert_ptr_equal(order[1], &asked[0]);
	assert_ptr_equal(order[2], &asked[2]);
	for (int i = 0; i < 3; i++)
		let_go(&asked[i]);
	assert_int_equal(release("job-2"), 0);
}

static void who_does_not_wait_is_told_at_once_and_who_waits_too_long_then(void **test_state)
{
	START(.max = "1");
	assert_int_equal(acquire("job"), 0);
	assert_int_equal(acquire_within("more", 0), -EAGAIN);
	assert_int_equal(acquire_within("more", 20 * AP_MS), -ETIMEDOUT);
	assert_int_equal(stats().n_waiting, 0);
}

static void nobody_else_ends_a_lease(void **test_state)
{
	struct asked asked = {0};
	START(.min = "1");
	assert_int_equal(acquire("job"), 0);
	uid_t other = getuid() + 1;
	assert_int_equal(ap_pool_may_release(pool, "job", other, &err), -EPERM);
	assert_int_equal(ap_pool_release(pool, "job", false, other, ask(&asked), &err), -EPERM);
	let_go(&asked);
	ap_pool_release_key(pool, (struct ap_lease_key){.agent = info_of("job").number,
							.token = info_of("job").token + 1});
	assert_int_equal(info_of("job").state, AP_AGENT_ACTIVE);
}

static void work_that_cannot_be_saved_stays_until_it_can(void **test_state)
{
	START(.min = "1");
	assert_int_equal(acquire("job"), 0);
	write_into("job", "made", "text");
	run("mkdir -p %s/.git/refs/heads && echo no > %s/.git/refs/heads/agentpool", repo, repo);
	const struct ap_agent_info before = info_of("job");
	assert_int_equal(release("job"), -EIO);
	assert_int_equal(info_of(before.name).state, AP_AGENT_UNHEALTHY);
	assert_string_equal(info_of(before.name).branch, "agentpool/job");
	run("rm %s/.git/refs/heads/agentpool", repo);
	assert_int_equal(release("job"), 0);
	run("test \"$(git -C %s show agentpool/job:made)\" = text", repo);
}

/* --- prompts --- */

static void a_prompt_is_typed_submitted_and_waited_for(void **test_state)
{
	struct asked asked = {0};
	uint64_t token;
	START(.min = "1");
	assert_int_equal(acquire("job"), 0);
	struct ap_agent *agent = ap_agent_of_label(pool, "job", &token);
	assert_int_equal(ap_agent_prompt(pool, agent, token, "hello", 5, &err), 0);
	assert_int_equal(ap_agent_prompt(pool, agent, token + 1, "hello", 5, &err), -ESTALE);
	assert_int_equal(settled(&asked, ap_agent_wait(pool, agent, AP_WAIT_RESPONSE, false,
						       ask(&asked), &err)),
			 0);
	let_go(&asked);
	assert_int_equal(
		settled(&asked, ap_agent_text(pool, agent, AP_TEXT_SCREEN, ask(&asked), &err)), 0);
	assert_string_equal(ap_buf_text(ap_request_text(asked.request)), "hello\n");
	let_go(&asked);
	assert_int_equal(info_of("job").n_prompts, 1);
	ap_agent_unref(agent);
}

/* --- spawning --- */

static void a_program_that_cannot_be_started_is_not_tried_for_ever(void **test_state)
{
	START(.argv = {"fake", "fail=100", NULL});
	assert_int_equal(acquire("job"), -EHOSTDOWN);
	assert_string_equal(stats().breaker, "open");
	assert_int_equal(stats().n_spawned, 0);
}

static bool has_idle(const void *n)
{
	return stats().n_idle == *(const unsigned *)n;
}

static void the_pool_grows_as_asked_and_shrinks(void **test_state)
{
	struct asked asked = {0};
	const unsigned three = 3, one = 1;
	START(.min = "1");
	assert_int_equal(settled(&asked, ap_pool_scale(pool, 3, ask(&asked), &err)), 0);
	let_go(&asked);
	await(has_idle, &three);
	assert_int_equal(settled(&asked, ap_pool_scale(pool, 1, ask(&asked), &err)), 0);
	let_go(&asked);
	await(has_idle, &one);
	assert_int_equal(ap_pool_scale(pool, 5, ask(&asked), &err), -ERANGE);
	let_go(&asked);
}

/* --- what is seen of it --- */

static void an_overview_is_one_consistent_look(void **test_state)
{
	struct asked waits = {0}, looks = {0};
	struct ap_overview overview;
	START(.min = "2", .max = "2");
	assert_int_equal(acquire("one"), 0);
	assert_int_equal(acquire("two"), 0);
	acquire_begin(&waits, "three", WAIT_S * AP_SECOND);
	ap_pool_look(pool, ask(&looks));
	assert_int_equal(answer(&looks), 0);
	assert_int_equal(ap_pool_overview(pool, &overview), 0);
	assert_int_equal(overview.n_agents, 2);
	assert_true(overview.agents[0].info.number < overview.agents[1].info.number);
	assert_int_equal(overview.metrics.n_in_state[AP_AGENT_ACTIVE], 2);
	assert_int_equal(overview.metrics.stats.utilization, 100);
	assert_int_equal(overview.n_waiters, 1);
	assert_string_equal(overview.waiters[0].label, "three");
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(overview.agents[i].info.state, AP_AGENT_ACTIVE);
	ap_overview_fini(&overview);
	assert_int_equal(release("one"), 0);
	assert_int_equal(answer(&waits), 0);
	let_go(&waits);
	let_go(&looks);
}

static void what_is_counted_is_what_was_done(void **test_state)
{
	struct ap_metrics metrics;
	struct ap_agent_metrics agents[4];
	START(.max = "1");
	for (int i = 0; i < 5; i++) {
		assert_int_equal(acquire("job"), 0);
		assert_int_equal(release("job"), 0);
	}
	assert_int_equal(acquire("held"), 0);
	assert_int_equal(acquire_within("more", 0), -EAGAIN);
	ap_pool_metrics(pool, &metrics, agents, 4);
	assert_int_equal(metrics.stats.n_requests, 6);
	assert_int_equal(metrics.stats.n_active, 1);
	assert_int_equal(counters_count(&metrics.counts, COUNTERS_WAIT), 6);
	assert_int_equal(counters_count(&metrics.counts, COUNTERS_HOLD), 5);
	assert_int_equal(metrics.n_agents, 1);
	assert_int_equal(agents[0].n_requests, 6);
}

static unsigned n_events(const char *wanted_text)
{
	struct asked asked = {0};
	unsigned n = 0;
	int r = ap_pool_read_kept(pool, NULL, AP_KEPT_EVENTS, 0, 1 << 20, ask(&asked), &err);
	assert_int_equal(settled(&asked, r), 0);
	for (const char *at = ap_buf_text(ap_request_text(asked.request));
	     (at = strstr(at, wanted_text)); at++)
		n++;
	let_go(&asked);
	return n;
}

static bool has_ended_twice(const void *data)
{
	(void)data;
	return n_events("\"lease_ended\"") == 2;
}

static void events_tell_of_every_lease_once(void **test_state)
{
	START(.min = "1");
	for (int i = 0; i < 2; i++) {
		assert_int_equal(acquire("job"), 0);
		assert_int_equal(release("job"), 0);
	}
	await(has_ended_twice, NULL);
	assert_int_equal(n_events("\"lease_granted\""), 2);
	assert_int_equal(n_events("\"lease_ended\""), 2);
}

/* --- settings, and the next pool --- */

static int set_option(enum ap_option option, const char *text)
{
	struct asked asked = {0};
	int r = settled(&asked, ap_pool_config_set(pool, option, text, ask(&asked), &err));
	let_go(&asked);
	return r;
}

static void a_setting_is_checked_and_outlives_the_pool(void **test_state)
{
	START(.min = "1");
	assert_int_equal(set_option(AP_OPT_MAX_POOL_SIZE, "0"), -ERANGE);
	assert_int_equal(set_option(AP_OPT_MAX_POOL_SIZE, "many"), -EINVAL);
	assert_int_equal(set_option(AP_OPT_STATE_DIR, "/elsewhere"), -EPERM);
	assert_int_equal(set_option(AP_OPT_LEASE_TTL, "90s"), 0);
	stop();
	START(.min = "1");
	assert_int_equal(ap_pool_config_number(pool, AP_OPT_LEASE_TTL), 90 * AP_SECOND);
}

static bool has_exited(const void *label)
{
	return info_of(label).activity == AP_ACTIVITY_EXITED;
}

static void leases_outlive_a_pool_that_persists(void **test_state)
{
	START(.persist = "yes");
	assert_int_equal(acquire("job"), 0);
	uint64_t token = info_of("job").token;
	write_into("job", "made", "text");
	stop();
	START(.persist = "yes");
	assert_int_equal(info_of("job").token, token);
	assert_int_equal(info_of("job").state, AP_AGENT_ACTIVE);
	await(has_exited, "job"); /* the fake ones end with their daemon */
	assert_int_equal(release("job"), 0);
	run("test \"$(git -C %s show agentpool/job:made)\" = text", repo);
	assert_int_equal(acquire("next"), 0);
	assert_true(info_of("next").token > token);
	assert_int_equal(stats().n_requests, 2);
	assert_int_equal(release("next"), 0);
	set_option(AP_OPT_LEASE_TTL, "0");
}

/* As a daemon that is killed: nothing is ended in order. */
static void leases_outlive_a_pool_that_goes_without_an_end(void **test_state)
{
	START(.min = "1");
	assert_int_equal(acquire("job"), 0);
	write_into("job", "made", "text");
	ap_pool_free(pool);
	pool = NULL;
	START(.min = "1");
	assert_int_equal(info_of("job").state, AP_AGENT_ACTIVE);
	assert_int_equal(release("job"), 0);
	run("test \"$(git -C %s show agentpool/job:made)\" = text", repo);
}

static void the_end_answers_who_waits_and_saves_what_is_leased(void **test_state)
{
	struct asked waits = {0};
	START(.max = "1");
	assert_int_equal(acquire("job"), 0);
	write_into("job", "made", "text");
	acquire_begin(&waits, "more", WAIT_S * AP_SECOND);
	stop();
	assert_int_equal(answer(&waits), -ESHUTDOWN);
	let_go(&waits);
	run("test \"$(git -C %s show agentpool/job:made)\" = text", repo);
	run("test -z \"$(ls %s/worktrees 2>/dev/null)\"", state);
}

static void what_cannot_be_a_pool_is_refused_and_nothing_is_made(void **test_state)
{
	const struct setup setup = {.min = "3", .max = "4"};
	run("mv %s %s.away", repo, repo);
	assert_int_equal(start_as(&setup), -ENOENT);
	run("mv %s.away %s; test ! -e %s", repo, repo, state);
	START(.min = "1");
}

#define POOL_TEST(sentence, function)                                                              \
	{                                                                                          \
		.name = (sentence), .test_func = (function), .setup_func = begin,                  \
		.teardown_func = end                                                               \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		POOL_TEST("a lease has an agent, a branch and an end",
			  a_lease_has_an_agent_a_branch_and_an_end),
		POOL_TEST("who waits is served in order, without who has given up",
			  who_waits_is_served_in_order),
		POOL_TEST("who does not wait is told at once, and who waits too long then",
			  who_does_not_wait_is_told_at_once_and_who_waits_too_long_then),
		POOL_TEST("nobody else ends a lease", nobody_else_ends_a_lease),
		POOL_TEST("work that cannot be saved stays until it can",
			  work_that_cannot_be_saved_stays_until_it_can),
		POOL_TEST("a prompt is typed, submitted and waited for",
			  a_prompt_is_typed_submitted_and_waited_for),
		POOL_TEST("a program that cannot be started is not tried for ever",
			  a_program_that_cannot_be_started_is_not_tried_for_ever),
		POOL_TEST("the pool grows as asked, and shrinks",
			  the_pool_grows_as_asked_and_shrinks),
		POOL_TEST("an overview is one consistent look", an_overview_is_one_consistent_look),
		POOL_TEST("what is counted is what was done", what_is_counted_is_what_was_done),
		POOL_TEST("events tell of every lease once", events_tell_of_every_lease_once),
		POOL_TEST("a setting is checked, and outlives the pool",
			  a_setting_is_checked_and_outlives_the_pool),
		POOL_TEST("leases outlive a pool that persists",
			  leases_outlive_a_pool_that_persists),
		POOL_TEST("leases outlive a pool that goes without an end",
			  leases_outlive_a_pool_that_goes_without_an_end),
		POOL_TEST("the end answers who waits and saves what is leased",
			  the_end_answers_who_waits_and_saves_what_is_leased),
		POOL_TEST("what cannot be a pool is refused, and nothing is made",
			  what_cannot_be_a_pool_is_refused_and_nothing_is_made),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
