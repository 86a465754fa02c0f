# What wall.bats, open.bats and outcomes stand on: two pools with baits round them, attempts run by an agent of one, and what
# is seen of them from outside. All lies in one directory, $WALL; processes are ended by pid. Secrets begin with $SECRET,
# which no attempt is told.
# shellcheck disable=SC2034 # BATS_TEST_DIRNAME's helper and outcomes use what is set here

here=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
: "${AGENTPOOLFS:=$here/../../build/fs/agentpoolfs}"
# shellcheck source=tests/mount/helper.bash
source "$here/../mount/helper.bash"

readonly CREDENTIALS=".gnupg/private-keys-v1.d/key .aws/credentials .netrc .git-credentials .config/gh/hosts.yml
    .docker/config.json .kube/config .npmrc .pypirc .cargo/credentials.toml .config/gcloud/credentials.db .azure/token.json
    .password-store/key.gpg .local/share/keyrings/login.keyring .config/google-chrome/Default/Cookies"

# --- the ground ---

# As a user has it: all in his home directory, and that not below /tmp, /var/tmp, /run or /dev/shm, which a wall has of its
# own: what lies here is hidden by name or not at all.
make_wall() {
    WALL=$(mktemp -d /var/lib/agentpool-wall-XXXXXX 2>/dev/null || mktemp -d "$HOME/agentpool-wall-XXXXXX")
    export WALL DIR=$WALL REPO=$WALL/home/app POOL=$WALL/home/pool SECRET=secret-$RANDOM$RANDOM MARK=mark-$RANDOM$RANDOM
    export STATE=$WALL/home/.local/state/agentpoolfs/wall HOME=$WALL/home GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
    unset TMUX TMUX_PANE XDG_STATE_HOME XDG_CONFIG_HOME
    OUT=$WALL/home/documents TEMPORARY=$(mktemp -d /tmp/agentpool-wall-XXXXXX) SHARED=$(mktemp /dev/shm/agentpool-wall-XXXXXX)
    RUNTIME=$(mktemp -d /run/lock/agentpool-wall-XXXXXX 2>/dev/null || mktemp -d "$TEMPORARY/runtime-XXXXXX")
    export OUT TEMPORARY SHARED RUNTIME
    PIDS=()
    plant_files
    make_repo "$REPO"
    mkdir "$REPO/tracked"
    echo nothing >"$REPO/tracked/id_ed25519"
    printf '%s\n' '*.log' .wall/ >"$REPO/.gitignore"
    git -C "$REPO" add .
    git -C "$REPO" commit -qm more
    git -C "$REPO" branch precious
    OBJECT=$(echo precious | git -C "$REPO" hash-object -w --stdin)
    make_repo "$HOME/app2"
    start_standins
    export OBJECT GITHUB_TOKEN=$SECRET-environment DEPLOY_SECRET=$SECRET-environment AWS_SECRET_ACCESS_KEY=$SECRET-environment
    export SSH_AUTH_SOCK=$RUNTIME/ssh-agent.sock DBUS_SESSION_BUS_ADDRESS=unix:path=$RUNTIME/bus
}

plant_files() {
    local file
    mkdir -p "$HOME/.ssh" "$OUT" "$WALL/seen" "$WALL/second"
    for file in .ssh/id_ed25519 $CREDENTIALS; do
        mkdir -p "$HOME/$(dirname "$file")"
        echo "$SECRET-$file" >"$HOME/$file"
    done
    echo "$SECRET-temporary" | tee "$TEMPORARY/secret" "$RUNTIME/secret" >"$WALL/seen/secret"
    echo "$SECRET-shared" >"$SHARED"
    echo mine >"$OUT/mine"
    echo moved >"$OUT/moved"
    mkdir -p "$HOME/.docker/run" "$HOME/.1password" "$RUNTIME/systemd"
}

background() { # COMMAND...
    "$@" >>"$WALL/seen/background" 2>&1 </dev/null 3>&- 4>&- &
    PIDS+=($!)
}

start_standins() {
    local standins=("/usr/bin/python3" "$here/standins.py") abstract
    background "${standins[@]}" serve "$WALL/seen" "$SECRET" ssh-agent="$RUNTIME/ssh-agent.sock" \
        ssh-agent="$TEMPORARY/ssh-agent.sock" ssh-agent="$HOME/.1password/agent.sock" docker="$RUNTIME/docker.sock" \
        docker="$HOME/.docker/run/docker.sock" bus="$RUNTIME/bus" systemd="$RUNTIME/systemd/private" \
        abstract="@$MARK" loopback=tcp:0
    await test -e "$WALL/seen/serve.ready"
    PASSWORD=$SECRET-victim-environment background "${standins[@]}" victim "$WALL/seen" "$SECRET" "words-of-$SECRET"
    VICTIM=$!
    await test -e "$WALL/seen/victim.ready"
    KEY_NAME=$MARK KEY_NUMBER=0
    if command -v keyctl >/dev/null; then KEY_NUMBER=$(keyctl add user "$KEY_NAME" "$SECRET-key" @u); fi
    export VICTIM KEY_NAME KEY_NUMBER
}

# Mounts both pools: in the first an agent that attacks, one that has a lease beside it, and what a lease has left; in the
# second an agent that attacks without a network, where there is a wall.
mount_pools() { # WALL'S OPTIONS: none, or sandbox=yes
    make_wall
    mount_pool 3 6 ${1:+-o "$1"} || return 1
    FIRST=$DAEMON
    echo old >"$POOL/acquire"
    echo "$SECRET-kept" >"$POOL/leases/old/worktree/secret.log"
    echo old >"$POOL/release"
    for label in attacker second; do
        echo $label >"$POOL/acquire"
        timeout 60 cat "$POOL/leases/$label/wait" >/dev/null
    done
    echo "echo $SECRET-second; echo $SECRET-second > private" >"$POOL/leases/second/prompt"
    timeout 60 cat "$POOL/leases/second/wait" >/dev/null
    background /usr/bin/python3 "$here/standins.py" human "$WALL/seen" "sh $POOL/leases/attacker/attach"
    await test -e "$WALL/seen/human.ready"
    await grep -qa agent- "$WALL/seen/human.screen"
    mount_second "$1" || return 1
    export FIRST SECOND POOL2=$HOME/pool2 PIDS_LEFT="${PIDS[*]}"
    arm "$POOL" && arm "$POOL2"
}

mount_second() { # WALL'S OPTIONS
    local DAEMON DIR=$WALL/second REPO=$HOME/app2 STATE=${STATE}2 POOL=$HOME/pool2
    mount_pool 2 3 ${1:+-o "$1,sandbox_net=no"} || return 1
    SECOND=$DAEMON
    echo attacker >"$POOL/acquire"
    timeout 60 cat "$POOL/leases/attacker/wait" >/dev/null
}

# The limit of the attacker's control group that is there without any controller.
limit_of_attacker() {
    [ ! -e "$STATE/cgroup" ] ||
        echo "$(cat "$STATE/cgroup")/$(basename "$(readlink "$POOL/leases/attacker")")/cgroup.max.descendants"
}

# Gives the agent that attacks in a pool what it needs: the attempts, and all that an attacker could know.
arm() { # POOL
    local tree victim handle
    tree=$(readlink "$1/leases/attacker/worktree")/.wall
    read -ra victim <"$WALL/seen/victim.ready"
    handle=$(/usr/bin/python3 "$here/handle.py" "$HOME/.ssh/id_ed25519")
    mkdir -p "$tree"
    cp -r "$here/attempts" "$tree/attempts"
    cat >"$tree/targets" <<END
T_HOME='$HOME' T_KEY='$HOME/.ssh/id_ed25519' T_CREDENTIALS='${CREDENTIALS//$'\n'/ }' T_OUT='$OUT' T_MARK='$MARK'
T_VICTIM=$VICTIM T_ADDRESS=${victim[0]} T_SIZE=${victim[1]} T_SEGMENT=${victim[2]} T_HANDLE='$handle'
T_SSH_AGENT='$RUNTIME/ssh-agent.sock $TEMPORARY/ssh-agent.sock $HOME/.1password/agent.sock'
T_DOCKER='$RUNTIME/docker.sock $HOME/.docker/run/docker.sock' T_BUS='$RUNTIME/bus' T_SYSTEMD='$RUNTIME/systemd/private'
T_ABSTRACT='@$MARK' T_PORT=$(cat "$WALL/seen/loopback.port") T_RUN='$RUNTIME' T_TMP='$TEMPORARY' T_SHM='$SHARED'
T_POOL='$POOL' T_STATE='$STATE' T_REPO='$REPO' T_POOL2='$POOL2' T_STATE2='${STATE}2'
T_SECOND='$(basename "$(readlink "$POOL/leases/second")")' T_SECOND_TREE='$(readlink "$POOL/leases/second/worktree")'
T_OBJECT='${OBJECT:0:2}/${OBJECT:2}' T_TERMINAL='$(cat "$WALL/seen/human.ready")' T_KEY_NAME='$KEY_NAME' T_KEY_NUMBER='$KEY_NUMBER'
PYTHONDONTWRITEBYTECODE=1
END
}

unmount_pools() {
    local pid result=0
    [ -n "${WALL:-}" ] || return 0
    for label in attacker second spare more; do # what attempts have made of them is nobody's work
        if [ -e "$POOL/leases/$label" ]; then echo "$label discard" >"$POOL/release" || result=1; fi
    done
    DAEMON=${FIRST:-${DAEMON:-}} && unmount_pool || result=1
    if [ -n "${POOL2:-}" ]; then
        if [ -e "$POOL2/leases/attacker" ]; then echo "attacker discard" >"$POOL2/release" || result=1; fi
        if [ -e "$POOL2/leases/stolen" ]; then echo "stolen discard" >"$POOL2/release" || result=1; fi
        if mountpoint -q "$POOL2"; then fusermount3 -u "$POOL2" || result=1; fi
        await gone "$SECOND" || result=1
    fi
    for pid in ${PIDS_LEFT:-${PIDS[*]}}; do kill "$pid" 2>/dev/null || true; done
    await nothing_runs || { left_processes >&2 && result=1; }
    while read -r pid _; do
        if [ -n "$pid" ]; then kill -9 "$pid" 2>/dev/null || true; fi
    done < <(left_processes)
    if mountpoint -q "$POOL"; then umount -l "$POOL"; fi
    if mountpoint -q "$HOME/pool2"; then umount -l "$HOME/pool2"; fi
    remove_groups
    STATE=${STATE}2 remove_groups
    if [ "${KEY_NUMBER:-0}" != 0 ]; then keyctl unlink "$KEY_NUMBER" @u || true; fi
    rm -rf "$WALL" "$TEMPORARY" "$SHARED" "$RUNTIME"
    return $result
}

# --- one attempt ---

attempts() { # the names of all
    local file
    for file in "$here"/attempts/[0-9]*; do
        file=${file##*/}
        echo "${file%.*}"
    done
}

# Has the agent run an attempt. Prints what came of it: open, where it has succeeded, held, or untried, and why. What it
# said is in $WALL/seen/NAME.out.
attempt() { # NAME [POOL]
    local name=$1 pool=${2:-$POOL} tree said hit=no
    case $name in
    *-abstract-socket | *-loopback) pool=${2:-$POOL2} ;;
    esac
    ATTACKER=$pool/leases/attacker
    tree=$(readlink "$ATTACKER/worktree")/.wall
    OUTPUT=$tree/$name.out
    if declare -F "bait_${name#*-}" >/dev/null; then "bait_${name#*-}"; fi
    rm -f "$tree/$name.rc"
    echo "sh .wall/attempts/run $name" >"$ATTACKER/prompt"
    await test -e "$tree/$name.rc"
    said=$(cat "$tree/$name.rc")
    if "hit_${name#*-}" "$said"; then hit=yes; fi
    cp "$OUTPUT" "$WALL/seen/$name.out"
    timeout 60 cat "$ATTACKER/wait" >/dev/null
    case $said,$hit in
    *,yes) echo open ;;
    77,*) echo "untried: $(tail -n 1 "$OUTPUT")" ;;
    0,*) echo "open, as it says itself" ;;
    *) echo held ;;
    esac
}

# --- what is seen from outside: hit_NAME says whether an attempt has succeeded, with its exit status ---

told() { # WHAT...: has the attempt printed one of these secrets?
    local what
    for what in "$@"; do
        if grep -qaF -- "$SECRET-$what" "$OUTPUT"; then return 0; fi
    done
    return 1
}

# What an attempt has begun and others end: awaited where the attempt has been let do it, looked at where it has not.
comes() { # STATUS COMMAND...
    if [ "$1" = 0 ]; then await "${@:2}"; else "${@:2}"; fi
}

has_mark() { # FILE
    grep -qaF -- "$MARK" "$1" 2>/dev/null
}

mark_removed() { # FILE TEXT: has it had the mark? It is as before then
    has_mark "$1" || return 1
    printf '%s\n' "$2" >"$1"
}

hit_ssh-key() { told .ssh/id_ed25519; }
hit_credential-files() { told .; }
hit_tokens-in-the-environment() { told environment; }
hit_environments() { told environment victim-environment; }
hit_ssh-agent() { told ssh-agent; }
hit_list-processes() { grep -qaF "words-of-$SECRET" "$OUTPUT"; }
bait_signal() {
    sleep infinity 3>&- 4>&- &
    SIGNALLED=$!
    set_target T_SIGNAL $SIGNALLED
}
hit_signal() {
    local result=0
    gone "$SIGNALLED" || result=1
    kill -9 "$SIGNALLED" 2>/dev/null || true
    wait "$SIGNALLED" 2>/dev/null || true
    return $result
}
hit_ptrace() { told memory; }
hit_root-of-others() { told .ssh/id_ed25519; }
hit_descriptors-of-others() { told descriptor; }
hit_open-descriptors() { told .ssh/id_ed25519; }
hit_write-by-path() {
    local result=1
    if mark_removed "$OUT/mine" mine || has_mark "$HOME/.bashrc" || has_mark "$HOME/.profile"; then result=0; fi
    rm -f "$HOME/.bashrc" "$HOME/.profile"
    return $result
}
hit_write-through-link() { mark_removed "$OUT/mine" mine; }
hit_hard-link() { [ "$(stat -c %h "$OUT/mine")" -gt 1 ] && rm -f "$OUT/second"; }
hit_rename() { [ ! -e "$OUT/moved" ]; }
hit_bind-mount() { mark_removed "$OUT/mine" mine || told .ssh/id_ed25519; }
hit_unmount-the-wall() { mark_removed "$OUT/mine" mine || told .ssh/id_ed25519; }
hit_fresh-proc() { grep -qaF "words-of-$SECRET" "$OUTPUT"; }
hit_pivot() { told .ssh/id_ed25519; }
hit_enter-namespaces() { told .ssh/id_ed25519; }
hit_file-handle() { told .ssh/id_ed25519; }
hit_raw-device() { [ "$1" = 0 ]; }
hit_tmux-keys() { comes "$1" contains "$POOL/leases/second/output" "typed-$MARK"; }
hit_tmux-run() { told .ssh/id_ed25519; }
hit_store() {
    /usr/bin/python3 -c 'import sqlite3, sys
sys.exit(not sqlite3.connect(sys.argv[1]).execute("SELECT 1 FROM sqlite_master WHERE name = ?", ("wall",)).fetchall())' "$STATE/state.db"
}
hit_state-directory() { told second; }
hit_other-worktree() { told second || [ -e "$POOL/leases/second/worktree/planted" ]; }
hit_kept-work() { told kept; }
hit_other-pool() { [ -e "$POOL2/leases/stolen" ]; }
hit_other-agent() { told second || contains "$POOL/leases/second/output" "prompted-$MARK"; }
hit_acquire() { [ -e "$POOL/leases/more" ]; }
bait_release() { echo spare >"$POOL/acquire"; }
hit_release() { [ ! -e "$POOL/leases/spare" ]; }
bait_config() { CONFIG=$(cat "$POOL/scale" "$POOL/config/max_prompt"); }
hit_config() { [ "$(cat "$POOL/scale" "$POOL/config/max_prompt")" != "$CONFIG" ]; }
# The pool's own branches and objects are none of the attempts': git directories are looked at file by file.
hit_repo-config() { grep -rqaF -- "$MARK" "$REPO/.git/config" "$REPO/.git/hooks" "$REPO/.git/info"; }
hit_repo-refs() {
    [ "$(git -C "$REPO" for-each-ref --format='%(refname)' refs/heads | grep -v /agentpool/ | tr '\n' ' ')" != "refs/heads/main refs/heads/precious " ]
}
hit_repo-objects() {
    local planted
    planted=$(echo "$MARK" | git hash-object --stdin)
    [ ! -e "$REPO/.git/objects/${OBJECT:0:2}/${OBJECT:2}" ] || [ -e "$REPO/.git/objects/planted" ] ||
        [ -e "$REPO/.git/objects/${planted:0:2}/${planted:2}" ]
}
hit_checkout() {
    has_mark "$REPO/file-0" || [ -e "$REPO/planted" ] || ! git -C "$REPO" diff --cached --quiet
}
hit_pool-runs-it() {
    cat "$ATTACKER"/{diff,diffstat,changes,head} >/dev/null
    timeout 60 cat "$ATTACKER/wait" >/dev/null
    echo "commit planted" >"$ATTACKER/ctl"
    cat "$ATTACKER"/{diff,diffstat,changes,head} >/dev/null
    [ -e "$OUT/ran" ]
}
hit_pool-reads-it() {
    timeout 60 cat "$ATTACKER/wait" >/dev/null
    echo "commit stolen" >"$ATTACKER/ctl"
    told .ssh/id_ed25519 || grep -qaF -- "$SECRET-.ssh" "$ATTACKER/diff" ||
        git -C "$REPO" grep -qF -- "$SECRET" "$(cat "$ATTACKER/head")"
}
hit_control-group() {
    [ "$(cat "$(limit_of_attacker)" 2>/dev/null)" = 4322 ] || grep -qxF moved "$OUTPUT"
}
hit_kernel-settings() { [ "$1" = 0 ]; }
hit_cron() { [ "$1" = 0 ]; }
hit_systemd-user() {
    told systemd || [ -e "$HOME/.config/systemd/user/planted.service" ] || [ -e "$HOME/.config/autostart/planted.desktop" ]
}
hit_docker() { told docker; }
hit_dbus() { told bus; }
hit_terminal-input() { comes "$1" test -e "$OUT/typed"; }
hit_terminal-output() { comes "$1" grep -qaF "shown-$MARK" "$WALL/seen/human.screen"; }
hit_clipboard() {
    contains "$OUTPUT" printed && await grep -qa end-of-clip "$WALL/seen/human.screen" &&
        grep -qaF "$(printf 'clip-%s' "$MARK" | base64)" "$WALL/seen/human.screen"
}
hit_keyring() { told key; }
hit_shared-memory() { told sysv shared; }
hit_temporary-files() { told temporary; }
hit_set-user-id() { [ "$1" = 0 ]; }
hit_abstract-socket() { told abstract; }
hit_loopback() { told loopback; }

set_target() { # NAME VALUE
    echo "$1='$2'" >>"$(readlink "$ATTACKER/worktree")/.wall/targets"
}
