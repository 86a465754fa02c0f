# Writes what the kernel runs as root: core_pattern, modprobe, uevent_helper; also in a /proc of its own. Writes what is there already. Success: one can be written.
status=1
# shellcheck disable=SC2094 # the same as before
for file in /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /sys/kernel/uevent_helper; do
    [ -e "$file" ] || continue
    value=$(cat "$file") && printf '%s\n' "$value" >"$file" && status=0
done
mkdir -p .wall/kernel
for namespaces in -rm -rmp; do
    # shellcheck disable=SC2016
    unshare $namespaces --fork sh -c 'mount -t proc proc .wall/kernel || exit 1
        file=.wall/kernel/sys/kernel/core_pattern
        value=$(cat "$file") && printf "%s\n" "$value" >"$file"' && status=0
    # shellcheck disable=SC2016
    unshare $namespaces --fork sh -c 'mount -o remount,rw,bind /proc/sys || exit 1
        file=/proc/sys/kernel/core_pattern
        value=$(cat "$file") && printf "%s\n" "$value" >"$file"' && status=0
done
exit $status
