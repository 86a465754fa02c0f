#include "unit.h"

#include <string.h>

#include "../../fs/snapshot.h"

static const struct node file = {.dir = NODE_ROOT, .row = 3};

static struct node looked_up(struct snapshots *set, const char *words, uid_t uid, bool alone)
{
	struct ap_buf text = {0};
	struct node node;
	ap_buf_adds(&text, words);
	assert_int_equal(snapshot_publish(set, file, uid, alone, &text, &node), 0);
	ap_buf_fini(&text);
	assert_int_equal(node_pack(node_file(node)), node_pack(file));
	assert_int_equal(snapshot_size(set, node), strlen(words));
	return node;
}

static struct node look_up(struct snapshots *set, const char *words)
{
	return looked_up(set, words, 1, false);
}

static bool same(struct node a, struct node b)
{
	return node_pack(a) == node_pack(b);
}

static struct snapshot *opened(struct snapshots *set, struct node node, const char *words)
{
	bool first;
	struct snapshot *snapshot = snapshot_open(set, node, &first);
	assert_non_null(snapshot);
	assert_string_equal(ap_buf_text(snapshot_text(snapshot)), words);
	return snapshot;
}

static void same_length_same_node(void **state)
{
	struct snapshots *set = snapshots_new();
	struct node node = look_up(set, "1\n");
	assert_true(same(node, look_up(set, "1\n")));
	assert_true(same(node, look_up(set, "2\n")));
	snapshot_close(set, opened(set, node, "2\n"));
	assert_true(same(node, look_up(set, "3\n")));
	snapshots_free(set);
}

static void length_never_changes(void **state)
{
	struct snapshots *set = snapshots_new();
	struct node node = look_up(set, "9\n"), later = look_up(set, "10\n");
	assert_false(same(node, later));
	/* who was told of the first reads it still */
	struct snapshot *first = opened(set, node, "9\n"), *second = opened(set, later, "10\n");
	assert_true(same(look_up(set, "10\n"), later));
	snapshot_close(set, first);
	snapshot_close(set, second);
	snapshots_free(set);
}

static void open_text_never_changes(void **state)
{
	struct snapshots *set = snapshots_new();
	struct node node = look_up(set, "1\n");
	struct snapshot *reader = opened(set, node, "1\n");
	assert_true(same(node, look_up(set, "1\n")));
	struct node later = look_up(set, "2\n");
	assert_false(same(node, later));
	assert_string_equal(ap_buf_text(snapshot_text(reader)), "1\n");
	snapshot_close(set, opened(set, later, "2\n"));
	snapshot_close(set, reader);
	assert_int_equal(snapshots_open_bytes(set), 0);
	snapshots_free(set);
}

static void each_user_his_own(void **state)
{
	struct snapshots *set = snapshots_new();
	struct node one = looked_up(set, "mine.\n", 1, false),
		    other = looked_up(set, "yours\n", 2, false);
	assert_false(same(one, other));
	snapshot_close(set, opened(set, one, "mine.\n"));
	snapshot_close(set, opened(set, other, "yours\n"));
	assert_false(same(looked_up(set, "alone\n", 1, true), looked_up(set, "alone\n", 1, true)));
	snapshots_free(set);
}

static void made_for_an_open_file(void **state)
{
	struct snapshots *set = snapshots_new();
	struct node node = snapshots_fresh(set, file);
	struct ap_buf text = {0};
	bool first, again;
	assert_int_equal(snapshot_size(set, node), -1);
	ap_buf_adds(&text, "made");
	struct snapshot *one = snapshot_enter(set, node, &text, &first);
	ap_buf_adds(&text, "made later");
	struct snapshot *two = snapshot_enter(set, node, &text, &again);
	ap_buf_fini(&text);
	assert_true(one == two && first && !again);
	assert_string_equal(ap_buf_text(snapshot_text(two)), "made");
	assert_int_equal(snapshots_open_bytes(set), 4);
	snapshot_close(set, one);
	assert_int_equal(snapshot_size(set, node), 4);
	snapshot_close(set, two);
	assert_int_equal(snapshot_size(set, node), -1); /* no look-up leads to it */
	snapshots_free(set);
}

static void what_nobody_opens_is_forgotten(void **state)
{
	struct snapshots *set = snapshots_new();
	struct node first = look_up(set, "first"), open = looked_up(set, "open", 1, true);
	struct snapshot *reader = opened(set, open, "open");
	for (int i = 0; i < 2000; i++)
		looked_up(set, "another", 1, true);
	bool is_first;
	assert_null(snapshot_open(set, first, &is_first));
	assert_int_equal(snapshot_size(set, open), 4);
	/* and what is large goes first */
	struct ap_buf large = {0};
	struct node node;
	assert_true(ap_buf_reserve(&large, 5 << 20));
	large.len = 5 << 20;
	memset(large.data, 'x', large.len);
	assert_int_equal(snapshot_publish(set, file, 1, true, &large, &node), 0);
	assert_int_equal(snapshot_size(set, node), 5 << 20);
	look_up(set, "small");
	assert_int_equal(snapshot_size(set, node), -1);
	snapshot_close(set, reader);
	snapshots_free(set);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IT("a text of the same length is the same node", same_length_same_node),
		IT("a node's length never changes", length_never_changes),
		IT("nor does its text while it is open", open_text_never_changes),
		IT("users share no node, nor do those who are to be alone", each_user_his_own),
		IT("a text that is made for an open file is there until it is closed",
		   made_for_an_open_file),
		IT("what nobody opens is forgotten, the oldest first", what_nobody_opens_is_forgotten),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
