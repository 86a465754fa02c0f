# An agent's terminal while people are at it too, and the shells in it: first prompts, open quotes, answers by keys.

load helper

setup() {
    common_setup
    JOB=$POOL/leases/job
}
teardown() { common_teardown; }

pool_tmux() {
    tmux -S "$STATE/tmux.sock" "$@"
}

wait_for_job() {
    timeout 60 cat "$JOB/wait"
}

# The agent works in its own worktree, and nowhere else.
works() {
    rm -f "$JOB/worktree/here"
    echo 'echo made > here; echo "by $AGENTPOOL_NAME"' > "$JOB/prompt"
    assert_equal "$(timeout 60 cat "$JOB/response" | grep -o 'by agent-1' | tail -1)" "by agent-1"
    assert [ -e "$JOB/worktree/here" ]
    assert [ ! -e "$REPO/here" ]
    assert contains "$JOB/screen" "by agent-1"
}

size() {
    pool_tmux list-panes -a -f '#{==:#{pane_id},'"$PANE"'}' -F '#{window_width}x#{window_height}'
}

@test "prompts go to the agent's terminal whatever a human does beside it" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    works
    PANE=$(pool_tmux list-panes -t agent-1 -F '#{pane_id}')
    pool_tmux split-window -b -t agent-1 -c "$REPO" 'exec sh'
    works
    pool_tmux set-option -w -t agent-1 synchronize-panes on
    works
    pool_tmux new-window -t agent-1 -c "$REPO" 'exec sh'
    works
    pool_tmux rename-session -t agent-1 mine
    works
    pool_tmux new-session -d -s human -c "$REPO" 'exec sh'
    pool_tmux swap-pane -s "$PANE" -t human:
    works
    pool_tmux copy-mode -t "$PANE"
    works
    pool_tmux copy-mode -t "$PANE"
    echo "e c h o Space k e y s > k Enter" > "$JOB/keys"
    await test -e "$JOB/worktree/k"
    pool_tmux resize-pane -Z -t "$PANE"
    works
    pool_tmux set-option -g base-index 5
    pool_tmux set-option -g pane-base-index 5
    works
    crash_pool
    mount_again 1 1
    works
    echo job > "$POOL/release"
    await value_is "$POOL/stats/idle_agents" 1
    echo job > "$POOL/acquire"
    works
}

@test "the end of an agent ends its own terminal, and leaves the human his" {
    mount_pool 1 1
    PANE=$(pool_tmux list-panes -t agent-1 -F '#{pane_id}')
    pool_tmux new-session -d -s human 'exec sleep 1000'
    pool_tmux join-pane -s "$PANE" -t human: # its session is gone with that
    echo kill > "$POOL/agents/agent-1/ctl"
    await test -d "$POOL/agents/agent-2"
    await value_is "$POOL/stats/idle_agents" 1
    assert_equal "$(pool_tmux list-panes -t human: | wc -l)" 1
    pool_tmux rename-session -t agent-2 mine
    pool_tmux split-window -t mine 'exec sleep 1000'
    echo kill > "$POOL/agents/agent-2/ctl"
    await test -d "$POOL/agents/agent-3"
    await value_is "$POOL/stats/idle_agents" 1
    assert_equal "$(pool_tmux list-sessions -F '#{session_name}' | sort | paste -sd' ')" "agent-3 human pool"
}

@test "a terminal that a human has closed is made anew by restart" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    PANE=$(pool_tmux list-panes -t agent-1 -F '#{pane_id}')
    pool_tmux split-window -t agent-1 'exec sleep 1000'
    pool_tmux kill-pane -t "$PANE"
    await value_is "$JOB/activity" exited # tmux does not wait for what it ends
    assert_equal "$(wait_for_job)" exited
    echo restart > "$JOB/ctl"
    works
}

@test "a terminal keeps its size while a human looks at it from a smaller one, and behind that" {
    mount_pool 1 1
    PANE=$(pool_tmux list-panes -t agent-1 -F '#{pane_id}')
    local before
    before=$(size)
    tmux -S "$DIR/human.sock" -f /dev/null new-session -d -x 60 -y 15 \
        "env -u TMUX tmux -S $STATE/tmux.sock attach -t agent-1" 3>&-
    await bash -c "tmux -S '$STATE/tmux.sock' list-clients -t agent-1 | grep -q ."
    assert_equal "$(size)" "$before"
    end_tmux "$DIR/human.sock"
    await bash -c "! tmux -S '$STATE/tmux.sock' list-clients -t agent-1 | grep -q ."
    pool_tmux resize-window -t "$PANE" -x 80 -y 20 # by hand, which ends with the lease
    echo job > "$POOL/acquire"
    echo job > "$POOL/release"
    await value_is "$POOL/stats/idle_agents" 1
    assert_equal "$(size)" "$before"
}

# Rows and columns, as the agent's program has them.
stty_size() {
    rm -f "$JOB/worktree/size"
    echo 'stty size > size' > "$JOB/prompt"
    wait_for_job > /dev/null
    cat "$JOB/worktree/size"
}

@test "terminal_size is the size of terminals whose programs start behind it, and of no other" {
    mount_pool 1 1 -o terminal_size=120x40
    echo job > "$POOL/acquire"
    assert_equal "$(stty_size)" "40 120"
    echo 90x30 > "$POOL/config/terminal_size"
    assert_equal "$(stty_size)" "40 120"
    echo restart > "$JOB/ctl"
    assert_equal "$(stty_size)" "30 90"
    echo job > "$POOL/release"
    echo 300x24 > "$POOL/config/terminal_size"
    echo recycle > "$POOL/agents/agent-1/ctl"
    echo job > "$POOL/acquire"
    assert_equal "$(stty_size)" "24 300"
    run bash -c "echo 20x5 > '$POOL/config/terminal_size'"
    assert_failure
    assert contains "$POOL/last_error" "terminal_size"
    assert_equal "$(cat "$POOL/config/terminal_size")" 300x24
    assert_equal "$(cat "$POOL/config/state_dir")" "$STATE"
}

# A human's terminal of that size, which runs the command in the agent's directory.
human() { # COLUMNS ROWS COMMAND
    SSH_AUTH_SOCK=/human tmux -S "$DIR/human.sock" -f /dev/null new-session -d -x "$1" -y "$2" -s human -c / \
        "cd '$POOL/agents/agent-1' && exec $3" 3>&-
    await bash -c "tmux -S '$STATE/tmux.sock' list-clients -t agent-1 | grep -q ."
}

human_types() {
    tmux -S "$DIR/human.sock" send-keys -t human "$@"
}

human_is_gone() {
    await bash -c "! tmux -S '$STATE/tmux.sock' list-clients -t agent-1 | grep -q ."
}

@test "attach is the agent's terminal in one of any size, and leaves size, program and lease as they were" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    works
    PANE=$(pool_tmux list-panes -t agent-1 -F '#{pane_id}')
    local before pid environment at
    before=$(size)
    pid=$(cat "$JOB/pid")
    environment=$(pool_tmux show-environment -t agent-1)
    for at in "80 24" "300 80"; do
        # shellcheck disable=SC2086 # two words
        human $at "sh attach"
        human_types "echo typed > 'at $at'" Enter
        await test -e "$JOB/worktree/at $at"
        human_types C-b d
        human_is_gone
        # shellcheck disable=SC2086
        human $at "sh attach"
        assert_equal "$(size)" "$before"
        end_tmux "$DIR/human.sock"
        human_is_gone
        assert_equal "$(size)" "$before"
        assert_equal "$(cat "$JOB/pid")" "$pid"
    done
    assert_equal "$(pool_tmux show-environment -t agent-1)" "$environment"
    assert_equal "$(cat "$JOB/lease")" job
    works
    human 80 24 "sh attach" # keeps no mount busy
    unmount_pool
    await bash -c "! tmux -S '$DIR/human.sock' list-sessions"
}

@test "attach -r shows the terminal, and what is typed there does not reach the program" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    works
    human 80 24 "sh attach -r"
    human_types "touch typed" Enter
    human_types C-b d # behind what was typed: when it is gone, tmux has read all of it
    human_is_gone
    works
    assert [ ! -e "$JOB/worktree/typed" ]
    refute contains "$JOB/output" "touch typed"
}

@test "attach says what it takes, and where there is no terminal" {
    mount_again 1 1 -o "setup=until [ -e $DIR/go ]; do sleep 0.05; done"
    await test -e "$POOL/agents/agent-1/attach"
    run sh "$POOL/agents/agent-1/attach" # its program has not started
    assert_failure 1
    assert_output "agent-1 has no terminal now"
    touch "$DIR/go"
    await value_is "$POOL/stats/idle_agents" 1
    for shell in sh bash; do
        run "$shell" "$POOL/agents/agent-1/attach" -w
        assert_failure 2
        assert_output "usage: sh attach [-r]"
    done
    run sh "$POOL/agents/agent-1/attach" < /dev/null
    assert_failure 1
    assert_output --partial "not a terminal"
}

# A shell with that start-up file, leased.
lease_shell() { # FILE CONTENT SHELL...
    mkdir -p "$(dirname "$HOME/$1")"
    printf '%s\n' "$2" > "$HOME/$1"
    shift 2
    mount_pool 1 1 -- "$@"
    echo job > "$POOL/acquire"
}

@test "a shell is ready at its first prompt, however long and silent its start-up file is, and a prompt waits for it" {
    local start
    for start in 'x=$(until [ -e "$HOME/go" ]; do sleep 0.1; done)' 'read -r x < <(until [ -e "$HOME/go" ]; do sleep 0.1; done)' \
        'until [ -e "$HOME/go" ]; do sleep 0.1; done' 'until [ -e "$HOME/go" ]; do sleep 0.1; done & wait $!'; do
        rm -f "$HOME/go" "$DIR/response"
        lease_shell .bashrc "$start" bash
        echo 'echo fi""rst' > "$JOB/prompt"
        cat "$JOB/response" > "$DIR/response" 3>&- &
        sleep 2.5 # longer than silence was ever taken for ready: nothing may happen in it
        refute value_is "$JOB/activity" ready
        assert [ ! -s "$DIR/response" ]
        touch "$HOME/go"
        wait $!
        assert_equal "$(cat "$DIR/response")" first
        assert_equal "$(wait_for_job)" ready
        unmount_pool
    done
}

@test "a start-up file that asks has the shell wait, and its answer is no prompt's" {
    lease_shell .bashrc 'read -p "Unlock? " x; echo "$x" > "$HOME/answer"' bash
    assert_equal "$(wait_for_job)" waiting
    echo 'echo fi""rst' > "$JOB/prompt"
    assert_equal "$(wait_for_job)" waiting
    echo "y Enter" > "$JOB/keys"
    assert_equal "$(cat "$JOB/response")" first
    assert_equal "$(cat "$HOME/answer")" y
}

@test "behind an open quote a shell waits for the rest, and no prompt is typed into it" {
    local shell open
    for shell in bash dash zsh fish mksh ksh93; do
        command -v "$shell" >/dev/null || continue
        mount_pool 1 1 -- "$shell"
        echo job > "$POOL/acquire"
        assert_equal "$(wait_for_job)" ready
        for open in 'echo "open' 'for i in 1 2' 'cat <<END'; do
            if [ "$shell" = fish ] && [ "$open" = "cat <<END" ]; then continue; fi
            echo "$open" > "$JOB/prompt"
            assert_equal "$shell $open: $(wait_for_job)" "$shell $open: waiting"
            assert contains "$JOB/why" "the rest of a command"
            echo 'echo whole > whole' > "$JOB/prompt"
            assert_equal "$(wait_for_job)" waiting
            echo C-c > "$JOB/keys"
            await test -e "$JOB/worktree/whole"
            assert_equal "$(wait_for_job)" ready
            rm "$JOB/worktree/whole"
        done
        unmount_pool
    done
}

@test "a first prompt that looks like one for the rest is a first prompt" {
    lease_shell .bashrc 'PS1="> "' bash
    echo 'echo on""e' > "$JOB/prompt"
    assert_equal "$(cat "$JOB/response")" one
    assert_equal "$(wait_for_job)" ready
    unmount_pool
    ENV=$HOME/.shrc lease_shell .shrc 'PS1="> "' dash
    echo 'echo two > two' > "$JOB/prompt"
    await test -e "$JOB/worktree/two"
    assert_equal "$(wait_for_job)" ready
}

@test "a shell that waits for what it substitutes is busy, not asking" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    echo 'x=$(until [ -e go ]; do sleep 0.1; done); echo do""ne' > "$JOB/prompt"
    cat "$JOB/response" > "$DIR/response" 3>&- &
    await contains "$JOB/why" "the shell is at work"
    sleep 1 # longer than a question takes to be one
    assert_equal "$(cat "$JOB/activity")" busy
    touch "$JOB/worktree/go"
    await test -s "$DIR/response"
    assert_equal "$(cat "$DIR/response")" done
}

@test "wait behind keys is told of what comes of them, not of the question that they answer" {
    cat > "$DIR/ask.py" <<'END'
while True:
    line = input("you> ")
    if line == "ask": print("you said", input("Really? [y/n] "))
END
    mount_pool 1 1 -- python3 "$DIR/ask.py"
    echo job > "$POOL/acquire"
    local i
    for i in 1 2 3 4 5; do
        assert_equal "$(wait_for_job)" ready
        echo ask > "$JOB/prompt"
        assert_equal "$(wait_for_job)" waiting
        echo "y Enter" > "$JOB/keys"
        assert_equal "$(wait_for_job)" ready
    done
}

@test "keys that change nothing leave the question what it was" {
    cat > "$DIR/ask.py" <<'END'
import sys, termios, tty
tty.setcbreak(0, termios.TCSANOW)
print("Really? [y/n] ", end="", flush=True)
while sys.stdin.read(1) != "y": pass
print("thanks", flush=True)
while True: sys.stdin.read(1)
END
    mount_pool 1 1 -- python3 "$DIR/ask.py"
    echo job > "$POOL/acquire"
    assert_equal "$(wait_for_job)" waiting
    echo n > "$JOB/keys"
    assert_equal "$(wait_for_job)" waiting
    echo y > "$JOB/keys"
    assert_equal "$(wait_for_job)" ready
}

@test "a program without a profile that tells its state by OSC 7501 is believed, and what its children tell is not" {
    cat > "$DIR/tells.py" <<'END'
import os, sys
def tell(state, more=""): print(f"\033]7501;{more}state={state}:app=test\033\\", end="", flush=True)
def passed(name):
    while not os.path.exists(name): pass
tell("idle")
for line in sys.stdin:
    tell("working")
    passed("one")
    tell("idle", "id=7:")
    passed("two")
    tell("blocked")
    passed("three")
    tell("working")
    tell("done")
END
    mount_pool 1 1 -- python3 "$DIR/tells.py"
    echo job > "$POOL/acquire"
    assert_equal "$(wait_for_job)" ready
    echo go > "$JOB/prompt"
    await contains "$JOB/why" state=working
    assert_equal "$(cat "$JOB/activity")" busy
    touch "$JOB/worktree/one"
    await contains "$JOB/output.raw" "id=7"
    assert_equal "$(cat "$JOB/activity")" busy
    touch "$JOB/worktree/two"
    assert_equal "$(wait_for_job)" waiting
    assert contains "$JOB/why" state=blocked
    touch "$JOB/worktree/three"
    await value_is "$JOB/activity" ready
    assert_equal "$(cat "$JOB/why")" "osc: 7501;state=done"
}
