#!/usr/bin/env python3
"""crash.py AGENTPOOLFS [KILLS [CLIENTS [SEED]]]: a daemon that is killed while many clients use it.

Clients acquire, by write and by handle, work, prompt and release, all the time; the daemon is killed
with SIGKILL at random moments, and mounted again. After each time: every lease by write that was
granted and not released is there with its agent and token, no agent serves two, counters have not
fallen; the work of every lease that is over is on its branch. At the end nothing is left. Prints its
counts, and exits with 1 when something was lost."""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

program = os.path.abspath(sys.argv[1])
n_kills = int(sys.argv[2]) if len(sys.argv) > 2 else 50
n_clients = int(sys.argv[3]) if len(sys.argv) > 3 else 20
seed = int(sys.argv[4]) if len(sys.argv) > 4 else 1
top = tempfile.mkdtemp(prefix="agentpool-crash-")
repo, pool, state = f"{top}/repo", f"{top}/pool", f"{top}/state"
os.environ.update(HOME=top, GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_NOSYSTEM="1")
COUNTERS = ["total_requests", "spawned_agents", "terminated_agents", "total_recycles"]


def git(*words, check=True):
    return subprocess.run(["git", "-C", repo, *words], capture_output=True, text=True, check=check)


def await_(condition, what, limit=120):
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            fail(f"still not: {what}")
            return False
        time.sleep(0.02)
    return True


failures = []


def fail(sentence):
    failures.append(sentence)
    print(f"not so: {sentence}", flush=True)


def read(path):
    with open(f"{pool}/{path}") as file:
        return file.read()


def write(path, text):
    """One write(2), as a shell makes it."""
    fd = os.open(f"{pool}/{path}", os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def close(fd):
    """Whether the daemon has heard of it."""
    try:
        os.close(fd)
        return True
    except OSError:
        return False


class Daemon:
    def mount(self):
        self.log = open(f"{top}/log", "ab")
        self.process = subprocess.Popen(
            [program, "-f", "-o", f"state_dir={state},min_pool_size=2,max_pool_size=6", repo, pool],
            stdout=self.log, stderr=self.log)
        await_(lambda: os.path.exists(f"{pool}/acquire") or self.process.poll() is not None, "the mount answers")
        if self.process.poll() is not None:
            raise SystemExit("the daemon does not start: " + open(f"{top}/log").read())

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Lease:
    def __init__(self, label, by_handle):
        self.label, self.by_handle = label, by_handle
        self.agent = self.token = None
        self.files = {}  # what it has surely written


class Ledger:
    """What clients know for sure."""

    def __init__(self):
        self.lock = threading.Lock()
        self.held, self.unsure, self.over = {}, {}, []
        self.n = dict.fromkeys(["asked", "granted", "by handle", "refused", "prompts", "released",
                                "kept over a kill", "handles ended", "unsure", "files"], 0)

    def count(self, what, n=1):
        with self.lock:
            self.n[what] += n


ledger = Ledger()
gate = threading.Event()  # clients go on
resting = threading.Semaphore(0)
stop = threading.Event()


def rest():
    """The daemon is dead: waits until there is another."""
    if gate.is_set():
        time.sleep(0.01)  # it is not known yet
        return
    resting.release()
    gate.wait()


def retry(action):
    """Does it until a daemon lives long enough for it."""
    while True:
        if not gate.is_set():
            rest()
        try:
            return action()
        except OSError as error:
            if os.path.exists(f"{pool}/acquire") and gate.is_set():
                raise
            rest()


def acquire(lease):
    """Whether it was granted, as far as the client knows; None: it cannot know."""
    ledger.count("asked")
    try:
        if lease.by_handle:
            lease.fd = os.open(f"{pool}/acquire", os.O_RDWR)
            os.write(lease.fd, f"{lease.label} timeout=10s\n".encode())
            text = os.read(lease.fd, 100).decode()
            return text.split()[1] == lease.label
        write("acquire", f"{lease.label} timeout=10s\n")
        return True
    except TimeoutError:
        ledger.count("refused")
        return False
    except OSError:
        return None


def look(lease):
    agent = os.path.basename(os.readlink(f"{pool}/leases/{lease.label}"))
    owner = dict(line.split(" ", 1) for line in read(f"leases/{lease.label}/owner").splitlines())
    tree = os.readlink(f"{pool}/leases/{lease.label}/worktree")
    lease.agent, lease.token, lease.tree = agent, owner["token"], tree


def work(lease, pick):
    for i in range(pick.randrange(1, 4)):
        text = str(pick.random())
        with open(f"{lease.tree}/file-{i}", "w") as file:
            file.write(text)
        lease.files[f"file-{i}"] = text
        ledger.count("files")
    if pick.random() < 0.3:
        retry(lambda: write(f"leases/{lease.label}/prompt", f"echo prompted {lease.label} > prompted\n"))
        ledger.count("prompts")
        if retry(lambda: read(f"leases/{lease.label}/wait")).strip() == "ready":
            if os.path.exists(f"{lease.tree}/prompted"):
                lease.files["prompted"] = f"prompted {lease.label}\n"
    time.sleep(pick.random() * 0.3)
    while not gate.is_set():  # held over a kill
        rest()


def end(lease, pick):
    if lease.by_handle:
        close(lease.fd)
        return
    if pick.random() < 0.3:
        os.unlink(f"{pool}/leases/{lease.label}")
    else:
        write("release", f"{lease.label}\n")


def one_lease(lease, pick):
    answer = acquire(lease)
    if answer is not True:
        if lease.by_handle and hasattr(lease, "fd"):
            close(lease.fd)
        if answer is None and not lease.by_handle:
            with ledger.lock:
                ledger.unsure[lease.label] = lease
                ledger.n["unsure"] += 1
        return
    ledger.count("by handle" if lease.by_handle else "granted")
    try:
        if lease.by_handle:
            look(lease)
            work(lease, pick)
        else:
            with ledger.lock:
                ledger.held[lease.label] = lease
            retry(lambda: look(lease))
            work(lease, pick)
            with ledger.lock:
                del ledger.held[lease.label]
        end(lease, pick)
        ledger.count("released")
    except OSError:  # the daemon died under it: its handle is closed, or its release was under way
        if lease.by_handle:
            ledger.count("handles ended")
            close(lease.fd)
        else:
            with ledger.lock:
                ledger.held.pop(lease.label, None)
                ledger.unsure[lease.label] = lease
                ledger.n["unsure"] += 1
    with ledger.lock:
        ledger.over.append(lease)


def client(number):
    pick = random.Random(f"{seed}-{number}")
    i = 0
    while not stop.is_set():
        if not gate.is_set():
            rest()
            continue
        i += 1
        one_lease(Lease(f"c{number}-{i}", pick.random() < 0.3), pick)


def counters():
    return {name: int(read(f"stats/{name}")) for name in COUNTERS}


def check(before):
    """What has to hold when a new daemon is there, and every client rests."""
    now = counters()
    for name in COUNTERS:
        if now[name] < before[name]:
            fail(f"{name} has fallen from {before[name]} to {now[name]}")
    served = {}
    for label in os.listdir(f"{pool}/leases"):
        try:
            agent = os.readlink(f"{pool}/leases/{label}")
        except OSError:
            continue  # it ended just now
        if agent in served:
            fail(f"{agent} serves {served[agent]} and {label}")
        served[agent] = label
    for label, lease in list(ledger.held.items()):
        try:
            agent, token = lease.agent, lease.token
            look(lease)
        except OSError as error:
            fail(f"lease {label} is lost: {error}")
            continue
        if agent and (agent, token) != (lease.agent, lease.token):
            fail(f"lease {label} was with {agent} {token}, and is with {lease.agent} {lease.token}")
        ledger.n["kept over a kill"] += 1
    return now


def release_unsure():
    """What may hold without its client knowing is released."""
    for label in list(ledger.unsure):
        try:
            write("release", f"{label}\n")
        except (FileNotFoundError, OSError):
            pass
        ledger.unsure.pop(label)


def check_branches(leases):
    lost = 0
    for lease in leases:
        for name, text in lease.files.items():
            ok = lambda: git("show", f"agentpool/{lease.label}:{name}", check=False).stdout == text
            if not (ok() or await_(ok, f"{name} of {lease.label} is on its branch", 30)):
                lost += 1
    return lost


def left():
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if state.encode() in file.read():
                    found.append(pid)
        except OSError:
            pass
    return found


def main():
    subprocess.run(["git", "init", "-q", "-b", "main", repo], check=True)
    git("config", "user.name", "user")
    git("config", "user.email", "user@example.org")
    for i in range(20):
        with open(f"{repo}/tracked-{i}", "w") as file:
            file.write(str(i))
    git("add", ".")
    git("commit", "-qm", "first")
    os.mkdir(pool)
    pick = random.Random(seed)
    daemon = Daemon()
    daemon.mount()
    known = counters()
    gate.set()
    threads = [threading.Thread(target=client, args=(i,)) for i in range(n_clients)]
    for thread in threads:
        thread.start()
    downtime = []
    for kill in range(n_kills):
        time.sleep(0.05 + pick.random() * 1.2)
        try:
            known = counters()
        except OSError as error:
            fail(f"the daemon died by itself: {error}")
        gate.clear()
        daemon.kill()
        for _ in threads:
            if not resting.acquire(timeout=120):
                fail("a client hangs")
        begin = time.monotonic()
        daemon.mount()
        downtime.append(time.monotonic() - begin)
        known = check(known)
        release_unsure()
        gate.set()
        if failures:
            break
    stop.set()
    for thread in threads:
        thread.join()
    await_(lambda: not os.listdir(f"{pool}/leases"), "every lease is over")
    final = counters()
    subprocess.run(["fusermount3", "-u", pool], check=True)
    daemon.process.wait()
    n_lost = check_branches(ledger.over)
    await_(lambda: not left() and not os.path.exists(f"{state}/tmux.sock"), "no process is left", 30)
    for name in ["worktrees", "agents", "layers"]:
        if os.path.exists(f"{state}/{name}"):
            fail(f"{name} are left: {os.listdir(f'{state}/{name}')}")
    if len(git("worktree", "list").stdout.splitlines()) != 1:
        fail("worktrees are left: " + git("worktree", "list").stdout)
    git("fsck", "--no-progress", "--connectivity-only")
    log = open(f"{top}/log").read()
    if log:
        fail(f"the daemon said: {log}")
    print(f"{len(downtime)} kills, {n_clients} clients: "
          + ", ".join(f"{n} {what}" for what, n in ledger.n.items())
          + f"; {final['total_requests']} leases and {final['spawned_agents']} agents by the counters; "
          + f"mounted again in {sorted(downtime)[len(downtime) // 2]:.2f} s (median), {max(downtime):.2f} s at most; "
          + f"{n_lost} files lost, {len(failures)} failures", flush=True)
    return 1 if failures or n_lost or not ledger.n["kept over a kill"] else 0


try:
    status = main()
finally:
    gate.set()
    stop.set()
    if os.path.ismount(pool):
        subprocess.run(["umount", "-l", pool], check=False)
    for pid in left():
        os.kill(int(pid), signal.SIGKILL)
    if failures:
        print(f"kept for a look: {top}")
    else:
        subprocess.run(f"umount {state}/worktrees/* 2>/dev/null; true", shell=True, check=False)
        shutil.rmtree(top, ignore_errors=True)
sys.exit(status)
