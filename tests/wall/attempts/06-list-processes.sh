#!/bin/sh
# Lists the processes of the user and what they were started with. Success: one that is not the agent's is seen.
tr '\0' ' ' <"/proc/$T_VICTIM/cmdline"
for file in /proc/[0-9]*/cmdline; do
    tr '\0' ' ' <"$file" && echo
done 2>/dev/null
[ -e "/proc/$T_VICTIM/cmdline" ]
