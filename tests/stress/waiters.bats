# Ten thousand acquirers that wait, on a daemon without programs: what they cost, the order in which they are served,
# how soon they can be sent away. Figures are printed; memory and times are checked without sanitizers only.

load ../mount/helper

N=10000 # POOL_WAITERS_MAX

setup() {
    common_setup
    : "${AGENTPOOLFS_FAKE:=$BATS_TEST_DIRNAME/../../build/tests/agentpoolfs-fake}"
    AGENTPOOLFS=$AGENTPOOLFS_FAKE
}
teardown() { common_teardown; }

sanitized() { grep -qE '__(asan|tsan)_init' "$AGENTPOOLFS"; }

# Runs the clients; what they print is in $output and, as figures, above the result.
clients() {
    run timeout 200 "$(dirname "$AGENTPOOLFS")/waiters" "$@"
    echo "$output"
    echo "# $1: ${output//$'\n'/, }" >&3
    assert_success
}

value() { # NAME
    awk -v name="$1" '$1 == name { print $2 }' <<<"$output"
}

at_most() { # NAME BOUND
    awk -v name="$1" -v bound="$2" '$1 == name { exit !($2 <= bound) }' <<<"$output"
}

@test "$N waiters take less than 1 KiB each and no thread, are served in order, and sent away within a second" {
    mount_pool 1 1 -- fake
    clients order "$POOL" $N "$DAEMON" 200
    assert_equal "$(value waiting)" $N
    assert_equal "$(value threads_more)" 0
    assert_equal "$(value one_more)" EAGAIN
    assert_line "one_more_why $N acquirers wait already"
    assert [ "$(value granted)" -ge 200 ]
    assert_equal "$(value out_of_order)" 0
    assert_equal "$(($(value granted) + $(value refused)))" $N
    if ! sanitized; then
        assert at_most bytes_rss 1024
        assert at_most bytes_pss_anon 1024
        assert at_most close_s 1
    fi
}

@test "$N waiters that are killed at once are gone within two seconds" {
    mount_pool 1 1 -- fake
    for _ in 1 2 3 4 5; do # noise adds to a time: one quiet run tells it
        clients kill "$POOL" $N
        assert_equal "$(value waiting)" $N
        if sanitized || at_most kill_s 2; then return; fi
    done
    false
}

@test "a lease beside $N waiters for another agent takes no longer than alone" {
    mount_pool 2 2 -- fake
    for _ in 1 2 3 4 5; do
        clients beside "$POOL" $((N - 1)) 20
        if sanitized || at_most beside_ms "$(value alone_ms | awk '{ print 1.5 * $1 }')"; then return; fi
    done
    false
}

@test "65536 open files are all that a mount has" {
    mount_pool 1 1 -- fake
    clients files "$POOL" 8
    assert_equal "$(value refused_with)" ENFILE
    assert_equal "$(value open)" 65536
    assert_equal "$(cat "$POOL/last_error")" "65536 files are open already"
}
