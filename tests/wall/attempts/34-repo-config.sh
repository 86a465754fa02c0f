#!/bin/sh
# Plants a command in the user's repository: its configuration, hooks and attributes. Success: one of these has
# changed.
status=1
git -C "$T_REPO" config core.fsmonitor "$T_MARK" && status=0
echo "# $T_MARK" >>"$T_REPO/.git/config" && status=0
echo "exit 0 # $T_MARK" >"$T_REPO/.git/hooks/post-checkout" && status=0
echo "# $T_MARK" >>"$T_REPO/.git/info/attributes" && status=0
exit $status
