#!/bin/sh
# Writes what the kernel runs as root and what rules the machine: core_pattern, modprobe, uevent_helper, sysrq; also
# in a /proc of its own. Writes what is there already, or nothing. Success: one can be written.
status=1
# shellcheck disable=SC2094 # the same as before
for file in /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /sys/kernel/uevent_helper; do
    [ -e "$file" ] || continue
    value=$(cat "$file") && printf '%s\n' "$value" >"$file" && echo "$file" && status=0
done
for file in /proc/sysrq-trigger /proc/sys/vm/drop_caches /proc/sys/kernel/sysrq /proc/sys/kernel/panic /proc/sys/fs/file-max \
    /proc/irq/default_smp_affinity /proc/mtrr /proc/fs/* /proc/acpi/* /proc/scsi/scsi /sys/power/state /sys/kernel/mm/ksm/run; do
    if [ -f "$file" ] && (: >>"$file"); then # opened, and nothing written
        echo "$file"
        status=0
    fi
done
mkdir -p .wall/kernel
# shellcheck disable=SC2016
write='value=$(cat "$1") && printf "%s\n" "$value" >"$1" && echo "$1"'
try() { # KIND PLACE FILE
    /usr/bin/python3 .wall/attempts/mounting.py "$1" "$2" sh -c "$write" sh "$3" && status=0
}
try proc .wall/kernel .wall/kernel/sys/kernel/core_pattern
try nothing /proc/sys /proc/sys/kernel/core_pattern
exit $status
