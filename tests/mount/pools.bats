# The pools of a user, as one sees them who is no daemon: agentpoolfs --list and --forget.

load helper

setup() { common_setup; }
teardown() { common_teardown; }

# The pool of this test in the list: alive or dead, leases, kept work, mount point.
listed() {
    "$AGENTPOOLFS" --list | awk -F '\t' -v state="$STATE" '$6 == state { print $1, $2, $3, $5 }'
}

lines_of_list() {
    "$AGENTPOOLFS" --list | wc -l
}

@test "--list has every pool of the user, alive and dead, wherever its state directory is" {
    assert_equal "$("$AGENTPOOLFS" --list)" ""
    mount_pool 2 2 -o keep_work=1d
    assert_equal "$(listed)" "alive 0 0 $POOL"
    assert_equal "$("$AGENTPOOLFS" --list | cut -f 4)" "$(realpath "$REPO")"
    echo job > "$POOL/acquire"
    assert_equal "$(listed)" "alive 1 0 $POOL"
    crash_pool
    assert_equal "$(listed)" "dead 1 0 $POOL"
    mount_again 2 2 -o keep_work=1d
    printf '*.log\n' > "$POOL/leases/job/worktree/.gitignore"
    echo kept > "$POOL/leases/job/worktree/x.log"
    echo job > "$POOL/release"
    await value_is "$POOL/stats/kept" 1
    assert_equal "$(listed)" "alive 0 1 $POOL"
    unmount_pool
    assert_equal "$(listed)" "dead 0 1 -"
    rm -rf "$STATE"
    assert_equal "$("$AGENTPOOLFS" --list)" ""
}

@test "--list says the same of a pool where state directories are by default, one line whatever its name is" {
    local parent=$HOME/.local/state/agentpoolfs odd=$DIR/$'odd\tna\nme'
    git clone -q "$REPO" "$odd"
    mkdir "$POOL"
    "$AGENTPOOLFS" "$odd" "$POOL"
    STATE=$(echo "$parent"/*)
    assert_equal "$(lines_of_list)" 1
    run "$AGENTPOOLFS" --list
    assert_output --partial "$(printf 'alive\t0\t0\t%s' "$(realpath "$DIR")")/odd\\tna\\nme"
    fusermount3 -u "$POOL"
    await bash -c "'$AGENTPOOLFS' --list | grep -q ^dead"
    "$AGENTPOOLFS" --forget "$odd"
    assert_equal "$(ls -A "$parent")" ""
}

@test "--forget removes what a pool has left, with the idle agents in it, and the link that leads there" {
    mount_pool 2 2 -o persist=yes
    unmount_pool
    assert [ -n "$(left_processes)" ]
    "$AGENTPOOLFS" --forget "$REPO"
    assert [ ! -e "$STATE" ]
    assert_equal "$("$AGENTPOOLFS" --list)" ""
    assert_equal "$(ls -A "$HOME/.local/state/agentpoolfs")" ""
    await nothing_left
    mount_pool 1 1 # as if there had never been one
    assert_equal "$(ls "$POOL/agents")" agent-1
    crash_pool
    "$AGENTPOOLFS" --forget "$STATE" # named itself
    assert [ ! -e "$STATE" ]
    if mountpoint -q "$POOL"; then umount -l "$POOL" 2>/dev/null || fusermount3 -uz "$POOL"; fi
}

refuses() { # SENTENCE
    local before
    before=$(find "$STATE" -maxdepth 2 ! -name 'state.db*' | sort)
    run "$AGENTPOOLFS" --forget "$REPO"
    assert_failure 1
    assert_output --partial "$1"
    assert_equal "$(find "$STATE" -maxdepth 2 ! -name 'state.db*' | sort)" "$before"
}

@test "--forget refuses while a daemon serves the pool, a lease is not saved, or work is kept" {
    mount_pool 1 1 -o keep_work=1d
    refuses "in use by process $DAEMON"
    echo job > "$POOL/acquire"
    echo work > "$POOL/leases/job/worktree/work"
    crash_pool
    refuses "has work that is not saved, of 1 lease:"
    mount_again 1 1 -o keep_work=1d
    assert_equal "$(cat "$POOL/leases/job/worktree/work")" work
    printf '*.log\n' > "$POOL/leases/job/worktree/.gitignore"
    echo kept > "$POOL/leases/job/worktree/x.log"
    echo job > "$POOL/release"
    await value_is "$POOL/stats/kept" 1
    unmount_pool
    refuses "kept has what 1 lease left:"
    rm -rf "$STATE"/kept/*
    "$AGENTPOOLFS" --forget "$REPO"
    assert [ ! -e "$STATE" ]
    assert_equal "$(git -C "$REPO" show agentpool/job:work)" work
    run "$AGENTPOOLFS" --forget "$REPO"
    assert_failure 1
    assert_output --partial "there is no pool of $REPO"
}

@test "--forget finds the pool of a repository that is gone, and from another worktree of it" {
    REPO_CHANGED=yes
    mount_pool 1 1
    unmount_pool
    git -C "$REPO" worktree add -q "$DIR/other"
    "$AGENTPOOLFS" --forget "$DIR/other"
    assert [ ! -e "$STATE" ]
    git -C "$REPO" worktree remove "$DIR/other"
    mount_pool 1 1
    unmount_pool
    mv "$REPO" "$DIR/gone"
    "$AGENTPOOLFS" --forget "$REPO"
    assert [ ! -e "$STATE" ]
    mv "$DIR/gone" "$REPO"
}
