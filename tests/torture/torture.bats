# Many leases by holders that do what they like: TORTURE_LEASES of them, from TORTURE_SEED on.

load ../mount/helper

setup() { common_setup; }
teardown() {
    local at result=0
    unmount_pool || result=1
    if is_root; then # mounts of holders, worktrees that were set aside, files that nothing may change
        while read -r at; do umount -l "$(printf '%b' "$at")"; done < <(awk -v dir="$DIR/" 'index($2, dir) == 1 { print $2 }' /proc/mounts | tac)
        find "$DIR" -xdev -path "$REPO" -prune -o -type f -exec chattr -ia {} + 2>/dev/null || true
    fi
    # not the repository's: its index knows its files by their times
    find "$DIR" -xdev -path "$REPO" -prune -o -type d ! -perm -700 -exec chmod u+rwx {} \; 2>/dev/null || true
    common_teardown || result=1
    return $result
}

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

# The same by holders that do their worst in git; by the daemon without programs, of which it asks nothing.
@test "what hostile holders finished is on branches or kept, and the repository is the user's as it was" {
    AGENTPOOLFS=${AGENTPOOLFS_FAKE:-$(dirname "$AGENTPOOLFS")/../tests/agentpoolfs-fake} mount_pool 4 8 -o hard_cap=8 \
        ${SAVING_OPTIONS:+-o "$SAVING_OPTIONS"}
    run timeout 3000 python3 "$BATS_TEST_DIRNAME/hostile.py" "$POOL" "$REPO" "$STATE" "${HOSTILE_LEASES:-60}" "${TORTURE_SEED:-1}"
    echo "$output"
    assert_success
    echo "# $output" >&3
}

# CRASH_KILLS times the daemon is killed under 20 clients.
@test "a daemon that is killed under load loses no lease, no work, no count" {
    CHECK_LEFT=no # the script has a pool of its own
    run timeout 1200 python3 "$BATS_TEST_DIRNAME/crash.py" "$AGENTPOOLFS" "${CRASH_KILLS:-50}" 20 "${TORTURE_SEED:-1}"
    echo "$output"
    assert_success
    echo "# $output" >&3
}
