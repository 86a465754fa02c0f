#!/bin/sh
# Writes into the user's checkout and index. Success: one of them has changed.
status=1
echo "$T_MARK" >>"$T_REPO/file-0" && status=0
echo "$T_MARK" >"$T_REPO/planted" && status=0
git -C "$T_REPO" rm -q --cached file-1 && status=0
exit $status
