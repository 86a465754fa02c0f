# The pool as a whole: start, size, configuration, refusals, the end, and what it costs when idle.

load helper

setup() { common_setup; }
teardown() { common_teardown; }

@test "every file that --list-files names is there, with its mode, and no other" {
    mkdir -p "$STATE/kept/job@1/files"
    mount_pool 1 1
    echo job > "$POOL/acquire"
    "$AGENTPOOLFS" --list-files | awk '{print $1, $2}' |
        sed 's/^agents\/NAME/agents\/agent-1/; s/LABEL@TOKEN/job@1/; s/LABEL/job/; s/-000/-0/' \
        | sort > "$DIR/expected"
    # the first four are not met by a walk
    (cd "$POOL" && find .git follow agents/agent-1/wait agents/agent-1/response . \
        \( -type f -printf '%p -%m\n' \) -o \( -type l -printf '%p l%m\n' \)) | sed 's,^\./,,' | sort > "$DIR/found"
    diff "$DIR/expected" "$DIR/found"
    echo job > "$POOL/release"
}

@test "man 5 describes every file, and every option" {
    CHECK_LEFT=no
    local man=$BATS_TEST_DIRNAME/../../man/agentpoolfs.5 name
    for name in $("$AGENTPOOLFS" --list-files | awk '{print $1}' | xargs -n1 basename) \
        $("$AGENTPOOLFS" --list-options | awk '{print $1}'); do
        grep -qE "^\.B[RI]? ([^ ]+ , )*$name( |$)" "$man" || { echo "not in man 5: $name"; return 1; }
    done
}

@test "a program that ends at once is EHOSTDOWN with the cause, not a storm of spawns" {
    mkdir -p "$POOL"
    "$AGENTPOOLFS" -f -o "state_dir=$STATE" "$REPO" "$POOL" -- false >"$DIR/log" 2>&1 3>&- &
    DAEMON=$!
    await pool_answers
    await value_is "$POOL/stats/breaker" open
    run bash -c "echo job > $POOL/acquire"
    assert_failure
    assert_output --partial "Host is down"
    assert contains "$POOL/last_error" "'false' ended soon after its start (code 1)" # the last of the tries
    assert [ "$(cat "$POOL/stats/spawned_agents")" -le 4 ]
}

@test "a stray grep over the mount ends by itself and changes nothing" {
    mount_pool 2 2
    echo job > "$POOL/acquire"
    local before
    before=$(cat "$POOL"/stats/{active,idle,total,spawned,terminated}_agents "$POOL/stats/total_requests")
    timeout 60 grep -r . "$POOL" > "$DIR/grepped" 2>/dev/null || [ $? = 2 ] # files that cannot be read
    assert contains "$DIR/grepped" "stats/waiting:0"
    timeout 60 find "$POOL" -type f -exec cat {} + > /dev/null 2>&1 || [ $? = 1 ]
    assert_equal "$(cat "$POOL"/stats/{active,idle,total,spawned,terminated}_agents "$POOL/stats/total_requests")" "$before"
    echo job > "$POOL/release"
}

@test "nothing can be made, moved or removed in the tree" {
    mount_pool 1 1
    for command in "touch $POOL/x" "mkdir $POOL/x" "rmdir $POOL/agents/agent-1" "rm -rf $POOL/agents/agent-1" \
        "mv $POOL/status $POOL/x" "ln $POOL/status $POOL/x" "ln -s a $POOL/x" "chmod 777 $POOL/status" \
        "rm $POOL/acquire"; do
        run $command
        assert_failure
        assert_output --partial "Operation not permitted"
    done
    assert_equal "$(cat "$POOL/stats/total_agents")" 1
}

@test "demand grows the pool up to max_pool_size, scale sets it, auto shrinks it again" {
    mount_pool 1 5 -o idle_timeout=100ms,maintenance_interval=200ms
    for i in 1 2 3; do echo "job-$i" > "$POOL/acquire"; done
    assert_equal "$(cat "$POOL/stats/active_agents")" 3
    assert_equal "$(cat "$POOL/stats/scale_direction")" UP
    echo 5 > "$POOL/scale"
    await value_is "$POOL/stats/total_agents" 5
    assert_equal "$(cat "$POOL/scale")" "manual 5"
    run bash -c "echo 6 > $POOL/scale"
    assert_failure
    assert_output --partial "Numerical result out of range"
    echo -1 > "$POOL/scale"
    await value_is "$POOL/stats/total_agents" 4
    for i in 1 2 3; do echo "job-$i" > "$POOL/release"; done
    echo auto > "$POOL/scale"
    await value_is "$POOL/stats/total_agents" 1
    assert_equal "$(cat "$POOL/stats/scale_direction")" DOWN
    assert [ -n "$(cat "$POOL/stats/last_scale_event")" ]
}

@test "drain retires idle agents down to the minimum" {
    mount_pool 1 3
    echo 3 > "$POOL/scale"
    await value_is "$POOL/stats/idle_agents" 3
    echo auto > "$POOL/scale"
    echo drain > "$POOL/ctl"
    await value_is "$POOL/stats/total_agents" 1
    run bash -c "echo nonsense > $POOL/ctl"
    assert_failure
    assert contains "$POOL/last_error" "none of: warm drain"
}

@test "config reads, is written, and refuses with a reason" {
    mount_pool 1 2
    assert_equal "$(cat "$POOL/config/max_pool_size")" 2
    assert_equal "$(cat "$POOL/config/idle_timeout")" 5m
    echo 3 > "$POOL/config/max_pool_size"
    echo 90s > "$POOL/config/idle_timeout"
    assert_equal "$(cat "$POOL/config/max_pool_size" "$POOL/config/idle_timeout")" "3
90s"
    for value in -1 0 x 0x10 1e99 "" 99999999999999999999; do
        run bash -c "echo '$value' > $POOL/config/max_pool_size"
        assert_failure
        assert contains "$POOL/last_error" max_pool_size
    done
    run bash -c "echo 4 > $POOL/config/min_pool_size"
    assert_failure
    assert_equal "$(cat "$POOL/config/max_pool_size")" 3
    run bash -c "echo 1 > $POOL/config/hard_cap"
    assert_output --partial "Operation not permitted"
    run bash -c "echo yes > $POOL/config/persist"
    assert_output --partial "Operation not permitted"
}

@test "what cannot be mounted is refused with one sentence and exit code 1" {
    CHECK_LEFT=no
    mkdir -p "$POOL"
    refused() { # SENTENCE REPO MOUNTPOINT [OPTION...]
        local sentence=$1
        shift
        run timeout 60 "$AGENTPOOLFS" -o "state_dir=$STATE" "$@"
        assert_equal "$status" 1
        assert_output --partial "$sentence"
        assert_equal "${#lines[@]}" 1
    }
    mkdir "$DIR/none"
    refused "not usable as a git repository" "$DIR/none" "$POOL"
    git init -q "$DIR/empty"
    refused "no commit" "$DIR/empty" "$POOL"
    refused "not empty" "$REPO" "$REPO"
    refused "No such file" "$REPO" "$DIR/nowhere"
    run "$AGENTPOOLFS" -o max_pool_size=0 "$REPO" "$POOL"
    assert_equal "$status" 2
    run "$AGENTPOOLFS" -o "state_dir=$STATE,min_pool_size=5,max_pool_size=2" "$REPO" "$POOL"
    assert_equal "$status" 1
    run "$AGENTPOOLFS" "$REPO"
    assert_equal "$status" 2
    run "$AGENTPOOLFS" --nonsense
    assert_equal "$status" 2
}

@test "a second daemon on the state directory is refused and names the first" {
    mount_pool 1 1
    mkdir "$DIR/second"
    run timeout 60 "$AGENTPOOLFS" -o "state_dir=$STATE" "$REPO" "$DIR/second"
    assert_equal "$status" 1
    assert_output --partial "in use by process $DAEMON"
    run timeout 60 "$AGENTPOOLFS" -o "state_dir=$DIR/other" "$REPO" "$POOL"
    assert_output --partial "in use by another pool"
    assert_equal "$(cat "$POOL/stats/idle_agents")" 1
}

@test "it daemonizes, returns when the mount answers, and SIGTERM ends it in order" {
    mkdir -p "$POOL"
    "$AGENTPOOLFS" -o "state_dir=$STATE" "$REPO" "$POOL" 3>&-
    DAEMON=$(cat "$STATE/lock")
    assert [ -n "$(cat "$POOL/stats/uptime")" ]
    echo job > "$POOL/acquire"
    echo unsaved > "$(readlink "$POOL/leases/job/worktree")/unsaved"
    kill "$DAEMON"
    await gone "$DAEMON"
    DAEMON=
    assert_equal "$(git -C "$REPO" show agentpool/job:unsaved)" unsaved
    run mountpoint -q "$POOL"
    assert_failure
}

@test "ending the pool answers who waits" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    echo 'sleep 1000' > "$POOL/leases/job/prompt"
    bash -c "echo b timeout=5m > $POOL/acquire" 2> "$DIR/refused" &
    local waiter=$!
    bash -c "cat $POOL/leases/job/wait" > /dev/null 2>&1 &
    local reader=$!
    await value_is "$POOL/stats/waiting" 1
    kill "$DAEMON"
    await gone $waiter
    await gone $reader
    await gone "$DAEMON"
    DAEMON=
    assert contains "$DIR/refused" "transport endpoint shutdown"
}

@test "after kill -9 of the daemon a lease is saved at its end, whatever its agent did to git" {
    mount_pool 2 2
    echo job > "$POOL/acquire"
    git -C "$(readlink "$POOL/leases/job/worktree")" checkout -q --detach # wherever the agent was
    echo unsaved > "$(readlink "$POOL/leases/job/worktree")/unsaved"
    rm "$(readlink "$POOL/leases/job/worktree")/.git"
    crash_pool
    mount_again 2 2
    echo job > "$POOL/release"
    assert_equal "$(git -C "$REPO" show agentpool/job:unsaved)" unsaved
}

@test "no handler blocks while a worker is in a slow spawn" {
    mount_pool 1 2
    echo "until [ -e $DIR/go ]; do sleep 0.05; done" > "$POOL/config/setup"
    echo 2 > "$POOL/scale"
    await value_is "$POOL/stats/spawning_agents" 1
    run timeout 300 python3 - "$POOL" <<'PY'
import sys, time
worst = 0
for i in range(200):
    start = time.monotonic()
    assert open(sys.argv[1] + "/stats/waiting").read() == "0\n"
    worst = max(worst, time.monotonic() - start)
print("# worst read: %.1f ms" % (worst * 1e3))
PY
    echo "$output" >&3
    assert_success
    assert_equal "$(cat "$POOL/stats/spawning_agents")" 1 # it was slow all the while
    touch "$DIR/go"
    await value_is "$POOL/stats/idle_agents" 2
}

@test "an idle pool starts no process" {
    mount_pool 4 4
    local seconds=${IDLE_SECONDS:-5}
    timeout "$seconds" strace -f -qq -e trace=process -e signal=none -o "$DIR/trace" -p "$DAEMON" || true
    run grep -vE 'detached|attached|exit_group\(0\) *= \?' "$DIR/trace"
    assert_output ""
}

@test "the end of a pool starts no program for each of its agents" {
    export ASAN_OPTIONS=detect_leaks=0 # which nobody can look for who is looked at
    mount_pool 10 10
    echo job > "$POOL/acquire"
    echo work > "$(readlink "$POOL/leases/job/worktree")/work"
    strace -f -qq -e trace=execve -e signal=none -o "$DIR/trace" -p "$DAEMON" 3>&- &
    local strace=$!
    await grep -q "TracerPid:.$strace" "/proc/$DAEMON/status"
    unmount_pool
    wait $strace || true
    assert_equal "$(git -C "$REPO" show agentpool/job:work)" work
    # git for the one lease, tmux for the end of its server
    assert [ "$(grep -v '"[^"]*/git\|"[^"]*/tmux' "$DIR/trace" | grep -c 'execve.* = 0$')" -lt 6 ]
}

@test "a repository in a linked worktree, bare, and with blanks in its path" {
    CHECK_LEFT=no
    git clone -q --bare "$REPO" "$DIR/bare repo.git"
    git -C "$REPO" worktree add -q -b side "$DIR/linked ö"
    local repo
    for repo in "$DIR/bare repo.git" "$DIR/linked ö"; do
        local saved=$REPO
        REPO=$repo
        mount_pool 1 1
        echo job > "$POOL/acquire"
        echo work > "$(readlink "$POOL/leases/job/worktree")/work"
        echo job > "$POOL/release"
        assert_equal "$(git -C "$repo" show agentpool/job:work)" work
        unmount_pool
        git -C "$repo" branch -q -D agentpool/job
        REPO=$saved
    done
    assert nothing_left
}
