"""Attaches to a process of the user, or reads its memory. Success: a secret in its memory is printed."""

import ctypes
import os
import sys

from calls import check, libc, trying

pid = int(os.environ["T_VICTIM"])
address, size = int(os.environ["T_ADDRESS"]), int(os.environ["T_SIZE"])


class Piece(ctypes.Structure):
    _fields_ = [("at", ctypes.c_void_p), ("size", ctypes.c_size_t)]


def attach():
    check(libc.ptrace(0x4206, pid, None, None), "ptrace")  # seize, which stops nothing; our end lets go
    print("attached")
    return True


def read_by_call():
    here = ctypes.create_string_buffer(size)
    ours, theirs = Piece(ctypes.addressof(here), size), Piece(address, size)
    check(libc.process_vm_readv(pid, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0), "process_vm_readv")
    print(here.raw)
    return True


def read_by_file():
    with open(f"/proc/{pid}/mem", "rb") as file:
        file.seek(address)
        print(file.read(size))
    return True


sys.exit(not any([trying(attach), trying(read_by_call), trying(read_by_file)]))
