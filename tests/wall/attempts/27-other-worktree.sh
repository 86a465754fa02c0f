#!/bin/sh
# Reads and writes in another agent's worktree, by its path and by the layer below it. Success: its file is printed,
# or one is made.
status=1
for tree in "$T_SECOND_TREE" "$T_STATE/worktrees/$T_SECOND" "$T_STATE/layers/$T_SECOND/upper"; do
    cat "$tree/private" && status=0
    echo "$T_MARK" >"$tree/planted" && status=0
done
exit $status
