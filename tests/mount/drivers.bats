# What holds however the pool speaks with a program: each test over a program in a terminal and over one that speaks the
# Agent Client Protocol. What is a driver's own is in programs.bats and acp.bats.

load helper

setup() {
    common_setup
}

teardown() {
    local result=0
    unmount_pool || result=1
    if [ -s "$DIR/acp/faults" ]; then
        cat "$DIR/acp/faults" >&2
        result=1
    fi
    common_teardown && [ $result = 0 ]
}

# Runs a test over each of them. The last driver that a failing test names is the one that failed.
each_driver() { # FUNCTION
    for DRIVER in terminal acp; do
        echo "driver: $DRIVER"
        JOB=$POOL/leases/$DRIVER PROMPTS=$DIR/$DRIVER/prompts
        mkdir "$DIR/$DRIVER"
        touch "$PROMPTS"
        "$1"
        unmount_pool
    done
}

# Mounts the pool of the driver, as mount_pool or mount_again does it.
driver_pool() { # HOW [OPTION...]
    local how=$1 profile=$DIR/$DRIVER.conf
    shift
    if [ $DRIVER = acp ]; then
        printf '%s\n' 'mode = acp' "write = $DIR/acp/" "write = $DIR/$DRIVER/" >"$profile" # for a run with sandbox=yes
        ACP_HOME=$DIR/acp ACP_PROMPTS=$PROMPTS "$how" 1 1 -o "program_profile=$profile" "$@" \
            -- python3 -u "$BATS_TEST_DIRNAME/acp_agent.py"
        return
    fi
    cat >"$profile" <<'END'
waiting = screen:1 ^Press y to go on$
busy = screen:1 ^working$
ready = screen:1 ^> .*|^>$
composer = ^>(.*)\s*\z
abandon = C-u
debounce = 50ms
clear = /clear
quit = /quit
cancel = Escape
answer = (?s).*^(answer [^\n]*)\n
question = execute ^(?<title>May I\?)$
option = allow_once (1)\. (Yes) => y
option = reject_once (2)\. (No)$ => n
END
    echo "write = $DIR/$DRIVER/" >>"$profile"
    PROGRAM_PROMPTS=$PROMPTS "$how" 1 1 -o "program_profile=$profile" "$@" -- python3 "$BATS_TEST_DIRNAME/program.py"
}

lease() { # [OPTION...]
    driver_pool mount_pool "$@"
    echo $DRIVER >"$POOL/acquire"
    assert_equal "$(wait_for)" ready
    TREE=$(readlink "$JOB/worktree")
}

crash_and_mount() {
    crash_pool
    driver_pool mount_again
}

wait_for() {
    timeout 60 cat "$JOB/wait"
}

prompt() { # TEXT
    printf '%s' "$1" >"$JOB/prompt"
}

response() {
    timeout 60 cat "$JOB/response"
}

# What is answered to that text, which each of them says in its way.
answered() { # TEXT
    local text
    text=$(response)
    if [ $DRIVER = acp ]; then assert_equal "$text" "$1"; else assert_equal "${text#answer * to }" "say $1"; fi
}

says() { # TEXT
    prompt "say $1"
    answered "$1"
}

hash_of() { # TEXT
    local sum
    sum=$(printf %s "$1" | sha256sum)
    echo "${sum%% *}"
}

# The program has got these prompts, each once, in this order, and no others.
received() { # TEXT...
    local text expected=()
    for text; do expected+=("$(hash_of "$text")"); done
    await received_are "${expected[@]}"
}

received_are() { # SHA256...
    local IFS=$'\n' lines
    mapfile -t lines <"$PROMPTS" && [ "${lines[*]%% *}" = "$*" ]
}

# How many prompts before this one the program remembers.
remembers() {
    local text
    prompt history
    text=$(response)
    if [ $DRIVER = acp ]; then
        echo $(($(wc -l <<<"$text") - 1))
    else
        text=${text#answer } text=${text%% *}
        echo $((text - 1))
    fi
}

events() { # EVENT FIELDS: those of the lease, a line each
    jq -r --arg event "$1" --arg fields "$2" --arg lease "$DRIVER" \
        'select(.event == $event and .lease == $lease) | . as $it | [$fields / " " | .[] | $it[.] | tostring] | join(" ")' "$POOL/events"
}

waits() { # it asks
    assert_equal "$(wait_for)" waiting
    assert contains "$JOB/request" "title May I?"
}

# --- prompts ---

prompts_arrive() {
    local most=2000 n=6 file i=0
    if [ $DRIVER = acp ]; then most=$((1 << 20)); fi
    if [ -n "${DRIVERS_ALL:-}" ]; then n=100; fi
    python3 - "$DIR/$DRIVER/texts" $most $n <<'PYTHON'
import hashlib, os, random, sys
folder, most, n = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.mkdir(folder)
random.seed(most)
letters = "abcdefghijklmnopqrstuvwxyz0123456789 ,;'\"\\$`{}[]äß漢"
with open(folder + "/expected", "w") as expected:
    for i in range(n):
        size = round(most ** (i / (n - 1)))
        data = ("x" + "".join(random.choices(letters, k=size))).encode()[:size].decode(errors="ignore").encode()
        data = data[:-1].decode(errors="ignore").encode().ljust(size, b"x")
        with open(f"{folder}/{i:03}", "wb") as file:
            file.write(data)
        expected.write(f"{hashlib.sha256(data).hexdigest()} {size}\n")
PYTHON
    lease
    for file in "$DIR/$DRIVER"/texts/[0-9]*; do
        cat "$file" >"$JOB/prompt"
        if [ $((++i % 10)) = 0 ]; then assert_equal "$(wait_for)" ready; fi
    done
    assert_equal "$(wait_for)" ready
    diff "$DIR/$DRIVER/texts/expected" "$PROMPTS"
}

@test "whatever the driver, prompts of one byte and of many arrive byte for byte, once, in order" {
    each_driver prompts_arrive
}

turns() {
    lease
    assert_equal "$(cat "$JOB/activity")" ready
    prompt wait
    received wait
    assert_equal "$(cat "$JOB/activity")" busy
    prompt "say one"
    prompt "say two"
    await value_is "$JOB/prompts" 3
    touch "$TREE/go"
    answered two
    assert_equal "$(wait_for) $(cat "$JOB/activity")" "ready ready"
    received wait "say one" "say two"
    answered two # however often
    assert_equal "$(events prompt "outcome bytes")" "submitted 4
submitted 7
submitted 7"
}

@test "whatever the driver, prompts wait for the turn before them, and response is the last one's" {
    each_driver turns
}

# --- work ---

work_is_shown_and_saved() {
    lease
    assert_equal "$(cat "$JOB/changes" "$JOB/diff")" ""
    prompt "edit made some text"
    assert_equal "$(wait_for)" ready
    assert grep -q "made$" "$JOB/changes"
    assert grep -qx "+some text" "$JOB/diff"
    assert contains "$JOB/diffstat" "made"
    echo $DRIVER >"$POOL/release"
    assert_equal "$(git -C "$REPO" show agentpool/$DRIVER:made)" "some text"
    await value_is "$POOL/stats/idle_agents" 1
    echo "$DRIVER-next" >"$POOL/acquire"
    JOB=$POOL/leases/$DRIVER-next
    assert_equal "$(wait_for) $(cat "$JOB/diff" "$JOB/response")" "ready "
    assert_equal "$(remembers)" 0
}

@test "whatever the driver, an edit is in changes, diff and diffstat, and saved by release; the next lease knows nothing" {
    each_driver work_is_shown_and_saved
}

work_outlives_kill() {
    lease
    prompt "edit made some text"
    prompt wait
    received "edit made some text" wait
    local pid
    pid=$(program_of "$JOB")
    echo kill >"$JOB/ctl"
    await gone "$pid"
    await test ! -e "$JOB"
    await value_is "$POOL/stats/idle_agents" 1
    assert_equal "$(git -C "$REPO" show agentpool/$DRIVER:made)" "some text"
}

@test "whatever the driver, kill ends the program in its turn, and saves the work" {
    each_driver work_outlives_kill
}

time_is_over() {
    driver_pool mount_pool
    echo "$DRIVER ttl=3s" >"$POOL/acquire"
    prompt "edit made some text"
    prompt wait
    received "edit made some text" wait
    await test ! -e "$JOB"
    await value_is "$POOL/stats/idle_agents" 1
    assert_equal "$(git -C "$REPO" show agentpool/$DRIVER:made)" "some text"
}

@test "whatever the driver, a lease whose time is over in a turn ends, and its work is saved" {
    each_driver time_is_over
}

# --- commands ---

is_reset() {
    lease
    local pid
    pid=$(program_of "$JOB")
    says one
    assert_equal "$(remembers)" 1
    echo reset >"$JOB/ctl"
    assert_equal "$(remembers)" 0
    assert_equal "$(program_of "$JOB")" "$pid"
}

@test "whatever the driver, reset has the program forget, in order with the prompts" {
    each_driver is_reset
}

is_cancelled() {
    lease
    prompt wait
    received wait
    prompt "say later"
    await value_is "$JOB/prompts" 2
    echo cancel >"$JOB/ctl"
    answered later
    received wait "say later"
    assert [ ! -e "$TREE/go" ]
}

@test "whatever the driver, cancel breaks off the turn, and prompts behind it are given" {
    each_driver is_cancelled
}

is_restarted() {
    lease
    local pid
    pid=$(program_of "$JOB")
    prompt "edit made some text"
    prompt wait
    received "edit made some text" wait
    echo restart >"$JOB/ctl"
    await gone "$pid"
    assert_equal "$(wait_for)" ready
    refute [ "$(program_of "$JOB")" = "$pid" ]
    assert_equal "$(cat "$JOB/worktree/made")" "some text"
    says on
    received "edit made some text" wait "say on"
    kill -9 "$(program_of "$JOB")"
    await value_is "$JOB/activity" exited
    assert contains "$JOB/exit_status" "signal 9"
    echo restart >"$JOB/ctl"
    assert_equal "$(wait_for)" ready
    says again
}

@test "whatever the driver, restart starts the program again in its worktree, and gives no prompt twice" {
    each_driver is_restarted
}

# --- the daemon's end ---

goes_on() {
    lease -o persist=yes
    local pid
    pid=$(program_of "$JOB")
    says one
    unmount_pool
    driver_pool mount_again
    assert_equal "$(program_of "$JOB")" "$pid"
    answered one
    assert_equal "$(remembers)" 1
}

@test "whatever the driver, with persist=yes the program and what it knows outlive an unmount" {
    each_driver goes_on
}

# So many prompts have been given, and the daemon knows that: dying in between it cannot say whether the last one was.
given() { # N
    [ "$(events prompt outcome | grep -c submitted)" = "$1" ]
}

outlives_its_daemon() {
    lease
    local pid
    pid=$(program_of "$JOB")
    says one
    crash_and_mount # idle
    assert_equal "$(wait_for)" ready
    answered one
    prompt wait
    await given 2
    crash_and_mount # in a turn
    await value_is "$JOB/activity" busy
    prompt "say two"
    prompt wait
    prompt "say three"
    await value_is "$JOB/prompts" 5
    crash_and_mount # before prompts that wait
    await value_is "$JOB/activity" busy
    touch "$TREE/go"
    await given 4
    crash_and_mount # in the next turn, before one that waits
    await value_is "$JOB/activity" busy
    touch "$TREE/go"
    answered three
    received "say one" wait "say two" wait "say three"
    assert_equal "$(remembers)" 5
    assert_equal "$(program_of "$JOB")" "$pid"
}

@test "whatever the driver, a kill -9 of the daemon, idle, in a turn or between prompts, loses and repeats none" {
    each_driver outlives_its_daemon
}

# --- questions ---

asks_and_is_answered() {
    lease
    assert_equal "$(cat "$JOB/request")" ""
    prompt "ask execute May I?"
    waits
    prompt "say later"
    run cat "$JOB/request"
    assert_line "kind execute"
    assert_line --regexp "^[^ ]+ allow_once Yes$"
    assert_line --regexp "^[^ ]+ reject_once No$"
    assert [ -n "$(cat "$JOB/why")" ]
    run bash -c "echo nonsense > $JOB/answer"
    assert_failure
    assert_output --partial "Invalid argument"
    env -i PATH="$PATH" sh -c "echo allow > $JOB/answer" # another shell
    answered later
    assert_equal "$(cat "$JOB/request")" ""
    prompt "ask execute May I?"
    waits
    echo reject >"$JOB/answer"
    assert_equal "$(wait_for)" ready
    run bash -c "echo allow > $JOB/answer"
    assert_failure
    assert_output --partial "No data available"
    assert_equal "$(events answer "uid title kind means")" "$(id -u) May I? execute allow_once
$(id -u) May I? execute reject_once"
    received "ask execute May I?" "say later" "ask execute May I?"
}

@test "whatever the driver, request says what is asked, and answer answers it from another shell" {
    each_driver asks_and_is_answered
}

asks_still_after_a_crash() {
    lease
    prompt "ask execute May I?"
    waits
    crash_and_mount
    waits
    echo allow >"$JOB/answer"
    assert_equal "$(wait_for)" ready
    received "ask execute May I?"
}

@test "whatever the driver, what is asked when the daemon is killed is asked still, and can be answered" {
    each_driver asks_still_after_a_crash
}

is_answered_by_rule() {
    driver_pool mount_pool
    echo "$DRIVER permission=allow:execute" >"$POOL/acquire"
    prompt "ask execute May I?"
    prompt "say later"
    answered later
    assert_equal "$(cat "$JOB/request")" ""
    assert_equal "$(events answer "title means rule")" "May I? allow_once permission=allow:execute"
    received "ask execute May I?" "say later"
}

@test "whatever the driver, permission= answers by the kind of the question" {
    each_driver is_answered_by_rule
}
