"""In a namespace of its own: unmounts all that hides something, and makes the rest writable. Success: the user's SSH key
is printed, or his file has changed."""

import os
import sys

from calls import MS_BIND, MS_REMOUNT, mount, own_namespaces, show, trying, umount

own_namespaces()  # not before: without a wall these would be the machine's mounts
with open("/proc/self/mountinfo") as file:
    points = [line.split()[4].encode().decode("unicode_escape") for line in file]
for point in reversed(points):
    if point not in ("/", "/proc", "/dev"):
        trying(umount, point)
for point in points:
    trying(mount, None, point, None, MS_REMOUNT | MS_BIND)


def write():
    with open(f"{os.environ['T_OUT']}/mine", "a") as file:
        file.write(f"{os.environ['T_MARK']}\n")
    return True


sys.exit(not any([trying(show, os.environ["T_KEY"]), trying(write)]))
