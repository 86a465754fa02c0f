# The machine through the mount: scaling, recycling and its triggers, quotas, health, settings, order.

load helper

setup() { common_setup; }
teardown() { common_teardown; }

reasons() { # NAME: of its changes of state, in order
    awk '{print $4}' "$POOL/agents/$1/transitions"
}

@test "the pool grows from one to ten above 80 percent and shrinks below 20" {
    mount_pool 1 10 -o idle_timeout=0,scale_down_window=100ms,maintenance_interval=100ms
    local i
    for i in 1 2 3 4 5 6 7 8 9 10; do echo "job-$i timeout=1m" > "$POOL/acquire"; done
    assert_equal "$(cat "$POOL/stats/active_agents")" 10
    assert_equal "$(cat "$POOL/stats/utilization")" 100
    assert_equal "$(cat "$POOL/stats/scale_direction")" UP
    run bash -c "echo more timeout=0 > $POOL/acquire"
    assert_failure
    for i in 1 2 3 4 5 6 7 8 9 10; do echo "job-$i" > "$POOL/release"; done
    await value_is "$POOL/stats/total_agents" 1
    assert_equal "$(cat "$POOL/stats/scale_direction")" DOWN
    run date -d "$(cat "$POOL/stats/last_scale_event")" +%s
    assert_success
}

@test "policy spare keeps idle agents between min_idle and max_idle" {
    mount_pool 1 6 -o scale_down_window=100ms
    echo 2 > "$POOL/config/max_idle"
    echo spare > "$POOL/config/scale_policy"
    await value_is "$POOL/stats/idle_agents" 2
    echo job > "$POOL/acquire"
    await value_is "$POOL/stats/idle_agents" 2
    assert_equal "$(cat "$POOL/stats/total_agents")" 3
    echo job > "$POOL/release"
    await value_is "$POOL/stats/total_agents" 2
}

@test "policy target keeps scale_up_at percent of the agents busy" {
    mount_pool 1 8 -o scale_policy=target,scale_down_window=100ms
    local i
    for i in 1 2 3 4; do echo "job-$i" > "$POOL/acquire"; done
    await value_is "$POOL/stats/total_agents" 5
    assert_equal "$(cat "$POOL/stats/desired_agents")" 5
    await value_is "$POOL/stats/idle_agents" 1
    echo 50 > "$POOL/config/scale_up_at"
    await value_is "$POOL/stats/idle_agents" 4
    for i in 2 3 4; do echo "job-$i" > "$POOL/release"; done
    await value_is "$POOL/stats/total_agents" 3 # two, and one that is left alone
}

@test "policy ewma keeps what is busy on average, and room beside it" {
    mount_pool 1 8 -o scale_down_window=100ms
    local i
    for i in 1 2 3 4; do echo "job-$i" > "$POOL/acquire"; done
    echo ewma > "$POOL/config/scale_policy" # its average begins with the four
    await value_is "$POOL/stats/total_agents" 6
    for i in 1 2 3 4; do echo "job-$i" > "$POOL/release"; done
    assert [ "$(cat "$POOL/stats/desired_agents")" -ge 4 ] # six for some seconds, four still after three minutes
    for i in 1 2 3 4 5 6 7 8; do echo "job-$i" > "$POOL/acquire"; done # demand waits for no average
    assert_equal "$(cat "$POOL/stats/active_agents")" 8
    for i in 1 2 3 4 5 6 7 8; do echo "job-$i" > "$POOL/release"; done
    assert [ "$(cat "$POOL/stats/desired_agents")" -ge 4 ]
    echo utilization > "$POOL/config/scale_policy"
    await value_is "$POOL/stats/total_agents" 1
}

@test "warm keeps the minimum, and a higher one is made at once" {
    mount_pool 2 5
    echo kill > "$POOL/agents/agent-1/ctl"
    await test -e "$POOL/agents/agent-3"
    await value_is "$POOL/stats/idle_agents" 2
    echo 4 > "$POOL/config/min_pool_size"
    echo warm > "$POOL/ctl"
    await value_is "$POOL/stats/idle_agents" 4
}

@test "recycle makes an idle agent as new under its name, a leased one when it is released" {
    mount_pool 1 1
    echo recycle > "$POOL/agents/agent-1/ctl"
    await value_is "$POOL/agents/agent-1/recycles" 1
    await value_is "$POOL/agents/agent-1/generation" 2
    await value_is "$POOL/agents/agent-1/state" idle
    echo job > "$POOL/acquire"
    echo recycle > "$POOL/agents/agent-1/ctl"
    assert_equal "$(cat "$POOL/leases/job/state")" active
    echo work > "$(readlink "$POOL/leases/job/worktree")/work"
    echo job > "$POOL/release"
    await value_is "$POOL/agents/agent-1/recycles" 2
    assert_equal "$(cat "$POOL/stats/total_recycles")" 2
    assert_equal "$(git -C "$REPO" show agentpool/job:work)" work
    run reasons agent-1
    assert_line asked
    assert_line recycled
}

@test "an agent is recycled after recycle_threshold requests" {
    mount_pool 1 1 -o recycle_threshold=2
    local i
    for i in 1 2 3; do
        echo "job-$i" > "$POOL/acquire"
        echo "job-$i" > "$POOL/release"
    done
    await value_is "$POOL/agents/agent-1/recycles" 1
    assert_equal "$(cat "$POOL/agents/agent-1/requests")" 3
    run reasons agent-1
    assert_line requests
}

@test "an agent is recycled at max_instance_age, at once when it idles" {
    mount_pool 1 1
    echo 1s > "$POOL/config/max_instance_age"
    await contains "$POOL/agents/agent-1/transitions" " idle recycling age"
    echo 0 > "$POOL/config/max_instance_age"
    await value_is "$POOL/agents/agent-1/state" idle
    assert [ "$(cat "$POOL/agents/agent-1/recycles")" -ge 1 ]
}

@test "an agent whose process tree is over max_memory_mb is recycled, when its lease ends" {
    mount_pool 1 1 -o maintenance_interval=100ms
    echo job > "$POOL/acquire"
    printf '%s\n' "python3 -c 'import time; x = bytes(range(256)) * 400000; print(\"bi\" + \"g\"); time.sleep(1000)'" \
        > "$POOL/leases/job/prompt"
    await contains "$POOL/leases/job/output" big
    assert [ "$(cat "$POOL/leases/job/memory")" -gt 100000000 ]
    assert [ "$(cat "$POOL/leases/job/tasks")" -ge 2 ]
    echo 50 > "$POOL/config/max_memory_mb"
    local i
    for i in 1 2 3 4; do echo maintain > "$POOL/ctl"; sleep 0.1; done # four samples
    assert_equal "$(cat "$POOL/leases/job/state")" active
    echo job > "$POOL/release"
    await value_is "$POOL/agents/agent-1/recycles" 1
    run reasons agent-1
    assert_line memory
    await value_is "$POOL/agents/agent-1/state" idle
    assert [ "$(cat "$POOL/agents/agent-1/memory")" -lt 50000000 ]
}

@test "an agent that is over max_cpu_percent is recycled" {
    mount_pool 1 1 -o max_cpu_percent=1,maintenance_interval=100ms
    echo job > "$POOL/acquire"
    echo 'while :; do :; done' > "$POOL/leases/job/prompt"
    over() { awk '$1 > 3 {found = 1} END {exit !found}' "$POOL/leases/job/cpu"; }
    await over
    echo job > "$POOL/release" # a pass has seen it long since
    await contains "$POOL/agents/agent-1/transitions" " cpu"
    await value_is "$POOL/agents/agent-1/recycles" 1
}

@test "an idle agent whose program ends or whose worktree goes is made as new" {
    mount_pool 1 1 -o maintenance_interval=100ms
    sleep 5.2 # it has proved that its program stays
    kill -9 "$(program_of "$POOL/agents/agent-1")"
    await value_is "$POOL/agents/agent-1/recycles" 1
    await value_is "$POOL/agents/agent-1/state" idle
    run reasons agent-1 # its end, or a pass over the agents that came before the news of it
    assert_line unhealthy
}

@test "an agent that has been recycled max_recycles_per_id times is replaced under a new name" {
    mount_pool 1 1 -o max_recycles_per_id=1
    echo recycle > "$POOL/agents/agent-1/ctl"
    await value_is "$POOL/agents/agent-1/recycles" 1
    await value_is "$POOL/agents/agent-1/state" idle
    echo recycle > "$POOL/agents/agent-1/ctl"
    await test -e "$POOL/agents/agent-2"
    await test ! -e "$POOL/agents/agent-1"
    await value_is "$POOL/agents/agent-2/state" idle
}

@test "an agent takes requests_per_quota prompts, and refuses further ones with EDQUOT" {
    mount_pool 1 1 -o requests_per_quota=2
    echo job > "$POOL/acquire"
    echo 'echo one' > "$POOL/leases/job/prompt"
    echo 'echo two' > "$POOL/leases/job/prompt"
    run bash -c "echo 'echo three' > $POOL/leases/job/prompt"
    assert_failure
    assert_output --partial "Disk quota exceeded"
    assert contains "$POOL/last_error" requests_per_quota
    echo 3 > "$POOL/config/requests_per_quota"
    echo 'echo three' > "$POOL/leases/job/prompt"
    await contains "$POOL/leases/job/output" three
}

@test "health is checked before a grant: a dead agent is replaced and the acquirer does not notice" {
    mount_pool 2 2
    local newest=agent-2 pid
    [ "$(cat "$POOL/agents/agent-1/idle_time")" '<' "$(cat "$POOL/agents/agent-2/idle_time")" ] && newest=agent-1
    rm -rf "$(readlink "$POOL/agents/$newest/worktree")" || true # its root may be a mount
    echo job > "$POOL/acquire"
    assert_equal "$(cat "$POOL/leases/job/state")" active
    assert [ -e "$(readlink "$POOL/leases/job/worktree")/file-0" ]
    await value_is "$POOL/stats/total_agents" 2
    echo job > "$POOL/release"
    await value_is "$POOL/stats/idle_agents" 2
}

@test "a closed pool grants nothing until it is opened" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    bash -c "echo waits timeout=1m > $POOL/acquire" 2> "$DIR/refused" &
    local waiter=$!
    await value_is "$POOL/stats/waiting" 1
    echo close > "$POOL/ctl"
    await gone $waiter
    assert contains "$DIR/refused" "transport endpoint shutdown"
    run bash -c "echo other > $POOL/acquire"
    assert_failure
    assert_equal "$(cat "$POOL/last_error")" "the pool is closed"
    assert_equal "$(cat "$POOL/leases/job/state")" active
    echo job > "$POOL/release"
    echo open > "$POOL/ctl"
    echo other > "$POOL/acquire"
}

@test "a lease with pid= ends with that process, its work saved" {
    mount_pool 1 1
    sleep 1000 &
    local holder=$!
    echo "job pid=$holder" > "$POOL/acquire"
    assert contains "$POOL/leases/job/owner" "pid $holder"
    echo work > "$(readlink "$POOL/leases/job/worktree")/work"
    kill $holder
    await test ! -e "$POOL/leases/job"
    await value_is "$POOL/stats/idle_agents" 1
    assert_equal "$(git -C "$REPO" show agentpool/job:work)" work
    run reasons agent-1
    assert_line holder
    run bash -c "echo job pid=$holder > $POOL/acquire"
    assert_failure
    assert_output --partial "No such process"
}

@test "affinity prefers the agent that last served the same key" {
    mount_pool 3 3
    echo "a affinity=parser" > "$POOL/acquire"
    local agent
    agent=$(readlink "$POOL/leases/a")
    echo "b" > "$POOL/acquire"
    echo a > "$POOL/release"
    echo b > "$POOL/release" # the last one to become idle
    await value_is "$POOL/stats/idle_agents" 3
    echo "c affinity=parser" > "$POOL/acquire"
    assert_equal "$(readlink "$POOL/leases/c")" "$agent"
    echo "d affinity=parser timeout=0" > "$POOL/acquire" # it does not wait for it
    assert [ "$(readlink "$POOL/leases/d")" != "$agent" ]
}

@test "a prompt through a handle of an ended lease is ESTALE" {
    mount_pool 1 1
    echo first > "$POOL/acquire"
    exec 9> "$POOL/leases/first/prompt"
    echo first > "$POOL/release"
    echo second > "$POOL/acquire"
    run bash -c "echo 'echo stray' >&9"
    exec 9>&-
    assert_failure
    assert_output --partial "Stale file handle"
    assert_equal "$(cat "$POOL/leases/second/prompts")" 0
}

@test "tokens of leases rise, over restarts too" {
    token() { awk '/^token/ {print $2}' "$POOL/leases/$1/owner"; }
    mount_pool 1 1
    echo a > "$POOL/acquire"
    local first second third
    first=$(token a)
    echo a > "$POOL/release"
    echo a > "$POOL/acquire"
    second=$(token a)
    unmount_pool
    mount_pool 1 1
    echo a > "$POOL/acquire"
    third=$(token a)
    assert [ "$second" -gt "$first" ]
    assert [ "$third" -gt "$second" ]
}

@test "on_release=keep leaves the program running over the end of a lease" {
    mount_pool 1 1 -o on_release=keep
    echo a > "$POOL/acquire"
    local pid
    pid=$(program_of "$POOL/leases/a")
    echo 'memory=kept' > "$POOL/leases/a/prompt"
    await value_is "$POOL/leases/a/activity" ready
    echo work > "$(readlink "$POOL/leases/a/worktree")/work"
    echo a > "$POOL/release"
    assert_equal "$(git -C "$REPO" show agentpool/a:work)" work
    echo b > "$POOL/acquire"
    assert_equal "$(program_of "$POOL/leases/b")" "$pid"
    assert [ ! -e "$(readlink "$POOL/leases/b/worktree")/work" ]
    echo 'echo memory is $memory' > "$POOL/leases/b/prompt"
    await contains "$POOL/leases/b/output" "memory is kept"
}

@test "settings and counters are kept as soon as they are made, and load takes up what the store has" {
    mount_pool 1 3
    echo job > "$POOL/acquire"
    echo job > "$POOL/release"
    echo 7m > "$POOL/config/idle_timeout"
    printf spare > "$POOL/config/scale_policy" # taken when it is closed
    echo save > "$POOL/ctl"
    python3 -c 'import sqlite3, sys
with sqlite3.connect(sys.argv[1], timeout=10) as db: db.execute("UPDATE setting SET value = ? WHERE name = ?", ("6m", "idle_timeout"))' "$STATE/state.db"
    echo load > "$POOL/ctl"
    assert_equal "$(cat "$POOL/config/idle_timeout")" 6m
    echo 9m > "$POOL/config/idle_timeout"
    unmount_pool
    mount_pool 2 3 -o min_idle=2,max_idle=2
    assert_equal "$(cat "$POOL/config/idle_timeout")" 9m
    assert_equal "$(cat "$POOL/config/scale_policy")" spare
    assert_equal "$(cat "$POOL/config/min_pool_size")" 2 # the command line goes first
    assert_equal "$(cat "$POOL/stats/total_requests")" 1
    assert [ "$(cat "$POOL/stats/spawned_agents")" -ge 3 ]
}

@test "a kept setting that does not fit the command line is left out, and said; the others hold" {
    mount_pool 1 8
    echo 6 > "$POOL/config/min_pool_size"
    echo 7m > "$POOL/config/idle_timeout"
    unmount_pool
    "$AGENTPOOLFS" -f -o "state_dir=$STATE,max_pool_size=2" "$REPO" "$POOL" >"$DIR/log" 2>&1 3>&- &
    DAEMON=$!
    await pool_answers
    assert_equal "$(cat "$POOL/config/min_pool_size")" 1
    assert_equal "$(cat "$POOL/config/idle_timeout")" 7m
    grep -q 'setting_left_out.*min_pool_size' "$POOL/events"
}

@test "profiles set the documented values, and later options override them" {
    "$AGENTPOOLFS" --list-options | grep -q '^profile'
    mount_pool 1 3 -o profile=development
    assert_equal "$(cd "$POOL/config" && cat min_pool_size max_pool_size idle_timeout recycle_threshold \
        maintenance_interval | tr '\n' ' ')" "1 3 30s 100 5s "
    unmount_pool
    mount_pool 2 10 -o profile=high-load,min_pool_size=2
    assert_equal "$(cd "$POOL/config" && cat min_pool_size max_pool_size idle_timeout recycle_threshold \
        maintenance_interval max_memory_mb max_cpu_percent max_instance_age max_recycles_per_id \
        requests_per_quota | tr '\n' ' ')" "2 10 2m 5000 10s 2048 95 1h 200 10000 "
    unmount_pool
    run "$AGENTPOOLFS" -o profile=fast "$REPO" "$POOL"
    assert_equal "$status" 2
    assert_output --partial "development production high-load"
}

@test "cat config/* shows every value" {
    mount_pool 1 1
    run bash -c "cd $POOL/config && cat *"
    assert_success
    assert_equal "$(find "$POOL/config" -type f | wc -l)" "$("$AGENTPOOLFS" --list-options | grep -vc '^profile')"
}

@test "garbage in config/ is EINVAL or ERANGE, names its reason and keeps the old value" {
    mount_pool 1 1
    head -c 1000000 /dev/zero | tr '\0' 7 > "$DIR/megabyte"
    run python3 - "$POOL" "$DIR/megabyte" <<'PY'
import errno, os, sys
pool = sys.argv[1]
garbage = [b"-1", b"-1\n", b"1e99", b"\n", b" \n", b"0x10\n", b"1\n2\n", b"1\0\n", b"\0", b"nan\n", b"+\n", b"1 2\n",
           b"99999999999999999999\n", b"\xff\xfe\n", open(sys.argv[2], "rb").read()]
fixed = {"hard_cap", "program", "program_profile", "state_dir", "persist", "durability", "spawn_backend", "git",
         "allow_foreign_repo", "umask", "uid", "gid", "sandbox", "sandbox_net"}  # at the mount
takes_any_text = {"setup", "teardown", "sandbox_hide", "sandbox_env"}
for name in sorted(set(os.listdir(pool + "/config")) - fixed - takes_any_text):
    path = pool + "/config/" + name
    before = open(path).read()
    def refused(text, flags=0, first=None):
        open(pool + "/config/idle_timeout", "w").close()
        fd = os.open(path, os.O_WRONLY | flags)
        try:
            if first is not None:
                os.write(fd, first)
            os.write(fd, text)
        except OSError as e:
            assert e.errno in (errno.EINVAL, errno.ERANGE), (name, text[:20], e)
            reason = open(pool + "/last_error").read()
            assert name in reason, (name, text[:20], reason)
        else:
            raise AssertionError((name, text[:20], "was taken"))
        finally:
            os.close(fd)
        assert open(path).read() == before, (name, text[:20])
    for text in garbage:
        if name != "base" or text in (b"\n", b" \n", b"1\n2\n", b"1\0\n", b"\0", garbage[-1]):
            refused(text)
    whole = before.encode()
    refused(whole, flags=os.O_APPEND)
    refused(whole, first=whole.rstrip())  # a value in two pieces
PY
    echo "$output"
    assert_success
}

@test "a value without its newline takes effect when the file is closed" {
    mount_pool 1 1
    printf 7m > "$POOL/config/idle_timeout"
    assert_equal "$(cat "$POOL/config/idle_timeout")" 7m
    run bash -c "printf x > $POOL/config/idle_timeout"
    assert_failure
    dash -c "printf 9m > $POOL/config/idle_timeout"
    assert_equal "$(cat "$POOL/config/idle_timeout")" 9m
}

@test "200 acquirers at once on 5 agents are served in the order of their arrival" {
    mount_pool 5 5 -o on_release=keep
    run python3 - "$POOL" <<'PY'
import os, sys, threading, time
pool = sys.argv[1]
def read(name):
    return open(pool + "/" + name).read()
def lease(fd):
    return os.read(fd, 200).decode().split()
handles = []
for i in range(200):
    fd = os.open(pool + "/acquire", os.O_RDWR)
    os.write(fd, b"w%03d timeout=10m\n" % i)
    handles.append(fd)
tokens = []
lock = threading.Lock()
def serve(part):
    for i in part:
        agent, label = lease(handles[i])
        assert label == "w%03d" % i
        owner = dict(line.split(" ", 1) for line in read("leases/%s/owner" % label).splitlines())
        with lock:
            tokens.append((int(owner["token"]), i))
        os.close(handles[i])
threads = [threading.Thread(target=serve, args=(range(k, 200, 5),)) for k in range(5)]
for t in threads: t.start()
for t in threads: t.join()
tokens.sort()
assert [i for _, i in tokens] == list(range(200)), tokens
print("in order")
PY
    assert_output "in order"
    await value_is "$POOL/stats/idle_agents" 5
    assert_equal "$(cat "$POOL/stats/total_requests")" 200
}

@test "a shell's background child that ends does not disturb a waiting acquirer, Ctrl-C ends it" {
    mount_pool 1 1
    echo a > "$POOL/acquire"
    for shell in bash dash; do
        local start=$EPOCHREALTIME
        run $shell -c "sleep 0.3 & echo job timeout=1 > $POOL/acquire"
        local took=$(( (${EPOCHREALTIME/./} - ${start/./}) / 1000 ))
        assert_failure
        assert_equal "$(cat "$POOL/last_error")" "no agent became free in time"
        assert [ $took -ge 1000 ]
    done
    run python3 - "$POOL" <<'PY'
import os, pty, signal, sys, time
pid, terminal = pty.fork()
if pid == 0:
    signal.signal(signal.SIGINT, signal.SIG_DFL) # whoever runs the tests in the background has it ignored
    os.execvp("bash", ["bash", "--norc", "-c", "sleep 0.3 & echo job timeout=5m > %s/acquire" % sys.argv[1]])
while open(sys.argv[1] + "/stats/waiting").read() != "1\n":
    time.sleep(0.02)
time.sleep(0.6)
assert open(sys.argv[1] + "/stats/waiting").read() == "1\n"
os.write(terminal, b"\x03")
os.waitpid(pid, 0)
assert open(sys.argv[1] + "/stats/waiting").read() == "0\n"
print("ended")
PY
    assert_output "ended"
}

@test "counters and values of pool and agent agree with what happened" {
    mount_pool 2 2
    echo a > "$POOL/acquire"
    assert_equal "$(cd "$POOL/stats" && cat active_agents idle_agents total_agents spawned_agents total_requests \
        terminated_agents utilization waiting | tr '\n' ' ')" "1 1 2 2 1 0 50 0 "
    assert_equal "$(cat "$POOL/leases/a/requests" "$POOL/leases/a/generation" "$POOL/leases/a/recycles" | tr '\n' ' ')" "1 1 0 "
    assert_equal "$(cat "$POOL/leases/a/tasks")" 1
    assert [ "$(cat "$POOL/leases/a/memory")" -gt 0 ]
    run cat "$POOL/leases/a/cpu"
    assert_output --regexp '^[0-9]+\.[0-9]$'
    run reasons "$(basename "$(readlink "$POOL/leases/a")")"
    assert_output "demand
spawned
acquire
grant"
    echo a > "$POOL/release"
    echo kill > "$POOL/agents/agent-1/ctl"
    await value_is "$POOL/stats/terminated_agents" 1
    await value_is "$POOL/stats/spawned_agents" 3
}
