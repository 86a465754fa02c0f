/* Open files of a whole mount, without a mount: the test is the kernel (kernel.h), the pool is on
 * the fake backend. What one open reads, what is parked and interrupted, lines and texts that are
 * written, leases by handle, followers and pollers. */
#include "kernel.h"
#include "whole_pool.h"

#include "last_error.h"
#include "ops.h"

static struct mount mount;
static struct parked_set *parked;
static char text[64 << 10];

static void on_agent_gone(void *data, const char *name)
{
	(void)data;
	mount_forget_agent(&mount, name);
}

static void on_changed(void *data)
{
	(void)data;
	open_files_changed(mount.files);
}

static void on_answers(void *data)
{
	(void)data;
}

static void mount_as(struct setup setup)
{
	char program[] = "test", *argv[] = {program, NULL};
	struct fuse_args args = FUSE_ARGS_INIT(1, argv);
	setup.agent_gone = on_agent_gone;
	setup.changed = on_changed;
	if (make_as(&setup) < 0)
		fail_msg("%s", err.text);
	parked = parked_set_new();
	mount = (struct mount){
		.pool = pool,
		.snapshots = snapshots_new(),
		.session = fuse_session_new(&args, &mount_ops, sizeof mount_ops, &mount),
		.uid = getuid(),
		.gid = getgid(),
		.umask = -1,
		.answers = on_answers};
	fuse_opt_free_args(&args); /* as libfuse has parsed them */
	assert_non_null(parked);
	assert_non_null(mount.snapshots);
	assert_non_null(mount.session);
	mount.files = open_files_new(pool, parked, mount.snapshots);
	assert_non_null(mount.files);
	open_files_serve(mount.files, mount.session);
	kernel_begin(mount.session);
	if (ap_pool_start(pool, &err) < 0)
		fail_msg("%s", err.text);
}

#define MOUNT(...) mount_as((struct setup){__VA_ARGS__})

static int end_mount(void **test_state)
{
	if (pool) {
		assert_int_equal(ap_pool_stop(pool, &err), 0);
		kernel_end();
		ap_pool_free(pool); /* its workers answer what is still parked */
		pool = NULL;
		kernel_done();
		open_files_free(mount.files);
		snapshots_free(mount.snapshots);
		parked_set_free(parked);
		fuse_session_destroy(mount.session);
	}
	return end(test_state);
}

/* --- what is seen --- */

/* All requests that were sent before have been looked at. */
static void barrier(void)
{
	uint64_t unique = kernel_send(FUSE_STATFS, FUSE_ROOT_ID, NULL, 0, NULL, 0);
	assert_true(kernel_reply(unique, NULL, 0) > 0);
}

static void assert_waits(uint64_t unique)
{
	barrier();
	assert_false(kernel_has_reply(unique));
}

static unsigned number_in(const char *path)
{
	char *is = kernel_cat(path);
	unsigned ret = (unsigned)strtoul(is, NULL, 10);
	free(is);
	return ret;
}

static void await_number(const char *path, unsigned expected)
{
	for (int64_t until = ap_clock_ns() + WAIT_S * AP_SECOND; number_in(path) != expected;) {
		if (ap_clock_ns() >= until)
			fail_msg("%s is %u, not %u", path, number_in(path), expected);
		usleep(2000);
	}
}

static void assert_last_error_has(const char *words)
{
	char *is = kernel_cat("last_error");
	if (!strstr(is, words))
		fail_msg("last_error: %s", is);
	free(is);
}

/* Asks for a lease through a handle that is to be it. */
static struct kernel_file ask_by_handle(const char *words, int flags)
{
	struct kernel_file file = kernel_open("acquire", O_RDWR | flags);
	assert_int_equal(kernel_write(&file, words), strlen(words));
	return file;
}

/* Has a lease by handle, and its agent's name. */
static struct kernel_file hold_lease(const char *label, char ret_name[64])
{
	struct kernel_file file = ask_by_handle(label, 0);
	int n = kernel_read(&file, text, sizeof text);
	if (n < 0)
		fail_msg("%s: %s", label, strerror(-n));
	assert_int_equal(sscanf(text, "%63s", ret_name), 1);
	return file;
}

/* The path of a file of an agent's. */
static const char *of_agent(const char *name, const char *file)
{
	static char path[256];
	snprintf(path, sizeof path, "agents/%s/%s", name, file);
	return path;
}

/* --- reading --- */

static void assert_length_is_told(const char *dir, const struct tree_row *row)
{
	char path[256];
	struct kernel_file file;
	struct fuse_getattr_in in = {0};
	struct fuse_attr_out attr;
	snprintf(path, sizeof path, "%s%s", dir, row->name);
	enum tree_reading reading = tree_reading(row);
	if ((reading != TREE_READ_SHOW && reading != TREE_READ_FETCH) || row->size)
		return;
	if (kernel_try_open(path, O_RDONLY, &file) < 0)
		fail_msg("%s cannot be opened", path);
	uint64_t unique = kernel_send(FUSE_GETATTR, file.nodeid, &in, sizeof in, NULL, 0);
	assert_int_equal(kernel_reply(unique, &attr, sizeof attr), sizeof attr);
	int n = kernel_read(&file, text, sizeof text);
	if (n < 0 || (uint64_t)n != attr.attr.size)
		fail_msg("%s: %d bytes are read, %d were told", path, n, (int)attr.attr.size);
	assert_int_equal(kernel_read(&file, text, sizeof text), 0);
	kernel_close(&file);
}

static void a_text_has_the_length_that_is_told(void **test_state)
{
	char name[64], dir[128];
	MOUNT(.min = "1");
	struct kernel_file lease = hold_lease("job", name);
	snprintf(dir, sizeof dir, "agents/%s/", name);
	const struct {
		const char *dir;
		const struct tree_row *rows;
	} tables[] = {{"", tree_root},
		      {"stats/", tree_stats},
		      {"config/", tree_config},
		      {dir, tree_agent}};
	for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
		for (const struct tree_row *row = tables[i].rows; row->name; row++)
			assert_length_is_told(tables[i].dir, row);
	}
	kernel_close(&lease);
}

static void one_open_reads_one_text(void **test_state)
{
	MOUNT(.min = "1");
	struct kernel_file before = kernel_open("config/max_pool_size", O_RDONLY);
	assert_int_equal(kernel_echo("3\n", "config/max_pool_size"), 0);
	assert_cat("config/max_pool_size", "3\n");
	for (int i = 0; i < 2; i++) { /* again from its start too */
		before.offset = 0;
		assert_int_equal(kernel_read(&before, text, sizeof text), 2);
		assert_string_equal(text, "4\n");
	}
	kernel_close(&before);
}

static void a_value_that_is_read_again_from_its_start_is_what_it_is_now(void **test_state)
{
	char name[64];
	MOUNT(.min = "1", .max = "1");
	await_number("stats/idle_agents", 1);
	struct kernel_file value = kernel_open("stats/idle_agents", O_RDONLY);
	assert_int_equal(kernel_read(&value, text, 1), 1);
	struct kernel_file lease = hold_lease("job", name);
	assert_int_equal(kernel_read(&value, text, sizeof text), 1); /* the rest of what it was */
	value.offset = 0;
	assert_int_equal(kernel_read(&value, text, sizeof text), 2);
	assert_string_equal(text, "0\n");
	kernel_close(&value);
	kernel_close(&lease);
}

static void a_closed_file_is_no_file(void **test_state)
{
	MOUNT(.min = "1");
	struct kernel_file file = kernel_open("config/max_pool_size", O_RDWR), other;
	kernel_close(&file);
	other = kernel_open("config/min_pool_size", O_RDWR);
	assert_int_equal(kernel_read(&file, text, sizeof text), -EBADF);
	assert_int_equal(kernel_write(&file, "1\n"), -EBADF);
	assert_int_equal(kernel_flush(&file), 0);
	kernel_release(&file);
	assert_int_equal(kernel_read(&other, text, sizeof text), 2);
	kernel_close(&other);
}

static void who_may_not_write_may_not_write_through_another(void **test_state)
{
	struct kernel_file lent;
	MOUNT(.min = "1");
	kernel.uid = getuid() + 4321;
	assert_int_equal(kernel_try_open("config/max_pool_size", O_WRONLY, &lent), -EPERM);
	kernel.uid = getuid();
	lent = kernel_open("config/max_pool_size", O_WRONLY);
	kernel.uid = getuid() + 4321;
	assert_int_equal(kernel_write(&lent, "2\n"), -EPERM);
	kernel.uid = getuid();
	kernel_close(&lent);
	assert_cat("config/max_pool_size", "4\n");
}

/* --- what is waited for --- */

static void a_read_waits_for_what_it_is_of(void **test_state)
{
	char name[64];
	MOUNT(.min = "1");
	struct kernel_file lease = hold_lease("job", name);
	assert_int_equal(kernel_echo("hello", of_agent(name, "prompt")), 0);
	assert_cat(of_agent(name, "wait"), "ready\n");
	assert_cat(of_agent(name, "screen"), "hello\n");
	assert_cat(of_agent(name, "prompts"), "1\n");
	kernel_close(&lease);
}

static void an_interrupted_read_is_told_so_and_the_next_one_waits_again(void **test_state)
{
	char name[64];
	MOUNT(.min = "1", .max = "1");
	struct kernel_file first = hold_lease("first", name), second = ask_by_handle("second", 0);
	for (int i = 0; i < 2; i++) {
		uint64_t unique = kernel_read_begin(&second, sizeof text);
		assert_waits(unique);
		kernel_interrupt(unique);
		assert_int_equal(kernel_read_reply(unique, &second, text, sizeof text), -EINTR);
	}
	uint64_t unique = kernel_read_begin(&second, sizeof text);
	assert_waits(unique);
	kernel_close(&first);
	assert_true(kernel_read_reply(unique, &second, text, sizeof text) > 0);
	assert_non_null(strstr(text, "second"));
	kernel_close(&second);
}

static void who_does_not_wait_is_told_to_come_again(void **test_state)
{
	char name[64];
	MOUNT(.min = "1", .max = "1");
	struct kernel_file first = hold_lease("first", name),
			   second = ask_by_handle("second", O_NONBLOCK),
			   wait = kernel_open(of_agent(name, "wait"), O_RDONLY | O_NONBLOCK),
			   follow = kernel_open("follow", O_RDONLY | O_NONBLOCK);
	for (int i = 0; i < 2; i++)
		assert_int_equal(kernel_read(&second, text, sizeof text), -EAGAIN);
	assert_int_equal(kernel_echo("go", of_agent(name, "prompt")), 0);
	assert_int_equal(kernel_read(&wait, text, sizeof text), -EAGAIN);
	while (kernel_read(&follow, text, sizeof text) > 0)
		;
	assert_int_equal(kernel_read(&follow, text, sizeof text), -EAGAIN);
	kernel_close(&follow);
	kernel_close(&wait);
	kernel_close(&second);
	kernel_close(&first);
}

static void the_end_of_the_pool_answers_all_who_wait(void **test_state)
{
	char name[64];
	uint64_t reads[8];
	struct kernel_file waiting[8];
	MOUNT(.min = "1", .max = "1");
	struct kernel_file first = hold_lease("first", name);
	for (int i = 0; i < 8; i++) {
		char label[16];
		snprintf(label, sizeof label, "job-%d", i);
		waiting[i] = i < 7 ? ask_by_handle(label, 0) : kernel_open("follow", O_RDONLY);
		while (i == 7 && kernel_poll(&waiting[i], 0)) /* what has happened before */
			assert_true(kernel_read(&waiting[i], text, sizeof text) > 0);
		reads[i] = kernel_read_begin(&waiting[i], sizeof text);
	}
	assert_waits(reads[0]);
	assert_int_equal(ap_pool_stop(pool, &err), 0);
	for (int i = 0; i < 7; i++)
		assert_int_equal(kernel_read_reply(reads[i], &waiting[i], text, sizeof text),
				 -ESHUTDOWN);
	/* who follows reads all of the end, and then that it is one; he is waited for */
	int n = kernel_read_reply(reads[7], &waiting[7], text, sizeof text);
	for (; n > 0; n = kernel_read(&waiting[7], text, sizeof text))
		assert_false(open_files_end_is_told(mount.files));
	assert_int_equal(n, 0);
	assert_true(open_files_end_is_told(mount.files));
	for (int i = 0; i < 8; i++)
		kernel_close(&waiting[i]);
	kernel_close(&first);
}

/* --- leases by handle --- */

static void a_lease_lives_as_long_as_its_handle(void **test_state)
{
	char first_name[64], second_name[64];
	MOUNT(.min = "1", .max = "1");
	struct kernel_file first = hold_lease("first", first_name);
	assert_cat(of_agent(first_name, "lease"), "first\n");
	struct kernel_file second = ask_by_handle("second", 0);
	uint64_t unique = kernel_read_begin(&second, sizeof text);
	assert_waits(unique);
	assert_int_equal(kernel_flush(&first), 0); /* a copy of it is closed */
	assert_waits(unique);
	kernel_release(&first);
	assert_true(kernel_read_reply(unique, &second, text, sizeof text) > 0);
	assert_int_equal(sscanf(text, "%63s", second_name), 1);
	assert_cat(of_agent(second_name, "lease"), "second\n");
	assert_int_equal(kernel_write(&second, "third\n"), -EBUSY);
	kernel_close(&second);
	await_number("stats/active_agents", 0);
}

static void who_polls_a_handle_is_told_of_its_answer(void **test_state)
{
	char name[64];
	MOUNT(.min = "1", .max = "1");
	struct kernel_file first = hold_lease("first", name),
			   second = kernel_open("acquire", O_RDWR);
	assert_int_equal(kernel_poll(&second, 0) & (POLLIN | POLLOUT), POLLOUT);
	assert_int_equal(kernel_write(&second, "second"), 6);
	assert_int_equal(kernel_poll(&second, 7) & POLLIN, 0);
	kernel_close(&first);
	while (kernel.n_poll_notified == 0)
		assert_true(kernel_receive(REPLY_WAIT_MS));
	assert_int_equal(kernel.poll_notified, 7);
	assert_true(kernel_poll(&second, 0) & POLLIN);
	assert_true(kernel_read(&second, text, sizeof text) > 0);
	/* a refusal is an answer too, until something else is asked for */
	struct kernel_file third = ask_by_handle("third timeout=0", O_NONBLOCK);
	assert_true(kernel_poll(&third, 0) & POLLIN);
	assert_int_equal(kernel_read(&third, text, sizeof text), -EAGAIN);
	assert_int_equal(kernel_read(&third, text, sizeof text), -EAGAIN);
	assert_int_equal(kernel_write(&third, "third"), 5);
	assert_int_equal(kernel_poll(&third, 0) & POLLIN, 0);
	kernel_close(&third);
	kernel_close(&second);
	await_number("stats/active_agents", 0);
}

static void a_handle_that_is_closed_while_it_waits_asks_for_nothing(void **test_state)
{
	char name[64];
	MOUNT(.min = "1", .max = "1");
	struct kernel_file first = hold_lease("first", name), second = ask_by_handle("second", 0);
	assert_cat("stats/waiting", "1\n");
	kernel_close(&second);
	assert_cat("stats/waiting", "0\n");
	kernel_close(&first);
	await_number("stats/idle_agents", 1);
	assert_cat("stats/total_requests", "1\n");
}

/* Nobody has heard of a lease whose writer was interrupted: it ends. */
static void a_write_that_is_interrupted_at_any_moment_leaves_no_lease(void **test_state)
{
	enum { ROUNDS = 200 };
	unsigned n_granted = 0, n_interrupted = 0;
	MOUNT(.min = "2", .max = "2");
	for (int i = 0; i < ROUNDS; i++) {
		struct kernel_file file = kernel_open("acquire", O_WRONLY);
		char label[16];
		int len = snprintf(label, sizeof label, "job-%d\n", i);
		uint64_t unique = kernel_write_begin(&file, label, (size_t)len);
		for (int j = 0; j < i % 8; j++)
			sched_yield();
		kernel_interrupt(unique);
		int r = kernel_write_reply(unique);
		kernel_close(&file);
		if (r >= 0) {
			assert_int_equal(r, len);
			assert_int_equal(kernel_echo(label, "release"), 0);
			n_granted++;
		} else {
			assert_int_equal(r, -ECANCELED);
			n_interrupted++;
		}
	}
	await_number("stats/active_agents", 0);
	assert_int_equal(n_granted + n_interrupted, ROUNDS);
	assert_cat("stats/waiting", "0\n");
}

/* --- writing --- */

static void a_line_goes_on_in_the_next_write_of_a_full_buffer(void **test_state)
{
	static char block[4097];
	MOUNT(.min = "1");
	struct kernel_file ctl = kernel_open("ctl", O_WRONLY);
	memset(block, '#', sizeof block - 1);
	memcpy(block + 4096 - 8, "\nmaint", 6); /* … and "##" */
	memcpy(block + 4096 - 2, "ai", 2);
	assert_int_equal(kernel_write(&ctl, block), 4096);
	assert_int_equal(kernel_write(&ctl, "n\n"), 2);
	assert_int_equal(kernel_close(&ctl), 0);
	/* one that never ends is refused where the writer can tell */
	ctl = kernel_open("ctl", O_WRONLY);
	assert_int_equal(kernel_write(&ctl, block), 4096);
	assert_int_equal(kernel_close(&ctl), -EINVAL);
	assert_last_error_has("the last line has no end");
}

static void lines_are_taken_up_to_the_one_that_is_refused(void **test_state)
{
	MOUNT(.min = "1");
	struct kernel_file ctl = kernel_open("ctl", O_WRONLY);
	assert_int_equal(kernel_write(&ctl, "maintain\n# nothing\nnonsense\nmaintain\n"), 19);
	assert_last_error_has("'nonsense' is none of:");
	assert_int_equal(kernel_write(&ctl, "nonsense\nmaintain\n"), -EINVAL);
	assert_int_equal(kernel_write(&ctl, "maintain\n"), 9);
	assert_int_equal(kernel_close(&ctl), 0);
}

/* What libraries that buffer write again when they close is not asked for a second time. */
static void a_refused_write_that_comes_again_has_the_same_answer_once(void **test_state)
{
	char name[64];
	MOUNT(.min = "1", .max = "1");
	struct kernel_file lease = hold_lease("first", name);
	struct kernel_file file = kernel_open("acquire", O_WRONLY);
	assert_int_equal(kernel_write(&file, "job timeout=0\n"), -EAGAIN);
	kernel_close(&lease);
	await_number("stats/idle_agents", 1);
	assert_int_equal(kernel_write(&file, "job timeout=0\n"), -EAGAIN);
	assert_cat("stats/active_agents", "0\n");
	assert_int_equal(kernel_write(&file, "job timeout=0\n"), 14);
	assert_cat("stats/active_agents", "1\n");
	kernel_close(&file);
	assert_int_equal(kernel_echo("job\n", "release"), 0);
}

static void a_value_without_its_newline_is_taken_at_the_close(void **test_state)
{
	MOUNT(.min = "1");
	struct kernel_file value = kernel_open("config/max_pool_size", O_WRONLY);
	assert_int_equal(kernel_write(&value, "nonsense"), -EINVAL);
	assert_int_equal(kernel_write(&value, "2"), 1);
	assert_cat("config/max_pool_size", "4\n");
	assert_int_equal(kernel_close(&value), 0);
	assert_cat("config/max_pool_size", "2\n");
	/* what goes on was no value: none of it is taken */
	value = kernel_open("config/max_pool_size", O_WRONLY);
	assert_int_equal(kernel_write(&value, "1"), 1);
	assert_int_equal(kernel_write(&value, "0\n"), -EINVAL);
	assert_last_error_has("a value is written in one piece");
	assert_int_equal(kernel_close(&value), 0);
	assert_cat("config/max_pool_size", "2\n");
	assert_int_equal(kernel_echo("1\n2\n", "config/max_pool_size"), -EINVAL);
	assert_cat("config/max_pool_size", "2\n");
}

static void a_text_is_taken_whole_at_the_last_close(void **test_state)
{
	char name[64];
	MOUNT(.min = "1");
	struct kernel_file lease = hold_lease("job", name);
	struct kernel_file prompt = kernel_open(of_agent(name, "prompt"), O_WRONLY);
	assert_int_equal(kernel_write(&prompt, "one "), 4);
	assert_int_equal(kernel_flush(&prompt), 0);
	assert_int_equal(kernel_write(&prompt, "and two"), 7);
	assert_cat(of_agent(name, "prompts"), "0\n");
	kernel_close(&prompt);
	assert_cat(of_agent(name, "wait"), "ready\n");
	assert_cat(of_agent(name, "screen"), "one and two\n");
	/* one that is too long has no part of it taken */
	assert_int_equal(kernel_echo("8\n", "config/max_prompt"), 0);
	prompt = kernel_open(of_agent(name, "prompt"), O_WRONLY);
	assert_int_equal(kernel_write(&prompt, "1234"), 4);
	assert_int_equal(kernel_write(&prompt, "56789"), -EMSGSIZE);
	assert_int_equal(kernel_write(&prompt, "5"), -EIO);
	kernel_close(&prompt);
	assert_cat(of_agent(name, "wait"), "ready\n");
	assert_cat(of_agent(name, "prompts"), "1\n");
	kernel_close(&lease);
}

/* --- followers and pollers --- */

static void who_follows_reads_each_event_once(void **test_state)
{
	char name[64];
	long last = -1;
	unsigned n_granted = 0;
	MOUNT(.min = "1", .max = "1");
	await_number("stats/idle_agents", 1);
	struct kernel_file follow = kernel_open("follow", O_RDONLY), lease;
	for (int i = 0; i < 3; i++) {
		lease = hold_lease("job", name);
		kernel_close(&lease);
		await_number("stats/idle_agents", 1);
	}
	while (n_granted < 3) {
		int n = kernel_read(&follow, text, 300); /* a few lines */
		assert_true(n > 0 && text[n - 1] == '\n');
		for (char *line = text, *next; *line; line = next) {
			long seq = strtol(line + strlen("{\"seq\":"), NULL, 10);
			next = strchr(line, '\n') + 1;
			assert_true(last < 0 || seq == last + 1);
			last = seq;
			n_granted += memmem(line, (size_t)(next - line), "\"lease_granted\"", 15) !=
				     NULL;
		}
	}
	kernel_close(&follow);
}

/* Nobody who looks into events behind his own doing has to wait for it to be there. */
static void what_has_happened_is_in_events_when_it_is_opened(void **test_state)
{
	char name[64], label[16], wanted[64];
	MOUNT(.min = "1", .max = "2");
	for (int i = 0; i < 50; i++) {
		snprintf(label, sizeof label, "job-%d", i);
		struct kernel_file lease = hold_lease(label, name);
		snprintf(wanted, sizeof wanted, "\"lease_granted\",\"lease\":\"%s\"", label);
		char *events = kernel_cat("events");
		if (!strstr(events, wanted))
			fail_msg("not told yet: %s", wanted);
		free(events);
		kernel_close(&lease);
	}
}

static void who_polls_is_told_once_of_a_value_that_is_another(void **test_state)
{
	char name[64];
	MOUNT(.min = "1", .max = "1");
	await_number("stats/idle_agents", 1);
	struct kernel_file value = kernel_open("stats/idle_agents", O_RDONLY);
	struct kernel_file silent = kernel_open("stats/idle_agents", O_RDONLY);
	assert_int_equal(kernel_read(&value, text, sizeof text), 2);
	assert_false(kernel_poll(&value, 7) & POLLPRI);
	assert_false(kernel_poll(&silent, 8) & POLLPRI);
	kernel_close(&silent); /* nobody is told there any more */
	struct kernel_file lease = hold_lease("job", name);
	while (kernel.n_poll_notified == 0)
		assert_true(kernel_receive(REPLY_WAIT_MS));
	assert_int_equal(kernel.poll_notified, 7);
	assert_true(kernel_poll(&value, 0) & POLLPRI);
	value.offset = 0;
	assert_int_equal(kernel_read(&value, text, sizeof text), 2);
	assert_string_equal(text, "0\n");
	assert_false(kernel_poll(&value, 0) & POLLPRI);
	kernel_close(&lease);
	await_number("stats/idle_agents", 1);
	assert_int_equal(kernel.n_poll_notified, 1); /* and did not ask again */
	kernel_close(&value);
}

#define OPEN_FILE_TEST(sentence, function)                                                         \
	{                                                                                          \
		.name = (sentence), .test_func = (function), .setup_func = begin,                  \
		.teardown_func = end_mount                                                         \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		OPEN_FILE_TEST("a text has the length that is told",
			       a_text_has_the_length_that_is_told),
		OPEN_FILE_TEST("one open reads one text", one_open_reads_one_text),
		OPEN_FILE_TEST("a value that is read again from its start is what it is now",
			       a_value_that_is_read_again_from_its_start_is_what_it_is_now),
		OPEN_FILE_TEST("a closed file is no file", a_closed_file_is_no_file),
		OPEN_FILE_TEST("who may not write may not write through another's descriptor",
			       who_may_not_write_may_not_write_through_another),
		OPEN_FILE_TEST("a read waits for what it is of", a_read_waits_for_what_it_is_of),
		OPEN_FILE_TEST("an interrupted read is told so, and the next one waits again",
			       an_interrupted_read_is_told_so_and_the_next_one_waits_again),
		OPEN_FILE_TEST("who does not wait is told to come again",
			       who_does_not_wait_is_told_to_come_again),
		OPEN_FILE_TEST("the end of the pool answers all who wait",
			       the_end_of_the_pool_answers_all_who_wait),
		OPEN_FILE_TEST("a lease lives as long as its handle",
			       a_lease_lives_as_long_as_its_handle),
		OPEN_FILE_TEST("who polls a handle is told of its answer",
			       who_polls_a_handle_is_told_of_its_answer),
		OPEN_FILE_TEST("a handle that is closed while it waits asks for nothing",
			       a_handle_that_is_closed_while_it_waits_asks_for_nothing),
		OPEN_FILE_TEST("a write that is interrupted at any moment leaves no lease",
			       a_write_that_is_interrupted_at_any_moment_leaves_no_lease),
		OPEN_FILE_TEST("a line goes on in the next write of a full buffer",
			       a_line_goes_on_in_the_next_write_of_a_full_buffer),
		OPEN_FILE_TEST("lines are taken up to the one that is refused",
			       lines_are_taken_up_to_the_one_that_is_refused),
		OPEN_FILE_TEST("a refused write that comes again has the same answer once",
			       a_refused_write_that_comes_again_has_the_same_answer_once),
		OPEN_FILE_TEST("a value without its newline is taken at the close",
			       a_value_without_its_newline_is_taken_at_the_close),
		OPEN_FILE_TEST("a text is taken whole at the last close",
			       a_text_is_taken_whole_at_the_last_close),
		OPEN_FILE_TEST("who follows reads each event once",
			       who_follows_reads_each_event_once),
		OPEN_FILE_TEST("what has happened is in events when it is opened",
			       what_has_happened_is_in_events_when_it_is_opened),
		OPEN_FILE_TEST("who polls is told once of a value that is another",
			       who_polls_is_told_once_of_a_value_that_is_another),
	};
	tree_config_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
