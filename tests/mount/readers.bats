# Whoever reads reads the same, by whatever way the kernel has; what waits waits for all; what never ends is met by no
# search.

load helper

setup() { common_setup; }
teardown() { common_teardown; }

# One file of every kind, of a pool with a lease `job`.
files() {
    printf '%s\n' README acquire scale status status.json status.html metrics metrics.prom events last_error \
        stats/{active_agents,breaker,uptime,last_scale_event,wait_p50} config/{base,max_pool_size,setup} \
        leases/job/{state,activity,why,lease,owner,id,pid,age,transitions,memory,cpu,tasks,head,screen,output} \
        leases/job/{output.raw,wait,response,diff,diffstat,exit_status,branch,base}
}

# A lease `job` with something in each of its files.
job() {
    echo job >"$POOL/acquire"
    JOB=$POOL/leases/job
    cat "$JOB/wait" >/dev/null
    seq 2000 >"$JOB/worktree/new" # a diff of more than a page
    echo 'echo hello' >"$JOB/prompt"
    assert_equal "$(cat "$JOB/response")" hello
    ! echo malformed >"$POOL/scale"
}

# The programs that read by splice, sendfile or copy_file_range, of those that are there.
cats() {
    printf '%s\n' cat "busybox cat" "coreutils cat" | while read -r cat; do
        if command -v "${cat%% *}" >/dev/null; then echo "$cat"; fi
    done
    echo "python3 $DIR/copy.py"
}

make_copy() { # shutil.copyfile to standard output
    printf '%s\n' 'import shutil, sys, tempfile' 'with tempfile.NamedTemporaryFile() as copy:' \
        '    shutil.copyfile(sys.argv[1], copy.name)' '    sys.stdout.buffer.write(open(copy.name, "rb").read())' \
        >"$DIR/copy.py"
}

# Numbers that pass with time are alike, and what fills a page up to its size.
plain() {
    sed -E 's/[0-9]+(\.[0-9]+)?/0/g' | tr -s ' \n'
}

@test "every file reads the same by read, pread, splice, sendfile, copy_file_range and mmap, and by its size" {
    mount_pool 1 2
    job
    run bash -c "cd '$POOL' && python3 '$BATS_TEST_DIRNAME/readers.py' $(files | tr '\n' ' ')"
    assert_success
    assert_output --partial " 0 differ"
    echo job >"$POOL/release"
}

all_is_known() { # what status looks at beside its readers: usage, and the screen of a lease
    jq -e '.agents | length == 2 and all(.memory != null) and any(.screen != null)' "$POOL/status.json"
}

@test "cat of GNU, of busybox and of uutils, and Python read every file alike" {
    local file cat
    make_copy
    mount_pool 1 2
    job
    await all_is_known
    for file in $(files); do
        python3 -c 'import sys; sys.stdout.buffer.write(open(sys.argv[1], "rb").read())' "$POOL/$file" | plain >"$DIR/expected"
        cats | while read -r cat; do
            $cat "$POOL/$file" </dev/null | plain | diff "$DIR/expected" - || { echo "$cat of $file" >&2; exit 1; }
        done
    done
    echo job >"$POOL/release"
}

@test "wait and response wait for whoever reads them, and whoever is killed meanwhile is gone" {
    local cat n=0 reader
    make_copy
    mount_pool 1 1
    job
    echo 'echo begun; read -r line; echo "it was $line"' >"$JOB/prompt"
    assert_equal "$(cat "$JOB/wait")" waiting
    echo 'Escape' >"$JOB/keys" # whatever that does: what follows is asked of a busy agent
    echo "C-c" >"$JOB/keys"
    await value_is "$JOB/activity" ready
    mkfifo "$DIR/go"
    echo "cat '$DIR/go'" >"$JOB/prompt"
    while read -r cat; do
        n=$((n + 1))
        $cat "$JOB/wait" >"$DIR/wait.$n" 2>&1 3>&- &
        $cat "$JOB/response" >"$DIR/response.$n" 2>&1 3>&- &
    done < <(cats)
    busybox cat "$JOB/wait" >"$DIR/killed" 3>&- &
    reader=$!
    await value_is "$JOB/activity" busy
    await eval '[ "$(cat /proc/$reader/comm)" = busybox ]' # and no shell of this test any more
    kill $reader
    await gone $reader
    assert [ ! -s "$DIR/wait.1" ]
    echo "at last" >"$DIR/go"
    while [ $n -gt 0 ]; do
        await value_is "$DIR/wait.$n" ready
        await value_is "$DIR/response.$n" "at last"
        n=$((n - 1))
    done
    assert [ ! -s "$DIR/killed" ]
    echo job >"$POOL/release"
}

# The process has opened that file of the mount.
has_open() { # PID NAME
    [[ " $(readlink /proc/"$1"/fd/* | tr '\n' ' ')" == *" $POOL/$2 "* ]]
}

@test "follow is a stream for every cat" {
    local cat n=0 readers=()
    mount_pool 1 1
    while read -r cat; do
        n=$((n + 1))
        $cat "$POOL/follow" >"$DIR/follow.$n" 2>&1 3>&- &
        readers+=($!)
    done < <(cats | grep -v python)
    for i in "${readers[@]}"; do # who opens it behind an event has not asked for that one
        await has_open "$i" follow
    done
    for label in one two; do # more than one event, one after the other
        echo $label >"$POOL/acquire"
        echo $label >"$POOL/release"
        for ((i = 1; i <= n; i++)); do
            await contains "$DIR/follow.$i" "\"lease_ended\",\"lease\":\"$label\"" ||
                { tail -3 "$DIR/follow.$i" >&2; return 1; }
        done
    done
    kill "${readers[@]}"
}

@test "the size of a file is the length of its text, before it is opened and once it is" {
    mount_pool 1 1
    job
    run python3 -c '
import os, sys
for name in sys.argv[2:]:
    path = sys.argv[1] + "/" + name
    fd = os.open(path, os.O_RDONLY)
    size = os.fstat(fd).st_size
    text = b""
    while piece := os.read(fd, 65536): text += piece
    if len(text) != size: print(name, "has", len(text), "bytes and says", size)
    before, after, seen = size, None, None
    while before != after: # what it says may change meanwhile
        before, seen = os.stat(path).st_size, len(open(path, "rb").read())
        after = os.stat(path).st_size
    if seen != after: print(name, "is looked up as", after, "bytes, and has", seen)' "$POOL" \
        README acquire scale status status.json status.html events stats/breaker config/base leases/job/{state,owner,diff,diffstat}
    assert_output ""
    assert_equal "$(wc -c <"$JOB/diff")" "$(cat "$JOB/diff" | wc -c)"
    assert_equal "$(git -C "$REPO" hash-object "$JOB/diff")" "$(cat "$JOB/diff" | git -C "$REPO" hash-object --stdin)"
    # what goes by the size that a file has before it is opened
    assert [ "$(tar -chf - -C "$POOL" leases/job/diff | tar -xOf - | wc -l)" -gt 2000 ]
    assert [ -n "$(find "$POOL"/agents/*/diff -size +0)" ]
    assert [ -s "$POOL/status" ]
    echo job >"$POOL/release"
}

@test "a text is whole and of one time whoever looks meanwhile, also in the kernel's page cache" {
    mount_pool 1 1
    # lengths that change under readers who splice: never a piece of one text with the length of another
    python3 -c '
import os, sys, threading
setup, deadline = sys.argv[1] + "/config/setup", 400
texts = [b": " + b"x" * n + b"\n" for n in (1, 3, 800, 900)]
def write(text):
    with open(setup, "wb", buffering=0) as file: file.write(text)
def splice():
    fd = os.open(setup, os.O_RDONLY)
    end, start = os.pipe()
    text = b""
    while n := os.splice(fd, start, 300): text += os.read(end, n)
    for each in fd, end, start: os.close(each)
    return text
write(texts[0])
wrong, over = [], threading.Event()
def reader():
    while not over.is_set():
        text = splice()
        if text not in texts: wrong.append(text)
def looker():
    while not over.is_set(): os.stat(setup)
threads = [threading.Thread(target=reader) for _ in range(3)] + [threading.Thread(target=looker)]
for thread in threads: thread.start()
for n in range(deadline): write(texts[n % 4])
over.set()
for thread in threads: thread.join()
sys.exit(f"{len(wrong)} were in pieces, such as {wrong[0]!r:.100}" if wrong else 0)' "$POOL"
}

@test "one user is not shown what was made for another" {
    needs_root "acts as another user"
    chmod 755 "$DIR"
    mount_pool 1 1 -o allow_other,umask=0
    python3 -c '
import os, sys
scale, last_error = sys.argv[1] + "/scale", sys.argv[1] + "/last_error"
def refused(text):
    try:
        with open(scale, "w") as file: file.write(text)
    except OSError: pass
def in_user(uid, do):
    pid = os.fork()
    if pid == 0:
        os.setuid(uid)
        do()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
def look_and_read(uid):
    os.stat(last_error)
    in_user(4321, lambda: os.stat(last_error))
    assert b"only the owner" not in open(last_error, "rb").read()
in_user(1234, lambda: refused("1\n"))
refused("x\n")
for n in range(20):
    in_user(1234, lambda: os.stat(last_error))
    look_and_read(0)' "$POOL"
}

@test "a search over a checkout with the pool in it ends, beside an agent that never stops" {
    POOL=$REPO/pool
    mkdir "$POOL"
    LOG_EXPECTED=yes # it names the line that keeps git out
    mount_pool 1 1
    job
    echo 'yes busy' >"$JOB/prompt"
    await contains "$JOB/screen" busy
    timeout 120 find "$REPO" -path "$REPO/.git" -prune -o -type f -exec cat {} + >/dev/null 2>&1 || [ $? = 1 ]
    timeout 120 grep -rs nothing-has-this "$REPO" >/dev/null || [ $? != 124 ]
    timeout 120 tar -cf "$DIR/all.tar" --exclude=.git -C "$REPO" . 2>/dev/null || [ $? -le 2 ]
    timeout 120 cp -r "$POOL" "$DIR/copy" 2>/dev/null || [ $? = 1 ]
    timeout 120 python3 -c 'import os, sys
for top, _, names in os.walk(sys.argv[1]):
    for name in names:
        try: open(os.path.join(top, name), "rb").read()
        except OSError: pass' "$REPO"
    if command -v rg >/dev/null; then timeout 120 rg -uuu nothing-has-this "$REPO" >/dev/null 2>&1 || [ $? != 124 ]; fi
    assert_equal "$(cat "$JOB/activity")" busy
    echo "job discard" >"$POOL/release"
}

@test "what waits is there without being listed" {
    mount_pool 1 1
    job
    run ls "$POOL" "$JOB/"
    refute_line follow
    refute_line wait
    refute_line response
    assert_line screen
    assert [ -r "$POOL/follow" ]
    assert [ -r "$JOB/wait" ]
    assert_equal "$(cat "$POOL"/leases/*/wait)" ready
    "$AGENTPOOLFS" --list-files >"$DIR/files"
    assert contains "$DIR/files" "agents/NAME/wait"
    echo job >"$POOL/release"
}

@test "wait and response do not wait with O_NONBLOCK, and poll tells when there is something to read" {
    mount_pool 1 1
    job
    mkfifo "$DIR/go"
    echo "cat '$DIR/go'" >"$JOB/prompt"
    python3 -c '
import os, select, sys
job, go = sys.argv[1:]
for name in "wait", "response":
    fd = os.open(job + "/" + name, os.O_RDONLY | os.O_NONBLOCK)
    for twice in range(2):
        try: sys.exit(f"{name}: {os.read(fd, 100)!r}")
        except BlockingIOError: pass
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    if poll.poll(0): sys.exit(f"{name} is to be read, says poll, of a busy agent")
    os.close(fd)
fds = {os.open(f"{job}/{name}", os.O_RDONLY | os.O_NONBLOCK): name for name in ("wait", "response")}
poll = select.epoll()
for fd in fds: poll.register(fd, select.EPOLLIN)
with open(go, "w") as file: file.write("at last\n")
seen = {}
while len(seen) < 2:
    events = poll.poll(100)
    if not events: sys.exit("poll tells of nothing")
    for fd, _ in events:
        if fds[fd] not in seen: seen[fds[fd]] = os.read(fd, 100)
        poll.unregister(fd)
assert seen == {"wait": b"ready\n", "response": b"at last\n"}, seen' "$JOB" "$DIR/go"
    echo job >"$POOL/release"
}

@test "inode numbers do not change by looking, are those that directories list, and are no two files'" {
    mount_pool 1 1
    job
    (cd "$POOL" && find . agents/*/ ! -type d -printf '%p %i\n') | sed 's,^\./,,; s,//,/,' | sort -u >"$DIR/before"
    cat "$POOL"/{status,scale,metrics} "$JOB"/{state,diff} >/dev/null
    exec 4<"$POOL/scale" 5<"$JOB/output" 6<"$JOB/screen"
    echo 'echo more' >"$JOB/prompt"
    cat "$JOB/wait"
    (cd "$POOL" && find . agents/*/ ! -type d -printf '%p %i\n') | sed 's,^\./,,; s,//,/,' | sort -u >"$DIR/behind"
    exec 4<&- 5<&- 6<&-
    diff "$DIR/before" "$DIR/behind"
    assert_equal "$(awk '{print $2}' "$DIR/behind" | sort | uniq -d | wc -l)" 0
    assert_equal "$(cut -d' ' -f1 "$DIR/behind" | xargs -I{} stat -c '{} %i' "$POOL/{}" 2>/dev/null | sed "s,$POOL/,," | sort |
        diff - "$DIR/behind" | grep -vE 'worktree|leases/' | grep -c '^[<>]')" 0
    run cp -r "$POOL/scale" "$POOL/acquire" "$DIR"
    assert_output ""
    echo job >"$POOL/release"
}

@test "git stays out of a mount in its checkout: clean -fdx ends no lease, and nothing there is added" {
    POOL=$REPO/pool
    mkdir "$POOL"
    REPO_CHANGED=yes LOG_EXPECTED=yes
    mount_pool 1 2
    job
    git -C "$REPO" clean -fdxq || true
    assert [ -e "$POOL/leases/job" ]
    git -C "$REPO" clean -fdq || true
    assert [ -e "$POOL/leases/job" ]
    run git -C "$REPO" add -A
    run git -C "$REPO" ls-files pool
    assert_output ""
    git -C "$REPO" reset -q
    run git -C "$POOL" status
    assert_failure
    echo /pool/ >>"$REPO/.git/info/exclude" # as it says when it is mounted
    echo mine >"$REPO/mine"
    assert_equal "$(git -C "$REPO" status --porcelain)" "?? mine"
    git -C "$REPO" add -A
    assert_equal "$(git -C "$REPO" diff --cached --name-only)" mine
    git -C "$REPO" reset -q
    git -C "$REPO" stash -u -q
    assert_equal "$(git -C "$REPO" status --porcelain)" ""
    assert [ -e "$POOL/leases/job" ]
    git -C "$REPO" stash pop -q
    rm "$REPO/mine"
    echo job >"$POOL/release"
}

@test "who reads output comes to its end however much is printed, and who follows goes on" {
    mount_pool 1 1
    job
    echo 'i=0; while :; do echo "line $((i += 1))"; done' >"$JOB/prompt"
    await contains "$JOB/output" "line 100"
    timeout 120 cat "$JOB/output" >"$DIR/first"
    timeout 120 cat "$JOB/output.raw" >/dev/null
    assert contains "$DIR/first" "line 100"
    tail -c +1 -f "$JOB/output" >"$DIR/followed" 2>&1 3>&- &
    local follower=$! size
    await test -s "$DIR/followed"
    size=$(stat -c %s "$DIR/followed")
    await sh -c "[ \$(stat -c %s '$DIR/followed') -gt $((size + 1000)) ]"
    kill $follower
    echo "job discard" >"$POOL/release"
}

# How often the kernel asks the daemon on behalf of a command, but for what it does not wait for.
requests() { # COMMAND...
    local from
    from=$(wc -l <"$DIR/log")
    "$@" >/dev/null
    tail -n +$((from + 1)) "$DIR/log" | grep -oE 'opcode: [A-Z_]+' | grep -vE 'FORGET|RELEASE|INTERRUPT' | sed 's/opcode: //' |
        paste -sd' '
}

@test "a cat costs four round trips for a value, three for a page of metrics, four for a text that takes time" {
    LOG_EXPECTED=yes
    mount_pool 1 1 -o maintenance_interval=1h -d
    cat "$POOL/stats/breaker" "$POOL/README" "$POOL/metrics" >/dev/null
    assert_equal "$(requests cat "$POOL/stats/breaker")" "LOOKUP OPEN READ READ"
    assert_equal "$(requests cat "$POOL/README")" "LOOKUP OPEN"
    run requests cat "$POOL/metrics"
    assert_output --regexp "^LOOKUP (LOOKUP )?OPEN$"
    echo job >"$POOL/acquire"
    cd "$POOL/leases/job"
    cat head >/dev/null
    assert_equal "$(requests cat head)" "LOOKUP LOOKUP GETATTR OPEN" # made while the GETATTR waits
    cd "$DIR"
}
