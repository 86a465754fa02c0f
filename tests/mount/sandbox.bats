# sandbox=yes: what a program reaches behind it, and that all else is as without. What an agent that wants out can try
# is in tests/wall.

load helper

setup() {
    common_setup
    JOB=$POOL/leases/job
    mkdir -p "$HOME/.ssh" "$HOME/data"
    echo secret >"$HOME/.ssh/id"
    echo secret >"$HOME/.netrc"
    echo known >"$HOME/data/known"
}

teardown() {
    local result=0
    unmount_pool || result=1
    common_teardown && [ $result = 0 ]
}

# A pool of one agent in a sandbox, leased.
lease() { # [OPTION...] [-- PROGRAM...]
    mount_pool 1 1 -o sandbox=yes "$@"
    echo job >"$POOL/acquire"
    assert_equal "$(timeout 60 cat "$JOB/wait")" ready
}

# What a shell prints for a command.
says() { # COMMAND
    echo "$1" >"$JOB/prompt"
    timeout 60 cat "$JOB/response"
}

refuses() { # COMMAND: which would print yes
    assert_equal "$(says "($1) >/dev/null 2>&1 && echo y''es || echo n''o")" no
}

allows() { # COMMAND
    assert_equal "$(says "($1) >/dev/null 2>&1 && echo y''es || echo n''o")" yes
}

@test "stats/sandbox says what is in force" {
    mount_pool 1 1
    assert_equal "$(cat "$POOL/stats/sandbox")" no
    unmount_pool
    mount_pool 1 1 -o sandbox
    assert_equal "$(cat "$POOL/stats/sandbox")" yes
    unmount_pool
    mount_pool 1 1 -o sandbox,sandbox_net=no
    assert_equal "$(cat "$POOL/stats/sandbox")" "yes, no network"
}

@test "a program writes to its worktree, and to nothing of the machine" {
    lease
    allows 'echo mine >new && rm file-0'
    refuses "touch $HOME/new"
    refuses "touch $REPO/new"
    refuses "touch $REPO/.git/config"
    refuses 'touch /usr/new'
    refuses 'touch /sys/kernel/new'
    local file
    for file in sys/kernel/core_pattern sys/kernel/modprobe sys/vm/drop_caches sysrq-trigger; do
        refuses ": >>/proc/$file" # root owns them, and needs no capability for some
    done
    assert_equal "$(says 'find /proc/sys /sys /etc /usr/bin ~ -writable -not -type l -exec test ! -c {} \; -print 2>&-; echo end')" end
    allows 'touch /tmp/new /dev/shm/new /var/tmp/new'
    assert [ ! -e /tmp/new ]
    run cat "$JOB/changes"
    assert_output --partial '?? new'
    assert_output --partial 'D file-0'
    echo job >"$POOL/release"
    assert_equal "$(git -C "$REPO" show agentpool/job:new)" mine
}

@test "git works in the worktree, and its commits reach the branch" {
    lease
    allows 'echo mine >new && git add new && git commit -qm own'
    assert_equal "$(says 'git log --format=%s -1 | cat')" own
    echo job >"$POOL/release"
    assert_equal "$(git -C "$REPO" log --format=%s -1 agentpool/job)" own
}

@test "keys, the state directory and other pools are hidden" {
    mkdir "$HOME/.ssh/deep"
    ln -s "$HOME/.ssh" "$HOME/.aws"
    lease -o "sandbox_hide=~/.ssh ~/.ssh/deep ~/.netrc ~/.aws ~/nothing"
    assert_equal "$(says 'ls -A ~/.ssh; cat ~/.netrc; echo end')" end
    assert_equal "$(says 'ls ~/.aws/; echo end')" end
    refuses 'touch ~/.ssh/new'
    allows 'grep known ~/data/known'
    assert_equal "$(says "ls $STATE | sort | xargs")" "agents git worktrees"
    assert_equal "$(says "ls $STATE/agents $STATE/git $STATE/worktrees | grep -c agent-1")" 3
    refuses "tmux -S $STATE/tmux.sock list-sessions"
    refuses "touch $STATE/agents/agent-1/exit"
    allows "touch $STATE/agents/agent-1/left/mine"
    assert_equal "$(says 'ls -A ~/.local/state/agentpoolfs; echo end')" end
}

@test "sandbox_hide and sandbox_env hold from the next start on" {
    export OTHER_TOKEN=secret PLAIN=known
    lease
    assert_equal "$(says 'echo "$OTHER_TOKEN:$PLAIN"')" :known
    allows 'grep known ~/data/known'
    echo "~/data" >"$POOL/config/sandbox_hide"
    echo '!PLAIN !OTHER_* OTHER_TOKEN' >"$POOL/config/sandbox_env"
    allows 'grep known ~/data/known'
    echo restart >"$JOB/ctl"
    await value_is "$JOB/activity" ready
    refuses 'grep known ~/data/known'
    allows 'grep secret ~/.netrc'
    assert_equal "$(says 'echo "$OTHER_TOKEN:$PLAIN"')" secret:
}

@test "of the mount there is the agent's own directory alone, which works" {
    lease
    assert_equal "$(says "ls $POOL; ls $POOL/agents")" "agents
agent-1"
    refuses "echo other >$POOL/acquire"
    refuses "ls $POOL/config"
    assert_equal "$(says 'cat $AGENTPOOL_DIR/lease')" job
    allows 'printf "input_tokens 7\n" >$AGENTPOOL_DIR/usage'
    run cat "$JOB/usage"
    assert_output --partial "input_tokens 7"
    assert_equal "$(ls "$POOL/leases")" job
}

@test "another pool's mount is hidden, also one that is made later" {
    make_repo "$DIR/other"
    mkdir "$HOME/before" "$HOME/later"
    other() { "$AGENTPOOLFS" -o "state_dir=$DIR/state-$1,min_pool_size=1,max_pool_size=1" "$DIR/other" "$HOME/$1"; }
    other before
    other later
    fusermount3 -u "$HOME/later"
    await test ! -e "$DIR/state-later/tmux.sock"
    lease
    allows 'ls ~/before ~/later'
    refuses 'ls ~/before/status'
    other later
    refuses 'ls ~/later/status'
    fusermount3 -u "$HOME/before"
    fusermount3 -u "$HOME/later"
    await test ! -e "$DIR/state-before/tmux.sock"
    await test ! -e "$DIR/state-later/tmux.sock"
}

@test "processes, descriptors and capabilities are the program's own" {
    lease
    assert_equal "$(says 'ls /proc | grep -c "^[0-9]"')" 4 # process 1, the shell, ls and grep
    assert_equal "$(says 'ls /proc/$$/fd | xargs')" "0 1 2 255"
    refuses 'ls -l /proc/1/fd/0 /proc/1/root /proc/1/cwd'
    refuses "kill -0 $DAEMON"
    assert_equal "$(says "grep -h -e CapEff -e CapBnd -e NoNewPrivs /proc/self/status | sort | awk '{ print \$2 }' | xargs")" \
        "0000000000000000 0000000000000000 1"
    assert_equal "$(cat "$JOB/tasks")" 1
}

@test "descriptors of whoever starts a program in a pipe do not reach it" {
    printf 'mode = stream\ninput = {"prompt": "${PROMPT}"}\nready = event {"done": true}\n' >"$DIR/program.conf"
    mount_pool 1 1 -o "sandbox=yes,program_profile=$DIR/program.conf" -- \
        python3 -uc 'import json, os
for line in iter(input, None):
    print(json.dumps({"fds": [n for n in range(256) if os.path.exists(f"/proc/self/fd/{n}")], "done": True}))'
    echo job >"$POOL/acquire"
    echo go >"$JOB/prompt"
    await contains "$JOB/output" '"fds": [0, 1, 2],'
}

@test "a shell is ready, busy, waiting and exited as without" {
    lease
    echo 'sleep 1000' >"$JOB/prompt"
    await grep -q "process group [0-9]* has the terminal" "$JOB/why"
    assert_equal "$(cat "$JOB/activity")" busy
    echo cancel >"$JOB/ctl"
    assert_equal "$(timeout 60 cat "$JOB/wait")" ready
    assert_equal "$(cat "$JOB/why")" "foreground: the shell waits for input"
    echo 'read -p "go on? " answer' >"$JOB/prompt"
    assert_equal "$(timeout 60 cat "$JOB/wait")" waiting
    echo 'yes Enter' >"$JOB/keys"
    await value_is "$JOB/activity" ready
    says 'sleep 1000 &'
    assert_equal "$(says 'jobs -r | wc -l')" 1
    assert_equal "$(says 'kill %1; wait; echo; jobs | wc -l' | tail -n 1)" 0
    echo 'exit 137' >"$JOB/prompt"
    await value_is "$JOB/activity" exited
    assert grep -q '^code 137 ' "$JOB/exit_status"
    echo restart >"$JOB/ctl"
    await value_is "$JOB/activity" ready
    echo 'kill -SEGV $$' >"$JOB/prompt"
    await value_is "$JOB/activity" exited
    assert grep -q '^signal 11 ' "$JOB/exit_status"
}

@test "pid is that of the program outside, and pause, restart and kill work" {
    lease
    local pid
    pid=$(program_of "$JOB")
    assert_equal "$(cat "/proc/$pid/comm")" bash
    echo pause >"$JOB/ctl"
    await grep -q '^State:.T' "/proc/$pid/status"
    echo resume >"$JOB/ctl"
    assert_equal "$(says 'echo mine >new; echo done')" done
    echo restart >"$JOB/ctl"
    await gone "$pid"
    await value_is "$JOB/activity" ready
    pid=$(program_of "$JOB")
    echo kill >"$JOB/ctl"
    await gone "$pid"
    await git -C "$REPO" show agentpool/job:new
    assert_equal "$(git -C "$REPO" show agentpool/job:new)" mine
}

@test "a program that is asked to end gets its grace, and what it started too" {
    lease
    echo 'sh -c "trap \"echo bye >parting; exit\" HUP TERM; sleep 1000 & wait"' >"$JOB/prompt"
    await value_is "$JOB/activity" busy
    await value_is "$JOB/tasks" 3
    echo job >"$POOL/release"
    assert_equal "$(git -C "$REPO" show agentpool/job:parting)" bye
}

@test "setup and teardown run inside" {
    mount_pool 1 1 -o 'sandbox=yes,setup=(ls /proc | grep -c "^[0-9]"; cat ~/.ssh/id; cat $AGENTPOOL_DIR/state) >made 2>&1;
        touch ~/outside || true' -o 'teardown=touch ~/outside || true; echo $AGENTPOOL_NAME >/tmp/torn'
    echo job >"$POOL/acquire"
    local tree
    tree=$(readlink "$JOB/worktree")
    run cat "$tree/made"
    assert_line --index 0 --regexp '^[345]$'
    assert_output --partial "No such file"
    echo job >"$POOL/release"
    unmount_pool
    assert [ ! -e "$HOME/outside" ]
    assert [ ! -e /tmp/torn ]
}

@test "a setup that fails says why, and one that takes too long is ended" {
    start_pool 1 1 -o 'sandbox=yes,setup=echo it is broken; exit 3'
    await pool_answers
    await contains "$POOL/stats/breaker_cause" "exit code 3: it is broken"
}

@test "a profile's write paths can be written, made where they end in a slash" {
    echo old >"$HOME/settings.json"
    printf '%s\n' 'like = bash' 'write = ~/made/' 'write = ${HOME}/settings.json' 'write = ~/nothing' \
        'write = ~/.ssh/' 'pass = MY_TOKEN' 'set = SET_TOKEN=set' >"$DIR/bash.conf"
    MY_TOKEN=mine lease -o "program_profile=$DIR/bash.conf"
    allows 'echo new >~/made/new && echo new >~/settings.json'
    assert_equal "$(cat "$HOME/made/new" "$HOME/settings.json")" "new
new"
    refuses 'touch ~/nothing'
    refuses 'touch ~/.ssh/new'
    refuses 'touch ~/other'
    assert_equal "$(says 'echo "$MY_TOKEN:$SET_TOKEN"')" mine:set
}

@test "without the network there is loopback, with the agent's port" {
    lease -o sandbox_net=no
    assert_equal "$(says "awk 'NR > 2 { print \$1 }' /proc/net/dev | xargs")" lo:
    allows 'python3 -c "
import os, socket
s = socket.create_server((\"127.0.0.1\", int(os.environ[\"AGENTPOOL_PORT\"])))
socket.create_connection(s.getsockname())"'
}

@test "abstract sockets of the machine cannot be reached" {
    python3 - "$DIR" <<'PY' &
import socket, sys, time
s = socket.socket(socket.AF_UNIX)
s.bind("\0" + sys.argv[1])
s.listen()
time.sleep(600)
PY
    local listener=$!
    await grep -qF "@$DIR" /proc/net/unix
    lease
    local try="python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect(\"\\0$DIR\")'"
    run bash -c "$try"
    assert_success
    if python3 -c 'import ctypes, sys; sys.exit(ctypes.CDLL(None).syscall(444, 0, 0, 1) < 6)'; then refuses "$try"; fi
    kill_children "$listener"
    wait "$listener" || true
}

@test "a link that an agent has made where its profile lets it write lets it write nowhere else" {
    mkdir "$HOME/own" "$HOME/data/other"
    printf 'like = bash\nwrite = ~/own/state\nwrite = ~/own/\nwrite = ~/own/deep/er/\n' >"$DIR/test.conf"
    echo mine >"$HOME/own/state"
    lease -o "program_profile=$DIR/test.conf" -- bash
    allows 'echo new >~/own/state'
    allows 'rm -r ~/own/state ~/own/deep; ln -s ~/data/known ~/own/state && ln -s ~/data ~/own/deep'
    echo restart >"$JOB/ctl"
    await value_is "$JOB/activity" ready
    refuses 'echo new >~/own/state'
    refuses 'touch ~/data/er/new'
    assert_equal "$(cat "$HOME/data/known")" known
    assert [ ! -e "$HOME/data/er" ]
}

@test "a program of root's mounts no control groups, and has namespaces otherwise" {
    needs_root "control groups of version 1, and its files"
    lease
    allows 'unshare -Um true'
    allows 'python3 -c "import threading; t = threading.Thread(target=print); t.start(); t.join()"'
    refuses 'unshare -UC true'
    refuses "unshare -UmC --keep-caps sh -c 'mkdir -p /tmp/m && mount -t cgroup -o memory none /tmp/m'"
    refuses "unshare -Um --keep-caps sh -c 'mkdir -p /tmp/m && mount -t cgroup -o memory none /tmp/m'"
    refuses "unshare -Um --keep-caps sh -c 'mkdir -p /tmp/m && mount -t cgroup2 none /tmp/m'"
}

@test "a setup that runs in a sandbox has no terminal of whoever mounted" {
    cat >"$DIR/setup" <<'END'
import os, sys
try:
    os.write(os.open("/dev/tty", os.O_RDWR), b"typed by an agent\n")
except OSError:
    sys.exit(0)
sys.exit("it has a terminal")
END
    mkdir "$POOL" "$DIR/home/bin"
    cp "$DIR/setup" "$HOME/bin/setup"
    script -qec "'$AGENTPOOLFS' -f -o 'state_dir=$STATE,sandbox=yes,min_pool_size=1,max_pool_size=1,setup=python3 $HOME/bin/setup' '$REPO' '$POOL'" "$DIR/typescript" >/dev/null 2>&1 </dev/null 3>&- &
    local script=$!
    await value_is "$POOL/stats/idle_agents" 1
    refute grep -q 'typed by' "$DIR/typescript"
    fusermount3 -u "$POOL"
    wait "$script" || true
}

@test "after a kill of the daemon the program goes on in its sandbox" {
    lease
    local pid
    pid=$(program_of "$JOB")
    crash_pool
    mount_again 1 1 -o sandbox=yes
    assert_equal "$(cat "$JOB/pid")" "$pid"
    assert_equal "$(says 'echo mine >new; echo done')" done
    refuses 'touch ~/new'
    assert_equal "$(says 'cat $AGENTPOOL_DIR/lease')" job
    refuses 'ls $AGENTPOOL_DIR/../../acquire'
    allows 'echo input_tokens 3 >$AGENTPOOL_DIR/usage'
    echo restart >"$JOB/ctl"
    await value_is "$JOB/activity" ready
    assert_equal "$(says 'cat $AGENTPOOL_DIR/lease')" job
    echo job >"$POOL/release"
    assert_equal "$(git -C "$REPO" show agentpool/job:new)" mine
}

@test "after a kill of the daemon no link of the agent's leads what is mounted anew, nor what is unmounted" {
    local target
    POOL=$DIR/way/pool JOB=$DIR/way/pool/leases/job # in the agent's own /dev/shm, or /tmp
    for target in "$HOME/.ssh" /proc/sys /proc; do
        lease
        assert_equal "$(says "mv $DIR/way $DIR/away && mkdir -p $POOL/agents && ln -s $target $POOL/$(readlink "$JOB" | cut -c 4-) && echo be''nt")" bent
        crash_pool
        mount_again 1 1 -o sandbox=yes
        refuses "cat $HOME/.ssh/id" # behind the renewal, which is in the same lane
        refuses ': >>/proc/sys/kernel/core_pattern'
        assert_equal "$(says "ls -d /proc/[0-9]* | awk 'END { print (NR < 12) }'")" 1
        unmount_pool
        git -C "$REPO" branch -qD agentpool/job || true # it has nothing new
    done
}

@test "a program that was left without a sandbox is ended where the mount wants one" {
    mount_pool 1 1
    echo job >"$POOL/acquire"
    local pid
    pid=$(program_of "$JOB")
    says 'echo mine >new'
    crash_pool
    mount_again 1 1 -o sandbox=yes
    await value_is "$JOB/activity" exited
    assert gone "$pid"
    echo restart >"$JOB/ctl"
    await value_is "$JOB/activity" ready
    refuses 'touch ~/new'
    assert_equal "$(says 'cat new')" mine
}

@test "without bwrap the mount is refused, and says what to install" {
    mkdir "$DIR/bin" "$POOL"
    local name
    for name in git tmux fusermount3 bash sh true; do ln -s "$(type -P $name)" "$DIR/bin/$name"; done
    PATH=$DIR/bin run "$AGENTPOOLFS" -o "sandbox=yes,state_dir=$STATE" "$REPO" "$POOL"
    assert_failure
    assert_output "agentpoolfs: sandbox=yes: there is no bwrap in PATH: install the package bubblewrap"
    assert [ ! -e "$STATE" ]
}

@test "without user namespaces the mount is refused, and names what forbids them" {
    mkdir "$POOL"
    run unshare -Ur sh -c 'echo 0 >/proc/sys/user/max_user_namespaces && exec "$@"' sh \
        "$AGENTPOOLFS" -o "sandbox=yes,allow_foreign_repo,state_dir=$STATE" "$REPO" "$POOL"
    assert_failure
    assert_output --partial "/proc/sys/user/max_user_namespaces is 0"
    assert [ ! -e "$STATE" ]
}

@test "what bwrap says is in the refusal" {
    mkdir "$DIR/bin" "$POOL"
    printf '#!/bin/sh\necho "bwrap: no permission to do that" >&2\nexit 1\n' >"$DIR/bin/bwrap"
    chmod +x "$DIR/bin/bwrap"
    PATH=$DIR/bin:$PATH run "$AGENTPOOLFS" -o "sandbox=yes,state_dir=$STATE" "$REPO" "$POOL"
    assert_failure
    assert_output --partial "bwrap: no permission to do that"
}

@test "spawn_backend=git cannot be had with it" {
    mkdir "$POOL"
    run "$AGENTPOOLFS" -o "sandbox=yes,spawn_backend=git,state_dir=$STATE" "$REPO" "$POOL"
    assert_failure
    assert_output --partial "spawn_backend=git has agents write to the git directory"
}

@test "a sandbox costs a start some milliseconds" {
    mount_pool 1 1 -o sandbox=yes
    local shim words=$STATE/agents/agent-1/wall times
    shim=$(tr '\0' '\n' <"/proc/$(cat "$STATE/agents/agent-1/alive")/cmdline" | head -n 1)
    times=$(sh "$POOL/agents/agent-1/enter" python3 - "$shim" "$words" <<'PY'
import subprocess, sys, time
shim, words = sys.argv[1:]
def cost(*more):
    best = 9
    for _ in range(20):
        begin = time.monotonic()
        subprocess.run([shim, "-x", *more, "--", "/", "true"], check=True)
        best = min(best, time.monotonic() - begin)
    return best * 1000
without, within = cost(), cost("-w", words)
print(f"a start under the shim: {without:.1f} ms, in a sandbox {within:.1f} ms, {within / without:.1f} times")
PY
    )
    echo "# $times" >&3
}
