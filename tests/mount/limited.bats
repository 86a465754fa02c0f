# Usage limits of a program's provider: each test over a program in a terminal and over one that speaks the Agent Client
# Protocol. Both end a turn with what follows the word `limit` in its prompt.

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

use() { # DRIVER
    echo "driver: $1"
    DRIVER=$1 JOB=$POOL/leases/$1 PROMPTS=$DIR/$1/prompts
    mkdir "$DIR/$1"
    touch "$PROMPTS"
}

each_driver() { # FUNCTION
    for DRIVER in terminal acp; do
        use $DRIVER
        "$1"
        unmount_pool
    done
}

END_RULES='(?: in (?<in>.+?)| until (?<until>.+?)|, (?<overload>overloaded))?'

# Mounts the pool of the driver, as mount_pool or mount_again does it. $LINES_MORE: of its profile.
driver_pool() { # HOW MIN MAX [OPTION...]
    local how=$1 min=$2 max=$3 profile=$DIR/$DRIVER.conf
    shift 3
    if [ $DRIVER = acp ]; then
        cat >"$profile" <<END
mode = acp
limited = answer "message":"limit$END_RULES"
limited = answer ^limit:$END_RULES\$
limit_zone = UTC
continue = say go on
${LINES_MORE:-}
END
        ACP_HOME=$DIR/acp ACP_PROMPTS=$PROMPTS "$how" "$min" "$max" -o "program_profile=$profile" "$@" \
            -- python3 -u "$BATS_TEST_DIRNAME/acp_agent.py"
        return
    fi
    cat >"$profile" <<END
busy = screen:1 ^working$
ready = screen:1 ^> .*|^>$
composer = ^>(.*)\\s*\\z
abandon = C-u
debounce = 50ms
clear = /clear
quit = /quit
limited = screen:2 ^limit:$END_RULES\\n>
limit_zone = UTC
continue = say go on
${LINES_MORE:-}
END
    PROGRAM_PROMPTS=$PROMPTS "$how" "$min" "$max" -o "program_profile=$profile" "$@" -- python3 "$BATS_TEST_DIRNAME/program.py"
}

lease() { # [OPTION...]
    driver_pool mount_pool 1 1 "$@"
    echo $DRIVER >"$POOL/acquire"
    assert_equal "$(wait_for)" ready
    AGENT=$POOL/agents/$(basename "$(readlink "$JOB")")
}

wait_for() {
    timeout 60 cat "$JOB/wait"
}

prompt() { # TEXT
    printf '%s' "$1" >"$JOB/prompt"
}

# Has the program reach a limit that is told so.
limit() { # TEXT
    if [ $DRIVER = acp ]; then prompt "limit limit${1:+ $1}"; else prompt "limit $1"; fi
    await grep -qx limited "$JOB/activity"
    assert_equal "$(wait_for)" limited
}

hash_of() { # TEXT
    local sum
    sum=$(printf %s "$1" | sha256sum)
    echo "${sum%% *}"
}

# How often the program got that prompt.
times() { # TEXT
    grep -c "$(hash_of "$1")" "$PROMPTS" || true
}

got() { # TEXT N
    [ "$(times "$1")" = "$2" ]
}

# What was told of limits, a word each.
told() {
    jq -r --arg lease $DRIVER 'select(.event == "limit" and .lease == $lease) | .what' "$POOL/events" | tr '\n' ' '
}

told_is() { # WORDS
    [ "$(told)" = "$1 " ]
}

at() { # SECONDS from now, as the profile's times say it
    date -u -d "@$(($(date +%s) + $1))" "+%Y-%m-%d %H:%M:%S"
}

# Nothing new has come since: prompts go on in order, so that this one comes behind all that might have.
goes_on() { # TEXT
    prompt "say $1"
    await got "say $1" 1
}

# --- activity and until ---

limit_shows_and_ends() {
    lease
    local until
    until=$(date -u -d "@$(($(date +%s) + 4))" +%Y-%m-%dT%H:%M:%SZ)
    limit "until $until"
    assert_equal "$(cat "$JOB/until")" "$until"
    assert contains "$JOB/why" "limit: "
    assert_equal "$(jq -r '.agents[0] | "\(.activity) \(.until)"' "$POOL/status.json")" "limited $until"
    prompt "say behind"
    assert_equal "$(wait_for)" limited # it waits behind the limit
    assert_equal "$(times "say behind")" 0
    await got "say behind" 1
    assert [ "$(date +%s)" -ge "$(date -d "$until" +%s)" ]
    assert_equal "$(wait_for)" ready
    assert_equal "$(cat "$JOB/until")" ""
    assert_equal "$(wc -l <"$PROMPTS")" 2
    await told_is "begins ends"
    assert_equal "$(cat "$JOB/generation")" 1
}

@test "a program at its limit is limited until the second that it names, and prompts wait behind that" {
    each_driver limit_shows_and_ends
}

limit_is_known_once() {
    lease
    limit "in 2s"
    await grep -qx ready "$JOB/activity"
    await told_is "begins ends" # though the text may still be on the screen
    assert_equal "$(wait_for)" ready
    goes_on one
    await grep -qx ready "$JOB/activity"
    limit "in 2s" # the same words of another turn are another one
    await told_is "begins ends begins ends"
    goes_on two
}

@test "what is still on the screen is the limit that is over; the same of another turn is a new one" {
    each_driver limit_is_known_once
}

limit_without_an_end() {
    lease
    limit ""
    assert_equal "$(cat "$JOB/until")" ""
    assert_equal "$(jq -r '.agents[0].until' "$POOL/status.json")" null
}

@test "until is empty where the program names no end" {
    each_driver limit_without_an_end
}

@test "a limit may be the last message of a turn" {
    use acp
    lease
    prompt "limit-said in 2s"
    await told_is "begins ends"
    prompt "say in the middle limit: in 3h of a text"
    await got "say in the middle limit: in 3h of a text" 1
    assert_equal "$(wait_for)" ready
}

# --- the pool ---

others_wait() {
    driver_pool mount_pool 1 1 -o acquire_timeout=100s
    echo $DRIVER >"$POOL/acquire"
    AGENT=$POOL/agents/$(basename "$(readlink "$JOB")")
    limit "in 10s"
    rm "$JOB"
    await value_is "$POOL/stats/idle_agents" 1
    await grep -qx limited "$AGENT/activity" # it outlives the lease
    local name pids=()
    for name in first second; do
        (echo $name >"$POOL/acquire" && rm "$POOL/leases/$name") 3>&- &
        pids+=($!)
        await grep -q "\b$name\b" "$POOL/status.json"
    done
    run bash -c "echo 'once timeout=0' > $POOL/acquire"
    assert_failure
    assert_output --partial "Resource temporarily unavailable"
    assert_equal "$(jq -r .stats.breaker "$POOL/status.json")" closed
    wait "${pids[@]}"
    assert_equal "$(jq -r 'select(.event == "lease_granted") | .lease' "$POOL/events" | tail -n 3 | tr '\n' ' ')" \
        "$DRIVER first second "
    assert_equal "$(cat "$AGENT/generation")" 1
}

@test "an agent at its limit is leased to nobody, and who waits is served in order when it is over" {
    each_driver others_wait
}

limit_of_the_account() {
    LINES_MORE='limit = account' driver_pool mount_pool 2 3 -o acquire_timeout=100s
    echo $DRIVER >"$POOL/acquire"
    echo other >"$POOL/acquire"
    timeout 60 cat "$POOL/leases/other/wait"
    limit "in 10s"
    await grep -qx limited "$POOL/leases/other/activity"
    assert_equal "$(cat "$POOL/leases/other/until")" "$(cat "$JOB/until")"
    printf 'say other' >"$POOL/leases/other/prompt"
    run bash -c "echo 'third timeout=0' > $POOL/acquire"
    assert_failure
    assert_equal "$(times "say other")" 0
    await got "say other" 1
    echo third >"$POOL/acquire"
}

@test "a limit of the account is everyone's" {
    each_driver limit_of_the_account
}

# --- on_limit ---

word_is_given_once() {
    lease -o on_limit=continue
    limit "in 2s"
    prompt "say behind"
    await got "say behind" 1
    assert_equal "$(times "say go on")" 1
    assert_equal "$(cut -d' ' -f1 "$PROMPTS" | tail -n 2 | tr '\n' ' ')" "$(hash_of "say go on") $(hash_of "say behind") "
    assert_equal "$(wait_for)" ready
    await value_is "$JOB/prompts" 3
    await told_is "begins continued ends"
}

@test "with on_limit=continue the word is given once, ahead of the prompts that wait" {
    each_driver word_is_given_once
}

nothing_is_typed() {
    lease
    limit "in 2s"
    await grep -qx ready "$JOB/activity"
    goes_on one
    assert_equal "$(wc -l <"$PROMPTS")" 2
    await told_is "begins ends"
}

@test "by default nothing is typed when a limit is over" {
    each_driver nothing_is_typed
}

three_words_at_most() {
    local word="limit limit in 2s"
    if [ $DRIVER = terminal ]; then word="limit in 2s"; fi
    LINES_MORE="continue = $word" lease -o on_limit=continue
    prompt "$word"
    await told_is "begins continued ends begins continued ends begins continued ends begins ends"
    assert_equal "$(wait_for)" ready
    assert_equal "$(times "$word")" 4
    prompt "say well" # a turn that ends well: it begins anew
    await got "say well" 1
    await grep -qx ready "$JOB/activity"
    prompt "$word"
    await got "$word" 6
}

# bats test_tags=large
@test "three words are given for one limit at most, until a turn ends well" {
    each_driver three_words_at_most
}

overload_is_tried_again() {
    lease -o on_limit=continue
    if [ $DRIVER = acp ]; then prompt "limit limit, overloaded"; else prompt "limit , overloaded"; fi
    await got "say go on" 1
    assert_equal "$(wait_for)" ready
    assert_equal "$(cat "$JOB/until")" ""
}

@test "an overload without a time is tried again at once" {
    use acp
    overload_is_tried_again
}

word_is_not_for_the_next_lease() {
    lease -o on_limit=continue
    limit "in 3s"
    rm "$JOB"
    await value_is "$POOL/stats/idle_agents" 1
    echo "$DRIVER timeout=60s" >"$POOL/acquire"
    goes_on one
    assert_equal "$(times "say go on")" 0
}

@test "the word is not given to the next lease" {
    each_driver word_is_not_for_the_next_lease
}

# --- kill -9 ---

crash_while_limited() {
    lease
    limit "in 10s"
    local until
    until=$(cat "$JOB/until")
    crash_pool
    driver_pool mount_again 1 1
    await grep -qx limited "$JOB/activity"
    assert_equal "$(cat "$JOB/until")" "$until"
    prompt "say behind"
    await got "say behind" 1
    assert [ "$(date +%s)" -ge "$(date -d "$until" +%s)" ]
    assert_equal "$(wait_for)" ready
}

@test "a limit goes on where the daemon that saw it was killed, and does not begin anew" {
    each_driver crash_while_limited
}

crash_at_the_word() {
    AGENTPOOL_CRASH_POINT=limit-counted lease -o on_limit=continue
    limit "in 2s"
    await gone "$DAEMON"
    wait "$DAEMON" 2>/dev/null || true
    DAEMON=
    driver_pool mount_again 1 1 -o on_limit=continue
    await grep -qx ready "$JOB/activity"
    goes_on one
    assert_equal "$(times "say go on")" 0
}

@test "a daemon that is killed as it gives the word does not give it twice" {
    [ "${CRASH_POINTS:-no}" = yes ] || skip "the daemon has no crash points"
    each_driver crash_at_the_word
}

crash_before_the_end() {
    lease -o on_limit=continue
    limit "in 3s"
    crash_pool
    driver_pool mount_again 1 1 -o on_limit=continue
    await got "say go on" 1
    goes_on one
    assert_equal "$(times "say go on")" 1
}

@test "the next daemon gives the word of a limit that the last one has seen" {
    each_driver crash_before_the_end
}

recycled_stays_limited() {
    driver_pool mount_pool 1 1
    echo $DRIVER >"$POOL/acquire"
    limit "in 10s"
    echo restart >"$JOB/ctl"
    await grep -qx limited "$JOB/activity"
    assert_equal "$(cat "$JOB/state")" active
    await grep -qx ready "$JOB/activity"
}

@test "a program that is started again is limited still" {
    each_driver recycled_stays_limited
}

@test "a program that waits for the end of a limit by itself is limited while it shows that, and nothing is typed" {
    use terminal
    LINES_MORE="busy = screen:1 ^retrying
limited = screen:1 ^retrying$END_RULES\$"
    lease -o on_limit=continue
    prompt "retry in 2h"
    assert_equal "$(wait_for)" limited
    assert contains "$JOB/why" "tries again by itself"
    local until left
    until=$(cat "$JOB/until")
    left=$(($(date -d "$until" +%s) - $(date +%s)))
    assert [ $left -gt 7100 ]
    assert [ $left -le 7201 ]
    prompt "say on" # waits
    assert_equal "$(wait_for)" limited
    touch "$JOB/worktree/go"
    await contains "$JOB/output" "to say on"
    await value_is "$JOB/activity" ready
    assert_equal "$(cat "$JOB/until")" ""
    assert_equal "$(wc -l <"$PROMPTS")" 2
}

# --- mode stream ---

@test "a program that speaks lines of JSON is limited by its answer, once" {
    local script=$DIR/stream.py
    use stream
    printf '%s\n' 'mode = stream' 'arg = -u' 'input = {"text": "${PROMPT}"}' 'ready = event {"type": "result"}' \
        'response = /text' 'limited = answer \Alimit in (?<in>[^\n]+)\s*\z' >"$DIR/stream.conf"
    cat >"$script" <<'END'
import json, sys
for line in sys.stdin:
    print(json.dumps({"type": "result", "text": json.loads(line)["text"]}))
END
    mount_pool 1 1 -o "program_profile=$DIR/stream.conf" -- python3 "$script"
    echo stream >"$POOL/acquire"
    printf 'limit in 10s' >"$JOB/prompt"
    assert_equal "$(wait_for)" limited
    local until
    until=$(cat "$JOB/until")
    crash_pool
    mount_again 1 1 -o "program_profile=$DIR/stream.conf" -- python3 "$script"
    await grep -qx limited "$JOB/activity"
    assert_equal "$(cat "$JOB/until")" "$until" # the answer is read again, and is the same
    printf 'I know of a limit in 10s' >"$JOB/prompt"
    await grep -q 'I know' "$JOB/output"
    assert_equal "$(wait_for)" ready
}
