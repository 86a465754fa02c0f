# Leaves its control group, or lifts its limits, by the machine's files and by a mount of its own. Success: it is in another group, or a limit can be written.
before=$(cat /proc/self/cgroup)
own=$(sed -n 's/^0:://p' /proc/self/cgroup)
for root in /sys/fs/cgroup /sys/fs/cgroup/unified; do
    [ -e "$root/cgroup.procs" ] || continue
    for group in "$root" "$root$(dirname "$own")" "$root/${T_MARK:-x}"; do
        echo $$ >"$group/cgroup.procs"
    done
    for limit in pids.max memory.max memory.high cpu.weight; do
        file=$root$own/$limit
        cat "$file" >"$file" && exit 0 # the same as before
    done
done
[ "$(cat /proc/self/cgroup)" = "$before" ] || exit 0
mkdir -p .wall/group
# shellcheck disable=SC2016
unshare -rmC sh -c 'mount -t cgroup2 none .wall/group || exit 1
    for limit in pids.max memory.max memory.high cpu.weight; do
        file=.wall/group/$limit
        if [ -e "$file" ]; then cat "$file" >"$file" && exit 0; fi
    done
    mkdir .wall/group/planted && rmdir .wall/group/planted'
