# What leases left: kept whole for a while, listed, removed, and made a lease again.

load helper

setup() { common_setup; }
teardown() { common_teardown; }

# One that is there before the mount: a file of so many KiB, left so long ago.
left() { # LABEL TOKEN [KIB [AGE]]
    local dir=$STATE/kept/$1@$2
    mkdir -p "$dir/files"
    if [ -n "${3:-}" ]; then head -c "${3}K" /dev/zero >"$dir/files/file"; fi
    printf 'label %s\nagent agent-1\nbase %s\nbackend overlay\nreason release\nended %s\n' "$1" \
        "$(git -C "$REPO" rev-parse HEAD)" "$(date -u -d "${4:-0 days} ago" +%FT%TZ)" >"$dir/info"
}

# The names in kept/.
kept() {
    ls "$POOL/kept" | tr '\n' ' '
}

kept_are() { # NAMES...
    [ "$(kept)" = "${*:+$* }" ]
}

# Leases, has the agent's worktree changed by the words on standard input, and releases.
work() { # LABEL
    echo "$1" >"$POOL/acquire"
    sh "$POOL/leases/$1/enter" bash -e -s
    echo "$1" >"$POOL/release"
}

ignoring_repo() {
    printf 'build/\n*.log\n' >"$REPO/.gitignore"
    mkdir "$REPO/sub"
    for name in a b; do echo "$name" >"$REPO/sub/$name"; done
    git -C "$REPO" add . && git -C "$REPO" commit -qm 'second'
    BEFORE=$(fingerprint)
}

@test "what a lease left is kept whole, ignored files and repositories in it too" {
    ignoring_repo
    mount_pool 1 1
    assert_equal "$(kept)" ""
    assert_equal "$(cat "$POOL/stats/kept")" 0
    work job <<'SH'
mkdir build; echo object >build/x.o; echo line >a.log; echo new >new
git init -q nest; echo in >nest/in
SH
    local one=$POOL/kept/job@1
    await kept_are job@1
    for file in build/x.o a.log new nest/in nest/.git/HEAD; do assert [ -f "$one/files/$file" ]; done
    run cat "$one/info"
    assert_line "label job"
    assert_line "token 1"
    assert_line "agent agent-1"
    assert_line "branch agentpool/job"
    assert_line "base $(git -C "$REPO" rev-parse HEAD)"
    assert_line "commit $(git -C "$REPO" rev-parse agentpool/job)"
    assert_line "reason release"
    assert_line --regexp '^ended 2[0-9]{3}-.*Z$'
    assert_equal "$(readlink "$one/files")" "$STATE/kept/job@1/files"
    await value_is "$POOL/stats/kept" 1
    await grep -q '[0-9]' "$one/size"
    assert [ "$(cat "$one/size")" -gt 0 ]
    await value_is "$POOL/stats/kept_bytes" "$(cat "$one/size")"
    await contains "$POOL/events" '"event":"kept","lease":"job","token":1,"agent":"agent-1","reason":"release"'
}

@test "a repository that is all that a lease made is kept whole, and so is what only looks like one" {
    for backend in auto copy; do
        mount_pool 1 1 -o "spawn_backend=$backend"
        work "whole-$backend" <<'SH'
git init -q in/repo; cd in/repo; echo x >file; git add .
git -c user.name=a -c user.email=a@e commit -qm inner; git config remote.far.url https://example.org/far
SH
        work "tree-$backend" <<'SH'
git worktree add -q --detach beside
SH
        work "fixture-$backend" <<'SH'
mkdir -p fixture/.git; echo text >fixture/.git/notes
SH
        work "top-$backend" <<'SH'
rm .git; git init -q .; git config remote.far.url https://example.org/top
SH
        assert_equal "$(git -C "$POOL"/kept/whole-$backend@*/files/in/repo config remote.far.url)" https://example.org/far
        assert [ -f "$POOL"/kept/tree-$backend@*/files/beside/.git ]
        assert_equal "$(cat "$POOL"/kept/fixture-$backend@*/files/fixture/.git/notes)" text
        assert_equal "$(git -C "$POOL"/kept/top-$backend@*/files config remote.far.url)" https://example.org/top
        unmount_pool
    done
}

@test "a lease that changes nothing leaves nothing, submodules or not" {
    git init -q "$DIR/lib"
    git -C "$DIR/lib" -c user.name=u -c user.email=u@e commit -q --allow-empty -m lib
    git -C "$REPO" -c protocol.file.allow=always submodule --quiet add "$DIR/lib" libs/foo
    git -C "$REPO" commit -qm 'a submodule'
    BEFORE=$(fingerprint)
    mount_pool 1 1 -o 'setup=git init -q made; echo x > made/file'
    for name in one two; do
        work $name <<'SH'
git status >/dev/null
SH
    done
    assert_equal "$(kept)" ""
}

@test "with keep_work=0 nothing is kept, and what was goes" {
    mount_pool 1 1 -o keep_work=0
    work job <<<'echo new >new'
    assert_equal "$(kept)" ""
    echo 1d >"$POOL/config/keep_work"
    work job <<<'echo newer >new'
    await kept_are job@2
    echo 0 >"$POOL/config/keep_work"
    echo maintain >"$POOL/ctl"
    await kept_are
    await test ! -e "$STATE/kept/job@2"
    await contains "$POOL/events" '"event":"kept_removed","lease":"job","token":2,"reason":"age"'
}

@test "a lease that is discarded leaves nothing" {
    mount_pool 1 1
    echo job >"$POOL/acquire"
    echo new >"$(readlink "$POOL/leases/job/worktree")/new"
    echo "job discard" >"$POOL/release"
    assert_equal "$(kept)" ""
}

@test "beyond keep_work_size the oldest go first, and what is older than keep_work goes" {
    left old 1 64 "9 days"
    left first 2 512 "3 hours"
    left second 3 512 "2 hours"
    left third 4 512 "1 hour"
    mount_pool 1 1
    await value_is "$POOL/stats/kept" 3
    assert kept_are first@2 second@3 third@4
    echo 1200K >"$POOL/config/keep_work_size"
    echo maintain >"$POOL/ctl"
    await kept_are second@3 third@4
    await contains "$POOL/events" '"event":"kept_removed","lease":"first","token":2,"reason":"size"'
    assert [ "$(cat "$POOL/stats/kept_bytes")" -le $((1200 << 10)) ]
    await test ! -e "$STATE/kept/first@2"
    await contains "$POOL/events" '"event":"kept_removed","lease":"old","token":1,"reason":"age"'
}

@test "what was kept is there after an unmount, and what the unmount ended" {
    mount_pool 1 1
    work job <<<'echo new >new'
    echo late >"$POOL/acquire"
    echo late >"$(readlink "$POOL/leases/late/worktree")/late"
    unmount_pool
    assert [ -f "$STATE/kept/job@1/files/new" ]
    mount_pool 1 1
    assert kept_are job@1 late@2
    assert [ -f "$POOL/kept/late@2/files/late" ]
    assert contains "$POOL/kept/late@2/info" "reason shutdown"
}

@test "what was kept is there after a kill -9, half made as well" {
    mount_pool 1 1
    work job <<<'echo new >new'
    crash_pool
    mkdir -p "$STATE/kept/half@7/files" "$STATE/kept/empty@8"
    echo x >"$STATE/kept/half@7/files/x"
    mount_pool 1 1
    assert kept_are half@7 job@1
    assert_equal "$(head -n 2 "$POOL/kept/half@7/info")" $'label half\ntoken 7'
    assert [ ! -e "$STATE/kept/empty@8" ]
    run bash -c "echo 'restore half@7 again' >$POOL/ctl"
    assert_failure
    assert_output --partial "No data available"
    assert contains "$POOL/last_error" "$STATE/kept/half@7"
    work next <<<'echo x >y'
    assert kept_are half@7 job@1 next@8 # no token is used twice
}

@test "restore makes a lease of it: files, ignored ones too, links, modes, times, and what was deleted is" {
    ignoring_repo
    mount_pool 1 1
    work job <<'SH'
mkdir build; echo object >build/x.o; touch -d 2001-02-03 build/x.o; chmod 751 build/x.o
ln -s /etc/passwd build/link; echo line >a.log; echo new >new; rm file-0 sub/a; echo changed >file-1
git init -q nest; echo in >nest/in; git -C nest add .
git -C nest -c user.name=a -c user.email=a@example.org commit -qm nested
mv sub build/sub
if [ "$(stat -f -c %T .)" = overlayfs ]; then mkfifo build/fifo; fi # a copy has no place for it
SH
    echo 'restore job@1 again' >"$POOL/ctl"
    local tree
    tree=$(readlink "$POOL/leases/again/worktree")
    assert_equal "$(cat "$tree/build/x.o" "$tree/a.log" "$tree/new" "$tree/nest/in" "$tree/file-1" "$tree/build/sub/b")" \
        $'object\nline\nnew\nin\nchanged\nb'
    assert_equal "$(stat -c '%a %Y' "$tree/build/x.o")" "751 $(date -d 2001-02-03 +%s)"
    assert_equal "$(readlink "$tree/build/link")" /etc/passwd
    if may_overlay; then assert [ -p "$tree/build/fifo" ]; fi
    for gone in file-0 sub build/sub/a; do assert [ ! -e "$tree/$gone" ]; done
    assert_equal "$(git -C "$tree/nest" log --format=%s)" nested
    assert_equal "$(cat "$POOL/leases/again/branch")" agentpool/again
    assert_equal "$(cat "$POOL/leases/again/base")" "$(git -C "$REPO" rev-parse agentpool/job)"
    await contains "$POOL/events" '"event":"restored","lease":"again","agent":"agent-1","from":"job@1"'
    assert kept_are job@1
    echo more >"$tree/more"
    echo again >"$POOL/release"
    assert_equal "$(git -C "$REPO" show agentpool/again:more)" more
    await kept_are again@2 job@1
    assert [ -f "$POOL/kept/again@2/files/build/x.o" ]
}

@test "restore of what was never committed begins at its base" {
    ignoring_repo
    mount_pool 1 1
    work job <<<'echo line >a.log'
    run git -C "$REPO" rev-parse -q --verify agentpool/job
    assert_failure
    assert_equal "$(grep -c '^commit' "$POOL/kept/job@1/info")" 0
    git -C "$REPO" commit -q --allow-empty -m later
    BEFORE=$(fingerprint)
    echo 'restore job@1 job' >"$POOL/ctl"
    assert_equal "$(cat "$POOL/leases/job/base")" "$(git -C "$REPO" rev-parse HEAD~1)"
    assert contains "$(readlink "$POOL/leases/job/worktree")/a.log" line
    echo job >"$POOL/release"
}

@test "restore of a copy has what the copy had and nothing else" {
    ignoring_repo
    mount_pool 1 1 -o spawn_backend=copy
    echo job >"$POOL/acquire"
    local tree
    tree=$(readlink "$POOL/leases/job/worktree")
    (cd "$tree" && rm -r sub && mkdir build && echo object >build/x.o && echo new >new && ln -s new link && chmod 751 build)
    cp -a "$tree" "$DIR/was"
    echo job >"$POOL/release"
    echo 'restore job@1 again' >"$POOL/ctl"
    tree=$(readlink "$POOL/leases/again/worktree")
    diff -r --no-dereference --exclude=.git "$DIR/was" "$tree"
    assert_equal "$(stat -c %a "$tree/build")" 751
    assert_equal "$(git -C "$tree" rev-parse HEAD)" "$(git -C "$REPO" rev-parse agentpool/job)"
    echo again >"$POOL/release"
}

@test "a directory that was renamed to an ignored name is restored when the base has moved on" {
    ignoring_repo
    mount_pool 1 1
    work job <<<'mkdir build; mv sub build/sub; echo more >build/sub/more'
    unmount_pool
    git -C "$REPO" rm -qr sub && git -C "$REPO" commit -qm third
    BEFORE=$(fingerprint)
    mount_pool 1 1
    echo 'restore job@1 again' >"$POOL/ctl"
    local tree
    tree=$(readlink "$POOL/leases/again/worktree")
    assert_equal "$(cat "$tree"/build/sub/{a,b,more})" $'a\nb\nmore'
    assert [ ! -e "$tree/sub" ]
    echo again >"$POOL/release"
}

@test "restore waits for an agent as acquire does, and is refused likewise" {
    left job 1
    mount_pool 1 1 -o acquire_timeout=0
    echo other >"$POOL/acquire"
    run bash -c "echo 'restore job@1 again' >$POOL/ctl"
    assert_failure
    assert_output --partial "Resource temporarily unavailable"
    echo 1m >"$POOL/config/acquire_timeout"
    echo 'restore job@1 again' >"$POOL/ctl" 3>&- &
    await value_is "$POOL/stats/waiting" 1
    echo maintain >"$POOL/ctl" # another is not held up by it
    echo other >"$POOL/release"
    wait $!
    assert_equal "$(cat "$POOL/leases/again/state")" active
    echo again >"$POOL/release"
}

@test "what cannot be restored is refused with errno and sentence" {
    left job 1
    mount_pool 1 1
    echo held >"$POOL/acquire"
    local words errno sentence
    while IFS='|' read -r words errno sentence; do
        run bash -c "echo '$words' >$POOL/ctl"
        assert_failure
        assert_output --partial "$errno"
        assert contains "$POOL/last_error" "$sentence"
    done <<'TABLE'
restore|Invalid argument|write restore LABEL@TOKEN AS-LABEL
restore job@1|Invalid argument|write restore LABEL@TOKEN AS-LABEL
restore job@1 a b|Invalid argument|write restore LABEL@TOKEN AS-LABEL
restore job@1 ../x|Invalid argument|'../x' is not a valid label
restore job@1 .x|Invalid argument|'.x' is not a valid label
restore job@2 again|No such file or directory|nothing is kept as 'job@2'
restore job again|No such file or directory|nothing is kept as 'job'
restore ../kept/job@1 again|No such file or directory|nothing is kept as '../kept/job@1'
restore job@1/files again|No such file or directory|nothing is kept as
restore job@1 held|File exists|leased
TABLE
    run bash -c "echo 'restore job@1 $(printf 'x%.0s' {1..65})' >$POOL/ctl"
    assert_output --partial "Invalid argument"
    run bash -c "echo 'restore $(printf 'x%.0s' {1..3000})@1 again' >$POOL/ctl"
    assert_output --partial "No such file or directory"
    assert_equal "$(ls "$POOL/leases")" held
    echo held >"$POOL/release"
    echo close >"$POOL/ctl"
    run bash -c "echo 'restore job@1 again' >$POOL/ctl"
    assert_failure
    assert_output --partial "shutdown"
}

@test "what cannot be laid is EIO with the path, and leaves neither lease nor branch" {
    needs_root "sets marks of an overlay that only root may"
    left job 1
    mkdir "$STATE/kept/job@1/files/moved"
    python3 -c 'import os, sys; os.setxattr(sys.argv[1], "trusted.overlay.redirect", b"/gone")' \
        "$STATE/kept/job@1/files/moved"
    mount_pool 1 1
    run bash -c "echo 'restore job@1 again' >$POOL/ctl"
    assert_failure
    assert_output --partial "Input/output error"
    assert contains "$POOL/last_error" "moved was gone when the lease began"
    assert_equal "$(ls "$POOL/leases")" ""
    run git -C "$REPO" rev-parse -q --verify agentpool/again
    assert_failure
    await value_is "$POOL/stats/idle_agents" 1
}

@test "ls, find, du and stat take kept/ as any directory, and nothing can be made or removed in it" {
    left job 1 64
    mount_pool 1 1
    assert_equal "$(cd "$POOL" && find kept | sort | tr '\n' ' ')" "kept kept/job@1 kept/job@1/files kept/job@1/info kept/job@1/size "
    ls -lR "$POOL/kept"
    du -s "$POOL/kept"
    assert_equal "$(stat -c %A "$POOL/kept/job@1/info" "$POOL/kept/job@1/files" "$POOL/kept/job@1")" \
        $'-r--r--r--\nlrwxrwxrwx\ndrwxr-xr-x'
    for command in "rmdir $POOL/kept/job@1" "rm $POOL/kept/job@1/info" "mkdir $POOL/kept/x" "touch $POOL/kept/x" \
        "mv $POOL/kept/job@1 $POOL/kept/job@2"; do
        run $command
        assert_failure
        assert_output --partial "Operation not permitted"
    done
    for name in job job@ @1 job@2 job@01 xjob@1 job@1x; do assert [ ! -e "$POOL/kept/$name" ]; done
}

@test "one that goes takes its open files' names along, and their texts stay readable" {
    left job 1 64
    mount_pool 1 1
    exec 4<"$POOL/kept/job@1/info"
    cd "$POOL/kept/job@1"
    echo 0 >"$POOL/config/keep_work"
    echo maintain >"$POOL/ctl"
    await test ! -e "$POOL/kept/job@1"
    run cat info
    assert_failure
    run readlink files
    assert_failure
    run cat /proc/self/fd/4 <&4
    cd "$DIR"
    exec 4<&-
    assert_equal "$(kept)" ""
}

@test "ten thousand are each listed once, by name and by number" {
    local i
    mkdir -p "$STATE/kept"
    (cd "$STATE/kept" && for ((i = 1; i <= 10000; i++)); do echo "job@$i/files"; done | xargs mkdir -p)
    mount_pool 1 1
    assert_equal "$(cat "$POOL/stats/kept")" 10000
    assert_equal "$(ls -U "$POOL/kept" | sort -u | wc -l)" 10000
    assert_equal "$(find "$POOL/kept" -mindepth 1 -maxdepth 1 -type d -printf '%i\n' | sort -u | wc -l)" 10000
    assert contains "$POOL/kept/job@9999/info" "token 9999"
}

@test "what is garbage and cannot be removed is counted and named, once" {
    needs_root "mounts"
    mkdir -p "$STATE/trash/left/busy"
    mount -t tmpfs -o size=64k agentpool-test "$STATE/trash/left/busy"
    mount_pool 1 1
    await value_is "$POOL/stats/trash_stuck" 1
    echo maintain >"$POOL/ctl"
    await contains "$POOL/events" '"event":"trash_stuck"'
    await grep -q 'trash_stuck.*trash/left' "$POOL/events"
    umount "$STATE/trash/left/busy"
    echo maintain >"$POOL/ctl"
    await value_is "$POOL/stats/trash_stuck" 0
    assert_equal "$(grep -c '"event":"trash_stuck"' "$POOL/events")" 1
    assert [ ! -e "$STATE/trash/left" ]
}

@test "stats/git says what is used, and git takes its words alone" {
    mount_pool 1 1 -o git=program
    assert_equal "$(cat "$POOL/stats/git")" program
    assert_equal "$(cat "$POOL/config/git")" program
    run bash -c "echo auto >$POOL/config/git"
    assert_failure
    assert_output --partial "Operation not permitted"
    unmount_pool
    run "$AGENTPOOLFS" -o "state_dir=$STATE,git=jgit" "$REPO" "$POOL"
    assert_failure
    assert_output --partial "git: 'jgit' is none of: auto library program"
}
