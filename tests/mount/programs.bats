# Programs and their profiles: prompts delivered or not, questions, answers, output, streams.

load helper

setup() {
    common_setup
    JOB=$POOL/leases/job
    PROFILE=$DIR/program.conf
    cat >"$PROFILE" <<'END'
waiting = screen:1 ^Press y to go on$
busy = screen:1 ^working$
ready = screen:1 ^> .*|^>$
composer = ^>(.*)\s*\z
abandon = C-u
debounce = 50ms
clear = /clear
quit = /quit
answer = (?s).*^(answer [^\n]*)\n
END
}
teardown() { common_teardown; }

# A pool of one over the test's own program, leased.
lease_program() { # [MODE] [OPTION...]
    local mode=${1:-}
    [ $# -eq 0 ] || shift
    mount_pool 1 1 -o "program_profile=$PROFILE" "$@" -- \
        python3 "$BATS_TEST_DIRNAME/program.py" ${mode:+"$mode"}
    echo job > "$POOL/acquire"
}

wait_for_job() {
    timeout 60 cat "$JOB/wait"
}

@test "response is what the commands of bash printed, when they have" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    local start=$EPOCHREALTIME
    echo "sleep 2; echo done" > "$JOB/prompt"
    assert_equal "$(cat "$JOB/response")" done
    local took=$(( (${EPOCHREALTIME/./} - ${start/./}) / 1000 ))
    assert [ $took -ge 2000 ]
    for i in 1 2; do
        echo "sleep 0.2; echo done $i" > "$JOB/prompt"
        assert_equal "$(cat "$JOB/response")" "done $i"
    done
    assert_equal "$(cat "$JOB/response")" "done 2" # of the last prompt, however often
    echo true > "$JOB/prompt"
    assert_equal "$(cat "$JOB/response")" ""
    echo job > "$POOL/release"
}

@test "ten agents at once answer, each its own" {
    mount_pool 10 10 -o max_spawning=4
    for i in 0 1 2 3 4 5 6 7 8 9; do echo "job$i" > "$POOL/acquire"; done
    for i in 0 1 2 3 4 5 6 7 8 9; do
        (
            echo "sleep 2; echo done $i" > "$POOL/leases/job$i/prompt"
            cat "$POOL/leases/job$i/response" > "$DIR/answer$i"
        ) &
    done
    for i in 0 1 2 3 4 5 6 7 8 9; do
        await test -s "$DIR/answer$i"
        assert_equal "$(cat "$DIR/answer$i")" "done $i"
    done
    echo 'echo all $AGENTPOOL_NAME > all' | tee "$POOL"/agents/*/prompt > /dev/null
    for i in 0 1 2 3 4 5 6 7 8 9; do
        assert_equal "$(cat "$POOL/leases/job$i/wait")" ready
        assert_equal "$(cat "$POOL/leases/job$i/worktree/all")" "all $(cat "$POOL/leases/job$i/id")"
        echo "job$i discard" > "$POOL/release"
    done
}

@test "a program that waits for yes or no is waiting, and goes on with keys" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    local ask
    for ask in 'read -p "sure? [y/n] " a; echo "got $a"' \
               'python3 -c "print(\"got \" + input(\"sure? \"))"' \
               'sh -c "printf %s \"Continue? (yes/no) \"; read a; echo got \$a"'; do
        echo "$ask" > "$JOB/prompt"
        assert_equal "$(wait_for_job)" waiting
        assert [ -n "$(cat "$JOB/why")" ]
        echo "y Enter" > "$JOB/keys"
        await contains "$JOB/output" "got y"
        assert_equal "$(wait_for_job)" ready
    done
    echo job > "$POOL/release"
}

@test "a shell without marks answers with what was printed since the prompt" {
    mount_pool 1 1 -- dash
    echo job > "$POOL/acquire"
    echo 'echo one; echo two' > "$JOB/prompt"
    cat "$JOB/response" > "$DIR/response"
    assert_equal "$(head -2 "$DIR/response")" "one
two"
    assert contains "$JOB/why" foreground
    echo job > "$POOL/release"
}

@test "a program with a profile takes prompts and answers them" {
    lease_program
    assert_equal "$(wait_for_job)" ready # it may be starting
    echo "hello" > "$JOB/prompt"
    assert_equal "$(cat "$JOB/activity")" busy
    assert_equal "$(cat "$JOB/response")" "answer 1 to hello"
    printf 'two\nlines\n' > "$JOB/prompt"
    assert_equal "$(wait_for_job)" ready
    assert contains "$JOB/output" "lines"
    run jq -r 'select(.event == "prompt") | "\(.agent) \(.lease) \(.outcome) \(.bytes)"' "$POOL/events"
    assert_output "agent-1 job submitted 5
agent-1 job submitted 9"
    echo job > "$POOL/release"
}

@test "keys come before a prompt or behind it, never between its text and Enter" {
    local mode
    for mode in slow late; do
        lease_program $mode
        assert_equal "$(wait_for_job)" ready
        echo hello > "$JOB/prompt"
        await contains "$JOB/screen" "> hello"
        echo z > "$JOB/keys"
        assert_equal "$(cat "$JOB/response")" "answer 1 to hello"
        await contains "$JOB/screen" "> z"
        echo job > "$POOL/release"
        unmount_pool
    done
}

@test "nothing is typed into a question, and prompts wait behind it" {
    lease_program asks
    assert_equal "$(wait_for_job)" waiting
    assert contains "$JOB/why" "screen: Press y to go on"
    echo "hello" > "$JOB/prompt"
    assert_equal "$(wait_for_job)" waiting
    refute contains "$JOB/screen" hello
    echo y > "$JOB/keys"
    await contains "$JOB/screen" "answer 1 to hello"
    assert_equal "$(wait_for_job)" ready
    echo ask > "$JOB/prompt"
    echo "after" > "$JOB/prompt"
    assert_equal "$(wait_for_job)" waiting
    echo y > "$JOB/keys"
    await contains "$JOB/screen" "answer 3 to after"
    assert contains "$JOB/screen" "answer 2 to ask"
    echo job > "$POOL/release"
}

@test "a prompt that does not show is not submitted: EIO with the reason, until the next one" {
    lease_program deaf
    echo "hello" > "$JOB/prompt"
    run wait_for_job
    assert_failure
    assert_output --partial "Input/output error"
    assert contains "$POOL/last_error" "did not show in the input field"
    run cat "$JOB/response"
    assert_failure
    run jq -r 'select(.event == "prompt") | .outcome + ": " + .reason' "$POOL/events"
    assert_output --partial "no_evidence: the prompt did not show"
    echo job > "$POOL/release"
    echo job > "$POOL/acquire" # which is no affair of the next lease
    assert_equal "$(wait_for_job)" ready
    echo job > "$POOL/release"
}

@test "a prompt that Enter does not submit is taken back, and never typed twice" {
    lease_program stuck
    echo "hello" > "$JOB/prompt"
    run wait_for_job
    assert_failure
    assert contains "$POOL/last_error" "Enter did not submit it"
    assert_equal "$(jq -r 'select(.event == "prompt") | .outcome' "$POOL/events")" typed_not_submitted
    refute contains "$JOB/screen" "hellohello"
    await bash -c "! grep -q hello '$JOB/screen'"
    echo job > "$POOL/release"
}

@test "text that stands in the input field already is left alone" {
    lease_program
    assert_equal "$(wait_for_job)" ready
    echo "d r a f t" > "$JOB/keys"
    await contains "$JOB/screen" draft
    echo "hello" > "$JOB/prompt"
    run wait_for_job
    assert_failure
    assert contains "$POOL/last_error" "there is text in the input field"
    assert contains "$JOB/screen" draft
    echo "C-u" > "$JOB/keys"
    await bash -c "! grep -q draft '$JOB/screen'"
    echo "hello" > "$JOB/prompt"
    assert_equal "$(cat "$JOB/response")" "answer 1 to hello"
    echo job > "$POOL/release"
}

@test "a hook tells the activity, garbage is EINVAL" {
    mount_pool 1 1 -- cat
    echo job > "$POOL/acquire"
    assert_equal "$(wait_for_job)" ready
    local word
    for word in waiting busy ready; do
        echo $word > "$JOB/activity"
        await value_is "$JOB/activity" $word
        assert contains "$JOB/why" "hook: wrote $word"
    done
    for word in "" nonsense exited "ready now"; do
        run bash -c "echo '$word' > $JOB/activity"
        assert_failure
        assert_output --partial "Invalid argument"
    done
    echo busy > "$JOB/activity"
    await value_is "$JOB/activity" busy
    (sleep 0.3; echo ready > "$JOB/activity") &
    assert_equal "$(wait_for_job)" ready
    echo job > "$POOL/release"
}

@test "a question that the profile always answers alike is answered once, and told" {
    echo 'auto_answer = May I\?[\s\S]*Press y => y' >> "$PROFILE"
    lease_program
    echo ask > "$JOB/prompt"
    await contains "$JOB/screen" "answer 1 to ask"
    await contains "$POOL/events" '"event":"auto_answer"' # told when the keys have been typed
    assert_equal "$(jq -r 'select(.event == "auto_answer") | .keys' "$POOL/events")" y
    echo job > "$POOL/release"
}

@test "a lease ends with the program's own command to forget, where it has one" {
    lease_program
    local pid
    pid=$(program_of "$JOB")
    echo "secret" > "$JOB/prompt"
    assert_equal "$(cat "$JOB/response")" "answer 1 to secret"
    echo dirt > "$JOB/worktree/dirt"
    echo job > "$POOL/release"
    await value_is "$POOL/stats/idle_agents" 1
    echo two > "$POOL/acquire"
    assert_equal "$(program_of "$POOL/leases/two")" "$pid"
    refute contains "$POOL/leases/two/output" secret
    assert_equal "$(cat "$POOL/leases/two/response")" ""
    assert [ ! -e "$POOL/leases/two/worktree/dirt" ]
    echo "hello" > "$POOL/leases/two/prompt"
    assert_equal "$(cat "$POOL/leases/two/response")" "answer 1 to hello"
    echo ask > "$POOL/leases/two/prompt" # one that is not ready is started anew
    assert_equal "$(cat "$POOL/leases/two/wait")" waiting
    echo two > "$POOL/release"
    await value_is "$POOL/stats/idle_agents" 1
    refute [ "$(program_of "$POOL/agents/agent-1")" = "$pid" ]
    assert_equal "$(git -C "$REPO" show agentpool/job:dirt)" dirt
}

@test "what was asked of an idle agent is no affair of its next lease" {
    echo 'set = X=1' >> "$PROFILE"
    mount_pool 1 1 -o "program_profile=$PROFILE" -- python3 "$BATS_TEST_DIRNAME/program.py" deaf
    await value_is "$POOL/agents/agent-1/activity" ready
    echo one > "$POOL/agents/agent-1/prompt"
    echo two > "$POOL/agents/agent-1/prompt"
    run timeout 60 cat "$POOL/agents/agent-1/wait"
    assert_failure
    echo job > "$POOL/acquire"
    assert_equal "$(wait_for_job)" ready
    echo job > "$POOL/release"
}

@test "a prompt that was left open by a lease does not keep the next one busy" {
    lease_program
    exec 5> "$JOB/prompt"
    echo unfinished >&5
    await value_is "$JOB/activity" busy
    echo job > "$POOL/release"
    await value_is "$POOL/stats/idle_agents" 1
    echo job > "$POOL/acquire"
    assert_equal "$(wait_for_job)" ready
    echo hello > "$JOB/prompt"
    assert_equal "$(cat "$JOB/response")" "answer 1 to hello"
    exec 5>&-
    assert_equal "$(wait_for_job)" ready
    await value_is "$JOB/prompts" 1
    echo job > "$POOL/release"
}

@test "a prompt that arrives makes good for one before it that did not" {
    lease_program
    assert_equal "$(wait_for_job)" ready
    echo "d r a f t" > "$JOB/keys"
    await contains "$JOB/screen" draft
    echo one > "$JOB/prompt"
    echo two > "$JOB/prompt"
    await contains "$POOL/events" "there is text in the input field"
    echo "C-u" > "$JOB/keys"
    assert_equal "$(wait_for_job)" ready
    assert contains "$JOB/screen" "answer 1 to two"
    echo job > "$POOL/release"
}

@test "a shell whose marks have ended is still known by its process" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    echo 'echo marked' > "$JOB/prompt"
    assert_equal "$(cat "$JOB/response")" marked
    echo 'unset PROMPT_COMMAND' > "$JOB/prompt"
    assert_equal "$(wait_for_job)" ready
    echo 'echo on > on' > "$JOB/prompt"
    assert_equal "$(wait_for_job)" ready
    assert_equal "$(cat "$JOB/worktree/on")" on
    echo job > "$POOL/release"
}

@test "a stream program that is kept takes prompts in its next lease" {
    cat > "$PROFILE" <<'END'
mode = stream
arg = -u
input = {"text": "${PROMPT}"}
ready = event {"type": "result"}
response = /text
END
    cat > "$DIR/stream.py" <<'END'
import json, sys
for line in sys.stdin:
    print(json.dumps({"type": "result", "text": json.loads(line)["text"].upper()}))
END
    mount_pool 1 1 -o "program_profile=$PROFILE,on_release=keep" -- python3 "$DIR/stream.py"
    for i in 1 2 3; do
        echo job > "$POOL/acquire"
        echo "hello $i" > "$JOB/prompt"
        assert_equal "$(cat "$JOB/response")" "HELLO $i"
        echo job > "$POOL/release"
        await value_is "$POOL/stats/idle_agents" 1
    done
}

@test "a paused agent stands still, counts as busy, and goes on where it was" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    local tree n
    tree=$(readlink "$JOB/worktree")
    echo '(while :; do echo x >> count; sleep 0.02; done) & while [ ! -e stop ]; do sleep 0.1; done; kill $!' > "$JOB/prompt"
    await test -s "$tree/count"
    echo pause > "$JOB/ctl"
    await value_is "$JOB/why" "pause: asked for"
    all_stopped() {
        local pid
        for pid in /proc/[0-9]*; do
            [ "$(readlink "$pid/cwd" 2>/dev/null)" = "$tree" ] || continue
            grep -qs '^State:.[TZ]' "$pid/status" || tr '\0' ' ' < "$pid/cmdline" | grep -q agentpool-shim || return 1
        done
    }
    await all_stopped
    n=$(wc -l < "$tree/count")
    echo "echo after > after" > "$JOB/prompt"
    assert_equal "$(cat "$JOB/activity")" busy
    sleep 0.5 # nothing may happen in it
    assert_equal "$(wc -l < "$tree/count")" "$n"
    echo resume > "$JOB/ctl"
    await bash -c "[ \$(wc -l < $tree/count) -gt $n ]"
    refute grep -q Stopped "$JOB/output"
    touch "$tree/stop"
    await test -e "$tree/after"
    echo pause > "$JOB/ctl"
    await value_is "$JOB/why" "pause: asked for"
    echo job > "$POOL/release" # which ends also what stands still
    await value_is "$POOL/stats/idle_agents" 1
}

@test "a lease does not find its agent paused" {
    mount_pool 1 1
    echo pause > "$POOL/agents/agent-1/ctl"
    await value_is "$POOL/agents/agent-1/why" "pause: asked for"
    echo job > "$POOL/acquire"
    echo "echo he\"\"re" > "$JOB/prompt"
    assert_equal "$(cat "$JOB/response")" here
    assert [ ! -e "$STATE/agents/agent-1/paused" ]
    echo job > "$POOL/release"
}

@test "a pause on the way to another program or lease is refused" {
    mount_pool 1 1 -o on_release=keep
    echo job > "$POOL/acquire"
    slow_git
    echo made > "$JOB/worktree/made.slow"
    echo job > "$POOL/release" 3>&- &
    local release=$!
    await test -e "$DIR/begun"
    for command in pause resume restart; do
        run bash -c "echo $command > $POOL/agents/agent-1/ctl"
        assert_failure
        assert_output --partial "resource busy"
        assert contains "$POOL/last_error" "agent-1 is being made ready"
    done
    touch "$DIR/go"
    wait $release
    echo next > "$POOL/acquire"
    assert_equal "$(cat "$POOL/leases/next/wait")" ready
}

@test "a pause waits for no keys that wait for a prompt to be submitted" {
    local pid
    for _ in 1 2 3; do # a prompt is tried for four seconds: one of three on a busy machine
        lease_program stuck
        assert_equal "$(wait_for_job)" ready
        pid=$(program_of "$JOB")
        echo hello > "$JOB/prompt"
        await contains "$JOB/screen" "> hello"
        echo z > "$JOB/keys"
        echo pause > "$JOB/ctl"
        await grep -q '^State:.T' "/proc/$pid/status"
        local outcome
        outcome=$(jq -r 'select(.event == "prompt") | .outcome' "$POOL/events")
        echo resume > "$JOB/ctl"
        await grep -q '> .*z' "$JOB/screen"
        echo job > "$POOL/release"
        if [ -z "$outcome" ]; then return; fi # it was being submitted still
        unmount_pool
    done
    false
}

@test "a release while a pause is under way lets the program end in order" {
    # stopping so many takes longer than to ask them to end
    cat > "$DIR/many" <<'END'
for i in $(seq 200); do sleep 1000 & done
trap 'trap "" HUP TERM; sleep 0.2; sleep 0.2; sleep 0.2; echo in order > ended; exit' HUP TERM
echo beg""un
while :; do sleep 0.1; done
END
    mount_pool 1 1 -- sh "$DIR/many"
    local label
    for label in a b c; do # it has two seconds to: one of three on a busy machine
        echo $label > "$POOL/acquire"
        await contains "$POOL/leases/$label/output" begun
        echo pause > "$POOL/leases/$label/ctl"
        echo $label > "$POOL/release"
        await value_is "$POOL/stats/idle_agents" 1
        assert [ ! -e "$STATE/agents/agent-1/paused" ]
        if [ "$(git -C "$REPO" show "agentpool/$label:ended")" = "in order" ]; then return; fi
    done
    false
}

@test "reset has the program forget, in order with the prompts before it" {
    lease_program
    echo one > "$JOB/prompt"
    echo two > "$JOB/prompt"
    echo reset > "$JOB/ctl"
    echo three > "$JOB/prompt"
    assert_equal "$(cat "$JOB/response")" "answer 1 to three"
    assert contains "$JOB/output" "answer 2 to two"
    await value_is "$JOB/prompts" 3
    echo job > "$POOL/release"
}

@test "reset of a program that knows no command for it is refused" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    run bash -c "echo reset > $JOB/ctl"
    assert_failure
    assert_output --partial "not supported"
    assert contains "$POOL/last_error" "knows no command to forget by"
    echo job > "$POOL/release"
}

@test "a program that is retired ends by its own command" {
    printf '%s\n' "set = GOODBYE=$DIR/said/goodbye" "write = $DIR/said/" >> "$PROFILE"
    mkdir "$DIR/said"
    mount_pool 1 2 -o "program_profile=$PROFILE" -- python3 "$BATS_TEST_DIRNAME/program.py"
    echo 2 > "$POOL/scale"
    await value_is "$POOL/stats/idle_agents" 2
    await value_is "$POOL/agents/agent-1/activity" ready
    await value_is "$POOL/agents/agent-2/activity" ready
    echo 1 > "$POOL/scale"
    await value_is "$POOL/stats/total_agents" 1
    assert_equal "$(cat "$DIR/said/goodbye")" "goodbye"
}

@test "exit_status tells how the last program ended, and when" {
    lease_program
    assert_equal "$(wait_for_job)" ready
    assert_equal "$(cat "$JOB/exit_status")" ""
    echo "/quit Enter" > "$JOB/keys"
    await value_is "$JOB/activity" exited
    run cat "$JOB/exit_status"
    assert_output --regexp '^code 7 [0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z$'
    echo restart > "$JOB/ctl"
    assert_equal "$(wait_for_job)" ready
    assert contains "$JOB/exit_status" "code 7"
    echo job > "$POOL/release"
}

@test "a bad profile is refused with file and line" {
    echo 'ready = screen (' >> "$PROFILE"
    mkdir "$POOL"
    run "$AGENTPOOLFS" -o "state_dir=$STATE,program_profile=$PROFILE" "$REPO" "$POOL"
    assert_equal "$status" 1
    assert_output --partial "$PROFILE:10: the pattern is wrong"
    run "$AGENTPOOLFS" -o "state_dir=$STATE,program_profile=no-such" "$REPO" "$POOL"
    assert_equal "$status" 1
    assert_output --partial "there is no profile 'no-such'"
}

@test "one's own profile goes before the installed one, that of the state directory before both" {
    mkdir -p "$HOME/.config/agentpoolfs/programs" "$STATE/programs"
    printf 'like = bash\nset = WHOSE=user\nset = USER_SAYS=yes\n' > "$HOME/.config/agentpoolfs/programs/bash.conf"
    printf 'like = bash\nset = WHOSE=${NAME}\nunset = UNWANTED\n' > "$STATE/programs/bash.conf"
    export UNWANTED=1
    mount_pool 1 1
    echo job > "$POOL/acquire"
    echo 'echo "$WHOSE $USER_SAYS ${UNWANTED:-unset}"' > "$JOB/prompt"
    assert_equal "$(cat "$JOB/response")" "agent-1 yes unset"
    echo job > "$POOL/release"
    rm -r "$STATE/programs"
}

@test "settings that a program needs are added to those there are" {
    mkdir "$HOME/.tool"
    echo '{"theme": "light", "projects": {"/other": {"trusted": true}}}' > "$HOME/.tool/settings.json"
    cat >> "$PROFILE" <<'END'
seed = ${HOME}/.tool/settings.json
 {"theme": "dark", "onboarded": true,
  "projects": {"${REPO}": {"trusted": true}}}
seed = ${TOOL_HOME:-${HOME}/.new}/deep/settings.json {"a": 1}
seed = ${HOME}/broken.json {"a": 1}
END
    echo '{' > "$HOME/broken.json"
    lease_program
    run jq --arg repo "$REPO" '. == {onboarded: true, projects: {"/other": {trusted: true}, ($repo): {trusted: true}}, theme: "light"}' \
        "$HOME/.tool/settings.json"
    assert_output true
    assert_equal "$(jq -c . "$HOME/.new/deep/settings.json")" '{"a":1}'
    assert_equal "$(cat "$HOME/broken.json")" "{"
    run jq -r 'select(.event == "seed_failed") | .reason' "$POOL/events"
    assert_output --partial "$HOME/broken.json is no object of JSON"
    echo job > "$POOL/release"
}

@test "output and output.raw keep their last part, and tail -f misses nothing" {
    mount_pool 1 1 -o output_limit=1M
    echo job > "$POOL/acquire"
    tail -c +1 -f "$JOB/output" > "$DIR/followed" 2>&1 &
    local follower=$! i size
    for i in 1 2 3 4 5 6; do # 6 rounds of 700 KB
        echo "seq -f '$i-%.0f xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' 10000" > "$JOB/prompt"
        assert_equal "$(wait_for_job)" ready
        await contains "$DIR/followed" "$i-10000 "
    done
    kill $follower
    for i in 1 2 3 4 5 6; do
        assert_equal "$(grep -c "^$i-[0-9]* x" "$DIR/followed")" 10000
    done
    size=$(stat -L -c %s "$JOB/output")
    assert [ "$size" -gt 4000000 ]
    cat "$JOB/output" > "$DIR/kept"
    assert [ "$(stat -c %s "$DIR/kept")" -le 1200000 ]
    assert [ "$(stat -c %s "$DIR/kept")" -ge 1000000 ]
    assert contains "$DIR/kept" "6-10000 "
    assert_equal "$(head -c 2 "$DIR/kept")" "5-" # begins with a whole line
    tail -c 300 "$JOB/output" > "$DIR/end"
    assert contains "$DIR/end" "6-10000 "
    local disk
    disk=$(du -c --block-size=1 "$STATE"/agents/agent-1/output* | tail -1 | cut -f1)
    assert [ "$disk" -le 3000000 ]
    echo job > "$POOL/release"
}

@test "no control sequence reaches a reader of output or screen, output.raw has them" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    cat > "$HOME/evil" <<'END'
printf '\033[31mred\033[0m \033]0;title\007 \033]52;c;ZXZpbA==\033\\ \302\2331mc1\302\235x\302\234 \2331m \033P1$r\033\\ \033[6n end\n'
END
    echo "cat ~/evil | sh" > "$JOB/prompt"
    assert_equal "$(wait_for_job)" ready
    assert contains "$JOB/output" " end"
    local file
    for file in output screen response; do
        LC_ALL=C run grep -cP '[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]' "$JOB/$file"
        assert_output 0
        iconv -f UTF-8 -t UTF-8 "$JOB/$file" > /dev/null
    done
    assert grep -qP '\x1b\[31mred' "$JOB/output.raw"
    assert_equal "$(stat -L -c %s "$JOB/output.raw")" "$(cat "$JOB/output.raw" | wc -c)"
    echo job > "$POOL/release"
}

@test "an idle pool with programs that are silent looks at nothing" {
    mount_pool 3 3
    local tries tracer
    for tries in 1 2 3 4 5; do # until what follows a start is over
        strace -f -qq -e trace=execve,write,openat -o "$DIR/trace" -p "$DAEMON" &
        tracer=$!
        await test -e "$DIR/trace"
        sleep 3 # the time that is looked at: nothing may happen in it
        kill -INT $tracer
        await gone $tracer
        [ -s "$DIR/trace" ] || return 0
        mv "$DIR/trace" "$DIR/last-trace"
    done
    cat "$DIR/last-trace"
    return 1
}

@test "mode stream: prompts and answers are lines of JSON" {
    cat > "$PROFILE" <<'END'
mode = stream
arg = -u
input = {"type": "user", "text": "${PROMPT}", "also": ["${PROMPT}"]}
busy = event {"type": "working"}
ready = event {"type": "result"}
waiting = event {"type": "question", "open": true}
response = /result/text
END
    cat > "$DIR/stream.py" <<'END'
import json, sys, time
for line in sys.stdin:
    text = json.loads(line)["text"]
    print(json.dumps({"type": "working"}))
    time.sleep(0.3)
    if text == "ask":
        print(json.dumps({"type": "question", "open": True}))
        continue
    print("no JSON")
    print(json.dumps({"type": "result", "result": {"text": f"{len(text)}: {text[:20]}", "more": "x" * 100000}}))
END
    mount_pool 1 1 -o "program_profile=$PROFILE" -- python3 "$DIR/stream.py"
    echo job > "$POOL/acquire"
    assert_equal "$(wait_for_job)" ready
    echo "hello \"you\"" > "$JOB/prompt"
    assert_equal "$(cat "$JOB/response")" '11: hello "you"'
    python3 -c "print('line of text\n' * 50000, end='')" > "$JOB/prompt"
    assert_equal "$(cat "$JOB/response")" "$(printf '649999: line of text\nline of')"
    echo ask > "$JOB/prompt"
    assert_equal "$(wait_for_job)" waiting
    assert_equal "$(jq -r 'select(.event == "prompt") | .outcome' "$POOL/events" | sort -u)" submitted
    echo job > "$POOL/release"
}

@test "tests/session shows what a profile makes of a program, without a pool" {
    local session said
    session=$(dirname "$AGENTPOOLFS")/../tests/session
    said=$(printf 'echo one\nexit 3\n' | "$session" bash bash --norc)
    grep -q 'prompt 1 submitted' <<< "$said"
    grep -q 'ended code 3' <<< "$said"
    assert_equal "$("$session" true no-such-profile 2>&1)" "session: there is no profile 'no-such-profile'"
}

# A pool of one over a program without a profile, for which silence says nothing, leased.
lease_without_profile() { # PROGRAM...
    printf 'like = default\nsilence = 1h\n' > "$PROFILE"
    mount_pool 1 1 -o "program_profile=$PROFILE" -- "$@"
    echo job > "$POOL/acquire"
    assert_equal "$(wait_for_job)" ready
}

@test "a program without a profile that reads lines is ready when it does, however short the silence" {
    local program
    for program in cat "sh -c 'stty -echo; exec cat'"; do
        eval "lease_without_profile $program"
        assert contains "$JOB/why" "reads its terminal"
        local i
        for i in 1 2 3; do
            echo "line $i" > "$JOB/prompt"
            assert_equal "$(wait_for_job)" ready
        done
        assert contains "$JOB/output" "line 3"
        echo job > "$POOL/release"
        unmount_pool
    done
}

@test "a program without a profile is busy for as long as it does not read, however long its silence" {
    printf 'like = default\nsilence = 100ms\n' > "$PROFILE"
    cat >"$DIR/gate.py" <<'END'
import os, time
def gate():
    while os.path.exists("gate"):
        time.sleep(0.01)
END
    mount_pool 1 1 -o "program_profile=$PROFILE" -- python3 -i "$DIR/gate.py"
    echo job > "$POOL/acquire"
    await contains "$JOB/why" "reads its terminal"
    local i
    for i in 1 2; do
        touch "$JOB/worktree/gate"
        echo 'gate()' > "$JOB/prompt"
        echo "print('done', $i)" > "$JOB/prompt"
        await contains "$JOB/why" "does not read its terminal"
        sleep 1 # ten times what would be ready by silence
        assert_equal "$(cat "$JOB/activity")" busy
        rm "$JOB/worktree/gate"
        assert_equal "$(wait_for_job)" ready
        assert contains "$JOB/output" "done $i"
    done
    echo job > "$POOL/release"
}

@test "a program without a profile is ready where its cursor stands behind a prompt, or where it marks one" {
    local kind
    for kind in editor marked; do
        lease_without_profile python3 "$BATS_TEST_DIRNAME/line_program.py" $kind
        touch "$JOB/worktree/gate"
        echo first > "$JOB/prompt"
        await contains "$JOB/screen" "? first"
        sleep 1
        assert_equal "$(cat "$JOB/activity")" busy
        rm "$JOB/worktree/gate"
        assert_equal "$(wait_for_job)" ready
        assert contains "$JOB/output" "answer to first"
        echo second > "$JOB/prompt"
        assert_equal "$(wait_for_job)" ready
        assert contains "$JOB/output" "answer to second"
        echo job > "$POOL/release"
        unmount_pool
    done
}

@test "a program of which the terminal tells nothing is ready after the silence of its profile" {
    local kind
    for kind in blind ticks; do
        printf 'like = default\nsilence = 1h\n' > "$PROFILE"
        mount_pool 1 1 -o "program_profile=$PROFILE" -- python3 "$BATS_TEST_DIRNAME/line_program.py" $kind
        echo job > "$POOL/acquire"
        await contains "$JOB/screen" "?"
        sleep 1
        assert_equal "$(cat "$JOB/activity")" starting
        assert contains "$JOB/why" silence
        unmount_pool
        sed -i 's/1h/500ms/' "$PROFILE"
        mount_pool 1 1 -o "program_profile=$PROFILE" -- python3 "$BATS_TEST_DIRNAME/line_program.py" $kind
        echo job > "$POOL/acquire"
        assert_equal "$(wait_for_job)" ready
        assert contains "$JOB/why" silence
        unmount_pool
    done
}

@test "a program without a profile that asks waits for a human, though it reads its terminal" {
    lease_without_profile python3 -i -c 'print("hello")'
    echo 'answer = input("Overwrite it? [y/n] ")' > "$JOB/prompt"
    assert_equal "$(wait_for_job)" waiting
    echo y Enter > "$JOB/keys"
    assert_equal "$(wait_for_job)" ready
    echo 'print(answer * 3)' > "$JOB/prompt"
    assert_equal "$(wait_for_job)" ready
    assert contains "$JOB/output" yyy
    echo job > "$POOL/release"
}

# --- what a program asks, and the answer ---

# A program that asks before it does `ask`, with the words of its dialog.
lease_asking() { # [OPTION...]
    cat >>"$PROFILE" <<'END'
question = execute ^(?<title>May I\?)$
option = allow_once (1)\. (Yes) => y
option = reject_once (2)\. (No)$ => n
END
    lease_program "" "$@"
    assert_equal "$(wait_for_job)" ready
}

refused() { # ERRNO-TEXT ANSWER
    run bash -c "echo '$2' > $JOB/answer"
    assert_failure
    assert_output --partial "$1"
}

@test "request says what a program asks, and answer answers it, from anywhere" {
    lease_asking
    assert_equal "$(cat "$JOB/request")" ""
    refused "No data available" allow
    assert contains "$POOL/last_error" "asks nothing"
    local word answered
    for word in allow:allowed reject:denied 1:allowed 2:denied; do
        answered=${word#*:} word=${word%:*}
        echo ask > "$JOB/prompt"
        assert_equal "$(wait_for_job)" waiting
        assert_equal "$(sed 1d "$JOB/request")" $'title May I?\nkind execute\n1 allow_once Yes\n2 reject_once No'
        refused "Invalid argument" nonsense
        assert contains "$POOL/last_error" "'nonsense' is no answer to 'May I?': there are 1 2 cancel"
        refused "Invalid argument" always
        echo "$word" > "$JOB/answer"
        assert_equal "$(wait_for_job)" ready
        assert contains "$JOB/output" "$answered"
        assert_equal "$(jq -r 'select(.event == "answer") | "\(.lease) \(.uid) \(.title) \(.kind) \(.means)"' "$POOL/events" | tail -n 1)" \
            "job $(id -u) May I? execute $([ $answered = allowed ] && echo allow_once || echo reject_once)"
    done
    assert_equal "$(cat "$JOB/request")" ""
    assert_equal "$(jq -r 'select(.event == "answer") | .request' "$POOL/events" | wc -l)" 4
}

@test "of two answers to one question one is taken" {
    lease_asking
    echo ask > "$JOB/prompt"
    assert_equal "$(wait_for_job)" waiting
    local pids=() pid n=0
    for _ in 1 2 3 4; do
        bash -c "echo allow > $JOB/answer" 2>>"$DIR/refused" 3>&- &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do if wait "$pid"; then n=$((n + 1)); fi; done
    assert_equal $n 1
    assert_equal "$(grep -c "No data available" "$DIR/refused")" 3
    assert_equal "$(wait_for_job)" ready
    assert_equal "$(jq -r 'select(.event == "answer") | .event' "$POOL/events")" answer
}

@test "an answer that the program does not take is EIO, and it asks still" {
    lease_asking
    sed -i '/^option = reject_once/s/=> n/=> z/' "$PROFILE"
    echo job > "$POOL/release"
    unmount_pool
    lease_program
    echo ask > "$JOB/prompt"
    assert_equal "$(wait_for_job)" waiting
    refused "Input/output error" reject
    assert contains "$POOL/last_error" "asks the same still"
    assert_equal "$(wait_for_job)" waiting
    echo allow > "$JOB/answer"
    assert_equal "$(wait_for_job)" ready
}

@test "a yes or no of any program is asked and answered" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    echo 'read -p "Over""write it? [y/n] " answer; echo "answer is $answer"' > "$JOB/prompt"
    assert_equal "$(wait_for_job)" waiting
    assert_equal "$(sed 1d "$JOB/request")" $'title Overwrite it? [y/n]\nkind other\nallow_once allow_once y\nreject_once reject_once n'
    echo allow > "$JOB/answer"
    assert_equal "$(wait_for_job)" ready
    assert contains "$JOB/output" "answer is y"
    echo 'read -p "na""me: " name; echo "name is $name"' > "$JOB/prompt"
    assert_equal "$(wait_for_job)" waiting
    assert_equal "$(sed 1d "$JOB/request")" $'title name:\nkind other' # no rule knows what it offers
    refused "Invalid argument" allow
    echo "me Enter" > "$JOB/keys"
    assert_equal "$(wait_for_job)" ready
    assert contains "$JOB/output" "name is me"
}

@test "cancel breaks off a command, and a question" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    echo 'sleep 1000' > "$JOB/prompt"
    await value_is "$JOB/tasks" 2
    echo cancel > "$JOB/ctl"
    assert_equal "$(wait_for_job)" ready
    echo 'read -p "Over""write it? [y/n] " answer' > "$JOB/prompt"
    assert_equal "$(wait_for_job)" waiting
    echo cancel > "$JOB/answer"
    assert_equal "$(wait_for_job)" ready
    assert_equal "$(jq -r 'select(.event == "answer") | .option' "$POOL/events")" cancel
}

@test "a program without a terminal has no request, and takes no answer" {
    printf 'mode = stream\ninput = {"prompt": "${PROMPT}"}\nready = event {"done": true}\n' > "$PROFILE"
    mount_pool 1 1 -o "program_profile=$PROFILE" -- cat
    echo job > "$POOL/acquire"
    assert_equal "$(cat "$JOB/request")" ""
    refused "Operation not supported" allow
    run bash -c "echo cancel > $JOB/ctl"
    assert_failure
    assert_output --partial "Operation not supported"
}
