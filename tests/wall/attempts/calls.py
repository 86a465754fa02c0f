"""What the attempts in Python share: system calls that Python has no name for."""

import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWCGROUP = 0x20000, 0x10000000, 0x2000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC = 1, 32, 4096, 16384
MNT_DETACH = 2


def check(result, what):
    """The result of a call, or the error that it ended with."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def text(path):
    return os.fsencode(path) if path is not None else None


def own_namespaces(more=0):
    """A user and a mount namespace of one's own, with all capabilities in them, and with one's own number where that may
    be: it needs none."""
    uid, gid = os.geteuid(), os.getegid()
    check(libc.unshare(CLONE_NEWUSER | CLONE_NEWNS | more), "unshare")
    for name, value in ("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1"):
        try:
            with open(f"/proc/self/{name}", "w") as file:
                file.write(value)
        except OSError as error:
            print(name, error)


def mount(source, target, kind=None, flags=0, data=None):
    return check(libc.mount(text(source), text(target), text(kind), ctypes.c_ulong(flags), text(data)), f"mount {target}")


def umount(target):
    return check(libc.umount2(text(target), MNT_DETACH), f"umount {target}")


def trying(function, *words):
    """Calls a function and says what came of it; None if it could not."""
    try:
        return function(*words)
    except (OSError, ValueError) as error:
        print(f"{function.__name__} {words}: {error}")
        return None


def show(path):
    """Prints a file; whether it could be read."""
    with open(path, "rb") as file:
        print(path, file.read(65536))
    return True
