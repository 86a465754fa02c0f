"""Looks for descriptors that the pool or the wall has left open in the agent's own processes: a directory to climb out
of, a socket, a file outside. Success: there is one."""

import os
import stat
import sys

key = os.environ["T_KEY"]
worktree = os.getcwd()


def parent(pid):
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("PPid:"))


def of_the_agent():
    """This process and those above it that run in the agent's worktree, and the first process of a namespace of its own."""
    pid = os.getpid()
    while pid > 0:
        try:
            name = open(f"/proc/{pid}/comm").read().strip()
        except OSError:
            return
        if name in ("agentpool-shim", "tmux: server", "agentpoolfs"):
            return
        yield pid, name
        pid = parent(pid)


found = False
for pid, name in of_the_agent():
    try:
        fds = os.listdir(f"/proc/{pid}/fd")
    except OSError as error:
        print(name, error)
        continue
    for fd in fds:
        path = f"/proc/{pid}/fd/{fd}"
        try:
            mode, to = os.stat(path).st_mode, os.readlink(path)
        except OSError:
            continue
        if to.startswith((worktree, f"/proc/{pid}", "/dev/pts/", "/dev/tty", "/dev/null", "pipe:", "anon_inode:")):
            continue
        print(name, fd, to)
        if stat.S_ISDIR(mode):
            try:
                print(open(f"{path}/../../../../../../../../..{key}").read())
                found = True
            except OSError as error:
                print(error)
        elif pid in (os.getpid(), os.getppid()) or stat.S_ISREG(mode):
            found = True
sys.exit(not found)
