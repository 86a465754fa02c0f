# What every mount test stands on: a repository, a pool over it, and a teardown that finds what is left.
# Everything lies in one directory of the test's own; processes are ended by pid.
# What every test does, and what waits again and again, starts few programs: they are most of what a test costs.

load_library() { # without their load.bash, which starts a dirname for each of them
    local file
    for file in /usr/lib/bats/bats-{support,assert}/src/*.bash; do
        # shellcheck disable=SC1090
        source "$file"
    done
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

# Whether worktrees are overlays, which an ordinary user has inside namespaces of the daemon's.
may_overlay() {
    is_root || unshare -Urm true 2>/dev/null
}

# git as an agent runs it: in a worktree, where those are inside. Outside it fails where it resolves links by itself.
git() {
    case "$PWD/ $*" in
    *"$STATE/worktrees/"*)
        if [ -n "${DAEMON:-}" ] && [ -e "/proc/$DAEMON/ns/user" ] && ! [ /proc/self/ns/user -ef "/proc/$DAEMON/ns/user" ]; then
            nsenter -t "$DAEMON" -U -m --preserve-credentials --wdns="$PWD" git "$@"
            return
        fi
        ;;
    esac
    command git "$@"
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
        pause $pause
    done
}

# Sleeps without a program: reads from a pipe that nobody writes to.
pause() { # SECONDS
    if [ -z "${NEVER:-}" ]; then exec {NEVER}<> <(:); fi
    read -rt "$1" -u "$NEVER" || true
}

status_of_pool() {
    cat "$POOL/status" "$DIR/log" "$POOL"/agents/*/why 2>&1 || true
    tail -n 12 "$POOL/events" 2>&1 || true
}

value_is() { # FILE VALUE
    local IFS=$'\n' lines
    mapfile -t lines <"$1" && [ "${lines[*]}" = "$2" ]
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
    local stat
    kill -0 "$1" 2>/dev/null || return 0
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null && [[ $stat == *") Z "* ]]
}

end_tmux() { # SOCKET: and its server is gone, so that the next one there is another
    local pid
    pid=$(tmux -S "$1" display-message -p '#{pid}' 2>/dev/null) || return 0
    tmux -S "$1" kill-server
    await gone "$pid"
}

kill_children() { # PID...: those that are still this shell's: a number that was waited for is soon another's
    local pid
    for pid in "$@"; do
        if grep -q "^PPid:.$BASHPID\$" "/proc/$pid/status" 2>/dev/null; then kill -9 "$pid" 2>/dev/null || true; fi
    done
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

# Starts the daemon, and waits for nothing. POOL_OPTIONS are options of every mount, such as sandbox=yes.
start_pool() { # MIN MAX [OPTION...] [-- PROGRAM...]
    local min=$1 max=$2
    shift 2
    local options=()
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    mkdir -p "$POOL" 2>/dev/null || true # a dead mount may be there
    "$AGENTPOOLFS" -f -o "state_dir=$STATE,min_pool_size=$min,max_pool_size=$max${POOL_OPTIONS:+,$POOL_OPTIONS}" "${options[@]}" \
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

# Processes that have anything to do with this test, but for the test itself: pid and command line. One grep reads them
# all, which gets what it looks for by standard input so that its own command line does not have it.
left_processes() {
    local file words
    # shellcheck disable=SC2062 # not a pattern but a file, standard input
    while read -r file; do
        [ "$file" = "/proc/$$/cmdline" ] || [ "$file" = "/proc/$BASHPID/cmdline" ] && continue
        words=() # it may have ended since
        { mapfile -d '' words <"$file"; } 2>/dev/null || true
        [ ${#words[@]} -eq 0 ] || echo "${file//[^0-9]/} ${words[*]}"
    done < <(grep -lsF --file=- /proc/[0-9]*/cmdline <<<"$DIR")
}

# Control groups that a daemon has left, with what is in them.
remove_groups() {
    local group
    [ -e "$STATE/cgroup" ] || return 0
    group=$(cat "$STATE/cgroup")
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

# bats notes before every command where it is, which takes longer than most commands do: here and in libraries the call
# from the test is what it notes.
note_tests_alone() {
    trap 'case $BASH_SOURCE in /usr/* | */helper.bash) ;; *) bats_debug_trap "$BASH_SOURCE" ;; esac' DEBUG
}

common_setup() {
    note_tests_alone
    load_library
    DIR=$(mktemp -d "${TMPDIR:-/tmp}/agentpool-bats-XXXXXX")
    REPO=$DIR/repo POOL=$DIR/pool STATE=$DIR/state
    export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
    export HOME=$DIR/home # the agents' shells start alike on every machine
    unset TMUX TMUX_PANE XDG_STATE_HOME
    local first=$BATS_FILE_TMPDIR/first
    if [ ! -e "$first" ]; then # the first test of a file makes what all begin with
        mkdir -p "$first/home"
        make_repo "$first/repo"
        rm -f "$first"/repo/.git/hooks/*.sample
    fi
    cp -a "$first/." "$DIR"
    BEFORE=$(fingerprint) # git status knows the copies from now on
}

# The user's own side of the repository: checkout, index, branches that are not the pool's, stash.
fingerprint() ( # in a process of its own, as it goes there
    git -C "$REPO" status --porcelain
    git -C "$REPO" for-each-ref --format='%(refname) %(objectname)' | grep -v -e refs/heads/agentpool/ -e refs/agentpool/
    cd "$REPO/.git" && md5sum HEAD config index
)

# Has every saving fail by a filter of the user's, which is required; and be well again.
refuse_to_save() {
    git -C "$REPO" config filter.broken.clean 'echo the filter is broken >&2; false'
    git -C "$REPO" config filter.broken.required true
    echo '* filter=broken' > "$REPO/.git/info/attributes"
}

have_saved() {
    rm "$REPO/.git/info/attributes"
    git -C "$REPO" config --remove-section filter.broken
}

common_teardown() {
    local result=0 pid
    unmount_pool || result=1
    if [ "${CHECK_LEFT:-yes}" = yes ]; then
        await nothing_left || { left_processes >&2; result=1; }
        if mountpoint -q "$POOL"; then echo "the mount is left" >&2; result=1; fi
        if [ -e "$STATE/cgroup" ]; then echo "control groups are left: $(cat "$STATE/cgroup")" >&2; result=1; fi
        if [ -e "$STATE/worktrees" ]; then ls -R "$STATE/worktrees" >&2; result=1; fi
        if [ -n "$(compgen -G "$REPO/.git/worktrees/*")" ]; then
            git -C "$REPO" worktree list >&2
            result=1
        fi
        if [ "$(fingerprint)" != "$BEFORE" ] && [ "${REPO_CHANGED:-no}" = no ]; then
            echo "the user's side of the repository has changed:" >&2
            diff <(echo "$BEFORE") <(fingerprint) >&2
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
