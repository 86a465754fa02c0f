"""Opens the user's SSH key by the handle of its inode, past all names and mounts. Success: its text is printed."""

import ctypes
import os
import sys

from calls import check, libc, trying

kind, handle = os.environ["T_HANDLE"].split(":")
handle = bytes.fromhex(handle)


class Handle(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint), ("kind", ctypes.c_int), ("handle", ctypes.c_char * 128)]


def by_handle(directory):
    at = os.open(directory, os.O_RDONLY)
    file = check(libc.open_by_handle_at(at, ctypes.byref(Handle(len(handle), int(kind), handle)), 0), "open_by_handle_at")
    print(os.read(file, 1000))
    return True


sys.exit(not any(trying(by_handle, place) for place in ("/", "/var/tmp", os.environ["T_OUT"], ".")))
