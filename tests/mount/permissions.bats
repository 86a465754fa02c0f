# Who may do what: the modes that the mount shows, and whose writes it takes.

load helper

setup() {
    common_setup
    chmod 711 "$DIR" # other users pass through
}
teardown() { common_teardown; }

# A command as a user who is nobody's friend.
as_other() { # COMMAND...
    setpriv --reuid=65534 --regid=65534 --clear-groups -- "$@"
}

modes() { # FILE...: mode, owner and group of each
    (cd "$POOL" && stat -c '%a %u %g' "$@" | uniq)
}

readonly FILES="status acquire release scale ctl config/base stats/uptime last_error events
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
