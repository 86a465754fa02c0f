# How a pool starts: what it inherits, what it refuses before anything is made, and who was there before.

load helper

setup() { common_setup; }
teardown() {
    if [ -n "${SECOND:-}" ]; then kill "$SECOND" 2>/dev/null || true; fi
    if [ -n "${MANAGER:-}" ]; then kill "$MANAGER" 2>/dev/null || true; fi
    common_teardown
}

refused() { # STATUS SENTENCE WORD...: the command is refused so, in one line
    local code=$1 sentence=$2
    shift 2
    mkdir -p "$POOL"
    run timeout 60 "$AGENTPOOLFS" "$@" 3>&-
    assert_equal "$status" "$code"
    assert_output --partial "$sentence"
    assert_equal "${#lines[@]}" 1
}

# What a program sees of its own process, through a prompt.
asked() { # COMMAND
    echo "$1" > "$POOL/leases/job/prompt"
    cat "$POOL/leases/job/response"
}

# Starts the daemon by a command that has it inherit something, with agents of $PROGRAM.
start_by() { # COMMAND...
    mkdir -p "$POOL"
    "$@" "$AGENTPOOLFS" -f -o "state_dir=$STATE,min_pool_size=1,max_pool_size=1" "$REPO" "$POOL" -- "${PROGRAM:-bash}" \
        >"$DIR/log" 2>&1 3>&- &
    DAEMON=$!
    await value_is "$POOL/stats/idle_agents" 1
}

# --- what is inherited ---

@test "signals that whoever starts it ignores or blocks make no difference, to it and to agents" {
    start_by python3 -c 'import os, signal, sys
for s in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(s, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
os.execv(sys.argv[1], sys.argv[1:])'
    echo job > "$POOL/acquire"
    run asked "sh -c 'grep -E \"^Sig(Blk|Ign)\" /proc/self/status'"
    assert_line --regexp '^SigBlk:\s*0*$'
    assert_line --regexp '^SigIgn:\s*0*$'
    echo job > "$POOL/release"
    kill -INT "$DAEMON"
    await gone "$DAEMON"
}

@test "without standard descriptors, home, PATH and working directory it serves" {
    mkdir "$DIR/away"
    start_by bash -c 'cd "$0" && rmdir "$0" && exec env -u HOME -u PATH "$@" <&- >&- 2>&-' "$DIR/away"
    local environment
    environment=/proc/$(program_of "$POOL/agents/agent-1")/environ
    await grep -q . "$environment" # its pid is known before it is executed
    run tr '\0' '\n' < "$environment"
    assert_line "HOME=$(getent passwd "$(id -u)" | cut -d: -f6)"
    assert_line PATH=/usr/local/bin:/usr/bin:/bin
    assert_line "USER=$(id -un)"
}

@test "a umask that takes from the owner takes nothing from him" {
    start_by bash -c 'umask 0777; exec "$@"' _
    echo job > "$POOL/acquire"
    asked 'echo text > file'
    assert_equal "$(stat -c %a "$POOL/leases/job/worktree/file")" 600
    echo job > "$POOL/release"
    assert_equal "$(git -C "$REPO" show agentpool/job:file)" text
}

@test "it may have as many files open as the hard limit says, and programs as many as before" {
    start_by prlimit --nofile=200:4000
    assert_equal "$(awk '/^Max open files/ {print $4}' "/proc/$DAEMON/limits")" 4000
    echo 'ulimit -Sn > limit; git init -q x && cd x && git config alias.limit "!ulimit -Sn" && git limit > ../of-git' \
        > "$POOL/config/setup"
    echo recycle > "$POOL/agents/agent-1/ctl"
    await value_is "$POOL/agents/agent-1/recycles" 1
    echo job > "$POOL/acquire"
    assert_equal "$(asked 'ulimit -Sn; ulimit -Hn; cat limit of-git' | tr '\n' ' ')" "200 4000 200 200 "
    echo "job discard" > "$POOL/release"
}

@test "fewer files than its agents need are told, with how many it takes" {
    LOG_EXPECTED=yes
    start_by prlimit --nofile=200:200
    assert contains "$DIR/log" "200 files can be open at once, and hard_cap=10 agents need"
}

@test "what git hands to a hook reaches neither the pool's commits nor agents" {
    REPO_CHANGED=yes
    cat > "$REPO/.git/hooks/post-commit" <<HOOK
#!/bin/sh
env | grep ^GIT_ > "$DIR/handed"
exec "$AGENTPOOLFS" -o "state_dir=$STATE,min_pool_size=1" "$REPO" "$POOL" > "$DIR/log" 2>&1
HOOK
    chmod +x "$REPO/.git/hooks/post-commit"
    mkdir "$POOL"
    unset GIT_SSL_CAINFO
    GIT_AUTHOR_NAME=hook GIT_AUTHOR_EMAIL=hook@x GIT_AUTHOR_DATE='@1000000000 +0000' GIT_SSH_COMMAND='ssh -x' \
        git -C "$REPO" commit -q --allow-empty -m by-hook 3>&-
    DAEMON=$(cat "$STATE/lock")
    rm "$REPO/.git/hooks/post-commit"
    assert contains "$DIR/handed" GIT_AUTHOR_DATE
    echo job > "$POOL/acquire"
    assert_equal "$(asked 'env | grep ^GIT_ | sort | cut -d= -f1' | tr '\n' ' ')" \
        "GIT_CONFIG_GLOBAL GIT_CONFIG_NOSYSTEM GIT_EXEC_PATH GIT_SSH_COMMAND "
    echo work > "$(readlink "$POOL/leases/job/worktree")/work"
    echo job > "$POOL/release"
    assert_equal "$(git -C "$REPO" log -1 --format='%an %as' agentpool/job)" "user $(date -u +%F)"
}

@test "an author that is set on purpose stays, outside of git" {
    start_by env GIT_AUTHOR_NAME=somebody GIT_AUTHOR_EMAIL=some@body GIT_INTERNAL_GETTEXT_TEST=1
    echo job > "$POOL/acquire"
    assert_equal "$(asked 'echo $GIT_AUTHOR_NAME$GIT_INTERNAL_GETTEXT_TEST')" somebody
    echo job > "$POOL/release"
}

@test "a descriptor of whoever starts it is not kept, and reaches no agent" {
    exec 7> "$DIR/locked"
    flock -n 7
    mkdir "$POOL"
    "$AGENTPOOLFS" -o "state_dir=$STATE" "$REPO" "$POOL" 3>&-
    exec 7>&-
    DAEMON=$(cat "$STATE/lock")
    flock -n "$DIR/locked" true
    await value_is "$POOL/stats/idle_agents" 1
}

# Begins to listen at $DIR/manager, or at that name in the abstract namespace; what is heard is in $DIR/heard.
begin_manager() { # ADDRESS
    python3 "$BATS_TEST_DIRNAME/manager.py" "$1" "$POOL" > "$DIR/heard" 3>&- &
    MANAGER=$!
    await contains "$DIR/heard" listens
}

end_manager() {
    kill "$MANAGER"
    wait "$MANAGER" || true
    MANAGER=
}

@test "a service manager hears when the mount answers and when the pool ends, and agents have nothing of it" {
    local address
    for address in "$DIR/manager" "@$DIR/manager"; do
        begin_manager "$address"
        start_by env NOTIFY_SOCKET="$address" WATCHDOG_USEC=1 INVOCATION_ID=2 JOURNAL_STREAM=3
        await value_is "$DIR/heard" "listens
$DAEMON says READY=1: the mount answers"
        echo job > "$POOL/acquire"
        run asked 'echo "$NOTIFY_SOCKET$WATCHDOG_USEC$INVOCATION_ID$JOURNAL_STREAM."'
        assert_output --regexp $'(^|\n)\\.$'
        kill "$DAEMON"
        await value_is "$DIR/heard" "listens
$DAEMON says READY=1: the mount answers
$DAEMON says STOPPING=1"
        await gone "$DAEMON"
        end_manager
    done
}

@test "a service manager hears nothing of a start that fails, nor of a daemon in the background" {
    begin_manager "$DIR/manager"
    export NOTIFY_SOCKET=$DIR/manager
    refused 1 "names no commit" -f -o "state_dir=$STATE,base=none" "$REPO" "$POOL"
    "$AGENTPOOLFS" -o "state_dir=$STATE,min_pool_size=1" "$REPO" "$POOL" 3>&-
    DAEMON=$(cat "$STATE/lock")
    unmount_pool
    value_is "$DIR/heard" listens
    end_manager
}

@test "home and state directory are those of the user that it runs as, whatever HOME says" {
    needs_root "to be another user's"
    mkdir "$DIR/foreign"
    chown 65534 "$DIR/foreign"
    unset XDG_STATE_HOME
    export XDG_CONFIG_HOME=$DIR/foreign/config XDG_CACHE_HOME=$DIR/foreign
    PROGRAM=sh # reads nothing of a home
    start_by env HOME="$DIR/foreign"
    echo job > "$POOL/acquire"
    run asked 'echo "$HOME $XDG_CONFIG_HOME $XDG_CACHE_HOME."'
    assert_line "$(getent passwd 0 | cut -d: -f6)  ."
    echo job > "$POOL/release"
}

@test "an ordinary user mounts by his line of fstab, with no option of mount(8) in the way" {
    needs_root "for a namespace of mounts"
    command -v mount.fuse3 > /dev/null || skip "mount.fuse3 is not installed"
    chmod 755 "$DIR"
    mkdir "$DIR/bin" "$DIR/of"
    ln -s "$(realpath "$AGENTPOOLFS")" "$DIR/bin/agentpoolfs"
    cp -r "$REPO" "$DIR/of/repo"
    mkdir "$DIR/of/pool"
    printf '%s\n' "$DIR/of/repo $DIR/of/pool fuse.agentpoolfs user,noauto,nofail,_netdev,x-systemd.idle-timeout=1,min_pool_size=1,state_dir=$DIR/of/state 0 0" > "$DIR/fstab"
    chown -R 65534:65534 "$DIR/of"
    printf '#!/bin/sh\nexec mount.fuse3 "$@" -t fuse.agentpoolfs\n' > "$DIR/helper"
    chmod 755 "$DIR/helper"
    cat > "$DIR/script" <<'SCRIPT'
set -e
mknod "$DIR/fuse" c 10 229 && chmod 666 "$DIR/fuse" && mount --bind "$DIR/fuse" /dev/fuse
mount --bind "$DIR/fstab" /etc/fstab
mount --bind "$DIR/bin" /usr/local/bin # where mount.fuse looks
helper=/sbin/mount.fuse.agentpoolfs # is asked before it, and has its own agentpoolfs: tests/install has that
if [ -e $helper ]; then mount --bind "$DIR/helper" $helper; fi
as() { setpriv --reuid=65534 --regid=65534 --clear-groups -- env -u HOME -u XDG_STATE_HOME "$@"; }
as mount "$DIR/of/pool"
as sh -c "echo job timeout=1m > '$DIR/of/pool/acquire'; cat '$DIR/of/pool/leases/job/state'; stat -c %u '$DIR/of/state'"
daemon=$(cat "$DIR/of/state/lock")
as umount "$DIR/of/pool"
tail -f --pid="$daemon" /dev/null
SCRIPT
    DIR=$DIR run timeout 100 unshare -m bash "$DIR/script" 3>&-
    assert_output $'active\n65534'
    assert_success
}

@test "a directory of profiles that cannot be read is passed over, with a word" {
    needs_root "to be another user"
    LOG_EXPECTED=yes CHECK_LEFT=no
    chmod 755 "$DIR"
    cp -r "$REPO" "$DIR/of"
    mkdir -p "$DIR/of-state" "$DIR/of-pool" "$DIR/config/agentpoolfs/programs"
    chmod 700 "$DIR/config/agentpoolfs/programs"
    chown -R 65534 "$DIR/of" "$DIR/of-state" "$DIR/of-pool"
    # it goes on to what is wrong next
    run setpriv --reuid=65534 --regid=65534 --clear-groups -- env XDG_CONFIG_HOME="$DIR/config" "$AGENTPOOLFS" \
        -o "state_dir=$DIR/of-state,base=none" "$DIR/of" "$DIR/of-pool"
    assert_line "agentpoolfs: no profiles are taken from $DIR/config/agentpoolfs/programs: Permission denied"
    assert_line --partial "base: 'none' names no commit"
}

# --- where the state directory may be ---

@test "a state directory at, above or below the mount point is refused, and nothing is made" {
    mkdir "$POOL"
    ln -s "$POOL" "$DIR/link"
    local before place
    before=$(cd "$DIR" && find . -path ./repo -prune -o -print0 | sort -z | md5sum)
    for place in "$POOL" "$POOL/" "$POOL/a/b" "$DIR/link/state" "$DIR/none/../pool/x"; do
        refused 1 "in the mount point" -o "state_dir=$place" "$REPO" "$POOL"
    done
    mkdir -p "$DIR/above/pool"
    refused 1 "in the state directory $DIR/above" -o "state_dir=$DIR/above" "$REPO" "$DIR/above/pool"
    rm -r "$DIR/above"
    assert_equal "$(cd "$DIR" && find . -path ./repo -prune -o -print0 | sort -z | md5sum)" "$before"
}

@test "a state directory in a checkout or git directory of the repository is refused, by whatever path" {
    REPO_CHANGED=yes
    git -C "$REPO" worktree add -q --detach "$DIR/linked"
    ln -s "$REPO" "$DIR/link"
    local place
    for place in "$REPO" "$REPO/a/b" "$DIR/link/state" "$REPO/.git/state" "$DIR/linked/state" "$DIR/x/../repo/.git"; do
        refused 1 "of the repository itself" -o "state_dir=$place" "$REPO" "$POOL"
        refused 1 "of the repository itself" -o "state_dir=$place" "$DIR/linked" "$POOL"
    done
    (cd "$REPO" && refused 1 "of the repository itself" -o state_dir=state . "$POOL")
    if [ "$(id -u)" = 0 ]; then
        mkdir "$DIR/bound"
        mount --bind "$REPO" "$DIR/bound"
        refused 1 "of the repository itself" -o "state_dir=$DIR/bound/state" "$REPO" "$POOL"
        umount "$DIR/bound"
    fi
    assert_equal "$(git -C "$REPO" status --porcelain)" ""
    assert [ ! -e "$REPO/.git/state" ]
    git -C "$REPO" worktree remove "$DIR/linked"
}

@test "a directory that is neither empty nor a state directory is refused and left as it is" {
    mkdir "$STATE"
    chmod 755 "$STATE"
    echo mine > "$STATE/notes"
    refused 1 "notes is in it" -o "state_dir=$STATE" "$REPO" "$POOL"
    assert_equal "$(stat -c %a "$STATE") $(ls -A "$STATE")" "755 notes"
    rm "$STATE/notes"
    echo mine > "$DIR/file"
    refused 1 "Not a directory" -o "state_dir=$DIR/file" "$REPO" "$POOL"
    mount_pool 1 1 # an empty one is taken
    unmount_pool
    echo mine > "$STATE/notes"
    mount_pool 1 1 # and one that it has made, whatever was put there
}

@test "a repository has one default state directory, whichever way it is named" {
    REPO_CHANGED=yes
    export XDG_STATE_HOME=$DIR/xdg
    git -C "$REPO" worktree add -q --detach "$DIR/linked"
    mkdir -p "$POOL" "$REPO/sub"
    ln -s "$REPO" "$DIR/link"
    local name
    for name in "$REPO" "$DIR/linked" "$DIR/link" "$REPO/.git" "$REPO/sub"; do
        "$AGENTPOOLFS" "$name" "$POOL" 3>&-
        STATE=$(echo "$XDG_STATE_HOME"/agentpoolfs/*)
        DAEMON=$(cat "$STATE/lock")
        unmount_pool
    done
    assert_equal "$(ls "$XDG_STATE_HOME/agentpoolfs" | sed 's/-[0-9a-f]*$//')" repo
    # one that was named after a worktree once is gone on with
    mv "$STATE" "${STATE/repo-/linked-}"
    STATE=${STATE/repo-/linked-}
    "$AGENTPOOLFS" "$REPO" "$POOL" 3>&-
    DAEMON=$(cat "$STATE/lock")
    assert_equal "$(ls "$XDG_STATE_HOME/agentpoolfs")" "$(basename "$STATE")"
    git -C "$REPO" worktree remove "$DIR/linked"
}

@test "the name of a default state directory leaves room for a socket, whatever the repository's" {
    export XDG_STATE_HOME=$DIR/xdg
    local name
    mkdir "$POOL"
    for name in "$(printf 'ö%.0s' {1..100})" $'with\nnewline' "a b"; do
        mv "$REPO" "$DIR/$name"
        REPO=$DIR/$name
        "$AGENTPOOLFS" "$REPO" "$POOL" 3>&-
        STATE=$(echo "$XDG_STATE_HOME"/agentpoolfs/*)
        DAEMON=$(cat "$STATE/lock")
        echo job > "$POOL/acquire"
        echo work > "$(readlink "$POOL/leases/job/worktree")/work"
        echo job > "$POOL/release"
        assert_equal "$(git -C "$REPO" show agentpool/job:work)" work
        git -C "$REPO" branch -q -D agentpool/job
        unmount_pool
        printf '%s' "$(basename "$STATE")" | iconv -f UTF-8 > /dev/null
        rm -r "$STATE"
    done
    refused 1 "too long for a socket" -o "state_dir=$DIR/$(printf 's%.0s' {1..100})" "$REPO" "$POOL"
}

# --- what cannot be ---

@test "a program that is not there, or cannot be run, is refused at the mount" {
    mkdir "$DIR/bin"
    printf '#!/no/such/interpreter\n' > "$DIR/bin/odd"
    printf 'echo hello\n' > "$DIR/bin/plain"
    chmod +x "$DIR/bin/odd"
    printf 'set = PATH=${HOME}/bin:%s\n' "$DIR/bin" > "$DIR/p.conf"
    local o=(-o "state_dir=$STATE")
    refused 1 "no program 'cluade' in the PATH of agents, which is $PATH" "${o[@]}" "$REPO" "$POOL" -- cluade
    refused 1 "$DIR/bin/odd cannot be run: its interpreter /no/such/interpreter is not there" "${o[@]}" "$REPO" "$POOL" -- "$DIR/bin/odd"
    refused 1 "$DIR/bin/plain is not executable" "${o[@]}" "$REPO" "$POOL" -- "$DIR/bin/plain"
    refused 1 "$DIR/bin is a directory" "${o[@]}" "$REPO" "$POOL" -- "$DIR/bin"
    refused 1 "No such file" "${o[@]}" "$REPO" "$POOL" -- "$DIR/bin/none"
    PATH=$DIR/bin:$PATH refused 1 "$DIR/bin/plain is not executable" "${o[@]}" "$REPO" "$POOL" -- plain
    refused 1 "no program 'git' in the PATH of agents, which is $HOME/bin:$DIR/bin" -o "program_profile=$DIR/p.conf" "${o[@]}" "$REPO" "$POOL" -- git
    assert [ ! -e "$STATE" ]
}

@test "a program without a first line is run by sh, one in the repository in each worktree" {
    printf 'echo it is $AGENTPOOL_NAME; exec sleep 1000\n' > "$REPO/program"
    chmod +x "$REPO/program"
    refused 1 "HEAD has no such executable file" -o "state_dir=$STATE" "$REPO" "$POOL" -- ./none
    git -C "$REPO" add program
    git -C "$REPO" commit -qm program
    BEFORE=$(fingerprint)
    mount_pool 1 1 -- ./program
    await contains "$POOL/agents/agent-1/output" "it is agent-1"
}

@test "a base that is not there is refused at the mount" {
    refused 1 "base: 'nowhere' names no commit" -o "state_dir=$STATE,base=nowhere" "$REPO" "$POOL"
    assert [ ! -e "$STATE" ]
}

@test "an option that there is not is named, with the nearest one, and exit code 2" {
    refused 2 "no option -o min_pol_size, the nearest is min_pool_size" -o "state_dir=$STATE,min_pol_size=2" "$REPO" "$POOL"
    refused 2 "no option -o allow_othr, the nearest is allow_other" -o "allow_othr" "$REPO" "$POOL"
    refused 2 "no option -o max_pool, the nearest is max_pool_size" -o "noauto,max_pool=3" "$REPO" "$POOL"
    refused 2 "no option -o qqqqqqqqqqqq: see" -o qqqqqqqqqqqq "$REPO" "$POOL"
    refused 2 "max_read" -o max_read=many "$REPO" "$POOL"
    assert [ ! -e "$STATE" ]
    mount_pool 1 1 -o "ro,noatime,max_read=65536,fsname=mine,defaults,noauto,nofail,user=me,comment=c,x-a.b=c"
    run grep -c "^mine $POOL fuse.agentpoolfs ro," /proc/self/mounts
    assert_output 1
}

@test "a program without -- before it is told how it was meant" {
    refused 2 "a program stands behind --: agentpoolfs $REPO $POOL -- claude" "$REPO" "$POOL" claude
    refused 2 "a program stands behind --: agentpoolfs $REPO $POOL -- claude" "$REPO" "$POOL" claude --resume
}

@test "a plain file that a write into an unmounted pool made is named in the refusal" {
    mkdir "$POOL"
    echo job > "$POOL/acquire"
    echo job > "$POOL/release"
    echo x > "$POOL/other"
    refused 1 "beside 1 other" -o "state_dir=$STATE" "$REPO" "$POOL"
    assert_output --partial acquire
    assert_output --partial release
    assert [ ! -e "$STATE" ]
}

# --- mount points ---

@test "a dead mount is taken away whatever is in its path, and by whatever path it is named" {
    local name
    for name in 'my pool' $'tab\there' 'back\slash' 'with\040digits' '#hash' 'ünï'; do
        POOL="$DIR/$name"
        mount_pool 1 1
        crash_pool
        mount_pool 1 1
        unmount_pool
    done
    POOL=$DIR/plain
    mount_pool 1 1
    crash_pool
    ln -s "$POOL" "$DIR/link"
    mkdir "$DIR/sub"
    local at=$POOL
    for name in "$DIR/link" "$at//." "$DIR/sub/../plain/" "$at/../plain"; do
        POOL=$name
        mount_again 1 1
        crash_pool
    done
    POOL=$at
    umount -l "$POOL"
    mount_pool 1 1
}

@test "a newline in a mount point is refused, and the sentence is one line" {
    POOL=$DIR/$'a\nb'
    refused 1 "$DIR/a\\nb has a newline" -o "state_dir=$STATE" "$REPO" "$POOL"
    assert [ ! -e "$STATE" ]
}

@test "a mount point in the checkout is told with the line that has git pass it by, unless it does" {
    LOG_EXPECTED=yes REPO_CHANGED=yes
    POOL="$REPO/my [pool]"
    mount_pool 1 1
    run cat "$DIR/log"
    assert_output --partial "with the line /my\\ \\[pool]/ in $REPO/.git/info/exclude"
    unmount_pool
    printf '%s\n' '/my\ \[pool]/' >> "$REPO/.git/info/exclude"
    assert_equal "$(git -C "$REPO" status --porcelain --ignored)" "" # an empty directory is nothing to git
    mount_pool 1 1
    assert_equal "$(cat "$DIR/log")" ""
    unmount_pool
    git -C "$REPO" worktree add -q --detach "$DIR/linked"
    POOL=$DIR/linked/sub/pool
    mkdir -p "$POOL"
    mount_pool 1 1
    assert contains "$DIR/log" "with the line /sub/pool/ in $REPO/.git/info/exclude"
    unmount_pool
    git -C "$REPO" worktree remove --force "$DIR/linked"
}

# --- who was there before ---

@test "it can be mounted again right behind an unmount, ten times" {
    mkdir "$POOL"
    local i
    for i in 1 2 3 4 5 6 7 8 9 10; do
        "$AGENTPOOLFS" -o "state_dir=$STATE" "$REPO" "$POOL" 3>&-
        DAEMON=$(cat "$STATE/lock")
        [ "$i" = 10 ] || fusermount3 -u "$POOL"
    done
    await value_is "$POOL/stats/idle_agents" 1
}

@test "a mount behind one that ends slowly waits for it, and says so" {
    LOG_EXPECTED=yes
    slow_git
    local how first
    for how in fusermount3 kill; do
        rm -f "$DIR/go" "$DIR/begun"
        mount_pool 1 1
        echo job > "$POOL/acquire"
        echo work > "$(readlink "$POOL/leases/job/worktree")/$how.slow"
        first=$DAEMON
        if [ $how = kill ]; then kill "$first"; else fusermount3 -u "$POOL"; fi
        await test -e "$DIR/begun" # its work is being saved
        start_pool 1 1
        await contains "$DIR/log" "waiting for the pool of $STATE, process $first, to end"
        touch "$DIR/go"
        await value_is "$POOL/stats/idle_agents" 1
        assert gone "$first"
        unmount_pool
        git -C "$REPO" cat-file -e "agentpool/job:$how.slow"
    done
}

@test "a mount beside one that serves is refused at once, wherever that is mounted" {
    mount_pool 1 1
    mkdir "$DIR/second"
    local begin=$SECONDS
    run timeout 60 "$AGENTPOOLFS" -o "state_dir=$STATE" "$REPO" "$DIR/second"
    assert_output --partial "in use by process $DAEMON"
    run timeout 60 "$AGENTPOOLFS" -o "state_dir=$STATE" "$REPO" "$POOL"
    assert_output --partial "in use"
    run timeout 60 "$AGENTPOOLFS" -o "state_dir=$DIR/other" "$REPO" "$POOL"
    assert_output --partial "in use by another pool"
    assert [ ! -e "$DIR/other" ]
    assert [ $((SECONDS - begin)) -lt 30 ]
}

@test "what setup leaves behind has no lock that the next mount would wait for" {
    # it has a session of its own before its group ends with setup
    mount_pool 1 1 -o "setup=setsid -f sh -c 'echo \$\$ > $DIR/left; exec sleep 1000' >/dev/null 2>&1 </dev/null; until [ -s $DIR/left ]; do sleep 0.05; done"
    local left
    left=$(cat "$DIR/left")
    unmount_pool
    kill -0 "$left"
    mount_pool 1 1 -o setup=
    assert_equal "$(cat "$DIR/log")" "" # nothing was waited for
    kill "$left"
}

@test "the git of a daemon that was killed is waited for by the next" {
    LOG_EXPECTED=yes
    slow_git
    mount_pool 1 1
    echo job > "$POOL/acquire"
    echo work > "$(readlink "$POOL/leases/job/worktree")/a.slow"
    bash -c 'echo job > "$1"' _ "$POOL/release" 2>/dev/null 3>&- &
    await test -e "$DIR/begun"
    crash_pool
    start_pool 1 1
    await contains "$DIR/log" "waiting for what the last daemon has started"
    touch "$DIR/go"
    await value_is "$POOL/stats/idle_agents" 1
    git -C "$REPO" cat-file -e agentpool/job:a.slow
}

# --- what is said ---

@test "the cause that a helper of git tells is passed on, not git's last word alone" {
    REPO_CHANGED=yes
    echo '*.bin filter=media' > "$REPO/.gitattributes"
    echo x > "$REPO/a.bin"
    git -C "$REPO" add .
    git -C "$REPO" commit -qm media
    git -C "$REPO" config filter.media.process 'media-not-there filter-process'
    git -C "$REPO" config filter.media.required true
    mount_again 1 1
    await grep -Eq 'media-not-there.*(not found|Permission denied); fatal: ' "$POOL/stats/breaker_cause"
    printf '#!/bin/sh\necho the hook says: no >&2\necho because of this >&2\nexit 1\n' > "$REPO/.git/hooks/post-checkout"
    chmod +x "$REPO/.git/hooks/post-checkout"
    git -C "$REPO" config --unset filter.media.process
    git -C "$REPO" config filter.media.required false
    await value_is "$POOL/stats/idle_agents" 1
    await contains "$POOL/events" "the hook says: no; because of this"
}

@test "of a setup that says much, the sentence has the end, in one line without colours" {
    mount_again 1 1 -o "setup=seq 1 5000; printf '\\033[31mnpm ERR! missing: left-pad\\033[m\\nsee the log\\n' >&2; exit 7"
    await grep -q . "$POOL/stats/breaker_cause"
    run cat "$POOL/stats/breaker_cause"
    assert_equal "${#lines[@]}" 1
    assert_output --regexp '^setup: exit code 7: … [0-9; ]*npm ERR! missing: left-pad; see the log$'
    assert [ ${#output} -lt 1500 ]
}

@test "a path in a message is whole, however long it is" {
    local long=$DIR
    while [ ${#long} -lt 1000 ]; do long=$long/$(printf 'd%.0s' {1..60}); done
    mkdir -p "$long"
    refused 1 "$long/none" -o "state_dir=$STATE" "$long/none" "$POOL"
    refused 1 "$long is not usable as a git repository" -o "state_dir=$STATE" "$long" "$POOL"
}

# --- the end of the mount ---

@test "the pool ends when nobody here has it mounted, whoever has a copy of the mount or something open in it" {
    needs_root "has a mount namespace"
    mount_pool 1 1
    echo job > "$POOL/acquire"
    echo work > "$POOL/leases/job/worktree/work"
    unshare --mount sleep 1d 3>&- &
    local holder=$!
    await grep -qF " $POOL " "/proc/$holder/mountinfo"
    [ "$(readlink "/proc/$holder/ns/mnt")" != "$(readlink /proc/self/ns/mnt)" ]
    exec 9< "$POOL/README"
    umount -l "$POOL"
    mount -t tmpfs theirs "$POOL" # while the pool ends
    touch "$POOL/theirs"
    await gone "$DAEMON"
    wait "$DAEMON"
    DAEMON=
    exec 9<&-
    kill "$holder"
    assert [ -e "$POOL/theirs" ]
    umount "$POOL"
    assert_equal "$(git -C "$REPO" show agentpool/job:work)" work
}

@test "a mount that is bound elsewhere goes on there when it is unmounted here" {
    needs_root "binds a mount"
    mount_pool 1 1
    mkdir "$DIR/bound"
    mount --bind "$POOL" "$DIR/bound"
    umount "$POOL"
    echo job > "$DIR/bound/acquire"
    assert_equal "$(cat "$DIR/bound/leases/job/lease")" job
    umount "$DIR/bound"
    await gone "$DAEMON"
    wait "$DAEMON"
    DAEMON=
}
