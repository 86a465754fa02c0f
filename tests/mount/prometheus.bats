# Prometheus itself, and node_exporter, on the pages of a real pool; and what is shipped for them.
# Every server has a free port of its own, which it says itself, and ends with its test.

load helper

setup() {
    common_setup
    SERVERS=()
    TOP=$BATS_TEST_DIRNAME/../..
    RULES=$TOP/share/prometheus/agentpool.rules.yml
    DASHBOARD=$TOP/share/grafana/agentpool.json
}

teardown() {
    local pid result=0
    for pid in "${SERVERS[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${SERVERS[@]}"; do
        await gone "$pid" || kill -9 "$pid"
        wait "$pid" 2>/dev/null || true
    done
    nothing_serves || result=1
    common_teardown || result=1
    return $result
}

# What was started, or by it, has ended with it.
nothing_serves() {
    local pid result=0
    for pid in /proc/[0-9]*; do
        if { tr '\0' ' ' <"$pid/cmdline"; } 2>/dev/null | grep -qE "^[^ ]*(prometheus|python)[^ ]* .*$DIR/"; then
            echo "left: $(tr '\0' ' ' <"$pid/cmdline")" >&2
            result=1
        fi
    done
    return $result
}

tool() {
    python3 "$BATS_TEST_DIRNAME/prometheus.py" "$@"
}

# Starts a server, a program and no function; ADDRESS is where it listens, once it does. What it says is in DIR/NAME.log.
start_server() { # NAME COMMAND...
    "${@:2}" >"$DIR/$1.log" 2>&1 3>&- &
    SERVERS+=($!)
    await grep -q 'address=127.0.0.1:[1-9]' "$DIR/$1.log" || { cat "$DIR/$1.log"; return 1; }
    ADDRESS=$(sed -n 's/.*address=\(127\.0\.0\.1:[1-9][0-9]*\).*/\1/p' "$DIR/$1.log" | head -n1)
}

# A Prometheus that scrapes the pool every second, as job `node` metrics.prom through node_exporter, as job
# `page` metrics from a server of files. It has the alerts, and the dashboard's expressions as rules.
start_prometheus() {
    local node page
    mkdir "$DIR/textfiles"
    ln -s "$POOL/metrics.prom" "$DIR/textfiles/pool.prom"
    start_server node prometheus-node-exporter --web.listen-address=127.0.0.1:0 \
        --collector.disable-defaults --collector.textfile --collector.textfile.directory="$DIR/textfiles"
    node=$ADDRESS
    start_server page python3 "$BATS_TEST_DIRNAME/prometheus.py" serve "$POOL/metrics"
    page=$ADDRESS
    tool rules "$DASHBOARD" >"$DIR/dashboard.json"
    cat >"$DIR/prometheus.yml" <<EOF
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [$(realpath "$RULES"), $DIR/dashboard.json]
scrape_configs:
- {job_name: node, static_configs: [{targets: ["$node"]}]}
- {job_name: page, static_configs: [{targets: ["$page"]}]}
EOF
    start_server prometheus prometheus --config.file="$DIR/prometheus.yml" --web.listen-address=127.0.0.1:0 \
        --storage.tsdb.path="$DIR/tsdb"
    PROMETHEUS=http://$ADDRESS
}

query_is() { # VALUES EXPR
    tool query "$PROMETHEUS" "$2" >"$DIR/answer" && [ "$(cat "$DIR/answer")" = "$1" ]
}

# Waits until Prometheus answers with these values, of both jobs.
await_query() { # EXPR LINE...
    await query_is "$(printf '%s\n' "${@:2}")" "$1" || { echo "$1:"; cat "$DIR/answer"; tail "$DIR"/*.log; return 1; }
}

# What it has learnt of a metric from a job: type and unit.
metadata() { # JOB NAME
    tool get "$PROMETHEUS/api/v1/targets/metadata?metric=$2&match_target=%7Bjob=%22$1%22%7D" |
        jq -r '.data[] | "\(.type) \(.unit)"'
}

lease() { # LABEL...
    local label
    for label in "$@"; do echo "$label timeout=60" >"$POOL/acquire"; done
}

release() { # LABEL...
    local label
    for label in "$@"; do echo "$label" >"$POOL/release"; done
}

@test "Prometheus counts the leases of a pool, by node_exporter and from the page itself" {
    mount_pool 1 3
    start_prometheus
    lease a b c
    release a b
    lease d e
    release c d
    lease f
    release f
    lease g
    await_query agentpool_requests_total "node 7" "page 7"
    await_query 'agentpool_agents{state="active"}' "node 2" "page 2"
    await_query agentpool_acquire_wait_seconds_count "node 7" "page 7"
    await_query 'sum by (job) (agentpool_acquire_total)' "node 7" "page 7"
    await_query 'agentpool_breaker_state{agentpool_breaker_state="closed"}' "node 1" "page 1"
    await_query agentpool_build_info "node 1" "page 1"
    await_query up "node 1" "page 1"
    await_query node_textfile_scrape_error "node 0"
    run promtool query instant "$PROMETHEUS" 'agentpool_requests_total{job="node", pool="pool"}'
    assert_output --partial '} => 7 @'

    assert_equal "$(metadata node agentpool_requests_total)" "counter "
    assert_equal "$(metadata node agentpool_acquire_wait_seconds)" "histogram "
    assert_equal "$(metadata node agentpool_agents)" "gauge "
    # in OpenMetrics the family has the name without the suffix, and there are more types, and units
    assert_equal "$(metadata page agentpool_requests)" "counter "
    assert_equal "$(metadata page agentpool_agent_seconds)" "counter seconds"
    assert_equal "$(metadata page agentpool_acquire_wait_seconds)" "histogram seconds"
    assert_equal "$(metadata page agentpool_breaker_state)" "stateset "
    assert_equal "$(metadata page agentpool_build)" "info "

    release e g
    await_query 'agentpool_releases_total{result="idle"}' "node 7" "page 7"
    await_query 'agentpool_agents{state="active"}' "node 0" "page 0"
    run grep -hE 'level=(warn|error)' "$DIR/prometheus.log"
    refute_output
}

every_rule_runs() {
    tool get "$PROMETHEUS/api/v1/rules" | jq -e '[.data.groups[].rules[].health] | length > 30 and all(. == "ok")'
}

nothing_strange() {
    tool strangers "$PROMETHEUS" >"$DIR/strange" && [ -z "$(cat "$DIR/strange")" ]
}

@test "alerts and dashboard ask for nothing that a pool does not have, and a pool that has gone is seen" {
    mount_pool 1 1
    start_prometheus
    lease a
    printf 'input_tokens 5\noutput_tokens 5\ncost_usd 0.1\n' >"$POOL/leases/a/usage"
    release a
    await value_is "$POOL/stats/idle_agents" 1
    cat "$POOL/agents/agent-1/memory" >/dev/null # now there are samples of it
    await nothing_strange || { cat "$DIR/strange"; return 1; }
    await every_rule_runs || { tool get "$PROMETHEUS/api/v1/rules"; return 1; }
    await_query 'count by (job) (agentpool_agent_memory_bytes)' "node 1" "page 1"
    await_query 'ALERTS' ""
    unmount_pool
    await_query 'ALERTS' "node 1" "page 1"
    await_query 'ALERTS{alertname="AgentpoolGone", alertstate="pending", pool="pool"}' "node 1" "page 1"
    await_query node_textfile_scrape_error "node 1"
}

@test "every alert says what it is about, and has a test in which it fires" {
    run promtool check rules "$RULES"
    assert_success
    run promtool test rules "$TOP/tests/prometheus/alerts.yml"
    assert_success
    local alert
    assert [ "$(grep -c 'alert: ' "$RULES")" -gt 5 ]
    for part in 'labels:' 'severity: \(warning\|critical\)$' 'summary: ' 'description: '; do
        assert_equal "$(grep -c "^ *$part" "$RULES")" "$(grep -c 'alert: ' "$RULES")"
    done
    for alert in $(sed -n 's/.*alert: //p' "$RULES"); do
        grep -qE "alertname(=\"|: )$alert\b" "$TOP/tests/prometheus/alerts.yml" || { echo "not fired: $alert"; return 1; }
    done
}

@test "the dashboard is well laid out, and all of its expressions are PromQL" {
    run tool layout "$DASHBOARD"
    assert_success
    assert_output ""
    tool rules "$DASHBOARD" >"$DIR/rules.json"
    run promtool check rules "$DIR/rules.json"
    assert_success
    assert_output --partial "$(jq '[.panels[].targets[]] | length' "$DASHBOARD") rules found"
}
