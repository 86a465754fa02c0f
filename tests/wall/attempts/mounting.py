"""mounting.py KIND TARGET COMMAND...: in namespaces of its own, once with processes of its own and once without, mounts a
file system of that kind at TARGET, or for `nothing` unmounts what is there and makes it writable, then runs COMMAND. Ends
with 0 if COMMAND has, once."""

import os
import subprocess
import sys

from calls import CLONE_NEWCGROUP, MS_BIND, MS_REMOUNT, mount, own_namespaces, trying, umount

CLONE_NEWPID = 0x20000000
kind, target, *command = sys.argv[1:]


def try_it():
    own_namespaces(CLONE_NEWCGROUP)
    if kind == "nothing":
        if not any(result == 0 for result in (trying(umount, target), trying(mount, None, target, None, MS_REMOUNT | MS_BIND))):
            return 1
    else:
        mount(kind, target, kind)
    return subprocess.call(command)


def with_processes():
    own_namespaces(CLONE_NEWPID)
    child = os.fork()
    if child == 0:
        os._exit(0 if trying(try_it) == 0 else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def in_child(function):
    child = os.fork()
    if child == 0:
        os._exit(0 if trying(function) == 0 else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


sys.exit(not any([in_child(try_it), in_child(with_processes)]))
