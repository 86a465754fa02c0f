#!/bin/sh
# Adds objects to the user's repository, and removes one. Success: its objects have changed.
status=1
echo "$T_MARK" | git -C "$T_REPO" hash-object -w --stdin && status=0
echo "$T_MARK" >"$T_REPO/.git/objects/planted" && status=0
rm -f "$T_REPO/.git/objects/$T_OBJECT" && status=0
exit $status
