#include "unit.h"

#include "../../fs/node.h"

static void survives(void **state)
{
	for (int dir = 0; dir < NODE_N_DIRS; dir++) {
		for (unsigned row = 0; row < 40; row++) {
			struct node in = {
				.dir = (enum node_dir)dir, .row = row, .id = 123456789012};
			if (dir == NODE_ROOT && row == 0)
				in.id = 0;
			struct node out = node_unpack(node_pack(in));
			assert_int_equal(out.dir, in.dir);
			assert_int_equal(out.row, in.row);
			assert_int_equal(out.id, in.id);
		}
	}
}

static void root_is_one(void **state)
{
	assert_int_equal(node_pack((struct node){.dir = NODE_ROOT}), 1);
}

static void fresh_is_another(void **state)
{
	const struct node root = {.dir = NODE_ROOT, .row = 3};
	const struct node agent = {.dir = NODE_AGENT, .row = 3, .id = NODE_NUMBER_MASK};
	for (uint64_t serial = 1; serial < (UINT64_C(1) << 47); serial *= 3) {
		struct node fresh = node_unpack(node_pack(node_fresh(root, serial)));
		assert_true(fresh.id == serial && fresh.row == 3);
		fresh = node_unpack(node_pack(node_fresh(agent, serial)));
		assert_true(node_number(fresh) == NODE_NUMBER_MASK && fresh.row == 3);
		assert_int_equal(fresh.id >> NODE_NUMBER_BITS, serial & 0xffffff);
		assert_int_equal(node_pack(node_file(fresh)), node_pack(agent));
		assert_int_equal(node_pack(node_file(node_fresh(root, serial))), node_pack(root));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IT("a node survives being packed", survives),
		IT("a fresh node is another, of the same file and about the same agent",
		   fresh_is_another),
		IT("the root is the number that FUSE gives it", root_is_one),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
