# The tmux server and its socket: removed, replaced, standing still, under a daemon that lives and under one that died.

load ../mount/helper

setup() {
    common_setup
    SOCKET=$STATE/tmux.sock
    OTHER=$DIR/other.sock
}

teardown() {
    tmux -S "$OTHER" kill-server 2>/dev/null || true
    common_teardown
}

server() {
    tmux -S "$SOCKET" display-message -p '#{pid}'
}

leads_to() { # PID
    [ "$(server)" = "$1" ]
}

# What may become of a socket: gone, a plain file, that of somebody else's server.
spoil_socket() { # HOW
    rm "$SOCKET"
    case $1 in
    file) echo nothing > "$SOCKET" ;;
    other)
        tmux -S "$OTHER" -f /dev/null new-session -d 'exec sleep 1000'
        ln "$OTHER" "$SOCKET"
        ;;
    esac
}

works() { # the agent of the lease answers
    echo 'echo he""re' > "$POOL/leases/job/prompt"
    assert_equal "$(timeout 60 cat "$POOL/leases/job/response")" here
}

@test "a socket that is spoilt under a living daemon is made anew, and said" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    local pid how
    pid=$(server)
    for how in gone file other; do
        spoil_socket $how
        echo maintain > "$POOL/ctl"
        await leads_to "$pid"
        works
    done
    assert_equal "$(grep -c '"event":"socket_gone"' "$POOL/events")" 3
    assert_equal "$(tmux -S "$OTHER" list-sessions | wc -l)" 1 # which is nobody of ours
}

@test "the next daemon finds agents and leases whatever became of the socket" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    local program server how
    program=$(program_of "$POOL/leases/job") server=$(server)
    for how in gone file other; do
        spoil_socket $how
        crash_pool
        mount_again 1 1
        assert_equal "$(program_of "$POOL/leases/job")" "$program"
        await leads_to "$server"
        works
    done
}

@test "a daemon that ends leaves no server and no program, whatever became of the socket" {
    local how program server
    for how in gone file other; do
        mount_pool 1 1
        program=$(program_of "$POOL"/agents/agent-*)
        server=$(server)
        spoil_socket $how
        unmount_pool
        await gone "$program"
        await gone "$server"
    done
    assert_equal "$(tmux -S "$OTHER" list-sessions | wc -l)" 1
}

@test "a server that stands still ends with its daemon" {
    mount_pool 1 1
    local program server
    program=$(program_of "$POOL/agents/agent-1") server=$(server)
    kill -STOP "$server"
    unmount_pool
    await gone "$program"
    await gone "$server"
}

@test "a server that stands still and has no socket keeps the next daemon out, until it goes on" {
    LOG_EXPECTED=yes
    mount_pool 1 1
    echo job > "$POOL/acquire"
    local program server
    program=$(program_of "$POOL/leases/job") server=$(server)
    crash_pool
    kill -STOP "$server"
    rm "$SOCKET"
    start_pool 1 1
    await gone "$DAEMON"
    assert contains "$DIR/log" "process $server"
    kill -CONT "$server"
    mount_again 1 1
    assert_equal "$(program_of "$POOL/leases/job")" "$program"
    works
}

@test "while a server stands still leases end, their time runs, and who waits is answered; then all goes on" {
    mount_pool 3 3 -o spawn_timeout=20s
    echo job > "$POOL/acquire"
    echo "brief ttl=3s" > "$POOL/acquire"
    local server line i program
    server=$(server)
    program=$(program_of "$POOL/leases/job")
    kill -STOP "$server"
    line=$(head -c 3900 /dev/zero | tr '\0' a)
    for i in $(seq 40); do # more than the way to it holds
        echo "$line" > "$POOL/leases/job/keys" || break
    done
    await test ! -e "$POOL/leases/brief"
    exec 5<>"$POOL/acquire"
    echo "handle timeout=20s" >&5
    assert_equal "$(timeout 60 head -1 <&5 | cut -d' ' -f2)" handle
    exec 5>&-
    await test ! -e "$POOL/leases/handle"
    run timeout 60 bash -c 'echo "late timeout=1s" > "$1"' _ "$POOL/acquire"
    refute [ "$status" -eq 124 ]
    run timeout 60 cat "$POOL/leases/job/screen"
    assert_failure
    assert_output --partial "timed out"
    kill -CONT "$server"
    echo restart > "$POOL/leases/job/ctl"
    await works_again
}

works_again() {
    echo 'echo he""re' > "$POOL/leases/job/prompt" && [ "$(timeout 60 cat "$POOL/leases/job/response")" = here ]
}

@test "programs of a server that was killed end with it, those whose shims stand still too" {
    mount_pool 2 2
    local pids shims server
    pids=$(program_of "$POOL/agents/agent-1"; program_of "$POOL/agents/agent-2")
    shims=$(ps -o ppid= -p "$(paste -sd, <<<"$pids")")
    server=$(server)
    crash_pool
    kill -STOP $shims
    kill -9 "$server"
    mount_pool 2 2
    for pid in $pids; do await gone "$pid"; done
}
