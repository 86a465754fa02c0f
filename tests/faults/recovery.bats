# The daemon dies as nothing announces it, or leaves its agents on purpose, and the next one goes on.

load ../mount/helper

setup() { common_setup; }
teardown() { common_teardown; }

store() { # SQL: what the state store says
    python3 -c 'import sqlite3, sys
db = sqlite3.connect("file:" + sys.argv[1] + "?mode=ro", uri=True, timeout=10)
for row in db.execute(sys.argv[2]): print("|".join(map(str, row)))' "$STATE/state.db" "$1"
}

saved() { # LABEL: its work is on its branch
    git -C "$REPO" show "agentpool/$1:work"
}

history_has() { # LABEL|REASON
    store 'SELECT label, reason FROM history' | grep -qxF -- "$1"
}

event() { # KIND [TEXT]: it is among the events
    grep -F "\"event\":\"$1\"" "$POOL/events" | grep -qF -- "${2:-}"
}

programs_known() { # N: so many agents say which process their program is
    [ "$(cat "$POOL"/agents/*/pid | wc -l)" -eq "$1" ]
}

@test "after kill -9 the next mount has the same agents, leases, owners, settings and counters" {
    mount_pool 2 4
    echo one > "$POOL/acquire"
    echo "two ttl=1h" > "$POOL/acquire"
    echo 3m > "$POOL/config/idle_timeout"
    echo 4 > "$POOL/scale"
    await value_is "$POOL/stats/total_agents" 4
    await value_is "$POOL/stats/idle_agents" 2
    await programs_known 4
    local before pids
    before=$(cd "$POOL" && ls agents; cd leases && readlink one two; cat one/owner one/base two/generation; grep . one/created)
    pids=$(cat "$POOL"/agents/*/pid)
    crash_pool
    mount_again 2 4
    assert_equal "$(cd "$POOL" && ls agents; cd leases && readlink one two; cat one/owner one/base two/generation; grep . one/created)" "$before"
    await value_is "$POOL/leases/one/activity" ready
    assert_equal "$(cat "$POOL"/agents/*/pid)" "$pids"
    assert_equal "$(cat "$POOL/config/idle_timeout")" 3m
    assert_equal "$(cat "$POOL/scale")" "manual 4"
    assert_equal "$(cd "$POOL/stats" && cat total_requests spawned_agents terminated_agents active_agents idle_agents | tr '\n' ' ')" "2 4 0 2 2 "
    grep -q '^expires 20' "$POOL/leases/two/owner"
    run bash -c 'echo one > "$1"' _ "$POOL/acquire" # held still
    assert_failure
    contains "$POOL/last_error" "leased"
    echo one > "$POOL/release"
    echo two > "$POOL/release"
}

@test "a program goes on over a kill -9: its output, its response, further prompts" {
    mount_pool 1 2
    echo job > "$POOL/acquire"
    echo 'echo before' > "$POOL/leases/job/prompt"
    assert_equal "$(cat "$POOL/leases/job/response")" before
    echo 'sleep 2; echo over; sleep 0.2; echo and out' > "$POOL/leases/job/prompt"
    await bash -c '[ "$(grep -c submitted "$1")" = 2 ]' _ "$POOL/events"
    crash_pool
    mount_again 1 2
    assert_equal "$(cat "$POOL/leases/job/response")" "over
and out"
    contains "$POOL/leases/job/output" before
    echo 'echo third' > "$POOL/leases/job/prompt"
    assert_equal "$(cat "$POOL/leases/job/response")" third
    echo work > "$(readlink "$POOL/leases/job/worktree")/work"
    echo job > "$POOL/release"
    assert_equal "$(git -C "$REPO" show agentpool/job:work)" work
}

@test "prompts that wait are given by the next daemon, in their order, each once" {
    mount_pool 1 2
    echo job > "$POOL/acquire"
    echo 'sleep 2' > "$POOL/leases/job/prompt"
    for i in 1 2 3; do echo "echo prompt-$i" > "$POOL/leases/job/prompt"; done
    await event prompt submitted
    crash_pool
    mount_again 1 2
    await value_is "$POOL/leases/job/prompts" 4
    cat "$POOL/leases/job/wait"
    assert_equal "$(grep -o '^prompt-.' "$POOL/leases/job/output" | tr '\n' ' ')" "prompt-1 prompt-2 prompt-3 "
}

@test "a lease by handle ends with the daemon, its work saved" {
    mount_pool 1 2
    exec 5<>"$POOL/acquire"
    echo "held" >&5
    read -r agent label <&5
    assert_equal "$label" held
    echo work > "$(readlink "$POOL/leases/held/worktree")/work"
    crash_pool
    exec 5>&-
    mount_again 1 2
    await test ! -e "$POOL/leases/held"
    await saved held
    await value_is "$POOL/agents/$agent/state" idle # it serves again
    history_has "held|handle"
}

@test "a release that had begun comes to its end" {
    mount_pool 1 2
    echo job > "$POOL/acquire"
    echo work > "$(readlink "$POOL/leases/job/worktree")/work"
    (cd "$REPO" && git config filter.slow.clean 'sleep 3; cat')
    REPO_CHANGED=yes
    echo 'work filter=slow' > "$(readlink "$POOL/leases/job/worktree")/.gitattributes"
    rm "$POOL/leases/job"
    crash_pool
    mount_again 1 2
    await saved job
    await history_has "job|release"
}

@test "a lease with pid= ends when that process has ended meanwhile, and goes on when it has not" {
    mount_pool 2 3
    sleep 1000 3>&- &
    local living=$!
    sleep 1000 3>&- &
    local dying=$!
    echo "living pid=$living" > "$POOL/acquire"
    echo "dying pid=$dying" > "$POOL/acquire"
    crash_pool
    kill "$dying"
    wait "$dying" || true
    mount_again 2 3
    await test ! -e "$POOL/leases/dying"
    assert [ -e "$POOL/leases/living" ]
    kill "$living"
    wait "$living" || true
    await test ! -e "$POOL/leases/living"
}

@test "a program that ended meanwhile leaves its lease and its worktree, and can be started again" {
    mount_pool 2 2
    echo job > "$POOL/acquire"
    local pid
    pid=$(program_of "$POOL/leases/job")
    echo mine > "$(readlink "$POOL/leases/job/worktree")/mine"
    crash_pool
    kill -9 "$pid"
    await gone "$pid"
    mount_again 2 2
    await value_is "$POOL/leases/job/activity" exited
    contains "$POOL/leases/job/exit_status" "signal 9"
    run bash -c 'echo hello > "$1"' _ "$POOL/leases/job/prompt"
    assert_failure
    echo restart > "$POOL/leases/job/ctl"
    await value_is "$POOL/leases/job/activity" ready
    echo 'cat mine' > "$POOL/leases/job/prompt"
    assert_equal "$(cat "$POOL/leases/job/response")" mine
}

@test "without its terminals a lease stays all the same, and idle agents are replaced" {
    mount_pool 2 2
    echo job > "$POOL/acquire"
    local server others
    server=$(tmux -S "$STATE/tmux.sock" display-message -p '#{pid}')
    others=$(cat "$POOL/stats/spawned_agents")
    crash_pool
    kill -9 "$server"
    await gone "$server"
    mount_again 2 2
    await value_is "$POOL/leases/job/activity" exited
    await value_is "$POOL/stats/idle_agents" 1
    assert [ "$(cat "$POOL/stats/spawned_agents")" -gt "$others" ]
    echo restart > "$POOL/leases/job/ctl"
    await value_is "$POOL/leases/job/activity" ready
    echo 'echo here again' > "$POOL/leases/job/prompt"
    assert_equal "$(cat "$POOL/leases/job/response")" "here again"
}

@test "idle agents of another program are not adopted" {
    mount_pool 2 2
    local before
    before=$(ls "$POOL/agents")
    crash_pool
    mount_again 2 2 -- sh
    await value_is "$POOL/stats/idle_agents" 2
    assert_not_equal "$(ls "$POOL/agents")" "$before"
}

@test "more agents than the pool may have are not adopted, but every lease is" {
    mount_pool 4 4
    echo a > "$POOL/acquire"
    echo b > "$POOL/acquire"
    crash_pool
    mount_again 1 2
    assert_equal "$(ls "$POOL/leases" | tr '\n' ' ')" "a b "
    assert_equal "$(cat "$POOL/stats/total_agents")" 2
}

@test "with persist=yes agents and leases stay over an unmount; handles end; acquirers are refused" {
    mount_pool 2 4 -o persist=yes
    echo job > "$POOL/acquire"
    echo 'x=kept' > "$POOL/leases/job/prompt"
    await value_is "$POOL/leases/job/activity" ready
    local pids
    pids=$(cat "$POOL"/agents/*/pid)
    unmount_pool
    assert [ -S "$STATE/tmux.sock" ]
    mount_again 2 4 -o persist=yes
    assert_equal "$(ls "$POOL/leases")" job
    await value_is "$POOL/leases/job/activity" ready
    assert_equal "$(cat "$POOL"/agents/*/pid)" "$pids"
    echo 'echo $x' > "$POOL/leases/job/prompt"
    assert_equal "$(cat "$POOL/leases/job/response")" kept
    unmount_pool
    mount_again 2 4 # and without it, all ends as ever
    assert_equal "$(ls "$POOL/leases")" job
}

@test "the time to live of a lease begins anew" {
    mount_pool 1 2
    echo "job ttl=3s" > "$POOL/acquire"
    crash_pool
    mount_again 1 2
    assert [ -e "$POOL/leases/job" ]
    await test ! -e "$POOL/leases/job"
}

@test "a lease whose worktree has gone is over, and said once" {
    mount_pool 1 2 -o spawn_backend=copy
    echo job > "$POOL/acquire"
    local tree
    tree=$(readlink "$POOL/leases/job/worktree")
    crash_pool
    rm -rf "$tree"
    mount_again 1 2 -o spawn_backend=copy
    event lease_lost '"lease":"job"'
    assert_equal "$(ls "$POOL/leases")" ""
    assert_equal "$(store 'SELECT count(*) FROM lease')" 0
    crash_pool
    mount_again 1 2 -o spawn_backend=copy
    assert_equal "$(grep -c lease_lost "$POOL/events")" 1
}

@test "leases for which there is no room are saved, and over" {
    mount_pool 2 3
    echo a > "$POOL/acquire"
    echo b > "$POOL/acquire"
    echo work > "$(readlink "$POOL/leases/a/worktree")/work"
    echo work > "$(readlink "$POOL/leases/b/worktree")/work"
    crash_pool
    mount_again 1 1 -o hard_cap=1
    assert_equal "$(ls "$POOL/leases" | wc -l)" 1
    event lease_lost
    local gone
    gone=$([ -e "$POOL/leases/a" ] && echo b || echo a)
    saved "$gone"
    assert_equal "$(store 'SELECT count(*) FROM lease')" 1
}

@test "names on the disk are not used again, whatever the store has forgotten" {
    mount_pool 1 2
    echo job > "$POOL/acquire"
    echo work > "$(readlink "$POOL/leases/job/worktree")/work"
    local agent
    agent=$(basename "$(readlink "$POOL/leases/job")")
    crash_pool
    rm "$STATE"/state.db*
    refuse_to_save
    LOG_EXPECTED=yes
    mount_pool 1 2
    assert [ -e "$STATE/worktrees/$agent/work" ]
    [ ! -e "$POOL/agents/$agent" ]
    unmount_pool
    assert [ -e "$STATE/worktrees/$agent/work" ]
    have_saved
    mount_pool 1 2
    saved job
}

@test "a worktree that was being made as new when the daemon died goes, whatever is missing of it" {
    mount_pool 1 2
    local agent
    agent=$(ls "$POOL/agents")
    crash_pool
    [ -L "$STATE/worktrees/$agent" ] || umount -l "$STATE/worktrees/$agent"
    : > "$STATE/layers/$agent/template"
    python3 -c 'import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as db: db.execute("UPDATE agent SET clean = 0")' "$STATE/state.db"
    mount_pool 1 2
    assert [ ! -e "$STATE/worktrees/$agent" ]
}

@test "prompts of a lease that is over reach no other" {
    mount_pool 1 1 -o on_release=keep
    exec 5<>"$POOL/acquire"
    echo old >&5
    read -r _ <&5
    echo 'sleep 3' > "$POOL/leases/old/prompt"
    for i in 1 2 3; do echo "echo OLD-$i" > "$POOL/leases/old/prompt"; done
    await event prompt submitted
    crash_pool
    exec 5>&-
    mount_again 1 1 -o on_release=keep
    await bash -c 'echo new timeout=0 > "$1"' _ "$POOL/acquire"
    crash_pool
    mount_again 1 1 -o on_release=keep
    echo 'echo mine' > "$POOL/leases/new/prompt"
    assert_equal "$(cat "$POOL/leases/new/response")" mine
    run grep OLD "$POOL/leases/new/output"
    assert_failure
}

@test "a pause outlives the daemon, and ends with its lease" {
    mount_pool 1 1 -o on_release=keep
    echo job > "$POOL/acquire"
    local pid
    pid=$(program_of "$POOL/leases/job")
    echo pause > "$POOL/leases/job/ctl"
    await grep -q '^State:.T' "/proc/$pid/status"
    crash_pool
    mount_again 1 1 -o on_release=keep
    await value_is "$POOL/leases/job/activity" busy
    echo job > "$POOL/release"
    await grep -q '^State:.S' "/proc/$pid/status"
}

@test "what git was doing when the daemon died is waited for, and the release comes to its end" {
    mount_pool 1 2
    REPO_CHANGED=yes
    git -C "$REPO" config filter.slow.clean "touch '$DIR/filters'; sleep 4; cat"
    echo job > "$POOL/acquire"
    echo 'work filter=slow' > "$(readlink "$POOL/leases/job/worktree")/.gitattributes"
    echo work > "$(readlink "$POOL/leases/job/worktree")/work"
    bash -c 'echo job > "$1"' _ "$POOL/release" 2>/dev/null 3>&- &
    await test -e "$DIR/filters"
    crash_pool
    mount_again 1 2
    await saved job
    await history_has "job|release"
}

# What is recorded, done or answered at the point where the daemon kills itself. Each point is come
# by; the next mount finds nothing lost, nothing held twice, nothing left.
answers_or_gone() {
    [ -e "$POOL/acquire" ] || gone "$DAEMON"
}

crash_at() { # POINT: the daemon dies there
    AGENTPOOL_CRASH_POINT=$1 start_pool 1 2
    await answers_or_gone
    exec 4>&2 2>/dev/null # what fails here, fails with the daemon
    echo "first timeout=20s" > "$POOL/acquire" || true
    WROTE=no
    if echo work > "$(readlink "$POOL/leases/first/worktree")/work"; then WROTE=yes; fi
    echo restart > "$POOL/leases/first/ctl" || true
    echo 'echo hello' > "$POOL/leases/first/prompt" || true
    cat "$POOL/leases/first/wait" || true
    echo first > "$POOL/release" || true
    echo second > "$POOL/acquire" || true
    echo "kill" > "$POOL/leases/second/ctl" || true
    ls "$POOL" || true
    fusermount3 -u "$POOL" || true # it may only come by there at its end
    exec 2>&4 4>&-
    await gone "$DAEMON"
    if wait "$DAEMON"; then return 1; fi
    DAEMON=
}

check_after_crash() {
    local granted=$1
    mount_again 1 2
    await value_is "$POOL/stats/spawning_agents" 0
    while read -r lease; do # granted and not released, says the store of the dead
        [ -e "$POOL/leases/$lease" ]
    done <<<"$granted"
    echo "third" > "$POOL/acquire"
    assert [ -e "$POOL/leases/third" ]
    if [ $WROTE = yes ] && [ -e "$POOL/leases/first" ]; then echo first > "$POOL/release"; fi
    if [ $WROTE = yes ]; then await saved first; fi # a release that had begun goes on behind the mount
    assert [ "$(readlink "$POOL"/leases/* | sort | uniq -d | wc -l)" = 0 ]
    unmount_pool
    await nothing_left
    [ ! -e "$STATE/worktrees" ]
    assert_equal "$(store 'SELECT count(*) FROM agent')" 0
    assert_equal "$(store 'SELECT count(*) FROM lease')" 0
}

@test "wherever the daemon dies between an effect, its record and its answer, the next one goes on" {
    [ -n "${CRASH_POINTS:-}" ] || skip "CRASH_POINTS=yes says that the daemon is built with them"
    LOG_EXPECTED=yes
    local point
    for point in spawn-named spawn-worktree spawn-program spawn-recorded grant-wanted grant-started grant-restored grant-recorded \
        restart-program prompt-taken prompt-given save-ended save-saved save-recorded recycle-cleaned recycle-program recycle-recorded \
        stop-ended stop-removed stop-recorded; do
        echo "# $point"
        crash_at "$point"
        check_after_crash "$(store "SELECT label FROM lease WHERE granted > 0 AND ending = '' AND by_handle = 0")"
        git -C "$REPO" for-each-ref --format='delete %(refname)' refs/heads/agentpool | git -C "$REPO" update-ref --stdin
        rm -f "$STATE/state.db"*
    done
    for point in recover-adopted recover-removed; do
        mount_pool 1 2
        echo kept > "$POOL/acquire"
        crash_pool
        run env AGENTPOOL_CRASH_POINT=$point "$AGENTPOOLFS" -f -o "state_dir=$STATE,min_pool_size=1,max_pool_size=2" "$REPO" "$POOL"
        assert_failure
        mount_again 1 2
        assert [ -e "$POOL/leases/kept" ]
        unmount_pool
    done
}

@test "a daemon that dies in the middle of its end has lost no work and handed nothing on" {
    [ -n "${CRASH_POINTS:-}" ] || skip "CRASH_POINTS=yes says that the daemon is built with them"
    LOG_EXPECTED=yes
    local point i
    for point in end-told save-ended save-saved:2 save-recorded:3 stop-ended:2 stop-removed:3 stop-recorded:4; do
        AGENTPOOL_CRASH_POINT=$point mount_pool 6 6
        for i in 1 2 3; do
            echo "job-$i" > "$POOL/acquire"
            echo "$point" > "$(readlink "$POOL/leases/job-$i/worktree")/work"
        done
        fusermount3 -u "$POOL"
        await gone "$DAEMON"
        if wait "$DAEMON"; then fail "$point was not come by"; fi
        DAEMON=
        mount_again 6 6
        for i in 1 2 3; do # it goes on being held, where its end had not begun
            if [ -e "$POOL/leases/job-$i" ]; then echo "job-$i" > "$POOL/release"; fi
            await saved "job-$i" || { cat "$DIR/log" "$POOL/last_error"; tail -n 20 "$POOL/events"; return 1; }
            assert_equal "$(saved "job-$i")" "$point"
        done
        await value_is "$POOL/stats/idle_agents" 6
        unmount_pool
        assert [ ! -e "$STATE/worktrees" ]
        git -C "$REPO" for-each-ref --format='delete %(refname)' refs/heads/agentpool | git -C "$REPO" update-ref --stdin
    done
}

work_and_move_on() { # TEXT
    timeout 20 bash -c "
        echo job > '$POOL/acquire' && echo $1 > '$POOL/leases/job/worktree/work' && echo job > '$POOL/release' &&
        git -C '$REPO' commit -q --allow-empty -m 'after $1' && echo next > '$POOL/acquire' && echo next > '$POOL/release'"
}

@test "locks of refs that a daemon leaves when it is killed hold up nothing, and nobody else's lock is removed" {
    [ -n "${CRASH_POINTS:-}" ] || skip "CRASH_POINTS=yes says that the daemon is built with them"
    LOG_EXPECTED=yes
    REPO_CHANGED=yes
    local times note ref others="$REPO/.git/refs/heads/others.lock"
    true > "$others"
    for times in 1 2 3 4; do # of a template's commit, a branch, the next one's commit, what is let go of
        AGENTPOOL_CRASH_POINT=ref-noted:$times start_pool 1 1
        await answers_or_gone
        git -C "$REPO" commit -q --allow-empty -m "before $times"
        work_and_move_on $times 2>/dev/null 3>&- || true
        fusermount3 -u "$POOL" 2>/dev/null || true
        await gone "$DAEMON"
        if wait "$DAEMON"; then return 1; fi
        DAEMON=
        note=$(ls "$STATE/ref-notes")
        ref=$(cat "$STATE/ref-notes/$note")
        echo "# $times: $ref"
        mkdir -p "$REPO/.git/${ref%/*}"
        true > "$REPO/.git/$ref.lock" # as it is killed in the middle of setting it, or of removing a packed one
        true > "$REPO/.git/packed-refs.lock"
        mount_again 1 1
        await test ! -e "$REPO/.git/$ref.lock" # the daemon itself may lock it for a moment
        await test ! -e "$REPO/.git/packed-refs.lock"
        if [ -e "$POOL/leases/job" ]; then
            echo $times > "$POOL/leases/job/worktree/work"
            echo job > "$POOL/release"
        fi
        echo "after" > "$POOL/acquire"
        echo $times > "$POOL/leases/after/worktree/work"
        echo after > "$POOL/release"
        assert_equal "$(saved after)" $times
        unmount_pool
        assert [ ! -e "$STATE/ref-notes" ]
        assert [ -e "$others" ]
        git -C "$REPO" for-each-ref --format='delete %(refname)' refs/heads/agentpool | git -C "$REPO" update-ref --stdin
    done
    true > "$REPO/.git/packed-refs.lock" # that somebody else holds now
    mount_pool 1 1
    assert [ -e "$REPO/.git/packed-refs.lock" ]
    rm "$REPO/.git/packed-refs.lock" "$others"
    unmount_pool
}

@test "a grant that a dead daemon began takes nobody's work off the branch" {
    [ -n "${CRASH_POINTS:-}" ] || skip "CRASH_POINTS=yes says that the daemon is built with them"
    LOG_EXPECTED=yes
    REPO_CHANGED=yes
    local point mine
    for point in grant-wanted grant-started; do
        AGENTPOOL_CRASH_POINT=$point mount_pool 1 1
        timeout 60 bash -c "echo 'job timeout=20' > '$POOL/acquire'" 3>&- || true
        await gone "$DAEMON"
        wait "$DAEMON" 2>/dev/null || true
        DAEMON=
        umount -l "$POOL" 2>/dev/null || fusermount3 -uz "$POOL"
        # meanwhile somebody works on the branch of that label
        mine=$(git -C "$REPO" commit-tree -m "mine $point" -p main 'main^{tree}')
        git -C "$REPO" update-ref refs/heads/agentpool/job "$mine"
        mount_again 1 1
        await value_is "$POOL/stats/idle_agents" 1
        assert_equal "$(git -C "$REPO" rev-parse agentpool/job)" "$mine"
        unmount_pool
        rm -f "$STATE/state.db"*
    done
}

@test "a helper that the daemon was just about to start keeps no later daemon out" {
    REPO_CHANGED=yes
    mount_pool 1 1
    git -C "$REPO" commit -q --allow-empty -m second # git is to bring the worktree there
    # its next helper stands still before it is another program, with all descriptors of the daemon
    strace -f -qq -o "$DIR/strace" -p "$DAEMON" -e trace=execve -e inject=execve:delay_enter=5s:when=1 3>&- &
    local strace=$! acquirer
    await grep -q "TracerPid:.$strace" "/proc/$DAEMON/status"
    bash -c "echo job > $POOL/acquire" 3>&- &
    acquirer=$!
    await grep -q execve "$DIR/strace"
    kill -9 "$DAEMON"
    await gone "$DAEMON" # not reaped, perhaps: who traces it comes first
    mount_again 1 1
    wait $strace $acquirer || true
    await value_is "$POOL/stats/total_agents" 1
}
