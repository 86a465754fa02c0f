# What an agent cannot do under sandbox=yes: a test each, of an attempt that is real (open.bats). All are made by one agent.

load wall

setup_file() {
    mount_pools sandbox=yes || { cat "$WALL/log" "$WALL/second/log" >&2; false; }
}

teardown_file() {
    unmount_pools
}

setup() {
    load_library
}

# Makes the attempt of that name, and fails if it succeeds.
holds() { # NAME
    local outcome
    outcome=$(attempt "$1")
    case $outcome in
    held) ;;
    untried:*) skip "${outcome#untried: }" ;;
    *)
        echo "$outcome"
        cat "$WALL/seen/$1.out"
        false
        ;;
    esac
}

@test "an agent cannot read the SSH key of its user" {
    holds 01-ssh-key
}

@test "an agent cannot read tokens that other programs keep in the home directory" {
    holds 02-credential-files
}

@test "an agent cannot have the tokens of its user's environment" {
    holds 03-tokens-in-the-environment
}

@test "an agent cannot read the environment of other processes, or what was cut from its own" {
    holds 04-environments
}

@test "an agent cannot talk to the ssh-agent of its user" {
    holds 05-ssh-agent
}

@test "an agent cannot see the processes of its user" {
    holds 06-list-processes
}

@test "an agent cannot signal the processes of its user" {
    holds 07-signal
}

@test "an agent cannot trace a process of its user or read its memory" {
    holds 08-ptrace
}

@test "an agent cannot go through /proc/PID/root" {
    holds 09-root-of-others
}

@test "an agent cannot take the open files of others" {
    holds 10-descriptors-of-others
}

@test "an agent cannot find a descriptor that was left open" {
    holds 11-open-descriptors
}

@test "an agent cannot write where its user may" {
    holds 12-write-by-path
}

@test "an agent cannot write through links and /proc/self/fd" {
    holds 13-write-through-link
}

@test "an agent cannot give a file of its user's a second name" {
    holds 14-hard-link
}

@test "an agent cannot move the files of its user" {
    holds 15-rename
}

@test "an agent cannot bind a directory over another" {
    holds 16-bind-mount
}

@test "an agent cannot unmount what hides, or make it writable" {
    holds 17-unmount-the-wall
}

@test "an agent cannot mount a /proc that shows others" {
    holds 18-fresh-proc
}

@test "an agent cannot climb out of its root" {
    holds 19-pivot
}

@test "an agent cannot enter the namespaces of others" {
    holds 20-enter-namespaces
}

@test "an agent cannot open a file by its handle" {
    holds 21-file-handle
}

@test "an agent cannot read the disk or the memory of the machine" {
    holds 22-raw-device
}

@test "an agent cannot type into another agent through tmux" {
    holds 23-tmux-keys
}

@test "an agent cannot have the tmux server run a command" {
    holds 24-tmux-run
}

@test "an agent cannot write into the daemon's store" {
    holds 25-store
}

@test "an agent cannot read what the daemon keeps of others" {
    holds 26-state-directory
}

@test "an agent cannot reach the worktree of another agent" {
    holds 27-other-worktree
}

@test "an agent cannot read what other leases have left" {
    holds 28-kept-work
}

@test "an agent cannot reach another pool of its user" {
    holds 29-other-pool
}

@test "an agent cannot read or prompt another agent by the mount" {
    holds 30-other-agent
}

@test "an agent cannot lease agents of its pool" {
    holds 31-acquire
}

@test "an agent cannot end the lease of another" {
    holds 32-release
}

@test "an agent cannot change the size or the settings of its pool" {
    holds 33-config
}

@test "an agent cannot plant a command in the repository's configuration or hooks" {
    holds 34-repo-config
}

@test "an agent cannot change the branches of the repository" {
    holds 35-repo-refs
}

@test "an agent cannot change the objects of the repository" {
    holds 36-repo-objects
}

@test "an agent cannot change the checkout of its user" {
    holds 37-checkout
}

@test "an agent cannot have the pool's git run a command outside" {
    holds 38-pool-runs-it
}

@test "an agent cannot have the pool read a file of its user's" {
    holds 39-pool-reads-it
}

@test "an agent cannot leave its control group or lift its limits" {
    holds 40-control-group
}

@test "an agent cannot change core_pattern or another setting of the kernel" {
    holds 41-kernel-settings
}

@test "an agent cannot plant a job of cron" {
    holds 42-cron
}

@test "an agent cannot have systemd start something for its user" {
    holds 43-systemd-user
}

@test "an agent cannot talk to docker" {
    holds 44-docker
}

@test "an agent cannot talk to the bus of its user" {
    holds 45-dbus
}

@test "an agent cannot write on the terminal of who looks on" {
    holds 46-terminal-output
}

@test "an agent cannot set the clipboard of who looks on" {
    holds 47-clipboard
}

@test "an agent cannot type into the terminal of who looks on" {
    holds 48-terminal-input
}

@test "an agent cannot read the keys of its user in the kernel" {
    holds 49-keyring
}

@test "an agent cannot read memory that other processes share" {
    holds 50-shared-memory
}

@test "an agent cannot read the temporary files of others" {
    holds 51-temporary-files
}

@test "an agent cannot become another user by a set-user-id program" {
    holds 52-set-user-id
}

@test "an agent cannot talk to an abstract socket, with sandbox_net=no" {
    holds 53-abstract-socket
}

@test "an agent cannot talk to the machine's loopback, with sandbox_net=no" {
    holds 54-loopback
}

@test "there is a test for every attempt" {
    assert_equal "$(sed -n 's/^    holds \([0-9]\)/\1/p' "$BATS_TEST_FILENAME")" "$(attempts)"
}
