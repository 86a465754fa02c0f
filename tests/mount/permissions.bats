# Who may do what: the modes that the mount shows, and whose writes it takes.

load helper

setup() {
    common_setup
    chmod 711 "$DIR" # other users pass through
}
teardown() {
    exec 5>&- # of a test that has failed: the daemon would wait for it
    common_teardown
}

# A command as a user who is nobody's friend.
as_other() { # COMMAND...
    setpriv --reuid=65534 --regid=65534 --clear-groups -- "$@"
}

modes() { # FILE...: mode, owner and group of each
    (cd "$POOL" && stat -c '%a %u %g' "$@" | uniq)
}

readonly FILES="status acquire release scale ctl config/base stats/uptime last_error events follow metrics metrics.prom
    agents/agent-1/prompt agents/agent-1/activity agents/agent-1/output"
readonly DIRECTORIES=". agents agents/agent-1 leases config stats"

@test "without options the files are those of who mounts, and he alone may write" {
    mount_pool 1 1
    for file in $FILES; do
        case $file in
        acquire | scale | config/* | *activity) mode=644 ;;
        release | ctl | *prompt) mode=200 ;;
        *) mode=444 ;;
        esac
        assert_equal "$file $(modes "$file")" "$file $mode $(id -u) $(id -g)"
    done
    # shellcheck disable=SC2086
    assert_equal "$(modes $DIRECTORIES)" "755 $(id -u) $(id -g)"
    assert_equal "$(cat "$POOL/config/umask" "$POOL/config/uid" "$POOL/config/gid")" ""
}

@test "uid and gid are shown as the owner of everything" {
    mount_pool 1 1 -o uid=1234,gid=5678
    # shellcheck disable=SC2086
    assert_equal "$(modes $FILES | cut -d' ' -f2- | uniq)" "1234 5678"
    # shellcheck disable=SC2086
    assert_equal "$(modes $DIRECTORIES)" "755 1234 5678"
    assert_equal "$(cat "$POOL/config/uid" "$POOL/config/gid")" $'1234\n5678'
}

@test "with umask a file allows the same to all, less its bits" {
    mount_pool 1 1 -o umask=027
    for file in $FILES; do
        case $file in
        acquire | scale | config/* | *activity) mode=640 ;;
        release | ctl | *prompt) mode=200 ;;
        *) mode=440 ;;
        esac
        assert_equal "$file $(modes "$file" | cut -d' ' -f1)" "$file $mode"
    done
    # shellcheck disable=SC2086
    assert_equal "$(modes $DIRECTORIES | cut -d' ' -f1)" 750
    assert_equal "$(cat "$POOL/config/umask")" 027
    unmount_pool
    mount_pool 1 1 -o umask=0
    assert_equal "$(modes acquire agents/agent-1/activity | cut -d' ' -f1)" 666
    assert_equal "$(modes release agents/agent-1/prompt | cut -d' ' -f1)" 222
    assert_equal "$(modes status agents/agent-1/output | cut -d' ' -f1)" 444
    assert_equal "$(modes leases | cut -d' ' -f1)" 777
    assert_equal "$(cat "$POOL/config/umask")" 000
}

@test "umask, uid and gid are refused where they are no such thing, and at run time" {
    mkdir "$POOL"
    for option in umask=8 umask=1000 umask=rw uid=nobody uid=-1 uid=4294967295 gid=x; do
        run "$AGENTPOOLFS" -o "state_dir=$STATE,$option" "$REPO" "$POOL"
        assert_failure 2
        assert_output --partial "${option%=*}: '${option#*=}' is "
    done
    mount_pool 1 1 -o umask=0
    for option in umask uid gid; do
        run bash -c "echo 0 > $POOL/config/$option"
        assert_failure
        assert_output --partial "Operation not permitted"
        assert contains "$POOL/last_error" "$option: set at mount only"
    done
}

# Runs a shell as another user. Expects it to be refused, as the words say: open or write, and EPERM or EACCES.
refused_to_other() { # SCRIPT WORDS
    run as_other bash -c "$1"
    assert_failure
    assert_output --partial "$2"
}

readonly AT_OPEN="line 1: " AT_WRITE="write error: " EPERM="Operation not permitted"

@test "without allow_other another user cannot even look" {
    needs_root "acts as another user"
    mount_pool 1 1 -o umask=0
    refused_to_other "cat $POOL/status" "Permission denied"
    refused_to_other "ls $POOL" "Permission denied"
    refused_to_other "echo job > $POOL/acquire" "Permission denied"
    assert_equal "$(cat "$POOL/stats/active_agents")" 0
}

@test "with allow_other alone other users look and do nothing" {
    needs_root "acts as another user"
    mount_pool 1 1 -o allow_other
    assert_equal "$(as_other cat "$POOL/agents/agent-1/state")" idle
    as_other cat "$POOL/agents/agent-1/screen"
    for file in acquire release scale ctl config/base agents/agent-1/{prompt,keys,answer,ctl,activity}; do
        refused_to_other "echo job > $POOL/$file" "Permission denied"
    done
}

@test "with umask=0 another user leases an agent, works with it and gives it back" {
    needs_root "acts as another user"
    mount_pool 1 1 -o allow_other,umask=0
    as_other bash -c "echo theirs > $POOL/acquire"
    assert contains "$POOL/leases/theirs/owner" "uid 65534"
    as_other bash -ec "cd $POOL/leases/theirs; echo 'echo made > made' > prompt; cat wait; echo Enter > keys
        echo busy > activity; echo restart > ctl; touch $POOL/leases/theirs"
    as_other bash -c "echo theirs > $POOL/release"
    assert_equal "$(git -C "$REPO" show agentpool/theirs:made)" made
    as_other bash -c "echo again > $POOL/acquire && rm $POOL/leases/again"
    await value_is "$POOL/stats/active_agents" 0
}

@test "with umask=007 the group works, and nobody else looks" {
    needs_root "acts as another user"
    mount_pool 1 1 -o allow_other,umask=007,gid=5678
    setpriv --reuid=1234 --regid=5678 --clear-groups bash -ec "cd $POOL; echo job > acquire
        echo : > leases/job/prompt; touch leases/job; rm leases/job"
    await value_is "$POOL/stats/active_agents" 0
    refused_to_other "cat $POOL/status" "Permission denied"
    refused_to_other "echo job > $POOL/acquire" "Permission denied"
}

@test "work that could not be saved is its holder's to release, and nobody's to touch" {
    needs_root "acts as another user"
    mount_pool 1 1 -o allow_other,umask=0
    LOG_EXPECTED=yes
    as_other bash -c "echo job > $POOL/acquire"
    local tree
    tree=$(readlink "$POOL/leases/job/worktree")
    echo work > "$tree/work"
    refuse_to_save
    refute as_other bash -c "echo job > $POOL/release"
    assert_equal "$(cat "$POOL/agents/agent-1/branch")" agentpool/job
    refused_to_other "echo restart > $POOL/agents/agent-1/ctl" "$EPERM"
    have_saved
    as_other bash -c "echo job > $POOL/release"
    assert_equal "$(git -C "$REPO" show agentpool/job:work)" work
}

@test "another user's agent is not prompted, typed into or commanded, at open" {
    needs_root "acts as another user"
    mount_pool 2 2 -o allow_other,umask=0
    echo mine agent=agent-1 > "$POOL/acquire"
    for file in prompt keys answer ctl activity; do
        refused_to_other "echo kill > $POOL/leases/mine/$file" "$AT_OPEN$POOL/leases/mine/$file: $EPERM"
        assert_equal "$(as_other cat "$POOL/last_error")" "lease mine is not yours"
    done
    # nor one without a lease, but by owners
    refused_to_other "echo ls > $POOL/agents/agent-2/prompt" "$EPERM"
    assert_equal "$(as_other cat "$POOL/last_error")" \
        "agent-2 has no lease: only the owner of the mount and root write to its files"
    echo : > "$POOL/agents/agent-2/prompt"
    assert_equal "$(cat "$POOL/leases/mine/prompts")" 0
    echo mine > "$POOL/release"
}

@test "a descriptor that was passed on gives no right to write" {
    needs_root "acts as another user"
    mount_pool 1 1 -o allow_other,umask=0
    echo mine > "$POOL/acquire"
    for file in prompt keys answer ctl activity; do
        refused_to_other "echo kill >&5" "$AT_WRITE$EPERM" 5> "$POOL/leases/mine/$file"
        assert_equal "$(as_other cat "$POOL/last_error")" "lease mine is not yours"
    done
    for file in config/base scale ctl; do
        refused_to_other "echo close >&5" "$AT_WRITE$EPERM" 5> "$POOL/$file"
        assert_equal "$(as_other cat "$POOL/last_error")" \
            "only the owner of the mount and root write to ${file#*/}"
    done
    refused_to_other "echo mine >&5" "$AT_WRITE$EPERM" 5> "$POOL/release"
    assert_equal "$(cat "$POOL/leases/mine/prompts")" 0
    assert_equal "$(cat "$POOL/config/base")" HEAD
    assert_equal "$(cat "$POOL/leases/mine/state")" active
    echo mine > "$POOL/release"
}

# The other way round: what another user had opened is written to by root, as a program that runs as root may be made to.
@test "who opened a file has no right lent to him by who writes" {
    needs_root "acts as another user"
    mount_pool 2 2 -o allow_other,umask=0
    echo mine agent=agent-1 > "$POOL/acquire"
    as_other bash -c "echo theirs agent=agent-2 > $POOL/acquire"
    run python3 - "$POOL" <<'PY'
import errno, os, sys
pool = sys.argv[1]

def opened_by_other(path, flags=os.O_WRONLY):
    os.seteuid(65534)
    try:
        return os.open(pool + "/" + path, flags)
    finally:
        os.seteuid(0)

def write(fd, text):
    try:
        return os.write(fd, text) and "taken"
    except OSError as error:
        return errno.errorcode[error.errno]

release = opened_by_other("release")
print("release", write(release, b"mine\n"), open(pool + "/last_error").read().strip())
ctl, prompt = opened_by_other("leases/theirs/ctl"), opened_by_other("leases/theirs/prompt")
print("ctl", write(ctl, b"restart\n"))
print("release", write(release, b"theirs\n"))
print("acquire", write(os.open(pool + "/acquire", os.O_WRONLY), b"next agent=agent-2\n"))
print("ctl", write(ctl, b"kill\n"), open(pool + "/last_error").read().strip())
print("prompt", write(prompt, b"exit\n"))
PY
    assert_success
    assert_line "release EPERM user 65534 opened the file: lease mine is not yours"
    assert_line "ctl taken"
    assert_line "release taken"
    assert_line "acquire taken"
    assert_line "ctl EPERM user 65534 opened the file: lease next is not yours"
    assert_line "prompt EPERM"
    assert_equal "$(cat "$POOL/leases/mine/state" "$POOL/leases/next/state")" $'active\nactive'
    echo mine > "$POOL/release"
    echo next > "$POOL/release"
}

@test "what was written while it was allowed is not taken when that is over" {
    needs_root "acts as another user"
    mount_pool 1 1 -o allow_other,umask=0
    as_other bash -c "echo theirs > $POOL/acquire"
    mkfifo "$DIR/go"
    chmod 666 "$DIR/go"
    # opened when the agent was theirs, and still open when it is another's: a new write, the end of a text, and
    # that of a line which filled a buffer
    python3 - "$POOL" "$DIR/go" > "$DIR/said" 2>&1 <<'PY' &
import errno, os, sys
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
pool, go = sys.argv[1:]
prompt, keys, long = (os.open(f"{pool}/leases/theirs/{name}", os.O_WRONLY) for name in ("prompt", "keys", "keys"))
os.write(prompt, b"touch stolen")
os.write(long, b"x" * 4096)
open(pool + "/release", "w").write("theirs\n")
open(go).read()

def refused(what, call, *args):
    try:
        call(*args)
        error = 0
    except OSError as e:
        error = e.errno
    print(what, errno.errorcode.get(error), open(pool + "/last_error").read(), end="")
    try:
        open(pool + "/release", "w").write("nobody\n") # another last error
    except OSError:
        pass

refused("write", os.write, keys, b"C-c\n")
refused("line", os.close, long)
refused("text", os.close, prompt)
PY
    local other=$!
    await value_is "$POOL/stats/idle_agents" 1
    echo mine > "$POOL/acquire"
    echo > "$DIR/go"
    wait $other
    run cat "$DIR/said"
    assert_line "write EPERM lease mine is not yours"
    assert_line "line EPERM lease mine is not yours"
    assert_line "text None lease mine is not yours" # nobody can be told any more by a close
    assert_equal "$(cat "$POOL/leases/mine/prompts")" 0
    echo mine > "$POOL/release"
}

@test "the lease of a written acquire is the writer's, a handle is its opener's" {
    needs_root "acts as another user"
    mount_pool 2 2 -o allow_other,umask=0
    as_other bash -c "echo passed >&5" 5> "$POOL/acquire"
    assert contains "$POOL/leases/passed/owner" "uid 65534"
    exec 5<> "$POOL/acquire"
    refused_to_other "echo job >&5" "$AT_WRITE$EPERM"
    assert_equal "$(as_other cat "$POOL/last_error")" \
        "this handle is a lease of user $(id -u), who opened it"
    echo job >&5
    assert_equal "$(as_other bash -c 'read -r agent label <&5; echo $label')" job
    assert contains "$POOL/leases/job/owner" "uid $(id -u)"
    exec 5>&-
    await test ! -e "$POOL/leases/job"
    # as its own, it is another user's as it is anybody's
    as_other bash -ec "exec 5<>$POOL/acquire; echo own >&5; read -r line <&5; grep 'uid 65534' $POOL/leases/own/owner"
    await test ! -e "$POOL/leases/own"
    echo passed > "$POOL/release" # root's right
}

@test "another user may not end or renew a lease, the owner of the mount and root may" {
    needs_root "acts as another user"
    mount_pool 2 2 -o allow_other,umask=0,uid=1234
    echo mine agent=agent-1 > "$POOL/acquire"
    for command in "echo mine > $POOL/release" "echo agent-1 > $POOL/release" "rm $POOL/leases/mine" \
        "touch $POOL/leases/mine" "touch -h $POOL/leases/mine"; do
        refused_to_other "$command" "$EPERM"
        assert_equal "$(as_other cat "$POOL/last_error")" "lease mine is not yours"
    done
    assert_equal "$(cat "$POOL/leases/mine/state")" active
    as_other bash -c "echo one > $POOL/acquire"
    echo one > "$POOL/release" # root, whose daemon it is
    as_other bash -c "echo two > $POOL/acquire"
    setpriv --reuid=1234 --clear-groups bash -ec "touch $POOL/leases/two; echo : > $POOL/leases/two/prompt
        echo two > $POOL/release; echo mine > $POOL/release; echo 2 > $POOL/scale; echo auto > $POOL/scale"
    assert_equal "$(cat "$POOL/stats/active_agents")" 0
}

@test "the settings and the size of a pool are for its owner" {
    needs_root "acts as another user"
    mount_pool 1 2 -o allow_other,umask=0
    for file in config/base config/max_pool_size scale ctl; do
        refused_to_other "echo close > $POOL/$file" "$AT_OPEN$POOL/$file: $EPERM"
        assert_equal "$(as_other cat "$POOL/last_error")" \
            "only the owner of the mount and root write to ${file#*/}"
    done
    assert_equal "$(as_other cat "$POOL/scale" "$POOL/config/base")" $'auto 1\nHEAD'
}

@test "last_error is each user's own" {
    needs_root "acts as another user"
    mount_pool 1 1 -o allow_other,umask=0
    run bash -c "echo nonsense > $POOL/ctl"
    refused_to_other "echo nobody > $POOL/release" "No such file"
    assert contains "$POOL/last_error" "'nonsense' is none of"
    assert_equal "$(as_other cat "$POOL/last_error")" "there is no lease 'nobody': leases/ has those that there are"
    assert_equal "$(setpriv --reuid=1234 --clear-groups cat "$POOL/last_error")" ""
}

# Whose the repository is. The files of its checkout stay as they are: the index remembers their owner.
give_repo_to() { # UID
    chown -R "$1" "$REPO/.git"
    chown "$1" "$REPO"
}

# A repository of nobody's; given back before the end, where the helper looks at it.
foreign_repo() {
    give_repo_to 65534
    mkdir -p "$POOL"
}

@test "a repository of another user is refused by its owner's name" {
    needs_root "gives files to another user"
    local linked=$DIR/linked kind repo git_dir
    git -C "$REPO" worktree add -q -b linked "$linked"
    foreign_repo
    mkdir "$REPO/sub"
    cp -r "$REPO/.git" "$DIR/bare"
    git config -f "$DIR/bare/config" core.bare true
    chown 65534 "$DIR/bare"
    for kind in checkout sub bare linked; do
        repo=$REPO git_dir=$REPO/.git
        case $kind in
        sub) repo=$REPO/sub ;;
        bare) repo=$DIR/bare git_dir=$repo ;;
        linked) repo=$linked && chown -R 0 "$git_dir/worktrees" ;; # what is shared is foreign still
        esac
        run "$AGENTPOOLFS" -o "state_dir=$STATE" "$repo" "$POOL"
        assert_failure 1
        assert_output --partial "agentpoolfs: $git_dir belongs to nobody (uid 65534), and its hooks and settings would act as root (uid 0)"
        assert_output --partial "-o allow_foreign_repo"
        assert [ ! -e "$STATE" ]
    done
    give_repo_to 0
    rmdir "$REPO/sub"
    git -C "$REPO" worktree remove --force "$linked"
    git -C "$REPO" branch -qD linked
}

@test "with allow_foreign_repo a repository of another user works, and nothing else is trusted" {
    needs_root "gives files to another user"
    local backend
    foreign_repo
    for backend in auto copy git; do
        mount_pool 1 1 -o allow_foreign_repo,spawn_backend=$backend
        assert_equal "$(cat "$POOL/config/allow_foreign_repo")" yes
        echo "$backend" > "$POOL/acquire"
        # an agent's own git works there as well
        echo "git log --format=%s > log; echo $backend > made; git add made; git commit -m by-agent" > "$POOL/leases/$backend/prompt"
        cat "$POOL/leases/$backend/wait"
        assert contains "$POOL/leases/$backend/diff" "+first"
        echo "$backend" > "$POOL/release"
        unmount_pool
    done
    assert [ ! -e "$HOME/.gitconfig" ]
    run git -C "$REPO" log # the user's own git trusts it as little as before
    assert_failure
    give_repo_to 0
    for backend in auto copy git; do
        assert_equal "$(git -C "$REPO" show "agentpool/$backend:made")" "$backend"
        assert_equal "$(git -C "$REPO" show "agentpool/$backend:log")" first
        assert_equal "$(git -C "$REPO" log --format=%s -1 "agentpool/$backend^")" by-agent
    done
}

@test "allow_foreign_repo is yes, no or alone, and for the command line only" {
    needs_root "gives files to another user"
    foreign_repo
    run "$AGENTPOOLFS" -o "state_dir=$STATE,allow_foreign_repo=no" "$REPO" "$POOL"
    assert_failure 1
    run "$AGENTPOOLFS" -o "state_dir=$STATE,allow_foreign_repo=1" "$REPO" "$POOL"
    assert_failure 2
    assert_output --partial "allow_foreign_repo: '1' is none of: no yes"
    mount_pool 1 1 -o allow_foreign_repo=yes
    run bash -c "echo no > $POOL/config/allow_foreign_repo"
    assert_failure
    assert contains "$POOL/last_error" "allow_foreign_repo: set at mount only"
    unmount_pool
    give_repo_to 0
    mount_pool 1 1
    assert_equal "$(cat "$POOL/config/allow_foreign_repo")" no
}

# What is below the state directory, and not a worktree's contents: those have the modes that git gives them.
state_files() {
    find "$STATE" \( -path "$STATE/worktrees/*" -o -path "$STATE/inside/*/*" -o -path "$STATE/templates/*/*" -o -path "$STATE/layers/*/*" \
        -o -path "$STATE/trash/*" -o -path "$STATE/git/*" -o -path "$STATE/kept/*/*" \) -prune -o "$@" -print
}

@test "what a pool keeps is for its owner only, whatever the umask" {
    needs_root "acts as another user"
    printf 'like = bash\nfile = notes of ${NAME}\n' > "$DIR/noted.conf"
    local mask agent
    for mask in 000 022 077; do
        umask "$mask"
        mount_pool 2 2 -o "allow_other,umask=0,program_profile=$DIR/noted.conf"
        echo job > "$POOL/acquire"
        echo 'echo text > file' > "$POOL/leases/job/prompt"
        assert_equal "$(cat "$POOL/leases/job/wait")" ready
        echo save > "$POOL/ctl"
        agent=agents/$(cat "$POOL/leases/job/id")
        for file in state.db state.db-wal state.db-shm lock events tmux.sock "$agent/notes" "$agent/output"; do
            assert [ -e "$STATE/$file" ]
        done
        assert_equal "$(state_files -perm /077)" ""
        assert_equal "$(find "$STATE" ! -user "$(id -u)")" ""
        # but what agents and git write is as ever
        assert_equal "$(stat -c %a "$POOL/leases/job/worktree/file")" "$(printf %o $((0666 & ~mask)))"
        run as_other ls "$STATE"
        assert_failure
        run as_other ls "$(readlink "$POOL/leases/job/worktree")"
        assert_failure
        echo job > "$POOL/release"
        unmount_pool
        umask 022
        assert_equal "$(state_files -perm /077)" ""
    done
}

@test "a store that others could read is closed to them" {
    mount_pool 1 1
    unmount_pool
    chmod 644 "$STATE/state.db"
    mount_pool 1 1
    assert_equal "$(state_files -perm /077)" ""
}
