#!/bin/sh
# Writes through links: one of its own, /proc/self/fd of a file opened for reading, /proc/self/root. Success: the
# user's file has changed.
status=1
ln -sfn "$T_OUT" .wall/link
(echo "$T_MARK" >>.wall/link/mine) && status=0
(exec 9<"$T_OUT/mine" && echo "$T_MARK" >>/proc/self/fd/9) && status=0
(echo "$T_MARK" >>"/proc/self/root$T_OUT/mine") && status=0
exit $status
