# poll on a file of one value wakes when the value has changed.

load helper

setup() {
    common_setup
    PROGRAMS=$AGENTPOOLFS
    : "${AGENTPOOLFS_FAKE:=$BATS_TEST_DIRNAME/../../build/tests/agentpoolfs-fake}"
    AGENTPOOLFS=$AGENTPOOLFS_FAKE
}
teardown() {
    kill_children "${POLLERS[@]}"
    common_teardown
}

POLLERS=()

poller() { # NAME WORDS...: poll.py in the background, when its files are open; its pid in $NAME
    rm -f "$DIR/$1.err"
    python3 "$BATS_TEST_DIRNAME/poll.py" "${@:2}" >"$DIR/$1" 2>"$DIR/$1.err" 3>&- &
    POLLERS+=($!)
    eval "$1=$!"
    await grep -q open "$DIR/$1.err"
}

said() { # NAME LINE: it has ended with that
    wait "${!1}" || fail "$(cat "$DIR/$1.err" "$DIR/$1")"
    assert_equal "$(cat "$DIR/$1")" "$2"
}

slept() { # how often each thread of the daemon has gone to sleep
    awk '/^Pid/ { pid = $2 } /^voluntary_ctxt/ { print pid, $2 }' /proc/"$DAEMON"/task/*/status | sort
}

woken_up() { # FILE: threads that do anything within 3 s
    slept >"$DIR/before"
    sleep 3
    slept | comm -13 "$DIR/before" - | cut -d' ' -f1 >"$1"
}

none_but() { # FILE: woken_up names none but those
    woken_up "$DIR/woken_up"
    [ -z "$(comm -13 "$1" "$DIR/woken_up")" ]
}

@test "a count of stats wakes poll at once when a lease begins and when it ends" {
    mount_pool 1 1 -o maintenance_interval=1d -- fake spawn=5ms # no pass tells it
    local woken
    poller woken wait poll 300 "$POOL/stats/active_agents"
    echo job >"$POOL/acquire"
    said woken "active_agents PRI|ERR 1"
    poller woken wait poll 300 "$POOL/stats/active_agents"
    echo job >"$POOL/release"
    said woken "active_agents PRI|ERR 0"
}

@test "epoll is told of an agent's state, lease, owner and requests" {
    mount_pool 1 1 -- fake spawn=5ms
    local agent=$POOL/agents/agent-1 of_state of_lease of_owner of_requests file
    for file in state lease owner requests; do poller of_$file wait epoll 300 "$agent/$file"; done
    echo job >"$POOL/acquire"
    said of_lease "lease PRI|ERR job"
    said of_requests "requests PRI|ERR 1"
    wait "$of_owner"
    assert contains "$DIR/of_owner" "owner PRI|ERR uid $(id -u)"
    wait "$of_state"
    run cat "$DIR/of_state" # it goes by validating
    assert_output --regexp '^state PRI\|ERR (validating|active)$'
}

@test "select is told of exceptions" {
    mount_pool 1 1 -- fake spawn=5ms
    local woken
    poller woken wait select 300 "$POOL/stats/total_requests" "$POOL/stats/terminated_agents"
    echo job >"$POOL/acquire"
    said woken "total_requests IN|PRI|ERR 1"
}

@test "a value stays exceptional until it is read again from its start" {
    mount_pool 1 2 -- fake spawn=5ms
    run python3 "$BATS_TEST_DIRNAME/poll.py" levels "$POOL/stats/active_agents" "echo job >'$POOL/acquire'"
    assert_success
    assert_output "before IN
behind IN|PRI|ERR
still IN|PRI|ERR
middle IN|PRI|ERR
read 1
again IN"
}

@test "edge-triggered epoll is told of every change" {
    mount_pool 1 1 -- fake spawn=5ms
    run python3 "$BATS_TEST_DIRNAME/poll.py" edges "$POOL/stats/active_agents" "echo job >'$POOL/acquire'" \
        "echo job >'$POOL/release'" "echo job >'$POOL/acquire'" "echo job >'$POOL/release'"
    assert_success
    assert_output "1
0
1
0"
}

later_than() { # UPTIME
    [ "$(cut -d. -f1 "$POOL/stats/uptime")" -ge "$1" ]
}

@test "nobody is woken by what is not his, and by uptime nobody at all" {
    mount_pool 1 1 -- fake spawn=5ms
    echo job >"$POOL/acquire"
    local idle other uptime
    poller other wait poll 300 "$POOL/stats/total_requests"
    poller idle wait poll 300 "$POOL/stats/terminated_agents" "$POOL/stats/uptime" "$POOL/stats/active_seconds" \
        "$POOL/stats/oldest_waiter" "$POOL/agents/agent-1/age" "$POOL/agents/agent-1/generation"
    echo job >"$POOL/release"
    echo job >"$POOL/acquire"
    said other "total_requests PRI|ERR 2"
    uptime=$(cut -d. -f1 "$POOL/stats/uptime")
    await later_than $((uptime + 2))
    refute gone "$idle"
    assert_equal "$(cat "$DIR/idle")" ""
}

@test "an agent that is gone is told as an end, and cannot be read any more" {
    mount_pool 1 1 -- fake spawn=5ms
    local agent=$POOL/agents/agent-1 generation transitions
    poller generation wait poll 300 "$agent/generation"
    exec 5<"$agent/transitions"
    cat <&5 >/dev/null
    echo kill >"$agent/ctl"
    said generation "generation PRI|ERR|HUP ENODEV"
    await test ! -e "$agent"
    run python3 -c 'import os
os.pread(5, 10, 0)'
    exec 5<&-
    assert_failure
    assert_output --partial "No such device"
}

@test "activity and pid are told when a program gets a prompt and when it ends" {
    AGENTPOOLFS=$PROGRAMS
    mount_pool 1 1
    local agent=$POOL/agents/agent-1 activity prompts pid
    echo job >"$POOL/acquire"
    await value_is "$agent/activity" ready
    poller activity wait epoll 300 "$agent/activity"
    poller prompts wait poll 300 "$agent/prompts"
    echo "until [ -e $DIR/go ]; do sleep 0.05; done" >"$agent/prompt"
    said activity "activity PRI|ERR busy"
    said prompts "prompts PRI|ERR 1"
    poller activity wait poll 300 "$agent/activity"
    touch "$DIR/go"
    said activity "activity PRI|ERR ready"
    poller pid wait poll 300 "$agent/pid"
    echo exit >"$agent/prompt"
    said pid "pid PRI|ERR nothing"
}

@test "two hundred pollers are all woken while leases go round, and end" {
    mount_pool 2 2 -- fake spawn=5ms
    local many i
    poller many many 200 "$POOL/stats/total_requests" 40
    for ((i = 0; i < 40; i++)); do
        echo "label-$i" >"$POOL/acquire"
        echo "label-$i" >"$POOL/release"
    done
    wait "$many"
    read -r least most <"$DIR/many"
    assert [ "$least" -gt 0 ]
    assert [ "$most" -le 41 ]
}

@test "who asks for a lease without waiting is told by poll when it is granted, and when it is refused" {
    mount_pool 1 1 -- fake spawn=5ms
    run python3 - "$POOL" <<'EOF'
import os, select, sys
pool = sys.argv[1]
def ask(line):
    fd = os.open(pool + "/acquire", os.O_RDWR | os.O_NONBLOCK)
    os.write(fd, line)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return fd, poll
def answer(fd):
    try:
        return os.read(fd, 100).decode().split()[1]
    except OSError as error:
        return error.strerror
first, poll = ask(b"first\n")
assert poll.poll(60000) == [(first, select.POLLIN)]
print(answer(first))
second, poll = ask(b"second\n")
print(answer(second), poll.poll(0))
third, third_poll = ask(b"third timeout=0\n")
assert third_poll.poll(60000) == [(third, select.POLLIN)]
print(answer(third))
os.close(first)
assert poll.poll(60000) == [(second, select.POLLIN)]
print(answer(second))
EOF
    assert_success
    assert_equal "$output" "first
Resource temporarily unavailable []
Resource temporarily unavailable
second"
}

@test "a poller can be killed, and who polls beside it is woken all the same" {
    mount_pool 1 1 -- fake spawn=5ms
    local killed woken
    poller killed wait poll 300 "$POOL/stats/active_agents"
    poller woken wait epoll 300 "$POOL/stats/active_agents"
    kill -9 "$killed"
    await gone "$killed"
    poller killed wait select 300 "$POOL/stats/active_agents"
    kill "$killed"
    await gone "$killed"
    echo job >"$POOL/acquire"
    said woken "active_agents PRI|ERR 1"
}

@test "a poller holds up no end of the pool" {
    mount_pool 1 1 -- fake spawn=5ms
    local of_pool of_agent
    poller of_pool wait poll 300 "$POOL/stats/total_requests"
    poller of_agent wait poll 300 "$POOL/agents/agent-1/requests"
    kill "$DAEMON"
    await gone "$DAEMON"
    wait "$of_pool"
    wait "$of_agent"
    assert contains "$DIR/of_pool" ERR
    run cat "$DIR/of_agent"
    assert_output --regexp 'ERR(\|HUP)? (ENODEV|ENOTCONN|ECONNABORTED)'
}

@test "an idle pool with pollers wakes up no thread" {
    mount_pool 1 1 -- fake spawn=5ms
    local idle
    await value_is "$POOL/agents/agent-1/activity" ready
    woken_up "$DIR/anyway" # such as a thread of a sanitizer
    poller idle wait poll 600 "$POOL/stats/active_agents" "$POOL/agents/agent-1/activity"
    await none_but "$DIR/anyway" # a while after its start an agent is proven
    kill "$idle"
}
