"""Enters the namespaces of other processes. Success: it has, and the user's SSH key is printed."""

import os
import sys

from calls import CLONE_NEWNS, check, libc, show, trying


def enter(path):
    fd = os.open(path, os.O_RDONLY)
    check(libc.setns(fd, CLONE_NEWNS), "setns")
    return show(os.environ["T_KEY"])


def enter_process(pid):
    fd = check(libc.syscall(434, pid, 0), "pidfd_open")
    check(libc.setns(fd, CLONE_NEWNS), "setns")
    return show(os.environ["T_KEY"])


victim = int(os.environ["T_VICTIM"])
processes = [victim, 1, *(int(name) for name in os.listdir("/proc") if name.isdigit())][:64]
sys.exit(not (trying(enter_process, victim) or any(trying(enter, f"/proc/{pid}/ns/mnt") for pid in processes)))
