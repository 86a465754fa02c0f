# The files status, status.json and status.html: what they say, and to whom.

load helper

setup() {
    common_setup
    TMUX_OF_TEST=$DIR/terminal.sock
}

teardown() {
    end_tmux "$TMUX_OF_TEST"
    common_teardown
}

# The Debian interpreter has Debian's module.
valid() { # FILE
    /usr/bin/python3 -c 'import json, sys, jsonschema
schema, page = (json.load(open(path)) for path in sys.argv[1:])
jsonschema.Draft7Validator.check_schema(schema)
jsonschema.validate(page, schema, cls=jsonschema.Draft7Validator)' \
        "$BATS_TEST_DIRNAME/../../share/status.schema.json" "$1"
}

status_has() { # TEXT...: in this order
    local text page
    page=$(<"$POOL/status")
    for text; do
        [[ $page == *"$text"* ]] || return 1
        page=${page#*"$text"}
    done
}

say() { # LABEL TEXT: the agent's shell prints it, with the escapes of printf, and it is the last line
    echo "PS1=; clear; printf '%b\\n' '$2'" >"$POOL/leases/$1/prompt"
}

@test "status says what each agent is, does, serves and shows" {
    mount_pool 2 4
    await value_is "$POOL/agents/agent-1/activity" ready
    await value_is "$POOL/agents/agent-2/activity" ready
    echo fix-auth >"$POOL/acquire"
    local agent
    agent=$(basename "$(readlink "$POOL/leases/fix-auth")")
    say fix-auth "all is well"
    await status_has "all is well"
    run cat "$POOL/status"
    assert_line --index 0 "pool  2 agents of 2 to 4: 1 idle, 1 active"
    assert_line --index 1 --partial " 50% used  ·····························"
    assert_line --index 1 --partial "  last hour   0 waiting"
    assert_line --regexp "^AGENT +STATE +ACTIVITY +LEASE +AGE +REQ +REC +MEM +CPU$"
    assert_line --regexp "^$agent +active +[a-z]+ +fix-auth +[0-9]+s +1 +0 +[0-9.]+[KM] +[0-9]+%$"
    assert_line "  all is well"
    assert_line --regexp "^agent-[12] +idle +ready +[0-9]+s +0 +0 +[0-9.]+[KM] +[0-9]+%$"
}

@test "status and status.json say what the write before them did" {
    mount_pool 1 2
    local i
    for i in 1 2 3 4 5; do
        echo "job-$i" >"$POOL/acquire"
        status_has "active" "job-$i"
        jq -e --arg job "job-$i" '.stats.active_agents == 1 and any(.agents[]; .lease.label == $job)' "$POOL/status.json"
        echo "job-$i" >"$POOL/release"
        refute status_has "job-$i"
        await value_is "$POOL/stats/active_agents" 0
    done
}

@test "who waits, a closed pool and a set size are told" {
    mount_pool 1 1
    echo one >"$POOL/acquire"
    bash -c "echo two >$POOL/acquire" 3>&- &
    local waiter=$!
    await status_has "1 waiting, longest " "wait: two "
    valid "$POOL/status.json"
    assert_equal "$(jq -c '[.stats.waiting, [.waiters[] | [.label, .uid, .waited > 0]]]' "$POOL/status.json")" \
        "[1,[[\"two\",$(id -u),true]]]"
    echo 1 >"$POOL/scale"
    echo close >"$POOL/ctl"
    local result=0
    wait $waiter || result=$?
    refute [ $result = 0 ]
    status_has "1 agent of 1 to 1, set to 1: 1 active" "closed: "
    assert_equal "$(jq -c '[.closed, .scale.mode, .scale.target]' "$POOL/status.json")" '[true,"manual",1]'
}

@test "of many who wait the first are named, in 80 columns" {
    mount_pool 1 1
    echo one >"$POOL/acquire"
    local i clients=()
    for i in {1..20}; do
        bash -c "echo waits-$i timeout=10m >$POOL/acquire" 2>/dev/null 3>&- &
        clients+=($!)
        await value_is "$POOL/stats/waiting" "$i"
    done
    status_has "20 waiting, longest " $'\n'"wait: waits-1 " ", waits-2 " "…"
    assert_equal "$(wc -L <"$POOL/status")" 80
    valid "$POOL/status.json"
    assert_equal "$(jq -r '[.waiters[].label] | join(" ")' "$POOL/status.json")" "$(echo waits-{1..16})"
    echo close >"$POOL/ctl"
    for i in "${clients[@]}"; do wait "$i" || true; done
    refute status_has "wait: "
    echo one >"$POOL/release"
}

@test "status.json is as its schema says, before, during and after leases" {
    mount_pool 2 3
    cat "$POOL/status.json" >"$DIR/before"
    echo one ttl=1h >"$POOL/acquire"
    echo exit >"$POOL/leases/one/prompt"
    await value_is "$POOL/leases/one/activity" exited
    cat "$POOL/status.json" >"$DIR/during"
    echo one >"$POOL/release"
    cat "$POOL/status.json" >"$DIR/after"
    local file
    for file in before during after; do
        run valid "$DIR/$file"
        assert_success
        assert_equal "$(jq -r '.stats | keys[]' "$DIR/$file" | sort)" "$(cd "$POOL/stats" && printf '%s\n' * | sort)"
    done
    jq -e '.agents[] | select(.lease.label == "one") | (.exit_status | startswith("code 0 20")) and .lease.expires != null' "$DIR/during"
    # a schema that takes anything would have passed
    jq '.agents[0].state = "well"' "$DIR/before" >"$DIR/wrong"
    run valid "$DIR/wrong"
    assert_failure
}

@test "status.json has the values of stats/ and of the agents' files" {
    mount_pool 1 1
    local name value
    await value_is "$POOL/agents/agent-1/activity" ready
    program_of "$POOL/agents/agent-1"
    jq -r '.stats | to_entries[] | [.key, .value // ""] | @tsv' "$POOL/status.json" >"$DIR/values"
    while IFS=$'\t' read -r name value; do
        case $name in
        uptime | *_seconds) continue ;; # they pass
        esac
        diff <(echo "$value" | awk '{ print $1 + 0 ? $1 + 0 : $0 }') <(awk '{ print $1 + 0 ? $1 + 0 : $0 } END { if (!NR) print "" }' "$POOL/stats/$name") || fail "$name"
    done < <(grep -v oldest_waiter "$DIR/values")
    for name in state activity why pid requests prompts recycles generation created; do
        assert_equal "$(jq -r ".agents[0].$name" "$POOL/status.json")" "$(cat "$POOL/agents/agent-1/$name")"
    done
    assert_equal "$(jq -r '.agents[0].worktree' "$POOL/status.json")" "$(readlink "$POOL/agents/agent-1/worktree")"
}

@test "the last hour shows a lease and its wait" {
    mount_pool 1 1
    echo one >"$POOL/acquire"
    bash -c "echo two >$POOL/acquire" 3>&- &
    local waiter=$!
    await value_is "$POOL/stats/waiting" 1
    echo one >"$POOL/release"
    wait $waiter
    hour_is() { jq -e "$1" "$POOL/status.json"; } # a second later at most
    await hour_is '.history | (.granted | add) == 2 and (.waiting | max) == 1 and (.longest_wait | max) > 0
        and (.active | max) > 0 and (.utilization | max) > 0 and (.agents | max) <= 1'
    jq -e '.history | [.agents, .active, .utilization, .waiting, .longest_wait, .granted] | map(length) | unique | length == 1' \
        "$POOL/status.json"
}

# Every line is one line of the terminal, but for what passes with time.
fits_terminal() {
    tmux -S "$TMUX_OF_TEST" capture-pane -p >"$DIR/shown"
    python3 -c 'import re, sys, unicodedata
said, shown = (open(path, encoding="utf-8").read() for path in sys.argv[1:])
said, shown = re.sub("\033\\[[0-9]*m", "", said).splitlines(), shown.splitlines()
wide = lambda line: sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in line)
assert said and all(wide(line) <= 80 for line in said), said
start = lambda line: line.rstrip()[:38]
assert [start(a) for a in said] == [start(b) for b in shown[:len(said)]], (said, shown)' "$POOL/status" "$DIR/shown"
}

in_terminal() { # COMMAND
    tmux -S "$TMUX_OF_TEST" -f /dev/null new-session -d -x 80 -y 24 "LC_ALL=C.UTF-8 $1"
}

@test "status is right in a terminal of 80 columns, painted under watch -c and plain under watch" {
    mount_pool 2 3
    local label
    label=$(printf 'a%.0s' {1..64})
    echo "$label" >"$POOL/acquire"
    say "$label" "$(printf '\346\227\245%.0s' {1..60})"
    await status_has "日日日…"
    refute contains "$POOL/status" $'\033'
    in_terminal "watch -t cat $POOL/status"
    await fits_terminal
    end_tmux "$TMUX_OF_TEST"

    echo yes >"$POOL/config/status_color"
    contains "$POOL/status" $'\033[32mactive\033[0m'
    in_terminal "watch -t -c cat $POOL/status"
    await fits_terminal
    tmux -S "$TMUX_OF_TEST" capture-pane -p -e >"$DIR/painted"
    contains "$DIR/painted" $'\033[32mactive'
}

@test "an agent that is set aside says whose work it keeps" {
    mount_pool 1 2
    LOG_EXPECTED=yes
    echo job ttl=1h > "$POOL/acquire"
    local tree
    tree=$(readlink "$POOL/leases/job/worktree")
    echo work > "$tree/work"
    refuse_to_save
    refute bash -c 'echo job > "$1"' _ "$POOL/release"
    status_has "agent-1 unhealthy" job
    assert_equal "$(cat "$POOL/agents/agent-1/lease" "$POOL/agents/agent-1/owner")" "" # it is over
    assert_equal "$(cat "$POOL/agents/agent-1/branch")" agentpool/job
    assert_equal "$(ls "$POOL/leases")" ""
    valid "$POOL/status.json"
    assert_equal "$(jq -c '.agents[0] | [.state, .lease.label, .lease.token, .lease.expires]' "$POOL/status.json")" \
        '["unhealthy","job",0,null]'
    have_saved
    echo job > "$POOL/release"
    assert_equal "$(git -C "$REPO" show agentpool/job:work)" work
    await bash -c '! [ -e "$1" ]' _ "$POOL/agents/agent-1"
}

@test "nothing that an agent prints is obeyed" {
    mount_pool 1 1 -o status_color=yes
    echo job >"$POOL/acquire"
    say job '\033]0;title\007\033[31mred </script><!--<script><img src=x onerror=alert(1)> \302 \377 \001 end'
    await status_has "</script><!--<script><img src=x onerror=alert(1)>"
    run valid "$POOL/status.json"
    assert_success
    # the terminal's own: colours alone
    run bash -c "sed 's/\x1b\[[0-9]*m//g' '$POOL/status' | LC_ALL=C grep -c '[[:cntrl:]]'"
    assert_output 0
    # the page has its own two ends of scripts, and no other
    assert_equal "$(grep -o '</script' "$POOL/status.html" | wc -l)" 2
    refute contains "$POOL/status.html" "<img"
    refute contains "$POOL/status.html" "<!--"
    python3 -c 'import json, re, sys
page = open(sys.argv[1]).read()
status = json.loads(re.search("<script type=\"application/json\" id=\"status\">(.*?)</script>", page, re.S)[1])
assert any("<img src=x" in line for line in status["agents"][0]["screen"])' "$POOL/status.html"
}

@test "status.html has the size that it reports, and that one always" {
    mount_pool 2 4
    local size
    size=$(stat -c %s "$POOL/status.html")
    assert_equal "$(wc -c <"$POOL/status.html")" "$size"
    echo one >"$POOL/acquire"
    echo "PS1=; clear; printf '<%.0s' {1..1900}" >"$POOL/leases/one/prompt"
    await status_has "<<<<<"
    echo two >"$POOL/acquire"
    assert_equal "$(cat "$POOL/status.html" | wc -c)" "$size"
    assert_equal "$(stat -c %s "$POOL/status.html")" "$size"
    assert_equal "$(grep -c '^</html>' "$POOL/status.html")" 1
}

@test "many who look at once are all answered, and one who is killed leaves nothing" {
    mount_pool 2 4
    local i endless looking=()
    bash -c "while cat $POOL/status $POOL/status.json; do :; done >/dev/null" 3>&- &
    endless=$!
    for i in {1..30}; do
        bash -c "for n in 1 2 3 4 5; do cat $POOL/status $POOL/status.json $POOL/status.html >/dev/null || exit 1; done" 3>&- &
        looking+=($!)
    done
    kill -9 $endless
    for i in "${looking[@]}"; do wait "$i"; done
    echo one timeout=10 >"$POOL/acquire"
    status_has one
}

@test "a tmux that does not answer holds up nobody who looks for long" {
    mount_pool 1 1
    echo job >"$POOL/acquire"
    say job "seen before"
    await status_has "seen before"
    local server
    server=$(tmux -S "$STATE/tmux.sock" display-message -p '#{pid}')
    kill -STOP "$server"
    # something is printed meanwhile, so that there is a screen to be looked at
    printf x >>"$(echo "$STATE"/agents/agent-1/output-*.raw)"
    local i
    for i in 1 2 3 4 5; do timeout 150 cat "$POOL/status.json" >"$DIR/seen"; done # none waits for tmux
    kill -CONT "$server"
    jq -e '.agents[0].screen | any(. == "seen before")' "$DIR/seen"
}

# What the daemon opens and writes from now on, in $DIR/trace.
trace_daemon() {
    strace -f -qq -s 256 -e trace=openat,write -e signal=none -o "$DIR/trace" -p "$DAEMON" 3>&- &
    STRACE=$!
    await grep -q "TracerPid:.$STRACE" "/proc/$DAEMON/status"
}

end_trace() {
    kill $STRACE
    wait $STRACE || true
}

usage_is_known() {
    reads=$((reads + 1))
    jq -e '.agents | length == 10 and all(.[]; .memory != null and .tasks >= 1)' "$POOL/status.json"
}

@test "for the usage of many agents the processes of the machine are listed once, and no tree of its own" {
    mount_pool 10 10 -o maintenance_interval=1d
    trace_daemon
    local lists reads=0
    await usage_is_known
    end_trace
    refute grep 'openat.*/children"' "$DIR/trace"
    # each read asks for one look at most, and whoever lists all processes meets the first one
    lists=$(grep -c '"/proc/1/stat"' "$DIR/trace") || true # none where control groups tell all
    assert [ "$lists" -le "$reads" ]
}

@test "screens of agents that have printed nothing since are not asked for again" {
    mount_pool 10 10 -o maintenance_interval=1d -- sleep 1d
    screens_are_known() { jq -e 'all(.agents[]; .screen != null)' "$POOL/status.json"; }
    await screens_are_known
    trace_daemon
    # usage is looked at behind the screens: a look has passed
    looked() { screens_are_known && grep -qE '"/proc/1/stat"|/memory.current"' "$DIR/trace"; }
    await looked
    end_trace
    refute grep capture-pane "$DIR/trace"
}

@test "what is not known of an agent yet is shown as not known" {
    mount_pool 1 1
    await value_is "$POOL/agents/agent-1/activity" ready
    local server
    server=$(tmux -S "$STATE/tmux.sock" display-message -p '#{pid}')
    kill -STOP "$server"
    cat "$POOL/status.json" >"$DIR/seen"
    cat "$POOL/status" >"$DIR/table"
    kill -CONT "$server"
    run valid "$DIR/seen"
    assert_success
    assert_equal "$(jq -c '.agents[0] | [.activity, .screen]' "$DIR/seen")" '["ready",null]'
    assert contains "$DIR/table" "agent-1 idle       ready"
}

@test "while the first template is made, status and the terminal of who mounts say how far it is" {
    REPO_CHANGED=yes
    git -C "$REPO" config filter.gate.smudge "while [ -e '$DIR/gate' ]; do sleep 0.02; done; cat"
    echo 'held filter=gate' > "$REPO/.gitattributes"
    echo held > "$REPO/held"
    git -C "$REPO" add -A
    git -C "$REPO" commit -qm held
    local files
    files=$(git -C "$REPO" ls-files | wc -l)
    touch "$DIR/gate"
    mkdir -p "$POOL"
    python3 -c 'import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)' "$AGENTPOOLFS" \
        -o "state_dir=$STATE,min_pool_size=1,max_pool_size=1" "$REPO" "$POOL" </dev/null >"$DIR/terminal" 2>&1 &
    local mounting=$!
    await contains "$DIR/terminal" "of $files files"
    assert contains "$POOL/status" "of $files files"
    assert_equal "$(cat "$POOL/stats/template_files")" "$files"
    assert [ "$(cat "$POOL/stats/template_files_done")" -lt "$files" ]
    kill -0 $mounting
    rm "$DIR/gate"
    wait $mounting
    assert_equal "$(tail -c 3 "$DIR/terminal")" $'\033[K' # nothing of it is left to be seen
    await value_is "$POOL/stats/template_files" 0
    refute contains "$POOL/status" "checking out"
    fusermount3 -u "$POOL"
    await nothing_left
}
