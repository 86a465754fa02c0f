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

int main(void)
{
	const struct CMUnitTest tests[] = {
		IT("a node survives being packed", survives),
		IT("the root is the number that FUSE gives it", root_is_one),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
