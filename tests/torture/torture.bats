# Many leases by holders that do what they like: TORTURE_LEASES of them, from TORTURE_SEED on.

load ../mount/helper

setup() { common_setup; }
teardown() { common_teardown; }

@test "every file that a holder finished writing is on its branch afterwards" {
    REPO_CHANGED=yes # holders make branches and settings of their own
    mount_pool 4 8 -o hard_cap=8
    run timeout 1200 python3 "$BATS_TEST_DIRNAME/leases.py" "$POOL" "$REPO" "${TORTURE_LEASES:-200}" "${TORTURE_SEED:-1}"
    echo "$output"
    assert_success
    echo "# $output" >&3
    unmount_pool
    git -C "$REPO" fsck --no-progress --connectivity-only
}

# CRASH_KILLS times the daemon is killed under 20 clients.
@test "a daemon that is killed under load loses no lease, no work, no count" {
    CHECK_LEFT=no # the script has a pool of its own
    run timeout 1200 python3 "$BATS_TEST_DIRNAME/crash.py" "$AGENTPOOLFS" "${CRASH_KILLS:-50}" 20 "${TORTURE_SEED:-1}"
    echo "$output"
    assert_success
    echo "# $output" >&3
}
