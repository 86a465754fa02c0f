# The layer is the work: whatever an agent did is on its branch, or kept as it lay; and nothing of it reaches the user's
# repository, other agents or the next lease. SAVING_OPTIONS are options of every mount here, such as spawn_backend=copy
# or git=program.

load helper

setup() {
    common_setup
    export GIT_AUTHOR_NAME=agent GIT_AUTHOR_EMAIL=agent@example.org GIT_COMMITTER_NAME=agent GIT_COMMITTER_EMAIL=agent@example.org
    PROGRAM=$AGENTPOOLFS
    HELD=()
    SIDE=
}

teardown() {
    local result=0
    kill_children "${HELD[@]}"
    unmount_pool || result=1
    if [ -n "$SIDE" ] && [ "$(users_side)" != "$SIDE" ]; then
        echo "the user's side of the repository has changed:" >&2
        diff <(echo "$SIDE") <(users_side) >&2
        result=1
    fi
    if is_root; then
        local at
        while read -r at; do umount -l "$(printf '%b' "$at")"; done < <(awk -v dir="$DIR/" 'index($2, dir) == 1 { print $2 }' /proc/mounts | tac)
        find "$DIR" -xdev -path "$REPO" -prune -o -type f -links 1 -exec chattr -ia {} + 2>/dev/null || true
    fi
    # not the repository's: its index knows its files by their times
    find "$DIR" -xdev -path "$REPO" -prune -o -type d ! -perm -700 -exec chmod u+rwx {} \; 2>/dev/null || true
    common_teardown || result=1
    return $result
}

# The daemon without programs: for what is tried many times, and asks nothing of a program.
without_programs() {
    PROGRAM=${AGENTPOOLFS_FAKE:-$(dirname "$AGENTPOOLFS")/../tests/agentpoolfs-fake}
}

mount_saving() { # MIN MAX [OPTION...] [-- PROGRAM...]
    local min=$1 max=$2
    shift 2
    AGENTPOOLFS=$PROGRAM mount_pool "$min" "$max" ${SAVING_OPTIONS:+-o "$SAVING_OPTIONS"} "$@"
    SIDE=$(users_side)
}

# Every byte of the repository that is not the pool's to write; a line a file. Objects are counted elsewhere.
users_side() {
    (cd "$REPO/.git" && find . -path ./objects -prune -o -path ./refs/heads/agentpool -prune -o -path ./refs/agentpool -prune -o \
        -path ./logs/refs/heads/agentpool -prune -o -path ./logs/refs/agentpool -prune -o -path ./packed-refs -o \
        -type f -exec md5sum {} + | grep -v ' ./worktrees/' | sort -k 2)
    grep -vs -e '^[#^]' -e ' refs/heads/agentpool/' -e ' refs/agentpool/' "$REPO/.git/packed-refs"
    git -C "$REPO" stash list
    GIT_OPTIONAL_LOCKS=0 git -C "$REPO" status --porcelain
}

tree_of() { # LABEL
    readlink "$POOL/leases/$1/worktree"
}

git_dir_of() { # LABEL: of its agent
    git -C "$(tree_of "$1")" rev-parse --absolute-git-dir
}

lease() { # LABEL [WORD...]: $TREE is its worktree
    echo "$* timeout=2m" > "$POOL/acquire"
    TREE=$(tree_of "$1")
}

within() { # SECONDS COMMAND...: a shell of its own, which may hang
    local seconds=$1
    shift
    timeout -k 5 "$seconds" bash -c "$*" 3>&- || {
        echo "failed ($?): $*: $(timeout 5 cat "$POOL/last_error")" >&2
        return 1
    }
}

release() { # LABEL [discard]
    within 100 "echo '$*' > '$POOL/release'"
}

on_branch() { # LABEL FILE
    git -C "$REPO" show "agentpool/$1:$2"
}

kept() { # LABEL PATH: what was kept of it as it lay, for the newest lease of that label
    cat "$(printf '%s\n' "$STATE/kept/$1@"* | sort -V | tail -1)/files/$2"
}

# What lay at PATH at the end is on the branch, or is kept as it lay.
is_saved() { # LABEL PATH CONTENT
    if [ "$(on_branch "$1" "$2" 2>/dev/null)" = "$3" ] || [ "$(kept "$1" "$2" 2>/dev/null)" = "$3" ]; then return; fi
    echo "$2 of $1 is neither on the branch ($(git -C "$REPO" ls-tree -r --name-only "agentpool/$1" 2>&1 | head -20 | paste -sd' ')) nor kept:" >&2
    find "$STATE/kept" 2>/dev/null | head -20 >&2
    return 1
}

# Some ref leads to that commit, so that no gc takes it away.
is_reached() { # COMMIT
    [ -n "$(git -C "$REPO" for-each-ref --contains "$1" 2>&1)" ] || {
        echo "no ref leads to $1" >&2
        return 1
    }
}

# The content is in some commit that a ref leads to, or below kept/.
is_somewhere() { # CONTENT
    local blob
    blob=$(git hash-object --stdin <<< "$1")
    git -C "$REPO" rev-list --objects --all | grep -q "^$blob" || grep -rqsxF -D skip -- "$1" "$STATE/kept" || {
        echo "'$1' is nowhere" >&2
        return 1
    }
}

# A repository with one commit of its own; its name is not looked at by git.
make_inner() { # PATH
    git init -q -b inner -- "$1"
    echo "of $1" > "$1/inside"
    git -C "$1" add -A
    git -C "$1" commit -qm inner
}

# The most memory that it has had, kB; that of a sanitizer is its own.
peak_of_daemon() {
    if grep -q libasan "/proc/$DAEMON/maps"; then echo 0; else awk '/VmHWM/ { print $2 }' "/proc/$DAEMON/status"; fi
}

event() { # TEXT
    grep -F -- "$1" "$POOL/events"
}

await_idle() {
    await value_is "$POOL/stats/idle_agents" "${1:-1}"
}

# --- the user's repository ---

@test "what an agent does in git reaches the user's repository in no way" {
    mount_saving 1 1
    lease job
    git -C "$REPO" tag mine
    git -C "$REPO" branch feature
    SIDE=$(users_side)
    (
        cd "$TREE"
        echo work > work
        git add work
        git commit -qm work
        git config user.name somebody
        git config core.hooksPath /nowhere
        git config --add remote.origin.url /nowhere
        echo stashed > file-0
        git stash -q
        git branch side
        git tag theirs
        git branch -D feature
        git tag -d mine
        git update-ref -d refs/heads/main
        git update-ref refs/heads/feature HEAD
        git update-ref refs/remotes/origin/x HEAD
        git notes add -m note
        git worktree add -q "$DIR/outside" -b outside
        git worktree prune
        git reflog expire --expire=now --all
        git gc -q --prune=now
        git pack-refs --all
        git replace HEAD HEAD~1
        echo ignored >> "$(git rev-parse --git-path info/exclude)"
        printf '#!/bin/sh\nexit 1\n' > "$(git rev-parse --git-path hooks)/pre-commit"
        git sparse-checkout set nothing
        git bisect start
        git rerere
        git checkout -q --orphan alone
        git commit -qm alone
    ) > "$DIR/said" 2>&1 || true
    assert_equal "$(diff <(users_side) <(echo "$SIDE"))" ""
    release job
    assert_equal "$(diff <(users_side) <(echo "$SIDE"))" ""
    assert_equal "$(on_branch job work)" work
    assert_equal "$(git -C "$REPO" rev-parse main mine feature | sort -u)" "$(git -C "$REPO" rev-parse main)"
    git -C "$REPO" log -1 main # nothing replaces it
    git -C "$REPO" branch -q -D feature
    git -C "$REPO" tag -d mine
    SIDE=
}

@test "nothing of an agent is registered in the repository, and what leases stand on is held there" {
    [[ ${SAVING_OPTIONS:-} != *spawn_backend=git* ]] || skip "needs root: git registers its worktrees"
    mount_saving 2 2
    lease job
    assert_equal "$(git -C "$REPO" worktree list | wc -l)" 1
    assert [ ! -e "$REPO/.git/worktrees" ]
    assert_equal "$(git -C "$REPO" for-each-ref --format='%(objectname)' refs/agentpool/_held | sort -u)" "$(git -C "$REPO" rev-parse main)"
    echo 1 > "$TREE/one"
    git -C "$REPO" worktree prune
    release job
    assert_equal "$(on_branch job one)" 1
    unmount_pool
    assert_equal "$(git -C "$REPO" for-each-ref refs/agentpool)" ""
}

@test "a repository that is tidied up, rewritten or moved while leases last loses none of them" {
    REPO_CHANGED=yes
    mount_saving 2 3
    lease one
    lease two base=main
    local one=$TREE base own
    one=$(tree_of one)
    base=$(git -C "$REPO" rev-parse main)
    echo 1 > "$one/one"
    git -C "$one" add one
    git -C "$one" commit -qm own
    own=$(git -C "$one" rev-parse HEAD)
    # the base is gone from every branch, and all that no ref leads to is pruned
    echo rewritten > "$REPO/file-0"
    git -C "$REPO" commit -qa --amend -m rewritten
    git -C "$REPO" reflog expire --expire=now --all
    git -C "$REPO" worktree prune
    git -C "$REPO" gc -q --prune=now
    echo 2 > "$one/two"
    assert_equal "$(git -C "$one" status --porcelain)" "?? two"
    within 60 "cat '$POOL/leases/one/diff'" > "$DIR/diff"
    assert contains "$DIR/diff" "b/two"
    echo "commit more" > "$POOL/leases/one/ctl"
    release one
    assert_equal "$(on_branch one one)$(on_branch one two)" 12
    git -C "$REPO" merge-base --is-ancestor "$base" agentpool/one
    git -C "$REPO" merge-base --is-ancestor "$own" agentpool/one
    # moved away: what cannot be says so, and all is well when it is back
    mv "$REPO" "$REPO.moved"
    echo 3 > "$(tree_of two)/three"
    run within 100 "echo two > '$POOL/release'"
    if [ "$status" = 0 ]; then false; fi
    assert contains "$POOL/last_error" "$REPO"
    mv "$REPO.moved" "$REPO"
    LOG_EXPECTED=yes
    if [ -e "$POOL/leases/two" ]; then release two; else unmount_pool && mount_again 1 1; fi
    await on_branch two three
    assert_equal "$(on_branch two three)" 3
    git -C "$REPO" fsck --no-progress
    SIDE=
}

@test "a look writes nothing into the repository, and nothing into the agent's index" {
    mount_saving 1 1
    lease job
    head -c 3000000 /dev/urandom > "$TREE/large"
    echo new > "$TREE/new"
    rm "$TREE/file-1"
    echo changed > "$TREE/file-2"
    all() { (cd "$REPO/.git" && find . | sort && md5sum "$(git_dir_of job)/index"); }
    local before file
    before=$(all)
    for file in head changes diff diffstat head changes diff; do
        within 60 "cat '$POOL/leases/job/$file'" > "$DIR/look"
        assert [ -s "$DIR/look" ]
    done
    assert_equal "$(all)" "$before"
    git -C "$TREE" add new
    git -C "$TREE" commit -qm own
    before=$(all)
    within 60 "cat '$POOL/leases/job/head'" > "$DIR/look"
    assert_equal "$(cat "$DIR/look")" "$(git -C "$TREE" rev-parse HEAD)"
    for file in changes diff diffstat; do within 60 "cat '$POOL/leases/job/$file'" > "$DIR/look"; done
    assert_equal "$(all)" "$before"
}

@test "changes has a line a path, as git writes a short status, against what the lease began at" {
    REPO_CHANGED=yes
    mkdir "$REPO/dir"
    echo x > "$REPO/dir/x"
    echo '*.log' > "$REPO/.gitignore"
    git -C "$REPO" add .
    git -C "$REPO" commit -qm dir
    mount_saving 1 1
    lease job
    assert_equal "$(cat "$POOL/leases/job/changes")" ""
    echo changed >> "$TREE/file-0"
    rm "$TREE/file-1"
    chmod 755 "$TREE/file-2"
    rm -r "$TREE/dir"
    ln -s x "$TREE/dir"
    mkdir -p "$TREE/new/er"
    echo 1 > "$TREE/new/er/one"
    echo 2 > "$TREE/new/two words"
    echo 3 > "$TREE/new/"$'ü\n"\t'
    echo 4 > "$TREE/ignored.log"
    assert_equal "$(sort "$POOL/leases/job/changes")" "$(git -C "$TREE" status --porcelain --untracked-files=all --no-renames | sort)"
    git -C "$TREE" add --all
    git -C "$TREE" commit -qm own
    # what is committed is changed still, since the lease began
    assert_equal "$(cut -c 4- "$POOL/leases/job/changes" | sed 's/^"\(.* .*\)"$/\1/' | sort)" "$(git -C "$TREE" diff --no-renames --name-only main HEAD | sort)"
    SIDE=
}

@test "an ordinary lease is looked at and saved without a process of git but one for the patch of diff" {
    needs_root "follows a daemon with overlays"
    SAVING_OPTIONS= mount_saving 2 2 # of the library and overlays alone this can be said
    lease warm # the first of all
    echo 1 > "$TREE/one"
    release warm
    await_idle 2
    strace -f -z -qq -o "$DIR/strace" -e trace=execve,openat -p "$DAEMON" 2>/dev/null 3>&- &
    local strace=$! file n
    await grep -q '^TracerPid:.[1-9]' "/proc/$DAEMON/status"
    echo job > "$POOL/acquire"
    TREE=$(tree_of job)
    for n in 0 1 2; do echo changed >> "$TREE/file-$n"; done
    for n in 1 2 3 4 5 6; do echo "$n" > "$TREE/new-$n"; done
    ln -s file-0 "$TREE/link"
    for file in diff diffstat changes head; do
        run cat "$POOL/leases/job/$file"
        assert_success
        assert [ -n "$output" ]
    done
    echo job > "$POOL/release"
    kill "$strace"
    wait "$strace" || true
    assert_equal "$(git -C "$REPO" diff --name-only main agentpool/job | wc -l)" 10
    grep execve.*git "$DIR/strace"
    assert_equal "$(grep -c 'execve("[^"]*git[^/"]*"' "$DIR/strace")" 1
    # the user's index, which is as long as the repository has files, is nobody's business
    refute grep -F "\"$REPO/.git/index\"" "$DIR/strace"
    refute grep '"index"' "$DIR/strace"
}

# --- repositories inside ---

@test "what the agent has stashed, detached from and branched is kept, and is the user's in no way" {
    mount_saving 1 1
    lease job
    local first second third detached side left
    (
        cd "$TREE"
        for n in 1 2 3; do echo "stash $n" > file-0 && git stash -q; done
        git checkout -q --detach
        echo detached > d
        git add d
        git commit -qm detached
        git checkout -q -b side main
        echo side > s
        git add s
        git commit -qm side
        git checkout -q --detach main
        echo left > l
        git add l
        git commit -qm left
        git checkout -q main~0
        git tag -a -m annotated marked side
    )
    first=$(git -C "$TREE" rev-parse 'stash@{2}') second=$(git -C "$TREE" rev-parse 'stash@{1}') third=$(git -C "$TREE" rev-parse stash)
    side=$(git -C "$TREE" rev-parse side) left=$(git -C "$TREE" rev-parse 'HEAD@{1}') detached=$(git -C "$TREE" log -g --format=%H --grep-reflog='commit: detached' HEAD)
    echo last > "$TREE/last"
    release job
    local commit
    for commit in $first $second $third $detached $side $left; do is_reached "$commit"; done
    assert_equal "$(on_branch job last)" last
    assert_equal "$(git -C "$REPO" stash list)$(git -C "$REPO" tag)" ""
    assert_equal "$(git -C "$REPO" branch --format='%(refname:short)' | grep -v ^agentpool/)" main
}

@test "a repository inside is kept with all its branches, stashes and commits on no branch, added as a gitlink or not" {
    mount_saving 1 1
    local how commit commits
    for how in untracked added committed; do
        lease "$how"
        make_inner "$TREE/in"
        (
            cd "$TREE/in"
            for n in 1 2 3; do echo "stash $n" > inside && git stash -q; done
            git checkout -q -b other
            git commit -q --allow-empty -m other
            git checkout -q --detach inner
            git commit -q --allow-empty -m detached
            echo flagged > inside
            git update-index --assume-unchanged inside
            echo "dirty of $how" > dirty
        )
        commits=$(git -C "$TREE/in" rev-parse inner other HEAD stash 'stash@{1}' 'stash@{2}')
        case $how in
        added) git -C "$TREE" add in ;;
        committed)
            git -C "$TREE" add in
            git -C "$TREE" commit -qm gitlink
            ;;
        esac 2>/dev/null
        release "$how"
        for commit in $commits; do is_reached "$commit"; done
        is_somewhere flagged
        is_somewhere "dirty of $how"
    done
}

@test "repositories inside may have any name, and refs that are in each other's way" {
    mount_saving 1 1
    local name commits=() commit n=0
    for name in プロジェクトの検証用リポジトリとそのテストのための作業場所 $'a\nb' ' ' $'\xff\xfe' -dash 'a..b' 'x.lock' '@{' "$(printf 'n%.0s' {1..250})"; do
        lease "name-$((++n))"
        make_inner "$TREE/$name"
        commits+=("$(git -C "$TREE/$name" rev-parse HEAD)")
        release "name-$n"
    done
    lease long
    make_inner "$TREE/in"
    git -C "$TREE/in" branch "$(printf 'x%.0s' {1..200})"
    commits+=("$(git -C "$TREE/in" rev-parse HEAD)")
    release long
    # in one lease a branch, in the next one below it, and a repository in the place of a directory of them
    local way
    for way in b b/below b; do
        lease again
        rm -rf "$TREE/in"
        git init -q -b "$way" "$TREE/in"
        git -C "$TREE/in" commit -q --allow-empty -m "$way"
        commits+=("$(git -C "$TREE/in" rev-parse HEAD)")
        release again
    done
    lease again
    rm -rf "$TREE/in"
    make_inner "$TREE/in/heads"
    commits+=("$(git -C "$TREE/in/heads" rev-parse HEAD)")
    release again
    for commit in "${commits[@]}"; do is_reached "$commit"; done
}

@test "a .git that leads out of its directory is followed nowhere, and what lies beside it is saved" {
    mount_saving 2 2
    git init -q -b main "$DIR/secret"
    echo secret > "$DIR/secret/secret"
    git -C "$DIR/secret" add .
    git -C "$DIR/secret" commit -qm secret
    local secret other main n=0 at target before
    secret=$(git -C "$DIR/secret" rev-parse main) main=$(git -C "$REPO" rev-parse main)
    lease other
    other=$(git_dir_of other)
    sums() { find "$DIR/secret" "$other" -type f -exec md5sum {} + | sort; }
    before=$(sums)
    for target in "$REPO/.git" "$other" "$DIR/secret/.git" / ../../../.. /dev/zero '' "$DIR/nothing" "$(printf 'x%.0s' {1..5000})"; do
        for at in file link; do
            lease "out-$((++n))"
            mkdir "$TREE/sub"
            if [ $at = file ]; then
                echo "gitdir: $target" > "$TREE/sub/.git"
            else
                ln -s "$target" "$TREE/sub/.git" 2>/dev/null || true # a name may be too long for one
            fi
            echo "evil $n" > "$TREE/sub/evil"
            release "out-$n"
            is_saved "out-$n" sub/evil "evil $n"
        done
    done
    # a directory that borrows: in commondir, in alternates, in refs that are links
    for at in commondir alternates refs worktree; do
        lease "borrows-$at"
        make_inner "$TREE/sub"
        local own
        own=$(git -C "$TREE/sub" rev-parse HEAD)
        case $at in
        commondir) echo "$DIR/secret/.git" > "$TREE/sub/.git/commondir" ;;
        alternates) echo "$DIR/secret/.git/objects" > "$TREE/sub/.git/objects/info/alternates" ;;
        refs) ln -s "$DIR/secret/.git/refs/heads" "$TREE/sub/.git/refs/heads/out" ;;
        worktree) git config -f "$TREE/sub/.git/config" core.worktree "$DIR/secret" ;;
        esac
        echo "$secret" > "$TREE/sub/.git/refs/heads/theirs"
        release "borrows-$at"
        is_reached "$own"
        run git -C "$REPO" cat-file -e "$secret"
        assert_failure
    done
    assert_equal "$(sums)" "$before"
    assert_equal "$(git -C "$REPO" rev-parse main)" "$main"
    release other
}

@test "alternates in an agent's own git directory lead nowhere either" {
    mount_saving 1 1
    git init -q -b main "$DIR/secret"
    echo secret > "$DIR/secret/secret"
    git -C "$DIR/secret" add .
    git -C "$DIR/secret" commit -qm secret
    local secret dir way
    secret=$(git -C "$DIR/secret" rev-parse main)
    for way in path fifo loop; do
        lease "$way"
        dir=$(git_dir_of "$way")
        echo "$way" > "$TREE/work"
        git -C "$TREE" add work
        git -C "$TREE" commit -qm own
        mkdir -p "$dir/objects/info" "$dir/refs/heads"
        case $way in
        path) echo "$DIR/secret/.git/objects" >> "$dir/objects/info/alternates" ;;
        fifo)
            rm -f "$dir/objects/info/alternates"
            mkfifo "$dir/objects/info/alternates"
            ;;
        loop) echo "$dir/objects" > "$dir/objects/info/alternates" ;;
        esac
        echo "$secret" > "$dir/refs/heads/theirs"
        release "$way"
        is_saved "$way" work "$way"
        run git -C "$REPO" cat-file -e "$secret"
        assert_failure
    done
}

@test "configuration, hooks, filters and attributes of an agent's making run nothing" {
    mount_saving 1 1
    local ran=$DIR/ran dir at name
    for at in own inner; do
        lease "$at"
        if [ $at = inner ]; then
            make_inner "$TREE/in"
            dir=$TREE/in/.git
        else
            dir=$(git_dir_of own)
        fi
        while read -r name; do
            git config -f "$dir/config" "$name" "sh -c 'touch $ran-$name; cat'"
        done <<< "filter.x.clean
filter.x.process
filter.x.smudge
diff.x.textconv
diff.x.command
diff.external
merge.x.driver
core.fsmonitor
core.sshCommand
core.editor
core.pager
core.alternateRefsCommand
credential.helper
gpg.program
uploadpack.packObjectsHook
alias.add
alias.status"
        git config -f "$dir/config" filter.x.required true
        git config -f "$dir/config" core.hooksPath "$DIR/hooks"
        git config -f "$dir/config" core.attributesFile "$DIR/attributes"
        git config -f "$dir/config" include.path "$DIR/included"
        git config -f "$DIR/included" commit.gpgSign true
        mkdir -p "$DIR/hooks" "$dir/info" "$dir/hooks"
        for name in pre-commit post-commit post-index-change post-checkout reference-transaction pre-auto-gc fsmonitor-watchman post-rewrite; do
            printf '#!/bin/sh\ntouch "%s-hook"\n' "$ran" | tee "$DIR/hooks/$name" > "$dir/hooks/$name"
            chmod +x "$DIR/hooks/$name" "$dir/hooks/$name"
        done
        echo '* filter=x diff=x merge=x' | tee "$DIR/attributes" "$dir/info/attributes" > "$TREE/.gitattributes"
        [ $at = own ] || cp "$TREE/.gitattributes" "$TREE/in/.gitattributes"
        echo "$at" > "$TREE/work"
        echo changed >> "$TREE/file-0"
        for name in head changes diff diffstat; do within 60 "cat '$POOL/leases/$at/$name'" > "$DIR/look"; done
        within 60 "echo 'commit part' > '$POOL/leases/$at/ctl'"
        echo more >> "$TREE/work"
        release "$at"
        assert_equal "$(on_branch "$at" work)" "$at"$'\n'more
        assert_equal "$(echo "$ran"*)" "$ran*"
    done
    rm -rf "$DIR/hooks"
}

@test "bare repositories, worktrees that an agent adds, and what only looks like a repository are kept as they are" {
    mount_saving 1 1
    lease bare
    git clone -q --bare "$TREE" "$TREE/copy.git" 2>/dev/null
    local commit inner outer
    commit=$(git -C "$TREE/copy.git" commit-tree -m bare 'HEAD^{tree}')
    git -C "$TREE/copy.git" update-ref refs/heads/made "$commit"
    release bare
    is_saved bare copy.git/refs/heads/made "$commit"
    lease trees
    git -C "$TREE" worktree add -q "$TREE/inner" -b inner
    git -C "$TREE" worktree add -q "$DIR/outer" -b outer
    echo inner > "$TREE/inner/i"
    git -C "$TREE/inner" add i
    git -C "$TREE/inner" commit -qm inner
    echo outer > "$DIR/outer/o"
    git -C "$DIR/outer" add o
    git -C "$DIR/outer" commit -qm outer
    echo "not committed" > "$TREE/inner/dirty"
    inner=$(git -C "$TREE/inner" rev-parse HEAD) outer=$(git -C "$DIR/outer" rev-parse HEAD)
    release trees
    is_reached "$inner"
    is_reached "$outer"
    is_somewhere "not committed"
    # a fixture of a test, half a clone
    lease fixture
    mkdir -p "$TREE/fixture/.git/refs" "$TREE/half/.git/objects/pack"
    echo precious > "$TREE/fixture/.git/config"
    echo beside > "$TREE/fixture/a"
    echo "half a pack" > "$TREE/half/.git/objects/pack/tmp_pack_1"
    release fixture
    is_saved fixture fixture/a beside
    is_somewhere precious
    is_somewhere "half a pack"
    # an own repository in place of the worktree's .git
    lease replaced
    rm -rf "$TREE/.git"
    git init -q "$TREE"
    git -C "$TREE" add .
    git -C "$TREE" commit -qm own
    commit=$(git -C "$TREE" rev-parse HEAD)
    echo more > "$TREE/more"
    release replaced
    is_reached "$commit"
    assert_equal "$(on_branch replaced more)" more
}

@test "names that git refuses are kept where they cannot be on a branch" {
    mount_saving 1 1
    lease names
    local name
    mkdir "$TREE/sub"
    for name in .GIT .Git 'git~1' 'GIT~1' $'.g\u200cit' '.git ' '.git.' '.git::$INDEX_ALLOCATION' '...' '.git\x' 'aux' 'a:b'; do
        echo "in $name" > "$TREE/sub/$name"
    done
    echo beside > "$TREE/sub/beside"
    release names
    assert_equal "$(on_branch names sub/beside)" beside
    for name in .GIT .Git 'git~1' 'GIT~1' $'.g\u200cit' '.git ' '.git.' '.git::$INDEX_ALLOCATION' '...' '.git\x' 'aux' 'a:b'; do
        is_saved names "sub/$name" "in $name"
    done
    git -C "$REPO" fsck --no-progress
}

@test "submodules are ready in a worktree without a network, and what is committed in them is kept" {
    REPO_CHANGED=yes
    local path commit
    make_repo "$DIR/lib"
    for path in lib libs/foo; do
        git -c protocol.file.allow=always -C "$REPO" submodule --quiet add "$DIR/lib" $path
    done
    git -C "$REPO" commit -qm submodules
    mv "$DIR/lib" "$DIR/away"
    mount_saving 1 1
    for path in lib libs/foo; do
        lease "${path//\//-}"
        assert_equal "$(cat "$TREE/$path/file-0")" 0
        assert_equal "$(git -C "$TREE" submodule status | grep -c '^ ')" 2
        git -C "$TREE/$path" checkout -q -b mine
        echo work > "$TREE/$path/work"
        git -C "$TREE/$path" add work
        git -C "$TREE/$path" commit -qm work
        commit=$(git -C "$TREE/$path" rev-parse HEAD)
        [ $path = lib ] || git -C "$TREE" submodule --quiet deinit -f $path
        release "${path//\//-}"
        is_reached "$commit"
    done
    unmount_pool
    # the user's git goes into submodules by itself
    git -C "$REPO" config submodule.recurse true
    mount_saving 1 1
    for n in 1 2 3; do
        lease job
        echo "$n" > "$TREE/lib/w"
        git -C "$TREE/lib" add w
        git -C "$TREE/lib" commit -qm "w$n"
        commit=$(git -C "$TREE/lib" rev-parse HEAD)
        [ "$n" != 2 ] || git -C "$TREE" commit -qam bump
        echo "dirty $n" > "$TREE/lib/dirty"
        release job
        is_reached "$commit"
        is_somewhere "dirty $n"
    done
    refute grep '"to":"unhealthy"' "$POOL/events"
    mv "$DIR/away" "$DIR/lib"
    SIDE=
}

# --- what is no file, and what cannot be read ---

# Puts something in the place of a path that is no ordinary file of it, whatever is there.
spoil() { # KIND PATH
    rm -rf "$2"
    mkdir -p "$(dirname "$2")"
    case $1 in
    fifo) mkfifo "$2" ;;
    endless) ln -s /dev/zero "$2" ;;
    loop) ln -s "$(basename "$2")" "$2" ;;
    socket) python3 -c 'import os, socket, sys; os.chdir(sys.argv[1]); socket.socket(socket.AF_UNIX).bind(sys.argv[2])' "$(dirname "$2")" "$(basename "$2")" ;;
    directory) mkdir "$2" ;;
    huge) truncate -s 20G "$2" ;;
    noise) head -c 300000 /dev/urandom > "$2" ;;
    device) mknod "$2" c 1 5 ;;
    esac
}

kinds_of_spoil() {
    echo fifo endless loop socket directory huge noise
    if is_root; then echo device; fi
}

# bats test_tags=slow
@test "whatever stands in the place of a file of the agent's git, looks and the release come to their end" {
    without_programs
    mount_saving 1 4
    local file kind n=0 name dir
    for file in HEAD index logs/HEAD logs/refs/heads/agentpool/LABEL refs/heads/agentpool/LABEL refs/stash logs/refs/stash packed-refs \
        config info/exclude info/attributes info/sparse-checkout objects/info/alternates shallow MERGE_HEAD ORIG_HEAD modules refs objects \
        objects/pack objects/00 logs commondir gitdir; do
        for kind in $(kinds_of_spoil); do
            name=spoilt-$((++n))
            lease $name
            dir=$(git_dir_of $name)
            echo "$kind $file" > "$TREE/work"
            spoil "$kind" "$dir/${file/LABEL/$name}"
            for look in diff changes head; do
                timeout 30 cat "$POOL/leases/$name/$look" > /dev/null 2>&1 3>&- || { [ $? != 124 ] || fail "$look of $kind in $file hangs"; }
            done
            release $name || fail "$kind in the place of $file"
            is_saved $name work "$kind $file"
        done
    done
    local peak
    peak=$(peak_of_daemon)
    assert [ "$peak" -lt 400000 ]
    lease after
    assert_equal "$(git -C "$TREE" status --porcelain)" ""
}

# bats test_tags=slow
@test "whatever stands in the place of a file of rules, or of .git, the rest of the work is saved" {
    without_programs
    mount_saving 1 4
    local file kind n=0 name
    for file in .gitignore .gitattributes .gitmodules .git dir/.gitignore dir/.git dir/.git/HEAD dir/.git/config dir/.git/objects \
        dir/.git/objects/info/alternates dir/.git/packed-refs dir/.git/logs/HEAD dir/.git/refs/heads/inner file-0; do
        for kind in $(kinds_of_spoil); do
            name=spoilt-$((++n))
            lease $name
            make_inner "$TREE/dir"
            echo "$kind $file" > "$TREE/work"
            echo "$kind $file" > "$TREE/dir/work"
            [[ $file == */* ]] || rm -rf "$TREE/$file"
            spoil "$kind" "$TREE/$file"
            if [ "$kind" = huge ]; then truncate -s 100M "$TREE/$file"; fi
            timeout 60 cat "$POOL/leases/$name/diff" > /dev/null 2>&1 3>&- || { [ $? != 124 ] || fail "diff with $kind in $file hangs"; }
            release $name || fail "$kind in the place of $file"
            is_saved $name work "$kind $file"
            is_somewhere "$kind $file"
        done
    done
    lease after
    assert_equal "$(ls -A "$TREE" | paste -sd' ')" ".git file-0 file-1 file-2"
}

@test "files below directories and modes that cannot be read are saved all the same, or are kept and said" {
    mount_saving 1 1
    lease job
    mkdir -p "$TREE/out/deep" "$TREE/shut/in"
    echo out > "$TREE/out/work"
    echo deep > "$TREE/out/deep/work"
    echo shut > "$TREE/shut/in/work"
    echo no > "$TREE/no"
    chmod 000 "$TREE/no" "$TREE/shut/in"
    chmod 311 "$TREE/out"
    chmod 100 "$TREE/shut"
    echo yes > "$TREE/yes"
    release job
    assert_equal "$(on_branch job yes)" yes
    if [ -e "$STATE/kept" ]; then chmod -R u+rwX "$STATE/kept"; fi
    is_saved job out/work out
    is_saved job out/deep/work deep
    is_saved job shut/in/work shut
    is_saved job no no
    await_idle
}

@test "a file below a path that is longer than any call takes is saved or kept" {
    mount_saving 1 1
    lease deep
    python3 - "$TREE" <<'END'
import os, sys
os.chdir(sys.argv[1])
for i in range(30):
    os.mkdir("d" * 200)
    os.chdir("d" * 200)
with open("work", "w") as file:
    file.write("deep work\n")
END
    echo beside > "$TREE/beside"
    within 60 "cat '$POOL/leases/deep/diffstat'" > "$DIR/look" || true
    release deep
    assert_equal "$(on_branch deep beside)" beside
    git -C "$REPO" ls-tree -r --name-only agentpool/deep | grep -q 'd/work$' || find "$STATE/kept" -name work | grep -q 'd/work$'
    await_idle
    lease after
    assert_equal "$(ls -A "$TREE" | paste -sd' ')" ".git file-0 file-1 file-2"
}

@test "what cannot be removed because of its mode or its attributes piles up nowhere" {
    REPO_CHANGED=yes
    echo cache > "$REPO/.gitignore"
    git -C "$REPO" add .
    git -C "$REPO" commit -qm ignore
    local keep=()
    if "$PROGRAM" --list-options | grep -q ^keep_work; then keep=(-o keep_work=0); fi
    mount_saving 1 1 "${keep[@]}"
    local n
    for n in 1 2 3; do
        lease job-$n
        mkdir -p "$TREE/cache/mod/in" "$TREE/new"
        echo 1 > "$TREE/cache/mod/in/file"
        echo "$n" > "$TREE/new/work"
        chmod -R a-w "$TREE/cache"
        chmod 000 "$TREE/cache/mod/in"
        if is_root; then
            touch "$TREE/cache-not" "$TREE/new/log"
            chattr +i "$TREE/new/work" 2>/dev/null || true
            chattr +a "$TREE/new/log" 2>/dev/null || true
        fi
        release job-$n
        assert_equal "$(on_branch job-$n new/work)" $n
        await_idle
    done
    trash_is_empty() { [ -z "$(ls -A "$STATE/trash" 2>/dev/null)" ]; }
    await trash_is_empty
    unmount_pool
    assert [ ! -e "$STATE/trash" ]
    SIDE=
}

# --- mounts ---

@test "what is mounted in a worktree is let go of, and nothing behind it is read or removed" {
    needs_root "mounts"
    mount_saving 1 1
    local at way label n=0
    for way in release kill discard; do
        for at in new . new/nested git file; do
            label=mount-$((++n))
            mkdir -p "$DIR/data-$n/below"
            echo "precious $n" | tee "$DIR/data-$n/file" > "$DIR/data-$n/below/file"
            lease $label
            echo "$label" > "$TREE/work"
            mkdir "$TREE/new"
            case $at in
            git) mount --bind "$DIR/data-$n" "$(git_dir_of $label)" ;;
            file) mount --bind "$DIR/data-$n/file" "$TREE/file-1" ;;
            new/nested)
                mount -t tmpfs test "$TREE/new"
                mkdir "$TREE/new/nested"
                echo inner > "$TREE/new/nested-too"
                mount --bind "$DIR/data-$n" "$TREE/new/nested"
                ;;
            *) mount --bind "$DIR/data-$n" "$TREE/$at" ;;
            esac
            case $way in
            release) release $label ;;
            discard) release $label discard ;;
            kill) within 100 "echo kill > '$POOL/leases/$label/ctl'" ;;
            esac
            await_idle
            [ $way = discard ] || is_saved $label work "$label"
            assert_equal "$(cat "$DIR/data-$n/file" "$DIR/data-$n/below/file" | uniq)" "precious $n"
            assert_equal "$(awk -v dir="$STATE/" 'index($2, dir) == 1 && $3 != "overlay"' /proc/mounts)" ""
            run git -C "$REPO" grep -q "precious $n" "agentpool/$label" --
            assert_failure
            echo later > "$DIR/data-$n/later"
        done
    done
    assert event mount
    unmount_pool
    assert_equal "$(cat "$DIR"/data-*/later | wc -l)" "$n"
}

@test "under a program that goes on a mount in its worktree is let go of too" {
    needs_root "mounts"
    local on n=0
    mkdir -p "$DIR/data"
    for on in keep clear; do
        mount_saving 1 1 $(program_that_forgets $on)
        lease $on
        mkdir "$TREE/cache"
        echo precious > "$DIR/data/file"
        mount --bind "$DIR/data" "$TREE/cache"
        mount --bind "$DIR/data/file" "$TREE/file-2"
        release $on
        await_idle
        assert_equal "$(cat "$DIR/data/file")" precious
        lease next
        assert_equal "$(ls -A "$TREE" | paste -sd' ')" ".git file-0 file-1 file-2"
        assert_equal "$(cat "$TREE/file-2")" 2
        unmount_pool
    done
}

# Mounts a file system of which nobody answers any request.
mount_silent() { # PATH
    python3 - "$1" 3>&- <<'END' &
import ctypes, os, sys, time
fd = os.open("/dev/fuse", os.O_RDWR)
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"silent", sys.argv[1].encode(), b"fuse", 0, b"fd=%d,rootmode=40000,user_id=0,group_id=0" % fd):
    sys.exit(os.strerror(ctypes.get_errno()))
time.sleep(600)
END
    HELD+=($!)
    await grep -q "^silent $1 " /proc/mounts
}

# bats test_tags=slow
@test "a mount that never answers holds up one end at most, and nothing else" {
    needs_root "mounts"
    without_programs
    local at
    for at in . sub git; do
        mount_saving 1 3 -o maintenance_interval=1s
        lease job
        echo work > "$TREE/work"
        mkdir "$TREE/sub"
        case $at in
        .) mount_silent "$TREE" ;;
        sub) mount_silent "$TREE/sub" ;;
        git) mount_silent "$(git_dir_of job)" ;;
        esac
        timeout 5 cat "$POOL/leases/job/diff" > /dev/null 2>&1 & # a reader that waits for it, or is told
        local reader=$!
        within 40 "echo 'other timeout=30' > '$POOL/acquire'"
        within 10 "cat '$POOL/status' '$POOL/leases/other/diffstat'" > "$DIR/look"
        within 160 "echo job > '$POOL/release'"
        within 40 "echo other > '$POOL/release'"
        within 40 "echo 'job2 timeout=30' > '$POOL/acquire'"
        wait $reader || true
        unmount_pool
        is_saved job work work
        refute grep -q "^silent $DIR" /proc/mounts
        kill -9 "${HELD[@]}"
        HELD=()
        rm -rf "${STATE:?}/kept"
        git -C "$REPO" branch -q -D agentpool/job
    done
}

# --- between leases ---

# The options of a mount whose program goes on after a lease.
program_that_forgets() { # keep|clear
    mkdir -p "$STATE/programs"
    # shellcheck disable=SC2016 # for the script
    printf '%s\n' '#!/bin/bash' 'while IFS= read -r -p "fake> " line; do echo "said $line"; done' > "$DIR/forgets"
    chmod +x "$DIR/forgets"
    printf 'ready = screen:1 ^fake>\nclear = /clear\n' > "$STATE/programs/forgets.conf"
    echo "-o on_release=$1 -- $DIR/forgets"
}

# All of a worktree and of its git that the next lease could find: a line each.
all_of() { # LABEL
    local tree dir
    tree=$(tree_of "$1") dir=$(git_dir_of "$1")
    (cd "$tree" && find . -path ./.git -prune -o -printf '%p %y %m %l\n' | sort && find . -path ./.git -prune -o -type f -exec md5sum {} + | sort)
    git -C "$tree" config --list --show-scope | sort
    git -C "$tree" for-each-ref | grep -v agentpool/
    git -C "$tree" ls-files -v
    git -C "$tree" stash list
    git -C "$tree" worktree list | wc -l
    git -C "$tree" status --porcelain --ignored
    (cd "$dir" && find . \( -path ./objects -o -name index -o -path ./logs -o -path '*/agentpool/*' -o -name packed-refs -o -name ORIG_HEAD \) -prune -o -type f -printf '%p %m\n' | sort)
}

@test "nothing of a lease is there for the next, whatever is done with the program" {
    REPO_CHANGED=yes
    mkdir -p "$REPO/a" "$REPO/b/in"
    echo a > "$REPO/a/a"
    echo b > "$REPO/b/in/b"
    ln -s file-0 "$REPO/link"
    echo '*.log' > "$REPO/.gitignore"
    chmod 755 "$REPO/file-2"
    git -C "$REPO" add .
    git -C "$REPO" commit -qm more
    local on options before
    for on in restart keep clear; do
        case $on in
        restart) options="-o on_release=restart" ;;
        *) options=$(program_that_forgets $on) ;;
        esac
        # shellcheck disable=SC2086 # words
        mount_saving 1 1 $options
        lease first
        before=$(all_of first)
        (
            cd "$TREE"
            chmod 0400 file-0
            chmod 0644 file-2
            chmod 0777 a
            chmod 0500 b
            touch ignored.log
            mkdir -p empty/dirs
            mkfifo fifo
            ln -sfn / link
            rm -r a
            ln -s b a
            echo changed > file-1
            touch -d 2001-01-01 file-0
            git update-index --assume-unchanged file-1
            git update-index --skip-worktree file-0
            git config extensions.worktreeConfig true
            git config --worktree user.name somebody-else
            git config --worktree core.hooksPath /x
            git config user.email other@example.org
            git config core.fileMode false
            git branch side
            git tag marked
            git worktree add -q "$DIR/outside-$on"
            printf '#!/bin/sh\nexit 1\n' > "$(git rev-parse --absolute-git-dir)/hooks/pre-commit"
            mkdir -p "$(git rev-parse --absolute-git-dir)/info"
            echo '*' > "$(git rev-parse --absolute-git-dir)/info/exclude"
            echo '* filter=x' > "$(git rev-parse --absolute-git-dir)/info/attributes"
            git sparse-checkout set b
        ) > "$DIR/said" 2>&1 || true
        release first
        await_idle
        lease second
        assert_equal "$(diff <(all_of second) <(echo "$before"))" ""
        echo ok > "$TREE/ok"
        git -C "$TREE" add ok
        git -C "$TREE" commit -qm ok
        release second
        assert_equal "$(on_branch second ok)" ok
        git -C "$REPO" for-each-ref --format='delete %(refname)' refs/heads/agentpool refs/agentpool/first | git -C "$REPO" update-ref --stdin
        unmount_pool
    done
    SIDE=
}

@test "a program that goes on sees its worktree made as new in the same place" {
    mount_saving 1 1 $(program_that_forgets keep)
    lease first
    local program tree=$TREE
    program=$(program_of "$POOL/leases/first")
    echo changed > "$TREE/file-0"
    exec 7< "$TREE" # a directory that somebody has open is the same one still
    release first
    await_idle
    assert_equal "$(cat "/proc/self/fd/7/file-0")" 0
    exec 7<&-
    lease second
    assert_equal "$TREE" "$tree"
    assert_equal "$(program_of "$POOL/leases/second")" "$program"
    assert_equal "$(readlink "/proc/$program/cwd")" "$tree"
    assert_equal "$(ls "/proc/$program/cwd/")" "$(ls "$REPO")"
}

# --- the ways of saving ---

@test "names that differ in case alone are two, whatever the repository says of its file system" {
    REPO_CHANGED=yes
    git -C "$REPO" config core.ignoreCase true
    git -C "$REPO" config core.fileMode false
    git -C "$REPO" config core.precomposeUnicode true
    echo old > "$REPO/Button.tsx"
    git -C "$REPO" add .
    git -C "$REPO" commit -qm button
    mount_saving 1 1
    lease one
    mv "$TREE/Button.tsx" "$TREE/button.tsx"
    echo new >> "$TREE/button.tsx"
    echo precious > "$TREE/FILE-0"
    chmod +x "$TREE/file-1"
    echo decomposed > "$TREE/"$'u\xcc\x88'
    release one
    assert_equal "$(on_branch one button.tsx)" "old"$'\n'"new"
    assert_equal "$(on_branch one FILE-0)" precious
    assert_equal "$(on_branch one $'u\xcc\x88')" decomposed
    assert_equal "$(git -C "$REPO" ls-tree agentpool/one file-1 | cut -c 1-6)" 100755
    refute on_branch one Button.tsx
    SIDE=
}

@test "what setup makes is in no diff and on no branch, unless it is changed afterwards or committed" {
    REPO_CHANGED=yes
    mkdir "$DIR/modules"
    echo 'node_modules/' > "$REPO/.gitignore"
    git -C "$REPO" add .
    git -C "$REPO" commit -qm ignore
    mount_saving 1 1 -o "setup=ln -s $DIR/modules node_modules; echo made > made; mkdir -p gen/in; echo 1 > gen/one; echo 2 > gen/in/two; echo set >> file-0; rm file-1; chmod +x file-2"
    local n
    for n in 1 2; do # of a worktree that was made for the mount, and of one after a lease
        lease nothing-$n
        for file in changes diff diffstat; do assert_equal "$(cat "$POOL/leases/nothing-$n/$file")" ""; done
        release nothing-$n
        refute git -C "$REPO" rev-parse -q --verify agentpool/nothing-$n
        await_idle
    done
    lease work
    echo work > "$TREE/work"
    echo more >> "$TREE/gen/one"
    echo back > "$TREE/file-1"
    rm "$TREE/made" "$TREE/gen/in/two"
    release work
    assert_equal "$(git -C "$REPO" diff --name-status main agentpool/work | paste -sd' ')" $'M\tfile-1 A\tgen/one A\twork'
    await_idle
    lease theirs
    git -C "$TREE" add made gen/in/two file-0
    git -C "$TREE" commit -qm mine
    release theirs
    assert_equal "$(git -C "$REPO" diff --name-status main agentpool/theirs | paste -sd' ')" $'M\tfile-0 A\tgen/in/two A\tmade'
    SIDE=
}

@test "an ignored file that the agent tracks is on the branch, and one that it does not is kept" {
    REPO_CHANGED=yes
    printf '*.log\nbuild/\n' > "$REPO/.gitignore"
    echo tracked > "$REPO/tracked.log"
    git -C "$REPO" add --force .
    git -C "$REPO" commit -qm ignore
    mount_saving 1 1
    lease job
    echo more >> "$TREE/tracked.log"
    echo staged > "$TREE/staged.log"
    echo committed > "$TREE/committed.log"
    echo ignored > "$TREE/ignored.log"
    mkdir -p "$TREE/build/in" "$TREE/file-dir"
    echo built > "$TREE/build/in/out"
    git -C "$TREE" add --force committed.log
    git -C "$TREE" commit -qm committed
    echo again >> "$TREE/committed.log"
    git -C "$TREE" add --force staged.log
    release job
    assert_equal "$(on_branch job tracked.log | tail -1)" more
    assert_equal "$(on_branch job staged.log)" staged
    assert_equal "$(on_branch job committed.log | tail -1)" again
    refute on_branch job ignored.log
    assert_equal "$(kept job ignored.log)" ignored
    assert_equal "$(kept job build/in/out)" built
    # an ignored file alone makes no branch, and is kept all the same
    lease alone
    echo alone > "$TREE/alone.log"
    release alone
    refute git -C "$REPO" rev-parse -q --verify agentpool/alone
    assert_equal "$(kept alone alone.log)" alone
    SIDE=
}

@test "an index that an agent made up leads nowhere out of its worktree" {
    mkdir "$DIR/victim"
    echo precious > "$DIR/victim/file"
    mount_saving 1 1
    local label
    for label in gitlink file dotgit; do
        lease $label
        echo work > "$TREE/work"
        python3 - "$(git_dir_of $label)/index" "$label" "$(realpath --relative-to="$TREE" "$DIR/victim")" "$(git hash-object "$TREE/work")" <<'END'
import hashlib, struct, sys
path, kind, out, oid = sys.argv[1:]
mode, name = {"gitlink": (0o160000, out), "file": (0o100644, out + "/file"), "dotgit": (0o100644, ".git/hooks/pre-commit")}[kind]
name = name.encode()
entry = struct.pack(">10I", 0, 0, 0, 0, 0, 0, mode, 0, 0, 0) + bytes.fromhex(oid) + struct.pack(">H", len(name)) + name
entry += b"\0" * (8 - len(entry) % 8)
data = b"DIRC" + struct.pack(">II", 2, 1) + entry
with open(path, "wb") as file:
    file.write(data + hashlib.sha1(data).digest())
END
        within 60 "cat '$POOL/leases/$label/diff'" > "$DIR/look" || true
        release $label
        assert_equal "$(on_branch $label work)" work
        assert_equal "$(git -C "$REPO" ls-tree -r --name-only agentpool/$label | paste -sd' ')" "file-0 file-1 file-2 work"
        await_idle
    done
    lease discarded
    mkdir -p "$(git_dir_of discarded)/modules/x"
    release discarded discard
    assert_equal "$(cat "$DIR/victim/file")" precious
}

@test "more directories of submodules than are looked through are kept whole, beside a commit too" {
    mount_saving 1 1
    local what dir
    for what in none commit; do
        lease $what
        dir=$(git_dir_of $what)
        mkdir -p "$dir"/modules/{1..1001}
        echo mine > "$dir/modules/1001/mine"
        echo work > "$TREE/work"
        if [ $what = commit ]; then
            git -C "$TREE" add work
            git -C "$TREE" -c user.name=a -c user.email=a@example.org commit -qm mine
        fi
        release $what
        assert_equal "$(on_branch $what work)" work
        assert_equal "$(cat "$STATE/kept/$what"@*/git/modules/1001/mine)" mine
        await_idle
    done
    assert_equal "$(git -C "$REPO" log -1 --format=%s agentpool/commit)" mine
}

@test "diff is well beside a repository without a commit, and whatever protocols the user allows" {
    printf '[protocol "file"]\n\tallow = never\n[protocol]\n\tallow = never\n' > "$DIR/hard"
    export GIT_CONFIG_GLOBAL=$DIR/hard
    mount_saving 1 1
    lease job
    echo work > "$TREE/work"
    git init -q "$TREE/app"
    echo x > "$TREE/app/x"
    make_inner "$TREE/in"
    local commit
    commit=$(git -C "$TREE/in" rev-parse HEAD)
    for file in changes diff diffstat; do
        within 60 "cat '$POOL/leases/job/$file'" > "$DIR/look"
        assert contains "$DIR/look" work
    done
    release job
    is_reached "$commit"
    is_somewhere x
}

@test "what moves with its directory is what git makes of it at its new place, and what stays is as it was" {
    mkdir "$REPO/old" "$REPO/stays"
    printf 'a\r\nb\r\n' | tee "$REPO/old/lines" "$REPO/old/tracked" > "$REPO/stays/lines"
    echo word > "$REPO/old/word"
    printf 'a\nb\n' > "$REPO/old/ended" # is checked out with CRLF, which is what it holds where nobody says so
    printf 'new/word filter=upper\nold/ended text eol=crlf\nnew/ended -text\n' > "$REPO/.gitattributes"
    git -C "$REPO" add .
    git -C "$REPO" commit -qm "line ends"
    git -C "$REPO" config filter.upper.clean 'tr a-z A-Z'
    git -C "$REPO" config core.autocrlf input
    BEFORE=$(fingerprint)
    mount_saving 1 1
    lease job
    git -C "$TREE" -c core.autocrlf=false mv old/tracked tracked # git itself leaves these alone
    mv "$TREE/old" "$TREE/new"
    cp "$TREE/stays/lines" "$TREE/stays/more"
    echo more >> "$TREE/stays/lines"
    cat "$POOL/leases/job/diff" > "$DIR/diff"
    release job
    git -C "$REPO" show agentpool/job:new/lines > "$DIR/lines"
    assert_equal "$(od -An -c "$DIR/lines" | tr -d ' ')" 'a\nb\n'
    assert_equal "$(on_branch job new/word)" WORD
    assert_equal "$(on_branch job new/ended | tr -d -c '\r' | wc -c)" 2
    assert_equal "$(on_branch job tracked | tr -d -c '\r' | wc -c)" 2
    assert_equal "$(on_branch job stays/lines | tr -d -c '\r' | wc -c)" 2
    assert_equal "$(on_branch job stays/more | tr -d -c '\r' | wc -c)" 0
    assert contains "$DIR/diff" "+WORD"
}

@test "line ends of what the agent has staged stay, though it is committed nowhere" {
    BEFORE=$(fingerprint)
    mount_saving 1 1
    lease job
    git init -q -b main "$TREE/inner"
    git -C "$TREE/inner" commit -q --allow-empty -m first
    for dir in "$TREE" "$TREE/inner"; do
        printf 'a\r\nb\r\n' | tee "$dir/staged" > "$dir/new"
        git -C "$dir" add staged
        echo '* text=auto' > "$dir/.gitattributes"
        printf 'c\r\n' | tee -a "$dir/staged" >> "$dir/new"
    done
    cat "$POOL/leases/job/diff" > "$DIR/diff"
    assert_equal "$(grep -c $'^+[abc]\r$' "$DIR/diff")" 3
    release job
    assert_equal "$(on_branch job staged | tr -d -c '\r' | wc -c)" 3
    assert_equal "$(on_branch job new | tr -d -c '\r' | wc -c)" 0
    local inner
    inner=$(git -C "$REPO" for-each-ref --format='%(refname)' refs/agentpool/job | grep inner | head -n 1)
    assert_equal "$(git -C "$REPO" show "$inner:staged" | tr -d -c '\r' | wc -c)" 3
    assert_equal "$(git -C "$REPO" show "$inner:new" | tr -d -c '\r' | wc -c)" 0
}

@test "what a sparse repository has not checked out stays on the branch, whatever was there meanwhile" {
    mkdir -p "$REPO/in" "$REPO/out/deep"
    for file in in/same in/other out/same out/deep/more; do echo "$file" > "$REPO/$file"; done
    git -C "$REPO" add .
    git -C "$REPO" commit -qm "in and out"
    git -C "$REPO" sparse-checkout set --cone in
    BEFORE=$(fingerprint)
    mount_saving 1 1
    lease job
    assert [ ! -e "$TREE/out" ]
    mv "$TREE/in" "$TREE/out" # with a file of the same name
    mkdir "$TREE/out/deep"
    echo there > "$TREE/out/deep/more"
    mv "$TREE/out/same" "$TREE/same"
    rm -r "$TREE/out/deep"
    release job
    assert_equal "$(git -C "$REPO" diff --name-status --no-renames main agentpool/job)" \
        "$(printf '%s\n' D$'\t'in/other D$'\t'in/same A$'\t'out/other A$'\t'same)"
    assert_equal "$(on_branch job out/same)" out/same
}

# A file below that many directories.
deep_file() { # TOP LEVELS
    python3 -c 'import os, sys
os.chdir(sys.argv[1])
for level in range(int(sys.argv[2])):
    os.mkdir("d")
    os.chdir("d")
open("precious", "w").write("work\n")' "$1" "$2"
}

is_there() { # TOP: the file of deep_file, however deep
    python3 -c 'import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
while True:
    names = os.listdir(fd)
    if "precious" in names:
        sys.exit()
    if "d" not in names:
        sys.exit(1)
    below = os.open("d", os.O_RDONLY, dir_fd=fd)
    os.close(fd)
    fd = below' "$1"
}

@test "what lies deeper than is saved is kept, or the agent is set aside with it, though nothing else was changed" {
    BEFORE=$(fingerprint)
    mount_saving 1 1
    [ "$(cat "$POOL/stats/git")" = libgit2 ] || return 0 # the program takes minutes for so many levels of rules
    lease job
    deep_file "$TREE" 1100
    if [ "$(cat "$POOL/stats/spawn_backend")" = overlay ]; then
        release job
        is_there "$STATE/kept/job@1/files"
        await event only_kept
        return
    fi
    run bash -c 'echo job > "$1/release"' _ "$POOL"
    assert_failure
    assert contains "$POOL/last_error" "lies too deep to be kept"
    is_there "$TREE"
    assert_equal "$(ls "$STATE/kept" 2>/dev/null)" ""
    mkdir "$TREE/up" # what is less deep is saved, once nothing is in the way any more
    python3 -c 'import os, sys
os.chdir(sys.argv[1])
for level in range(200):
    os.chdir("d")
os.rename("d", sys.argv[1] + "/up/d")' "$TREE"
    release job
    assert_equal "$(git -C "$REPO" ls-tree -r -t --name-only agentpool/job up | wc -l)" 902
}

@test "rules that a sparse checkout leaves out hold, as they do for git" {
    mkdir -p "$REPO/in" "$REPO/out/deep"
    echo in > "$REPO/in/file"
    printf '*.log\n' > "$REPO/out/.gitignore"
    printf '*.txt text\n*.bin -diff\n' > "$REPO/out/.gitattributes"
    echo '!kept.log' > "$REPO/out/deep/.gitignore"
    git -C "$REPO" add .
    git -C "$REPO" commit -qm "rules"
    git -C "$REPO" sparse-checkout set --cone in
    BEFORE=$(fingerprint)
    mount_saving 1 1
    lease job
    assert [ ! -e "$TREE/out" ]
    mkdir -p "$TREE/out/deep"
    touch "$TREE/out/left.log" "$TREE/out/deep/left.log" "$TREE/out/deep/kept.log"
    printf 'a\r\nb\r\n' > "$TREE/out/deep/lines.txt"
    echo text > "$TREE/out/plain.bin"
    assert_equal "$(cat "$POOL/leases/job/changes")" "$(printf '?? %s\n' out/deep/kept.log out/deep/lines.txt out/plain.bin)"
    cat "$POOL/leases/job/diff" > "$DIR/diff"
    assert contains "$DIR/diff" "Binary files /dev/null and b/out/plain.bin differ"
    release job
    assert_equal "$(git -C "$REPO" diff --name-status --no-renames main agentpool/job)" \
        "$(printf 'A\t%s\n' out/deep/kept.log out/deep/lines.txt out/plain.bin)"
    assert_equal "$(on_branch job out/deep/lines.txt | tr -d -c '\r' | wc -c)" 0
    # one that the agent has made, or made and removed again, is his
    lease other
    mkdir -p "$TREE/out/deep"
    echo '*.tmp' > "$TREE/out/.gitignore"
    touch "$TREE/out/now.log" "$TREE/out/now.tmp"
    release other
    assert_equal "$(git -C "$REPO" diff --name-status --no-renames main agentpool/other)" "$(printf '%s\n' M$'\t'out/.gitignore A$'\t'out/now.log)"
}

@test "a diff follows the attributes of the worktree, of files that are gone and committed too" {
    git -C "$REPO" config diff.plain.binary true
    mkdir "$REPO/deep"
    echo '*.bin diff=plain' > "$REPO/deep/.gitattributes"
    for file in gone committed changed; do
        echo "$file" > "$REPO/deep/$file.bin"
    done
    echo text > "$REPO/deep/text"
    git -C "$REPO" add .
    git -C "$REPO" commit -qm "files that are no text"
    echo '*.bin diff' > "$REPO/deep/.gitattributes" # the user's index is no worktree's
    git -C "$REPO" add .
    BEFORE=$(fingerprint)
    mount_saving 1 1
    lease job
    rm "$TREE/deep/gone.bin"
    echo 2 > "$TREE/deep/committed.bin"
    git -C "$TREE" commit -qam "of the agent"
    echo 2 > "$TREE/deep/changed.bin"
    echo 2 > "$TREE/deep/text"
    cat "$POOL/leases/job/diff" > "$DIR/diff"
    assert contains "$DIR/diff" "Binary files a/deep/gone.bin and /dev/null differ"
    assert contains "$DIR/diff" "Binary files a/deep/committed.bin and b/deep/committed.bin differ"
    assert contains "$DIR/diff" "Binary files a/deep/changed.bin and b/deep/changed.bin differ"
    assert contains "$DIR/diff" "-text"
    # what the agent writes there decides
    echo '*.bin diff' > "$TREE/deep/.gitattributes"
    cat "$POOL/leases/job/diff" > "$DIR/diff"
    assert contains "$DIR/diff" "-changed"
    assert contains "$DIR/diff" "-gone"
    refute contains "$DIR/diff" "Binary files"
}

@test "a commit of the pool goes to the lease's branch, wherever the agent goes meanwhile" {
    REPO_CHANGED=yes
    git -C "$REPO" branch feature
    mount_saving 1 1
    lease job
    local feature dir
    feature=$(git -C "$REPO" rev-parse feature)
    dir=$(git_dir_of job)
    slow_git
    SIDE=
    echo made > "$TREE/made.slow"
    echo "commit part" > "$POOL/leases/job/ctl" 3>&- &
    local writer=$!
    await test -e "$DIR/begun"
    echo "ref: refs/heads/feature" > "$dir/HEAD" # what git switch does at last
    touch "$DIR/go"
    wait $writer
    assert_equal "$(git -C "$REPO" rev-parse feature)" "$feature"
    release job
    assert_equal "$(git -C "$REPO" rev-parse feature)" "$feature"
    assert_equal "$(on_branch job made.slow)" made
}

@test "the message of a commit is in the arguments of no process" {
    mount_saving 1 1
    lease job
    local secret="sekret-${DIR##*-}" # this test's own: others may run beside it
    echo "$secret" > "$DIR/secret"
    cat > "$DIR/look.py" <<'END'
import os, sys, threading
at, seen, over = sys.argv[1], set(), False
secret = open(sys.argv[2]).read().strip()
def look():
    while not over:
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    words = file.read()
                with open(f"/proc/{pid}/environ", "rb") as file:
                    words += file.read()
            except OSError:
                continue
            if secret.encode() in words:
                seen.add(words[:200])
thread = threading.Thread(target=look)
thread.start()
for n in range(40):
    with open(f"{at}/worktree/x", "w") as file:
        file.write(str(n))
    with open(f"{at}/ctl", "w") as file:
        file.write(f"commit {secret} message\n")
over = True
thread.join()
print(*seen, sep="\n")
END
    assert_equal "$(timeout 200 python3 "$DIR/look.py" "$POOL/leases/job" "$DIR/secret")" ""
    assert_equal "$(git -C "$REPO" log --format=%s agentpool/job | grep -c "$secret message")" 40
}

@test "the branch follows the agent's own commits whenever a turn of it ends" {
    mount_saving 1 1 -- sh
    lease job
    turn() {
        echo "$1" > "$POOL/leases/job/prompt"
        within 60 "cat '$POOL/leases/job/wait'" > "$DIR/look"
    }
    follows() { [ "$(git -C "$REPO" rev-parse -q --verify agentpool/job)" = "$(git -C "$TREE" rev-parse HEAD)" ]; }
    turn "echo 1 > one; git add one; git commit -qm one"
    assert_equal "$(git -C "$TREE" log -1 --format=%s)" one
    await follows
    turn "echo 2 > two; git add two; git commit -qm two; echo dirty > dirty"
    await follows
    refute on_branch job dirty # that is no commit of the agent's
    assert_equal "$(cat "$POOL/leases/job/head")" "$(git -C "$REPO" rev-parse agentpool/job)"
    release job
    assert_equal "$(on_branch job dirty)" dirty
}

@test "while a saving takes long status says so, and it has as long as the machine gives it" {
    mount_saving 1 2
    lease job
    slow_git
    SIDE=
    echo made > "$TREE/made.slow"
    echo job > "$POOL/release" 3>&- &
    local writer=$!
    await test -e "$DIR/begun"
    await grep -qi saving "$POOL/status"
    within 40 "echo 'other timeout=30' > '$POOL/acquire'"
    touch "$DIR/go"
    wait $writer
    assert_equal "$(on_branch job made.slow)" made
}

# bats test_tags=long
@test "a filter of the user's may take longer than two minutes" {
    REPO_CHANGED=yes
    git -C "$REPO" config filter.slow.clean "sleep 125; cat"
    echo '*.slow filter=slow' > "$REPO/.git/info/attributes"
    mount_saving 1 1
    lease job
    echo x > "$TREE/a.slow"
    within 300 "echo job > '$POOL/release'"
    assert_equal "$(on_branch job a.slow)" x
}

@test "a diff of hundreds of megabytes costs the daemon no such memory" {
    without_programs
    mount_saving 1 1
    lease job
    local n peak
    for n in 1 2 3; do yes "line $n of some text" | head -c 150000000 > "$TREE/big$n"; done
    timeout 200 cat "$POOL/leases/job/diff" > "$DIR/diff" 2> "$DIR/said" || assert [ -s "$POOL/last_error" ]
    peak=$(peak_of_daemon)
    echo "peak: $peak kB"
    assert [ "$peak" -lt 400000 ]
    release job discard
}

# --- daemons that die ---

@test "a daemon that dies while it saves has lost no commit of the agent's" {
    mount_saving 1 1
    LOG_EXPECTED=yes
    lease job
    local left
    (
        cd "$TREE"
        git checkout -q --detach
        echo precious > x
        git add .
        git commit -qm left
        git checkout -q --detach HEAD~1
        echo y > y
        git add .
        git commit -qm kept
    )
    left=$(git -C "$TREE" rev-parse 'HEAD@{2}')
    assert_equal "$(git -C "$TREE" log -1 --format=%s "$left")" left
    slow_git
    SIDE=
    echo last > "$TREE/last.slow"
    echo job > "$POOL/release" 3>&- &
    local writer=$!
    await test -e "$DIR/begun"
    crash_pool
    wait $writer || true
    touch "$DIR/go"
    umount -l "$POOL" 2>/dev/null || fusermount3 -uz "$POOL"
    mount_again 1 1 ${SAVING_OPTIONS:+-o "$SAVING_OPTIONS"}
    await on_branch job last.slow
    await is_reached "$left" # the branch comes first
    assert_equal "$(on_branch job y)" y
}

@test "records beside a worktree that are no files hold up neither prompts nor the next daemon" {
    mount_saving 1 1 -- sh
    LOG_EXPECTED=yes
    lease job
    echo work > "$TREE/work"
    local dir=$STATE/agents/agent-1 kind file
    for file in prompt prompted paused lease; do
        for kind in $(kinds_of_spoil); do
            if [ "$kind" != directory ]; then spoil "$kind" "$dir/$file"; fi
        done
    done
    spoil fifo "$dir/lease"
    spoil fifo "$dir/prompt"
    within 30 "echo true > '$POOL/leases/job/prompt'" || true
    crash_pool
    umount -l "$POOL" 2>/dev/null || fusermount3 -uz "$POOL"
    mount_again 1 1 ${SAVING_OPTIONS:+-o "$SAVING_OPTIONS"} -- sh
    within 60 "ls '$POOL/leases'" > "$DIR/look"
    if [ -e "$POOL/leases/job" ]; then release job; fi
    await on_branch job work
}

# --- what git there is ---

@test "stats/git says what saves, and repositories that the library does not know are served as well" {
    mount_saving 1 1
    case ${SAVING_OPTIONS:-} in
    *git=program*) assert_equal "$(cat "$POOL/stats/git")" program ;;
    *) assert_equal "$(cat "$POOL/stats/git")" libgit2 ;;
    esac
    unmount_pool
    rm -rf "$STATE"
    local commit
    git init -q -b main --object-format=sha256 "$DIR/sha256"
    REPO=$DIR/sha256
    git -C "$REPO" config user.name user
    git -C "$REPO" config user.email user@example.org
    echo 1 > "$REPO/file-0"
    git -C "$REPO" add .
    git -C "$REPO" commit -qm first
    BEFORE=$(fingerprint)
    mount_saving 1 1
    assert_equal "$(cat "$POOL/stats/git")" program
    lease job
    echo changed > "$TREE/file-0"
    echo new > "$TREE/new"
    git -C "$TREE" add new
    git -C "$TREE" commit -qm own
    commit=$(git -C "$TREE" rev-parse HEAD)
    make_inner "$TREE/other" # of another format
    assert contains "$POOL/leases/job/changes" new
    assert contains "$POOL/leases/job/diff" +changed
    release job
    assert_equal "$(on_branch job file-0)$(on_branch job new)" changednew
    git -C "$REPO" merge-base --is-ancestor "$commit" agentpool/job
    is_somewhere "of $TREE/other" || grep -rqs inside "$STATE/kept"
}

# --- what is kept ---

@test "what a lease left is kept whole, listed in the mount, and can be gone on with" {
    mount_saving 1 1
    lease job
    echo work > "$TREE/work"
    echo '*.log' > "$TREE/.gitignore"
    echo ignored > "$TREE/a.log"
    rm "$TREE/file-1"
    release job
    local name
    name=$(ls "$POOL/kept")
    assert_equal "${name%@*}" job
    assert_equal "$(cat "$POOL/kept/$name/files/a.log")" ignored
    assert [ -s "$POOL/kept/$name/info" ]
    within 60 "echo 'restore $name again' > '$POOL/ctl'"
    TREE=$(tree_of again)
    assert_equal "$(cat "$TREE/a.log")" ignored
    assert_equal "$(cat "$TREE/work")" work
    assert [ ! -e "$TREE/file-1" ]
    release again
}
