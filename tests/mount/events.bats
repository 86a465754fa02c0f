# The log of the pool and its stream: nothing left out, nothing twice, in order.

load helper

setup() {
    common_setup
    : "${AGENTPOOLFS_FAKE:=$BATS_TEST_DIRNAME/../../build/tests/agentpoolfs-fake}"
    AGENTPOOLFS=$AGENTPOOLFS_FAKE
}
teardown() { common_teardown; }

follow() { # NAME UNTIL [HOW [SIZE]]: in the background, its lines in $DIR/NAME
    timeout 120 python3 "$BATS_TEST_DIRNAME/follow.py" "$POOL/follow" "${@:2}" >"$DIR/$1" 2>"$DIR/$1.err" 3>&- &
    eval "$1=$!"
    await grep -q open "$DIR/$1.err"
}

leases() { # N
    local i
    for ((i = 0; i < $1; i++)); do
        echo "label-$i" >"$POOL/acquire"
        echo "label-$i" >"$POOL/release"
    done
    echo last >"$POOL/acquire"
    echo last >"$POOL/release"
}

@test "two hundred leases are told in order, none twice, to tail and to two followers" {
    mount_pool 2 4 -- fake spawn=5ms
    tail -n +1 -f "$POOL/events" >"$DIR/tailed" 2>/dev/null 3>&- &
    local tail=$!
    follow by_epoll '"lease_ended","lease":"last"' epoll
    follow by_bytes '"lease_ended","lease":"last"' read 7
    leases 200
    wait "$by_epoll" || fail "$(cat "$DIR/by_epoll.err")"
    wait "$by_bytes" || fail "$(cat "$DIR/by_bytes.err")"
    for kind in lease_granted lease_ended; do
        for who in by_epoll by_bytes; do
            assert_equal "$(grep -c "$kind" "$DIR/$who")" 201
            diff <(grep -F "$kind" "$POOL/events") <(grep -F "$kind" "$DIR/$who")
        done
    done
    await contains "$DIR/tailed" '"lease_ended","lease":"last"'
    kill "$tail"
    jq -s 'map(.seq) | . == [range(1; length + 1)]' "$DIR/tailed" | grep -qx true
}

@test "a read that would wait is EAGAIN with O_NONBLOCK, and select wakes" {
    mount_pool 1 1 -- fake spawn=5ms
    run python3 -c 'import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY | os.O_NONBLOCK)
try:
    while True: os.read(fd, 4096)
except BlockingIOError: print("again")' "$POOL/follow"
    assert_output again
    follow selected '"event":"config"' select
    echo 3 >"$POOL/config/max_pool_size"
    wait "$selected"
    run jq -c 'select(.event == "config") | [.name, .value]' "$DIR/selected"
    assert_output '["max_pool_size","3"]'
}

@test "a reader that waits can be killed, and the pool goes on" {
    mount_pool 1 1 -- fake spawn=5ms
    follow reader nothing
    kill -9 "$(pgrep -P "$reader")"
    ! wait "$reader"
    follow reader '"lease_ended","lease":"last"'
    leases 1
    wait "$reader"
}

@test "refusals, scale steps and sizes are told" {
    mount_pool 1 2 -- fake spawn=5ms
    follow told '"errno":"EAGAIN"'
    echo one >"$POOL/acquire"
    echo two >"$POOL/acquire"
    echo 2 >"$POOL/scale"
    run bash -c 'echo three timeout=0 >"$1"' _ "$POOL/acquire"
    assert_failure
    wait "$told"
    run jq -c 'select(.event == "refused") | [.lease, .uid, .errno]' "$DIR/told"
    assert_output "[\"three\",$(id -u),\"EAGAIN\"]"
    run jq -c 'select(.event == "scale") | [.direction, .from, .to, .target]' "$DIR/told"
    assert_line '["up",1,2,null]'
    assert_line '["manual",null,null,2]'
}

@test "one that lags further than what is kept is told how many it missed" {
    mount_pool 1 1 -- fake spawn=5ms
    exec 4<"$POOL/follow"
    # 5 MiB of refusals, each of some hundred bytes
    python3 -c 'import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY)
for i in range(48000):
    try: os.write(fd, b"missing-%d agent=agent-99\n" % i)
    except OSError: pass' "$POOL/acquire"
    read -r output <&4
    exec 4<&-
    assert_equal "$(jq -r .event <<<"$output")" missed
    assert [ "$(jq -r .count <<<"$output")" -gt 1000 ]
}

@test "who follows is told all, and let go when the pool ends" {
    mount_pool 1 1 -- fake spawn=5ms
    follow to_the_end nothing
    kill "$DAEMON"
    wait "$to_the_end" || contains "$DIR/to_the_end.err" Error # the mount may have gone by then
    contains "$DIR/to_the_end" '"to":"free"'
}
