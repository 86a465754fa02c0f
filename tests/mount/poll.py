"""poll.py wait HOW SECONDS FILE...   waits until one of the files is another than it was read; prints which, with what
                                   poll says and what is read then
poll.py levels FILE COMMAND        what poll says of a file before and behind a shell command, and once it is read again
poll.py edges FILE COMMAND...      waits behind each command by an edge-triggered epoll
poll.py many N FILE LAST           so many pollers at once, each with an open file of its own, until they read the last
                                   value; how often they were woken

HOW: poll, epoll or select. Files are open and have been read once when standard error says "open". Exit 2: nothing came."""
import errno
import os
import select
import subprocess
import sys
import threading

DEADLINE = 300
NAMES = [(select.POLLIN, "IN"), (select.POLLPRI, "PRI"), (select.POLLERR, "ERR"), (select.POLLHUP, "HUP")]


def names(events):
    return "|".join(name for bit, name in NAMES if events & bit) or "none"


def open_read(path):
    fd = os.open(path, os.O_RDONLY)
    os.read(fd, 65536)
    return fd


def value(fd):
    try:
        return os.pread(fd, 65536, 0).decode().strip()
    except OSError as e:
        return errno.errorcode[e.errno]


def now(fd):
    """What poll says at once, of all that may be asked for."""
    poller = select.poll()
    poller.register(fd, select.POLLIN | select.POLLPRI)
    return dict(poller.poll(0)).get(fd, 0)


def waits(how, fds, seconds):
    if how == "select":
        return [(fd, now(fd)) for fd in select.select([], [], fds, seconds)[2]]
    poller = select.epoll() if how == "epoll" else select.poll()
    for fd in fds:
        poller.register(fd, select.EPOLLPRI if how == "epoll" else select.POLLPRI)
    return poller.poll(seconds * (1 if how == "epoll" else 1000))


def wait(how, seconds, *paths):
    fds = {open_read(path): path for path in paths}
    print("open", file=sys.stderr, flush=True)
    came = waits(how, list(fds), float(seconds))
    for fd, events in came:
        print(os.path.basename(fds[fd]), names(events), value(fd) or "nothing")
    return 0 if came else 2


def levels(path, command):
    fd = open_read(path)
    print("before", names(now(fd)))
    subprocess.run(["sh", "-c", command], check=True)
    print("behind", names(now(fd)))
    print("still", names(now(fd)))
    os.pread(fd, 1, 1)  # not from the start: the same snapshot
    print("middle", names(now(fd)))
    os.lseek(fd, 0, os.SEEK_SET)
    print("read", os.read(fd, 65536).decode().strip())
    print("again", names(now(fd)))


def edges(path, *commands):
    fd = open_read(path)
    epoll = select.epoll()
    epoll.register(fd, select.EPOLLPRI | select.EPOLLET)
    for command in commands:
        subprocess.Popen(["sh", "-c", command])
        if not epoll.poll(DEADLINE):
            sys.exit("not woken by %s" % command)
        print(value(fd))


def many(n, path, last):
    woken, opened = [0] * int(n), threading.Barrier(int(n) + 1)

    def one(i):
        fd = open_read(path)
        opened.wait()
        seen = None
        while seen != last and waits("poll", [fd], DEADLINE):
            woken[i] += 1
            seen = value(fd)
        os.close(fd)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(int(n))]
    for thread in threads:
        thread.start()
    opened.wait()
    print("open", file=sys.stderr, flush=True)
    for thread in threads:
        thread.join()
    print(min(woken), max(woken))


sys.exit({"wait": wait, "levels": levels, "edges": edges, "many": many}[sys.argv[1]](*sys.argv[2:]))
