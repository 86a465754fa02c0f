#!/bin/sh
# Makes, moves and removes branches of the user's repository. Success: its branches have changed.
status=1
head=$(git rev-parse HEAD)
git -C "$T_REPO" update-ref refs/heads/planted "$head" && status=0
git push -q "$T_REPO" HEAD:refs/heads/pushed && status=0
git -C "$T_REPO" branch -D precious && status=0
echo "$head" >"$T_REPO/.git/refs/heads/written" && status=0
exit $status
