#!/bin/sh
# Leaves its control group, or lifts its limits, by the machine's files and by a mount of its own. Success: it is in
# another group, or what limits its own can be written.
# cgroup.max.descendants is there where no controller is: it may be written where pids.max and memory.max may. Another group
# than the limited one has it, too: who looks from outside sees which has been written.
# shellcheck disable=SC2094 # the same as before
write() { # FILE
    case $1 in
    *.descendants) echo 4322 ;;
    *) cat "$1" ;;
    esac >"$1"
}
limits='pids.max memory.max memory.high cpu.max cgroup.max.descendants'
before=$(cat /proc/self/cgroup)
own=$(sed -n 's/^0:://p' /proc/self/cgroup)
# shellcheck disable=SC2094 # the same as before
for root in /sys/fs/cgroup /sys/fs/cgroup/unified; do
    [ -e "$root/cgroup.procs" ] || continue
    for limit in $limits; do
        file=$root$own/$limit
        if [ -e "$file" ]; then write "$file" && echo "$file" && exit 0; fi
    done
    for group in "$root" "$root$(dirname "$own")"; do
        echo $$ >"$group/cgroup.procs"
    done
done
[ "$(cat /proc/self/cgroup)" = "$before" ] || { echo moved; exit 0; }
mkdir -p .wall/group
# shellcheck disable=SC2016,SC2086
/usr/bin/python3 .wall/attempts/mounting.py cgroup2 .wall/group sh -c '
    for limit; do
        file=.wall/group/$limit
        case $limit in
        *.descendants) new=4322 ;;
        *) new=$(cat "$file" 2>/dev/null) ;;
        esac
        if [ -e "$file" ]; then echo "$new" >"$file" && echo "$file" && exit 1; fi # of which group is seen outside
    done
    exit 1' sh $limits
