"""Takes the open files of a process of the user. Success: the text of one that has no name any more is printed."""

import os
import sys

from calls import check, libc, trying

pid = int(os.environ["T_VICTIM"])


def by_proc(fd):
    print(os.pread(os.open(f"/proc/{pid}/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK), 1000, 0))
    return True


def by_pidfd(fd):
    process = check(libc.syscall(434, pid, 0), "pidfd_open")
    got = check(libc.syscall(438, process, fd, 0), "pidfd_getfd")
    print(os.pread(got, 1000, 0))
    return True


fds = [fd for fd in range(3, 20) if os.path.exists(f"/proc/{pid}/fd/{fd}")] or [3]
sys.exit(not any([trying(way, fd) for way in (by_proc, by_pidfd) for fd in fds]))
