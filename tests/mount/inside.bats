#!/usr/bin/env bats
# Overlays for everybody: where the daemon may not mount them, it and its agents live in namespaces of their own
# (core/pool/inside.c), and all of this is as for root.
# bats file_tags=mount

load helper

setup() {
    common_setup
}

teardown() {
    common_teardown
}

tree_of() { # LABEL
    readlink "$POOL/leases/$1/worktree"
}

# What a command prints that the agent runs.
agent_says() { # LABEL COMMAND
    echo "$2" >"$POOL/leases/$1/prompt"
    cat "$POOL/leases/$1/response"
}

@test "worktrees are overlays, at one path for the agent and for everybody of the user" {
    mount_pool 1 1
    assert_equal "$(cat "$POOL/stats/spawn_backend")" overlay
    echo job >"$POOL/acquire"
    local tree
    tree=$(tree_of job)
    assert_equal "$tree" "$STATE/worktrees/agent-1"
    assert_equal "$(agent_says job pwd)" "$tree"
    agent_says job 'echo agent >by-agent'
    assert_equal "$(cat "$tree/by-agent")" agent
    echo me >"$tree/by-me"
    assert_equal "$(agent_says job 'cat by-me')" me
    # also where somebody asks for where he is
    assert_equal "$(cd "$tree" && python3 -c 'import os; print(os.getcwd())')" "$tree"
    assert_equal "$(command git -C "$tree" rev-parse --show-toplevel)" "$tree"
    assert_equal "$(command git -C "$tree" status --porcelain)" $'?? by-agent\n?? by-me'
    assert_equal "$(diff -rq "$REPO" "$tree" | grep -c "Only in $tree")" 2
    assert_equal "$(stat -c %u "$tree/by-agent")" "$(id -u)"
    # what the user is in the mount
    assert_equal "$(agent_says job 'cat "$AGENTPOOL_DIR/lease"')" job
    assert_equal "$(agent_says job 'cat "$AGENTPOOL_DIR"/worktree/by-me')" me
}

@test "enter runs a command in the worktree, with its words, or says how it ended" {
    mount_pool 1 1
    echo job >"$POOL/acquire"
    assert_equal "$(sh "$POOL/leases/job/enter" sh -c 'pwd; echo "$1"' - "two words")" "$(tree_of job)"$'\ntwo words'
    run sh "$POOL/leases/job/enter" sh -c 'exit 7'
    assert_equal "$status" 7
    assert_equal "$(echo pwd | SHELL=/bin/sh sh "$POOL/leases/job/enter")" "$(tree_of job)"
    sh "$POOL/leases/job/enter" git init -q inner # finds links by itself
    assert [ -e "$(tree_of job)/inner/.git" ]
    assert_equal "$(agent_says job 'sh "$AGENTPOOL_DIR/enter" pwd')" "$(tree_of job)"
    # nobody has more rights there than outside
    assert_equal "$(sh "$POOL/leases/job/enter" sed -n 's/^CapEff:\t//p' /proc/self/status)" \
        "$(sed -n 's/^CapEff:\t//p' /proc/self/status)"
}

@test "a daemon that is killed leaves worktrees as they are, and the next one and its agents see the same" {
    mount_pool 2 2
    echo one >"$POOL/acquire"
    local tree
    tree=$(tree_of one)
    agent_says one 'echo 1 >one; rm file-0; shell=here'
    crash_pool
    assert_equal "$(cat "$tree/one")" 1
    mount_again 2 2
    assert_equal "$(tree_of one)" "$tree"
    assert_equal "$(cat "$tree/one")" 1
    assert [ ! -e "$tree/file-0" ]
    assert_equal "$(agent_says one 'echo $shell; cat one; cat "$AGENTPOOL_DIR/lease"')" $'here\n1\none'
    echo two >"$POOL/acquire" # an agent of before, or one made since: they are together
    agent_says two 'echo 2 >two'
    assert_equal "$(cat "$(tree_of two)/two")" 2
    echo one >"$POOL/release"
    echo two >"$POOL/release"
    assert_equal "$(git -C "$REPO" show agentpool/one:one)$(git -C "$REPO" show agentpool/two:two)" 12
    run git -C "$REPO" cat-file -e agentpool/one:file-0
    assert_failure
}

@test "over the death of every process of the pool leases' files are there again" {
    mount_pool 1 1
    echo job >"$POOL/acquire"
    agent_says job 'echo 1 >one'
    crash_pool
    local pid
    while read -r pid _; do kill -9 "$pid" 2>/dev/null || true; done < <(left_processes)
    await nothing_runs
    mount_again 1 1
    assert_equal "$(cat "$(tree_of job)/one")" 1
    echo job >"$POOL/release"
    assert_equal "$(git -C "$REPO" show agentpool/job:one)" 1
}

@test "without its store the state directory is one, and what agents did is saved" {
    mount_pool 1 1
    echo job >"$POOL/acquire"
    agent_says job 'echo 1 >one'
    crash_pool
    rm "$STATE"/state.db*
    LOG_EXPECTED=yes
    mount_pool 1 1
    assert_equal "$(git -C "$REPO" show agentpool/job:one)" 1
}

@test "with persist=yes agents stay when the pool is unmounted, and are reached again" {
    mount_pool 1 1 -o persist=yes
    echo job >"$POOL/acquire"
    agent_says job 'echo 1 >one; shell=here'
    unmount_pool
    mount_again 1 1 -o persist=yes
    assert_equal "$(cat "$(tree_of job)/one")" 1
    assert_equal "$(agent_says job 'echo $shell; cat "$AGENTPOOL_DIR/lease"')" $'here\njob'
    unmount_pool
    mount_again 1 1
    assert_equal "$(agent_says job 'echo $shell')" here
    echo job >"$POOL/release"
}

@test "the way that worktrees are made can change from one daemon to the next, with work in them" {
    local backend pid
    for backend in copy auto copy; do
        mount_again 1 2 -o "spawn_backend=$backend"
        [ -e "$POOL/leases/job" ] || echo job >"$POOL/acquire"
        echo $backend >>"$(tree_of job)/made"
        assert_equal "$(cat "$(tree_of job)/file-1")" 1
        assert_equal "$(sh "$POOL/leases/job/enter" cat made)" "$(cat "$(tree_of job)/made")"
        crash_pool
        while read -r pid _; do kill -9 "$pid" 2>/dev/null || true; done < <(left_processes)
        await nothing_runs
    done
    mount_again 1 2
    echo job >"$POOL/release"
    assert_equal "$(git -C "$REPO" show agentpool/job:made | tr '\n' ' ')" "copy auto copy "
}

@test "the end of the pool leaves no process, mount, link or directory" {
    mount_pool 2 2
    echo job >"$POOL/acquire"
    agent_says job 'echo 1 >one'
    local daemon=$DAEMON
    kill "$DAEMON" # it unmounts where the pool was mounted
    await gone "$daemon"
    DAEMON=
    assert_equal "$(git -C "$REPO" show agentpool/job:one)" 1
    assert_equal "$(grep "$DIR" /proc/self/mountinfo)" ""
    await nothing_left
    assert [ ! -e "$STATE/worktrees" ]
    assert [ ! -e "$STATE/inside" ]
}

@test "a pool that cannot start leaves nothing mounted" {
    printf '#!/bin/sh\nexit 1\n' >"$DIR/tmux" # of the terminals
    chmod +x "$DIR/tmux"
    LOG_EXPECTED=yes
    PATH="$DIR:$PATH" run timeout 60 "$AGENTPOOLFS" -o "state_dir=$STATE" "$REPO" "$POOL" 3>&-
    assert_failure
    await nothing_runs
    run mountpoint -q "$POOL"
    assert_failure
}

@test "links that somebody removes or bends lead to the worktree again at the next lease" {
    mount_pool 1 1
    is_root || rm -f "$STATE/worktrees/agent-1"
    echo job >"$POOL/acquire"
    assert_equal "$(cat "$(tree_of job)/file-1")" 1
    echo job >"$POOL/release"
    await value_is "$POOL/stats/idle_agents" 1
    is_root || ln -sfn / "$STATE/worktrees/agent-1"
    echo job >"$POOL/acquire"
    assert_equal "$(cat "$(tree_of job)/file-1")" 1
}

# Has an ordinary user mount with an option, and say what his worktrees are and why.
worktrees_of_user() { # VARIABLE OPTION, of scripts/as-user and of the mount
    local user_tmp
    user_tmp=$(mktemp -d -p "$DIR")
    chmod 755 "$DIR"
    chmod 777 "$user_tmp"
    cat >"$DIR/script" <<'SH'
set -e
cd "$(mktemp -d)"
git init -q repo && git -C repo -c user.name=u -c user.email=u@e commit -q --allow-empty -m first
mkdir pool
"$AGENTPOOLFS" -o "state_dir=$PWD/state,$1" repo pool || exit 3
cat pool/stats/spawn_backend
jq -r 'select(.event == "no_overlay") | .instead + ": " + (.inside // .reason)' pool/events
fusermount3 -u pool
SH
    run env "$1" TMPDIR="$user_tmp" "$BATS_TEST_DIRNAME/../../scripts/as-user" \
        env TMPDIR="$user_tmp" AGENTPOOLFS="$AGENTPOOLFS" GIT_CONFIG_GLOBAL=/dev/null bash "$DIR/script" "$2"
}

@test "where mounts are private an ordinary user's worktrees are copies, and an event says why" {
    needs_root "for an ordinary user of the test's own"
    worktrees_of_user AS_USER_MOUNTS=private spawn_backend=auto
    assert_success
    assert_line --index 0 copy
    assert_line --index 1 --regexp '^copy: mounts at .*/pool are private'
    worktrees_of_user AS_USER_MOUNTS=private spawn_backend=overlay
    assert_equal "$status" 3
    assert_output --partial "spawn_backend=overlay: mounts at "
}

@test "where namespaces are forbidden an ordinary user's worktrees are copies, and an event says why" {
    needs_root "for an ordinary user of the test's own"
    worktrees_of_user AS_USER_NAMESPACES=no spawn_backend=auto
    assert_success
    assert_line --index 0 copy
    assert_line --index 1 "copy: a user namespace: Operation not permitted"
    worktrees_of_user AS_USER_NAMESPACES=no spawn_backend=overlay
    assert_equal "$status" 3
    assert_output --partial "spawn_backend=overlay: a user namespace: Operation not permitted"
}
