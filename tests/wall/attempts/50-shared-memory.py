"""Reads memory that processes of the user share: System V segments and files in /dev/shm. Success: a secret is printed."""

import ctypes
import os
import sys

from calls import check, libc, show, trying

libc.shmat.restype = ctypes.c_void_p


def segment(number):
    at = libc.shmat(number, None, 0o10000)
    if at in (None, ctypes.c_void_p(-1).value):
        check(-1, "shmat")
    print(ctypes.string_at(at))
    return True


sys.exit(not any([trying(segment, int(os.environ["T_SEGMENT"])), trying(show, os.environ["T_SHM"])]))
