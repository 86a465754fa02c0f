# What tests of other machines share: a way to run statements over a carrier, which is the words before a command.

HOST=${AGENTPOOL_HOST:-$(dirname "$AGENTPOOLFS")/../core/host/agentpool-host}
CARRIER=()

# Runs statements with h, which speaks to the host of the pool.
over() { # PYTHON
    timeout 60 python3 "$BATS_TEST_DIRNAME/host.py" "$1" "${CARRIER[@]}" "$HOST" "$POOL"
}

# What a carrier has to carry, whatever it is.
carries() {
    mount_pool 1 1
    over '
h.write("acquire", "job\n")
h.write("leases/job/prompt", "printf \"\\001\\377\\n\" > made; echo do\"\"ne\n")
assert "done" in h.read("leases/job/response")
file = h.open("leases/job/wait")
h.sleeps("job")
wait = h.start("read", file=file, size=100)
assert h.read("leases/job/activity") == "busy\n"
h.send({"op": "cancel", "of": wait})
h.fails("EINTR", lambda: h.answer(wait))
h.write("leases/job/keys", "C-c\n")
assert h.read("leases/job/wait") == "ready\n"
h.write("leases/job/prompt", "head -c 300000 /dev/zero | tr \"\\\\0\" x; echo; echo :; : " + "y" * 3000 + "\n")
assert h.read("leases/job/wait") == "ready\n"
assert h.read("leases/job/output").count("x") >= 300000
h.write("release", "job\n")'
    assert_equal "$(git -C "$REPO" show agentpool/job:made | od -An -c | tr -d ' ')" '001377\n'
}

# Leaves a connection in the background that holds the only agent by handle, and has one who waits for another.
stays_connected() {
    over 'greet=False
h.call("hello", version=1)
h.call("write", b"\n", file=h.open("acquire", "rw"))
h.start("write", b"later\n", file=h.open("acquire", "w"))
h.start("read", file=h.open("agents/agent-1/wait"), size=100)
print("there", flush=True)
h.process.wait(60)' > "$DIR/said" 3>&- &
    await contains "$DIR/said" there
    await value_is "$POOL/stats/waiting" 1
    await value_is "$POOL/stats/idle_agents" 0
}

# What a round trip costs beside one without a carrier; printed, and no gate.
prints_latency() { # NAME
    local here there CARRIED=("${CARRIER[@]}") measure='
h.read("status")
times = []
for _ in range(100):
    begin = time.monotonic()
    h.list(".")
    times.append(time.monotonic() - begin)
print(round(sorted(times)[50] * 1e6))'
    there=$(over "$measure")
    CARRIER=()
    here=$(over "$measure")
    CARRIER=("${CARRIED[@]}")
    echo "# a round trip: $here us here, $there us by $1" >&3
}
