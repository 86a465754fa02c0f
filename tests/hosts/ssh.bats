# agentpool-host over ssh: a real sshd on loopback, with keys and a port of its own.

load ../mount/helper
load hosts_helper

SSHD=$(PATH=$PATH:/usr/sbin:/sbin type -P sshd) || true

setup() {
    [ -n "$SSHD" ] && command -v ssh-keygen > /dev/null || skip "openssh-server is not installed"
    common_setup
    begin_sshd
    CARRIER=(ssh -F "$DIR/ssh_config" far --)
}

teardown() {
    [ -n "${SSHD:-}" ] || return 0
    ssh -F "$DIR/ssh_config" -O exit far 2> /dev/null || true
    if [ -n "${SSHD_PID:-}" ]; then kill "$SSHD_PID" && wait "$SSHD_PID" || true; fi 2> /dev/null
    common_teardown
}

begin_sshd() {
    mkdir "$DIR/ssh"
    ssh-keygen -q -t ed25519 -N '' -f "$DIR/ssh/host"
    ssh-keygen -q -t ed25519 -N '' -f "$DIR/ssh/user"
    cp "$DIR/ssh/user.pub" "$DIR/ssh/allowed"
    if is_root; then mkdir -p /run/sshd; fi
    PORT=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    cat > "$DIR/ssh/sshd_config" << END
Port $PORT
ListenAddress 127.0.0.1
HostKey $DIR/ssh/host
AuthorizedKeysFile $DIR/ssh/allowed
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
AcceptEnv *
END
    cat > "$DIR/ssh_config" << END
Host far
    HostName 127.0.0.1
    Port $PORT
    IdentityFile $DIR/ssh/user
    IdentitiesOnly yes
    UserKnownHostsFile $DIR/ssh/known
    StrictHostKeyChecking accept-new
    BatchMode yes
    ControlMaster auto
    ControlPath $DIR/ssh/control
    ControlPersist yes
    LogLevel ERROR
END
    "$SSHD" -D -e -f "$DIR/ssh/sshd_config" 2> "$DIR/ssh/log" 3>&- &
    SSHD_PID=$!
    await ssh -F "$DIR/ssh_config" far true
}

logins() {
    grep -c 'Accepted publickey' "$DIR/ssh/log"
}

@test "a pool is used over ssh, by one login for all connections" {
    carries
    assert_equal "$(logins)" 1
    prints_latency ssh
    assert_equal "$(logins)" 1
}

@test "a connection of ssh that is cut ends what waits for it, and the host" {
    mount_pool 1 1
    stays_connected
    ssh -F "$DIR/ssh_config" -O exit far
    await value_is "$POOL/stats/waiting" 0
    await value_is "$POOL/stats/idle_agents" 1
    await bash -c "! pgrep -f '[a]gentpool-host $POOL'"
}
