# What is installed: files in their places, what completes command lines, the unit of systemd, the Debian package.

load ../mount/helper

setup() {
    note_tests_alone
    load_library
    DIR=$BATS_TEST_TMPDIR
    SOURCE=$(realpath "$BATS_TEST_DIRNAME/../..")
    PATH=$(dirname "$(realpath "$AGENTPOOLFS")"):$PATH
}

teardown() {
    if [ -n "${GROUP:-}" ]; then find "$GROUP" -depth -type d -exec rmdir {} \; ; fi
}

# --- completions ---

# Completes a command line as readline has it done, which takes = for a word of its own.
completed() { # LINE
    local rest=$1 word
    # shellcheck source=../../share/completions/agentpoolfs.bash
    . "$SOURCE/share/completions/agentpoolfs.bash"
    COMP_LINE=$1 COMP_POINT=${#1} COMP_WORDS=()
    while [ -n "$rest" ]; do
        word=${rest%%[ =]*}
        case $rest in
        ' '*) word='' rest=${rest# } ;;
        =*) word='=' ;;
        esac
        if [ -n "$word" ]; then COMP_WORDS+=("$word"); fi
        rest=${rest#"$word"}
    done
    if [[ $1 == *[\ =] ]]; then COMP_WORDS+=(''); fi
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _agentpoolfs agentpoolfs "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    echo "${COMPREPLY[*]}"
}

@test "bash completes names, defaults and words of options, wherever they stand" {
    assert_equal "$(completed 'agentpoolfs -o min_')" 'min_pool_size= min_idle='
    assert_equal "$(completed 'agentpoolfs -o min_pool_size=')" 1
    assert_equal "$(completed 'agentpoolfs -o min_pool_size=2,min_i')" '2,min_idle='
    assert_equal "$(completed 'agentpoolfs -omin_i')" '-omin_idle='
    assert_equal "$(completed 'agentpoolfs -o min_idle=1,git=')" 'auto library program'
    assert_equal "$(completed 'agentpoolfs -o profile=h')" 'high-load'
    assert_equal "$(completed 'agentpoolfs -o setup=')" ''
    assert_equal "$(completed 'agentpoolfs -o none=')" ''
}

@test "bash completes what the command takes beside options" {
    mkdir "$DIR/repo" "$DIR/real"
    touch "$DIR/refuse"
    assert_equal "$(completed 'agentpoolfs --list')" '--list --list-files --list-options'
    assert_equal "$(completed "agentpoolfs -f -o git=auto $DIR/re" | xargs -n 1 | sort | xargs)" "$DIR/real $DIR/repo"
    assert_equal "$(completed "agentpoolfs -o state_dir=$DIR/rep")" "$DIR/repo"
    assert_equal "$(completed 'agentpoolfs repo pool -- agentpoolf')" agentpoolfs
}

@test "fish completes the same" {
    command -v fish >/dev/null || skip "fish is not installed"
    in_fish() { # LINE
        HOME=$DIR fish --no-config -c "source '$SOURCE/share/completions/agentpoolfs.fish'; complete -C '$1'" | cut -f 1 | sort | xargs
    }
    assert_equal "$(in_fish 'agentpoolfs -o min_')" 'min_idle= min_pool_size='
    assert_equal "$(in_fish 'agentpoolfs -o min_idle=1,git=')" 'min_idle=1,git=auto min_idle=1,git=library min_idle=1,git=program'
    assert_equal "$(in_fish 'agentpoolfs repo pool -- agentpoolf')" agentpoolfs
}

@test "all shells take their completions" {
    bash -n "$SOURCE/share/completions/agentpoolfs.bash"
    { command -v fish && command -v zsh; } >/dev/null || skip "fish or zsh is not installed"
    fish -n "$SOURCE/share/completions/agentpoolfs.fish"
    zsh -n "$SOURCE/share/completions/_agentpoolfs"
}

# --- files ---

# What is installed below the prefix, a line each; directories are there for them alone.
everything() {
    cat <<'LIST'
bin/agentpool-host
bin/agentpoolfs
lib/systemd/user/agentpoolfs@.service
libexec/agentpoolfs/agentpool-shim
sbin/mount.fuse.agentpoolfs
share/agentpoolfs/grafana/agentpool.json
LIST
    (cd "$SOURCE/share/programs" && printf 'share/agentpoolfs/programs/%s\n' *.conf)
    cat <<'LIST'
share/agentpoolfs/prometheus/agentpool.rules.yml
share/agentpoolfs/status.schema.json
share/bash-completion/completions/agentpoolfs
share/fish/vendor_completions.d/agentpoolfs.fish
share/man/man1/agentpool-host.1
share/man/man1/agentpoolfs.1
share/man/man5/agentpoolfs.5
share/man/man7/agentpoolfs.7
share/man/man8/mount.fuse.agentpoolfs.8
share/zsh/site-functions/_agentpoolfs
LIST
}

@test "meson installs every file in its place, and from there it serves" {
    local build prefix
    build=$(realpath "$(dirname "$(realpath "$AGENTPOOLFS")")/..")
    prefix=$(meson introspect "$build" --buildoptions | jq -r '.[] | select(.name == "prefix").value')
    meson install -C "$build" --no-rebuild --quiet --destdir "$DIR/dest"
    run find "$DIR/dest" ! -type d -printf '%P\n'
    assert_equal "$(sort <<<"$output")" "$(everything | sed "s|^|${prefix#/}/|" | sort)"
    assert_equal "$(find "$DIR/dest" -perm /111 ! -type d | wc -l)" 4
    grep -q "'$prefix/bin/agentpoolfs'" "$DIR/dest$prefix/sbin/mount.fuse.agentpoolfs"

    git init -q "$DIR/repo"
    git -C "$DIR/repo" -c user.name=user -c user.email=user@example.org commit -q --allow-empty -m first
    mkdir "$DIR/pool" "$DIR/home"
    HOME=$DIR/home "$DIR/dest$prefix/bin/agentpoolfs" -o "state_dir=$DIR/state" "$DIR/repo" "$DIR/pool" 3>&-
    local daemon
    daemon=$(cat "$DIR/state/lock")
    run sh -c "echo job > '$DIR/pool/acquire' && cat '$DIR/pool/leases/job/wait'"
    fusermount3 -u "$DIR/pool"
    assert_output ready
    await gone "$daemon"
}

# --- the Debian package ---

# Builds it once, from what git has of this tree: $PACKAGE is where it lies.
have_package() {
    PACKAGE=$BATS_FILE_TMPDIR/package
    if [ -e "$PACKAGE/built" ]; then return; fi
    { command -v dpkg-buildpackage && command -v dh && command -v lintian; } >/dev/null ||
        skip "dpkg-dev, debhelper or lintian is not installed"
    mkdir -p "$PACKAGE/source"
    git -c safe.directory='*' -C "$SOURCE" ls-files -z | tar -C "$SOURCE" --null -T - -cf - | tar -C "$PACKAGE/source" -xf -
    (cd "$PACKAGE/source" && dpkg-buildpackage -us -uc -b) >"$PACKAGE/log" 2>&1 3>&- || { tail -50 "$PACKAGE/log" && false; }
    touch "$PACKAGE/built"
}

# Runs a script, of standard input, in a copy of the machine in which the package is installed.
with_package() {
    needs_root "for a namespace of mounts"
    have_package
    cp "$BATS_TEST_DIRNAME/inside.bash" "$PACKAGE"
    { echo '. /given/inside.bash' && cat; } >"$PACKAGE/script"
    run timeout -s KILL 300 "$BATS_TEST_DIRNAME/elsewhere" "$PACKAGE" bash -euo pipefail /given/script 3>&-
    assert_success
}

@test "the package builds, and lintian finds nothing wrong with it" {
    have_package
    run lintian --allow-root --fail-on error,warning "$PACKAGE"/agentpoolfs_*.changes
    assert_output ""
    assert_success
}

@test "the package has every file, and no other" {
    have_package
    local docs='usr/share/doc/agentpoolfs'
    dpkg-deb --fsys-tarfile "$PACKAGE"/agentpoolfs_[0-9]*.deb | tar -t | sed -n 's|^\./\(.*[^/]\)$|\1|p' | sort >"$DIR/has"
    {
        everything | sed -e 's|^|usr/|' -e '/share\/man/s/$/.gz/' -e 's|zsh/site-functions|zsh/vendor-completions|'
        printf "$docs/%s\n" CHANGES.md.gz README.md.gz changelog.gz copyright
    } | sort | diff - "$DIR/has"
}

@test "of the package nothing is left when it is purged" {
    with_package <<'SCRIPT'
agentpoolfs -V
man -w agentpoolfs mount.fuse.agentpoolfs 5 agentpoolfs | grep -c agentpoolfs
DEBIAN_FRONTEND=noninteractive apt-get purge -qq -y agentpoolfs >/dev/null 2>&1
find /changed -path /changed/changed -prune -o -path /changed/given -prune -o ! -type d ! -path '/changed/etc/passwd' \
    ! -path '/changed/etc/group' ! -path '/changed/var/lib/dpkg/*' ! -path '/changed/var/lib/apt/*' ! -path '/changed/var/lib/man-db/*' \
    ! -path '/changed/var/log/*' ! -path '/changed/var/cache/*' -print
find /changed -name '*agentpool*'
grep -A 1 '^Package: agentpoolfs$' /var/lib/dpkg/status || true
SCRIPT
    assert_output "agentpoolfs $(dpkg-deb -f "$PACKAGE"/agentpoolfs_[0-9]*.deb Version)
3"
}

@test "with the package an ordinary user mounts by his line of fstab, and root for a user with setuid=" {
    with_package <<'SCRIPT'
line() { # OPTIONS
    echo "/home/ann/repo /home/ann/pool fuse.agentpoolfs $1,noauto,nofail,_netdev,x-systemd.idle-timeout=1,max_pool_size=2 0 0" >/etc/fstab
}
line user
mount -f pool
not mountpoint -q pool
as_ann env PATH=/bin mount pool
asked 'id -un'
as_ann umount pool

line setuid=root,user
not as_ann mount pool 2>&1

line setuid=ann
echo 'others:x:61236:ann' >>/etc/group
SECRET=root mount pool
asked 'echo "$(id -Gn), $HOME, $SECRET"'
umount pool

line setuid=ann,user
as_ann mount pool
as_ann umount pool
not mount -t fuse.agentpoolfs -o setuid=nobody-there /home/ann/repo pool 2>&1
not mount.fuse.agentpoolfs /home/ann/repo pool -N /proc/1/ns/mnt 2>&1
SCRIPT
    # on a loaded machine a mount waits for the one before, and says so
    assert_equal "$(grep -v '^agentpoolfs: waiting for the pool of' <<<"$output")" "ann
setpriv: setresuid failed: Operation not permitted
ann others, /home/ann, 
id: ‘nobody-there’: no such user
mount.fuse.agentpoolfs: it cannot mount in another namespace (/proc/1/ns/mnt): run mount there, with nsenter"
}

@test "an ordinary user has apt install the package, and takes a prompt to a merged branch by the words of README" {
    needs_root "for a namespace of mounts"
    have_package
    [ -d "$PACKAGE/blocks" ] || python3 "$SOURCE/tests/mount/recipes.py" "$PACKAGE/blocks"
    with_package <<'SCRIPT'
as_ann mkdir -p bin src .config/agentpoolfs/programs
as_ann mv repo src/app
echo 'like = bash' >.config/agentpoolfs/programs/claude.conf # claude of this test is a shell
printf '#!/bin/sh\nexec bash\n' >bin/claude
printf '#!/bin/sh\necho "fixed $*" | tee fixed\n' >bin/Fix
chmod +x bin/*
begin=$SECONDS
as_ann env PATH="/home/ann/bin:$PATH" sh "/given/blocks/README 1"
as_ann git -C src/app -c user.name=ann -c user.email=ann@example.org merge -q agentpool/fix-auth
cat src/app/fixed
echo "$((SECONDS - begin)) s"
as_ann fusermount3 -u pool
SCRIPT
    assert_line ready
    assert_line "+fixed the flaky auth test"
    assert_equal "${lines[-2]}" "fixed the flaky auth test"
    echo "# from the mount to the merge: ${lines[-1]}" >&3
}

@test "where nothing is missing an ordinary user runs quickstart without sudo, and the pool is beside his repository" {
    needs_root "makes a copy of the machine"
    mkdir -p "$DIR/given/src"
    git -C "$SOURCE" ls-files -z | tar -C "$SOURCE" --null -T - -c | tar -xC "$DIR/given/src"
    cat >"$DIR/given/script" <<'SCRIPT'
cp -r /given/src /home/ann/src
printf '#!/bin/sh\necho "$0 $*" >>/tmp/asked\nexit 1\n' >/usr/local/bin/sudo
chmod +x /usr/local/bin/sudo
cp /usr/local/bin/sudo /usr/local/bin/apt-get
cd /home/ann/src
git init -q -b main . && git add -A
git -c user.name=ann -c user.email=ann@example.org commit -qm first
chown -R ann:ann .
as_ann() { setpriv --reuid=61235 --regid=61235 --clear-groups -- env HOME=/home/ann USER=ann CFLAGS=-O0 "$@"; }
as_ann scripts/quickstart >/tmp/shown
test ! -e /tmp/asked
grep -q '^hello.txt *| *1 +\|^ hello.txt *| *1 +' /tmp/shown
as_ann cat /home/ann/src-pool/stats/total_agents | grep -qx 2
test "$(as_ann git status --porcelain)" = ""
as_ann scripts/quickstart /home/ann/src | tail -1
as_ann fusermount3 -u /home/ann/src-pool
SCRIPT
    run timeout -s KILL 300 "$BATS_TEST_DIRNAME/elsewhere" "$DIR/given" bash -euo pipefail /given/script 3>&-
    assert_success
    assert_output --partial "fusermount3 -u /home/ann/src-pool"
}

@test "systemd takes the unit without a word" {
    with_package <<'SCRIPT'
as_ann systemd-analyze --user verify agentpoolfs@app.service 2>&1
SCRIPT
    assert_output ""
}

@test "a pool is a service of its user's: started when it answers, started again after a crash, ended in order" {
    needs_root "to have control groups"
    GROUP=$(mktemp -d "$(findmnt -n -t cgroup2 -o TARGET | head -n 1)/agentpool-bats-XXXXXX")
    echo "echo \$\$ >'$GROUP/cgroup.procs'" >"$DIR/script"
    cat >>"$DIR/script" <<'SCRIPT'
mount -t cgroup2 ours /sys/fs/cgroup
chown -R ann:ann "/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)"
mkdir -p /run/systemd/system
as_ann mkdir -p .config/agentpoolfs
cat >.config/agentpoolfs/app.conf <<'CONF'
REPO=/home/ann/repo
MOUNTPOINT=/home/ann/pool
OPTIONS=max_pool_size=2
PROGRAM=bash --norc
GREETING=hello
CONF
as_ann /lib/systemd/systemd --user --log-target=console >/tmp/log 2>&1 &
service() { as_ann systemctl --user "$@" agentpoolfs@app; }
is() { [ "$(service show --value -p "$1")" = "$2" ]; }
await as_ann systemctl --user show-environment

service start
as_ann test -e pool/status && echo answers
as_ann sh -c 'echo job > pool/acquire; echo work > pool/leases/job/worktree/file'
program=$(as_ann cat pool/leases/job/pid)
as_ann sh -c 'echo "echo \$GREETING\$REPO\$NOTIFY_SOCKET" > pool/leases/job/prompt; cat pool/leases/job/response'
tr '\0' ' ' </proc/$program/cmdline && echo

kill -9 "$(service show --value -p MainPID)"
await is NRestarts 1
await is ActiveState active
as_ann cat pool/leases/job/state
[ "$(as_ann cat pool/leases/job/pid)" = "$program" ] && echo "the same program"

as_ann sh -c 'cd pool; exec sleep 600' &
service stop
is ActiveState inactive && is Result success && echo stopped
not mountpoint -q pool
not kill -0 "$program" 2>/dev/null
as_ann git -C repo show agentpool/job:file

kill $!
service start
service stop
is ActiveState inactive && is Result success && echo "stopped again"

echo OPTIONS=max_pol_size=2 >>.config/agentpoolfs/app.conf
not service start 2>/dev/null
is ActiveState failed && is NRestarts 0 && echo failed
SCRIPT
    with_package <"$DIR/script"
    assert_output "answers
hello
bash --norc 
active
the same program
stopped
work
stopped again
failed"
}
