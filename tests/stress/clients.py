"""clients.py POOL N SECONDS: N processes use a pool as users do, and as users should not.

Every refusal must be one that the contract names; every client ends without a lease. Prints what was done.
"""
import errno
import os
import random
import signal
import sys
import time

pool, n_clients, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
REFUSALS = {errno.EAGAIN, errno.ETIMEDOUT, errno.EEXIST, errno.ENOENT, errno.ESTALE, errno.EBUSY, errno.EIO,
            errno.ENODEV, errno.ECANCELED, errno.EDQUOT, errno.ERANGE, errno.EHOSTDOWN, errno.ESHUTDOWN, errno.EINTR}


def write(name, text):
    fd = os.open(pool + "/" + name, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def read(name, size=1 << 20):
    fd = os.open(pool + "/" + name, os.O_RDONLY)
    try:
        return os.read(fd, size).decode(errors="replace")
    finally:
        os.close(fd)


def some_agent():
    return "agents/" + random.choice(os.listdir(pool + "/agents") or ["agent-1"])


def work(label):
    lease = "leases/" + label
    for _ in range(random.randrange(3)):
        write(lease + "/prompt", "x" * random.randrange(1, 5000) + "\n")
    if random.random() < 0.3:
        with open(os.readlink(pool + "/" + lease + "/worktree") + "/work", "w") as file:
            file.write(label)
    if random.random() < 0.3:
        read(lease + "/" + random.choice(["diff", "screen", "output", "head", "memory", "cpu", "transitions"]))
    if random.random() < 0.1:
        os.utime(pool + "/" + lease)


def by_write(label):
    write("acquire", "%s timeout=%dms ttl=%s\n" % (label, random.choice([0, 50, 2000]), random.choice(["0", "100ms"])))
    try:
        work(label)
    finally:
        if random.random() < 0.2:
            os.unlink(pool + "/leases/" + label)
        else:
            write("release", label + random.choice(["", " discard"]) + "\n")


def by_handle(label):
    fd = os.open(pool + "/acquire", os.O_RDWR)
    try:
        os.write(fd, ("%s timeout=2s affinity=%s\n" % (label, random.choice("abc"))).encode())
        if random.random() < 0.7:
            os.read(fd, 200)
            work(label)
    finally:
        os.close(fd)


def killed(label):
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            write("acquire", label + " timeout=2s pid=%d\n" % os.getpid())
            read("leases/" + label + "/wait")
        except OSError:
            pass
        os._exit(0)
    time.sleep(random.random() * 0.1)
    os.kill(child, random.choice([signal.SIGKILL, signal.SIGTERM]))
    os.waitpid(child, 0)


def meddle(label):
    agent = some_agent()
    random.choice([
        lambda: write(agent + "/ctl", random.choice(["kill", "recycle", "restart"]) + "\n"),
        lambda: write("scale", random.choice(["auto", "3", "+1", "-1", "8"]) + "\n"),
        lambda: write("config/max_pool_size", "%d\n" % random.randrange(2, 9)),
        lambda: write("config/on_release", random.choice(["keep", "restart", "auto"]) + "\n"),
        lambda: write("config/scale_policy", random.choice(["utilization", "spare", "target", "ewma"]) + "\n"),
        lambda: write("ctl", random.choice(["warm", "drain", "save", "load", "maintain", "reset-breaker"]) + "\n"),
        lambda: write("release", label + "\n"),
        lambda: write(agent + "/keys", "Enter\n"),
        lambda: [read(agent + "/" + name) for name in ("state", "owner", "why", "transitions", "memory")],
        lambda: [read("stats/" + name) for name in os.listdir(pool + "/stats")],
        lambda: read("status"),
    ])()


def client(number):
    random.seed(number)
    end = time.monotonic() + seconds
    n_done = n_refused = round = 0
    while time.monotonic() < end:
        round += 1
        label = "client-%d-%d" % (number, round % 3)
        action = random.choice([by_write, by_write, by_write, by_handle, by_handle, killed, meddle, meddle])
        try:
            action(label)
            n_done += 1
        except OSError as error:
            n_refused += 1
            if error.errno not in REFUSALS:
                print("client %d: %s: %s" % (number, action.__name__, error), flush=True)
                return 1
    for i in range(3):
        try:
            write("release", "client-%d-%d\n" % (number, i))
        except OSError:
            pass
    print("client %d: %d done, %d refused" % (number, n_done, n_refused), flush=True)
    return 0 # on a slow machine some have no turn: what all have done is the caller's to ask


children = []
for number in range(n_clients):
    child = os.fork()
    if child == 0:
        os._exit(client(number))
    children.append(child)
failed = [child for child in children if os.waitpid(child, 0)[1] != 0]
sys.exit(1 if failed else 0)
