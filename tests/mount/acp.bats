# Programs that speak the Agent Client Protocol: mode = acp.

load helper
load acp_helper

# A prompt that has the agent ask.
ask_leave() { # PROMPT
    prompt "$1"
    assert_equal "$(wait_for_job)" waiting
}

refused() { # ERRNO-TEXT[|ERRNO-TEXT] ANSWER
    run bash -c "echo '$2' > $JOB/answer"
    assert_failure
    assert_output --regexp "$1"
}

received() { # TEXT: the agent has got that as a prompt
    await grep -q "$(printf %s "$1" | sha256sum | cut -d' ' -f1)" "$ACP_PROMPTS"
}

sent() { # METHOD: how many messages of that the agents got
    jq -s --arg method "$1" 'map(select(.method == $method)) | length' "$ACP_LOG"
}

sent_errors() { # MESSAGE: how often the agents were answered that
    jq -s --arg message "$1" 'map(select(.error.message == $message)) | length' "$ACP_LOG"
}

sent_times() { # METHOD N
    [ "$(sent "$1")" = "$2" ]
}

# What the agents were answered when they asked for leave, in one line: options, or cancelled.
outcomes() {
    jq -rs 'map(.result.outcome? // empty | .optionId // .outcome) | join(" ")' "$ACP_LOG"
}

outcomes_are() { # OUTCOMES
    [ "$(outcomes)" = "$1" ]
}

asks() { # N: so many requests wait for an answer
    [ "$(grep -c '^title ' "$JOB/request")" = "$1" ]
}

session_of_agent() { # the conversation of the last prompt
    jq -rs 'map(select(.method == "session/prompt") | .params.sessionId) | last' "$ACP_LOG"
}

# --- the program ---

@test "an ACP program has no terminal, and nothing of tmux runs for it" {
    lease_agent
    local pid
    pid=$(program_of "$JOB")
    assert_equal "$(ps -o tty= -p "$pid" | tr -d ' ')" '?'
    assert_equal "$(ps -o comm= -p "$(ps -o ppid= -p "$pid" | tr -d ' ')")" agentpool-shim
    assert [ ! -e "$STATE/tmux.sock" ]
    run bash -c "echo C-c > $JOB/keys"
    assert_failure
    assert_output --partial "Operation not supported"
    assert contains "$POOL/last_error" "no terminal"
}

@test "attach to an ACP program is refused, and says why" {
    lease_agent
    run sh "$JOB/attach"
    assert_failure
    assert_output --regexp "without a terminal|not supported"
}

@test "an ACP program is told where it works, and offered nothing that the pool does not serve" {
    lease_agent
    assert_equal "$(sent initialize) $(sent session/new)" "1 1"
    run jq -r 'select(.method == "session/new") | .params | "\(.cwd) \(.mcpServers)"' "$ACP_LOG"
    assert_output "$(readlink "$JOB/worktree") []"
    run jq -c 'select(.method == "initialize") | .params
        | [.protocolVersion, ([.clientCapabilities | .fs.readTextFile, .fs.writeTextFile, .terminal] | any)]' "$ACP_LOG"
    assert_output "[1,false]"
}

@test "the profile acp is installed, for any program that speaks it" {
    mount_pool 1 1 -o program_profile=acp -- python3 -u "$BATS_TEST_DIRNAME/acp_agent.py"
    echo job > "$POOL/acquire"
    assert_equal "$(wait_for_job)" ready
    assert_equal "$(ask "say hello")" hello
}

@test "until an ACP program has shaken hands it is starting, and prompts wait for it" {
    echo "{\"slow\": \"$DIR/may\"}" > "$ACP_SCRIPT"
    acp_pool mount_pool 1 1
    echo job > "$POOL/acquire"
    prompt "say hello"
    await sent_times initialize 1
    assert_equal "$(sent session/new)" 0
    touch "$DIR/may"
    assert_equal "$(response)" hello
    assert_equal "$(sent session/prompt)" 1
}

# bats test_tags=large
@test "ten ACP programs at once answer, each its own" {
    acp_pool mount_pool 10 10 -o max_spawning=4
    local i
    for i in 0 1 2 3 4 5 6 7 8 9; do echo "job$i" > "$POOL/acquire"; done
    for i in 0 1 2 3 4 5 6 7 8 9; do printf '%s' "say hello $i" > "$POOL/leases/job$i/prompt"; done
    for i in 0 1 2 3 4 5 6 7 8 9; do
        assert_equal "$(timeout 60 cat "$POOL/leases/job$i/response")" "hello $i"
    done
    run jq -rs 'map(select(.method == "session/prompt") | .params.sessionId) | unique | length' "$ACP_LOG"
    assert_output 10
}

# --- prompts and what comes of them ---

@test "an ACP program is busy during its turn, and response is what it said in the last one" {
    lease_agent
    prompt wait
    received wait
    assert_equal "$(cat "$JOB/activity")" busy
    touch "$TREE/go"
    assert_equal "$(response)" waited
    assert_equal "$(cat "$JOB/activity")" ready
    assert_equal "$(ask "say one two")" "one two"
    assert_equal "$(response)" "one two" # however often
    await value_is "$JOB/prompts" 2
    assert_equal "$(jq -r 'select(.event == "prompt") | "\(.lease) \(.outcome) \(.bytes)"' "$POOL/events")" \
        $'job submitted 4\njob submitted 11'
}

# bats test_tags=slow
@test "prompts of one byte to one MiB arrive byte for byte, once, in order" {
    python3 - "$DIR/texts" "${ACP_ALL:+100}" <<'PYTHON'
import hashlib, os, random, sys
folder, n = sys.argv[1], int(sys.argv[2] or 12)
os.mkdir(folder)
letters = "abcdefghijklmnopqrstuvwxyz0123456789 \n\t\"'\\/{}[]$`!#ä–漢😀"
random.seed(7)
with open(folder + "/expected", "w") as expected:
    for i in range(n):
        size = round(2 ** (20 * i / (n - 1)))
        text = "x" + "".join(random.choices(letters, k=size))
        data = text.encode()[:size - 1].decode(errors="ignore").encode()
        data = data.ljust(size, b"x")
        with open(f"{folder}/{i:03}", "wb") as file:
            file.write(data)
        expected.write(f"{hashlib.sha256(data).hexdigest()} {size}\n")
PYTHON
    lease_agent
    local file n=0
    for file in "$DIR"/texts/[0-9]*; do
        cat "$file" > "$JOB/prompt"
        if [ $((++n % 10)) = 0 ]; then assert_equal "$(wait_for_job)" ready; fi # more do not wait at once
    done
    assert_equal "$(response)" "$(tail -n 1 "$DIR/texts/expected" | cut -d' ' -f1)"
    diff "$DIR/texts/expected" "$ACP_PROMPTS"
}

@test "quotes, backslashes, tabs, newlines and any script arrive as they are" {
    lease_agent
    local text
    # shellcheck disable=SC1003,SC2016 # they are meant as they stand
    for text in '"quoted" and '"'so'" 'back\slash \n \u0041 \\' $'a\ttab' $'two\nlines\n\nand more' \
        'äöü 漢字 😀 –' '{"jsonrpc":"2.0","id":1}' '${PROMPT} $(id) `id` %s' '/command' '!shell' '# note' '@file'; do
        assert_equal "$(ask "say $text")" "$text"
    done
    assert_equal "$(ask /clear)" "$(printf /clear | sha256sum | cut -d' ' -f1)" # no blank is put before it
}

@test "stop_reason is why the last turn ended, and empty before one has" {
    lease_agent
    assert_equal "$(cat "$JOB/stop_reason")" ""
    local reason
    for reason in end_turn max_tokens max_turn_requests refusal; do
        assert_equal "$(ask "stop $reason")" stopped
        assert_equal "$(cat "$JOB/stop_reason")" $reason
    done
    echo job > "$POOL/release"
    echo job > "$POOL/acquire"
    assert_equal "$(cat "$JOB/stop_reason")" ""
}

@test "a prompt that is answered by an error has ended, and why has its message" {
    lease_agent
    prompt "error -32603 the model is overloaded"
    await contains "$JOB/why" "the model is overloaded"
    run timeout 60 cat "$JOB/wait" # whatever it says, it returns
    assert [ "$status" -ne 124 ]
    assert_equal "$(ask "say on")" on
    refute contains "$JOB/why" overloaded
    assert_equal "$(sent session/prompt)" 2 # none was tried again
}

@test "what is said behind the end of a turn is no part of the next one's response" {
    lease_agent
    assert_equal "$(ask late | head -c 5)" early
    await contains "$JOB/output" late
    assert_equal "$(ask "say next")" next
}

# --- what it prints ---

@test "output is for people: text, tools and how they end, thoughts and plans" {
    lease_agent
    ask "say one two three"
    ask "tool execute make all"
    ask "fail fetch something"
    ask "thought of much"
    ask "plan look write test"
    run cat "$JOB/output"
    assert_line "one two three"
    assert_line "[execute] make all"
    assert_line "[execute] make all: completed"
    assert_line "[fetch] something"
    assert_line "[fetch] something: failed"
    assert_line "[thought] of much"
    assert_line --regexp '^\[plan\]'
    local word
    for word in look write test planned; do assert_output --partial $word; done
    refute_output --partial jsonrpc
    refute_output --partial sessionUpdate
    assert contains "$JOB/screen" planned
}

@test "output.raw has the lines of an ACP program, byte for byte" {
    lease_agent
    local word
    for word in "say one two" "tool read file" control "stderr some error" "say last"; do ask "$word"; done
    cat "$JOB/output.raw" > "$DIR/raw"
    assert contains "$DIR/raw" '"one"'
    assert contains "$DIR/raw" last
    cmp "$DIR/raw" <(tail -c "$(stat -c %s "$DIR/raw")" "$ACP_SENT")
    assert_equal "$(ask garbage)" good # which is more than is kept
    cat "$JOB/output.raw" > "$DIR/raw"
    assert contains "$DIR/raw" good
    cmp "$DIR/raw" <(tail -c "$(stat -c %s "$DIR/raw")" "$ACP_SENT")
    assert [ "$(stat -L -c %s "$JOB/output.raw")" -gt $((17 << 20)) ]
}

@test "what an ACP program says on standard error is in output alone, and breaks no message" {
    echo '{"stderr": "it starts"}' > "$ACP_SCRIPT"
    lease_agent
    assert_equal "$(ask "stderr some error")" whole
    await contains "$JOB/output" "some error"
    refute contains "$JOB/output.raw" "some error"
    echo restart > "$JOB/ctl"
    await contains "$JOB/output" "it starts"
    assert_equal "$(ask "say on")" on
    refute contains "$JOB/output.raw" "it starts"
}

@test "no control sequence of an ACP program reaches a reader of output, screen or response" {
    lease_agent
    ask control
    ask_leave "forge execute"
    local file
    for file in output screen response request calls why; do
        timeout 60 cat "$JOB/$file" > "$DIR/read"
        LC_ALL=C run grep -cP '[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]' "$DIR/read"
        assert_output 0
    done
    assert contains "$JOB/output" " end"
    assert contains "$JOB/output.raw" '\u001b[31mred'
    echo cancel > "$JOB/answer"
    assert_equal "$(wait_for_job)" ready
}

@test "what is no message, or none that is known, is skipped, and the turn goes on" {
    lease_agent
    assert_equal "$(ask garbage)" good
    refute contains "$JOB/output" bad
    assert_equal "$(ask usage)" used
    assert_equal "$(ask "say on")" on
    assert_equal "$(sent session/prompt)" 3
}

@test "what an ACP program prints before its first message does not matter" {
    echo '{"garbage": true}' > "$ACP_SCRIPT"
    lease_agent
    assert_equal "$(ask "say hello")" hello
}

@test "an ACP program that asks for what is not offered is told so" {
    lease_agent
    local method
    for method in fs/read_text_file fs/write_text_file terminal/create elicitation/create _vendor/status nonsense; do
        assert_equal "$(ask "call $method")" -32601
    done
}

@test "calls has a line for each tool: what it is, where, and what became of it" {
    lease_agent
    assert_equal "$(cat "$JOB/calls")" ""
    assert_equal "$(ask "edit made some text")" "edited made"
    assert_equal "$(cat "$JOB/worktree/made")" "some text"
    ask "fail execute make all"
    run jq -c '[.title, .kind, .status, .permission]' "$JOB/calls"
    assert_output '["Write made","edit","completed",null]
["make all","execute","failed",null]'
    jq -se '.[0] | [.locations, .input] | all(tostring | contains("/made"))' "$JOB/calls"
    assert_equal "$(jq -s 'map(.id) | unique | length' "$JOB/calls")" 2
    echo job > "$POOL/release"
    echo job > "$POOL/acquire"
    assert_equal "$(cat "$JOB/calls")" ""
}

@test "calls says who allowed a tool, or did not, and by what" {
    lease_agent
    ask_leave "ask execute first"
    assert_equal "$(cat "$JOB/calls")" "" # it has not ended
    echo allow > "$JOB/answer"
    assert_equal "$(wait_for_job)" ready
    ask_leave "ask execute second"
    echo reject > "$JOB/answer"
    assert_equal "$(wait_for_job)" ready
    run jq -c '[.title, .status, .permission.option, .permission.kind, .permission.uid]' "$JOB/calls"
    assert_output "[\"first\",\"completed\",\"yes\",\"allow_once\",$(id -u)]
[\"second\",\"failed\",\"no\",\"reject_once\",$(id -u)]"
}

@test "plan is the last plan, a line an entry" {
    lease_agent
    assert_equal "$(cat "$JOB/plan")" ""
    ask "plan one two"
    ask "plan look write test"
    assert_equal "$(cat "$JOB/plan")" $'in_progress high look\npending medium write\npending medium test'
}

# --- what it asks, and the answer ---

@test "an ACP program that asks is waiting, and request says what it asks" {
    lease_agent
    assert_equal "$(cat "$JOB/request")" ""
    ask_leave "ask execute Remove all"
    assert contains "$JOB/why" "Remove all"
    run cat "$JOB/request"
    assert_equal "$(cut -d' ' -f1 <<< "$output" | tr '\n' ' ')" "id title kind detail yes always no "
    assert_line "title Remove all"
    assert_line "kind execute"
    assert_line --regexp "^detail .*run Remove all"
    assert_line "yes allow_once Yes"
    assert_line "always allow_always Yes, always"
    assert_line "no reject_once No"
    echo allow > "$JOB/answer"
    assert_equal "$(response)" "allowed yes"
    assert_equal "$(cat "$JOB/request")" ""
}

@test "a request that names its tool alone has the tool's title and kind" {
    lease_agent
    ask_leave "ask-bare fetch Some page"
    assert grep -qx "title Some page" "$JOB/request"
    assert grep -qx "kind fetch" "$JOB/request"
    assert contains "$JOB/why" "Some page"
    echo reject > "$JOB/answer"
    assert_equal "$(response)" "rejected no"
}

@test "a title of several lines makes no lines of request" {
    lease_agent
    ask_leave "forge execute"
    assert_equal "$(cut -d' ' -f1 "$JOB/request" | tr '\n' ' ')" "id title kind detail yes always no "
    refused "Invalid argument" forged
    echo no > "$JOB/answer"
    assert_equal "$(response)" "rejected no"
}

@test "an answer is an option, or a word for its kind" {
    lease_agent
    local word answered all=
    for word in allow:yes always:always reject:no yes:yes no:no; do
        answered=${word#*:} word=${word%:*}
        ask_leave "ask execute $word"
        echo "$word" > "$JOB/answer"
        if [ "$answered" = no ]; then
            assert_equal "$(response)" "rejected no"
        else
            assert_equal "$(response)" "allowed $answered"
        fi
        all="$all $answered"
    done
    assert outcomes_are "${all# }"
}

@test "cancel answers a request without a choice, and the turn comes to its end" {
    lease_agent
    ask_leave "ask execute something"
    echo cancel > "$JOB/answer"
    assert_equal "$(wait_for_job)" ready
    assert outcomes_are cancelled
    assert contains "$JOB/output" "[execute] something: failed"
    assert_equal "$(ask "say on")" on
}

@test "an answer that is not offered is refused, and changes nothing" {
    lease_agent
    ask_leave "ask execute something"
    cat "$JOB/request" > "$DIR/request"
    local word
    for word in nonsense allow_once 1 YES; do refused "Invalid argument" "$word"; done
    refused "No data available" "yes no" # an id that is none
    refused "Invalid argument" nonsense
    assert contains "$POOL/last_error" nonsense
    assert_equal "$(cat "$JOB/request")" "$(cat "$DIR/request")"
    assert_equal "$(cat "$JOB/activity")" waiting
    assert outcomes_are ""
    echo yes > "$JOB/answer"
    assert_equal "$(response)" "allowed yes"
}

@test "an answer where nothing is asked is ENODATA" {
    lease_agent
    refused "No data available" allow
    assert contains "$POOL/last_error" "asks nothing"
    ask_leave "ask execute something"
    echo allow > "$JOB/answer"
    assert_equal "$(wait_for_job)" ready
    refused "No data available" allow
}

@test "an answer is an event, with who gave it" {
    lease_agent
    ask_leave "ask execute something"
    local id
    id=$(sed -n 's/^id //p' "$JOB/request")
    echo always > "$JOB/answer"
    assert_equal "$(wait_for_job)" ready
    await contains "$POOL/events" '"event":"answer"'
    run jq -r 'select(.event == "answer")
        | "\(.agent) \(.lease) \(.uid) \(.request) \(.title) \(.kind) \(.option) \(.means)"' "$POOL/events"
    assert_output "agent-1 job $(id -u) $id something execute always allow_always"
}

@test "of two answers to one request of an ACP program one is taken" {
    lease_agent
    ask_leave "ask-wait execute something"
    local pids=() pid n=0
    for _ in 1 2 3 4; do
        bash -c "echo allow > $JOB/answer" 2>>"$DIR/refused" 3>&- &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do if wait "$pid"; then n=$((n + 1)); fi; done
    assert_equal $n 1
    assert_equal "$(grep -c "No data available" "$DIR/refused")" 3
    touch "$TREE/go"
    assert_equal "$(response)" "allowed yes waited"
    assert outcomes_are yes
}

@test "prompts wait behind what an ACP program asks" {
    lease_agent
    ask_leave "ask execute something"
    prompt "say later"
    await value_is "$JOB/prompts" 2
    assert_equal "$(wait_for_job)" waiting
    assert_equal "$(sent session/prompt)" 1
    echo allow > "$JOB/answer"
    assert_equal "$(response)" later
}

@test "another user without the right answers nothing" {
    needs_root "acts as another user"
    chmod 711 "$DIR" # other users pass through
    lease_agent -o allow_other
    ask_leave "ask execute something"
    run setpriv --reuid=65534 --regid=65534 --clear-groups bash -c "echo allow > $JOB/answer"
    assert_failure
    assert_output --regexp "Permission denied|Operation not permitted"
    assert outcomes_are ""
    assert_equal "$(wait_for_job)" waiting
    echo reject > "$JOB/answer"
    assert_equal "$(response)" "rejected no"
}

@test "another user's answer, where he may give one, is his in events and calls" {
    needs_root "acts as another user"
    chmod 711 "$DIR"
    acp_pool mount_pool 1 1 -o allow_other,umask=0
    setpriv --reuid=65534 --regid=65534 --clear-groups bash -c "echo job > $POOL/acquire"
    ask_leave "ask execute something"
    setpriv --reuid=65534 --regid=65534 --clear-groups bash -c "echo allow > $JOB/answer"
    assert_equal "$(response)" "allowed yes"
    assert_equal "$(jq .permission.uid "$JOB/calls")" 65534
    await contains "$POOL/events" '"event":"answer"'
    assert_equal "$(jq 'select(.event == "answer") | .uid' "$POOL/events")" 65534
}

@test "ten requests at once: request has all in their order, and each gets its own answer" {
    lease_agent
    prompt "asks 10 execute edit read"
    await asks 10
    assert_equal "$(wait_for_job)" waiting
    assert_equal "$(sed -n 's/^title //p' "$JOB/request")" "$(printf 'request %d\n' 1 2 3 4 5 6 7 8 9 10)"
    assert_equal "$(sed -n 's/^kind //p' "$JOB/request" | head -n 4 | tr '\n' ' ')" "execute edit read execute "
    assert_equal "$(grep -c '^$' "$JOB/request")" 9 # between two
    local ids i
    mapfile -t ids < <(sed -n 's/^id //p' "$JOB/request")
    echo "${ids[4]} no" > "$JOB/answer"
    echo always > "$JOB/answer" # of the first one
    await asks 8
    assert_equal "$(sed -n 's/^title //p' "$JOB/request" | head -n 1)" "request 2"
    refused "No data available" "${ids[4]} yes"
    refused "No data available" "${ids[0]} yes"
    refused "No data available" "nonsense yes"
    refused "Invalid argument" "${ids[1]} nonsense"
    for i in 9 8 7 6 5; do echo "${ids[i]} yes" > "$JOB/answer"; done
    for i in 3 2; do echo "${ids[i]} reject" > "$JOB/answer"; done
    await asks 1
    await value_is "$JOB/activity" waiting
    echo "${ids[1]} cancel" > "$JOB/answer"
    assert_equal "$(response)" "allowed always
cancelled
rejected no
rejected no
rejected no
allowed yes
allowed yes
allowed yes
allowed yes
allowed yes"
    assert_equal "$(cat "$JOB/request")" ""
    assert_equal "$(wc -w <<< "$(outcomes)")" 10
}

@test "a program that asks more than was answered is waiting again, however often" {
    lease_agent
    prompt "asks 40 execute"
    await asks 40
    local n
    for n in {39..1}; do
        echo allow > "$JOB/answer"
        assert_equal "$(wait_for_job)" waiting
    done
    await asks 1
    echo reject > "$JOB/answer"
    assert_equal "$(response | tail -n 1)" "rejected no"
}

@test "a turn that ends while it asks has its requests answered as cancelled" {
    lease_agent
    prompt "leave execute something"
    await outcomes_are cancelled # until then it may be waiting
    assert_equal "$(response)" left
    assert_equal "$(cat "$JOB/request")" ""
    assert_equal "$(wait_for_job)" ready
    refused "No data available" allow
}

@test "status.json has what an ACP program asks, as request has it, and nothing of it when it is answered" {
    lease_agent
    assert_equal "$(jq -c '.agents[0].request' "$POOL/status.json")" null
    prompt "asks 2 execute edit"
    await asks 2
    shows() { [ "$(jq -r '.agents[0].request | join("\n")' "$POOL/status.json")" = "$(cat "$JOB/request")" ]; }
    await shows
    jq -e '.agents[0].request | any(. == "yes allow_once Yes")' "$POOL/status.json"
    echo reject > "$JOB/answer"
    echo reject > "$JOB/answer"
    response
    nothing() { [ "$(jq -c '.agents[0].request' "$POOL/status.json")" = null ]; }
    await nothing
}

@test "every option of a request has a word of its own, whatever ids a program gives" {
    lease_agent
    local word
    # what is chosen by that word, or null
    for word in allow:b 1:allow b:b always:c reject:allow 4:reject cancel:null 5:cancel; do
        prompt "offer reject_once=allow allow_once=b allow_always=c reject_once=reject reject_once=cancel"
        assert_equal "$(wait_for_job)" waiting
        assert_equal "$(sed -n 's/ [a-z]*_[a-z]* Number.*//p' "$JOB/request" | xargs)" "1 b c 4 5"
        refused "Invalid argument" 2
        echo "${word%:*}" > "$JOB/answer"
        assert_equal "$(response | tr -d '"')" "${word#*:}"
    done
    prompt "offer allow_once=2 reject_once=2 reject_always=3"
    assert_equal "$(wait_for_job)" waiting
    assert_equal "$(sed -n 's/ [a-z]*_[a-z]* Number.*//p' "$JOB/request" | xargs)" "2 3 4"
    echo 4 > "$JOB/answer"
    assert_equal "$(response)" '"3"'
}

@test "more requests than are kept are refused, and not asked by the next daemon" {
    lease_agent
    prompt "asks 70 execute"
    await asks 64
    local _
    for _ in 1 2 3; do echo allow > "$JOB/answer"; done
    await asks 61
    assert_equal "$(sent_errors "too many requests wait")" 6
    crash_and_mount
    assert_equal "$(wait_for_job)" waiting
    assert asks 61
    echo cancel > "$JOB/ctl"
    assert_equal "$(wait_for_job)" ready
    assert_equal "$(sent_errors "too many requests wait")" 6
}

# bats test_tags=large
@test "a program that asks on and reads nothing is not answered for ever" {
    lease_agent
    prompt "deaf 20000"
    await contains "$JOB/output" asked
    await value_is "$JOB/activity" busy
    touch "$TREE/go"
    assert_equal "$(response)" "asked waited"
    assert_equal "$(ask "say on")" on
    assert [ "$(sent_errors "Method not found")" -lt 10000 ]
}

# How many of the daemon's threads wait for one descriptor, such as the input of a program that does not read.
threads_in_poll() {
    cat "/proc/$DAEMON"/task/*/syscall | grep -cE '^(7|271) ' # poll, ppoll
}

threads_in_poll_are() { # N
    [ "$(threads_in_poll)" = "$1" ]
}

# bats test_tags=large
@test "programs that read nothing hold up nobody else, however many they are" {
    acp_pool mount_pool 8 8 -o max_spawning=4
    local i idle=1 # the pool's, but for moments in which it looks at a table of mounts that has changed
    await threads_in_poll_are "$idle"
    for i in 1 2 3 4 5 6 7 8; do echo "job$i timeout=60" > "$POOL/acquire"; done
    for i in 1 2 3 4 5 6 7; do echo "deaf 3000" > "$POOL/leases/job$i/prompt"; done
    for i in 1 2 3 4 5 6 7; do await contains "$POOL/leases/job$i/output" asked; done
    await threads_in_poll_are "$idle"
    JOB=$POOL/leases/job8
    assert_equal "$(ask "say on")" on
    echo job8 > "$POOL/release"
    await threads_in_poll_are "$idle"
    for i in 1 2 3 4 5 6 7; do touch "$POOL/leases/job$i/worktree/go"; done
    for i in 1 2 3 4 5 6 7; do
        JOB=$POOL/leases/job$i
        assert_equal "$(response)" "asked waited"
        assert_equal "$(ask "say on")" on
    done
}

# bats test_tags=large
@test "a line of very many values is skipped, and a request with a very long id" {
    lease_agent
    assert_equal "$(ask heavy)" good
    assert grep -q '^\[skipped\] a line of 15000010 bytes' "$JOB/output"
    assert_equal "$(sent_errors "Method not found")" 0
}

# --- what rules answer ---

answers_by_rule() {
    jq -r 'select(.event == "answer" and .rule) | "\(.title) \(.means) \(.uid) \(.rule)"' "$POOL/events"
}

@test "permission= of a lease answers an ACP program by the kind of its tool, and calls says by which rule" {
    acp_pool mount_pool 1 1
    echo job permission=allow:read > "$POOL/acquire"
    assert_equal "$(ask "ask read this")" "allowed yes"
    ask_leave "ask execute that"
    echo reject > "$JOB/answer"
    assert_equal "$(response)" "rejected no"
    assert_equal "$(answers_by_rule)" "this allow_once $(id -u) permission=allow:read"
    run jq -c '[.title, .permission.kind, .permission.rule, .permission.uid]' "$JOB/calls"
    assert_output "[\"this\",\"allow_once\",\"permission=allow:read\",null]
[\"that\",\"reject_once\",null,$(id -u)]"
}

@test "permission=reject says no to an ACP program, permission=allow yes, and neither for always" {
    acp_pool mount_pool 1 1
    echo job permission=reject > "$POOL/acquire"
    assert_equal "$(ask "asks 3 read edit other")" "rejected no
rejected no
rejected no"
    echo job > "$POOL/release"
    echo job permission=allow > "$POOL/acquire"
    assert_equal "$(ask "asks 3 read edit other")" "allowed yes
allowed yes
allowed yes"
}

@test "of many requests of an ACP program rules answer theirs, and the others are asked" {
    acp_pool mount_pool 1 1
    echo job permission=allow:read,search > "$POOL/acquire"
    prompt "asks 6 read execute search edit read other"
    await asks 3
    assert_equal "$(sed -n 's/^kind //p' "$JOB/request" | xargs)" "execute edit other"
    local _
    for _ in 1 2 3; do echo reject > "$JOB/answer"; done
    assert_equal "$(response)" "allowed yes
rejected no
allowed yes
rejected no
allowed yes
rejected no"
}

@test "config/permission answers what an ACP program asks already" {
    lease_agent
    ask_leave "ask execute something"
    echo allow > "$POOL/config/permission"
    assert_equal "$(response)" "allowed yes"
    assert_equal "$(answers_by_rule)" "something allow_once $(id -u) permission=allow"
}

@test "what an ACP program asks while the daemon is away is answered by rule after the mount, once" {
    acp_pool mount_pool 1 1
    echo job permission=allow > "$POOL/acquire"
    prompt "wait-ask execute something"
    received "wait-ask execute something"
    crash_pool
    touch "$TREE/go"
    await grep -q request_permission "$ACP_SENT"
    acp_pool mount_again 1 1
    assert_equal "$(response)" "allowed yes"
    assert outcomes_are yes
    crash_and_mount
    assert_equal "$(response)" "allowed yes"
    assert outcomes_are yes
}

# --- commands ---

@test "cancel breaks off a turn, and stop_reason says so" {
    lease_agent
    prompt wait
    received wait
    echo cancel > "$JOB/ctl"
    assert_equal "$(wait_for_job)" ready
    assert_equal "$(cat "$JOB/stop_reason")" cancelled
    assert_equal "$(sent session/cancel)" 1
    assert_equal "$(ask "say on")" on
    assert_equal "$(cat "$JOB/stop_reason")" end_turn
}

@test "cancel answers all that is asked, and prompts behind it are given" {
    lease_agent
    prompt "asks 3 execute"
    await asks 3
    prompt "say later"
    await value_is "$JOB/prompts" 2
    echo cancel > "$JOB/ctl"
    received "say later"
    assert_equal "$(response)" later
    assert outcomes_are "cancelled cancelled cancelled"
    assert_equal "$(cat "$JOB/request")" ""
    refused "No data available" allow
}

@test "reset begins another conversation of an ACP program, in order with the prompts before it" {
    lease_agent
    local pid first
    pid=$(program_of "$JOB")
    ask "say one"
    assert_equal "$(ask history | head -n 1)" "say one"
    first=$(session_of_agent)
    prompt wait
    prompt "say two"
    echo reset > "$JOB/ctl"
    prompt history
    touch "$TREE/go"
    assert_equal "$(response)" "session $(session_of_agent)"
    refute [ "$(session_of_agent)" = "$first" ]
    assert contains "$JOB/output" two
    assert_equal "$(sent session/close) $(sent session/new) $(sent initialize)" "1 2 1"
    assert_equal "$(jq -r 'select(.method == "session/close") | .params.sessionId' "$ACP_LOG")" "$first"
    assert_equal "$(program_of "$JOB")" "$pid"
}

@test "reset closes no conversation of a program that cannot" {
    echo '{"close": false}' > "$ACP_SCRIPT"
    lease_agent
    ask "say one"
    echo reset > "$JOB/ctl"
    assert_equal "$(ask history)" "session $(session_of_agent)"
    assert_equal "$(sent session/close) $(sent session/new)" "0 2"
}

# --- programs that do not begin ---

no_start_failed() {
    assert_equal "$(cat "$POOL/stats/breaker") $(cat "$POOL/stats/breaker_cause")" "closed "
    assert_equal "$(cat "$POOL/stats/spawned_agents") $(cat "$POOL/stats/terminated_agents")" "1 0"
}

@test "an ACP program that wants a login is waiting, says for which, and is no failed start" {
    echo '{"login": true}' > "$ACP_SCRIPT"
    acp_pool mount_again 1 1
    await value_is "$POOL/agents/agent-1/activity" waiting
    assert contains "$POOL/agents/agent-1/why" "login"
    assert contains "$POOL/agents/agent-1/why" "API key"
    assert contains "$POOL/agents/agent-1/why" "Browser"
    no_start_failed
    assert_equal "$(sent session/new) $(sent authenticate)" "1 0"
    await value_is "$POOL/stats/idle_agents" 1
    echo job > "$POOL/acquire"
    prompt "say hello"
    assert_equal "$(wait_for_job)" waiting
    assert_equal "$(sent session/prompt)" 0
}

@test "an ACP program that was logged in meanwhile is started again and works" {
    echo '{"login": true}' > "$ACP_SCRIPT"
    acp_pool mount_pool 1 1
    echo job > "$POOL/acquire"
    assert_equal "$(wait_for_job)" waiting
    rm "$ACP_SCRIPT"
    echo restart > "$JOB/ctl"
    assert_equal "$(wait_for_job)" ready
    assert_equal "$(ask "say hello")" hello
}

@test "an ACP program that speaks another version is waiting, and says so" {
    echo '{"protocol": 2}' > "$ACP_SCRIPT"
    acp_pool mount_again 1 1
    await value_is "$POOL/agents/agent-1/activity" waiting
    run cat "$POOL/agents/agent-1/why"
    assert_output --regexp "version.* 2"
    assert_equal "$(sent session/new)" 0
    no_start_failed
}

# --- its end, and how it goes on ---

# bats test_tags=large
@test "an ACP program that ends or is killed in a turn is exited, and is started again" {
    lease_agent
    prompt "exit 7"
    assert_equal "$(wait_for_job)" exited
    assert contains "$JOB/exit_status" "code 7"
    echo restart > "$JOB/ctl"
    assert_equal "$(wait_for_job)" ready
    assert_equal "$(ask "say again")" again
    prompt die
    assert_equal "$(wait_for_job)" exited
    assert contains "$JOB/exit_status" "signal 9"
    echo restart > "$JOB/ctl"
    assert_equal "$(wait_for_job)" ready
    assert_equal "$(ask "say and again")" "and again"
    assert_equal "$(wc -l < "$ACP_PROMPTS")" 4 # none was given twice
}

# bats test_tags=large
@test "what an ACP program asked when it died is asked no more" {
    lease_agent
    ask_leave "ask execute something"
    kill -9 "$(program_of "$JOB")"
    await value_is "$JOB/activity" exited
    assert_equal "$(cat "$JOB/request")" ""
    refused "No data available|Input/output error" allow
    echo restart > "$JOB/ctl"
    assert_equal "$(wait_for_job)" ready
    assert_equal "$(cat "$JOB/request")" ""
    assert_equal "$(ask "say on")" on
}

# The conversation over the death of its program, with a switch of the agent. Sets `session`.
die_and_restart() { # [SCRIPT]
    local said
    if [ $# -gt 0 ]; then echo "$1" > "$ACP_SCRIPT"; fi
    lease_agent
    ask "say something memorable"
    said=$(grep -c memorable "$JOB/output")
    session=$(session_of_agent)
    prompt die
    assert_equal "$(wait_for_job)" exited
    echo restart > "$JOB/ctl"
    assert_equal "$(wait_for_job)" ready
    assert_equal "$(grep -c memorable "$JOB/output")" "$said" # what it replays is not said again
}

# bats test_tags=large
@test "a program that can resume its conversation does so after its death" {
    local session
    die_and_restart
    assert_equal "$(ask history)" $'say something memorable\ndie\nsession '"$session"
    assert_equal "$(sent session/resume) $(sent session/load) $(sent session/new)" "1 0 1"
}

# bats test_tags=large
@test "a program that can load its conversation alone does so, and its replay is in no response or output" {
    local session
    die_and_restart '{"resume": false}'
    assert_equal "$(ask "say more")" more
    assert_equal "$(ask history)" $'say something memorable\ndie\nsay more\nsession '"$session"
    assert_equal "$(sent session/resume) $(sent session/load) $(sent session/new)" "0 1 1"
}

# bats test_tags=large
@test "a program that can neither begins another conversation after its death" {
    local session
    die_and_restart '{"resume": false, "load": false}'
    assert_equal "$(ask history)" "session $(session_of_agent)"
    refute [ "$(session_of_agent)" = "$session" ]
    assert_equal "$(sent session/resume) $(sent session/load) $(sent session/new)" "0 0 2"
}

# bats test_tags=large
@test "a program that has lost its conversation begins another one after its death" {
    lease_agent
    ask "say something"
    prompt die
    assert_equal "$(wait_for_job)" exited
    rm "$ACP_HOME"/s-*.json
    echo restart > "$JOB/ctl"
    assert_equal "$(wait_for_job)" ready
    assert_equal "$(ask history)" "session $(session_of_agent)"
}

# --- the daemon's death ---

# bats test_tags=large
@test "a turn goes on over a kill -9 of the daemon, and is given once" {
    lease_agent
    local pid
    pid=$(program_of "$JOB")
    assert_equal "$(ask "say first")" first
    prompt wait
    received wait
    crash_and_mount
    assert_equal "$(program_of "$JOB")" "$pid"
    await value_is "$JOB/activity" busy
    touch "$TREE/go"
    assert_equal "$(response)" waited
    assert_equal "$(ask history)" $'say first\nwait\nsession '"$(session_of_agent)"
    assert_equal "$(sent session/prompt) $(sent session/new) $(sent initialize)" "3 1 1"
}

# bats test_tags=large
@test "a turn that ends while the daemon is away has its response after the mount" {
    lease_agent
    prompt wait
    received wait
    prompt "say later"
    await value_is "$JOB/prompts" 2
    crash_pool
    touch "$TREE/go"
    await grep -q end_turn "$ACP_SENT"
    acp_pool mount_again 1 1
    assert_equal "$(response)" later
    assert contains "$JOB/output" waited
    assert_equal "$(cat "$JOB/stop_reason")" end_turn
    assert_equal "$(wc -l < "$ACP_PROMPTS")" 2
}

# bats test_tags=large
@test "the response to the last prompt is there after a kill -9 of the daemon" {
    lease_agent
    assert_equal "$(ask "stop refusal")" stopped
    ask "plan look write"
    ask "tool execute make"
    prompt wait
    received wait
    crash_pool
    touch "$TREE/go"
    await grep -q waited "$ACP_SENT"
    acp_pool mount_again 1 1
    assert_equal "$(response)" waited
    assert_equal "$(cat "$JOB/plan")" $'in_progress high look\npending medium write'
    assert_equal "$(jq -r '.title + " " + .status' "$JOB/calls")" "make completed"
}

how_it_ended() {
    cat "$JOB/stop_reason" "$JOB/why"
}

how_it_ended_is() { # FILE
    how_it_ended | cmp -s - "$1"
}

# bats test_tags=large
@test "how the last turn ended is known after a kill -9 of the daemon" {
    lease_agent
    local word
    for word in "stop refusal" "error -32603 overloaded"; do
        ask "$word"
        how_it_ended > "$DIR/known"
        crash_and_mount
        await how_it_ended_is "$DIR/known"
        crash_and_mount # of what another has adopted
        await how_it_ended_is "$DIR/known"
    done
    echo reset > "$JOB/ctl"
    assert_equal "$(wait_for_job)" ready
    crash_and_mount
    await value_is "$JOB/activity" ready
    assert_equal "$(cat "$JOB/stop_reason")" ""
    refute contains "$JOB/why" overloaded
}

# bats test_tags=large
@test "why an ACP program did not begin is known after a kill -9 of the daemon" {
    local word
    for word in '"login": true' '"protocol": 2'; do
        echo "{$word}" > "$ACP_SCRIPT"
        acp_pool mount_pool 1 1
        echo job > "$POOL/acquire"
        assert_equal "$(wait_for_job)" waiting
        cat "$JOB/why" > "$DIR/why"
        crash_and_mount
        await cmp -s "$DIR/why" "$JOB/why"
        assert_equal "$(cat "$JOB/activity")" waiting
        assert_equal "$(sent initialize)" 1
        echo job discard > "$POOL/release"
        unmount_pool
        rm "$ACP_HOME"/*
    done
}

# bats test_tags=large
@test "the options of a profile are set over a kill -9 of the daemon" {
    local how message
    printf 'configure = model large\nconfigure = mode ask\n' >> "$DIR/acp.conf"
    for how in before behind; do
        for message in 3 4; do
            echo "$how message $message"
            echo '{"step": true}' > "$ACP_SCRIPT"
            touch "$ACP_HOME"/step-{1,2}
            if [ $message = 4 ]; then touch "$ACP_HOME/step-3"; fi
            acp_pool start_pool 1 1
            await sent_times "$([ $message = 3 ] && echo session/set_config_option || echo session/set_mode)" 1
            if [ $how = before ]; then crash_pool; fi
            printed $message
            if [ $how = behind ]; then crash_pool; fi
            touch "$ACP_HOME"/step-{3..20}
            acp_pool mount_pool 1 1
            echo job > "$POOL/acquire"
            assert_equal "$(ask "say on")" on
            run jq -rs 'map(select(.method | strings | startswith("session/set"))
                | .params.value // .params.modeId) | unique | join(" ")' "$ACP_LOG"
            assert_output "ask large"
            refute contains "$JOB/output" "no such option"
            echo job discard > "$POOL/release"
            unmount_pool
            rm "$ACP_HOME"/*
        done
    done
}

# bats test_tags=large
@test "what is asked when the turn ends while the daemon is away is answered as cancelled" {
    lease_agent
    prompt wait-leave
    received wait-leave
    crash_pool
    touch "$TREE/go"
    await grep -q end_turn "$ACP_SENT"
    acp_pool mount_again 1 1
    assert_equal "$(response)" left
    await outcomes_are cancelled
    assert_equal "$(cat "$JOB/request")" ""
}

# bats test_tags=large
@test "what is asked when the daemon is killed is asked still, once, and can be answered" {
    lease_agent
    ask_leave "asks 2 execute edit"
    await asks 2
    cat "$JOB/request" > "$DIR/request"
    crash_and_mount
    assert_equal "$(wait_for_job)" waiting
    assert_equal "$(cat "$JOB/request")" "$(cat "$DIR/request")"
    echo allow > "$JOB/answer"
    await asks 1
    crash_and_mount
    assert_equal "$(wait_for_job)" waiting
    assert_equal "$(sed -n 's/^title //p' "$JOB/request")" "request 2"
    echo reject > "$JOB/answer"
    assert_equal "$(response)" $'allowed yes\nrejected no'
    assert outcomes_are "yes no"
    assert_equal "$(sent session/prompt)" 1
}

# bats test_tags=large
@test "what is asked while the daemon is away is asked after the mount" {
    lease_agent
    prompt "wait-ask execute something"
    received "wait-ask execute something"
    crash_pool
    touch "$TREE/go"
    await grep -q request_permission "$ACP_SENT"
    acp_pool mount_again 1 1
    await value_is "$JOB/activity" waiting
    assert grep -qx "title something" "$JOB/request"
    echo allow > "$JOB/answer"
    assert_equal "$(response)" "allowed yes" # the last message: a tool came between
    assert outcomes_are yes
}

# bats test_tags=large
@test "what was answered before a kill -9 of the daemon is not asked again" {
    lease_agent
    ask_leave "ask-wait execute something"
    echo allow > "$JOB/answer"
    await outcomes_are yes
    crash_and_mount
    await value_is "$JOB/activity" busy
    assert_equal "$(cat "$JOB/request")" ""
    refused "No data available" allow
    touch "$TREE/go"
    assert_equal "$(response)" "allowed yes waited"
    assert outcomes_are yes
    assert_equal "$(jq -r .permission.option "$JOB/calls")" yes
}

# bats test_tags=large
@test "a daemon that is killed while its program shakes hands leaves one that works" {
    echo "{\"slow\": \"$DIR/may\"}" > "$ACP_SCRIPT"
    acp_pool start_pool 1 1
    await test -e "$ACP_LOG"
    crash_pool
    touch "$DIR/may"
    acp_pool mount_pool 1 1
    echo job > "$POOL/acquire"
    assert_equal "$(wait_for_job)" ready
    assert_equal "$(ask history)" "session $(session_of_agent)"
}

# The agent's N-th message may be printed, and has been.
printed() { # N
    touch "$ACP_HOME/step-$1"
    await has_printed "$1"
}

has_printed() { # N
    local lines
    mapfile -t lines < "$ACP_SENT" && [ ${#lines[@]} -ge "$1" ]
}

# A turn of eleven messages, of which the daemon is killed before or behind those that are named; then another one.
turn_over_kills() { # before|behind [N...]
    local how=$1 message answered=
    shift
    echo '{"step": true}' > "$ACP_SCRIPT"
    touch "$ACP_HOME/step-1" "$ACP_HOME/step-2" # of the handshake
    lease_agent -o resume=no                    # which has a third one where there was a turn before
    prompt turn
    received turn
    for message in {3..13}; do
        if [[ " $* " == *" $message "* ]]; then
            if [ "$how" = before ]; then crash_pool; fi
            printed "$message"
            if [ "$how" = behind ]; then crash_pool; fi
            acp_pool mount_again 1 1 -o resume=no
        fi
        printed "$message"
        if [ "$message" = 10 ]; then
            assert_equal "$(wait_for_job)" waiting
            assert_equal "$(sed -n 's/^title //p' "$JOB/request")" second
            echo allow > "$JOB/answer"
        fi
    done
    local n
    for n in {14..20}; do touch "$ACP_HOME/step-$n"; done
    assert_equal "$(response)" "allowed yes"
    assert_equal "$(cat "$JOB/stop_reason" "$JOB/request")" end_turn
    assert_equal "$(cat "$JOB/plan")" "completed high look"
    run jq -c '[.title, .kind, .status, .permission.option]' "$JOB/calls"
    assert_output '["first","read","completed",null]
["second","execute","completed","yes"]'
    assert_equal "$(cat "$JOB/output")" "begun
[thought] of it
[plan] completed: look
[read] first
[read] first: completed
[execute] second
[asks] second
[answer] second: Yes
[execute] second: completed
allowed yes"
    assert outcomes_are yes
    assert_equal "$(ask "say next")" next
    assert_equal "$(sent session/prompt) $(sent session/new) $(sent initialize)" "2 1 1"
    assert_equal "$(jq -s 'map(select(has("id") and has("method") | not)) | length' "$ACP_LOG")" 1 # answers of ours
}

# With ACP_ALL=1 each of them by itself too.
turns_over_kills() { # before|behind
    local message
    turn_over_kills "$1" {3..13}
    for message in ${ACP_ALL:+3 4 5 6 7 8 9 10 11 12 13}; do
        echo job discard > "$POOL/release"
        unmount_pool
        rm "$ACP_HOME"/*
        turn_over_kills "$1" "$message"
    done
}

# bats test_tags=large
@test "a kill -9 of the daemon before every message of a turn changes nothing of it" {
    turns_over_kills before
}

# bats test_tags=large
@test "a kill -9 of the daemon behind every message of a turn changes nothing of it" {
    turns_over_kills behind
}

# bats test_tags=large
@test "a kill -9 of the daemon round an answer of the handshake leaves a program that works" {
    local message how n
    for how in before behind; do
        for message in 1 2; do
            echo "$how message $message"
            echo '{"step": true}' > "$ACP_SCRIPT"
            if [ $message = 2 ]; then touch "$ACP_HOME/step-1"; fi
            acp_pool start_pool 1 1
            await sent_times "$([ $message = 1 ] && echo initialize || echo session/new)" 1
            if [ $how = before ]; then crash_pool; fi
            printed $message
            if [ $how = behind ]; then crash_pool; fi
            for n in {1..20}; do touch "$ACP_HOME/step-$n"; done
            acp_pool mount_pool 1 1
            echo job > "$POOL/acquire"
            assert_equal "$(wait_for_job)" ready
            assert_equal "$(ask history)" "session $(session_of_agent)"
            assert_equal "$(sent session/prompt)" 1
            echo job discard > "$POOL/release"
            unmount_pool
            rm "$ACP_HOME"/*
        done
    done
}

has_room_for_none() { # FIFO: a writer of it waits
    python3 - "$1" <<'PYTHON'
import array, fcntl, os, sys, termios
held = array.array("i", [0])
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY | os.O_NONBLOCK), termios.FIONREAD, held)
sys.exit(held[0] < 60000)
PYTHON
}

# bats test_tags=large
@test "a prompt that was written in part when the daemon was killed is waiting, and can be cancelled" {
    lease_agent
    local pid
    pid=$(program_of "$JOB")
    kill -STOP "$pid"
    printf '%0300000d' 7 > "$JOB/prompt"
    await has_room_for_none "$STATE/agents/agent-1/input"
    crash_pool
    kill -CONT "$pid"
    acp_pool mount_again 1 1
    assert_equal "$(wait_for_job)" waiting
    assert contains "$JOB/why" "cancel it"
    crash_and_mount
    assert_equal "$(wait_for_job)" waiting
    prompt "say later"
    await value_is "$JOB/prompts" 2
    echo cancel > "$JOB/ctl"
    assert_equal "$(response)" later
    assert_equal "$(wc -l < "$ACP_PROMPTS")" 1
    assert_equal "$(grep -c JSONDecodeError "$ACP_HOME/faults")" 1 # the part that arrived
    rm "$ACP_HOME/faults"
}

# bats test_tags=large
@test "a prompt that was given when the daemon was killed goes on as soon as its program says so" {
    [ -n "${CRASH_POINTS:-}" ] || skip "CRASH_POINTS=yes says that the daemon is built with them"
    export AGENTPOOL_CRASH_POINT=prompt-given
    lease_agent
    unset AGENTPOOL_CRASH_POINT
    prompt "wait-ask execute something"
    received "wait-ask execute something"
    await gone "$DAEMON"
    wait "$DAEMON" || true
    acp_pool mount_again 1 1
    assert_equal "$(wait_for_job)" waiting
    assert_equal "$(cat "$JOB/request")" ""
    touch "$TREE/go"
    await asks 1
    echo allow > "$JOB/answer"
    assert_equal "$(response)" "allowed yes"
    assert_equal "$(cat "$JOB/stop_reason")" end_turn
    assert_equal "$(sent session/prompt)" 1
}

# bats test_tags=large
@test "a lease that ends after a kill -9 of the daemon leaves nothing of its conversation" {
    lease_agent
    prompt wait
    received wait
    crash_and_mount
    echo job > "$POOL/release"
    next_lease_is_clean
}

# bats test_tags=large
@test "a conversation goes on over an unmount with persist=yes" {
    lease_agent -o persist=yes
    local pid
    pid=$(program_of "$JOB")
    ask "say first"
    unmount_pool
    acp_pool mount_again 1 1
    assert_equal "$(program_of "$JOB")" "$pid"
    assert_equal "$(ask history)" $'say first\nsession '"$(session_of_agent)"
    assert_equal "$(sent session/new)" 1
}

# --- the conversation of a label ---

lease() { # LABEL
    echo "$1 timeout=60" > "$POOL/acquire"
    JOB=$POOL/leases/$1
    assert_equal "$(wait_for_job)" ready
}

resumed() { # ID
    jq -c 'select(.event == "resumed") | .conversation' "$POOL/events" | grep -qxF "\"$1\""
}

# bats test_tags=large
@test "two labels leased in turn by one ACP program have each their own conversation, and it is not started again" {
    acp_pool mount_pool 1 1
    lease one
    local pid one two
    pid=$(program_of "$JOB")
    ask "say first"
    one=$(session_of_agent)
    assert_equal "$(cat "$JOB/conversation")" "$one"
    echo one > "$POOL/release"
    lease two
    assert_equal "$(ask history)" "session $(session_of_agent)"
    two=$(session_of_agent)
    refute [ "$one" = "$two" ]
    echo two > "$POOL/release"
    lease one
    assert_equal "$(ask history)" $'say first\nsession '"$one"
    resumed "$one"
    echo one > "$POOL/release"
    lease two
    assert_equal "$(ask history)" $'history\nsession '"$two"
    assert_equal "$(program_of "$JOB")" "$pid"
    assert_equal "$(sent session/resume)" 2
}

# bats test_tags=large
@test "a program that can only load goes on likewise, and what it repeats is in no output of the lease" {
    echo '{"resume": false}' >"$ACP_SCRIPT"
    acp_pool mount_pool 1 1
    lease one
    ask "say memorable"
    echo one > "$POOL/release"
    lease one
    assert_equal "$(ask history)" $'say memorable\nsession '"$(session_of_agent)"
    assert_equal "$(sent session/load)" 1
    assert_equal "$(grep -c memorable "$JOB/output")" 1 # the answer to history
}

# bats test_tags=large
@test "a label goes on with its conversation when the daemon and every program were killed" {
    acp_pool mount_pool 1 1 -o persist=yes
    lease one
    ask "say first"
    local pid session
    pid=$(program_of "$JOB")
    session=$(session_of_agent)
    crash_pool
    kill -9 "$(ps -o ppid= -p "$pid" | tr -d ' ')"
    await gone "$pid"
    acp_pool mount_again 1 1
    [ -e "$JOB" ] || lease one
    if [ "$(wait_for_job)" = exited ]; then echo restart > "$JOB/ctl"; fi
    assert_equal "$(wait_for_job)" ready
    assert_equal "$(ask history)" $'say first\nsession '"$session"
}

# bats test_tags=large
@test "a conversation that an ACP program has no more is told to be gone, and another one begins" {
    acp_pool mount_pool 1 1
    lease one
    ask "say first"
    local session
    session=$(session_of_agent)
    echo one > "$POOL/release"
    rm "$ACP_HOME/$session.json"
    lease one
    assert_equal "$(ask history)" "session $(session_of_agent)"
    jq -c 'select(.event == "conversation_gone") | .conversation' "$POOL/events" | grep -qxF "\"$session\""
    refute [ "$(session_of_agent)" = "$session" ]
}

# bats test_tags=large
@test "config/resume=no begins another conversation for the same label" {
    acp_pool mount_pool 1 1 -o resume=no
    lease one
    ask "say first"
    echo one > "$POOL/release"
    lease one
    assert_equal "$(ask history)" "session $(session_of_agent)"
}

# bats test_tags=large
@test "a reset conversation does not come back" {
    acp_pool mount_pool 1 1
    lease one
    ask "say secret"
    echo reset > "$JOB/ctl"
    assert_equal "$(ask "say open")" open
    echo one > "$POOL/release"
    lease one
    assert_equal "$(ask history)" $'say open\nsession '"$(session_of_agent)"
}

# --- from lease to lease ---

# bats test_tags=large
@test "the next lease has another conversation of the same program" {
    lease_agent
    local pid
    pid=$(program_of "$JOB")
    ask "say secret"
    ask "plan secret"
    echo work > "$JOB/worktree/work"
    echo job > "$POOL/release"
    assert_equal "$(git -C "$REPO" show agentpool/job:work)" work
    echo next > "$POOL/acquire"
    JOB=$POOL/leases/next
    assert_equal "$(wait_for_job)" ready
    assert_equal "$(program_of "$JOB")" "$pid"
    local file
    for file in output output.raw response plan calls request; do refute contains "$JOB/$file" secret; done
    assert_equal "$(ask history)" "session $(session_of_agent)"
    assert_equal "$(sent session/new) $(sent initialize)" "2 1"
}

# bats test_tags=large
@test "on_release=restart starts an ACP program anew, without the conversation before" {
    lease_agent -o on_release=restart
    local pid
    pid=$(program_of "$JOB")
    ask "say secret"
    echo job > "$POOL/release"
    echo next > "$POOL/acquire"
    JOB=$POOL/leases/next
    assert_equal "$(wait_for_job)" ready
    refute [ "$(program_of "$JOB")" = "$pid" ]
    assert_equal "$(ask history)" "session $(session_of_agent)"
    assert_equal "$(sent session/resume) $(sent session/load) $(sent session/new)" "0 0 2"
}

# bats test_tags=large
@test "on_release=keep hands the conversation to the next lease" {
    lease_agent -o on_release=keep
    ask "say shared"
    echo job > "$POOL/release"
    echo job > "$POOL/acquire"
    assert_equal "$(wait_for_job)" ready
    assert_equal "$(ask history)" $'say shared\nsession '"$(session_of_agent)"
    assert_equal "$(sent session/new)" 1
}

# The agent of a lease that has ended in the midst of a turn serves another, which knows nothing of it.
next_lease_is_clean() {
    echo next timeout=60s > "$POOL/acquire"
    JOB=$POOL/leases/next
    assert_equal "$(wait_for_job)" ready
    assert_equal "$(cat "$JOB/request")" ""
    assert_equal "$(ask history)" "session $(session_of_agent)"
    refused "No data available" allow
}

# bats test_tags=large
@test "a lease that is released in its turn ends, and its turn with it" {
    lease_agent
    prompt wait
    received wait
    echo job > "$POOL/release"
    next_lease_is_clean
}

# bats test_tags=large
@test "a lease that is released while it asks ends, and its question with it" {
    lease_agent
    ask_leave "ask execute something"
    echo job > "$POOL/release"
    next_lease_is_clean
    refute contains "$ACP_LOG" '"yes"'
}

# bats test_tags=large
@test "a lease whose time is over in a turn ends, and its turn with it" {
    acp_pool mount_pool 1 1
    echo "job ttl=4s" > "$POOL/acquire"
    prompt wait
    await test ! -e "$JOB"
    next_lease_is_clean
}

# bats test_tags=large
@test "kill ends an ACP program in its turn, and saves the work" {
    lease_agent
    local pid
    pid=$(program_of "$JOB")
    ask "edit made text"
    ask_leave "ask execute something"
    echo kill > "$JOB/ctl"
    await gone "$pid"
    await test ! -e "$JOB"
    await git -C "$REPO" rev-parse -q --verify agentpool/job
    assert_equal "$(git -C "$REPO" show agentpool/job:made)" text
    await value_is "$POOL/stats/idle_agents" 1
    next_lease_is_clean
}

# bats test_tags=large
@test "a recycled ACP program is another one, with another conversation" {
    acp_pool mount_pool 1 1
    await value_is "$POOL/agents/agent-1/activity" ready
    local pid
    pid=$(program_of "$POOL/agents/agent-1")
    echo recycle > "$POOL/agents/agent-1/ctl"
    await value_is "$POOL/agents/agent-1/recycles" 1
    await value_is "$POOL/stats/idle_agents" 1
    refute [ "$(program_of "$POOL/agents/agent-1")" = "$pid" ]
    next_lease_is_clean
    assert_equal "$(sent session/new) $(sent initialize)" "2 2"
}
