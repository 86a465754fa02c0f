# status.html in a real browser: what a person sees, and that it goes on by itself.

load helper

setup() {
    common_setup
    PAGE=file://$POOL/status.html
    coproc BROWSER { exec python3 "$BATS_TEST_DIRNAME/browser.py" 2>"$DIR/browser.err" 3>&-; }
    exec {ASK}>&"${BROWSER[1]}" {ANSWER}<&"${BROWSER[0]}" # a coprocess's own are closed in subshells
}

teardown() {
    if [ -n "${BROWSER_PID:-}" ]; then
        local browser=$BROWSER_PID
        echo end >&"$ASK"
        wait "$browser" || cat "$DIR/browser.err"
    fi
    common_teardown
}

browser() { # COMMAND...: its answer
    local answer
    printf '%s\n' "$*" >&"$ASK"
    read -r -t 120 answer <&"$ANSWER" || fail "the browser has gone: $(cat "$DIR/browser.err")"
    printf '%s\n' "$answer"
}

shows() { # TEXT
    [ "$(browser js "document.body.innerText.includes('$1')")" = true ]
}

# Nothing stands out of the window, and the console is silent.
is_well() {
    assert_equal "$(browser js "document.documentElement.scrollWidth - innerWidth")" 0
    assert_equal "$(browser log)" "[]"
}

@test "a lease shows within three seconds, untouched, at 1280 and at 400 points" {
    mount_pool 2 4
    local width seconds all=()
    for width in 1280 400; do
        browser size $width 900
        browser open "$PAGE"
        shows agent-1
        shows "Utilization"
        is_well
        browser shot "$DIR/before-$width.png"
        echo "job-$width" >"$POOL/acquire"
        seconds=$(browser await 60 "document.body.innerText.includes('job-$width')")
        all+=("$seconds")
        echo "# shown after $seconds s" >&3
        browser shot "$DIR/after-$width.png"
        is_well
        assert_equal "$(browser js "document.querySelector('article .state.active') !== null")" true
        assert [ "$(browser colours "$DIR/before-$width.png")" -gt 20 ]
        jq -e '. > 0.001' <<<"$(browser differ "$DIR/before-$width.png" "$DIR/after-$width.png")"
        echo "job-$width" >"$POOL/release"
        [ "$(browser await 60 "!document.body.innerText.includes('job-$width')")" != null ]
    done
    # of two on a busy machine one is told
    jq -se 'min <= 3' <<<"${all[*]}"
}

@test "charts are drawn of the last hour, and change" {
    mount_pool 1 2
    browser size 1280 900
    browser open "$PAGE"
    assert_equal "$(browser js "document.querySelectorAll('.chart svg').length")" 4
    local before
    before=$(browser js "[...document.querySelectorAll('.chart path')].map(p => p.getAttribute('d')).join()")
    assert_equal "$(browser js "[...document.querySelectorAll('.chart path')].every(p => p.getAttribute('d').startsWith('M'))")" true
    echo one >"$POOL/acquire"
    echo two >"$POOL/acquire"
    bash -c "echo three >$POOL/acquire" 3>&- &
    local waiter=$!
    [ "$(browser await 60 "document.body.innerText.includes('longest ')")" != null ]
    shows "Waiting: three"
    echo one >"$POOL/release"
    wait $waiter
    [ "$(browser await 60 "!document.body.innerText.includes('Waiting: three')")" != null ]
    [ "$(browser await 60 "[...document.querySelectorAll('.chart path')].map(p => p.getAttribute('d')).join() !== $before")" != null ]
    browser js "document.querySelectorAll('.chart svg')[2].getAttribute('aria-label')" | grep -q "at most 1"
}

@test "the screen of an agent shows, and nothing of it is markup" {
    mount_pool 1 1
    browser size 1280 900
    browser open "$PAGE"
    echo job >"$POOL/acquire"
    echo "PS1=; clear; echo '</script><script>document.title=\"obeyed\"</script><img src=x onerror=document.title=\"obeyed\"><b>bold</b> & done'" \
        >"$POOL/leases/job/prompt"
    [ "$(browser await 60 "document.querySelector('pre').textContent.includes('<b>bold</b> & done')")" != null ]
    assert_equal "$(browser js "document.querySelectorAll('img, pre *, b').length")" 0
    refute [ "$(browser js document.title)" = '"obeyed"' ]
    browser open "$PAGE" # as it comes, not as it is shown anew
    assert_equal "$(browser js "document.querySelector('pre').textContent.includes('<b>bold</b> & done')")" true
    refute [ "$(browser js document.title)" = '"obeyed"' ]
    is_well
}

@test "a page that frames it is told nothing, and it shows itself there" {
    mount_pool 1 1
    cat >"$DIR/spy.html" <<PAGE
<script>
let told = 0, frames = 0;
addEventListener('message', () => told++);
</script>
<iframe src="$PAGE?data=1" onload="frames++"></iframe><iframe src="$PAGE?-1" onload="frames++"></iframe>
<iframe src="$PAGE" onload="frames++"></iframe>
PAGE
    browser open "file://$DIR/spy.html"
    [ "$(browser await 60 "frames === 3")" != null ]
    assert_equal "$(browser js told)" 0
    # whoever can read it knows its key
    sed -i "s/data=1/$(sed -n 's/.*data-key="\([0-9a-f]*\)".*/\1/p' "$POOL/status.html")-1/" "$DIR/spy.html"
    browser open "file://$DIR/spy.html"
    [ "$(browser await 60 "frames === 3 && told === 1")" != null ]
}

@test "it is dark where the browser is" {
    mount_pool 1 1
    browser size 400 900
    browser open "$PAGE"
    local light dark sum="getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number).reduce((a, b) => a + b)"
    browser scheme light
    light=$(browser js "$sum")
    browser scheme dark
    dark=$(browser js "$sum")
    assert [ "$light" -gt 600 ]
    assert [ "$dark" -lt 150 ]
}

@test "it says so when the pool has gone, and still shows what it knew" {
    mount_pool 1 1
    browser size 1280 900
    browser open "$PAGE"
    shows agent-1
    kill "$DAEMON"
    [ "$(browser await 60 "document.body.innerText.includes('No answer since')")" != null ]
    shows agent-1
    await gone "$DAEMON"
}

@test "who needs a person comes first, the charts last, on a phone too" {
    mount_pool 3 3
    local width label top="document.querySelector" first
    first="[...document.querySelectorAll('article')].map(a => ({id: a.id, at: a.getBoundingClientRect()}))"
    first+=".sort((a, b) => a.at.top - b.at.top || a.at.left - b.at.left)[0].id"
    for label in busy asks; do echo $label >"$POOL/acquire"; done
    echo 'read -p "su""re? " answer' >"$POOL/leases/asks/prompt"
    await value_is "$POOL/leases/asks/activity" waiting
    local agent
    agent=$(readlink "$POOL/leases/asks")
    agent=${agent##*/}
    for width in 1280 400; do
        browser size $width 900
        browser open "$PAGE"
        shows "asks on $agent is waiting"
        shows "echo allow > $POOL/agents/$agent/answer"
        # what is asked is there with the next look at the agents
        [ "$(browser await 60 "document.body.innerText.includes('title sure?')")" != null ]
        is_well
        browser shot "$DIR/asks-$width.png"
        [ -z "${SHOTS:-}" ] || cp "$DIR/asks-$width.png" "$SHOTS"
        assert_equal "$(browser js "$first")" "\"$agent\""
        assert_equal "$(browser js "$top('#charts').getBoundingClientRect().top > $top('#agents').getBoundingClientRect().bottom")" true
        assert_equal "$(browser js "$top('#asking').getBoundingClientRect().bottom < innerHeight")" true
        assert_equal "$(browser js "$top('#asking a').getAttribute('href') === '#' + $top('article#$agent').id")" true
    done
    assert_equal "$(browser js document.title | cut -c1-4)" '"(1)'
    echo yes Enter >"$POOL/leases/asks/keys"
    [ "$(browser await 60 "!document.body.innerText.includes('Who needs a person')")" != null ]
}
