# The recipes of agentpoolfs(7) and the examples of README.md: each does what it says, run as it stands, character for
# character, in sh by bash and by dash. recipes.py reads them; what they suppose is made true around them.

load helper

setup() {
    common_setup
    BLOCKS=$BATS_FILE_TMPDIR/blocks
    [ -d "$BLOCKS" ] || python3 "$BATS_TEST_DIRNAME/recipes.py" "$BLOCKS" || return
    mkdir -p "$HOME/src" "$DIR/bin"
    mv "$REPO" "$HOME/src/app"
    REPO=$HOME/src/app POOL=$HOME/pool
    mkdir "$POOL"
    cp -r "$BLOCKS" "$DIR/blocks" # below $DIR, so that what they leave running is found
    BLOCKS=$DIR/blocks
    ln -s "$(realpath "$AGENTPOOLFS")" "$DIR/bin/agentpoolfs"
    PATH=$DIR/bin:$PATH
    export BASH_ENV= ENV=
    # what agents are asked for in words is a command of theirs, as they are shells
    command_of Fix 'echo "fixed $*" | tee fixed'
}
teardown() { common_teardown; }

command_of() { # NAME TEXT: a program of that name, in sh
    printf '#!/bin/sh\n%s\n' "$2" >"$DIR/bin/$1"
    chmod +x "$DIR/bin/$1"
}

# A recipe, in the pool or in $PLACE.
recipe() { # SHELL HEADING
    (cd "${PLACE:-$POOL}" && exec "$1" "$BLOCKS/$2") 3>&-
}

# The same for one that does not end by itself: in a process group of its own.
begin_recipe() { # SHELL HEADING
    (cd "${PLACE:-$POOL}" && exec setsid "$1" "$BLOCKS/$2") >"$DIR/printed" 2>&1 </dev/null 3>&- &
    RECIPE=$!
}

end_recipe() {
    kill -- "-$RECIPE" 2>/dev/null || true
    wait "$RECIPE" 2>/dev/null || true
    await nobody_is_there
}

nobody_is_there() { # whose working directory keeps an ordinary user from unmounting
    local place
    for place in /proc/[0-9]*/cwd; do
        [ ! "$place" -ef "$POOL" ] || return 1
    done
}

following() { # the recipe has the stream open
    local pid
    for pid in $(pgrep -g "$RECIPE"); do
        ! readlink "/proc/$pid"/fd/* | grep -qx "$POOL/follow" || return 0
    done
    false
}

# In a terminal, with what is written to descriptor $KEYS as its keys.
begin_in_terminal() { # SHELL HEADING
    rm -f "$DIR/keys" "$DIR/terminal"
    mkfifo "$DIR/keys"
    exec {KEYS}<>"$DIR/keys"
    (cd "$POOL" && TERM=xterm SHELL=/bin/sh exec setsid script -qfc "stty cols 80 rows 24; $1 '$BLOCKS/$2'" "$DIR/terminal") \
        >/dev/null 2>&1 <"$DIR/keys" 3>&- &
    RECIPE=$!
}

# Claude of these tests is bash, in the place where cron finds it too.
claude_is_a_shell() {
    mkdir -p "$HOME/.config/agentpoolfs/programs" "$HOME/.local/bin"
    echo "like = bash" >"$HOME/.config/agentpoolfs/programs/claude.conf"
    printf '#!/bin/sh\nexec bash\n' >"$HOME/.local/bin/claude"
    chmod +x "$HOME/.local/bin/claude"
    PATH=$HOME/.local/bin:$PATH
}

# Ends a pool that a recipe has mounted.
end_pool() { # MOUNTPOINT
    fusermount3 -u "$1"
    await nothing_runs
}

save_label() { # LABEL COMMAND: a lease of which the work is saved
    echo "$1" >"$POOL/acquire"
    echo "$2" >"$POOL/leases/$1/prompt"
    value_is "$POOL/leases/$1/wait" ready
    echo "$1" >"$POOL/release"
}

reported() { # LABEL ACTIVITY: by a hook
    value_is "$POOL/leases/$1/activity" "$2" && contains "$POOL/leases/$1/why" hook
}

forget_branches() {
    git -C "$REPO" for-each-ref --format='delete %(refname)' refs/heads/agentpool | git -C "$REPO" update-ref --stdin
}

branches() { # those of leases, in a line
    git -C "$REPO" for-each-ref --format='%(refname:lstrip=3)' refs/heads/agentpool | paste -sd' '
}

on_branch() { # LABEL FILE TEXT
    assert_equal "$(git -C "$REPO" show "agentpool/$1:$2")" "$3"
}

no_lease() {
    [ -z "$(ls "$POOL/leases")" ]
}

@test "every recipe of the page is in a test" {
    CHECK_LEFT=no
    local heading
    for heading in "$BLOCKS"/*; do
        grep -qF -e "\"${heading##*/}\"" -e "/${heading##*/}" "$BATS_TEST_FILENAME" || fail "not in a test: ${heading##*/}"
    done
}

@test "README: ten lines take a lease from its prompt to its branch" {
    claude_is_a_shell
    local shell
    for shell in bash dash; do
        PLACE=$DIR run recipe $shell "README 1"
        assert_success
        assert_line ready
        assert_line "+fixed the flaky auth test"
        on_branch fix-auth fixed "fixed the flaky auth test"
        assert no_lease
        end_pool "$POOL"
        forget_branches
    done
}

@test "README: a lease is held by a descriptor until it is closed" {
    mount_pool 1 1
    command_of … "cat $POOL/leases/*/state" # which stands where the work is done
    local shell
    for shell in bash dash; do
        PLACE=$HOME run recipe $shell "README 2"
        assert_success
        assert_output active
        await value_is "$POOL/stats/idle_agents" 1
    done
}

@test "all agents are shown again and again" {
    mount_pool 1 2
    local shell
    for shell in bash dash; do
        begin_in_terminal $shell "All agents"
        await contains "$DIR/terminal" "of 1 to 2"
        echo job >"$POOL/acquire"
        await contains "$DIR/terminal" job
        end_recipe
        echo job >"$POOL/release"
        await value_is "$POOL/stats/idle_agents" 1
    done
}

@test "a terminal is taken over, and left with its lease" {
    mount_pool 1 1
    echo fix-auth >"$POOL/acquire"
    local shell
    for shell in bash dash; do
        begin_in_terminal $shell "The terminal of an agent"
        await grep -q . "$DIR/terminal"
        printf 'echo by hand > %s\r' $shell >&"$KEYS"
        await value_is "$POOL/leases/fix-auth/worktree/$shell" "by hand"
        printf '\002d' >&"$KEYS"
        await gone "$RECIPE"
        value_is "$POOL/leases/fix-auth/state" active
    done
    echo "fix-auth discard" >"$POOL/release"
}

@test "the bell rings for who is done and for who waits" {
    mount_pool 2 2
    echo fix-auth >"$POOL/acquire"
    echo ask >"$POOL/acquire"
    echo 'read -p "sure? " answer' >"$POOL/leases/ask/prompt"
    local shell
    for shell in bash dash; do
        echo true >"$POOL/leases/fix-auth/prompt"
        run recipe $shell "A bell"
        assert_success
        assert_line $'\afix-auth: ready'
        assert_line $'\aask: waiting'
    done
    echo "fix-auth discard" >"$POOL/release"
    echo "ask discard" >"$POOL/release"
}

@test "a desktop is notified of leases that end, until the pool ends" {
    command_of notify-send "printf '%s|%s\n' \"\$@\" >>$DIR/notified"
    local shell
    for shell in bash dash; do
        mount_pool 1 1
        begin_recipe $shell "A notification"
        await following
        echo job >"$POOL/acquire"
        echo job >"$POOL/release"
        await value_is "$DIR/notified" "Agent pool|job: release"
        fusermount3 -uz "$POOL"
        await gone "$RECIPE"
        unmount_pool
        rm "$DIR/notified"
    done
}

@test "a notification tells once who waits, who has exited and who is done" {
    command_of notify-send "printf '%s\n' \"\$1|\$2\" >>$DIR/notified"
    local shell
    for shell in bash dash; do
        mount_pool 1 1
        begin_recipe $shell "Who waits, and who is done"
        await following
        echo job >"$POOL/acquire"
        await value_is "$POOL/leases/job/activity" ready
        echo 'read -p "su""re? " answer' >"$POOL/leases/job/prompt"
        await contains "$DIR/notified" "Agent pool|job is waiting"
        echo yes Enter >"$POOL/leases/job/keys"
        await contains "$DIR/notified" "Agent pool|job is ready"
        echo 'exit 3' >"$POOL/leases/job/prompt"
        await contains "$DIR/notified" "Agent pool|job is exited"
        assert_equal "$(grep -v ready "$DIR/notified")" $'Agent pool|job is waiting\nAgent pool|job is exited'
        assert_equal "$(jq -s '[.[] | select(.event == "activity")] | group_by(.agent)
            | all([.[].from][1:] == [.[].to][:-1])' "$POOL/events")" true # none is left out
        echo job >"$POOL/release"
        end_recipe
        unmount_pool
        rm "$DIR/notified"
    done
}

@test "a webhook has it when no agent can be started" {
    command_of agent 'exec bash'
    command_of curl "printf '%s\n' \"\$@\" >>$DIR/posted"
    export WEBHOOK=http://chat/hook
    local shell
    for shell in bash dash; do
        command_of agent 'exec bash'
        mount_pool 1 3 -- agent
        begin_recipe $shell "A webhook"
        await following
        command_of agent 'exit 1'
        echo 3 >"$POOL/scale"
        await contains "$DIR/posted" open
        run cat "$DIR/posted"
        assert_line http://chat/hook
        assert_line "Content-Type: application/json"
        run jq -rse '.[0].text' <<<"$(grep '^{' "$DIR/posted")"
        assert_output --partial "Starting agents: open"
        end_recipe
        unmount_pool
        rm -r "$DIR/posted" "$STATE"
    done
}

@test "a lease by handle prompts, prints the answer and ends with the program, in sh, Python, Node and C" {
    mount_pool 1 1
    local shell
    for shell in bash dash; do
        run recipe $shell "A lease in a shell"
        lease_has_answered
    done
    shell=python3
    run recipe $shell "A lease in Python"
    lease_has_answered
    shell=node
    run recipe $shell "A lease in Node"
    lease_has_answered
    cc -x c -Wall -Wextra -Werror -o "$DIR/bin/lease" "$DIR/blocks/A lease in C"
    cd "$POOL"
    run lease 3>&-
    cd /
    lease_has_answered
}

lease_has_answered() {
    assert_success
    assert_output "fixed the flaky auth test"
    await value_is "$POOL/stats/idle_agents" 1
    on_branch fix-auth fixed "fixed the flaky auth test"
    forget_branches
}

@test "one prompt goes to several agents, and the smallest diff that passes the tests is kept" {
    printf 'test:\n\tgrep -q good fixed\n' >"$REPO/Makefile"
    git -C "$REPO" add Makefile && git -C "$REPO" commit -qm Makefile
    BEFORE=$(fingerprint)
    command_of Fix 'case $(cat "$AGENTPOOL_DIR/lease") in
        try-1) seq 100 >fixed; echo good >>fixed ;;
        try-2) echo bad >fixed ;;
        try-3) echo good >fixed ;;
        esac'
    mount_pool 3 3
    local shell
    for shell in bash dash; do
        run recipe $shell "One prompt for several agents"
        assert_success
        assert_output "leases/try-1/wait:ready
leases/try-2/wait:ready
leases/try-3/wait:ready"
        run recipe $shell "The best of several diffs"
        assert_success
        assert_output ""
        assert_equal "$(branches)" try-3
        on_branch try-3 fixed good
        assert no_lease
        forget_branches
        await value_is "$POOL/stats/idle_agents" 3
    done
}

@test "where no diff passes the tests, all leases stay" {
    mount_pool 2 2
    echo try-1 >"$POOL/acquire"
    echo try-2 >"$POOL/acquire"
    local shell
    for shell in bash dash; do
        run recipe $shell "The best of several diffs"
        assert_equal "$(ls "$POOL/leases" | paste -sd' ')" "try-1 try-2"
    done
    echo try-1 >"$POOL/release"
    echo try-2 >"$POOL/release"
}

@test "the first that is ready is kept, whoever has ended before" {
    command_of Fix "case \$(cat \"\$AGENTPOOL_DIR/lease\") in
        race-1) kill -9 \$PPID ;;
        race-2) until grep -qx exited $POOL/leases/race-1/activity; do sleep 0.1; done; echo second >fixed ;;
        race-3) exec tail -f /dev/null ;;
        esac"
    mount_pool 3 3
    run recipe bash "The first of several"
    assert_success
    assert_equal "$(branches)" race-2
    on_branch race-2 fixed second
    assert no_lease
    await nobody_waits
}

nobody_waits() {
    ! left_processes | grep -q 'grep -qx ready'
}

@test "a queue of prompts becomes branches, and who has a question keeps the lease" {
    mount_pool 2 2
    mkdir "$HOME/prompts"
    local shell
    for shell in bash dash; do
        for n in 1 2 3 4 5; do echo "echo $shell $n > done" >"$HOME/prompts/job-$n"; done
        printf 'echo two > more\nread -p "sure? " x\n' >"$HOME/prompts/ask"
        run recipe $shell "A queue of prompts"
        assert_equal "$(branches)" "job-1 job-2 job-3 job-4 job-5"
        for n in 1 2 3 4 5; do on_branch job-$n done "$shell $n"; done
        assert_equal "$(ls "$POOL/leases")" ask
        value_is "$POOL/leases/ask/activity" waiting
        echo "ask discard" >"$POOL/release"
        forget_branches
    done
}

as_cron_does() { # LINE
    local minute command
    read -r minute _ _ _ _ command <<<"$1"
    assert_equal "$minute" 30
    env -i HOME="$HOME" LOGNAME="$(id -un)" PATH=/usr/bin:/bin SHELL=/bin/sh sh -c "$command"
}

@test "a nightly job mounts the pool, prompts an agent, and prints its answer" {
    claude_is_a_shell
    mv "$DIR/bin/agentpoolfs" "$HOME/.local/bin"
    command_of crontab "if [ \$1 = -l ]; then cat $DIR/crontab; else cat >$DIR/crontab.new; mv $DIR/crontab.new $DIR/crontab; fi"
    command_of Update 'echo "updated $*" | tee updated'
    mv "$DIR/bin/Update" "$HOME/.local/bin"
    local shell
    for shell in bash dash; do
        echo "0 0 * * * what was there" >"$DIR/crontab"
        PLACE=$HOME run recipe $shell "A nightly job"
        assert_success
        assert_equal "$(wc -l <"$DIR/crontab")" 2
        run as_cron_does "$(tail -n 1 "$DIR/crontab")"
        assert_success
        assert_line "updated the dependencies"
        assert_line --partial "1 file changed"
        await no_lease
        on_branch "$(branches)" updated "updated the dependencies"
        run as_cron_does "$(tail -n 1 "$DIR/crontab")" # the pool is mounted now
        assert_success
        await no_lease
        assert grep -q ^nightly-20 <<<"$(branches)"
        end_pool "$POOL"
        forget_branches
    done
}

@test "an agent leases another, which begins with its work" {
    mount_pool 2 2
    command_of Review 'git --no-pager log -1 --format="%s, by $AGENTPOOL_NAME"; cat work'
    echo parent agent=agent-1 >"$POOL/acquire"
    local shell
    for shell in bash dash; do
        echo "echo $shell > work; $shell '$BLOCKS/An agent that leases another'" >"$POOL/leases/parent/prompt"
        assert_equal "$(cat "$POOL/leases/parent/response")" "Ready for review, by agent-2
$shell"
        await value_is "$POOL/stats/idle_agents" 1
    done
    echo parent >"$POOL/release"
}

@test "who waits for an answer is shown with what it offers, and gets an answer" {
    mount_pool 1 1
    echo job >"$POOL/acquire"
    local shell answer got
    for shell in bash:allow:y dash:reject:n; do
        IFS=: read -r shell answer got <<<"$shell"
        echo 'read -p "are you sure? [y/n] " a; echo "got $a"' >"$POOL/leases/job/prompt"
        value_is "$POOL/leases/job/wait" waiting
        run recipe $shell "An agent that waits for an answer" <<<"$answer"
        assert_success
        assert_line "title are you sure? [y/n]"
        assert_output --partial "agents/agent-1, answer: "
        await contains "$POOL/leases/job/output" "got $got"
        value_is "$POOL/leases/job/wait" ready
    done
    echo job >"$POOL/release"
}

@test "a program that has ended is shown, and starts again" {
    mount_pool 2 2
    echo job >"$POOL/acquire"
    local shell
    for shell in bash dash; do
        echo 'echo last words; exit 7' >"$POOL/leases/job/prompt"
        value_is "$POOL/leases/job/wait" exited
        run recipe $shell "A program that has ended"
        assert_success
        assert_output --partial "last words"
        assert_line --partial "7 "
        await value_is "$POOL/leases/job/activity" ready
    done
    echo job >"$POOL/release"
}

@test "a program at its limit is told of, and goes on when that is over; what a lease has cost is told, and ends at its budget" {
    local shell
    export ACP_HOME=$DIR/acp ACP_PROMPTS=$DIR/acp/prompts
    mkdir "$ACP_HOME"
    printf '%s\n' 'mode = acp' 'limited = answer "message":"in (?<in>[^"]+)"' 'continue = say go on' >"$DIR/acp.conf"
    for shell in bash dash; do
        : >"$ACP_PROMPTS"
        mount_pool 2 2 -o "program_profile=$DIR/acp.conf" -- python3 -u "$BATS_TEST_DIRNAME/acp_agent.py"
        echo other >"$POOL/acquire"
        run recipe $shell "When the limit is over"
        assert_success
        run recipe $shell "A lease with a budget"
        assert_success
        assert_equal "$(cat "$POOL/leases/fix-auth/wait")" ready
        echo "limit in 2s" >"$POOL/leases/fix-auth/prompt"
        assert_equal "$(cat "$POOL/leases/fix-auth/wait")" limited
        run recipe $shell "A program at its limit"
        assert_success
        assert_output "fix-auth until $(cat "$POOL/leases/fix-auth/until")"
        await grep -q "$(printf 'say go on' | sha256sum | cut -d' ' -f1)" "$ACP_PROMPTS"
        await value_is "$POOL/leases/fix-auth/activity" ready
        echo "use 1 1 0 3 wait" >"$POOL/leases/fix-auth/prompt"
        assert_equal "$(cat "$POOL/leases/fix-auth/wait")" ready
        assert_equal "$(cat "$POOL/leases/fix-auth/stop_reason")" cancelled
        run recipe $shell "What it has cost"
        assert_output "$(printf 'fix-auth 3\nother ')"
        echo fix-auth >"$POOL/release"
        echo other >"$POOL/release"
        unmount_pool
        rm -r "$STATE"
    done
}

@test "who is busy for too long is started again, and nobody else" {
    command_of sleep 'exec /bin/sleep 0.02'
    mount_pool 2 2
    echo long >"$POOL/acquire"
    echo other >"$POOL/acquire"
    local long other
    long=$(program_of "$POOL/leases/long")
    other=$(program_of "$POOL/leases/other")
    echo "tail -f /dev/null" >"$POOL/leases/long/prompt"
    begin_recipe bash "An agent that is busy for too long"
    assert_equal "$(cat "$POOL/leases/long/wait")" ready
    refute [ "$(program_of "$POOL/leases/long")" = "$long" ]
    end_recipe
    value_is "$POOL/leases/other/pid" "$other"
    assert_equal "$(cat "$DIR/printed")" ""
    echo long >"$POOL/release"
    echo other >"$POOL/release"
}

@test "git merges the work of a lease" {
    REPO_CHANGED=yes
    mount_pool 1 1
    local shell
    for shell in bash dash; do
        save_label fix-auth "echo $shell > $shell"
        PLACE=$REPO run recipe $shell "Merge"
        assert_success
        assert_line --partial "agentpool: work of lease fix-auth"
        assert [ -e "$REPO/$shell" ]
    done
}

@test "git puts the work of a lease on top of main" {
    REPO_CHANGED=yes
    mount_pool 1 1
    local shell
    for shell in bash dash; do
        save_label fix-auth "echo $shell > $shell"
        git -C "$REPO" commit -q --allow-empty -m "on main, $shell"
        PLACE=$REPO run recipe $shell "Rebase"
        assert_success
        assert_equal "$(git -C "$REPO" log -2 --format=%s main)" "agentpool: work of lease fix-auth
on main, $shell"
        assert_equal "$(git -C "$REPO" branch --show-current)" main
        assert [ -e "$REPO/$shell" ]
    done
}

@test "git deletes the branches that are merged, and no others" {
    REPO_CHANGED=yes
    mount_pool 1 1
    local shell
    for shell in bash dash; do
        save_label merged "echo $shell > merged"
        save_label too "echo $shell > too"
        save_label open "echo $shell > open"
        git -C "$REPO" merge -q --no-edit agentpool/merged
        git -C "$REPO" merge -q --no-edit agentpool/too
        PLACE=$REPO run recipe $shell "Delete what is merged"
        assert_success
        assert_equal "$(branches)" open
        PLACE=$REPO run recipe $shell "Delete what is merged"
        assert_success
        assert_output ""
    done
}

@test "git deletes what lies beside the branch of a lease, and of no other" {
    mount_pool 1 1
    local shell label
    for shell in bash dash; do
        for label in fix-auth fix-auth-2; do
            save_label $label "git init -q inner; cd inner; git commit -q --allow-empty -m $shell; cd .."
        done
        assert [ "$(git -C "$REPO" for-each-ref refs/agentpool/fix-auth | wc -l)" -gt 0 ]
        PLACE=$REPO run recipe $shell "Delete what lies beside a branch"
        assert_success
        assert_equal "$(git -C "$REPO" for-each-ref refs/agentpool/fix-auth)" ""
        assert [ "$(git -C "$REPO" for-each-ref refs/agentpool/fix-auth-2 | wc -l)" -gt 0 ]
    done
}

@test "work is thrown away" {
    mount_pool 1 1
    local shell
    for shell in bash dash; do
        echo fix-auth >"$POOL/acquire"
        echo "echo x > x" >"$POOL/leases/fix-auth/prompt"
        value_is "$POOL/leases/fix-auth/wait" ready
        PLACE=$REPO run recipe $shell "Throw work away"
        assert_success
        assert no_lease
        assert_equal "$(branches)" ""
    done
}

@test "what the last lease of a label left is had back, ignored files too" {
    mount_pool 1 1
    local shell
    for shell in bash dash; do
        save_label fix-auth "echo '*.log' > .gitignore; echo old > x.log"
        save_label fix-auth "echo $shell > x.log"
        PLACE=$REPO run recipe $shell "Have back what a lease left"
        assert_success
        value_is "$POOL/leases/fix-auth-again/worktree/x.log" "$shell"
        echo "fix-auth-again discard" >"$POOL/release"
    done
}

@test "ten lines of shell size a pool" {
    command_of sleep 'exec /bin/sleep 0.05'
    local shell
    for shell in bash dash; do
        mount_pool 1 3
        begin_recipe $shell "A policy of your own"
        echo one >"$POOL/acquire" # all agents serve
        await value_is "$POOL/stats/desired_agents" 2
        echo two >"$POOL/acquire"
        echo three >"$POOL/acquire"
        await value_is "$POOL/stats/desired_agents" 3
        for label in one two three; do echo $label >"$POOL/release"; done
        await value_is "$POOL/scale" "manual 1"
        fusermount3 -uz "$POOL"
        await gone "$RECIPE"
        unmount_pool
        rm -rf "$STATE"
    done
}

@test "Claude Code has a hook that reports" {
    cat >"$DIR/bin/claude" <<'END'
#!/usr/bin/env bash
# of the real one what reads the settings of a project: its hooks, now and then
settings=.claude/settings.local.json
while :; do
    jq -r '.hooks.Notification[] | select(.matcher == "elicitation_dialog").hooks[].command' $settings | sh
    sleep 0.3
done
END
    chmod +x "$DIR/bin/claude"
    local shell command
    for shell in bash dash; do
        PLACE=$REPO run recipe $shell "Hooks of Claude Code"
        assert_success
        assert_equal "$(git -C "$REPO" status --porcelain)" "?? .worktreeinclude"
        command=$(jq -r '.hooks.Notification[0].hooks[0].command' "$REPO/.claude/settings.local.json")
        assert_equal "$(cd "$DIR" && env -u AGENTPOOL_DIR sh -c "$command" 2>/dev/null)" "" # for who is no agent
        mount_pool 1 1 -- claude
        echo fix-auth >"$POOL/acquire"
        await reported fix-auth waiting
        echo fix-auth >"$POOL/release"
        assert_equal "$(branches)" ""
        unmount_pool
        rm -r "$REPO/.claude" "$REPO/.worktreeinclude" "$STATE"
    done
}

@test "a program reports what it does" {
    printf 'hello:\n\t@echo hello from make\n\t@until [ -e %s/go ]; do sleep 0.1; done\n' "$DIR" >"$REPO/Makefile"
    git -C "$REPO" add Makefile && git -C "$REPO" commit -qm Makefile
    BEFORE=$(fingerprint)
    local shell
    for shell in bash dash; do
        mount_pool 1 1 -- env $shell "$DIR/blocks/A program of your own"
        echo job >"$POOL/acquire"
        await reported job ready
        echo hello >"$POOL/leases/job/prompt"
        await contains "$POOL/leases/job/screen" "hello from make"
        await reported job busy
        touch "$DIR/go"
        assert_equal "$(cat "$POOL/leases/job/wait")" ready
        echo job >"$POOL/release"
        unmount_pool
        rm "$DIR/go"
    done
}

@test "each repository gets a pool" {
    claude_is_a_shell
    git clone -q "$REPO" "$HOME/src/lib"
    local shell pool
    for shell in bash dash; do
        PLACE=$HOME run recipe $shell "Several pools"
        assert_success
        assert_line --partial "app  1 agent"
        assert_line --partial "lib  1 agent"
        PLACE=$HOME run recipe $shell "Several pools" # they are mounted already
        assert_success
        for pool in app lib; do
            await value_is "$HOME/pools/$pool/stats/idle_agents" 1
            fusermount3 -u "$HOME/pools/$pool"
        done
        await nothing_runs
    done
}

@test "what pools have left goes, and pools that are mounted stay" {
    git clone -q "$REPO" "$HOME/src/lib"
    mkdir "$DIR/other"
    "$AGENTPOOLFS" "$HOME/src/lib" "$DIR/other"
    local shell
    for shell in bash dash; do
        mount_pool 1 1 -o persist=yes
        unmount_pool
        assert [ -e "$STATE" ]
        PLACE=$HOME run recipe $shell "Pools that are no more"
        assert_success
        assert [ ! -e "$STATE" ]
        assert_equal "$("$AGENTPOOLFS" --list | cut -f 1)" alive
    done
    end_pool "$DIR/other"
}
