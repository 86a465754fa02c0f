# The files metrics and metrics.prom: text whose numbers are those of what has happened.

load helper

setup() { common_setup; }
teardown() { common_teardown; }

openmetrics() {
    python3 "$BATS_TEST_DIRNAME/openmetrics.py" "$@"
}

# Two reads may lie on both sides of an event.
pages_agree() {
    cat "$POOL/metrics" >"$DIR/page" && cat "$POOL/metrics.prom" >"$DIR/older"
    openmetrics same "$DIR/older" <"$DIR/page" >"$DIR/differs"
}

# By the rules of OpenMetrics; and by promtool, which reads the older format alone.
page_is_well() {
    await pages_agree || { cat "$DIR/differs"; return 1; }
    run openmetrics check <"$DIR/page"
    assert_success
    assert_output ""
    run promtool check metrics <"$POOL/metrics.prom"
    assert_success
    assert_output ""
    if [ -e "$DIR/page.before" ]; then
        run openmetrics compare "$DIR/page.before" <"$DIR/page"
        assert_success
    fi
    mv "$DIR/page" "$DIR/page.before"
}

metric() { # NAME [LABEL=VALUE...]
    openmetrics get "$@" <"$POOL/metrics"
}

metric_is() { # VALUE NAME [LABEL=VALUE...]
    [ "$(metric "${@:2}")" = "$1" ]
}

@test "metrics is well formed before, during and after load, and no counter falls" {
    mount_pool 1 3
    page_is_well
    local clients=() i
    for i in 1 2 3 4; do
        bash -c "for n in 1 2 3; do
            echo job-$i-\$n timeout=60 > $POOL/acquire && echo job-$i-\$n > $POOL/release || exit 1
        done" 3>&- &
        clients+=($!)
    done
    for i in 1 2 3 4 5 6; do page_is_well; done
    for i in "${clients[@]}"; do wait "$i"; done
    await value_is "$POOL/stats/active_agents" 0
    page_is_well

    assert_equal "$(metric agentpool_requests_total)" 12
    assert_equal "$(metric agentpool_acquire_wait_seconds_count)" 12
    assert_equal "$(metric agentpool_lease_duration_seconds_count)" 12
    assert_equal "$(metric agentpool_releases_total result=idle)" 12
    local hit spawned handoff
    hit=$(metric agentpool_acquire_total result=hit)
    spawned=$(metric agentpool_acquire_total result=spawned)
    handoff=$(metric agentpool_acquire_total result=handoff)
    assert_equal $((hit + spawned + handoff)) 12
    assert_equal "$(metric agentpool_acquire_total result=timeout)" 0
    assert_equal "$(metric agentpool_spawns_total result=ok)" "$(cat "$POOL/stats/spawned_agents")"
    assert_equal "$(metric agentpool_spawn_duration_seconds_count)" "$(cat "$POOL/stats/spawned_agents")"
}

@test "who waits, what is refused and what expires is counted by its kind" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    assert_equal "$(metric agentpool_acquire_total result=hit)" 1
    assert_equal "$(metric agentpool_agents state=active)" 1
    assert_equal "$(metric agentpool_agent_requests_total agent=agent-1)" 1
    run bash -c "echo timeout=0 > $POOL/acquire"
    assert_failure
    assert_equal "$(metric agentpool_acquire_total result=timeout)" 1
    run bash -c "echo job > $POOL/acquire"
    assert_failure
    assert_equal "$(metric agentpool_acquire_total result=rejected)" 1

    assert_equal "$(metric agentpool_waiter_oldest_seconds)" 0
    assert_equal "$(cat "$POOL/stats/oldest_waiter")" 0.000000
    bash -c "echo next ttl=1 > $POOL/acquire" 3>&- &
    local waiter=$!
    await metric_is 1 agentpool_waiters
    await metric_is 1 agentpool_max_reached_total
    run awk '$1 <= 0 || $1 > 60' "$POOL/stats/oldest_waiter"
    assert_output ""
    echo job > "$POOL/release"
    wait $waiter
    assert_equal "$(metric agentpool_acquire_total result=handoff)" 1
    await metric_is 1 agentpool_lease_expired_total
    await metric_is 2 agentpool_lease_duration_seconds_count
    page_is_well
}

# A program that is just being started may be seen with none.
uses_memory() { # AGENT
    cat "$POOL/agents/$1/memory" > /dev/null && [ "$(metric agentpool_agent_memory_bytes "agent=$1")" -gt 4096 ]
}

@test "an agent shows with its usage, and its end with its reason" {
    mount_pool 1 2
    await uses_memory agent-1
    assert_equal "$(metric agentpool_agent_memory_max_bytes)" $((512 << 20))
    echo 0 > "$POOL/config/max_memory_mb"
    assert_equal "$(metric agentpool_agent_memory_max_bytes)" none
    refute [ "$(metric agentpool_agent_cpu_seconds_total agent=agent-1)" = none ]
    echo kill > "$POOL/agents/agent-1/ctl"
    await metric_is 1 agentpool_terminations_total reason=kill
    await value_is "$POOL/stats/idle_agents" 1
    assert_equal "$(metric agentpool_spawns_total result=ok)" 2
    echo recycle > "$POOL/agents/agent-2/ctl"
    await metric_is 1 agentpool_recycles_total reason=asked
    echo maintain > "$POOL/ctl"
    await metric_is 1 agentpool_probe_total result=ok
    assert_equal "$(metric agentpool_breaker_state agentpool_breaker_state=closed)" 1
    page_is_well
}

@test "every sample names the pool, whatever its name" {
    POOL="$DIR/a \"pool\" \\ of $(printf '\303\251')"
    mount_pool 1 1
    page_is_well
    assert_equal "$(metric agentpool_agents state=idle 'pool=a \"pool\" \\ of é')" 1
}

@test "stats has percentiles of waits and leases once there are any" {
    mount_pool 1 1
    assert_equal "$(cat "$POOL"/stats/{wait,hold}_p{50,95,99})" ""
    echo job > "$POOL/acquire"
    echo job > "$POOL/release"
    local name
    for name in wait_p50 wait_p95 wait_p99 hold_p50 hold_p95 hold_p99; do
        run awk '{ exit !($1 > 0 && $1 < 60) }' "$POOL/stats/$name"
        assert_success
    done
}

@test "a lease that a daemon before has granted counts when it is over" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    sleep 1.1 # the time before is told from the time after
    crash_pool
    mount_again 1 1
    await test -e "$POOL/leases/job"
    assert_equal "$(metric agentpool_requests_total)" 1
    assert_equal "$(metric agentpool_acquire_wait_seconds_count)" 0
    echo job > "$POOL/release"
    assert_equal "$(metric agentpool_lease_duration_seconds_count)" 1
    assert_equal "$(metric agentpool_lease_duration_seconds_bucket le=1.0)" 0
    page_is_well
}

in_state() { # KIND: stats/STATE_KIND of all states, one a line
    local state
    for state in spawning idle validating active recycling unhealthy draining stopping lost; do
        cat "$POOL/stats/${state}_$1"
    done
}

@test "stats counts agents by state, and the seconds that they were in it" {
    mount_pool 2 2
    assert_equal "$(in_state agents | awk '{ n += $1 } END { print n }')" "$(cat "$POOL/stats/total_agents")"
    assert_equal "$(in_state agents | paste -sd' ')" "0 2 0 0 0 0 0 0 0"
    echo job > "$POOL/acquire"
    assert_equal "$(in_state agents | paste -sd' ')" "0 1 0 1 0 0 0 0 0"
    local before after active sum
    before=$(cat "$POOL/stats/uptime") active=$(cat "$POOL/stats/active_seconds")
    sleep 1
    after=$(cat "$POOL/stats/uptime")
    sum=$(in_state seconds | awk '{ n += $1 } END { print n }') # both agents, since there are any
    run awk -v from="$before" -v to="$after" -v sum="$sum" '{ exit !(sum > 2 * (to - from) && sum <= 2 * $1) }' \
        "$POOL/stats/uptime"
    assert_success
    run awk -v before="$active" -v from="$before" '{ at[NR] = $1 } END { exit !(at[1] >= before + 1 && at[1] - before <= at[2] - from + 1) }' \
        "$POOL/stats/active_seconds" "$POOL/stats/uptime"
    assert_success
    assert_equal "$(cat "$POOL/stats/unhealthy_seconds")" 0.000
}

@test "desired_agents is the size that the pool goes to, and its metric" {
    mount_pool 1 4
    assert_equal "$(cat "$POOL/stats/desired_agents")" 1
    echo 3 > "$POOL/scale"
    assert_equal "$(cat "$POOL/stats/desired_agents")" 3
    assert_equal "$(metric agentpool_agents_desired)" 3
    await value_is "$POOL/stats/total_agents" 3
    echo auto > "$POOL/scale"
    assert_equal "$(cat "$POOL/stats/desired_agents")" 2 # one less, when it has been so for a whole window
}

@test "stats/breaker_cause says why spawning fails until it does not any more" {
    mount_pool 1 1
    assert_equal "$(cat "$POOL/stats/breaker_cause")" ""
    echo 'echo no such thing >&2; exit 3' > "$POOL/config/setup"
    echo kill > "$POOL/agents/agent-1/ctl"
    await grep -q . "$POOL/stats/breaker_cause"
    await value_is "$POOL/stats/breaker" open
    assert_equal "$(cat "$POOL/stats/breaker_cause")" "setup: exit code 3: no such thing"
    # so do the events
    run jq -r 'select(.event == "breaker" and .state == "open") | .reason' "$POOL/events"
    assert_line "setup: exit code 3: no such thing"
    echo > "$POOL/config/setup"
    echo reset-breaker > "$POOL/ctl"
    await value_is "$POOL/stats/breaker_cause" ""
    await value_is "$POOL/stats/idle_agents" 1
}
