# permission=: which of a program's questions are answered by rule.

load helper

setup() {
    common_setup
    JOB=$POOL/leases/job
    LOG=$DIR/given
    PROFILE=$DIR/program.conf
    local kind
    cat >"$PROFILE" <<'END'
waiting = screen:1 ^Press a number$
busy = screen:1 ^working$
ready = screen:1 ^> .*|^>$
composer = ^>(.*)\s*\z
debounce = 50ms
option = allow_once ^(1)\. (Yes)$ => ${1}
option = allow_always ^(2)\. (Always)$ => ${1}
option = reject_once ^(3)\. (No)$ => ${1}
option = reject_always ^(4)\. (Never)$ => ${1}
END
    for kind in read edit execute other; do
        printf '%s\n' "question = $kind ^(?<title>May I $kind [^\n]*\?)\$" >>"$PROFILE"
    done
}
teardown() { common_teardown; }

pool_of_askers() { # [OPTION...]
    mount_pool 1 1 -o "program_profile=$PROFILE" "$@" -- python3 "$BATS_TEST_DIRNAME/asker.py" "$LOG"
}

askers_again() { # [OPTION...]
    mount_again 1 1 -o "program_profile=$PROFILE" "$@" -- python3 "$BATS_TEST_DIRNAME/asker.py" "$LOG"
}

lease() { # [WORD...]
    echo "job $*" >"$POOL/acquire"
    await value_is "$JOB/activity" ready
}

given() { # [LINE...]: what the program was given, from the first message on
    local IFS=$'\n'
    value_is "$LOG" "$*"
}

answers() { # FIELD...: of the events about answers, a line each
    local field fields=
    for field; do fields+=" \\(.$field)"; done
    jq -r "select(.event == \"answer\") | \"${fields# }\"" "$POOL/events"
}

n_answers_is() { # NUMBER
    [ "$(answers seq | wc -l)" = "$1" ]
}

asks() { # TITLE
    [ "$(cat "$JOB/activity")" = waiting ] && contains "$JOB/request" "title $1"
}

refused() { # PATH LINE SENTENCE
    run bash -c "echo '$2' > $1"
    assert_failure
    assert_output --partial "Invalid argument"
    assert contains "$POOL/last_error" "$3"
}

@test "without a word every question is a human's" {
    pool_of_askers
    assert_equal "$(cat "$POOL/config/permission")" ask
    lease
    assert contains "$JOB/owner" "permission ask"
    echo "read" >"$JOB/prompt"
    await asks "May I read it?"
    echo allow >"$JOB/answer"
    await value_is "$JOB/activity" ready
    given "read" "read 1"
    assert_equal "$(answers uid rule means)" "$(id -u) null allow_once" # people's answers have no rule
}

@test "permission=allow answers every question that a rule of the profile knows, once" {
    pool_of_askers
    lease permission=allow
    assert contains "$JOB/owner" "permission allow"
    echo "read edit execute other" >"$JOB/prompt"
    await given "read edit execute other" "read 1" "edit 1" "execute 1" "other 1"
    await value_is "$JOB/activity" ready
    await n_answers_is 4
    assert_equal "$(answers lease agent uid rule kind option means title | head -n 2)" \
        "job agent-1 $(id -u) permission=allow read 1 allow_once May I read it?
job agent-1 $(id -u) permission=allow edit 1 allow_once May I edit it?"
    assert_equal "$(jq -r 'select(.event == "answer") | .request' "$POOL/events" | grep -c .)" 4
    # activity has not said waiting meanwhile
    assert_equal "$(jq -r 'select(.event == "activity" and .to == "waiting") | .to' "$POOL/events")" ""
    # nothing is told of more than what was answered
    echo "what" >"$JOB/prompt"
    await asks "Press a number"
    echo "1" >"$JOB/keys"
    await given "read edit execute other" "read 1" "edit 1" "execute 1" "other 1" what "what 1"
    assert n_answers_is 4
}

@test "permission=allow never takes an option that is for always" {
    pool_of_askers
    lease permission=allow
    echo "read/always" >"$JOB/prompt"
    await asks "May I read it?"
    assert_equal "$(sed 1,3d "$JOB/request")" $'2 allow_always Always\n3 reject_once No'
    echo always >"$JOB/answer"
    await value_is "$JOB/activity" ready
    given "read/always" "read 2"
    assert_equal "$(answers uid rule option)" "$(id -u) null 2"
}

@test "permission=reject rejects once, or for always where there is no other" {
    pool_of_askers
    lease permission=reject
    echo "edit execute/never" >"$JOB/prompt"
    await given "edit execute/never" "edit 3" "execute 4"
    await value_is "$JOB/activity" ready
    await n_answers_is 2
    assert_equal "$(answers rule kind means)" "permission=reject edit reject_once
permission=reject execute reject_always"
}

@test "permission=allow:read lets reads through, and asks for the rest" {
    pool_of_askers
    lease permission=allow:read
    assert contains "$JOB/owner" "permission allow:read"
    assert_equal "$(jq -r '.agents[0].lease.permission' "$POOL/status.json")" allow:read
    echo "read:a edit read:b execute" >"$JOB/prompt"
    await asks "May I edit it?"
    given "read:a edit read:b execute" "read:a 1"
    echo reject >"$JOB/answer"
    await asks "May I execute it?"
    given "read:a edit read:b execute" "read:a 1" "edit 3" "read:b 1"
    echo allow >"$JOB/answer"
    await value_is "$JOB/activity" ready
    await n_answers_is 4
    assert_equal "$(answers rule kind means)" "permission=allow:read read allow_once
null edit reject_once
permission=allow:read read allow_once
null execute allow_once"
}

@test "ten questions in a row are each answered once, and the same one again later" {
    pool_of_askers
    lease permission=allow:read
    local expected=("read:0 read:1 read:2 read:3 read:4 read:5 read:6 read:7 read:8 read:9") i
    echo "${expected[0]}" >"$JOB/prompt"
    for i in 0 1 2 3 4 5 6 7 8 9; do expected+=("read:$i 1"); done
    await given "${expected[@]}"
    await value_is "$JOB/activity" ready
    expected+=("read until read until read" "read 1")
    echo "read until read until read" >"$JOB/prompt"
    for i in 11 12; do
        await given "${expected[@]}"
        await n_answers_is $i # now that it is seen to be taken
        touch "$LOG.go"
        expected+=("read 1")
    done
    await given "${expected[@]}"
    await value_is "$JOB/activity" ready
    await n_answers_is 13
    assert_equal "$(jq -r 'select(.event == "answer") | .means' "$POOL/events" | sort -u)" allow_once
}

@test "config/permission is the word of leases without one, and counts at once" {
    pool_of_askers -o permission=reject
    lease
    assert contains "$JOB/owner" "permission reject"
    echo "edit" >"$JOB/prompt"
    await given edit "edit 3"
    echo ask >"$POOL/config/permission"
    assert contains "$JOB/owner" "permission ask"
    echo "edit" >"$JOB/prompt"
    await asks "May I edit it?"
    echo allow:read >"$POOL/config/permission" # the question that stands is none of those
    assert contains "$JOB/owner" "permission allow:read"
    await asks "May I edit it?"
    echo allow:edit,read >"$POOL/config/permission" # now it is
    assert_equal "$(cat "$POOL/config/permission")" allow:read,edit
    await given edit "edit 3" edit "edit 1"
    await value_is "$JOB/activity" ready
    await n_answers_is 2
    assert_equal "$(answers rule means)" "permission=reject reject_once
permission=allow:read,edit allow_once"
}

@test "the word of acquire goes before config/permission, whatever becomes of that" {
    pool_of_askers -o 'permission=allow:edit\,read'
    assert_equal "$(cat "$POOL/config/permission")" allow:read,edit
    lease permission=ask
    echo "read" >"$JOB/prompt"
    await asks "May I read it?"
    echo reject >"$POOL/config/permission"
    assert contains "$JOB/owner" "permission ask"
    echo allow >"$POOL/config/permission"
    assert asks "May I read it?"
    echo allow >"$JOB/answer"
    await given read "read 1"
    assert_equal "$(answers rule)" null
}

@test "another word is EINVAL, and the sentence says which there are" {
    local kinds="none of: read edit delete move search execute think fetch switch_mode other" word
    pool_of_askers
    for word in allow:frob allow: "allow:read," allow:read,,edit; do
        refused "$POOL/acquire" "job permission=$word" "permission: '"
        assert contains "$POOL/last_error" "$kinds"
        refused "$POOL/config/permission" "$word" "$kinds"
    done
    for word in yes "" reject:read; do
        refused "$POOL/acquire" "job permission=$word" "permission: '$word' is none of: ask allow reject allow:KIND,KIND"
    done
    refused "$POOL/config/permission" yes "permission: 'yes' is none of: ask allow reject allow:KIND,KIND"
    assert_equal "$(cat "$POOL/config/permission")" ask
    assert [ ! -e "$JOB" ]
    unmount_pool
    run "$AGENTPOOLFS" -f -o "state_dir=$STATE,permission=allow:frob" "$REPO" "$POOL"
    assert_failure
    assert_output --partial "permission: 'frob' is $kinds"
}

@test "the policy is the lease's: the next one of the agent has its own" {
    pool_of_askers -o on_release=keep
    lease permission=allow
    echo "read" >"$JOB/prompt"
    await given read "read 1"
    echo job >"$POOL/release"
    await value_is "$POOL/stats/idle_agents" 1
    lease
    assert contains "$JOB/owner" "permission ask"
    echo "read" >"$JOB/prompt"
    await asks "May I read it?"
    given read "read 1" read
    echo job >"$POOL/release"
    await value_is "$POOL/stats/idle_agents" 1
    # what was asked in a lease before is no question of the next one
    echo "job permission=allow" >"$POOL/acquire"
    assert contains "$JOB/owner" "permission allow"
    await asks "May I read it?"
    echo reject >"$JOB/answer"
    await given read "read 1" read "read 3"
    await value_is "$JOB/activity" ready
    echo "edit" >"$JOB/prompt"
    await given read "read 1" read "read 3" edit "edit 1"
}

@test "what is asked before a lease is a human's" {
    ASKS=other pool_of_askers -o permission=allow
    await value_is "$POOL/agents/agent-1/activity" waiting
    echo job >"$POOL/acquire"
    assert contains "$JOB/owner" "permission allow"
    await asks "May I other it?"
    assert [ ! -e "$LOG" ]
    echo allow >"$JOB/answer"
    await given "other 1"
    await value_is "$JOB/activity" ready
    echo "other" >"$JOB/prompt"
    await given "other 1" other "other 1"
    await n_answers_is 2
    assert_equal "$(answers rule)" $'null\npermission=allow'
}

@test "an answer that the program does not take is typed once" {
    pool_of_askers
    lease permission=allow
    echo "read/deaf read:b" >"$JOB/prompt"
    await n_answers_is 1
    await asks "May I read it?" # it asks the same still
    touch "$LOG.hears"
    await given "read/deaf read:b" "read 1" "read:b 1"
    await value_is "$JOB/activity" ready
    await n_answers_is 2
    given "read/deaf read:b" "read 1" "read:b 1"
}

after_a_crash() { # [OPTION...]: the policy is still the lease's
    pool_of_askers "$@"
    lease permission=allow:read
    echo "read:a edit" >"$JOB/prompt"
    await asks "May I edit it?"
    crash_pool
    askers_again "$@"
    await asks "May I edit it?"
    assert contains "$JOB/owner" "permission allow:read"
    echo allow >"$JOB/answer"
    await value_is "$JOB/activity" ready
    echo "read:b execute" >"$JOB/prompt"
    await asks "May I execute it?"
    given "read:a edit" "read:a 1" "edit 1" "read:b execute" "read:b 1"
    echo reject >"$JOB/answer"
    await value_is "$JOB/activity" ready
}

@test "after kill -9 of the daemon the policy holds" {
    after_a_crash
}

@test "after kill -9 of the daemon of a pool that persists the policy holds, and over an unmount" {
    after_a_crash -o persist=yes
    unmount_pool
    askers_again -o persist=yes
    await value_is "$JOB/activity" ready
    assert contains "$JOB/owner" "permission allow:read"
    echo "read:c edit" >"$JOB/prompt"
    await asks "May I edit it?"
    assert contains "$LOG" "read:c 1"
    echo job >"$POOL/release"
    echo "allow:execute" >"$POOL/config/permission" # a lease without a word of its own has the configuration's again
    await value_is "$POOL/stats/idle_agents" 1
    echo job >"$POOL/acquire"
    crash_pool
    askers_again # without persist=yes: its end is the end of the pool
    assert contains "$JOB/owner" "permission allow:execute"
    echo reject >"$POOL/config/permission"
    assert contains "$JOB/owner" "permission reject"
}

@test "cancel is no answer where the profile has no keys for it" {
    echo "cancel =" >>"$PROFILE"
    pool_of_askers
    lease
    echo "read what" >"$JOB/prompt"
    await asks "May I read it?"
    refused "$JOB/answer" cancel "'cancel' is no answer to 'May I read it?': there are 1 2 3"
    refute contains "$POOL/last_error" "2 3 cancel"
    echo allow >"$JOB/answer"
    await asks "Press a number"
    refused "$JOB/answer" allow "'allow' is no answer to 'Press a number': there are none"
    echo 1 >"$JOB/keys"
    await value_is "$JOB/activity" ready
}
