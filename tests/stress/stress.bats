# Many clients at once on a daemon without programs: for the sanitizers, which find what no assertion asks for.
# STRESS_SECONDS is how long, STRESS_CLIENTS how many.

load ../mount/helper

setup() {
    common_setup
    : "${AGENTPOOLFS_FAKE:=$BATS_TEST_DIRNAME/../../build/tests/agentpoolfs-fake}"
    AGENTPOOLFS=$AGENTPOOLFS_FAKE
}
teardown() { common_teardown; }

@test "${STRESS_CLIENTS:-64} clients acquire, prompt, release and cancel for ${STRESS_SECONDS:-10} seconds" {
    mount_pool 2 8 -o maintenance_interval=100ms,idle_timeout=200ms,scale_down_window=200ms,max_instance_age=3s \
        -- fake spawn=5ms fail=2 exit=5
    run timeout 300 python3 "$BATS_TEST_DIRNAME/clients.py" "$POOL" "${STRESS_CLIENTS:-64}" "${STRESS_SECONDS:-10}"
    echo "$output"
    assert_success
    await value_is "$POOL/stats/waiting" 0
    await value_is "$POOL/stats/active_agents" 0
    assert [ "$(cat "$POOL/stats/total_requests")" -gt 20 ]
    assert [ "$(cat "$POOL/stats/total_agents")" -le 8 ]
}
