/* Policies of placement: two hosts in, the better one out. */
#include "unit.h"

#include "placement.h"

static bool better(enum placement_policy_id policy, struct placement_host a,
		   struct placement_host b)
{
	bool first = placement_policies[policy].better(&a, &b);
	assert_int_not_equal(first, placement_policies[policy].better(&b, &a));
	return first;
}

static const struct placement_host half = {.index = 0, .n_agents = 5, .slots = 10};
static const struct placement_host small_half = {.index = 1, .n_agents = 1, .slots = 2};
static const struct placement_host third = {.index = 2, .n_agents = 2, .slots = 6};

static void spread_takes_the_emptiest(void **state)
{
	assert_true(better(PLACEMENT_SPREAD, third, half));
	assert_true(better(PLACEMENT_SPREAD, third, small_half));
	assert_true(better(PLACEMENT_SPREAD, half, small_half)); /* more free slots */
}

static void pack_takes_the_fullest(void **state)
{
	assert_true(better(PLACEMENT_PACK, half, third));
	assert_true(better(PLACEMENT_PACK, small_half, third));
	assert_true(better(PLACEMENT_PACK, small_half, half)); /* fewer free slots */
}

static void warm_comes_first(void **state)
{
	struct placement_host warm = half, other = third;
	warm.warm = true;
	assert_true(better(PLACEMENT_WARM, warm, third));
	assert_true(better(PLACEMENT_WARM, third, half));
	other.warm = true;
	assert_true(better(PLACEMENT_WARM, other, warm));
}

static void the_lower_index_decides(void **state)
{
	struct placement_host twin = half;
	twin.index = 7;
	for (int policy = 0; policy < PLACEMENT_N_POLICIES; policy++)
		assert_true(better((enum placement_policy_id)policy, half, twin));
}

static void large_hosts_do_not_overflow(void **state)
{
	struct placement_host large = {.n_agents = UINT32_MAX / 2, .slots = UINT32_MAX};
	struct placement_host larger = {.index = 1, .n_agents = 1, .slots = UINT32_MAX};
	assert_true(better(PLACEMENT_SPREAD, larger, large));
	assert_true(better(PLACEMENT_PACK, large, larger));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IT("spread takes the host that is emptiest by share, then by free slots",
		   spread_takes_the_emptiest),
		IT("pack takes the host that is fullest by share, then by free slots",
		   pack_takes_the_fullest),
		IT("warm takes a host with the template, then as spread", warm_comes_first),
		IT("of hosts that stand alike the first is taken", the_lower_index_decides),
		IT("hosts may be as large as they like", large_hosts_do_not_overflow),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
