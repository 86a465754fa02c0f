# What every mount test stands on: a repository, a pool over it, and a teardown that finds what is left.
# Everything lies in one directory of the test's own; processes are ended by pid.

load_library() {
    load "/usr/lib/bats/bats-support/load.bash"
    load "/usr/lib/bats/bats-assert/load.bash"
}

: "${AGENTPOOLFS:=$BATS_TEST_DIRNAME/../../build/fs/agentpoolfs}"

# Root runs all tests; an ordinary user all but those that do what only root may. scripts/check takes no other reason
# for a skip than one that begins as this one.
needs_root() { # WHAT IT DOES
    is_root || skip "needs root: $1"
}

is_root() {
    [ "$(id -u)" = 0 ]
}

may_overlay() {
    is_root
}

# Waits until a command succeeds; the deadline is generous, for machines that are busy.
await() {
    local deadline=$((SECONDS + 120)) pause=0.02 n=0
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS > deadline)); then
            echo "still not: $*" >&2
            status_of_pool >&2
            return 1
        fi
        if ((++n > 20)); then pause=0.1; fi # a machine with much to do has less to do so
        sleep "$pause"
    done
}

status_of_pool() {
    cat "$POOL/status" "$DIR/log" 2>&1 || true
}

value_is() { # FILE VALUE
    [ "$(cat "$1")" = "$2" ]
}

contains() { # FILE TEXT
    grep -qF -- "$2" "$1"
}

# The program of an agent; a moment after its start it is not known yet.
program_of() { # DIRECTORY
    await grep -q . "$1/pid"
    cat "$1/pid"
}

gone() { # PID: it has ended, reaped or not
    ! kill -0 "$1" 2>/dev/null || grep -qs '^State:.Z' "/proc/$1/status"
}

make_repo() { # PATH [FILES]
    git init -q -b main "$1"
    git -C "$1" config user.name user
    git -C "$1" config user.email user@example.org
    local i
    for ((i = 0; i < ${2:-3}; i++)); do echo "$i" >"$1/file-$i"; done
    git -C "$1" add .
    git -C "$1" commit -qm first
}

# From now on git takes until $DIR/go is there to add a file *.slow; $DIR/begun: it has begun to.
slow_git() {
    REPO_CHANGED=yes
    git -C "$REPO" config filter.slow.clean \
        "touch '$DIR/begun'; timeout 200 sh -c 'until [ -e $DIR/go ]; do sleep 0.05; done'; cat"
    echo '*.slow filter=slow' >"$REPO/.git/info/attributes"
}

# Mounts a pool of $1..$2 agents and waits until the minimum is ready. More words go on the command line.
mount_pool() { # MIN MAX [OPTION...] [-- PROGRAM...]
    mount_again "$@"
    await value_is "$POOL/stats/idle_agents" "$1"
}

# The same where agents and leases are there already: waits until the mount answers.
mount_again() { # MIN MAX [OPTION...] [-- PROGRAM...]
    start_pool "$@"
    await pool_answers
}

# Starts the daemon, and waits for nothing.
start_pool() { # MIN MAX [OPTION...] [-- PROGRAM...]
    local min=$1 max=$2
    shift 2
    local options=()
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    mkdir -p "$POOL" 2>/dev/null || true # a dead mount may be there
    "$AGENTPOOLFS" -f -o "state_dir=$STATE,min_pool_size=$min,max_pool_size=$max" "${options[@]}" \
        "$REPO" "$POOL" "$@" >"$DIR/log" 2>&1 3>&- &
    DAEMON=$!
}

# Ends the daemon as nothing announces it.
crash_pool() {
    kill -9 "$DAEMON"
    wait "$DAEMON" 2>/dev/null || true
    DAEMON=
}

pool_answers() {
    [ -e "$POOL/acquire" ] || { gone "$DAEMON" && exit 1; }
}

unmount_pool() {
    [ -n "${DAEMON:-}" ] || return 0
    if mountpoint -q "$POOL"; then fusermount3 -u "$POOL" || umount -l "$POOL"; fi
    local result=0
    await gone "$DAEMON" || { result=1; kill -9 "$DAEMON"; }
    wait "$DAEMON" 2>/dev/null || true
    DAEMON=
    return $result
}

# Processes that have anything to do with this test, but for the test itself.
left_processes() {
    local pid
    for pid in /proc/[0-9]*; do
        pid=${pid#/proc/}
        [ "$pid" = "$$" ] || [ "$pid" = "$BASHPID" ] && continue
        if { tr "\0" " " <"/proc/$pid/cmdline"; } 2>/dev/null | grep -qF "$DIR"; then
            echo "$pid $(tr '\0' ' ' <"/proc/$pid/cmdline")"
        fi
    done
}

# Control groups that a daemon has left, with what is in them.
remove_groups() {
    local group
    group=$(cat "$STATE/cgroup" 2>/dev/null) || return 0
    [[ $group == */agentpoolfs-* ]] && [ -d "$group" ] || return 0
    echo 1 >"$group/cgroup.kill"
    await grep -q 'populated 0' "$group/cgroup.events"
    find "$group" -depth -type d -exec rmdir {} \;
}

nothing_runs() {
    [ -z "$(left_processes)" ]
}

nothing_left() {
    nothing_runs && [ ! -e "$STATE/tmux.sock" ]
}

common_setup() {
    load_library
    DIR=$(mktemp -d /tmp/agentpool-bats-XXXXXX)
    REPO=$DIR/repo POOL=$DIR/pool STATE=$DIR/state
    export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
    mkdir "$DIR/home"
    export HOME=$DIR/home # the agents' shells start alike on every machine
    unset TMUX TMUX_PANE
    make_repo "$REPO"
    BEFORE=$(fingerprint)
}

# The user's own side of the repository: checkout, index, branches that are not the pool's, stash.
fingerprint() {
    git -C "$REPO" status --porcelain
    git -C "$REPO" for-each-ref --format='%(refname) %(objectname)' | grep -v -e refs/heads/agentpool/ -e refs/agentpool/
    cat "$REPO"/.git/HEAD "$REPO"/.git/config
    md5sum <"$REPO/.git/index"
}

common_teardown() {
    local result=0 pid
    unmount_pool || result=1
    if [ "${CHECK_LEFT:-yes}" = yes ]; then
        await nothing_left || { left_processes >&2; result=1; }
        if mountpoint -q "$POOL"; then echo "the mount is left" >&2; result=1; fi
        if [ -e "$STATE/cgroup" ]; then echo "control groups are left: $(cat "$STATE/cgroup")" >&2; result=1; fi
        if [ -e "$STATE/worktrees" ]; then ls -R "$STATE/worktrees" >&2; result=1; fi
        if [ "$(git -C "$REPO" worktree list | wc -l)" != 1 ]; then
            git -C "$REPO" worktree list >&2
            result=1
        fi
        if [ "$(fingerprint)" != "$BEFORE" ] && [ "${REPO_CHANGED:-no}" = no ]; then
            echo "the user's side of the repository has changed" >&2
            result=1
        fi
        git -C "$REPO" fsck --no-progress >&2 || result=1
        # who mounts is told whom he waits for where that takes more than a second, as on a busy machine
        if [ -e "$DIR/log" ] && [ "${LOG_EXPECTED:-no}" = no ] && grep -v '^agentpoolfs: waiting for ' "$DIR/log" >&2; then
            result=1
        fi
    fi
    # whatever happened: end what is ours, and only that
    while read -r pid _; do
        if [ -n "$pid" ]; then kill -9 "$pid" 2>/dev/null || true; fi
    done < <(left_processes)
    if mountpoint -q "$POOL"; then umount -l "$POOL"; fi
    remove_groups
    rm -rf "$DIR"
    return $result
}
