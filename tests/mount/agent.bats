# Agents: prompts, waiting for answers, looking at what was done, ends of programs.

load helper

setup() { common_setup; }
teardown() { common_teardown; }

prompt() { # TEXT
    printf '%s\n' "$1" > "$POOL/leases/job/prompt"
}

wait_for_job() {
    timeout 60 cat "$POOL/leases/job/wait"
}

@test "a prompt runs, wait returns when it is done, and the work shows everywhere" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    local job=$POOL/leases/job
    assert_equal "$(wait_for_job)" ready # it may be starting
    prompt 'echo made > new-file; echo changed >> file-0; sleep 1; echo fin""ished'
    assert_equal "$(cat "$job/activity")" busy
    assert_equal "$(wait_for_job)" ready
    assert contains "$job/screen" finished
    assert contains "$job/output" finished
    assert contains "$job/diff" "+changed"
    assert contains "$job/diff" "+made"
    assert contains "$job/diffstat" "2 files changed"
    await value_is "$job/prompts" 1
    assert [ -n "$(cat "$job/why")" ]
    assert_equal "$(git -C "$(readlink "$job/worktree")" branch --show-current)" agentpool/job
    assert_equal "$(cat "$job/head")" "$(git -C "$REPO" rev-parse HEAD)"
    echo job > "$POOL/release"
    assert_equal "$(git -C "$REPO" show agentpool/job:new-file)" made
    assert_equal "$(git -C "$REPO" show agentpool/job:file-0)" "0
changed"
    assert [ ! -e "$REPO/new-file" ]
    git -C "$REPO" log -1 --format=%B agentpool/job > "$DIR/message"
    assert contains "$DIR/message" "lease job"
    assert contains "$DIR/message" "agent-1"
}

@test "an agent that was recycled answers prompts as a new one does, without waiting for silence" {
    mount_pool 1 1
    local all=() start
    for i in 1 2 3 4 5; do
        echo job > "$POOL/acquire"
        prompt "echo $i >> count"
        start=$EPOCHREALTIME
        assert_equal "$(wait_for_job)" ready
        all+=($(( (${EPOCHREALTIME/./} - ${start/./}) / 1000 )))
        refute contains "$POOL/leases/job/why" silence # it is known by its process, not by waiting
        echo job > "$POOL/release"
    done
    echo "# prompts took ${all[*]} ms" >&3
    assert_equal "$(git -C "$REPO" show agentpool/job:count | tr '\n' ' ')" "1 2 3 4 5 "
}

@test "the next lease starts clean from the newest HEAD" {
    mount_pool 1 1
    REPO_CHANGED=yes
    echo one > "$POOL/acquire"
    echo dirt > "$(readlink "$POOL/leases/one/worktree")/dirt"
    echo one > "$POOL/release"
    echo later > "$REPO/later"
    git -C "$REPO" add later
    git -C "$REPO" commit -qm later
    echo two > "$POOL/acquire"
    run ls "$(readlink "$POOL/leases/two/worktree")"
    assert_line later
    refute_line dirt
    assert_equal "$(cat "$POOL/leases/two/base")" "$(git -C "$REPO" rev-parse HEAD)"
    assert_equal "$(cat "$POOL/leases/two/diff")" ""
    refute grep -q dirt "$POOL/leases/two/output"
    echo two > "$POOL/release"
    run git -C "$REPO" branch --list 'agentpool/*'
    assert_output "  agentpool/one"
}

@test "a label goes on from its branch, discard throws away" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    echo 1 > "$(readlink "$POOL/leases/job/worktree")/one"
    echo job > "$POOL/release"
    echo job > "$POOL/acquire"
    assert_equal "$(cat "$POOL/leases/job/worktree/one")" 1
    echo 2 > "$(readlink "$POOL/leases/job/worktree")/two"
    echo job discard > "$POOL/release"
    run git -C "$REPO" ls-tree --name-only agentpool/job
    assert_line one
    refute_line two
}

@test "a branch that is checked out elsewhere is EBUSY and costs no agent" {
    mount_pool 1 1
    git -C "$REPO" worktree add -q -b agentpool/mine "$DIR/mine"
    run bash -c "echo mine > $POOL/acquire"
    assert_failure
    assert_output --partial "Device or resource busy"
    git -C "$REPO" worktree remove "$DIR/mine"
    git -C "$REPO" branch -q -D agentpool/mine
    assert_equal "$(cat "$POOL/stats/idle_agents")" 1
    assert_equal "$(cat "$POOL/stats/spawned_agents")" 1
}

@test "prompts are whole messages, in order, also long ones and many lines" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    prompt 'cat > many <<"END"
first line
  second \\ with $HOME and `backticks` and '"'quotes'"'
ünïcödé 漢字
END'
    prompt 'echo two >> order'
    prompt 'echo three >> order'
    python3 -c "print('echo ' + 'x' * 20000 + ' > long')" > "$POOL/leases/job/prompt"
    assert_equal "$(wait_for_job)" ready
    local tree
    tree=$(readlink "$POOL/leases/job/worktree")
    assert_equal "$(cat "$tree/many")" 'first line
  second \\ with $HOME and `backticks` and '"'quotes'"'
ünïcödé 漢字'
    assert_equal "$(cat "$tree/order")" "two
three"
    assert_equal "$(wc -c < "$tree/long")" 20001
    await value_is "$POOL/leases/job/prompts" 4
    echo job > "$POOL/release"
}

@test "what is written between open and close is one prompt" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    { echo 'for i in 1 2; do'; echo '  echo $i >> loop'; echo done; } > "$POOL/leases/job/prompt"
    assert_equal "$(wait_for_job)" ready
    assert_equal "$(cat "$(readlink "$POOL/leases/job/worktree")/loop")" "1
2"
    await value_is "$POOL/leases/job/prompts" 1
    echo job > "$POOL/release"
}

@test "a prompt over max_prompt is EMSGSIZE and nothing of it arrives" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    echo 100 > "$POOL/config/max_prompt"
    run bash -c "printf 'echo %0200d > f' 7 > $POOL/leases/job/prompt"
    assert_failure
    assert_output --partial "Message too long"
    assert_equal "$(wait_for_job)" ready
    assert_equal "$(cat "$POOL/leases/job/prompts")" 0
    assert_equal "$(cat "$POOL/leases/job/diff")" ""
    echo job > "$POOL/release"
}

@test "any other program is ready when it reads its terminal, and takes prompts" {
    mount_pool 1 1 -- cat
    echo job > "$POOL/acquire"
    assert_equal "$(wait_for_job)" ready
    prompt "hello cat"
    assert_equal "$(wait_for_job)" ready
    assert_equal "$(grep -c 'hello cat' "$POOL/leases/job/output")" 2 # echoed, then printed
    assert contains "$POOL/leases/job/why" "reads its terminal"
    printf '%05000d\n' 1 > "$POOL/leases/job/prompt"
    run wait_for_job
    assert_failure
    assert_output --partial "Input/output error"
    assert contains "$POOL/last_error" "over 4095 bytes"
    refute grep -q 00000 "$POOL/leases/job/output" # would have been cut by the terminal
    echo job > "$POOL/release"
}

@test "keys reach the program" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    prompt 'read -p "su""re? " answer; echo "answer is $answer" > answer'
    await contains "$POOL/leases/job/screen" "sure?"
    echo "y e s Enter" > "$POOL/leases/job/keys"
    await test -e "$(readlink "$POOL/leases/job/worktree")/answer"
    assert_equal "$(cat "$(readlink "$POOL/leases/job/worktree")/answer")" "answer is yes"
    prompt 'sleep 1000'
    await contains "$POOL/leases/job/why" "has the terminal"
    echo C-c > "$POOL/leases/job/keys"
    assert_equal "$(wait_for_job)" ready
    echo job > "$POOL/release"
}

@test "a waiting reader of wait can be interrupted" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    prompt 'sleep 1000'
    cat "$POOL/leases/job/wait" &
    local reader=$!
    await contains "$POOL/leases/job/why" "has the terminal"
    kill $reader
    await gone $reader
    timeout -s KILL 0.2 cat "$POOL/leases/job/wait" || true
    echo job > "$POOL/release"
}

@test "when the program of a lease ends, the lease stays, prompts are EIO, restart brings it back" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    prompt 'echo kept > kept; exit 3'
    assert_equal "$(wait_for_job)" exited
    assert contains "$POOL/leases/job/why" "code 3"
    assert_equal "$(cat "$POOL/leases/job/state")" active
    run bash -c "echo true > $POOL/leases/job/prompt"
    assert_failure
    assert_output --partial "Input/output error"
    echo restart > "$POOL/leases/job/ctl"
    prompt 'cat kept' # waits until the program is there
    assert_equal "$(wait_for_job)" ready
    assert contains "$POOL/leases/job/output" kept
    echo job > "$POOL/release"
    assert_equal "$(git -C "$REPO" show agentpool/job:kept)" kept
}

@test "an idle agent whose program dies is replaced under a new name" {
    mount_pool 1 1
    kill -9 "$(program_of "$POOL/agents/agent-1")"
    await test -e "$POOL/agents/agent-2"
    await value_is "$POOL/stats/idle_agents" 1
    await test ! -e "$POOL/agents/agent-1"
    echo job > "$POOL/acquire"
    assert_equal "$(readlink "$POOL/leases/job")" ../agents/agent-2
    echo job > "$POOL/release"
}

# Ten times: all idle agents get a signal, and the next acquirer comes at once.
acquire_behind() { # SIGNAL program|shim
    local round agent pids
    for round in 1 2 3 4 5 6 7 8 9 10; do
        await value_is "$POOL/stats/idle_agents" 3
        pids=()
        for agent in "$POOL"/agents/*; do pids+=("$(program_of "$agent")"); done
        if [ "$2" = shim ]; then pids=($(ps -o ppid= -p "$(IFS=,; echo "${pids[*]}")")); fi
        kill -"$1" "${pids[@]}"
        echo job > "$POOL/acquire"
        refute gone "$(program_of "$POOL/leases/job")"
        kill -CONT "${pids[@]}" 2>/dev/null || true
        echo job > "$POOL/release"
    done
    assert_equal "$(cat "$POOL/stats/breaker")" closed
}

@test "nobody is given an agent whose program was killed a moment ago" {
    mount_pool 3 3 -o acquire_timeout=2m
    acquire_behind KILL program
}

@test "nobody is given an agent whose shim was killed a moment ago" {
    mount_pool 3 3 -o acquire_timeout=2m
    acquire_behind KILL shim
}

@test "an agent that stands still lives, and is given away" {
    mount_pool 3 3
    acquire_behind STOP program
    assert_equal "$(cat "$POOL/stats/spawned_agents")" 3
}

@test "kill ends a leased agent with its work saved, and the whole process tree" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    echo work > "$(readlink "$POOL/leases/job/worktree")/work"
    prompt '(trap "" TERM HUP; setsid sleep 1000 & nohup setsid sh -c "sleep 1000" >/dev/null 2>&1 &); echo started'
    assert_equal "$(wait_for_job)" ready
    local tree
    tree=$(readlink "$POOL/leases/job/worktree")
    inside() {
        local p
        for p in /proc/[0-9]*; do
            if [ "$(readlink "$p/cwd" 2>/dev/null)" = "$tree" ]; then echo "$p"; fi
        done
    }
    assert [ "$(inside | wc -l)" -ge 3 ]
    echo kill > "$POOL/leases/job/ctl"
    await test -e "$POOL/agents/agent-2"
    await test ! -e "$tree"
    assert_equal "$(inside)" ""
    assert_equal "$(git -C "$REPO" show agentpool/job:work)" work
}

@test "work that cannot be saved is set aside untouched, and can be released again" {
    mount_pool 1 1
    LOG_EXPECTED=yes
    echo job > "$POOL/acquire"
    local tree
    tree=$(readlink "$POOL/leases/job/worktree")
    echo precious > "$tree/precious"
    refuse_to_save
    run bash -c "echo job > $POOL/release"
    assert_failure
    assert_output --partial "Input/output error"
    assert contains "$POOL/last_error" "$tree"
    assert_equal "$(cat "$POOL/agents/agent-1/state")" unhealthy
    assert_equal "$(cat "$tree/precious")" precious
    have_saved
    echo job > "$POOL/release"
    assert_equal "$(git -C "$REPO" show agentpool/job:precious)" precious
}

@test "a label can be leased again the moment it was released" {
    mount_pool 2 2
    for i in 1 2 3 4 5; do
        echo job > "$POOL/acquire"
        echo "$i" >> "$(readlink "$POOL/leases/job/worktree")/count"
        echo job > "$POOL/release"
    done
    assert_equal "$(git -C "$REPO" show agentpool/job:count | tr '\n' ' ')" "1 2 3 4 5 "
}

@test "tail -f follows the output" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    tail -c +1 -f "$POOL/leases/job/output" > "$DIR/followed" 2>&1 &
    local follower=$!
    prompt 'echo fol""lowed'
    await contains "$DIR/followed" followed
    kill $follower
    await gone $follower
    assert_equal "$(stat -L -c %s "$POOL/leases/job/output")" "$(cat "$POOL/leases/job/output" | wc -c)"
    echo job > "$POOL/release"
}
