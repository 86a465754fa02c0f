# What programs use: usage, the counts of the pool, budgets. The agent acp_agent.py writes down what it charges.

load helper
load acp_helper

value() { # FILE NAME: of a line `NAME VALUE`
    sed -n "s/^$2 //p" "$1"
}

uses() { # INPUT OUTPUT CACHED DOLLARS: a turn that uses that
    assert_equal "$(ask "use $*")" used
}

usage() {
    cat "$JOB/usage"
}

# The pool's counts, and those of the agents, are what all agents have charged so far, to the token.
agrees() {
    local input output cached cost
    read -r input output cached cost < <(awk '{i += $1; o += $2; c += $3; d += $4 * 1e9}
        END {printf "%d %d %d %.9g\n", i, o, c, d / 1e9}' "$ACP_CHARGES")
    assert_equal "$(cat "$POOL/stats/input_tokens")" "$input"
    assert_equal "$(cat "$POOL/stats/output_tokens")" "$output"
    assert_equal "$(cat "$POOL/stats/cached_tokens")" "$cached"
    assert_equal "$(cat "$POOL/stats/cost_usd")" "$cost"
    assert_equal "$(metric agentpool_tokens_total direction input)" "$input"
    assert_equal "$(metric agentpool_tokens_total direction output)" "$output"
    assert_equal "$(metric agentpool_tokens_total direction cached)" "$cached"
    assert_equal "$(metric agentpool_cost_usd_total)" "$cost"
}

metric() { # NAME [LABEL VALUE]
    local name=$1 of=${2:+,$2=\"$3\"}
    sed -n "s/^$name{pool=\"[^\"]*\"$of} //p" "$POOL/metrics"
}

events() { # EVENT FIELD...: a line each, of those that have them
    local event=$1
    shift
    jq -r --arg event "$event" 'select(.event == $event) | [.[$ARGS.positional[]] | tostring] | join(" ")' \
        "$POOL/events" --args "$@"
}

has_event() { # EVENT FIELD... LINE
    local line=${*: -1}
    events "${@:1:$#-1}" | grep -qxF "$line"
}

refused() { # ERRNO-TEXT SENTENCE COMMAND
    run bash -c "$3"
    assert_failure
    assert_output --partial "$1"
    await contains "$POOL/last_error" "$2"
}

# --- what is used ---

@test "usage has what a lease has used, and its agent ever: what is not known is absent" {
    lease_agent
    assert_equal "$(usage)" ""
    assert_equal "$(cat "$POOL/stats/input_tokens" "$POOL/stats/cost_usd")" ""
    uses 100 10 5 0.25
    uses 20 2 1 0.005
    assert_equal "$(usage)" "input_tokens 120
output_tokens 12
cached_tokens 6
cost_usd 0.255
context_used 1200
context_size 200000
agent_input_tokens 120
agent_output_tokens 12
agent_cached_tokens 6
agent_cost_usd 0.255"
    agrees
    echo job >"$POOL/release"
    await value_is "$POOL/agents/agent-1/state" idle
    assert_equal "$(value "$POOL/agents/agent-1/usage" input_tokens)" ""
    assert_equal "$(value "$POOL/agents/agent-1/usage" agent_input_tokens)" 120
    echo job >"$POOL/acquire"
    assert_equal "$(value "$JOB/usage" input_tokens)" ""
    uses 1 1 0 0
    assert_equal "$(value "$JOB/usage" input_tokens)" 1
    assert_equal "$(value "$JOB/usage" agent_input_tokens)" 121
    agrees
}

@test "what a lease has cost is in lease_ended, in kept/, in the history and in status.json" {
    lease_agent
    echo more >"$JOB/worktree/file"
    uses 100 10 5 0.25
    assert_equal "$(jq -c '.agents[0] | .lease.usage.input_tokens, .lease.usage.cost_usd, .usage.output_tokens' \
        "$POOL/status.json")" "$(printf '100\n0.25\n10')"
    echo job >"$POOL/release"
    assert_equal "$(jq -c 'select(.event == "lease_ended") | .usage | .input_tokens, .output_tokens, .cost_usd' \
        "$POOL/events")" "$(printf '100\n10\n0.25')"
    assert contains "$POOL/kept/$(ls "$POOL/kept")/info" "usage input_tokens 100 output_tokens 10 cached_tokens 5 cost_usd 0.25"
    assert_equal "$(sqlite3 "$STATE/state.db" 'SELECT usage FROM history')" \
        "input_tokens 100 output_tokens 10 cached_tokens 5 cost_usd 0.25 context_used 1200 context_size 200000"
}

@test "metrics of an agent have what it has used" {
    lease_agent
    uses 100 10 5 0.25
    local name='agentpool_agent_tokens_total{pool="[^"]*",agent="agent-1",direction='
    assert_equal "$(sed -n "s/^$name\"output\"} //p" "$POOL/metrics")" 10
    assert_equal "$(sed -n 's/^agentpool_agent_cost_usd_total{pool="[^"]*",agent="agent-1"} //p' "$POOL/metrics")" 0.25
}

# bats test_tags=large
@test "over many turns with reset, restart, kill -9 and resume all counts agree with what was charged" {
    local turns=40 i
    if [ -n "${USAGE_ALL:-}" ]; then turns=200; fi
    lease_agent
    for ((i = 1; i <= turns; i++)); do
        uses $i $((i % 7)) $((i * 3 % 11)) "0.00$((i % 10))1"
        case $((i % 10)) in
            2) echo reset >"$JOB/ctl" ;;
            4)
                echo restart >"$JOB/ctl"
                assert_equal "$(wait_for_job)" ready
                ;;
            6) crash_and_mount ;;
            7)
                prompt "use 5 5 5 0.5 wait"
                await charged 5 5 5 0.5 $((i / 10 + 1))
                crash_pool
                touch "$TREE/go"
                await turn_is_over # and nobody listens
                acp_pool mount_again 1 1
                assert_equal "$(response)" waitedused
                ;;
            8)
                echo job >"$POOL/release"
                echo job >"$POOL/acquire" # and goes on with its conversation
                ;;
        esac
    done
    crash_and_mount
    agrees
    assert_equal "$(value "$JOB/usage" agent_input_tokens)" "$(cat "$POOL/stats/input_tokens")"
}

turn_is_over() {
    tail -n 1 "$ACP_SENT" | grep -q '"stopReason"'
}

charged() { # INPUT OUTPUT CACHED DOLLARS TIMES
    [ "$(grep -cxF "${*:1:4}" "$ACP_CHARGES")" = "$5" ]
}

@test "a report of a turn is counted once, however often the output is read again" {
    lease_agent
    uses 100 10 5 0.25
    local i
    for i in 1 2 3; do crash_and_mount; done
    agrees
    assert_equal "$(value "$JOB/usage" input_tokens)" 100
}

# --- by a program's hook ---

hook_pool() { # HOW [OPTION...]
    local how=$1
    shift
    "$how" 1 1 "$@" -- sh
}

@test "a hook reports where the program's own counters are: each is counted by what it grows" {
    hook_pool mount_pool
    echo job >"$POOL/acquire"
    printf 'input_tokens 100\ncost_usd 0.5\ncontext_used 70\n' >"$JOB/usage" # before any prompt: where it begins
    assert_equal "$(value "$JOB/usage" input_tokens)" 0
    echo true >"$JOB/prompt"
    await value_is "$JOB/activity" ready
    echo input_tokens 150 >"$JOB/usage"
    echo input_tokens 150 >"$JOB/usage"
    assert_equal "$(value "$JOB/usage" input_tokens)" 50
    echo input_tokens 30 >"$JOB/usage" # it has begun anew
    assert_equal "$(value "$JOB/usage" input_tokens)" 80
    assert_equal "$(value "$JOB/usage" context_used)" 70
    assert_equal "$(cat "$POOL/stats/input_tokens")" 80
    crash_pool
    hook_pool mount_again
    echo input_tokens 35 >"$JOB/usage"
    assert_equal "$(value "$JOB/usage" input_tokens)" 85
    echo restart >"$JOB/ctl"
    await value_is "$JOB/activity" ready
    echo true >"$JOB/prompt"
    await value_is "$JOB/activity" ready
    echo input_tokens 40 >"$JOB/usage" # another process: all of that is new
    assert_equal "$(value "$JOB/usage" input_tokens)" 125
}

@test "what is no usage is refused with a sentence, and changes nothing" {
    hook_pool mount_pool
    echo job >"$POOL/acquire"
    refused "Invalid argument" "none of: input_tokens" "echo frob 5 >$JOB/usage"
    refused "Invalid argument" "number of tokens" "echo input_tokens five >$JOB/usage"
    refused "Numerical result out of range" "number of tokens" "echo input_tokens -5 >$JOB/usage"
    refused "Invalid argument" "amount of dollars" "echo cost_usd nan >$JOB/usage"
    assert_equal "$(usage)" ""
}

# --- budgets ---

@test "a lease is refused the first prompt beyond its budget, and events warn before" {
    lease_agent
    echo job >"$POOL/release"
    echo "job budget=0.05usd" >"$POOL/acquire"
    assert contains "$JOB/owner" "budget 0.05usd"
    uses 10 1 0 0.02
    refute has_event budget lease job
    uses 10 1 0 0.02
    await has_event budget lease percent used "job 80 0.04 of 0.05 usd"
    uses 10 1 0 0.02 # goes beyond, and is let end
    await has_event budget lease percent used "job 120 0.06 of 0.05 usd"
    refused "Disk quota exceeded" "the budget of job is used up: 0.06 of 0.05 usd" "echo more >$JOB/prompt"
    assert_equal "$(events budget lease | wc -l)" 2
    crash_and_mount
    refused "Disk quota exceeded" "the budget of job is used up: 0.06 of 0.05 usd" "echo more >$JOB/prompt"
    assert_equal "$(events budget lease | wc -l)" 2
    echo reset >"$JOB/ctl" # costs nothing
    assert_equal "$(wait_for_job)" ready
    echo job >"$POOL/release"
    echo "job" >"$POOL/acquire"
    uses 10 1 0 0.02
}

@test "a prompt that waits behind the one that uses the budget up is not given, and an event says so" {
    lease_agent
    echo job >"$POOL/release"
    echo "job budget=1k" >"$POOL/acquire"
    prompt "use 900 200 0 0 wait"
    prompt "say no"
    touch "$TREE/go"
    await has_event prompt outcome reason "refused the budget of job is used up: 1100 of 1000 tokens"
    run timeout 60 cat "$JOB/wait"
    assert_failure
    assert [ "$(grep -c . "$ACP_PROMPTS")" = 1 ]
}

@test "config/budget is that of leases without a word, and counts at once" {
    lease_agent
    uses 100 10 0 0
    echo 100 >"$POOL/config/budget"
    refused "Disk quota exceeded" "110 of 100 tokens" "echo more >$JOB/prompt"
    echo 1M >"$POOL/config/budget"
    assert_equal "$(cat "$POOL/config/budget")" 1000000
    uses 1 1 0 0
    echo job >"$POOL/release"
    echo 1 >"$POOL/config/budget"
    echo "job budget=none" >"$POOL/acquire"
    uses 1 1 0 0
    uses 1 1 0 0
}

@test "words that are no budget are refused" {
    lease_agent
    refused "Invalid argument" "is no budget" "echo other budget=5eur >$POOL/acquire"
    refused "Invalid argument" "is no budget" "echo -- -5 >$POOL/config/budget"
    refused "Numerical result out of range" "too little" "echo 0 >$POOL/config/pool_budget"
    assert_equal "$(cat "$POOL/config/budget" "$POOL/config/pool_budget")" "$(printf 'none\nnone')"
}

@test "over_budget=cancel breaks off a turn that goes beyond, once" {
    lease_agent -o over_budget=cancel
    echo job >"$POOL/release"
    echo "job budget=0.05usd" >"$POOL/acquire"
    prompt "use 1 1 0 0.06 wait"
    assert_equal "$(wait_for_job)" ready
    assert_equal "$(cat "$JOB/stop_reason")" cancelled
    assert_equal "$(jq -s 'map(select(.method == "session/cancel")) | length' "$ACP_LOG")" 1
}

@test "over_budget=finish lets such a turn end" {
    lease_agent
    echo job >"$POOL/release"
    echo "job budget=0.05usd" >"$POOL/acquire"
    prompt "use 1 1 0 0.06 wait"
    await has_event budget lease percent used "job 120 0.06 of 0.05 usd"
    assert_equal "$(cat "$JOB/activity")" busy
    touch "$TREE/go"
    assert_equal "$(response)" waitedused
    assert_equal "$(cat "$JOB/stop_reason")" end_turn
}

@test "beyond the pool's budget of the day acquirers get EDQUOT, those that wait too, and leases go on" {
    lease_agent -o pool_budget=1usd
    echo "second timeout=60" >"$POOL/acquire" &
    local waiter=$!
    await value_is "$POOL/stats/waiting" 1
    uses 1 1 0 1.5
    run wait $waiter
    assert_failure
    await has_event refused lease errno "second EDQUOT"
    await has_event pool_budget percent used "150 1.5 of 1 usd"
    refused "Disk quota exceeded" "pool_budget of today is used up" "echo third timeout=0 >$POOL/acquire"
    uses 1 1 0 0.1
    crash_pool
    acp_pool mount_again 1 1 -o pool_budget=1usd
    refused "Disk quota exceeded" "pool_budget of today is used up" "echo third >$POOL/acquire"
    echo job >"$POOL/release"
    echo 5usd >"$POOL/config/pool_budget"
    echo "job" >"$POOL/acquire"
    uses 1 1 0 0.1
}

@test "another day has the pool's budget again, and the counts since the pool began go on" {
    [ -n "${CRASH_POINTS:-}" ] || skip "the clock is set ahead only in a build with crash points"
    lease_agent -o pool_budget=1usd
    uses 7 1 0 1.5
    refused "Disk quota exceeded" "pool_budget of today is used up" "echo third >$POOL/acquire"
    crash_pool
    export AGENTPOOLFS_DAYS_AHEAD=1
    acp_pool mount_again 1 1 -o pool_budget=1usd
    echo job >"$POOL/release"
    echo "job" >"$POOL/acquire"
    uses 7 1 0 0.1
    assert_equal "$(cat "$POOL/stats/input_tokens")" 14
}

# --- by rules of a profile ---

@test "what a stream program says of its use in events is counted once, also when its output is read again" {
    cat >"$DIR/stream.conf" <<'CONF'
mode = stream
input = {"text": "${PROMPT}"}
busy = event {"type": "begun"}
ready = event {"type": "result"}
response = /result
usage = event context /id
usage = event input_tokens /models/*/input
usage = event input_tokens /models/*/written
usage = event cost_usd /cost
CONF
    cat >"$DIR/agent.py" <<'PY'
import json, os, sys
n = 0
for _ in sys.stdin:
    n += 1
    models = {"small": {"input": n, "written": 100 * n}, "large": {"input": 1000 * n}}
    print(json.dumps({"type": "result", "result": "done", "id": str(os.getpid()), "models": models, "cost": n / 8}), flush=True)
PY
    stream_pool mount_pool
    echo job >"$POOL/acquire"
    assert_equal "$(ask one)" done
    assert_equal "$(ask two)" done
    assert_equal "$(value "$JOB/usage" input_tokens)" 2202
    assert_equal "$(value "$JOB/usage" cost_usd)" 0.25
    crash_pool
    stream_pool mount_again
    assert_equal "$(ask three)" done
    assert_equal "$(value "$JOB/usage" input_tokens)" 3303
    echo restart >"$JOB/ctl"
    await value_is "$JOB/activity" ready
    assert_equal "$(ask four)" done
    assert_equal "$(value "$JOB/usage" input_tokens)" 4404
    crash_pool
    stream_pool mount_again
    assert_equal "$(value "$JOB/usage" input_tokens)" 4404
    assert_equal "$(cat "$POOL/stats/cost_usd")" 0.5
}

stream_pool() { # HOW
    "$1" 1 1 -o "program_profile=$DIR/stream.conf" -- python3 -u "$DIR/agent.py"
}

@test "what a screen shows of use is counted by what it grows, in the units that it shows" {
    printf 'usage = screen %s\n' '^used (?<input_tokens>[\d.,]+[KM]?), \$(?<cost_usd>[\d.]+), of (?<context_size>[\d.]+[KM]?)$' >"$DIR/shows.conf"
    printf 'ready = screen:1 ^[#$]\\s*$\n' >>"$DIR/shows.conf"
    mount_pool 1 1 -o "program_profile=$DIR/shows.conf" -- sh
    echo job >"$POOL/acquire"
    echo "clear; echo 'used 1,200, \$0.10, of 200K'" >"$JOB/prompt"
    await has_used input_tokens 1200
    echo "clear; echo 'used 1.5K, \$0.25, of 200K'" >"$JOB/prompt"
    await has_used input_tokens 1500
    assert_equal "$(value "$JOB/usage" cost_usd)" 0.25
    assert_equal "$(value "$JOB/usage" context_size)" 200000
}

has_used() { # NAME VALUE
    [ "$(value "$JOB/usage" "$1")" = "$2" ]
}

@test "what a hook has left while no daemon was there is heard by the next one, and is no other process's" {
    hook_pool mount_pool
    echo job >"$POOL/acquire"
    echo true >"$JOB/prompt"
    await value_is "$JOB/activity" ready
    echo input_tokens 100 >"$JOB/usage"
    crash_pool
    echo input_tokens 130 >"$STATE/agents/agent-1/left/usage"
    hook_pool mount_again
    assert_equal "$(value "$JOB/usage" input_tokens)" 130
    echo restart >"$JOB/ctl"
    await value_is "$JOB/activity" ready
    assert [ ! -e "$STATE/agents/agent-1/left/usage" ]
    crash_pool
    ln -s /etc/passwd "$STATE/agents/agent-1/left/usage"
    hook_pool mount_again
    assert_equal "$(value "$JOB/usage" input_tokens)" 130
}
