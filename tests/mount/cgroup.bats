# Agents in control groups, on the hierarchy of the machine: where a controller is missing, what takes its place is
# tested instead. And the same hardships without any groups.

load helper

setup() { common_setup; }

teardown() {
    local result=0
    common_teardown || result=1
    if [ -n "${SCOPE:-}" ]; then rmdir "$SCOPE" || result=1; fi
    return $result
}

has() { # WORD: among what is made use of
    grep -qw "$1" "$POOL/stats/cgroup"
}

# Says what is not here, and what is looked at instead.
instead_of() { # WORD WHAT
    echo "# no '$1' in '$(cat "$POOL/stats/cgroup")': $2" >&3
}

group_of() { # NAME
    echo "$(cat "$STATE/cgroup")/$1"
}

is_inside() { # PID NAME: it is in that agent's group
    grep -q "^0::.*/agentpoolfs-[0-9a-f]*/$2$" "/proc/$1/cgroup"
}

inside() { # PID NAME: likewise; a program that was just started enters before it is run
    await is_inside "$1" "$2" || { cat "/proc/$1/cgroup" "/proc/$1/stat" >&2; return 1; }
}

all_inside() { # NAME N: there are so many in the group, and nowhere else with that name
    [ "$(wc -l <"$(group_of "$1")/cgroup.procs")" -ge "$2" ]
}

# Has the daemon start in a group of ours that can have none below it, or so many.
start_in_scope() { # MAX_DESCENDANTS
    local place
    place=$(findmnt -n -t cgroup2 -o TARGET | head -n 1)
    SCOPE=$(mktemp -d "$place/agentpool-bats-XXXXXX")
    echo "$1" >"$SCOPE/cgroup.max.descendants"
    cat >"$DIR/agentpoolfs" <<END
#!/bin/sh
echo \$\$ >"$SCOPE/cgroup.procs"
exec "$(realpath "$AGENTPOOLFS")" "\$@"
END
    chmod +x "$DIR/agentpoolfs"
    AGENTPOOLFS=$DIR/agentpoolfs
}

lease() { # a pool of one agent, leased as job
    mount_pool 1 1 "$@"
    echo job >"$POOL/acquire"
}

# Has the shell run a command line and go on.
prompt() {
    printf '%s\n' "$1" >"$POOL/leases/job/prompt"
}

hostile() { # WORDS: has the leased agent run it, and waits until it has begun
    prompt "exec python3 $BATS_TEST_DIRNAME/hostile.py $*"
    await contains "$POOL/leases/job/output" begun
}

# Milliseconds within which 99 of 100 reads are answered.
p99_of_reads() { # FILE N
    python3 - "$1" "$2" <<'END'
import sys, time
took = []
for _ in range(int(sys.argv[2])):
    begin = time.monotonic()
    with open(sys.argv[1]) as file:
        file.read()
    took.append((time.monotonic() - begin) * 1000)
    time.sleep(0.01)
took.sort()
print(f"{took[len(took) * 99 // 100]:.1f}")
END
}

# Two hundred reads come back; how soon is printed.
answers() {
    local p99
    p99=$(p99_of_reads "$POOL/stats/active_agents" 200)
    echo "# p99 of reads: $p99 ms" >&3
}

# Processes in the leased agent's worktree; those of a bomb are there for a moment only.
hostile_left() {
    python3 - "$TREE" <<'END'
import os, sys
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        if os.readlink(f"/proc/{pid}/cwd") == sys.argv[1]:
            print(pid)
    except OSError:
        pass
END
}

more_than() { [ "$(hostile_left | wc -l)" -gt "$1" ]; }

none_left() { [ -z "$(hostile_left)" ]; }

# What is started in the background may be there a moment after it was said to have begun.
has_tasks() { # N
    [ "$(cat "$POOL/leases/job/tasks")" -ge "$1" ]
}

deaf='(trap "" TERM HUP; setsid sleep 1000 & nohup setsid sh -c "sleep 1000 & sleep 1000" >/dev/null 2>&1 &); echo be""gun'

@test "an agent's processes are in its group, those in other sessions too, and the group goes with them" {
    lease
    if ! has v2; then
        instead_of v2 "there are no groups to look at"
        assert_equal "$(cat "$POOL/stats/cgroup")" none
        assert [ ! -e "$STATE/cgroup" ]
        return
    fi
    inside "$(program_of "$POOL/leases/job")" agent-1
    prompt "$deaf"
    await contains "$POOL/leases/job/output" begun
    await all_inside agent-1 4
    local group pid
    group=$(group_of agent-1)
    for pid in $(cat "$group/cgroup.procs"); do inside "$pid" agent-1; done
    assert_equal "$(cat "$POOL/leases/job/tasks")" "$(wc -l <"$group/cgroup.procs")"
    refute is_inside "$DAEMON" agent-1
    echo kill >"$POOL/leases/job/ctl"
    await test -e "$POOL/agents/agent-2"
    await test ! -e "$group"
    await test -d "$(group_of agent-2)"
}

# CPU seconds that its group has counted.
counted() { # AGENT
    awk '$1 == "usage_usec" {print $2 / 1e6}' "$(group_of "$1")/cpu.stat"
}

above() { # NUMBER COMMAND...: what it prints is more
    "${@:2}" | awk -v bound="$1" '$1 > bound {found = 1} END {exit !found}'
}

# Has the agent's shell use up as much CPU as to be seen, by processes that end then.
use_cpu() { # AGENT
    prompt 'sh -c "until [ -e enough ]; do :; done"; rm enough; echo o""ver'
    await above 1.2 cat "$POOL/leases/job/cpu" # percent in a minute
    if has v2; then await above 0.8 counted "$1"; fi
    touch "$TREE/enough"
    await contains "$POOL/leases/job/output" over
}

@test "every start of a program has a new group, that counts from nothing" {
    lease
    has v2 || instead_of v2 "CPU is read from /proc"
    TREE=$(readlink "$POOL/leases/job/worktree")
    use_cpu agent-1
    above 1 cat "$POOL/leases/job/cpu" # by processes that have ended
    if has v2; then above 0.7 counted agent-1; fi
    echo restart >"$POOL/leases/job/ctl"
    await value_is "$POOL/leases/job/activity" ready
    if has v2; then
        inside "$(program_of "$POOL/leases/job")" agent-1
        refute above 0.7 counted agent-1
    fi
    refute above 1 cat "$POOL/leases/job/cpu"
}

@test "bounds are there and follow the setting where the controllers are, and there are none where not" {
    lease -o max_memory_mb=400
    if has memory; then
        assert_equal "$(cat "$(group_of agent-1)/memory.max")" $((500 << 20))
        echo 800 >"$POOL/config/max_memory_mb"
        await value_is "$(group_of agent-1)/memory.max" $((1000 << 20))
        echo 0 >"$POOL/config/max_memory_mb"
        await value_is "$(group_of agent-1)/memory.max" max
    else
        instead_of memory "a setting is taken and bounds nothing"
        echo 800 >"$POOL/config/max_memory_mb"
        if has v2; then assert [ ! -e "$(group_of agent-1)/memory.max" ]; fi
    fi
    if has pids; then
        assert_equal "$(cat "$(group_of agent-1)/pids.max")" 4096
    else
        instead_of pids "processes have no bound"
        if has v2; then assert [ ! -e "$(group_of agent-1)/pids.max" ]; fi
    fi
}

# bats test_tags=forkbomb
@test "a fork bomb in an agent: reads are answered, kill ends all of it" {
    lease
    has v2 || instead_of v2 "its processes are ended one by one"
    TREE=$(readlink "$POOL/leases/job/worktree")
    hostile bomb 1500 300
    await more_than 1300
    answers
    await more_than 1000 # it goes on; each lives for a moment only
    local begin=$SECONDS
    echo kill >"$POOL/leases/job/ctl"
    await test ! -e "$POOL/agents/agent-1"
    echo "# ended after $((SECONDS - begin)) s" >&3
    assert [ $((SECONDS - begin)) -le 80 ] # by itself it ends in five minutes
    none_left
    await value_is "$POOL/agents/agent-2/state" idle
}

@test "two gigabytes in an agent: reads are answered, usage tells, its release ends it by quota" {
    local mib=2048
    [ "$(awk '$1 == "MemAvailable:" {print $2}' /proc/meminfo)" -gt $((4 << 20)) ] || mib=700
    lease -o maintenance_interval=200ms
    if has memory; then # it is ended at 640 MiB
        prompt "exec python3 $BATS_TEST_DIRNAME/hostile.py eat $mib"
        answers
        await value_is "$POOL/leases/job/activity" exited
        assert contains "$POOL/leases/job/exit_status" "signal 9 (out of memory)"
        assert contains "$POOL/leases/job/why" "out of memory"
        echo job >"$POOL/release"
        await value_is "$POOL/agents/agent-1/state" idle
        return
    fi
    instead_of memory "it is recycled when its lease ends"
    prompt "exec python3 $BATS_TEST_DIRNAME/hostile.py eat $mib"
    answers
    await contains "$POOL/leases/job/output" begun
    assert [ "$(cat "$POOL/leases/job/memory")" -gt $((mib << 20)) ]
    sleep 1 # four passes
    assert_equal "$(cat "$POOL/leases/job/state")" active
    local pid
    pid=$(program_of "$POOL/leases/job")
    echo job >"$POOL/release"
    await value_is "$POOL/agents/agent-1/recycles" 1
    assert gone "$pid"
    assert contains "$POOL/agents/agent-1/transitions" " memory"
    await value_is "$POOL/agents/agent-1/state" idle
    assert [ "$(cat "$POOL/agents/agent-1/memory")" -lt $((100 << 20)) ]
}

@test "the record of an end says that the bound on memory was reached, where a group tells" {
    local shim
    shim=$(dirname "$AGENTPOOLFS")/../core/host/agentpool-shim
    CHECK_LEFT=no # there is no pool
    mkdir "$DIR/records" "$DIR/group" # of plain files
    touch "$DIR/group/cgroup.procs"
    printf 'max 3\noom_kill 1\n' >"$DIR/group/memory.events"
    run "$shim" -c "$DIR/group" -- "$DIR/records" sh -c 'kill -9 $$' </dev/null
    assert_equal "$status" 137
    assert contains "$DIR/records/exit" "signal 9 (out of memory) "
    assert_equal "$(cat "$DIR/group/cgroup.procs")" 0
    # another end is another matter
    run "$shim" -c "$DIR/group" -- "$DIR/records" sh -c 'kill -15 $$' </dev/null
    assert contains "$DIR/records/exit" "signal 15 "
    refute contains "$DIR/records/exit" memory
    # and a group that is not there is done without
    run "$shim" -c "$DIR/nowhere" -- "$DIR/records" sh -c 'kill -9 $$' </dev/null
    assert contains "$DIR/records/exit" "signal 9 "
    refute contains "$DIR/records/exit" memory
}

@test "processes that ignore SIGTERM, in other sessions and of dead parents, are gone after a release" {
    lease
    TREE=$(readlink "$POOL/leases/job/worktree")
    prompt "$deaf"
    await contains "$POOL/leases/job/output" begun
    assert [ "$(hostile_left | wc -l)" -ge 4 ]
    local before
    before=$(hostile_left)
    echo job >"$POOL/release"
    for pid in $before; do assert gone "$pid"; done
    await value_is "$POOL/agents/agent-1/state" idle
    if has v2; then await all_inside agent-1 1; fi
}

@test "what a shim that was killed leaves behind is ended before the work is saved" {
    lease
    if ! has v2; then
        instead_of v2 "nobody knows what belongs to it then"
        return
    fi
    prompt "$deaf"
    await contains "$POOL/leases/job/output" begun
    local group pids
    group=$(group_of agent-1)
    pids=$(cat "$group/cgroup.procs")
    kill -9 "$(awk '$1 == "PPid:" {print $2}' "/proc/$(program_of "$POOL/leases/job")/status")"
    await value_is "$POOL/leases/job/activity" exited
    echo job >"$POOL/release"
    for pid in $pids; do assert gone "$pid"; done
    await value_is "$POOL/agents/agent-1/state" idle
    inside "$(program_of "$POOL/agents/agent-1")" agent-1
}

@test "after kill -9 of the daemon agents are in their groups still, and end as ever" {
    mount_pool 2 2
    echo job >"$POOL/acquire"
    has v2 || instead_of v2 "agents go on without groups"
    TREE=$(readlink "$POOL/leases/job/worktree")
    local name pid where=
    name=$(basename "$(readlink "$POOL/leases/job")")
    use_cpu "$name"
    prompt "$deaf"
    await contains "$POOL/leases/job/output" begun
    pid=$(program_of "$POOL/leases/job")
    if has v2; then where=$(cat "$STATE/cgroup"); fi
    crash_pool
    if [ -n "$where" ]; then # what nobody knows any more, without processes
        mkdir "$where/agent-77"
        start_in_scope max # a daemon that is elsewhere finds them all the same
    fi
    mount_again 2 2
    assert_equal "$(program_of "$POOL/leases/job")" "$pid"
    # what it had used before does not count as used since
    refute above 1 cat "$POOL/leases/job/cpu"
    await has_tasks 5
    if [ -n "$where" ]; then
        assert_equal "$(cat "$STATE/cgroup")" "$where"
        inside "$pid" "$name"
        assert [ ! -e "$where/agent-77" ]
    fi
    echo kill >"$POOL/leases/job/ctl"
    await test ! -e "$POOL/agents/$name"
    none_left
    if [ -n "$where" ]; then assert [ ! -e "$where/$name" ]; fi
}

@test "with persist=yes groups stay with their agents, and the next daemon goes on with them" {
    mount_pool 1 1 -o persist=yes
    if ! has v2; then
        instead_of v2 "there is nothing to stay"
        unmount_pool
        mount_again 1 1
        return
    fi
    local pid where
    pid=$(program_of "$POOL/agents/agent-1")
    where=$(cat "$STATE/cgroup")
    unmount_pool
    inside "$pid" agent-1
    mount_again 1 1
    assert_equal "$(cat "$STATE/cgroup")" "$where"
    inside "$(program_of "$POOL/agents/agent-1")" agent-1
    unmount_pool
    assert [ ! -e "$where" ]
}

@test "below a group that holds other processes there are groups without controllers" {
    if [ -z "$(findmnt -n -t cgroup2)" ] || [ "$(id -u)" != 0 ]; then
        lease
        instead_of v2 "no group can be made for this test"
        return
    fi
    start_in_scope max
    lease
    assert_equal "$(cat "$POOL/stats/cgroup")" v2
    assert_equal "$(dirname "$(cat "$STATE/cgroup")")" "$SCOPE"
    inside "$(program_of "$POOL/leases/job")" agent-1
    assert_equal "$(cat "$SCOPE/cgroup.subtree_control")" ""
}

# bats test_tags=forkbomb
@test "without groups agents are counted, recycled and ended by /proc, a fork bomb too" {
    if [ -n "$(findmnt -n -t cgroup2)" ] && [ "$(id -u)" = 0 ]; then start_in_scope 0; fi
    lease
    assert_equal "$(cat "$POOL/stats/cgroup")" none
    assert [ ! -e "$STATE/cgroup" ]
    TREE=$(readlink "$POOL/leases/job/worktree")
    prompt "$deaf"
    await contains "$POOL/leases/job/output" begun
    await has_tasks 5
    assert [ "$(cat "$POOL/leases/job/memory")" -gt 500000 ]
    local before
    before=$(hostile_left)
    echo job >"$POOL/release"
    for pid in $before; do assert gone "$pid"; done
    echo job >"$POOL/acquire"
    hostile bomb 300 300
    local begin=$SECONDS
    echo kill >"$POOL/leases/job/ctl"
    await test ! -e "$POOL/agents/agent-1"
    echo "# ended after $((SECONDS - begin)) s" >&3
    assert [ $((SECONDS - begin)) -le 80 ] # by itself it ends in five minutes
    none_left
}
