# What a user can pile up is bounded, and what is over a bound is refused at once.

load helper

setup() { common_setup; }
teardown() { common_teardown; }

# Writes prompts of COUNT times SIZE bytes to a paused agent, each through a handle of its own; HOW: `keep` them open.
# Prints how many were taken and the error of the first that was not.
write_prompts() { # COUNT SIZE HOW
    python3 - "$POOL" "$@" <<'PY'
import errno, os, sys
pool, count, size, how = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
handles = []
for n in range(count):
    fd = os.open(pool + "/leases/job/prompt", os.O_WRONLY)
    handles.append(fd)
    try:
        os.write(fd, b"x" * size)
    except OSError as error:
        print(n, errno.errorcode[error.errno])
        try:
            os.write(fd, b"x") # nothing of it is taken, whatever comes
        except OSError as error:
            assert error.errno == errno.EIO
        break
    if how != "keep":
        os.close(handles.pop())
else:
    print(count, "taken")
PY
}

paused_job() {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    echo pause > "$POOL/leases/job/ctl"
}

@test "the 65th prompt that is queued for an agent is EAGAIN" {
    paused_job
    run write_prompts 70 10 close
    assert_output "64 EAGAIN"
    assert_equal "$(cat "$POOL/last_error")" \
        "64 prompts of 640 bytes are queued for agent-1 already, and 0 of 0 are being written"
    await value_is "$POOL/leases/job/prompts" 64
    echo kill > "$POOL/leases/job/ctl"
}

@test "prompts over 8 MiB queued for an agent are EAGAIN" {
    paused_job
    run write_prompts 20 1000000 close
    assert_output "8 EAGAIN"
    await value_is "$POOL/leases/job/prompts" 8
    echo kill > "$POOL/leases/job/ctl"
}

@test "prompts that are being written count as those that are queued" {
    paused_job
    run write_prompts 1000 1000000 keep
    assert_output "8 EAGAIN"
    assert contains "$POOL/last_error" " of 8000000 are being written"
    echo kill > "$POOL/leases/job/ctl"
}

@test "65 prompts that are being written at once are EAGAIN" {
    paused_job
    run write_prompts 1000 10 keep
    assert_output "64 EAGAIN"
    echo kill > "$POOL/leases/job/ctl"
}

# bats test_tags=large
@test "prompts over 256 MiB that are being written in the mount are EAGAIN" {
    mount_pool 5 5
    echo 64M > "$POOL/config/max_prompt"
    for i in 1 2 3 4 5; do
        echo "job-$i" > "$POOL/acquire"
        echo pause > "$POOL/leases/job-$i/ctl"
    done
    run python3 - "$POOL" <<'PY'
import errno, os, sys
text = b"x" * (64 << 20)
def begin(n):
    fd = os.open(sys.argv[1] + "/leases/job-%d/prompt" % n, os.O_WRONLY)
    try:
        done = 0
        while done < len(text):
            done += os.write(fd, text[done:])
    except OSError as error:
        print(n, errno.errorcode[error.errno])
    return fd
handles = [begin(n) for n in (1, 2, 3, 4, 5)]
PY
    assert_line "5 EAGAIN"
    assert_equal "$(cat "$POOL/last_error")" "prompts of 268435456 bytes are being written already"
    for i in 1 2 3 4 5; do echo kill > "$POOL/leases/job-$i/ctl"; done
}

@test "a prompt as long as max_prompt is taken, however long that is" {
    paused_job
    echo 16M > "$POOL/config/max_prompt"
    head -c $((16 << 20)) /dev/zero | tr '\0' x > "$POOL/leases/job/prompt"
    await value_is "$POOL/leases/job/prompts" 1
    run bash -c "echo y > $POOL/leases/job/prompt"
    assert_failure
    assert_output --partial "Resource temporarily unavailable"
    echo kill > "$POOL/leases/job/ctl"
}

@test "readers who keep texts open are ENFILE at 256 MiB, and only until they close" {
    mount_pool 1 1
    run python3 -c 'import errno, os, sys
path, fds = sys.argv[1], []
size = os.stat(path).st_size
try:
    while True:
        fds.append(os.open(path, os.O_RDONLY))
        os.read(fds[-1], 1)
except OSError as error:
    held = len(fds) * size
    print(errno.errorcode[error.errno], 256 << 20 < held < 257 << 20)
for fd in fds:
    os.close(fd)
print(len(open(path, "rb").read()) == size)' "$POOL/status.html"
    assert_output "ENFILE True
True"
    # their closing may be under way still, and libfuse says that it is cut off
    kill "$DAEMON"
    await gone "$DAEMON"
}

tmux_server() {
    tmux -S "$STATE/tmux.sock" display-message -p '#{pid}'
}

@test "the 257th line of keys that waits for an agent is EAGAIN, and the lines before it are typed" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    await value_is "$POOL/leases/job/activity" ready
    local server
    server=$(tmux_server)
    kill -STOP "$server"
    run python3 -c 'import errno, os, sys
fd = os.open(sys.argv[1], os.O_WRONLY)
n = 0
try:
    while n < 1000:
        n += os.write(fd, b",\n" * 10) // 2
except OSError as error:
    print(n, errno.errorcode[error.errno])' "$POOL/leases/job/keys"
    kill -CONT "$server"
    assert_output "256 EAGAIN"
    assert_equal "$(cat "$POOL/last_error")" "256 lines of keys of 256 bytes wait for agent-1 already"
    await bash -c '[ "$(tr -cd , <"$1" | wc -c)" = 256 ]' _ "$POOL/leases/job/screen"
    echo C-u > "$POOL/leases/job/keys"
}

@test "keys over 64 KiB that wait for an agent are EAGAIN" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    await value_is "$POOL/leases/job/activity" ready
    local server
    server=$(tmux_server)
    kill -STOP "$server"
    run python3 -c 'import errno, os, sys
fd = os.open(sys.argv[1], os.O_WRONLY)
n = 0
try:
    while n < 100:
        os.write(fd, b"x" * 4000 + b"\n")
        n += 1
except OSError as error:
    print(n, errno.errorcode[error.errno])' "$POOL/leases/job/keys"
    kill -CONT "$server"
    assert_output "16 EAGAIN"
}

@test "of ten thousand pauses and resumes the last one counts, and the daemon keeps none of them" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    await value_is "$POOL/leases/job/activity" ready
    local program before
    program=$(program_of "$POOL/leases/job")
    before=$(awk '/VmRSS/ { print $2 }' "/proc/$DAEMON/status")
    python3 -c 'import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY)
for i in range(100):
    os.write(fd, b"pause\nresume\n" * 50)
os.write(fd, b"pause\n")' "$POOL/leases/job/ctl"
    await grep -q '^State:.T' "/proc/$program/status"
    if ! grep -q libasan "/proc/$DAEMON/maps"; then # which keeps what is freed
        assert [ $(($(awk '/VmRSS/ { print $2 }' "/proc/$DAEMON/status") - before)) -lt 1000 ]
    fi
    echo resume > "$POOL/leases/job/ctl"
    await grep -q '^State:.[SR]' "/proc/$program/status"
}

@test "commits of which 64 wait for an agent are EAGAIN" {
    mount_pool 1 1
    slow_git
    echo job > "$POOL/acquire"
    echo work > "$(readlink "$POOL/leases/job/worktree")/work.slow"
    local i clients=()
    for i in {1..64}; do
        bash -c "echo commit $i > $POOL/leases/job/ctl" 2>/dev/null 3>&- &
        clients+=($!)
    done
    # one more that comes in before all of them are there waits like them, and is interrupted
    await bash -c "! timeout 1 bash -c 'echo commit more > $POOL/leases/job/ctl' && grep -q 'commits wait' $POOL/last_error"
    assert_equal "$(cat "$POOL/last_error")" "64 commits wait for agent-1 already"
    touch "$DIR/go"
    for i in "${clients[@]}"; do wait "$i" || true; done
}

@test "readers that are killed while their text is made leave nothing to be made" {
    mount_pool 1 1
    slow_git
    git -C "$REPO" config filter.slow.clean "echo one >>'$DIR/made'; $(git -C "$REPO" config filter.slow.clean)"
    echo job > "$POOL/acquire"
    echo work > "$(readlink "$POOL/leases/job/worktree")/work.slow"
    local i
    for i in {1..40}; do timeout 0.05 cat "$POOL/leases/job/diff" >/dev/null || true; done
    touch "$DIR/go"
    assert contains "$POOL/leases/job/diff" "work.slow"
    assert [ "$(wc -l <"$DIR/made")" -lt 20 ] # those that were under way, and the last
}

@test "a FIFO in the place of an agent's records holds nothing up" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    await value_is "$POOL/leases/job/activity" ready
    local record
    for record in prompted pid paused exit output lease; do
        rm -f "$STATE/agents/agent-1/$record"
        mkfifo "$STATE/agents/agent-1/$record"
    done
    echo 'echo said $((40 + 2))' > "$POOL/leases/job/prompt"
    assert contains "$POOL/leases/job/response" "said 42"
    echo pause > "$POOL/leases/job/ctl"
    echo resume > "$POOL/leases/job/ctl"
    echo exit > "$POOL/leases/job/prompt"
    await value_is "$POOL/leases/job/activity" exited
    echo job > "$POOL/release"
    echo next > "$POOL/acquire"
    echo 'echo said $((50 + 3))' > "$POOL/leases/next/prompt"
    await contains "$POOL/leases/next/output" "said 53"
}

@test "a diff of more than 64 MiB is EFBIG" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    head -c 70000000 /dev/zero | tr '\0' x | fold -w 100 > "$(readlink "$POOL/leases/job/worktree")/large"
    run cat "$POOL/leases/job/diff"
    assert_failure
    assert_output --partial "File too large"
    assert contains "$POOL/leases/job/diffstat" "1 file changed"
    echo "job discard" > "$POOL/release"
}

# bats test_tags=large
@test "command lines over 64 MiB that wait for their answers are EAGAIN" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    run python3 - "$POOL" <<'PY'
import errno, os, sys, threading, time
pool, refused, ended = sys.argv[1], [], threading.Event()
comment = b"#" + b"x" * 4000 + b"\n"
def wait(n):
    fd = os.open(pool + "/acquire", os.O_WRONLY)
    line = b"waits-%d timeout=10m\n" % n
    try:
        os.write(fd, comment * 30 + line)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            refused.append(n)
for n in range(1000):
    threading.Thread(target=wait, args=(n,), daemon=True).start()
end = time.monotonic() + 100
while not refused and time.monotonic() < end:
    time.sleep(0.05)
waiting = int(open(pool + "/stats/waiting").read())
print("refused" if refused else "all taken", 64 << 20 < (waiting + 1) * (len(comment) * 30 + 30))
print(open(pool + "/last_error").read(), end="", flush=True)
os._exit(0)
PY
    assert_line "refused True"
    assert_line --regexp "^lines of [0-9]+ bytes wait for their answers already$"
    await value_is "$POOL/stats/waiting" 0
    echo job > "$POOL/release"
}

@test "of a write of many lines a part is taken, and the rest when it is written again" {
    mount_pool 1 1 -- sleep 1d
    echo job > "$POOL/acquire"
    run python3 -c 'import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY)
text = b"ready\n" * 2000 + b"bu"
n = os.write(fd, text)
print(n // 6, n % 6)
while n < len(text):
    n += os.write(fd, text[n:])
os.write(fd, b"sy\n")
os.close(fd)' "$POOL/leases/job/activity"
    assert_output "512 0"
    await value_is "$POOL/leases/job/why" "hook: wrote busy"
    run python3 -c 'import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY)
text = b"pause\nresume\n" * 1000 + b"pau"
n = os.write(fd, text)
print(n // 13, n % 13)
while n < len(text):
    n += os.write(fd, text[n:])
os.write(fd, b"se\n")
os.close(fd)' "$POOL/leases/job/ctl"
    assert_output "256 0"
    await value_is "$POOL/leases/job/why" "pause: asked for"
    echo resume > "$POOL/leases/job/ctl"
    for i in {1..3000}; do echo ready; done > "$POOL/leases/job/activity"
    for i in {1..3000}; do echo ready; done | cat > "$POOL/leases/job/activity"
}

@test "what follows a line that is refused is not taken, and is in nobody's way" {
    mount_pool 1 2
    run python3 -c 'import errno, os, sys
fd = os.open(sys.argv[1], os.O_WRONLY)
good, bad, tail = b"close\nopen\n" + b"#" + b"x" * 4000 + b"\n", b"nonsense\n", b"clo"
n = os.write(fd, good + bad + b"# more\n" + tail)
assert n == len(good), n
try:
    os.write(fd, bad + b"#" + b"x" * 4090 + b"\n" + tail)
except OSError as error:
    print(errno.errorcode[error.errno])
os.write(fd, b"maintain\n")
os.close(fd)' "$POOL/ctl"
    assert_output "EINVAL"
}
