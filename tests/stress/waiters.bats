# Ten thousand acquirers that wait, on a daemon without programs: what they cost, the order in which they are served,
# how soon they can be sent away. Memory is checked without sanitizers only; times are printed.

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
    run timeout 900 "$(dirname "$AGENTPOOLFS")/waiters" "$@"
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

@test "$N waiters take less than 1 KiB each and no thread, are served in order, and all sent away" {
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
    fi
}

@test "$N waiters that are killed at once are gone" {
    mount_pool 1 1 -- fake
    clients kill "$POOL" $N
    assert_equal "$(value waiting)" $N
}

# What it costs more than alone is counted by tests/bench/bench_reading.py.
@test "a lease goes round beside $N waiters for another agent" {
    mount_pool 2 2 -- fake
    clients beside "$POOL" $((N - 1)) 20
}

@test "65536 open files are all that a mount has" {
    mount_pool 1 1 -- fake
    clients files "$POOL" 8
    assert_equal "$(value refused_with)" ENFILE
    assert_equal "$(value open)" 65536
    assert_equal "$(cat "$POOL/last_error")" "65536 files are open already"
}
