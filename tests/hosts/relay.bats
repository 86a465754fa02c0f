# agentpool-host: the files of a pool, served over a pair of pipes to whoever can run a command on its machine.

load ../mount/helper

load hosts_helper

setup() {
    common_setup
    JOB=$POOL/leases/job
}
teardown() { common_teardown; }

@test "an agent is leased, prompted, waited for and released, and its work is on the branch" {
    mount_pool 1 1
    over '
h.write("acquire", "job\n")
assert h.read("leases/job/lease") == "job\n"
h.write("leases/job/prompt", "echo by ha\"\"nd > made; echo do\"\"ne\n")
assert "done" in h.read("leases/job/response")
assert h.read("leases/job/wait") == "ready\n"
assert "+by hand" in h.read("leases/job/diff")
h.write("release", "job\n")'
    assert_equal "$(git -C "$REPO" show agentpool/job:made)" "by hand"
}

@test "what waits holds up nothing, and can be cancelled" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    over '
h.sleeps("job")
waits = [h.start("read", file=h.open("leases/job/wait"), size=100) for _ in range(20)]
assert h.read("leases/job/activity") == "busy\n"
for wait in waits[:10]:
    h.send({"op": "cancel", "of": wait})
for wait in waits[:10]:
    h.fails("EINTR", lambda: h.answer(wait))
assert h.read("leases/job/activity") == "busy\n"
h.write("leases/job/keys", "C-c\n")
for wait in waits[10:]:
    assert h.answer(wait)[1] == b"ready\n"'
}

@test "more than 1024 requests at once are refused, and the others go on" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    over '
h.sleeps("job")
files = [h.open("leases/job/wait") for _ in range(1024)]
waits = [h.start("read", file=file, size=100) for file in files]
for _ in range(10):
    h.fails("EAGAIN", lambda: h.list("."))
h.send({"op": "cancel", "of": waits.pop()})
while True:
    try:
        h.write("leases/job/keys", "C-c\n")
        break
    except OSError:
        pass
for wait in waits:
    assert h.answer(wait)[1] == b"ready\n"'
}

@test "a lease by handle ends with the connection" {
    mount_pool 1 1
    over '
file = h.open("acquire", "rw")
h.call("write", b"timeout=1m\n", file=file)
label = h.call("read", file=file, size=100)[1].decode().split()[-1]
assert h.read(f"leases/{label}/state") == "active\n"
assert h.read("stats/idle_agents") == "0\n"'
    await value_is "$POOL/stats/idle_agents" 1
}

@test "the end of the input ends what waits, and the host" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    echo 'sleep 1000' > "$JOB/prompt"
    over '
h.start("read", file=h.open("leases/job/wait"), size=100)
h.start("write", b"later\n", file=h.open("acquire", "w"))
while h.read("stats/waiting") != "1\n": time.sleep(0.02)'
    await value_is "$POOL/stats/waiting" 0
    refute contains "$POOL/status" later
}

@test "directories and links are shown, and nothing outside of the pool is reached" {
    mount_pool 1 1
    ln -s / "$DIR/root"
    over '
assert {"agents", "leases", "stats"} <= set(h.list("."))
assert h.list("agents") == ["agent-1"]
assert h.link("agents/agent-1/worktree").endswith("/worktrees/agent-1")
h.fails("ENOENT", lambda: h.open("agents/agent-2/state"))
for path in "..", "../root/etc/passwd", "/etc/passwd", "agents/../../root":
    h.fails("EXDEV", lambda: h.open(path))
h.fails("EXDEV", lambda: h.open("agents/agent-1/worktree/file-0"))
h.fails("EINVAL", lambda: h.link("acquire"))
h.fails("ENOTDIR", lambda: h.list("acquire"))
h.fails("ENOENT", lambda: h.open(""))'
}

@test "a request that the pool refuses is answered with its errno, and what is no request too" {
    mount_pool 1 1
    over '
h.fails("EINVAL", lambda: h.write("acquire", "no label: /\n"))
assert "label" in h.read("last_error")
h.fails("ENOSYS", lambda: h.call("fly"))
h.fails("EBADF", lambda: h.call("read", file=77, size=1))
h.fails("EBADF", lambda: h.call("write", b"x", file="1"))
h.fails("EBADF", lambda: h.call("close"))
h.fails("EINVAL", lambda: h.call("open", file=9, path="acquire", mode="x"))
file = h.open("stats/idle_agents")
h.fails("EINVAL", lambda: h.call("read", file=file, at=-1, size=1))
h.fails("EINVAL", lambda: h.call("read", file=file, size=(1 << 20) + 1))
h.fails("EBADF", lambda: h.call("write", b"x", file=file))
h.fails("EEXIST", lambda: h.call("open", file=file, path="status", mode="r"))
assert h.call("read", file=file, at=0, size=1 << 20)[1] == b"1\n"'
}

@test "what is no frame ends the connection with a sentence, and touches nothing" {
    mount_pool 1 1
    local bad
    for bad in 'b"GET / HTTP/1.1\r\n\r\n"' 'struct.pack(">II", 3, 0) + b"[1]\n"' 'struct.pack(">II", 2, 0) + b"{}\n"' 'struct.pack(">II", 2, 0) + b"{}x"' \
        'os.urandom(100)[:1] + b"\xff" * 100'; do
        run over "greet=False
h.call('hello', version=1)
h.process.stdin.write($bad)
h.process.stdin.flush()
assert h.process.wait(60) == 1"
        assert_success
        assert_output --partial "agentpool-host: "
    done
    run over 'greet=False
h.send({"id": 1, "op": "read"})
assert h.process.wait(60) == 1'
    assert_output --partial "no hello"
    run over 'greet=False
h.fails("EPROTONOSUPPORT", lambda: h.call("hello", version=2))
assert h.process.wait(60) == 1'
    assert_output --partial "version 2"
    run "$HOST" "$DIR"
    assert_failure 1
    assert_output --partial "is no mounted pool"
    value_is "$POOL/stats/idle_agents" 1
}

@test "a pool that is gone fails each request, and the host goes on to say so" {
    mount_pool 1 1
    over "
os.kill($DAEMON, 9)
while True: # the kernel tells whom it interrupts otherwise
    try:
        h.read('status')
    except OSError as error:
        if error.errno == 107: break # ENOTCONN
h.fails('ENOTCONN', lambda: h.list('.'))"
    DAEMON= # the shell has seen its end
    umount -l "$POOL"
    mount_again 1 1
}
