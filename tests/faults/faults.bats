# Thirty-two faults and abuses, each with what comes of it. Where the machine of the tests cannot have one, or the
# design leaves no place for it, the test says why, and shows what stands in its place.

load ../mount/helper

setup() {
    common_setup
    MOUNTS=()
}

teardown() {
    local at
    kill_children ${STRACE:+"$STRACE"}
    if [ "${#MOUNTS[@]}" -gt 0 ]; then
        unmount_pool || true
        for at in "${MOUNTS[@]}"; do
            umount -l "$at"/worktrees/* 2>/dev/null || true
            umount -l "$at"
        done
    fi
    common_teardown
}

# A file system of its own at a path, of that size.
small_disk() { # PATH SIZE
    mkdir -p "$1"
    mount -t tmpfs -o "size=$2" agentpool-test "$1"
    MOUNTS+=("$1")
}

disk_is_full() { # PATH
    [ "$(stat -f -c %f "$1")" = 0 ]
}

keep_full() { # PATH: with a file `filler`, whatever room is given back meanwhile; until no_more_filling
    dd if=/dev/zero of="$1/filler" bs=4k 2>/dev/null || true
    while [ -e "$1/filler" ]; do # it ends with the disk, also when the test fails
        dd if=/dev/zero of="$1/filler" bs=4k oflag=append conv=notrunc,nocreat 2>/dev/null || true
    done 3>&- &
    FILLING=$!
    await disk_is_full "$1"
}

no_more_filling() { # [PATH]
    kill "$FILLING"
    wait "$FILLING" 2>/dev/null || true
    rm "${1:-$STATE}/filler"
}

event() { # KIND [TEXT]
    grep -F "\"event\":\"$1\"" "$POOL/events" | grep -qF -- "${2:-}"
}

refused() { # FILE TEXT ERROR: writing it fails so
    run bash -c 'printf "%s\n" "$1" > "$2"' _ "$2" "$1"
    assert_failure
    assert_output --partial "$3"
}

acquire_fails() { # WORDS ERROR
    refused "$POOL/acquire" "$1" "$2"
}

probes() { # how often agents have been looked after
    sed -n 's/^agentpool_probe_total{.*result="ok"} //p' "$POOL/metrics"
}

more_probes() { # N
    [ "$(probes)" -ge "$1" ]
}

store() { # SQL
    python3 -c 'import sqlite3, sys
db = sqlite3.connect("file:" + sys.argv[1] + "?mode=ro", uri=True, timeout=10)
for row in db.execute(sys.argv[2]): print("|".join(map(str, row)))' "$STATE/state.db" "$1"
}

tree_of() { # LABEL
    readlink "$POOL/leases/$1/worktree"
}

@test "fault 1: the daemon killed again and again under live leases: the same leases, owners and programs" {
    mount_pool 2 3
    echo a > "$POOL/acquire"
    echo b > "$POOL/acquire"
    local before i
    before=$(cd "$POOL/leases" && readlink a b && cat a/owner b/owner a/pid b/pid)
    for i in 1 2 3 4 5; do
        crash_pool
        mount_again 2 3
        await value_is "$POOL/leases/a/activity" ready
        await value_is "$POOL/leases/b/activity" ready
        assert_equal "$(cd "$POOL/leases" && readlink a b && cat a/owner b/owner a/pid b/pid)" "$before"
    done
}

@test "fault 2: killed between record and answer: exactly one lease, which is there" {
    [ -n "${CRASH_POINTS:-}" ] || skip "CRASH_POINTS=yes says that the daemon is built with them"
    AGENTPOOL_CRASH_POINT=grant-recorded mount_again 1 2
    run bash -c 'echo job > "$1"' _ "$POOL/acquire"
    assert_failure
    await gone "$DAEMON"
    wait "$DAEMON" || true
    mount_again 1 2
    assert_equal "$(ls "$POOL/leases")" job
    assert_equal "$(store "SELECT count(*) FROM lease")" 1
    acquire_fails job "File exists"
    echo job > "$POOL/release"
}

@test "fault 3: no process keeps the daemon; its client of tmux killed: agents go on, it has another" {
    mount_pool 2 2
    echo job > "$POOL/acquire"
    local pids client
    pids=$(program_of "$POOL/agents/agent-1"; program_of "$POOL/agents/agent-2")
    client=$(pgrep -P "$DAEMON" -f "$STATE/tmux.sock")
    kill -9 "$client"
    await event backend_revived
    echo 'echo here' > "$POOL/leases/job/prompt"
    assert_equal "$(cat "$POOL/leases/job/response")" here
    assert_equal "$(program_of "$POOL/agents/agent-1"; program_of "$POOL/agents/agent-2")" "$pids"
}

@test "fault 4: over a dead mount point the next mount takes up agents and leases" {
    mount_pool 1 2
    echo job > "$POOL/acquire"
    cd "$POOL/leases" # somebody stands in it
    crash_pool
    run ls "$POOL/agents"
    assert_output --partial "not connected"
    mount_again 1 2
    cd /
    assert_equal "$(ls "$POOL/leases")" job
}

@test "fault 5: a daemon that stands still: its clients wait, killed ones too; then all goes on where it was" {
    mount_pool 1 2
    kill -STOP "$DAEMON"
    cat "$POOL/stats/waiting" > "$DIR/read" 2>&1 3>&- &
    local waiting=$!
    cat "$POOL/stats/waiting" > /dev/null 2>&1 3>&- &
    local killed=$!
    kill -9 "$killed" # it may hang in the kernel, which waits for a lookup that is not answered
    # no watchdog ends the daemon: there is nobody who could keep its mount
    kill -CONT "$DAEMON"
    await gone "$killed"
    wait "$waiting"
    assert_equal "$(cat "$DIR/read")" 0
}

@test "fault 6: a request that was under way when the daemon died is not tried again by the next" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    bash -c 'echo other timeout=1h > "$1"' _ "$POOL/acquire" 2> "$DIR/refused" 3>&- &
    local waiter=$!
    await value_is "$POOL/stats/waiting" 1
    crash_pool
    await gone "$waiter"
    assert contains "$DIR/refused" "abort"
    mount_again 1 1
    assert_equal "$(cat "$POOL/stats/waiting")" 0
    assert_equal "$(ls "$POOL/leases")" job
}

@test "fault 7: the tmux server killed: leases stay with exited programs, waiters stay, agents come again" {
    mount_pool 1 2
    echo job > "$POOL/acquire"
    echo 2 > "$POOL/scale"
    await value_is "$POOL/stats/idle_agents" 1
    echo mine > "$(tree_of job)/mine"
    kill -9 "$(tmux -S "$STATE/tmux.sock" display-message -p '#{pid}')"
    bash -c 'echo second timeout=5m > "$1"' _ "$POOL/acquire"
    await value_is "$POOL/leases/job/activity" exited
    await event backend_revived
    echo restart > "$POOL/leases/job/ctl"
    await value_is "$POOL/leases/job/activity" ready
    echo 'cat mine' > "$POOL/leases/job/prompt"
    assert_equal "$(cat "$POOL/leases/job/response")" mine
    echo second > "$POOL/release"
}

@test "fault 8: one program killed: its lease alone sees it, others go on" {
    mount_pool 2 2
    echo a > "$POOL/acquire"
    echo b > "$POOL/acquire"
    kill -9 "$(program_of "$POOL/leases/a")"
    await value_is "$POOL/leases/a/activity" exited
    echo 'echo fine' > "$POOL/leases/b/prompt"
    assert_equal "$(cat "$POOL/leases/b/response")" fine
    echo a > "$POOL/release"
    bash -c 'echo c timeout=1m > "$1"' _ "$POOL/acquire"
    await value_is "$POOL/leases/c/activity" ready
}

@test "fault 9: no room for worktrees: no half of one, said why, reads go on, and it comes again by itself" {
    mkdir -p "$STATE"
    small_disk "$STATE/worktrees" 64k
    head -c 200000 /dev/urandom > "$REPO/large"
    git -C "$REPO" add large
    git -C "$REPO" commit -qm large
    BEFORE=$(fingerprint)
    mount_again 1 2 -o spawn_backend=copy
    acquire_fails "job timeout=5m" ""
    [ "$status" != 0 ]
    contains "$POOL/last_error" "o space"
    assert_equal "$(ls "$STATE/worktrees")" ""
    cat "$POOL/status" > /dev/null
    mount -o remount,size=10M "$STATE/worktrees"
    await value_is "$POOL/stats/idle_agents" 1
    bash -c 'echo job > "$1"' _ "$POOL/acquire"
    echo job > "$POOL/release"
    unmount_pool
    umount "$STATE/worktrees"
    MOUNTS=()
    rmdir "$STATE/worktrees"
}

leases_recorded() { # COUNT
    [ "$(python3 -c 'import sqlite3, sys; print(sqlite3.connect(sys.argv[1], timeout=10).execute("SELECT count(*) FROM lease").fetchone()[0])' "$STATE/state.db")" = "$1" ]
}

nothing_changes() {
    await value_is "$POOL/stats/spawning_agents" 0
    await value_is "$POOL/stats/recycling_agents" 0
}

@test "fault 10: no room for the state: acquire is ENOSPC and leases nothing; with room it serves again" {
    small_disk "$STATE" 8M
    mount_pool 1 2
    keep_full "$STATE"
    local tries=0 # a grant that had room given back this moment is one
    while bash -c 'echo job > "$1"' _ "$POOL/acquire" 2>"$BATS_TEST_TMPDIR/refused"; do
        [ $((++tries)) -lt 50 ]
        no_more_filling
        echo job > "$POOL/release"
        nothing_changes
        keep_full "$STATE"
    done
    # with no agent left that could be made well again, the pool says so, and why
    grep -qE "No space left|Host is down" "$BATS_TEST_TMPDIR/refused" || { cat "$BATS_TEST_TMPDIR/refused"; return 1; }
    grep -qE "$STATE/.*: (No space left on device|database or disk is full)" "$POOL/last_error" || { cat "$POOL/last_error"; return 1; }
    assert_equal "$(ls "$POOL/leases")" ""
    run grep -sl leased "$POOL"/agents/*/state
    assert_output ""
    nothing_changes # what failed has given its room back
    await disk_is_full "$STATE"
    run bash -c 'echo 7m > "$1"' _ "$POOL/config/idle_timeout"
    assert_failure
    assert_equal "$(cat "$POOL/config/idle_timeout")" 5m # as the store has it
    no_more_filling
    await bash -c 'echo job > "$1"' _ "$POOL/acquire" # the breaker may be open for what failed meanwhile
    echo 7m > "$POOL/config/idle_timeout"
    # a release whose work is safe is over, and written down as soon as it can be
    echo work > "$(tree_of job)/work"
    nothing_changes
    keep_full "$STATE"
    refused "$POOL/release" job "No space left"
    contains "$POOL/last_error" "the work is saved"
    assert_equal "$(git -C "$REPO" show agentpool/job:work)" work
    no_more_filling
    await leases_recorded 0
    await bash -c 'echo again > "$1"' _ "$POOL/acquire"
    echo again > "$POOL/release"
}

@test "a lease that could not begin leaves nothing to the agent's next" {
    mkdir -p "$STATE"
    small_disk "$STATE/git" 4M
    mount_pool 1 1
    keep_full "$STATE/git"
    acquire_fails "half timeout=5s" ""
    [ "$status" != 0 ]
    contains "$POOL/last_error" "o space"
    await leases_recorded 0
    no_more_filling "$STATE/git"
    await bash -c 'echo whole > "$1"' _ "$POOL/acquire" # the breaker may be open for what failed meanwhile
    leases_recorded 1
    echo whole > "$POOL/release"
    await leases_recorded 0
    run git -C "$REPO" branch --list 'agentpool/*'
    assert_output ""
    unmount_pool
    umount "$STATE/git"
    MOUNTS=()
}

@test "fault 11: the repository moved away: what runs goes on, acquire says why, and it heals when it is back" {
    mount_pool 1 2
    echo job > "$POOL/acquire"
    mv "$REPO" "$REPO.away"
    echo 'echo alive' > "$POOL/leases/job/prompt"
    assert_equal "$(cat "$POOL/leases/job/response")" alive
    acquire_fails "second timeout=5s" ""
    grep -q . "$POOL/last_error"
    mv "$REPO.away" "$REPO"
    echo reset-breaker > "$POOL/ctl"
    bash -c 'echo second timeout=1m > "$1"' _ "$POOL/acquire"
    echo second > "$POOL/release"
    echo job > "$POOL/release"
}

@test "fault 12: a lock of git that stays in the agent's: a commit says its path, it is never removed, and no saving waits" {
    mount_pool 1 2
    echo job > "$POOL/acquire"
    echo work > "$(tree_of job)/work"
    local lock
    lock=$(git -C "$(tree_of job)" rev-parse --absolute-git-dir)/index.lock
    touch "$lock"
    refused "$POOL/leases/job/ctl" "commit x" "Input/output error"
    contains "$POOL/last_error" "index.lock"
    assert [ -e "$lock" ]
    echo job > "$POOL/release"
    assert_equal "$(git -C "$REPO" show agentpool/job:work)" work
}

@test "fault 13: without git it does not start; when git goes later no base is followed, and the rest serves" {
    REPO_CHANGED=yes
    mkdir "$DIR/bin"
    local tool
    for tool in /usr/bin/* /bin/*; do ln -sf "$tool" "$DIR/bin/"; done
    rm "$DIR/bin/git"
    mkdir "$POOL"
    run env PATH="$DIR/bin" "$AGENTPOOLFS" -o "state_dir=$STATE" "$REPO" "$POOL"
    assert_equal "$status" 1
    assert_output --partial git
    ln -s "$(type -P git)" "$DIR/bin/git"
    PATH=$DIR/bin mount_pool 1 2
    mv "$DIR/bin/git" "$DIR/bin/git.away"
    echo before > "$POOL/acquire" # nothing of it takes a process of git
    echo work > "$(tree_of before)/work"
    echo before > "$POOL/release"
    assert_equal "$(git -C "$REPO" show agentpool/before:work)" work
    git -C "$REPO" commit -q --allow-empty -m second
    acquire_fails "job timeout=5s" ""
    contains "$POOL/last_error" git
    cat "$POOL/status" > /dev/null
    mv "$DIR/bin/git.away" "$DIR/bin/git"
    echo reset-breaker > "$POOL/ctl"
    bash -c 'echo job timeout=1m > "$1"' _ "$POOL/acquire"
    echo job > "$POOL/release"
}

@test "fault 14: a hook of git's that hangs is ended in time, with what it started, and holds nobody up" {
    mkdir -p "$REPO/.git/hooks"
    printf '#!/bin/sh\necho $$ >> "%s/hooks"; exec sleep 1000\n' "$DIR" > "$REPO/.git/hooks/post-checkout"
    chmod +x "$REPO/.git/hooks/post-checkout"
    mount_again 1 2 -o spawn_timeout=6s
    await test -e "$DIR/hooks"
    python3 -c 'import sys
for _ in range(100): open(sys.argv[1]).read()' "$POOL/stats/waiting"
    refute gone "$(head -n 1 "$DIR/hooks")" # it still hung when they had been answered
    await value_is "$POOL/stats/idle_agents" 1
    await contains "$POOL/events" hook_failed
    local pid
    while read -r pid; do await gone "$pid"; done < "$DIR/hooks"
}

@test "a start that fails for want of a thread or a process ends, and leaves nothing that runs" {
    LOG_EXPECTED=yes
    local n real=$AGENTPOOLFS
    for n in 4 6 8 10 12 14; do # of the calls that make one
        printf '#!/bin/sh\nexec strace -f -qq -o /dev/null -e trace=clone3 -e inject=clone3:error=EAGAIN:when=%s "%s" "$@"\n' \
            $n "$real" > "$DIR/injected"
        chmod +x "$DIR/injected"
        AGENTPOOLFS=$DIR/injected start_pool 1 1
        await eval '[ -e "$POOL/acquire" ] || gone "$DAEMON"'
        if [ -e "$POOL/acquire" ]; then
            fusermount3 -u "$POOL"
        fi
        await gone "$DAEMON" # strace ends behind all that it follows, a server of terminals too
        await nothing_left
    done
}

# bats test_tags=forkbomb
@test "fault 15: a program that forks without end: the daemon answers, and ending it leaves none of it" {
    # bounded by itself, in number and time: no controller of processes is to be had everywhere
    mount_pool 1 2
    echo job > "$POOL/acquire"
    cat > "$DIR/bomb.py" <<'PY'
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
end = time.monotonic() + 600
for i in range(300):
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        while time.monotonic() < end:
            if os.fork() == 0:
                os._exit(0)
            os.wait()
        os._exit(0)
time.sleep(600)
PY
    echo "python3 $DIR/bomb.py" > "$POOL/leases/job/prompt"
    run python3 - "$POOL" <<'PY'
import sys, time

def tasks():
    return int(open(sys.argv[1] + "/leases/job/tasks").read())

def await_bomb(): # one look in such a storm may miss some
    start = time.monotonic()
    while tasks() <= 200:
        assert time.monotonic() - start < 300
        time.sleep(0.1)

await_bomb()
start = time.monotonic()
tasks()
print("tasks in %.1f s" % (time.monotonic() - start))
spans = []
for i in range(200):
    start = time.monotonic()
    open(sys.argv[1] + "/stats/waiting").read()
    spans.append(time.monotonic() - start)
spans.sort()
print("p50 %.2f ms, p99 %.2f ms" % (spans[100] * 1e3, spans[197] * 1e3))
await_bomb()  # it has gone on all the while
PY
    echo "# $output" >&3
    assert_success
    echo job > "$POOL/release"
    await bash -c '! pgrep -f "$1/bomb.py"' _ "$DIR"
}

@test "fault 16: a program that takes much memory: it is seen, and ends with its lease; the daemon is as ever" {
    # without a controller of memory the quota is kept at the end of the lease; with one, at once: tests/mount/cgroup.bats
    mount_pool 1 2 -o max_memory_mb=100,maintenance_interval=200ms
    echo job > "$POOL/acquire"
    echo 'python3 -c "x = bytearray(300 << 20); input()"' > "$POOL/leases/job/prompt"
    await bash -c '[ "$(cat "$1")" -gt 300000000 ]' _ "$POOL/leases/job/memory"
    local recycles
    recycles=$(cat "$POOL/stats/total_recycles")
    local probes
    probes=$(probes)
    await more_probes $((probes + 8)) # of two agents: three samples of this one in a row are over it
    echo job > "$POOL/release"
    await bash -c '[ "$(cat "$1")" -gt "$2" ]' _ "$POOL/stats/total_recycles" "$recycles"
}

@test "fault 17: a program that prints without end: the last part is kept, disk and memory are bounded" {
    mount_pool 1 2 -o output_limit=1M
    echo job > "$POOL/acquire"
    echo 'head -c 50000000 /dev/zero | tr "\0" "x" | fold -w 99; echo; echo the end' > "$POOL/leases/job/prompt"
    cat "$POOL/leases/job/wait"
    tail -c 2000 "$POOL/leases/job/output" | grep -qx "the end"
    assert [ "$(du -sk "$STATE/agents" | cut -f1)" -lt 6000 ]
    case $AGENTPOOLFS in
    *sanitize* | *thread*) ;; # their memory is their own
    *) assert [ "$(awk '/^VmRSS/ { print $2 }' "/proc/$DAEMON/status")" -lt 40000 ] ;;
    esac
}

@test "fault 18: a client killed while it waits is gone at once, and nothing is granted to its ghost" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    bash -c 'echo ghost timeout=1h > "$1"' _ "$POOL/acquire" 3>&- &
    local waiter=$!
    await value_is "$POOL/stats/waiting" 1
    kill -9 "$waiter"
    await value_is "$POOL/stats/waiting" 0
    echo job > "$POOL/release"
    await value_is "$POOL/stats/idle_agents" 1
    assert_equal "$(ls "$POOL/leases")" ""
}

@test "fault 19: clients that die as they are granted leave no lease by handle behind" {
    mount_pool 2 2
    python3 - "$POOL" <<'PY'
import os, random, signal, sys, time
pick = random.Random(1)
for i in range(40):
    pid = os.fork()
    if pid == 0:
        fd = os.open(sys.argv[1] + "/acquire", os.O_RDWR)
        os.write(fd, b"timeout=1m\n")
        os.read(fd, 100)
        time.sleep(60)
        os._exit(0)
    time.sleep(pick.random() * 0.06)
    os.kill(pid, signal.SIGKILL)
    os.wait()
PY
    await value_is "$POOL/stats/idle_agents" 2
    assert_equal "$(ls "$POOL/leases")" ""
    assert_equal "$(cat "$POOL/stats/waiting")" 0
}

@test "fault 20: many who wait are served in their order, each once (ten thousand: tests/stress/waiters.bats)" {
    mount_pool 1 1
    echo first > "$POOL/acquire"
    python3 - "$POOL" <<'PY'
import os, select, sys
fds = []
for i in range(30):
    fd = os.open(sys.argv[1] + "/acquire", os.O_RDWR)
    os.write(fd, b"w%d timeout=5m\n" % i)
    fds.append(fd)
with open(sys.argv[1] + "/release", "w") as release:
    release.write("first\n")
for i, fd in enumerate(fds):
    agent, label = os.read(fd, 100).split()
    assert label == b"w%d" % i, (i, label)
    os.close(fd)
PY
}

@test "fault 21: the acquirer over the bound is refused at once" {
    mount_pool 1 1
    echo first > "$POOL/acquire"
    ulimit -n 20000
    python3 - "$POOL" <<'PY'
import errno, os, sys
fds = []
for i in range(10000):
    fd = os.open(sys.argv[1] + "/acquire", os.O_RDWR)
    os.write(fd, b"timeout=5m\n")
    fds.append(fd)
fd = os.open(sys.argv[1] + "/acquire", os.O_RDWR)
try:
    os.write(fd, b"timeout=5m\n")
    sys.exit("it was taken")
except OSError as error:
    assert error.errno == errno.EAGAIN, error
PY
    await value_is "$POOL/stats/waiting" 0
}

@test "fault 22: what is no label is EINVAL, and nothing comes of it" {
    mount_pool 1 2
    run python3 - "$POOL" <<'PY'
import errno, os, sys
bad = [b"a/b", b"../x", b"..", b"a..b", b"-x", b".x", b"x.", b"x.lock", b"x" * 65, b"x" * 4000, b"\xff\xfe", b"\x1b[31m",
       b"a\0b", b"caf\xc3\xa9", b"a:b", b"~a", b"a^", b"*", b"a\\b", b"@{", b"a\tb c d"]
for label in bad:
    fd = os.open(sys.argv[1] + "/acquire", os.O_WRONLY)
    try:
        os.write(fd, label + b" timeout=0\n")
        print("taken:", label)
    except OSError as error:
        if error.errno != errno.EINVAL:
            print(label, error)
    os.close(fd)
PY
    assert_output ""
    assert_equal "$(ls "$POOL/leases")" ""
    assert_equal "$(git -C "$REPO" branch --list 'agentpool/*')" ""
}

@test "fault 23: garbage for a setting is refused, and the old value stays" {
    mount_pool 1 2
    run python3 - "$POOL" <<'PY'
import errno, os, sys
path = sys.argv[1] + "/config/idle_timeout"
def attempt(pieces, flags=os.O_WRONLY | os.O_TRUNC):
    fd = os.open(path, flags)
    try:
        for piece in pieces:
            os.write(fd, piece)
        os.close(fd)
        print("taken:", pieces[0][:40])
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ERANGE):
            print(pieces[0][:40], error)
        try:
            os.close(fd)
        except OSError:
            pass
for text in [b"-1\n", b"1e99\n", b"\n", b"0x10\n", b"1m\n2m\n", b"9" * 400 + b"\n", b"1m" * 500000, b"1 m\n", b"m\n", b"\xff\n", b"1\0\n"]:
    attempt([text])
attempt([b"1", b"m\n"])
attempt([b"1m\n"], os.O_WRONLY | os.O_APPEND)
PY
    assert_output ""
    assert_equal "$(cat "$POOL/config/idle_timeout")" 5m
}

@test "fault 24: a wall clock that jumps a day ends no lease" {
    cat > "$DIR/jump.c" <<'C'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *ts)
{
	static int (*real)(clockid_t, struct timespec *);
	if (!real)
		real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
	int r = real(id, ts);
	FILE *file = id == CLOCK_REALTIME ? fopen(getenv("JUMP"), "r") : NULL;
	long by = 0;
	if (file && fscanf(file, "%ld", &by) == 1)
		ts->tv_sec += by;
	if (file)
		fclose(file);
	return r;
}
C
    gcc -shared -fPIC -o "$DIR/jump.so" "$DIR/jump.c" -ldl
    echo 0 > "$DIR/jump"
    export JUMP=$DIR/jump LD_PRELOAD=$DIR/jump.so ASAN_OPTIONS=verify_asan_link_order=0
    mount_pool 1 2
    unset LD_PRELOAD
    echo "job ttl=1h" > "$POOL/acquire"
    local jump
    for jump in 86400 -86400; do
        echo $jump > "$DIR/jump"
        grep -q "$(date -u -d "@$(($(date +%s) + jump + 3600))" +%F)" "$POOL/leases/job/owner" # it is seen there
        echo maintain > "$POOL/ctl"
        assert_equal "$(cat "$POOL/leases/job/state")" active
    done
    assert_equal "$(cat "$POOL/stats/total_recycles")" 0
}

@test "fault 25: SIGTERM during a spawn leaves no worktree, session or branch" {
    mount_again 1 2 -o setup='sleep 3'
    await value_is "$POOL/stats/spawning_agents" 1
    kill "$DAEMON"
    await gone "$DAEMON"
    wait "$DAEMON"
    DAEMON=
    nothing_left
    [ ! -e "$STATE/worktrees" ]
    assert_equal "$(git -C "$REPO" worktree list | wc -l)" 1
}

@test "fault 26: unmounting while it is used is EBUSY and changes nothing; lazily it ends when they let go" {
    mount_pool 1 2
    echo job > "$POOL/acquire"
    bash -c 'echo other agent=agent-1 timeout=5m > "$1"' _ "$POOL/acquire" 2> "$DIR/refused" 3>&- &
    local waiter=$!
    await value_is "$POOL/stats/waiting" 1
    run fusermount3 -u "$POOL"
    assert_failure
    assert_output --partial "busy"
    assert_equal "$(ls "$POOL/leases")" job
    kill "$DAEMON"
    await gone "$waiter"
    assert contains "$DIR/refused" "shutdown"
    await gone "$DAEMON"
    DAEMON=
    await bash -c '! mountpoint -q "$1"' _ "$POOL"
}

@test "fault 27: a second daemon on one state directory is refused and names the first, which is as ever" {
    mount_pool 1 2
    mkdir "$DIR/second"
    run "$AGENTPOOLFS" -o "state_dir=$STATE" "$REPO" "$DIR/second"
    assert_equal "$status" 1
    assert_output --partial "$DAEMON"
    bash -c 'echo job > "$1"' _ "$POOL/acquire"
    echo job > "$POOL/release"
}

@test "fault 28: a state directory that cannot be written: it does not start; later nothing is granted" {
    small_disk "$DIR/ro" 1M
    mkdir "$DIR/ro/state"
    mount -o remount,ro "$DIR/ro"
    run "$AGENTPOOLFS" -o "state_dir=$DIR/ro/state" "$REPO" "$POOL"
    [ "$status" = 1 ] || mkdir "$POOL"
    mkdir -p "$POOL"
    run "$AGENTPOOLFS" -o "state_dir=$DIR/ro/state" "$REPO" "$POOL"
    assert_equal "$status" 1
    assert_output --partial "$DIR/ro/state"
    assert_output --partial "Read-only"
    mount_pool 1 2
    strace -f -qq -o /dev/null -e trace=pwrite64 -e inject=pwrite64:error=EROFS -p "$DAEMON" 2>/dev/null 3>&- &
    STRACE=$!
    await grep -q "TracerPid:.*$STRACE" "/proc/$DAEMON/status"
    acquire_fails job "Read-only file system"
    assert_equal "$(ls "$POOL/leases")" ""
    kill -9 "$STRACE" # asked to end, it can wait for ever for a thread that is in vfork
    await gone "$STRACE"
    STRACE=
    await grep -q "TracerPid:.0" "/proc/$DAEMON/status"
    bash -c 'echo job > "$1"' _ "$POOL/acquire"
    echo job > "$POOL/release"
}

# Leases whose store is lost: their work is on their branches, and it is said.
lost_store() { # HOW
    mount_pool 1 2
    echo job > "$POOL/acquire"
    echo work > "$(tree_of job)/work"
    crash_pool
    eval "$1"
    mount_again 1 2
    event lease_lost '"lease":"job"'
    assert_equal "$(ls "$POOL/leases")" ""
    assert_equal "$(git -C "$REPO" show agentpool/job:work)" work
    git -C "$REPO" branch -qD agentpool/job
    bash -c 'echo next timeout=1m > "$1"' _ "$POOL/acquire"
    echo next > "$POOL/release"
    unmount_pool
    rm -f "$STATE"/state.db* "$STATE/events"
}

flip() { # FILE: bytes in its middle
    printf '\377\377\377\377\377\377\377\377' | dd of="$1" bs=1 seek=4096 conv=notrunc 2>/dev/null
}

@test "fault 29: a store that is damaged or lost is set aside, never silently, and the work is on the branches" {
    lost_store 'python3 -c "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute(\"PRAGMA wal_checkpoint(TRUNCATE)\")" "$STATE/state.db"; head -c 6000 /dev/urandom > "$STATE/state.db"; ls "$STATE"'
    lost_store 'python3 -c "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute(\"PRAGMA wal_checkpoint(TRUNCATE)\")" "$STATE/state.db"; flip "$STATE/state.db"; mkdir -p "$DIR/kept"'
    lost_store 'rm "$STATE"/state.db*'
    lost_store 'rm "$STATE"/state.db-*; : > "$STATE/state.db"'
    lost_store 'rm -f "$STATE"/state.db-*' # as it was when it was first made
    # and it is really set aside
    mkdir -p "$STATE"
    head -c 6000 /dev/urandom > "$STATE/state.db"
    cp "$STATE/state.db" "$DIR/damaged"
    mount_pool 1 2
    event store_lost
    cmp "$STATE"/state.db.corrupt-* "$DIR/damaged"
}

@test "fault 30: a store of a newer version is refused, and stays as it is to the byte" {
    mount_pool 1 2
    unmount_pool
    python3 -c 'import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("PRAGMA user_version = 99")
db.commit()' "$STATE/state.db"
    local before
    before=$(md5sum < "$STATE/state.db")
    run "$AGENTPOOLFS" -o "state_dir=$STATE" "$REPO" "$POOL"
    assert_equal "$status" 1
    assert_output --partial "newer version"
    assert_equal "$(md5sum < "$STATE/state.db")" "$before"
}

@test "fault 31: another user releases my lease: EPERM, and with my descriptor EPERM too (more: permissions.bats)" {
    chmod 711 "$DIR"
    mount_pool 1 2 -o allow_other,umask=0
    echo job > "$POOL/acquire"
    run setpriv --reuid=65534 --regid=65534 --clear-groups bash -c 'echo job > "$1"' _ "$POOL/release"
    assert_failure
    assert_output --partial "not permitted"
    run bash -c 'exec 7> "$1"; setpriv --reuid=65534 --regid=65534 --clear-groups bash -c "echo job >&7"' _ "$POOL/release"
    assert_failure
    assert_equal "$(ls "$POOL/leases")" job
    echo job > "$POOL/release"
}

@test "fault 32: a worktree replaced by a link to elsewhere: nothing there is touched" {
    mkdir "$DIR/precious"
    echo keep > "$DIR/precious/file"
    mount_pool 1 2 -o spawn_backend=copy
    echo job > "$POOL/acquire"
    local tree
    tree=$(tree_of job)
    mv "$tree" "$tree.away"
    ln -s "$DIR/precious" "$tree"
    bash -c 'echo job > "$1"' _ "$POOL/release" 2>/dev/null || true
    echo 'job discard' > "$POOL/release" 2>/dev/null || true
    await value_is "$POOL/stats/idle_agents" 1
    assert_equal "$(cat "$DIR/precious/file")" keep
    assert_equal "$(ls -A "$DIR/precious")" file
    rm -rf "$tree.away"
    unmount_pool
    assert_equal "$(ls -A "$DIR/precious")" file
    LOG_EXPECTED=yes
}
