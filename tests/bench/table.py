#!/usr/bin/env python3
"""table.py [--list] [--short] [--json FILE] [--build DIR] [ROW...]: one table of what this program takes, for scripts/bench.

Beside it in the same run stand its floor, the least FUSE file system that does the same (floor.c) or a mutex and a list
(bench_machine.c), and its peers: git and tmux in a plain worktree, lxcfs, procfs. The sides of a row take turns in every
repetition. Printed are medians, with quartiles in brackets, and the medians of the ratios of neighbours, which say more
than times do on a machine that others work on. Everything is done through the mount. What was done is looked at: a diff
has the change, a branch has the file. No time makes it fail, whatever does not work does.

Pools and their trees are in memory (/dev/shm). Kept as JSON in BUILD/bench/table.json."""

import argparse
import datetime
import itertools
import json
import multiprocessing
import os
import pathlib
import re
import resource
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from counting import SystemCalls

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from pool import Pool

DEADLINE = 300
UNITS = {"us": 1e6, "ms": 1e3}
SIDES = ("this", "floor", "peer")
OF_GIT, GROWTH = 1 / 20, 1.5  # a release and a diff among most files: against git, and against those among fewest
PROMISED_MS = (("acquire", 3.25), ("release, nothing changed", 6))  # among fewest
SIZED = ("acquire", "release, nothing changed", "release, one new file", "diff, one changed file", "spawn", "recycle")


# --- the table ---


class Table:
    def __init__(self, options):
        self.build, self.short, self.words = options.build, options.short, options.rows
        self.path = options.json or f"{options.build}/bench/table.json"
        self.rows = []

    def wants(self, names):
        return not self.words or any(word in name for word in self.words for name in names)

    def times(self, full):
        """How often a thing is done: often enough for quartiles, in a short run to see that it can be."""
        return 2 if self.short else full

    def add(self, name, unit, samples, peer="", ratios=None):
        """A row from samples by side, those of one repetition at one place."""
        row = {"row": name, "unit": unit, "peer": peer, "n": len(samples["this"]), "sides": {}, "ratios": {}}
        for side, values in samples.items():
            low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
            row["sides"][side] = {"median": middle, "q1": low, "q3": high, "least": min(values)}
            if side != "this" and all(values):
                row["ratios"][side] = statistics.median(a / b for a, b in zip(samples["this"], values))
        row["ratios"].update(ratios or {})
        self.rows.append(row)
        print(line_of(row), flush=True)

    def measure(self, name, unit, n, sides, peer=""):
        """Each side is called n times, in turns, and returns the seconds it took; else its call is timed."""
        samples = {side: [] for side in sides}
        order = list(sides)
        for side in order:  # what the first one finds cold
            sides[side]()
        for i in range(n):
            for side in order if i % 2 else reversed(order):
                samples[side].append(timed(sides[side]) * UNITS[unit])
        self.add(name, unit, samples, peer)

    def median(self, name, side="this"):
        return next((row["sides"][side]["median"] for row in self.rows if row["row"] == name), None)

    def ratio(self, name, side="peer"):
        return next((row["ratios"].get(side) for row in self.rows if row["row"] == name), None)

    def end(self, promises):
        if not self.rows:
            sys.exit("no rows have such a name: see --list")
        os.makedirs(os.path.dirname(os.path.abspath(self.path)), exist_ok=True)
        with open(self.path, "w") as file:
            json.dump({"cpus": os.cpu_count(), "load": os.getloadavg(), "kernel": os.uname().release,
                       "short": self.short, "rows": self.rows, "promises": promises}, file, indent=1)
            file.write("\n")
        print(f"kept in {self.path}")


def heading():
    return (f"{'':58s} {'':4s} {'this program':>26s} {'floor':>26s} {'peer':>26s} {'/floor':>7s} {'/peer':>7s}  peer, and how often")


def line_of(row):
    cells = []
    for side in SIDES:
        at = row["sides"].get(side)
        cells.append(f"{number(at['median'])} [{number(at['q1'])}, {number(at['q3'])}]" if at else "-")
    ratios = [number(row["ratios"][side]) if side in row["ratios"] else "-" for side in SIDES[1:]]
    return (f"{row['row']:58s} {row['unit']:4s} " + " ".join(f"{cell:>26s}" for cell in cells) + " " +
            " ".join(f"{ratio:>7s}" for ratio in ratios) + f"  {row['peer']} n={row['n']}".replace("  n", " n"))


def number(value):
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def timed(act):
    began = time.perf_counter()
    took = act()
    return took if isinstance(took, float) else time.perf_counter() - began


# --- what is measured ---


def read(path):
    """To its end, by its own system calls alone."""
    fd, got = os.open(path, os.O_RDONLY), []
    try:
        while piece := os.read(fd, 1 << 17):
            got.append(piece)
    finally:
        os.close(fd)
    return b"".join(got)


def reading(path, n=1):
    """What reads a file so often."""
    def act():
        for _ in range(n):
            assert read(path)
    return act


def write(path, text):
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text)
    finally:
        os.close(fd)


def hold(path, text):
    """A lease by handle, taken and given back."""
    fd = os.open(path, os.O_RDWR)
    try:
        os.write(fd, text)
        assert os.read(fd, 4096)
    finally:
        os.close(fd)


def run(*words, **kwargs):
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs).stdout


class Mounted:
    """A program that mounts a file system on a directory of its own and stays in the foreground."""

    def __init__(self, words, name):
        self.mount = tempfile.mkdtemp(prefix=f"bench-{name}-")
        self.process = subprocess.Popen([word.replace("MOUNT", self.mount) for word in words], stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        self.pid = self.process.pid
        end = time.monotonic() + DEADLINE
        while not os.path.ismount(self.mount):
            if self.process.poll() is not None or time.monotonic() > end:
                self.end()
                raise RuntimeError(f"{name} does not mount")
            time.sleep(0.001)

    def end(self):
        subprocess.run(["fusermount3", "-u", self.mount], check=False, stderr=subprocess.DEVNULL)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:  # somebody has a file open, as after a failure
            subprocess.run(["fusermount3", "-u", "-z", self.mount], check=False)
            self.process.kill()
            self.process.wait()
        os.rmdir(self.mount)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


def floor(table, n_names=0, n_bytes=2):
    return Mounted([f"{table.build}/tests/floor", "MOUNT", str(n_names), str(n_bytes)], "floor")


def lxcfs():
    """None where it is not there, or this user may not mount it."""
    if not shutil.which("lxcfs") or os.geteuid() != 0:
        return None
    try:
        return Mounted(["lxcfs", "-f", "-p", f"{tempfile.gettempdir()}/lxcfs.pid", "MOUNT"], "lxcfs")
    except RuntimeError:
        return None


class Measured(Pool):
    """A pool in memory, ended with its `with`; its leases are the benchmark's own."""

    def __init__(self, program, options, words, n_files=0, idle=1):
        self.n_files, self.n, self.last = n_files, 0, {}
        self.daemon = None
        try:
            super().__init__(program, options, words, self.fill, DEADLINE)
            self.control("release", "job")
            # a pool that may grow may have grown for that lease
            self.wait_for("the first agents", lambda: self.stat("idle_agents") >= idle)
        except BaseException:
            if self.daemon:
                self.end()
            raise

    def fill(self, _):
        if self.n_files:
            import_files(self.repo, self.n_files)
        self.git("-C", self.repo, "config", "gc.auto", "0")
        return {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def at(self, n):
        """Waits until so many agents are idle."""
        path, end = f"{self.mount}/stats/idle_agents", time.monotonic() + DEADLINE
        fd = os.open(path, os.O_RDONLY)
        try:
            poller = select.poll()
            poller.register(fd, select.POLLPRI)
            while int(os.pread(fd, 32, 0)) != n:
                if time.monotonic() > end or self.daemon.poll() is not None:
                    raise RuntimeError(f"there are not {n} idle agents: {self.last_error()}")
                poller.poll(1000)
        finally:
            os.close(fd)

    def label(self):
        self.n += 1
        return f"lease-{self.n}"

    def newest(self):
        return max(os.listdir(f"{self.mount}/agents"), key=lambda name: int(name.split("-")[1]))

    def passage(self, agent, state):
        """Seconds of the agent's last passage through a state, by its own record."""
        began = took = None
        for line in read(f"{self.mount}/agents/{agent}/transitions").decode().splitlines():
            at, old, new, _ = line.split(" ", 3)
            at = seconds_of(at)
            if old == state and new == "idle" and began is not None:
                took = at - began
            if new == state:
                began = at
        return took


def seconds_of(stamp):
    return datetime.datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()


def import_files(repo, n):
    """So many files of 2.5 KB, 25 in a directory, as a commit on main and one pack; REPO itself has them not out."""
    lines = ["commit refs/heads/main", "committer bench <bench@example.org> 1700000000 +0000", "data 5", "files",
             "from refs/heads/main^0"]
    for i in range(n):
        text = f"line {i} of a file that is like any other\n" * 60
        lines += [f"M 100644 inline d{i // 2500}/d{i // 25}/file-{i}", f"data {len(text)}", text]
    run("git", "-C", repo, "fast-import", "--quiet", input="\n".join(lines).encode() + b"\n")


class Client:
    """A process of its own that does one thing and says when it was done: who hands off does not wait for it."""

    def __init__(self):
        self.ours, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=self.serve, args=(theirs,), daemon=True)
        self.process.start()

    @staticmethod
    def serve(pipe):
        while True:
            path, text, flags = pipe.recv()
            fd = os.open(path, flags)
            if text:
                os.write(fd, text)
            answer = os.read(fd, 4096)
            pipe.send((time.perf_counter(), answer))
            pipe.recv()
            os.close(fd)
            pipe.send("closed")

    def begin(self, path, text=b"", flags=os.O_RDONLY):
        self.ours.send((path, text, flags))

    def answered(self):
        """When its read returned; it still holds the file."""
        if not self.ours.poll(DEADLINE):
            raise RuntimeError("who waits is not served")
        at, answer = self.ours.recv()
        assert answer
        return at

    def close(self):
        self.ours.send("close")
        self.ours.recv()

    def end(self):
        self.process.kill()
        self.process.join()


# --- groups of rows ---


def machine(table):
    """The decision alone, without file system and without work, beside a mutex and a list."""
    found = [json.loads(run(f"{table.build}/tests/bench_machine")) for _ in range(table.times(3))]
    for i, pool in enumerate(found[0]["pools"]):
        for what, key in (("acquire and release", "pair"), ("five steps of a lease", "cycle")):
            table.add(f"{what} in the machine, {pool['name']}", "ns",
                      {"this": [one["pools"][i][f"{key}_ns"] for one in found], "floor": [one["floor_ns"] for one in found]},
                      ratios={"floor": statistics.median(one["pools"][i][f"{key}_of_floor"] for one in found)})


def requests(table):
    """What one request costs: programs are left out, agents have worktrees of one file."""
    beside, n = lxcfs(), table.times(400)
    try:
        with floor(table) as least, Measured(f"{table.build}/tests/agentpoolfs-fake", "min_pool_size=4,max_pool_size=4",
                                             ["fake"], idle=4) as pool:
            ours = pool.mount
            stats = {"this": reading(f"{ours}/stats/idle_agents"), "floor": reading(f"{least.mount}/value")}
            table.measure("stats read", "us", n, {**stats, "peer": reading("/proc/uptime")}, "procfs")
            if beside:
                table.measure("stats read, beside lxcfs", "us", n,
                              {**stats, "peer": reading(f"{beside.mount}/proc/uptime")}, "lxcfs")
            nothing = {"floor": lambda: write(f"{least.mount}/value", b"# nothing\n")}
            table.measure("control write that does nothing", "us", n,
                          {"this": lambda: write(f"{ours}/release", b"# nothing\n"), **nothing})
            settings = itertools.cycle([b"1M", b"2M"])
            table.measure("control write of a setting, kept", "us", n,
                          {"this": lambda: write(f"{ours}/config/max_prompt", next(settings)), **nothing})
            leases(table, pool, least, table.times(100))
        with floor(table) as least, Measured(f"{table.build}/tests/agentpoolfs-fake", "", ["fake"]) as pool:
            hand_off(table, pool, least, table.times(50))
    finally:
        if beside:
            beside.end()


def leases(table, pool, least, n):
    def by_label():
        label = pool.label().encode()
        pool.at(4)
        took = timed(lambda: write(f"{pool.mount}/acquire", label))
        write(f"{pool.mount}/release", label)
        return took

    def floor_by_label():
        took = timed(lambda: write(f"{least.mount}/take", b"label"))
        write(f"{least.mount}/give", b"label")
        return took

    def by_handle():
        pool.at(4)
        label = pool.label().encode()
        return timed(lambda: hold(f"{pool.mount}/acquire", label))

    table.measure("lease by label", "us", n, {"this": by_label, "floor": floor_by_label})
    table.measure("lease by handle, until it is closed", "us", n,
                  {"this": by_handle, "floor": lambda: hold(f"{least.mount}/take", b"label")})


def hand_off(table, pool, least, n):
    """From the release to the return of another's read; the worktree is saved and made new between."""
    client = Client()

    def ours():
        label, other = pool.label().encode(), pool.label().encode()
        write(f"{pool.mount}/acquire", label)
        client.begin(f"{pool.mount}/acquire", other, os.O_RDWR)
        pool.wait_for("who waits", lambda: pool.stat("waiting") == 1)
        began = time.perf_counter()
        write(f"{pool.mount}/release", label)
        took = client.answered() - began
        client.close()
        pool.at(1)
        return took

    def floors():
        client.begin(f"{least.mount}/wait")
        while True:
            began = time.perf_counter()
            try:
                write(f"{least.mount}/wait", b"1")
                break
            except BlockingIOError:
                time.sleep(0.0005)
        took = client.answered() - began
        client.close()
        return took

    try:
        table.measure("hand-off to a parked acquirer", "us", n, {"this": ours, "floor": floors})
    finally:
        client.end()  # with what it holds open


def programs(table):
    """bash and cat as the program: prompts, and an idle pool."""
    with Measured(f"{table.build}/fs/agentpoolfs", "min_pool_size=2,max_pool_size=2", ["bash"], idle=2) as pool:
        socket = f"{pool.work}/peer"
        tmux = ["tmux", "-S", socket]
        run(*tmux, "-f", "/dev/null", "new-session", "-d", "-s", "peer", "bash", "--norc", env=pool.env)
        try:
            pool.control("acquire", "job")

            def prompt():
                write(f"{pool.job}/prompt", b":\n")
                assert read(f"{pool.job}/wait") == b"ready\n"

            def keys():
                run(*tmux, "send-keys", "-t", "peer", f"tmux -S {socket} wait-for -S done", "Enter")
                run(*tmux, "wait-for", "done")

            table.measure("prompt to wait, bash", "ms", table.times(30), {"this": prompt, "peer": keys},
                          "tmux send-keys, wait-for")
            pool.control("release", "job")
        finally:
            run(*tmux, "kill-server")


def idle_pool(table):
    beside, seconds = lxcfs(), 1 if table.short else 10
    try:
        with floor(table) as least, Measured(f"{table.build}/fs/agentpoolfs", "min_pool_size=4,max_pool_size=4", ["cat"],
                                             idle=4) as pool:
            time.sleep(0 if table.short else 5)  # programs count as ready after two silent seconds
            pids = {"this": pool.daemon.pid, "floor": least.pid}
            if beside:
                pids["peer"] = beside.pid
            samples = {side: [] for side in pids}
            for _ in range(1 if table.short else 3):
                before = {side: wakeups(pid) for side, pid in pids.items()}
                time.sleep(seconds)
                for side, pid in pids.items():
                    samples[side].append((wakeups(pid) - before[side]) / seconds)
            table.add("idle pool of 4: wakeups a second", "", samples, "lxcfs" if beside else "")
            with SystemCalls(pool.daemon.pid) as calls:
                time.sleep(seconds)
            table.add("idle pool of 4: programs run a second", "", {"this": [calls.programs() / seconds]})
    finally:
        if beside:
            beside.end()


def wakeups(pid):
    n = 0
    for path in pathlib.Path(f"/proc/{pid}/task").glob("*/status"):
        try:
            n += int(re.search(r"^voluntary_ctxt_switches:\t(\d+)", path.read_text(), re.M).group(1))
        except OSError:
            pass  # a thread that has ended
    return n


class Plain:
    """git and tmux by hand, in worktrees of the same repository."""

    def __init__(self, pool):
        self.pool, self.n = pool, 0
        self.tree, self.tmux = f"{pool.work}/plain", ["tmux", "-S", f"{pool.work}/tmux", "-f", "/dev/null"]
        self.git("worktree", "add", "-q", "--detach", self.tree, "HEAD")
        run(*self.tmux, "new-session", "-d", "-s", "first", "sleep 1d", env=pool.env)

    def git(self, *words, tree=None):
        return run("git", "-C", tree or self.pool.repo, *words, env=self.pool.env)

    def diff(self):
        append(f"{self.tree}/d0/d0/file-0")

        def act():
            self.git("add", "-A", "-N", tree=self.tree)
            assert b"\n+a change" in self.git("diff", tree=self.tree)
        took = timed(act)
        self.git("checkout", "-q", "--", ".", tree=self.tree)
        return took

    def commit(self):
        self.n += 1
        append(f"{self.tree}/d0/d0/new-{self.n}")

        def act():
            self.git("add", "-A", tree=self.tree)
            self.git("commit", "-qm", "new", tree=self.tree)
        return timed(act)

    def status(self):
        assert self.git("status", "--porcelain", tree=self.tree) == b""

    def add(self):
        self.n += 1
        self.newest = f"{self.pool.work}/tree-{self.n}"
        return timed(lambda: self.git("worktree", "add", "-q", "-b", f"plain-{self.n}", self.newest, "HEAD"))

    def spawn(self):
        return self.add() + timed(lambda: run(*self.tmux, "new-session", "-d", "-s", f"s{self.n}", "-c", self.newest,
                                              "sleep 1d", env=self.pool.env))

    def recycle(self):
        append(f"{self.newest}/changed")
        return timed(lambda: self.git("worktree", "remove", "--force", self.newest)) + self.add()

    def end(self):
        run(*self.tmux, "kill-server")


def append(path):
    with open(path, "a") as file:
        file.write("a change\n")


def sized(table, n_files):
    """What the size of the repository costs, beside git in a plain worktree."""
    with Measured(f"{table.build}/fs/agentpoolfs",
                  "min_pool_size=2,max_pool_size=64,hard_cap=64,maintenance_interval=1d,spawn_timeout=5m", ["cat"],
                  n_files, idle=2) as pool:
        plain = Plain(pool)
        try:
            work(table, pool, plain, n_files)
            agents(table, pool, plain, n_files)
        finally:
            plain.end()


def work(table, pool, plain, n_files):
    n = table.times(15 if n_files <= 1000 else 9 if n_files <= 10000 else 5)

    def lease(label):
        pool.at(2)
        return timed(lambda: write(f"{pool.mount}/acquire", label.encode()))

    def release(label):
        return timed(lambda: write(f"{pool.mount}/release", label.encode()))

    def acquire():
        label = pool.label()
        took = lease(label)
        release(label)
        return took

    def nothing():
        label = pool.label()
        lease(label)
        return release(label)

    def new_file():
        label = pool.label()
        lease(label)
        append(f"{os.readlink(f'{pool.mount}/leases/{label}/worktree')}/d0/d0/new")
        took = release(label)
        pool.git("-C", pool.repo, "cat-file", "-e", f"agentpool/{label}:d0/d0/new")
        return took

    table.measure(f"acquire, {n_files} files", "ms", n, {"this": acquire})
    table.measure(f"release, nothing changed, {n_files} files", "ms", n, {"this": nothing, "peer": plain.status},
                  "git status")
    table.measure(f"release, one new file, {n_files} files", "ms", n, {"this": new_file, "peer": plain.commit},
                  "git add -A, commit")
    label = pool.label()
    lease(label)
    tree = os.readlink(f"{pool.mount}/leases/{label}/worktree")

    def diff():
        append(f"{tree}/d0/d0/file-0")

        def act():
            assert b"\n+a change" in read(f"{pool.mount}/leases/{label}/diff")
        return timed(act)

    table.measure(f"diff, one changed file, {n_files} files", "ms", n, {"this": diff, "peer": plain.diff},
                  "git add -A -N, diff")
    write(f"{pool.mount}/release", f"{label} discard".encode())
    pool.at(2)


def agents(table, pool, plain, n_files):
    n = table.times(9 if n_files <= 1000 else 5 if n_files <= 10000 else 3)

    def spawn():
        size = pool.stat("total_agents")
        pool.control("scale", str(size + 1))
        pool.at(size + 1)
        return pool.passage(pool.newest(), "spawning")

    def recycle():
        agent, size = pool.newest(), pool.stat("total_agents")
        append(f"{os.readlink(f'{pool.mount}/agents/{agent}/worktree')}/changed")
        generation = int(read(f"{pool.mount}/agents/{agent}/generation"))
        pool.control(f"agents/{agent}/ctl", "recycle")
        pool.wait_for("another generation",
                      lambda: int(read(f"{pool.mount}/agents/{agent}/generation")) > generation)
        pool.at(size)
        return pool.passage(agent, "recycling")

    table.measure(f"spawn, {n_files} files", "ms", n, {"this": spawn, "peer": plain.spawn}, "git worktree, tmux")
    if not hasattr(plain, "newest"):
        plain.add()
    table.measure(f"recycle, {n_files} files", "ms", n, {"this": recycle, "peer": plain.recycle},
                  "git worktree remove, add")


def first_lease(table):
    """From the start of the program, with nothing there yet, to the first lease, beside what git and tmux take for the same."""
    n, runs = 0, table.times(9)
    with Measured(f"{table.build}/fs/agentpoolfs", "", ["cat"], 100) as pool:
        plain = Plain(pool)

        def ours():
            nonlocal n
            n += 1
            mount = f"{pool.work}/pool-{n}"
            os.mkdir(mount)
            began = time.perf_counter()
            words = [f"{table.build}/fs/agentpoolfs", "-f", "-o", f"state_dir={pool.work}/state-{n}", pool.repo, mount, "--", "cat"]
            daemon = subprocess.Popen(words, env=pool.env)
            try:
                while not os.path.ismount(mount):
                    if daemon.poll() is not None or time.perf_counter() > began + DEADLINE:
                        raise RuntimeError("it does not mount")
                    time.sleep(0.0005)
                write(f"{mount}/acquire", b"first-%d" % n)
                took = time.perf_counter() - began
            finally:
                run("fusermount3", "-u", mount)
                daemon.wait(DEADLINE)
            return took

        def floors():
            began = time.perf_counter()
            with floor(table) as least:
                write(f"{least.mount}/take", b"first")
                return time.perf_counter() - began

        try:
            table.measure("start to first lease, 100 files", "ms", runs, {"this": ours, "floor": floors, "peer": plain.spawn},
                          "git worktree, tmux")
        finally:
            plain.end()


def crowd(table, program, words, n_agents):
    """Many agents: what it takes to look at them, while they start and when they are there; their end. Bytes of the daemon."""
    kind, looks = f"{n_agents} agents, {words[0]}", []
    with Measured(f"{table.build}/{program}", f"hard_cap={n_agents},max_pool_size={n_agents},max_spawning=4,"
                  "maintenance_interval=1d,on_release=keep", words) as pool:
        began = time.perf_counter()
        pool.control("scale", str(n_agents))
        while pool.stat("idle_agents") < n_agents:
            looks.append(timed(reading(f"{pool.mount}/status")) * 1e6)
            time.sleep(0.01)
            if time.perf_counter() - began > DEADLINE:
                raise RuntimeError(f"{n_agents} agents do not start: {pool.last_error()}")
        table.add(f"start of {kind}", "ms", {"this": [(time.perf_counter() - began) * 1e3]})
        if looks:
            table.add(f"status, while they start, {kind}", "us", {"this": looks})
        with floor(table, n_agents, len(read(f"{pool.mount}/status"))) as least:
            n = table.times(100)
            table.measure(f"ls, {kind}", "us", n, {"this": lambda: listed(f"{pool.mount}/agents", n_agents),
                                                   "floor": lambda: listed(least.mount, n_agents)})
            table.measure(f"status, {kind}", "us", n, {
                "this": reading(f"{pool.mount}/status"), "floor": reading(f"{least.mount}/value"),
                "peer": reading("/proc/self/stat", n_agents)}, "procfs, a stat for each")
        used = anonymous(pool.daemon.pid)
        began = time.perf_counter()
        run("fusermount3", "-u", pool.mount)
        pool.daemon.wait(DEADLINE)
        table.add(f"end of {kind}", "ms", {"this": [(time.perf_counter() - began) * 1e3]})
    return used


def listed(path, n):
    assert sum(name.startswith("agent-") for name in os.listdir(path)) == n


def anonymous(pid):
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return 1024 * int(re.search(r"Pss_Anon: +(\d+) kB", file.read()).group(1))


def crowds(table, program, words):
    sizes = [10, 30] if table.short else [10, 100, 1000]
    took = {n: crowd(table, program, words, n) for n in sizes}
    few, many = sizes[0], sizes[-1]
    table.add(f"bytes an agent, of the daemon, {words[0]}", "B", {"this": [(took[many] - took[few]) / (many - few)]})


def bytes_of_waiters(table):
    n = 100 if table.short else 1000
    grown = []
    with Measured(f"{table.build}/tests/agentpoolfs-fake", "", ["fake"]) as pool:
        pool.control("acquire", "job")
        before = anonymous(pool.daemon.pid)
        waiters = multiprocessing.Process(target=wait_by_handle, args=(pool.mount, n), daemon=True)
        waiters.start()
        pool.wait_for("waiters", lambda: pool.stat("waiting") == n)
        grown.append((anonymous(pool.daemon.pid) - before) / n)
        waiters.kill()
        waiters.join()
        pool.wait_for("the end of waiters", lambda: pool.stat("waiting") == 0)
    table.add("bytes a waiter, of the daemon", "B", {"this": grown})


def wait_by_handle(mount, n):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for i in range(n):
        os.write(os.open(f"{mount}/acquire", os.O_RDWR), f"waiter-{i} timeout=1h\n".encode())
    signal.pause()


# --- what is asked of them together ---


def promises(table, sizes):
    """Ratios of rows, beside what the project promises of them: (what, value, bound)."""
    largest, smallest = max(sizes), min(sizes)
    found = []
    if table.short:  # too few repetitions, and no large repository
        return found
    for what in ("release, one new file", "diff, one changed file"):
        of_git = table.ratio(f"{what}, {largest} files")
        large, small = (table.median(f"{what}, {n} files") for n in (largest, smallest))
        if of_git is not None:
            found.append((f"{what}, {largest} files, against git", of_git, OF_GIT))
        if large and small:
            found.append((f"{what}, {largest} files against {smallest}", large / small, GROWTH))
    for what, bound in PROMISED_MS:
        ms = table.median(f"{what}, {smallest} files")
        if ms is not None:
            found.append((f"{what}, {smallest} files, ms", ms, bound))
    for text, value, bound in found:
        print(f"{text}: {number(value)}, promised {number(bound)}")
    return [{"what": text, "value": value, "bound": bound} for text, value, bound in found]


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.split(":")[1])
    parser.add_argument("rows", nargs="*", metavar="ROW", help="only groups of rows in whose name one of the words is")
    parser.add_argument("--list", action="store_true", help="the groups of rows")
    parser.add_argument("--short", action="store_true", help="each row is tried: few times, small sizes")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--build", default="build", metavar="DIR")
    options = parser.parse_args()
    options.build = os.path.abspath(options.build)
    os.environ.update(GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_NOSYSTEM="1")
    home = tempfile.mkdtemp(prefix="bench-", dir="/dev/shm")
    tempfile.tempdir = home
    table = Table(options)
    sizes = [100] if table.short else [100, 10000, 80000]
    groups = [
        (machine, (), ["in the machine"]),
        (requests, (), ["stats read", "control write", "lease by", "hand-off"]),
        (programs, (), ["prompt to wait"]),
        (first_lease, (), ["start to first lease"]),
        *((sized, (n,), [f"{what}, {n} files" for what in SIZED]) for n in sizes),
        (crowds, ("tests/agentpoolfs-fake", ["fake"]), ["fake: ls, status, start, end, bytes an agent"]),
        (crowds, ("fs/agentpoolfs", ["cat"]), ["cat: ls, status, start, end, bytes an agent"]),
        (bytes_of_waiters, (), ["bytes a waiter"]),
        (idle_pool, (), ["idle pool"]),
    ]
    if options.list:
        print("\n".join(name for _, _, names in groups for name in names))
        return
    print(heading())
    try:
        for group, words, names in groups:
            if table.wants(names):
                group(table, *words)
        table.end(promises(table, sizes))
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
