# Programs without a terminal: their input is a FIFO, their output a file, and there is no tmux.

load helper

setup() {
    common_setup
    JOB=$POOL/leases/job
    cat >"$DIR/stream.conf" <<'END'
mode = stream
arg = -u
input = {"text": "${PROMPT}"}
busy = event {"type": "working"}
ready = event {"type": "result"}
response = /text
clear = /clear
quit = /quit
END
    cat >"$DIR/stream.py" <<'END'
import json, os, sys, time
for line in sys.stdin:
    text = json.loads(line)["text"]
    print(json.dumps({"type": "working", "on": text}))
    while text == "wait" and not os.path.exists("go"):
        time.sleep(0.05)
    if text == "exit":
        sys.exit(7)
    if text == "loud":
        print("\n".join(f"line {i}" for i in range(1000)))
        print("some error", file=sys.stderr)
    print(json.dumps({"type": "result", "text": text.upper()}))
END
}
teardown() { common_teardown; }

stream_pool() { # MIN MAX [OPTION...]
    local min=$1 max=$2
    shift 2
    mount_pool "$min" "$max" -o "program_profile=$DIR/stream.conf" "$@" -- python3 "$DIR/stream.py"
}

ask() { # PROMPT
    echo "$1" > "$JOB/prompt"
    timeout 60 cat "$JOB/response"
}

@test "a stream program has no terminal, and nothing of tmux runs for it" {
    stream_pool 1 1
    echo job > "$POOL/acquire"
    assert_equal "$(ask hello)" HELLO
    local pid
    pid=$(program_of "$JOB")
    assert [ -p "/proc/$pid/fd/0" ]
    assert [ "$(readlink "/proc/$pid/fd/1")" -ef "$STATE/agents/agent-1/$(basename "$(readlink "/proc/$pid/fd/1")")" ]
    assert_equal "$(ps -o tty= -p "$pid" | tr -d ' ')" '?'
    assert [ ! -e "$STATE/tmux.sock" ]
    assert_equal "$(ps -o comm= -p "$(ps -o ppid= -p "$pid" | tr -d ' ')")" agentpool-shim
    echo job > "$POOL/release"
}

@test "screen of a stream program is what it printed last, its errors too" {
    stream_pool 1 1
    echo job > "$POOL/acquire"
    assert_equal "$(ask loud)" LOUD
    run cat "$JOB/screen"
    assert_equal "${#lines[@]}" 50
    assert_output --partial "line 999"
    assert_output --partial "some error"
    refute_output --partial "line 900"
    assert_equal "$(tail -n 50 "$JOB/output")" "$output"
}

@test "keys and reset are refused where there is no terminal, and say so" {
    stream_pool 1 1
    echo job > "$POOL/acquire"
    run bash -c "echo C-c > $JOB/keys"
    assert_failure
    assert_output --partial "not supported"
    assert contains "$POOL/last_error" "no terminal"
    run sh "$JOB/attach"
    assert_failure 1
    assert_output "the program of agent-1 runs without a terminal"
    run bash -c "echo reset > $JOB/ctl"
    assert_failure
    assert_equal "$(ask still)" STILL
}

@test "a stream program goes on over a kill -9 of the daemon, and so does the prompt it works on" {
    stream_pool 1 2
    echo job timeout=1m > "$POOL/acquire"
    assert_equal "$(ask first)" FIRST
    local pid
    pid=$(program_of "$JOB")
    echo wait > "$JOB/prompt"
    await contains "$JOB/output" '"on": "wait"'
    echo later > "$JOB/prompt"
    await value_is "$JOB/prompts" 3 # it is taken behind its writer's back
    echo save > "$POOL/ctl"
    crash_pool
    touch "$STATE/worktrees/agent-1/go"
    await grep -q WAIT "$STATE"/agents/agent-1/output-*.raw # nobody is there to read it
    mount_again 1 2 -o "program_profile=$DIR/stream.conf" -- python3 "$DIR/stream.py"
    assert_equal "$(program_of "$JOB")" "$pid"
    assert_equal "$(timeout 60 cat "$JOB/response")" LATER
    assert_equal "$(ask last)" LAST
    assert_equal "$(grep -c '"on": "wait"' "$JOB/output")" 1
    echo job > "$POOL/release"
}

@test "a stream program that ends or is killed is exited, and is started again" {
    stream_pool 1 1
    echo job > "$POOL/acquire"
    echo exit > "$JOB/prompt"
    assert_equal "$(timeout 60 cat "$JOB/wait")" exited
    assert_equal "$(cat "$JOB/exit_status")" "$(grep -o 'code 7.*' "$JOB/exit_status")"
    echo restart > "$JOB/ctl"
    assert_equal "$(timeout 60 cat "$JOB/wait")" ready
    assert_equal "$(ask again)" AGAIN
    kill -9 "$(program_of "$JOB")"
    await value_is "$JOB/activity" exited
    echo restart > "$JOB/ctl"
    assert_equal "$(timeout 60 cat "$JOB/wait")" ready
    assert_equal "$(ask 'and again')" 'AND AGAIN'
}

@test "what a stream program started ends with it, and a pause stops it all" {
    cat >"$DIR/stream.py" <<'END'
import json, subprocess, sys
subprocess.Popen(["setsid", "bash", "-c", "trap '' HUP TERM; echo $$ > pid; while :; do echo x >> count; sleep 0.02; done"])
for line in sys.stdin:
    print(json.dumps({"type": "result", "text": "x"}))
END
    stream_pool 1 1
    echo job > "$POOL/acquire"
    local tree n
    tree=$(readlink "$JOB/worktree")
    await test -s "$tree/count"
    echo pause > "$JOB/ctl"
    await value_is "$JOB/why" "pause: asked for"
    await grep -q '^State:.T' "/proc/$(cat "$tree/pid")/status"
    await grep -q '^State:.T' "/proc/$(program_of "$JOB")/status"
    n=$(wc -l < "$tree/count")
    sleep 0.3 # nothing may happen in it
    assert_equal "$(wc -l < "$tree/count")" "$n"
    echo resume > "$JOB/ctl"
    await bash -c "[ \$(wc -l < $tree/count) -gt $n ]"
    echo job > "$POOL/release" # teardown sees that nothing is left
}

@test "ten stream programs at once answer, each its own, and are counted like others" {
    stream_pool 10 10 -o max_spawning=4
    for i in 0 1 2 3 4 5 6 7 8 9; do echo "job$i" > "$POOL/acquire"; done
    for i in 0 1 2 3 4 5 6 7 8 9; do
        echo "hello $i" > "$POOL/leases/job$i/prompt"
    done
    for i in 0 1 2 3 4 5 6 7 8 9; do
        assert_equal "$(timeout 60 cat "$POOL/leases/job$i/response")" "HELLO $i"
        assert_equal "$(cat "$POOL/leases/job$i/tasks")" 1
        assert [ "$(cat "$POOL/leases/job$i/memory")" -gt 100000 ]
    done
}

@test "a pool whose agents had terminals goes on with a stream program: leases keep their work, the server ends" {
    mount_pool 1 2 -o persist=yes
    echo job timeout=1m > "$POOL/acquire"
    echo 'echo work > made' > "$JOB/prompt"
    timeout 60 cat "$JOB/wait"
    local pid server
    pid=$(program_of "$JOB")
    server=$(cut -d' ' -f1 "$STATE/tmux.pid")
    unmount_pool
    stream_pool 1 2
    await gone "$pid"
    await gone "$server"
    assert_equal "$(cat "$JOB/worktree/made")" work
    assert_equal "$(cat "$JOB/activity")" exited
    echo restart > "$JOB/ctl"
    assert_equal "$(timeout 60 cat "$JOB/wait")" ready
    assert_equal "$(ask now)" NOW
    echo job > "$POOL/release"
    assert_equal "$(git -C "$REPO" show agentpool/job:made)" work
}

@test "a pool of stream programs goes on with terminals: nothing of them is left" {
    stream_pool 1 2 -o persist=yes
    echo job timeout=1m > "$POOL/acquire"
    assert_equal "$(ask first)" FIRST
    local pid
    pid=$(program_of "$JOB")
    unmount_pool
    mount_again 1 2
    await gone "$pid"
    assert_equal "$(cat "$JOB/activity")" exited
    echo restart > "$JOB/ctl"
    assert_equal "$(timeout 60 cat "$JOB/wait")" ready
    echo 'echo in a terminal' > "$JOB/prompt"
    assert_equal "$(timeout 60 cat "$JOB/response")" "in a terminal"
    echo job > "$POOL/release"
}
