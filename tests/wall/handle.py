"""handle.py FILE: the handle of its inode, KIND:HEX, as open_by_handle_at wants it."""

import ctypes
import os
import sys


class Handle(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint), ("kind", ctypes.c_int), ("handle", ctypes.c_ubyte * 128)]


handle, mount = Handle(128), ctypes.c_int()
libc = ctypes.CDLL(None, use_errno=True)
if libc.name_to_handle_at(-100, os.fsencode(sys.argv[1]), ctypes.byref(handle), ctypes.byref(mount), 0) < 0:
    print("0:")
else:
    print(f"{handle.kind}:{bytes(handle.handle[: handle.size]).hex()}")
