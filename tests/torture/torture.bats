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
