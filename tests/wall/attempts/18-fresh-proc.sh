#!/bin/sh
# Mounts a /proc of its own, in every kind of namespace that it may make. Success: a process of the user is seen in
# it.
mkdir -p .wall/proc
look="tr '\0' ' ' <.wall/proc/$T_VICTIM/cmdline"
unshare --mount sh -c "mount -t proc proc .wall/proc && $look" && exit 0
/usr/bin/python3 .wall/attempts/mounting.py proc .wall/proc sh -c "$look"
