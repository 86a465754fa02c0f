"""Binds the user's directories over its own, with and without a namespace of its own. Success: the user's SSH key is
printed, or his file has changed."""

import os
import sys

from calls import MS_BIND, MS_REC, MS_REMOUNT, mount, own_namespaces, show, trying, umount

home, out, mark = os.environ["T_HOME"], os.environ["T_OUT"], os.environ["T_MARK"]
place = ".wall/place"
os.makedirs(place, exist_ok=True)


def look_through():
    mount("/", place, flags=MS_BIND | MS_REC)
    try:
        return show(f"{place}{home}/.ssh/id_ed25519")
    finally:
        umount(place)


def write_through():
    mount(out, place, flags=MS_BIND)
    try:
        trying(mount, None, place, None, MS_REMOUNT | MS_BIND)
        with open(f"{place}/mine", "a") as file:
            file.write(f"{mark}\n")
        return True
    finally:
        umount(place)


done = [trying(look_through), trying(write_through)]
trying(own_namespaces)
done += [trying(look_through), trying(write_through)]
sys.exit(not any(done))
