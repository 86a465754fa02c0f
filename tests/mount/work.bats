# Work is never lost, and a worktree costs nothing: how worktrees are made, saved, and cleaned up after.

load helper

setup() { common_setup; }

teardown() {
    local result=0
    common_teardown || result=1
    [ -z "${DISK:-}" ] || { umount "$DISK" && rm -rf "$DISK" "$DISK.image"; }
    return $result
}

tree_of() { # LABEL
    readlink "$POOL/leases/$1/worktree"
}

on_branch() { # LABEL FILE
    git -C "$REPO" show "agentpool/$1:$2"
}

templates() { # in the state directory
    find "$STATE/templates" -mindepth 1 -maxdepth 1 | wc -l
}

# A lease whose work is saved, in whatever pool is mounted.
lease_works() {
    echo job > "$POOL/acquire"
    local tree
    tree=$(tree_of job)
    assert_equal "$(git -C "$tree" status --porcelain)" ""
    echo made > "$tree/made"
    echo changed >> "$tree/file-0"
    echo job > "$POOL/release"
    assert_equal "$(on_branch job made)" made
    assert_equal "$(on_branch job file-0 | tail -1)" changed
}

@test "worktrees are overlays over one template, which goes with the pool" {
    needs_root "mounts overlays"
    mount_pool 3 3
    assert_equal "$(cat "$POOL/stats/spawn_backend")" overlay
    assert_equal "$(templates)" 1
    assert_equal "$(cat "$POOL/stats/templates")" 1
    assert_equal "$(grep -c "$STATE/worktrees/.* overlay" /proc/mounts)" 3
    lease_works
    unmount_pool
    assert [ ! -e "$STATE/templates" ]
    assert [ ! -e "$STATE/layers" ]
    assert [ ! -e "$STATE/trash" ]
    refute grep -q "$STATE" /proc/mounts
}

@test "a post-checkout hook that fails is an event, and holds nothing up" {
    local backend
    printf '#!/bin/sh\necho hooked > hooked\necho "git-lfs was not found" >&2\nexit 2\n' > "$REPO/.git/hooks/post-checkout"
    chmod +x "$REPO/.git/hooks/post-checkout"
    for backend in $(may_overlay && echo overlay) copy git; do
        mount_pool 1 1 -o "spawn_backend=$backend"
        await contains "$POOL/events" '"event":"hook_failed"'
        run jq -r 'select(.event == "hook_failed") | .reason' "$POOL/events"
        assert_output --regexp 'post-checkout hook of .*git-lfs was not found'
        assert_equal "$(cat "$(readlink "$POOL/agents/agent-1/worktree")/hooked")" hooked
        unmount_pool
        rm -rf "$STATE"
    done
}

@test "submodules that are checked out are ready in a worktree, also in the next lease's" {
    REPO_CHANGED=yes
    local backend tree i
    git init -q -b main "$DIR/lib"
    echo lib > "$DIR/lib/lib"
    git -C "$DIR/lib" add .
    git -C "$DIR/lib" -c user.name=u -c user.email=u@e commit -qm lib
    git -C "$REPO" -c protocol.file.allow=always submodule --quiet add "$DIR/lib" libs/foo
    git -C "$REPO" commit -qm sub
    mv "$DIR/lib" "$DIR/gone"
    for backend in $(may_overlay && echo overlay) copy; do
        mount_pool 1 1 -o "spawn_backend=$backend"
        for i in 1 2; do
            echo "job-$i" > "$POOL/acquire"
            tree=$(tree_of "job-$i")
            assert_equal "$(cat "$tree/libs/foo/lib")" lib
            assert_equal "$(git -C "$tree" status --porcelain)" ""
            assert_equal "$(cat "$POOL/leases/job-$i/diff")" ""
            git -C "$tree/libs/foo" log --format=%s > "$DIR/titles"
            assert_equal "$(cat "$DIR/titles")" lib
            echo "$i" > "$tree/libs/foo/lib"
            git -C "$tree/libs/foo" -c user.name=a -c user.email=a@e commit -qam "$i"
            echo "job-$i" > "$POOL/release"
        done
        unmount_pool
        assert_equal "$(git -C "$REPO" status --porcelain)" ""
        assert_equal "$(git -C "$REPO/libs/foo" log --all --format=%s)" lib
        git -C "$REPO" cat-file -e "$(git -C "$REPO" rev-parse agentpool/job-1:libs/foo)"
        git -C "$REPO" for-each-ref --format='%(refname)' refs/agentpool refs/heads/agentpool | xargs -n 1 git -C "$REPO" update-ref -d
        rm -rf "$STATE"
    done
}

@test "every way of making worktrees can be forced, and serves" {
    local backend
    for backend in $(may_overlay && echo overlay) copy git; do
        mount_pool 2 2 -o "spawn_backend=$backend"
        assert_equal "$(cat "$POOL/stats/spawn_backend")" $backend
        assert_equal "$(cat "$POOL/config/spawn_backend")" $backend
        lease_works
        echo job > "$POOL/acquire" # goes on from the branch, in a tree that was cleaned
        assert_equal "$(cat "$(tree_of job)/made")" made
        echo "job discard" > "$POOL/release"
        git -C "$REPO" branch -q -D agentpool/job
        unmount_pool
        assert [ ! -e "$STATE/worktrees" ]
    done
    run "$AGENTPOOLFS" -o "state_dir=$STATE,spawn_backend=hardlink" "$REPO" "$POOL"
    assert_failure
    assert_output --partial "overlay btrfs copy git"
}

@test "on btrfs worktrees can be snapshots" {
    needs_root "mounts a file system"
    DISK=$DIR-disk
    mkdir "$DISK"
    truncate -s 256M "$DISK.image"
    mkfs.btrfs -q "$DISK.image"
    mount -o loop "$DISK.image" "$DISK"
    STATE=$DISK/state
    mount_pool 2 2 -o spawn_backend=btrfs
    assert_equal "$(cat "$POOL/stats/spawn_backend")" btrfs
    lease_works
    await value_is "$POOL/stats/idle_agents" 2 # one that is being cleaned is made as new already
    echo recycle > "$POOL/agents/agent-2/ctl"
    await value_is "$POOL/agents/agent-2/generation" 2
    await value_is "$POOL/stats/idle_agents" 2
    lease_works
    unmount_pool
    assert [ ! -e "$STATE/templates" ]
}

@test "where no overlay can be mounted, worktrees are copies" {
    needs_root "mounts an overlay"
    # an overlay cannot be the upper layer of another
    mkdir "$DIR/lower" "$DIR/upper" "$DIR/work" "$DIR/over"
    mount -t overlay none "$DIR/over" -o "lowerdir=$DIR/lower,upperdir=$DIR/upper,workdir=$DIR/work"
    STATE=$DIR/over/state
    mount_pool 1 1
    assert_equal "$(cat "$POOL/stats/spawn_backend")" copy
    lease_works
    unmount_pool
    run "$AGENTPOOLFS" -o "state_dir=$STATE,spawn_backend=overlay" "$REPO" "$POOL"
    umount "$DIR/over"
    STATE=$DIR/state
    assert_failure 1
    assert_output --partial "spawn_backend=overlay"
}

@test "a state directory with every odd character can hold worktrees, overlays where there are any" {
    STATE="$DIR/st,at:e \\ ü"
    mkdir -p "$POOL"
    "$AGENTPOOLFS" -f "$REPO" "$POOL" -o "state_dir=${STATE//,/\\,}" >"$DIR/log" 2>&1 3>&- &
    DAEMON=$!
    await pool_answers || true
    if ! [ -e "$STATE/worktrees" ]; then # the option cannot carry it: by the environment then
        unmount_pool
        export XDG_STATE_HOME="$STATE"
        "$AGENTPOOLFS" -f "$REPO" "$POOL" >"$DIR/log" 2>&1 3>&- &
        DAEMON=$!
        await pool_answers
    fi
    await value_is "$POOL/stats/idle_agents" 1
    if may_overlay; then assert_equal "$(cat "$POOL/stats/spawn_backend")" overlay; fi
    lease_works
}

@test "a directory of the repository can be renamed, and what an agent changes is its own" {
    REPO_CHANGED=yes
    mkdir "$REPO/dir"
    echo 1 > "$REPO/dir/file"
    git -C "$REPO" add .
    git -C "$REPO" commit -qm dir
    mount_pool 2 2
    echo one > "$POOL/acquire"
    echo two > "$POOL/acquire"
    if is_root; then # else it is EXDEV, where worktrees are overlays, and mv copies
        python3 -c 'import os, sys; os.rename(sys.argv[1] + "/dir", sys.argv[1] + "/renamed")' "$(tree_of one)"
    else
        mv "$(tree_of one)/dir" "$(tree_of one)/renamed"
    fi
    echo 2 > "$(tree_of one)/renamed/file"
    assert_equal "$(cat "$(tree_of two)/dir/file")" 1
    echo one > "$POOL/release"
    assert_equal "$(git -C "$REPO" ls-tree -r --name-only agentpool/one | grep /)" renamed/file
    assert_equal "$(cat "$REPO/dir/file")" 1
}

@test "a lease stands at base as it is now, and idle agents are brought forward with their template" {
    REPO_CHANGED=yes
    mount_pool 2 2 -o maintenance_interval=1h
    local agent
    git -C "$REPO" commit -q --allow-empty -m second
    echo new > "$REPO/new-file"
    git -C "$REPO" add .
    git -C "$REPO" commit -qm third
    echo job > "$POOL/acquire"
    assert_equal "$(cat "$POOL/leases/job/base")" "$(git -C "$REPO" rev-parse HEAD)"
    assert_equal "$(cat "$POOL/leases/job/head")" "$(git -C "$REPO" rev-parse HEAD)"
    assert [ -e "$(tree_of job)/new-file" ]
    agent=agent-1
    [ "$(cat "$POOL/agents/agent-1/lease")" != job ] || agent=agent-2
    assert [ ! -e "$(readlink "$POOL/agents/$agent/worktree")/new-file" ]
    echo maintain > "$POOL/ctl"
    await test -e "$(readlink "$POOL/agents/$agent/worktree")/new-file"
    await value_is "$POOL/agents/$agent/head" "$(git -C "$REPO" rev-parse HEAD)"
    assert_equal "$(git -C "$(readlink "$POOL/agents/$agent/worktree")" status --porcelain)" ""
    await test -d "$STATE/templates/$(git -C "$REPO" rev-parse HEAD)"
    # the first one goes when nothing uses it any more
    echo job > "$POOL/release"
    echo recycle > "$POOL/agents/$agent/ctl"
    await one_template
}

one_template() { [ "$(templates) $(cat "$POOL/stats/templates")" = "1 1" ]; }

@test "ctl commits all that has changed to the lease's branch, without hooks" {
    printf '#!/bin/sh\ntouch "%s/hook"\n' "$DIR" | tee "$REPO/.git/hooks/pre-commit" > "$REPO/.git/hooks/post-commit"
    chmod +x "$REPO"/.git/hooks/*-commit
    echo '*.log' > "$REPO/.git/info/exclude"
    mount_pool 1 1
    echo job > "$POOL/acquire"
    local tree
    tree=$(tree_of job)
    echo new > "$tree/-new file"
    echo more >> "$tree/file-0"
    rm "$tree/file-1"
    touch "$tree/ignored.log"
    echo "commit  The first  part: 'x' #1" > "$POOL/leases/job/ctl"
    assert_equal "$(git -C "$REPO" log -1 --format='%s|%an' agentpool/job)" "The first  part: 'x' #1|user"
    assert_equal "$(git -C "$tree" status --porcelain)" ""
    assert_equal "$(git -C "$tree" diff --name-status HEAD~ | paste -sd' ')" "$(printf 'A\t-new file M\tfile-0 D\tfile-1')"
    assert_equal "$(cat "$POOL/leases/job/head")" "$(git -C "$REPO" rev-parse agentpool/job)"
    refute test -e "$DIR/hook"
    # a merge that changes no file
    local theirs
    theirs=$(git -C "$REPO" commit-tree -m theirs -p main 'main^{tree}')
    git -C "$tree" merge -q -s ours --no-commit "$theirs"
    echo commit merged > "$POOL/leases/job/ctl"
    assert_equal "$(git -C "$tree" log -1 --format=%p | wc -w)" 2
    # repositories inside too; on no branch it is on none, and on the lease's at its end
    git -C "$tree" switch -q --detach
    sh "$POOL/leases/job/enter" git init -q inner
    echo nested > "$tree/inner/nested"
    printf 'commit #2' > "$POOL/leases/job/ctl"
    assert_equal "$(git -C "$tree" log -1 --format=%s)" "#2"
    assert_equal "$(git -C "$REPO" show refs/agentpool/job/inner/HEAD:nested)" nested
    assert_equal "$(git -C "$tree" status --porcelain --ignore-submodules)" "" # its own git is left alone
    echo job > "$POOL/release"
    assert_equal "$(git -C "$REPO" log --first-parent -3 --format=%s agentpool/job | paste -sd/)" "#2/merged/The first  part: 'x' #1"
    refute test -e "$DIR/hook"
}

@test "a commit that cannot be is refused with git's own sentence, and nothing is lost" {
    mount_pool 1 1
    refused() { # COMMAND ERROR SENTENCE
        run bash -c "echo '$1' > $POOL/agents/agent-1/ctl"
        assert_failure
        assert_output --partial "$2"
        assert contains "$POOL/last_error" "$3"
    }
    refused "commit x" "No such file or directory" "agent-1 serves no lease"
    echo job > "$POOL/acquire"
    local tree
    tree=$(tree_of job)
    refused commit "Invalid argument" "write commit MESSAGE"
    refused "kill x" "Invalid argument" "kill takes no words"
    refused "commit x" "No data available" "nothing has changed since the last commit"
    echo gone > "$tree/gone" # staged, and taken back
    git -C "$tree" add gone
    rm "$tree/gone"
    refused "commit x" "No data available" "nothing has changed since the last commit"
    echo made > "$tree/made"
    local lock
    lock=$(git -C "$tree" rev-parse --git-dir)/index.lock
    touch "$lock" # as the agent's own git has it
    refused "commit x" "Input/output error" "index.lock"
    rm "$lock"
    assert_equal "$(cat "$tree/made")" made
    git -C "$tree" switch -qc users # its other branches are left alone
    refused "commit x" "resource busy" "the worktree is on refs/heads/users, not on refs/heads/agentpool/job"
    assert_equal "$(git -C "$tree" rev-parse users)" "$(git -C "$REPO" rev-parse main)"
    # a file that is open still is of the lease that it was opened for
    exec 7> "$POOL/leases/job/ctl"
    echo job > "$POOL/release"
    assert_equal "$(on_branch job made)" made
    echo next > "$POOL/acquire"
    echo other > "$(tree_of next)/other"
    local command
    for command in "commit x" kill recycle restart pause resume; do
        run bash -c "echo $command >&7"
        assert_failure
        assert_output --partial "Stale file handle"
    done
    exec 7>&-
    assert_equal "$(cat "$POOL/leases/next/state")" active
    echo next > "$POOL/release"
    assert_equal "$(git -C "$REPO" rev-list --count main..agentpool/next)" 1
}

@test "a commit that is interrupted while it waits is not made" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    local tree
    tree=$(tree_of job)
    slow_git
    echo made > "$tree/made.slow"
    echo "commit first" > "$POOL/leases/job/ctl" 3>&- &
    local first=$!
    await test -e "$DIR/begun"
    bash -c "echo more > '$tree/more'; exec timeout -s INT 1 dd of='$POOL/leases/job/ctl' status=none <<< 'commit second'" || true
    touch "$DIR/go"
    wait $first
    echo job > "$POOL/release" # behind it in the lane
    refute grep -q second <(git -C "$REPO" log --format=%s agentpool/job)
    assert_equal "$(on_branch job more)" more
}

@test "pause and resume wait for no commit" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    slow_git
    echo made > "$(tree_of job)/made.slow"
    echo "commit slow" > "$POOL/leases/job/ctl" 3>&- &
    local writer=$!
    await test -e "$DIR/begun"
    echo pause > "$POOL/leases/job/ctl"
    await value_is "$POOL/leases/job/why" "pause: asked for"
    echo resume > "$POOL/leases/job/ctl"
    kill -0 $writer # it has not ended
    touch "$DIR/go"
    wait $writer
    assert_equal "$(on_branch job made.slow)" made
}

@test "whatever way a lease ends, its work is on its branch" {
    mount_pool 2 4
    local label
    # released, removed, over in time, its handle closed, its process ended, killed, the pool ended
    for label in release rm ttl handle holder kill unmount; do
        case $label in
        ttl) echo "ttl ttl=1s" > "$POOL/acquire" ;;
        handle)
            exec 5<>"$POOL/acquire"
            echo handle >&5
            read -r _ _ <&5
            ;;
        holder)
            sleep 1000 3>&- &
            local holder=$!
            echo "holder pid=$holder" > "$POOL/acquire"
            ;;
        *) echo "$label" > "$POOL/acquire" ;;
        esac
        echo "$label" > "$(tree_of "$label")/work"
        case $label in
        release) echo release > "$POOL/release" ;;
        rm) rm "$POOL/leases/rm" ;;
        handle) exec 5>&- ;;
        holder)
            kill "$holder"
            wait "$holder" || true
            ;;
        kill) echo kill > "$POOL/leases/kill/ctl" ;;
        unmount) unmount_pool ;;
        esac
        await on_branch "$label" work
        assert_equal "$(on_branch "$label" work)" "$label"
        [ "$label" = unmount ] || await test ! -e "$POOL/leases/$label"
    done
    git -C "$REPO" log -1 --format=%B agentpool/ttl > "$DIR/message"
    assert contains "$DIR/message" "lease ttl"
    assert contains "$DIR/message" "generation"
}

@test "agents that misbehave in git lose nothing" {
    mount_pool 1 1
    export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@e GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@e
    misbehave() { # LABEL SCRIPT, run in the worktree
        echo "$1" > "$POOL/acquire"
        sh "$POOL/leases/$1/enter" bash -ec "$2" >/dev/null 2>&1 || true
        echo "$1" > "$POOL/release"
    }
    misbehave commits 'for i in 1 2 3; do echo $i > own-$i; git add .; git commit -qm $i; done; echo x > x'
    assert_equal "$(git -C "$REPO" log --format=%s agentpool/commits | tail -4 | tr '\n' ' ')" "3 2 1 first "
    assert_equal "$(on_branch commits x)" x
    misbehave detached 'git checkout -q --detach; echo 1 > one; git add .; git commit -qm one; echo 2 > two'
    assert_equal "$(on_branch detached one)$(on_branch detached two)" 12
    misbehave switched 'git checkout -q -b elsewhere-1; echo 1 > one'
    assert_equal "$(on_branch switched one)" 1
    misbehave merging 'git checkout -q -b m1; echo l > file-0; git commit -qam l; git checkout -q agentpool/merging
        echo r > file-0; git commit -qam r; git merge m1'
    assert_equal "$(on_branch merging file-0 | head -1)" "<<<<<<< HEAD"
    misbehave rebasing 'git checkout -q -b r1; echo l > file-0; git commit -qam l; git checkout -q agentpool/rebasing
        echo r > file-0; git commit -qam r; git rebase r1'
    assert contains <(git -C "$REPO" log --format=%s agentpool/rebasing) r
    misbehave unlinked 'rm .git; echo 1 > one'
    assert_equal "$(on_branch unlinked one)" 1
    misbehave nested 'git init -q in; echo 1 > in/one'
    assert_equal "$(git -C "$REPO" show refs/agentpool/nested/in/HEAD:one)" 1
    misbehave replaced 'rm .git; git init -q; git add .; git commit -qm own; echo 1 > one'
    assert_equal "$(on_branch replaced one)" 1
    assert_equal "$(git -C "$REPO" log --format=%s refs/agentpool/replaced/%2Egit/HEAD)" own
    local unread=:
    if is_root; then unread='chmod 000 file-1'; fi # an ordinary user could not save it
    misbehave links "ln -s /etc/passwd link; mkdir -p a/b/c; ln -s .. a/b/up; $unread; echo 1 > ' '"
    assert_equal "$(git -C "$REPO" ls-tree -r --name-only agentpool/links -- link a ' ' | tr '\n' '|')" " |a/b/up|link|"
    misbehave bare 'git clone -q --bare . copy.git'
    assert on_branch bare copy.git/HEAD
    misbehave worktree 'git worktree add -q inner -b inner-1; echo 1 > inner/one'
    assert_equal "$(git -C "$REPO" show refs/agentpool/worktree/inner/HEAD:one)" 1
    misbehave gone 'echo 1 > one; rm -rf "$(git rev-parse --git-dir)"'
    assert_equal "$(on_branch gone one)" 1
    misbehave unmounted 'echo 1 > one; cd /; umount -l "$OLDPWD"'
    assert_equal "$(git -C "$REPO" diff --name-status main agentpool/unmounted)" "A	one"
    # the branches that they made themselves are theirs, and kept; what they did to HEAD reaches nobody else
    assert_equal "$(git -C "$REPO" branch --list | grep -v agentpool/)" "* main"
    assert_equal "$(git -C "$REPO" log -1 --format=%s refs/agentpool/merging/%2Egit/heads/m1)" l
    echo last > "$POOL/acquire"
    assert_equal "$(git -C "$(tree_of last)" status --porcelain --branch)" "## agentpool/last"
    assert_equal "$(ls -A "$(tree_of last)" | tr '\n' ' ')" ".git file-0 file-1 file-2 "
    echo last > "$POOL/release"
}

# bats test_tags=large
@test "100,000 untracked files are saved" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    python3 - "$(tree_of job)" <<'END'
import os, sys
for d in range(100):
    os.mkdir(f"{sys.argv[1]}/{d}")
    for f in range(1000):
        with open(f"{sys.argv[1]}/{d}/{f}", "w") as file:
            file.write(f"{d} {f % 10}\n")
END
    echo job > "$POOL/release"
    assert_equal "$(git -C "$REPO" ls-tree -r agentpool/job | wc -l)" 100003
}

@test "work that cannot be saved stays where it is, over the end of the pool too" {
    mount_pool 1 1
    LOG_EXPECTED=yes
    echo job > "$POOL/acquire"
    local tree
    tree=$(tree_of job)
    echo 1 > "$tree/one"
    refuse_to_save
    run bash -c "echo job > $POOL/release"
    assert_failure
    assert contains "$POOL/last_error" "$tree"
    unmount_pool
    assert_equal "$(cat "$tree/one")" 1 # its overlay and template are there
    assert_equal "$(git -C "$tree" diff --stat)" ""
    have_saved
    mount_pool 1 1 # the next start tries again
    assert_equal "$(on_branch job one)" 1
    assert [ ! -e "$tree/one" ]
}

@test "every kind of repository works as it is" {
    local kind user=$REPO
    user_side() {
        git -C "$REPO" for-each-ref --format='%(refname) %(objectname)' | grep -v agentpool/
        if [ -e "$REPO/file-0" ]; then
            git -C "$REPO" status --porcelain
            md5sum "$(git -C "$REPO" rev-parse --path-format=absolute --git-path index)"
        fi
        cat "$(git -C "$REPO" rev-parse --path-format=absolute --git-path config)"
    }
    git init -q -b main "$DIR/lib"
    git -C "$DIR/lib" -c user.name=u -c user.email=u@e commit -q --allow-empty -m lib
    for kind in bare linked submodule filter sparse worktree-config partial sha256 $(is_root && echo owner) shallow packed alternates \
        "blanks and ü" split-index; do
        REPO=$DIR/$kind
        case $kind in
        bare) git clone -q --bare "$user" "$REPO" ;;
        linked) git -C "$user" worktree add -q "$REPO" -b linked ;;
        submodule)
            git clone -q "$user" "$REPO"
            git -C "$REPO" -c protocol.file.allow=always submodule --quiet add "$DIR/lib" lib
            git -C "$REPO" -c user.name=u -c user.email=u@e commit -qm sub
            ;;
        filter)
            git clone -q "$user" "$REPO"
            git -C "$REPO" config filter.up.clean "tr A-Z a-z"
            git -C "$REPO" config filter.up.smudge "tr a-z A-Z"
            echo "*.up filter=up" > "$REPO/.gitattributes"
            echo LOUD > "$REPO/file.up"
            git -C "$REPO" add .
            git -C "$REPO" -c user.name=u -c user.email=u@e commit -qm filter
            ;;
        sparse)
            git clone -q "$user" "$REPO"
            git -C "$REPO" sparse-checkout set --no-cone /file-0 /made
            ;;
        worktree-config)
            git clone -q "$user" "$REPO"
            git -C "$REPO" config extensions.worktreeConfig true
            git -C "$REPO" config --worktree user.nickname u
            ;;
        partial)
            git -C "$user" config uploadpack.allowFilter true
            git clone -q --filter=blob:none "file://$user" "$REPO"
            git -C "$user" config --unset uploadpack.allowFilter
            git -C "$user" config --remove-section uploadpack || true
            ;;
        sha256)
            git init -q -b main --object-format=sha256 "$REPO"
            cp "$user"/file-* "$REPO"
            git -C "$REPO" add .
            git -C "$REPO" -c user.name=u -c user.email=u@e commit -qm first
            ;;
        owner)
            git clone -q "$user" "$REPO"
            chown -R nobody "$REPO"
            export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'
            ;;
        shallow) git clone -q --depth 1 "file://$user" "$REPO" ;;
        packed)
            git clone -q "$user" "$REPO"
            git -C "$REPO" branch other
            git -C "$REPO" pack-refs --all
            ;;
        alternates) git clone -q --shared "$user" "$REPO" ;;
        split-index)
            git clone -q "$user" "$REPO"
            git -C "$REPO" config core.splitIndex true
            ;;
        *) git clone -q "$user" "$REPO" ;;
        esac
        local before
        before=$(user_side)
        (
            [ "$kind" != owner ] || unset GIT_CONFIG_COUNT
            options=()
            [ "$kind" != owner ] || options=(-o allow_foreign_repo)
            mount_pool 1 1 "${options[@]}"
            echo "$DAEMON" > "$DIR/daemon"
        )
        DAEMON=$(cat "$DIR/daemon")
        echo "# $kind: $(cat "$POOL/stats/spawn_backend")"
        lease_works
        await value_is "$POOL/stats/idle_agents" 1 # its worktree is made as new behind the release
        [ "$kind" != sparse ] || assert [ ! -e "$(readlink "$POOL/agents/agent-1/worktree")/file-1" ]
        [ "$kind" != filter ] || assert_equal "$(cat "$(readlink "$POOL/agents/agent-1/worktree")/file.up")" LOUD
        unmount_pool
        assert_equal "$(user_side)" "$before"
        git -C "$REPO" fsck --no-progress
        unset GIT_CONFIG_COUNT
        rm -rf "$STATE"
    done
    git -C "$user" worktree remove --force "$DIR/linked"
    git -C "$user" branch -q -D linked
    REPO=$user
}

@test "a repository without a commit is refused and says why" {
    git init -q "$DIR/unborn"
    mkdir "$POOL"
    run "$AGENTPOOLFS" -o "state_dir=$STATE" "$DIR/unborn" "$POOL"
    assert_failure 1
    assert_output --partial "no commit yet"
}

@test "setup and teardown run in the worktree, their output in the agent's" {
    mount_pool 1 1 -o "setup=echo set up \$AGENTPOOL_NAME; date > setup-ran; (sleep 1000 &)" \
        -o "teardown=echo torn down >> $DIR/teardowns"
    assert contains "$POOL/agents/agent-1/output" "set up agent-1"
    assert [ -e "$(readlink "$POOL/agents/agent-1/worktree")/setup-ran" ]
    echo job > "$POOL/acquire"
    echo job > "$POOL/release"
    await value_is "$POOL/stats/idle_agents" 1
    assert [ -e "$(readlink "$POOL/agents/agent-1/worktree")/setup-ran" ] # in the one made after the lease too
    assert_equal "$(wc -l < "$DIR/teardowns")" 1
    unmount_pool
    assert_equal "$(wc -l < "$DIR/teardowns")" 2
}

@test "a setup that fails or takes too long is a spawn that failed, and says why" {
    mount_pool 1 1 -o spawn_timeout=4s
    echo 'echo no such thing >&2; exit 3' > "$POOL/config/setup"
    echo kill > "$POOL/agents/agent-1/ctl"
    await value_is "$POOL/stats/breaker" open
    run bash -c "echo timeout=5m > $POOL/acquire"
    assert_failure
    assert contains "$POOL/last_error" "setup: exit code 3: no such thing"
    echo 'sleep 1000' > "$POOL/config/setup"
    echo reset-breaker > "$POOL/ctl"
    await value_is "$POOL/stats/breaker" open
    run bash -c "echo timeout=5m > $POOL/acquire"
    assert contains "$POOL/last_error" "took too long"
    echo > "$POOL/config/setup"
    echo reset-breaker > "$POOL/ctl"
    await value_is "$POOL/stats/idle_agents" 1
}

@test "a label has the ports that it had before, if its agent is idle; ports says how many an agent has" {
    mount_pool 3 3 -o ports=3
    echo web > "$POOL/acquire"
    echo other > "$POOL/acquire"
    ports_of() {
        rm -f "$POOL/leases/$1/worktree/ports"
        echo 'env | grep ^AGENTPOOL_PORT | sort > ports' > "$POOL/leases/$1/prompt"
        timeout 60 cat "$POOL/leases/$1/wait" > /dev/null
        cat "$POOL/leases/$1/worktree/ports"
    }
    local ports first
    ports=$(ports_of web)
    first=$(sed -n 's/^AGENTPOOL_PORT=//p' <<< "$ports")
    assert_equal "$ports" "AGENTPOOL_PORT=$first
AGENTPOOL_PORT_1=$first
AGENTPOOL_PORT_2=$((first + 1))
AGENTPOOL_PORT_3=$((first + 2))"
    assert [ "$(ports_of other)" != "$ports" ]
    echo web > "$POOL/release"
    echo other > "$POOL/release" # the last one to become idle
    await value_is "$POOL/stats/idle_agents" 3
    echo web > "$POOL/acquire"
    assert_equal "$(ports_of web)" "$ports"
    crash_pool
    mount_again 3 3 -o ports=3
    echo restart > "$POOL/leases/web/ctl"
    assert_equal "$(ports_of web)" "$ports"
    echo 0 > "$POOL/config/ports" # for agents made from now on
    echo restart > "$POOL/leases/web/ctl"
    assert_equal "$(ports_of web)" "$ports"
    echo kill > "$POOL/leases/web/ctl"
    await value_is "$POOL/stats/idle_agents" 3
    echo web > "$POOL/acquire"
    echo web-2 > "$POOL/acquire"
    echo web-3 > "$POOL/acquire"
    assert_equal "$(for label in web web-2 web-3; do ports_of $label; done | grep -c AGENTPOOL_PORT=)" 2
}

@test "a label that the pool invents is of no branch that there is, also with a new state directory" {
    mount_pool 1 1
    git -C "$REPO" branch agentpool/lease-7 # while it is mounted: the next one knows
    echo timeout=1m > "$POOL/acquire"
    assert_equal "$(ls "$POOL/leases")" lease-1
    echo old > "$POOL/leases/lease-1/worktree/old"
    echo lease-1 > "$POOL/release"
    unmount_pool
    rm -rf "$STATE"
    mount_pool 1 1
    echo timeout=1m > "$POOL/acquire"
    assert_equal "$(ls "$POOL/leases")" lease-8
    assert [ ! -e "$POOL/leases/lease-8/worktree/old" ]
    assert_equal "$(git -C "$REPO" show agentpool/lease-1:old)" old
}

@test "agents have an environment and a port of their own" {
    CLAUDECODE=1 TMUX=/nowhere mount_pool 3 3 -- sh -c 'env > env; exec sleep 1d'
    local agent tree
    for agent in agent-1 agent-2 agent-3; do
        tree=$(readlink "$POOL/agents/$agent/worktree")
        await contains "$tree/env" "AGENTPOOL_PORT"
        assert contains "$tree/env" "AGENTPOOL_NAME=$agent"
        assert contains "$tree/env" "AGENTPOOL_WORKTREE=$tree"
        assert contains "$tree/env" "AGENTPOOL_DIR=$POOL/agents/$agent"
        refute grep -E '^(CLAUDECODE|TMUX|GIT_DIR)=' "$tree/env"
        grep AGENTPOOL_PORT= "$tree/env" >> "$DIR/ports"
    done
    assert_equal "$(sort -u "$DIR/ports" | wc -l)" 3
}

@test "ignored files that .worktreeinclude names are in every new worktree, as they are then" {
    REPO_CHANGED=yes
    printf '.env\n*.key\n' > "$REPO/.gitignore"
    printf '.env\n' > "$REPO/.worktreeinclude"
    git -C "$REPO" add .
    git -C "$REPO" commit -qm ignore
    echo 1 > "$REPO/.env"
    echo secret > "$REPO/a.key"
    mount_pool 1 1
    echo job > "$POOL/acquire"
    assert_equal "$(cat "$(tree_of job)/.env")" 1
    assert [ ! -e "$(tree_of job)/a.key" ]
    echo 2 > "$REPO/.env"
    echo job > "$POOL/release"
    assert_equal "$(git -C "$REPO" branch --list 'agentpool/*')" ""
    echo job > "$POOL/acquire"
    assert_equal "$(cat "$(tree_of job)/.env")" 2
}

@test "diff is as git prints it, and writes to nothing" {
    mount_pool 1 1
    echo job > "$POOL/acquire"
    local tree index before
    tree=$(tree_of job)
    index=$(git -C "$tree" rev-parse --git-path index)
    echo changed > "$tree/file-0"
    rm "$tree/file-1"
    printf 'a\0b' > "$tree/binary"
    echo new > "$tree/ü new"
    mkdir "$tree/dir"
    echo new > "$tree/dir/new"
    git -C "$tree" add file-1
    before=$(md5sum "$index"; git -C "$tree" status --porcelain)
    cat "$POOL/leases/job/diff" > "$DIR/diff"
    cat "$POOL/leases/job/diffstat" > "$DIR/diffstat"
    assert_equal "$(md5sum "$index"; git -C "$tree" status --porcelain)" "$before"
    assert contains "$DIR/diff" "Binary files /dev/null and b/binary differ"
    assert contains "$DIR/diffstat" "5 files changed"
    # what git makes of it elsewhere is what the branch will be
    git clone -q "$REPO" "$DIR/clone"
    git -C "$DIR/clone" apply --exclude=binary "$DIR/diff"
    echo job > "$POOL/release"
    git -C "$DIR/clone" fetch -q origin agentpool/job
    git -C "$DIR/clone" add --all
    assert_equal "$(git -C "$DIR/clone" diff --cached --name-only FETCH_HEAD)" binary
}

@test "after the machine was started anew leases go on where their work lies, and what was half done goes" {
    mount_pool 2 2
    LOG_EXPECTED=yes
    echo one > "$POOL/acquire"
    echo two > "$POOL/acquire"
    echo 1 > "$(tree_of one)/one"
    (cd "$(tree_of two)" && git checkout -q --detach && echo 2 > two)
    crash_pool
    umount -l "$POOL"
    # as a machine that was started anew: no programs, no mounts; and somebody prunes meanwhile
    kill -9 "$(tmux -S "$STATE/tmux.sock" display-message -p '#{pid}')"
    [ ! -e "$STATE/inside/keeper" ] || kill -9 "$(cut -d ' ' -f 1 "$STATE/inside/keeper")"
    await nothing_runs
    local tree
    for tree in "$STATE"/worktrees/*; do # an ordinary user's are gone with the last process
        if mountpoint -q "$tree"; then umount -l "$tree"; fi
    done
    git -C "$REPO" worktree prune
    mkdir -p "$STATE/templates/making/files" "$STATE/trash/left"
    local staged
    staged=$(echo "$STATE"/git/.staged-*) # what was prepared for the next worktree
    assert [ -e "$staged/admin/index" ]
    touch "$staged/left"
    mount_again 1 2
    await value_is "$POOL/leases/one/activity" exited
    assert_equal "$(cat "$(tree_of two)/two")" 2
    echo one > "$POOL/release"
    echo two > "$POOL/release"
    assert_equal "$(on_branch one one)" 1
    assert_equal "$(on_branch two two)" 2
    assert [ ! -e "$STATE/templates/making" ]
    assert [ ! -e "$staged/left" ]
    await test ! -e "$STATE/trash/left"
    await value_is "$POOL/stats/idle_agents" 2
    assert_equal "$(git -C "$REPO" worktree list | wc -l)" 1
    if may_overlay; then assert_equal "$(grep -c "$STATE/worktrees/.* overlay" "/proc/$DAEMON/mounts")" 2; fi
    git -C "$REPO" log -1 --format=%B agentpool/one > "$DIR/message"
    assert contains "$DIR/message" "generation 1"
}
