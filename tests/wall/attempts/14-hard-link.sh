#!/bin/sh
# Gives the user's file a second name, where it may write that. Success: the file has more names than one.
git=$(git rev-parse --git-dir)
for to in "$T_OUT/second" .wall/second "$git/second" /tmp/second; do
    ln "$T_OUT/mine" "$to" && exit 0
    ln -L "/proc/self/root$T_OUT/mine" "$to" && exit 0
done
exit 1
