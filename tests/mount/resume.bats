# Conversations that come back: of a label that is leased again, of a program that starts again under its lease.

load helper

setup() {
    common_setup
    JOB=$POOL/leases/job
    PROFILE=$DIR/conversing.conf
    mkdir "$HOME/told"
    cat >"$PROFILE" <<'END'
busy = screen:1 ^working$
ready = screen:1 ^> .*|^>$
composer = ^>(.*)\s*\z
abandon = C-u
debounce = 50ms
clear = /clear
quit = /quit
answer = (?s).*^(heard [^\n]*)\n
resume = --resume
resume = ${CONVERSATION}
conversation = ${HOME}/told/* \A[^\n]*\n\{"id": "(?<id>[^"]*)", "cwd": "(?<cwd>[^"]*)"\}
END
}
teardown() { common_teardown; }

begins() { # the pool chooses the ids of conversations
    printf 'new_conversation = --begin\nnew_conversation = ${CONVERSATION}\n' >>"$PROFILE"
}

keeps() { # the profile knows where conversations lie
    # shellcheck disable=SC2016
    echo 'conversation_file = ${HOME}/told/${CONVERSATION}' >>"$PROFILE"
}

mount_conversing() { # [OPTION...]
    mount_pool 1 1 -o "program_profile=$PROFILE" "$@" -- "$BATS_TEST_DIRNAME/conversing.py"
}

mount_conversing_again() { # [OPTION...]
    mount_again 1 1 -o "program_profile=$PROFILE" "$@" -- "$BATS_TEST_DIRNAME/conversing.py"
}

tell() { # LABEL MESSAGE
    timeout 60 cat "$POOL/leases/$1/wait" >/dev/null
    echo "$2" >"$POOL/leases/$1/prompt"
    timeout 60 cat "$POOL/leases/$1/response"
}

lease() { # LABEL
    echo "$1 timeout=60" >"$POOL/acquire"
}

release() { # LABEL
    echo "$1" >"$POOL/release"
}

event() { # KIND [TEXT]
    grep "\"event\": *\"$1\"" "$POOL/events" | grep -qF -- "${2:-}"
}

restart() { # LABEL
    echo restart >"$POOL/leases/$1/ctl"
}

n_starts() { # NUMBER
    [ "$(wc -l <"$HOME/starts")" = "$1" ]
}

two_in_turn() {
    lease job
    assert_equal "$(tell job one)" "heard one"
    release job
    lease other
    assert_equal "$(tell other two)" "heard two"
    release other
    lease job
    assert_equal "$(tell job three)" "heard one, three"
    release job
    lease other
    assert_equal "$(tell other four)" "heard two, four"
    release other
}

@test "two labels that one agent serves in turn have each their own conversation, of the program's choice" {
    mount_conversing
    two_in_turn
}

@test "two labels that one agent serves in turn have each their own conversation, of the pool's choice" {
    begins
    keeps
    mount_conversing
    two_in_turn
    assert event resumed job
    refute event conversation_gone
}

@test "two labels that one agent serves in turn have each their own conversation, known by a log alone" {
    sed -i '/^conversation = /d' "$PROFILE"
    echo "set = LOG=$DIR/conversations.log" >>"$PROFILE"
    echo "conversation_log = $DIR/conver*.log "'^time=(?<time>\S+) created (?<id>\S+) in (?<cwd>\S+)$' >>"$PROFILE"
    echo "time=2020-01-01T00:00:00.000Z created before in $STATE/worktrees/agent-1" >"$DIR/conversations.log"
    echo "time=2090-01-01T00:00:00.000Z created elsewhere in $STATE/worktrees/agent-2" >>"$DIR/conversations.log"
    mount_conversing
    two_in_turn
    refute event conversation_gone
}

@test "the same where programs are started anew for every lease" {
    begins
    mount_conversing -o on_release=restart
    two_in_turn
}

@test "a label that was leased for nothing has no conversation, and costs no start" {
    begins
    keeps
    mount_conversing
    lease job
    timeout 60 cat "$JOB/wait"
    release job
    lease job
    timeout 60 cat "$JOB/wait"
    n_starts 1
    refute event conversation_gone
}

@test "a program that is started again goes on with its lease's conversation" {
    mount_conversing
    lease job
    assert_equal "$(tell job one)" "heard one"
    local conversation
    conversation=$(cat "$JOB/conversation")
    assert [ -e "$HOME/told/$conversation" ]
    restart job
    await n_starts 2
    assert_equal "$(tell job two)" "heard one, two"
    assert_equal "$(cat "$JOB/conversation")" "$conversation"
    kill -9 "$(program_of "$JOB")"
    await value_is "$JOB/activity" exited
    restart job
    assert_equal "$(tell job three)" "heard one, two, three"
}

@test "a program that takes its conversation up gets no prompt before it has settled" {
    echo 'settle = 1s' >>"$PROFILE"
    mount_conversing
    lease job
    assert_equal "$(tell job one)" "heard one"
    restart job
    echo two >"$JOB/prompt"
    await contains "$JOB/why" 'takes up its conversation'
    assert_equal "$(cat "$JOB/response")" "heard one, two"
}

@test "a prompt waits until the screen shows the conversation that a program takes up, and no longer" {
    printf 'settle = 1h\nresumed = ^resumed$\n' >>"$PROFILE"
    mount_conversing
    lease job
    assert_equal "$(tell job one)" "heard one"
    touch "$HOME/slow"
    restart job
    echo two >"$JOB/prompt"
    await contains "$JOB/why" 'takes up its conversation'
    rm "$HOME/slow"
    assert_equal "$(timeout 60 cat "$JOB/response")" "heard one, two"
}

@test "a lease goes on with its conversation when the daemon and all processes were killed" {
    begins
    mount_conversing -o persist=yes
    lease other
    assert_equal "$(tell other nothing)" "heard nothing"
    release other
    lease job
    assert_equal "$(tell job one)" "heard one"
    crash_pool
    local pid
    while read -r pid _; do
        if [ -n "$pid" ]; then kill -9 "$pid" 2>/dev/null || true; fi
    done < <(left_processes)
    await nothing_runs
    umount -l "$POOL"
    mount_conversing_again -o persist=yes
    await value_is "$JOB/activity" exited
    restart job
    assert_equal "$(tell job two)" "heard one, two"
    unmount_pool
    mount_conversing_again # and without it, all ends as ever
}

@test "a daemon that was killed loses no conversation" {
    mount_conversing
    lease job
    assert_equal "$(tell job one)" "heard one"
    crash_pool
    mount_conversing_again
    release job
    lease other
    assert_equal "$(tell other two)" "heard two"
    release other
    lease job
    assert_equal "$(tell job three)" "heard one, three"
}

@test "reset forgets: neither a start nor a lease goes on with what was before" {
    for choice in program pool; do
        rm -f "$HOME/starts"
        if [ $choice = pool ]; then begins; fi
        mount_conversing
        lease job
        assert_equal "$(tell job one)" "heard one"
        echo reset >"$JOB/ctl"
        await value_is "$JOB/conversation" ""
        restart job
        await n_starts 2
        assert_equal "$(tell job two)" "heard two"
        echo reset >"$JOB/ctl"
        await value_is "$JOB/conversation" ""
        release job
        lease job
        assert_equal "$(tell job three)" "heard three"
        echo reset >"$JOB/ctl"
        await value_is "$JOB/conversation" ""
        assert_equal "$(tell job four)" "heard four"
        release job
        lease job
        assert_equal "$(tell job five)" "heard four, five" # what came behind is the label's
        unmount_pool
        rm -r "$STATE"
    done
}

@test "resume=no begins a new conversation, until it is yes" {
    begins
    mount_conversing -o resume=no
    lease job
    assert_equal "$(tell job one)" "heard one"
    restart job
    await n_starts 2
    assert_equal "$(tell job two)" "heard two"
    release job
    lease job
    assert_equal "$(tell job three)" "heard three"
    release job
    echo yes >"$POOL/config/resume"
    lease job
    assert_equal "$(tell job four)" "heard three, four"
}

@test "a program that holds its conversation is started anew after a lease in which something was said" {
    echo 'holds_conversation = yes' >>"$PROFILE"
    mount_conversing
    lease job
    timeout 60 cat "$JOB/wait"
    release job
    lease job
    assert_equal "$(tell job one)" "heard one"
    n_starts 1
    release job
    lease other
    assert_equal "$(tell other two)" "heard two"
    n_starts 2
}

@test "a conversation that is gone breaks no lease: the program begins anew, and an event says so" {
    for known in no yes; do
        if [ $known = yes ]; then keeps; fi
        mount_conversing
        lease job
        assert_equal "$(tell job one)" "heard one"
        release job
        rm "$HOME"/told/*
        lease job
        assert_equal "$(tell job two)" "heard two"
        assert event conversation_gone '"lease":"job"'
        rm "$HOME"/told/*
        restart job
        assert_equal "$(tell job three)" "heard three"
        release job
        lease job
        assert_equal "$(tell job four)" "heard three, four"
        unmount_pool
        rm -r "$STATE"
    done
}

@test "a prompt that was given before the conversation proved to be gone is given to the program that begins anew" {
    mount_conversing
    lease job
    assert_equal "$(tell job one)" "heard one"
    release job
    rm "$HOME"/told/*
    lease job
    echo two >"$JOB/prompt"
    assert_equal "$(timeout 60 cat "$JOB/response")" "heard two"
}

@test "a program that does not start keeps its label's conversation" {
    mount_conversing
    lease job
    assert_equal "$(tell job one)" "heard one"
    touch "$HOME/broken"
    restart job
    await value_is "$JOB/activity" exited
    rm "$HOME/broken"
    restart job
    assert_equal "$(tell job two)" "heard one, two"
}

@test "an id that could be anything but an id is not taken" {
    local id
    for id in --help '-x' '../../x' 'a b' '$(touch x)' "$(printf 'a%.0s' {1..128})"; do
        export SAYS_ID=$id
        mount_conversing
        lease job
        assert_equal "$(tell job one)" "heard one"
        assert_equal "$(cat "$JOB/conversation")" ""
        restart job
        assert_equal "$(tell job two)" "heard two"
        unmount_pool
        refute grep -qF -- "$id" "$HOME/starts"
    done
}

@test "a file that says another worktree is no conversation of this agent's, nor is one from before" {
    mount_conversing
    lease job
    timeout 60 cat "$JOB/wait"
    echo '{"id": "stranger", "cwd": "/elsewhere"}' >"$HOME/told/stranger"
    mkfifo "$HOME/told/pipe"
    ln -s "$HOME/told/stranger" "$HOME/told/link"
    assert_equal "$(tell job one)" "heard one"
    release job
    lease other
    timeout 60 cat "$POOL/leases/other/wait"
    touch "$HOME"/told/*-*
    assert_equal "$(tell other two)" "heard two"
    restart other
    assert_equal "$(tell other three)" "heard two, three"
}

@test "a conversation that the program has begun beside its own is not taken for that" {
    mount_conversing
    lease job
    timeout 60 cat "$JOB/wait"
    assert_equal "$(tell job one)" "heard one"
    restart job # known, and goes on
    assert_equal "$(tell job two)" "heard one, two"
    echo "{\"id\": \"beside\", \"cwd\": \"$(readlink "$JOB/worktree")\"}" >"$HOME/told/beside"
    assert_equal "$(tell job three)" "heard one, two, three"
    restart job
    assert_equal "$(tell job four)" "heard one, two, three, four"
    echo 'follow_conversation = yes' >>"$PROFILE"
    unmount_pool
    mount_conversing
    lease job
    assert_equal "$(tell job five)" "heard one, two, three, four, five"
    echo "{\"id\": \"beside\", \"cwd\": \"$(readlink "$JOB/worktree")\"}" >"$HOME/told/beside-2"
    mv "$HOME/told/beside-2" "$HOME/told/beside"
    tell job six
    await value_is "$JOB/conversation" beside
}

@test "with on_release=keep what the program knows goes over to the next lease" {
    begins
    mount_conversing -o on_release=keep
    lease job
    assert_equal "$(tell job one)" "heard one"
    release job
    lease other
    assert_equal "$(tell other two)" "heard one, two"
    release other
    lease job
    assert_equal "$(tell job three)" "heard one, two, three"
    n_starts 1
}

@test "who chooses a conversation on the command line is left alone" {
    begins
    echo 'own_conversation = --continue' >>"$PROFILE"
    mount_pool 1 1 -o "program_profile=$PROFILE" -- "$BATS_TEST_DIRNAME/conversing.py" --continue
    lease job
    assert_equal "$(tell job one)" "heard one"
    restart job
    assert_equal "$(tell job two)" "heard two"
    refute grep -q -e --begin -e --resume "$HOME/starts"
}

# Leases LABEL so that the agent that had it is taken; sets TAKEN to the label that has that agent.
lease_elsewhere() { # LABEL WORKTREE
    lease a
    lease b
    local here=b
    TAKEN=a
    if [ "$(readlink "$POOL/leases/a/worktree")" != "$2" ]; then TAKEN=b here=a; fi
    release $here
    lease "$1"
    assert [ "$(readlink "$POOL/leases/$1/worktree")" != "$2" ]
}

@test "where conversations stay in their worktree, a label has a new one in another" {
    echo 'conversation_stays = yes' >>"$PROFILE"
    mount_pool 2 2 -o "program_profile=$PROFILE" -- "$BATS_TEST_DIRNAME/conversing.py"
    lease job
    assert_equal "$(tell job one)" "heard one"
    local first
    first=$(readlink "$JOB/worktree")
    release job
    await value_is "$POOL/stats/idle_agents" 2
    lease_elsewhere job "$first"
    assert_equal "$(tell job two)" "heard two"
    assert event conversation_gone worktree
    refute grep -q resume "$HOME/starts"
    restart job
    assert_equal "$(tell job three)" "heard two, three"
}

@test "the file of a conversation is brought to the worktree where it goes on" {
    begins
    # shellcheck disable=SC2016
    printf '%s\n' 'conversation_file = ${HOME}/told/${WORKTREE_DASHED}/${CONVERSATION}' \
        'conversation_from = ${HOME}/told/*/${CONVERSATION}' 'set = DASHED=${WORKTREE_DASHED}' >>"$PROFILE"
    sed 's,expanduser("~/told"),expanduser("~/told/" + os.environ["DASHED"]),' \
        "$BATS_TEST_DIRNAME/conversing.py" >"$DIR/conversing.py"
    chmod +x "$DIR/conversing.py"
    mount_pool 2 2 -o "program_profile=$PROFILE" -- "$DIR/conversing.py"
    lease job
    assert_equal "$(tell job one)" "heard one"
    local worktree said="heard one" message
    for message in two three; do # there and back: not what the first agent's file knew
        worktree=$(readlink "$JOB/worktree")
        release job
        await value_is "$POOL/stats/idle_agents" 2
        lease_elsewhere job "$worktree"
        said+=", $message"
        assert_equal "$(tell job $message)" "$said"
        release $TAKEN
    done
}
