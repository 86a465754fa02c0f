# Leases: acquire in its two forms, release in its two, who waits and who is refused.

load helper

setup() { common_setup; }
teardown() { common_teardown; }

@test "acquire by write grants a lease that outlives its writer" {
    mount_pool 1 1
    bash -c "echo job > $POOL/acquire"
    assert_equal "$(readlink "$POOL/leases/job")" ../agents/agent-1
    assert_equal "$(cat "$POOL/leases/job/state")" active
    assert_equal "$(cat "$POOL/leases/job/lease")" job
    assert_equal "$(cat "$POOL/leases/job/branch")" agentpool/job
    assert_equal "$(cat "$POOL/leases/job/base")" "$(git -C "$REPO" rev-parse HEAD)"
    assert_equal "$(cat "$POOL/leases/job/requests")" 1
    run cat "$POOL/leases/job/owner"
    assert_line "uid $(id -u)"
    assert_line "expires never"
    echo job > "$POOL/release"
    assert [ ! -e "$POOL/leases/job" ]
}

@test "bash, dash, cat, echo and python drive it alike" {
    mount_pool 1 1
    dash -c "echo one > $POOL/acquire && cat $POOL/leases/one/state && echo one > $POOL/release"
    /bin/echo two > "$POOL/acquire"
    /bin/echo two > "$POOL/release"
    printf three | cat > "$POOL/acquire"
    printf three > "$POOL/release"
    python3 - "$POOL" <<'PY'
import sys
pool = sys.argv[1]
open(pool + "/acquire", "w").write("four\n")
assert open(pool + "/leases/four/lease").read() == "four\n"
open(pool + "/release", "w").write("four\n")
PY
    assert_equal "$(cat "$POOL/stats/total_requests")" 4
}

@test "a lease by handle ends when its last handle is closed" {
    mount_pool 1 1
    for shell in bash dash; do
        run $shell -c "exec 3<>$POOL/acquire; echo timeout=1m >&3; read -r agent label <&3
            cat $POOL/leases/\$label/state; exec 3>&-; echo \$label"
        assert_success
        assert_line active
        assert_line --partial lease-
        await value_is "$POOL/stats/idle_agents" 1
    done
    run python3 - "$POOL" <<'PY'
import os, sys
fd = os.open(sys.argv[1] + "/acquire", os.O_RDWR)
os.write(fd, b"py\n")
print(os.read(fd, 100).decode(), end="")
assert os.read(fd, 100) == b""
PY
    assert_output "agent-1 py"
    await value_is "$POOL/stats/idle_agents" 1
}

@test "a holder by handle that is killed gives the agent back, and no pass is needed for it" {
    mount_pool 1 1 -o maintenance_interval=1d
    mkfifo "$DIR/never"
    local all=() holder start
    for _ in 1 2 3; do
        bash -c "exec 3<>$POOL/acquire; echo job >&3; read -r line <&3; echo > $DIR/held
            while :; do read -t 100 -r line <$DIR/never; done" &
        holder=$!
        await test -e "$DIR/held"
        rm "$DIR/held"
        assert_equal "$(cat "$POOL/leases/job/state")" active
        start=$EPOCHREALTIME
        kill -9 $holder
        await test ! -e "$POOL/leases/job"
        await value_is "$POOL/stats/active_agents" 0
        all+=($(( (${EPOCHREALTIME/./} - ${start/./}) / 1000 )))
        await value_is "$POOL/stats/idle_agents" 1
    done
    echo "# it took ${all[*]} ms" >&3
}

@test "ten writers on a pool of two are served in order, each once" {
    mount_pool 2 2
    echo a > "$POOL/acquire"
    echo b > "$POOL/acquire"
    for i in 0 1 2 3 4 5 6 7 8 9; do
        bash -c "echo w$i timeout=1m > $POOL/acquire && echo w$i >> $DIR/order && echo w$i > $POOL/release" &
        await value_is "$POOL/stats/waiting" $((i + 1))
    done
    echo a > "$POOL/release" # one agent serves them all, one after the other
    await contains "$DIR/order" w9
    assert_equal "$(tr '\n' ' ' < "$DIR/order")" "w0 w1 w2 w3 w4 w5 w6 w7 w8 w9 "
    echo b > "$POOL/release"
    assert_equal "$(cat "$POOL/stats/total_requests")" 12
    wait $(jobs -p | grep -v "^$DAEMON$")
}

@test "timeout=0 on an exhausted pool is EAGAIN at once" {
    mount_pool 1 1
    echo a > "$POOL/acquire"
    run bash -c "echo x timeout=0 > $POOL/acquire"
    assert_failure
    assert_output --partial "Resource temporarily unavailable"
    assert_equal "$(cat "$POOL/last_error")" "no agent is free"
    echo a > "$POOL/release"
}

@test "timeout=1 on an exhausted pool is ETIMEDOUT after a second" {
    mount_pool 1 1
    echo a > "$POOL/acquire"
    local start=$EPOCHREALTIME
    run bash -c "echo x timeout=1 > $POOL/acquire"
    local took=$(( (${EPOCHREALTIME/./} - ${start/./}) / 1000 ))
    assert_failure
    assert_output --partial "Connection timed out"
    assert [ $took -ge 1000 ]
    assert_equal "$(cat "$POOL/stats/waiting")" 0
    echo a > "$POOL/release"
}

@test "a library that writes a refused line again when it closes asks for nothing" {
    mount_pool 1 1
    echo a > "$POOL/acquire"
    run python3 - "$POOL" <<'PY'
import sys
try:
    with open(sys.argv[1] + "/acquire", "w") as f: # flushes at close, and again when that failed
        f.write("x timeout=1\n")
except TimeoutError:
    print("timed out")
PY
    assert_output "timed out"
    grep -q '^agentpool_acquire_total{.*result="timeout"} 1$' "$POOL/metrics"
    echo a > "$POOL/release"
    await value_is "$POOL/stats/idle_agents" 1
    assert_equal "$(cat "$POOL/stats/total_requests")" 1
}

@test "a waiter that is killed leaves no waiter and no process" {
    mount_pool 1 1
    echo a > "$POOL/acquire"
    for signal in KILL TERM INT HUP; do
        bash -c "echo y > $POOL/acquire" &
        local waiter=$!
        await value_is "$POOL/stats/waiting" 1
        # bash ignores SIGINT in a background job, as every shell does
        [ $signal = INT ] && kill -TERM $waiter || kill -$signal $waiter
        await gone $waiter
        await value_is "$POOL/stats/waiting" 0
    done
    timeout -s KILL 1 bash -c "echo y > $POOL/acquire" || true
    await value_is "$POOL/stats/waiting" 0
    assert [ ! -e "$POOL/leases/y" ]
    echo a > "$POOL/release"
    echo y > "$POOL/acquire"
    echo y > "$POOL/release"
}

@test "a shell whose background child ends meanwhile goes on waiting" {
    mount_pool 1 1
    echo a > "$POOL/acquire"
    bash -c "sleep 0.2 & echo job timeout=1m > $POOL/acquire" &
    local waiter=$!
    await value_is "$POOL/stats/waiting" 1
    local child
    child=$(pgrep -P $waiter)
    await gone "$child"
    echo a > "$POOL/release"
    wait $waiter
    assert_equal "$(cat "$POOL/leases/job/state")" active
    echo job > "$POOL/release"
}

@test "a label is leased once" {
    mount_pool 2 2
    echo job > "$POOL/acquire"
    run bash -c "echo job > $POOL/acquire"
    assert_failure
    assert_output --partial "File exists"
    echo job > "$POOL/release"
}

@test "what is malformed is EINVAL and says why" {
    mount_pool 1 1
    for line in "../x" "a b" "a timeout=x" "a nonsense=1" "a..b" "-a" "$(printf 'a\033')"; do
        run bash -c 'printf "%s\n" "$1" > "$2/acquire"' - "$line" "$POOL"
        assert_failure
        assert_output --partial "Invalid argument"
        assert [ -n "$(cat "$POOL/last_error")" ]
    done
    run python3 -c "open('$POOL/acquire', 'wb', 0).write(b'a\0b')"
    assert_failure
    assert_output --partial "Invalid argument"
    run bash -c "echo x agent=agent-99 > $POOL/acquire"
    assert_output --partial "No such file"
    assert_equal "$(cat "$POOL/stats/total_requests")" 0
}

@test "comments are skipped, and lines before a bad one have their effect" {
    mount_pool 2 2
    run python3 - "$POOL" <<'PY'
import os, sys
fd = os.open(sys.argv[1] + "/acquire", os.O_WRONLY)
text = b"# two leases\none\nbad bad\n"
print(os.write(fd, text), text.index(b"bad"))
PY
    assert_output "17 17"
    assert_equal "$(cat "$POOL/leases/one/state")" active
    echo agent-1 > "$POOL/release" || echo agent-2 > "$POOL/release"
    assert [ ! -e "$POOL/leases/one" ]
}

@test "releasing what is no lease is ENOENT" {
    mount_pool 1 1
    run bash -c "echo nobody > $POOL/release"
    assert_failure
    assert_output --partial "No such file"
    run rm "$POOL/leases/nobody"
    assert_failure
}

@test "rm of a lease's link releases it" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    rm "$POOL/leases/job"
    await value_is "$POOL/stats/idle_agents" 1
    assert_equal "$(ls "$POOL/leases")" ""
}

@test "a lease with a ttl ends by itself, touch renews it" {
    mount_pool 1 1
    echo "job ttl=1500ms" > "$POOL/acquire"
    local expires
    expires=$(grep expires "$POOL/leases/job/owner")
    await bash -c "touch $POOL/leases/job && [ '$expires' != \"\$(grep expires $POOL/leases/job/owner)\" ]"
    await test ! -e "$POOL/leases/job"
}

@test "another user may not end a lease" {
    needs_root "acts as another user"
    mount_pool 1 1 -o allow_other
    echo job > "$POOL/acquire"
    chmod 755 "$DIR"
    run setpriv --reuid=65534 --clear-groups bash -c "echo job > $POOL/release"
    assert_failure
    run setpriv --reuid=65534 --clear-groups rm "$POOL/leases/job"
    assert_failure
    assert_equal "$(cat "$POOL/leases/job/state")" active
    echo job > "$POOL/release"
}

@test "closing the pool ends the waiting and refuses the next, open admits again" {
    mount_pool 1 1
    echo a > "$POOL/acquire"
    bash -c "echo b > $POOL/acquire" 2> "$DIR/refused" &
    local waiter=$!
    await value_is "$POOL/stats/waiting" 1
    echo close > "$POOL/ctl"
    run wait $waiter
    assert_failure
    assert contains "$DIR/refused" "Cannot send after transport endpoint shutdown"
    run bash -c "echo c > $POOL/acquire"
    assert_failure
    echo a > "$POOL/release"
    echo open > "$POOL/ctl"
    echo c > "$POOL/acquire"
    echo c > "$POOL/release"
}

@test "acquirers that wait with pid= cost no descriptor" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    local before i
    before=$(ls "/proc/$DAEMON/fd" | wc -l)
    python3 - "$POOL" <<'PY'
import os, sys
pool, waiting = sys.argv[1], []
for n in range(200):
    waiting.append(os.open(pool + "/acquire", os.O_RDWR))
    os.write(waiting[-1], b"waits-%d timeout=10m pid=%d\n" % (n, os.getpid()))
daemon = int(open(pool + "/../state/lock").read())
print(len(os.listdir("/proc/%d/fd" % daemon)), file=open(pool + "/../during", "w"))
PY
    assert [ "$(cat "$DIR/during")" -lt $((before + 20)) ]
}

@test "an acquirer whose pid= has ended while it waited is ESRCH, and the one behind it is served" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    sleep 1000 &
    local holder=$!
    bash -c "echo dead timeout=10m pid=$holder > $POOL/acquire" 2>"$DIR/dead" 3>&- &
    local dead=$!
    await value_is "$POOL/stats/waiting" 1
    bash -c "echo next timeout=10m > $POOL/acquire" 3>&- &
    local next=$!
    await value_is "$POOL/stats/waiting" 2
    kill -9 $holder
    wait $holder || true
    echo job > "$POOL/release"
    wait $next
    refute wait $dead
    assert contains "$DIR/dead" "No such process"
    assert_equal "$(cat "$POOL/agents/agent-1/recycles")" 0
    assert_equal "$(ls "$POOL/leases")" next
    echo next > "$POOL/release"
}
