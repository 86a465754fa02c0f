"""Reads the disk, the memory, the console and the kernel's log of the machine, by nodes that are there and by nodes that
it makes. Success: one can be read."""

import os
import stat
import sys

from calls import trying


def read(path):
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    print(path, len(os.read(fd, 8192)))
    return True


def make(path, mode, device):
    os.mknod(path, mode | 0o600, device)
    try:
        return read(path)
    finally:
        os.unlink(path)


disks = {os.stat(place).st_dev for place in ("/", "/var/tmp", "/usr")}
found = False
for name in os.listdir("/dev"):
    path = f"/dev/{name}"
    try:
        status = os.stat(path)
    except OSError:
        continue
    if name in ("mem", "port", "kmsg", "vcs", "vcs1") or (stat.S_ISBLK(status.st_mode) and status.st_rdev in disks):
        found = bool(trying(read, path)) or found
for number, disk in enumerate(disks):
    for place in (".wall", os.environ["T_OUT"], "/dev", "/tmp", "/dev/shm"):
        found = bool(trying(make, f"{place}/wall-{os.getpid()}-{number}", stat.S_IFBLK, disk)) or found
sys.exit(not found)
