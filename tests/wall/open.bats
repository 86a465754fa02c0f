# The attempts of wall.bats are real: without a wall they succeed, as tests/wall/open says. What nothing lets succeed, wall or
# not, is seen when something does.

load wall

setup() {
    load_library
}

teardown() {
    if [ -n "${FIRST:-}" ]; then unmount_pools; fi
}

@test "without a wall the attempts that tests/wall/open names succeed, and no others" {
    run "$BATS_TEST_DIRNAME/outcomes" --check
    assert_output ""
    assert_success
}

say() { # PROMPT
    echo "$1" >"$POOL/leases/attacker/prompt"
    timeout 60 cat "$POOL/leases/attacker/wait" >/dev/null
}

@test "an attempt that nothing lets succeed is seen to succeed when something does" {
    mount_pools ""
    local tree
    tree=$(readlink "$POOL/leases/attacker/worktree")
    say "exec 9<'$HOME'"
    assert_equal "$(attempt 11-open-descriptors)" open
    tmux -S "$STATE/tmux.sock" set -g allow-passthrough on
    assert_equal "$(attempt 47-clipboard)" open
    assert_equal "$(attempt 38-pool-runs-it)" held
    git -C "$tree" status >/dev/null 2>&1 || true
    assert [ -e "$OUT/ran" ]
    say "rm .gitattributes; git config --unset core.fsmonitor; cat '$HOME/.ssh/id_ed25519' > file-1"
    assert_equal "$(attempt 39-pool-reads-it)" open
}
