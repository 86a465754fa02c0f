# The log of the pool and its stream: nothing left out, nothing twice, in order.

load helper

setup() {
    common_setup
    : "${AGENTPOOLFS_FAKE:=$BATS_TEST_DIRNAME/../../build/tests/agentpoolfs-fake}"
    AGENTPOOLFS=$AGENTPOOLFS_FAKE
}
teardown() {
    local pid
    kill_children "${FOLLOWERS[@]}" # of a test that has failed
    common_teardown
}

FOLLOWERS=()

follow() { # NAME UNTIL [HOW [SIZE]]: in the background, its lines in $DIR/NAME
    rm -f "$DIR/$1.err" # of one before
    timeout 300 python3 "$BATS_TEST_DIRNAME/follow.py" "$POOL/follow" "${@:2}" >"$DIR/$1" 2>"$DIR/$1.err" 3>&- &
    FOLLOWERS+=($!)
    eval "$1=$!"
    await grep -q open "$DIR/$1.err"
}

leases_of() { # CLIENT N
    local i
    for ((i = 0; i < $2; i++)); do
        echo "$1-$i" >"$POOL/acquire"
        echo "$1-$i" >"$POOL/release"
    done
}

leases() { # N: by two clients, and then one more
    leases_of one $(($1 / 2)) 3>&- &
    leases_of two $((($1 + 1) / 2))
    wait $!
    echo last >"$POOL/acquire"
    echo last >"$POOL/release"
}

# EVENTS_LEASES: of the issue, how many
# bats test_tags=large
@test "a thousand leases are told in order, none twice, to tail and jq and to two followers" {
    local n=${EVENTS_LEASES:-1000} tail jq
    mount_pool 2 4 -- fake spawn=5ms
    mkfifo "$DIR/lines"
    jq --unbuffered -c . <"$DIR/lines" >"$DIR/tailed" 3>&- &
    jq=$! FOLLOWERS+=($!)
    tail -n +1 -f "$POOL/events" >"$DIR/lines" 2>/dev/null 3>&- &
    tail=$! FOLLOWERS+=($!)
    follow by_epoll '"lease_ended","lease":"last"' epoll
    follow by_bytes '"lease_ended","lease":"last"' read 61 # less than a line
    leases "$n"
    wait "$by_epoll" || fail "$(cat "$DIR/by_epoll.err")"
    wait "$by_bytes" || fail "$(cat "$DIR/by_bytes.err")"
    for kind in lease_granted lease_ended; do
        for who in by_epoll by_bytes; do
            assert_equal "$(grep -c "$kind" "$DIR/$who")" $((n + 1))
            diff <(grep -F "$kind" "$POOL/events") <(grep -F "$kind" "$DIR/$who")
        done
    done
    await contains "$DIR/tailed" '"lease_ended","lease":"last"'
    kill "$tail"
    wait "$jq"
    assert_equal "$(grep -c lease_granted "$DIR/tailed")" $((n + 1))
    jq -s 'map(.seq) | . == [range(1; length + 1)]' "$DIR/tailed" | grep -qx true
}

settings_told() { # how often each was, with its value
    jq -r 'select(.event == "config") | "\(.name) \(.value)"' "$POOL/events" | sort | uniq -c | sed 's/^ *//'
}

sizes_told() { # those set by hand, in order
    jq -r 'select(.event == "scale") | .target // empty' "$POOL/events" | xargs
}

@test "a size that a mount or ctl load takes from the store is told" {
    mount_pool 1 3 -- fake spawn=5ms
    echo 2 >"$POOL/scale"
    await eval '[ "$(sizes_told)" = 2 ]'
    unmount_pool
    mount_again 1 3 -- fake spawn=5ms
    await value_is "$POOL/stats/idle_agents" 2
    await eval '[ "$(sizes_told)" = "2 2" ]'
    echo load >"$POOL/ctl" # which changes nothing
    echo auto >"$POOL/scale"
    await eval '[ "$(sizes_told)" = "2 2 -1" ]'
}

@test "settings that a mount or ctl load takes from the store are told" {
    mount_pool 1 1 -- fake spawn=5ms
    echo 7m >"$POOL/config/idle_timeout"
    echo 90 >"$POOL/config/scale_up_at"
    await contains "$POOL/events" scale_up_at
    assert_equal "$(settings_told)" $'1 idle_timeout 7m\n1 scale_up_at 90'
    unmount_pool
    mount_pool 1 1 -o idle_timeout=1m -- fake spawn=5ms # the command line goes before the store
    await value_is "$POOL/config/scale_up_at" 90
    assert_equal "$(settings_told)" $'1 idle_timeout 7m\n2 scale_up_at 90'
    echo load >"$POOL/ctl"
    await value_is "$POOL/config/idle_timeout" 7m
    await eval '[ "$(settings_told)" = $'"'2 idle_timeout 7m\n2 scale_up_at 90'"' ]'
    echo load >"$POOL/ctl" # which changes nothing
    echo 91 >"$POOL/config/scale_up_at"
    await contains "$POOL/events" '"91"'
    assert_equal "$(settings_told)" $'2 idle_timeout 7m\n2 scale_up_at 90\n1 scale_up_at 91'
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
    local result=0
    wait "$reader" || result=$?
    refute [ $result = 0 ]
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
    await gone "$DAEMON" # it unmounts, and nobody else at the same time
}
