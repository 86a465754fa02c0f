#!/usr/bin/env python3
"""bench_spawn.py AGENTPOOLFS [--files N,N,...] [--backend NAME] [--runs N]: what a worktree costs.

Counts, for repositories of so many files, the system calls, programs and bytes on disk of spawning an agent and of
recycling it, beside what the git and tmux programs take for the same: `git worktree add` + `tmux new-session`, and `git
worktree remove` + `git worktree add`. What the project promises of these decides. Times, from the decision until it can
be leased, are the least of runs that take turns; they are printed and decide nothing.

Everything lies in a file system of its own (ext4 in a file in memory), mounted for the run: needs root. Prints TAP;
figures and times are kept in BUILD/bench/spawn.json."""

import argparse
import datetime
import os
import shutil
import subprocess
import sys
import tempfile
import time

from counting import DEADLINE, Bench, SystemCalls, calls_of

# Of one spawn with an overlay. The agent's own program is tmux's to start.
CALLS_OF_GIT = {100: 0.2, 10000: 0.01, 80000: 0.002}  # system calls against those of git, by files in the repository
GROWTH = 1.5  # system calls in the largest repository against those in the smallest
DISK = 1 << 18  # bytes beside a copy of git's index


def run(*words, **kwargs):
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **kwargs)


def timed(*words, **kwargs):
    start = time.monotonic()
    run(*words, **kwargs)
    return (time.monotonic() - start) * 1000


def make_repo(path, n_files):
    """About 10 KB a file, 2.5 KB in a large repository; 25 files a directory."""
    size = 2500 if n_files > 50000 else 10000
    os.mkdir(path)
    for i in range(n_files):
        directory = f"{path}/d{i // 2500}/d{i // 25}"
        if i % 25 == 0:
            os.makedirs(directory, exist_ok=True)
        with open(f"{directory}/file-{i}", "w") as file:
            file.write(f"line {i} of a file that is like any other\n" * (size // 45))
    run("git", "init", "-q", "-b", "main", path)
    for setting in ("user.name=bench", "user.email=bench@example.org", "gc.auto=0"):
        run("git", "-C", path, "config", *setting.split("="))
    run("git", "-C", path, "add", ".")
    run("git", "-C", path, "commit", "-qm", "first")
    run("git", "-C", path, "repack", "-adq")


class Pool:
    def __init__(self, program, backend, repo, work):
        self.mount, self.state = f"{work}/pool", f"{work}/state"
        os.mkdir(self.mount)
        self.daemon = subprocess.Popen(
            [program, "-f", "-o", f"state_dir={self.state},min_pool_size=1,hard_cap=64,max_pool_size=64,"
             f"spawn_backend={backend},maintenance_interval=1d,spawn_timeout=5m",
             repo, self.mount, "--", "sleep", "1d"])
        self.await_value("stats/idle_agents", "1")

    def read(self, name):
        with open(f"{self.mount}/{name}") as file:
            return file.read().strip()

    def write(self, name, text):
        with open(f"{self.mount}/{name}", "w") as file:
            file.write(text + "\n")

    def await_value(self, name, value):
        deadline = time.monotonic() + DEADLINE
        while True:
            try:
                if self.read(name) == value:
                    return
            except OSError:
                pass
            if self.daemon.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{name} is not {value}")
            time.sleep(0.001)

    def newest(self):
        return max(os.listdir(f"{self.mount}/agents"), key=lambda name: int(name.split("-")[1]))

    def last_change(self, agent, state, leads_to):
        """Milliseconds of the agent's last passage through a state, by its own record."""
        began = None
        for line in self.read(f"agents/{agent}/transitions").split("\n"):
            when, old, new, _ = line.split(" ", 3)
            at = datetime.datetime.fromisoformat(when.replace("Z", "+00:00")).timestamp() * 1000
            if new == state:
                began = at
            elif old == state and new == leads_to:
                last = at - began
        return last

    def spawn(self):
        n = int(self.read("stats/total_agents"))
        self.write("scale", str(n + 1))
        self.await_value("stats/idle_agents", str(n + 1))
        return self.last_change(self.newest(), "spawning", "idle")

    def recycle(self):
        agent = self.newest()
        n = self.read("stats/idle_agents")
        with open(f"{self.read_link(agent)}/changed", "w") as file:
            file.write("a change\n")
        generation = int(self.read(f"agents/{agent}/generation"))
        self.write(f"agents/{agent}/ctl", "recycle")
        self.await_value(f"agents/{agent}/generation", str(generation + 1))
        self.await_value("stats/idle_agents", n)
        return self.last_change(agent, "recycling", "idle")

    def diff(self):
        """Milliseconds of the second reading of diff: the first one fills the kernel's caches."""
        self.write("acquire", "bench")
        tree = os.readlink(f"{self.mount}/leases/bench/worktree")
        with open(f"{tree}/d0/d0/file-0", "a") as file:
            file.write("a change\n")
        self.read("leases/bench/diff")
        start = time.monotonic()
        self.read("leases/bench/diff")
        took = (time.monotonic() - start) * 1000
        self.write("release", "bench discard")
        return took

    def read_link(self, agent):
        return os.readlink(f"{self.mount}/agents/{agent}/worktree")

    def end(self):
        subprocess.run(["fusermount3", "-u", self.mount], check=False)
        self.daemon.wait(timeout=DEADLINE)
        os.rmdir(self.mount)


class Programs:
    """The same by git and tmux."""

    def __init__(self, repo, work):
        self.repo, self.work, self.n = repo, work, 0
        self.socket = f"{work}/tmux"
        run("tmux", "-S", self.socket, "-f", "/dev/null", "new-session", "-d", "-s", "first", "sleep 1d")

    def add(self):
        self.n += 1
        return timed("git", "-C", self.repo, "worktree", "add", "-q", "-b", f"bench-{self.n}",
                     f"{self.work}/tree-{self.n}", "HEAD")

    def spawn(self):
        return self.add() + timed("tmux", "-S", self.socket, "new-session", "-d", "-s", f"s{self.n}",
                                  "-c", f"{self.work}/tree-{self.n}", "sleep 1d")

    def recycle(self):
        tree = f"{self.work}/tree-{self.n}"
        with open(f"{tree}/changed", "w") as file:
            file.write("a change\n")
        return timed("git", "-C", self.repo, "worktree", "remove", "--force", tree) + self.add()

    def end(self):
        subprocess.run(["tmux", "-S", self.socket, "kill-server"], check=False)


def n_runs(runs, n_files):
    """What is short is disturbed more, and costs less to do again."""
    return 2 * runs if n_files < 1000 else runs if n_files < 50000 else max(2, runs // 3)


def used(disk):
    run("sync", "-f", disk)
    found = os.statvfs(disk)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def count(bench, pool, repo, n_files, disk):
    """System calls of a spawn."""
    pool.spawn()  # the first one has made the template and what the next find
    before = used(disk)
    with SystemCalls(pool.daemon.pid) as spawn:
        pool.spawn()
    grown = used(disk) - before
    with SystemCalls(pool.daemon.pid) as recycle:
        pool.recycle()
    tree = f"{repo}-counted"
    git = calls_of("git", "-C", repo, "worktree", "add", "-q", "-b", "counted", tree, "HEAD")
    run("git", "-C", repo, "worktree", "remove", "--force", tree)
    where = f"{n_files} files"
    for what, calls in (("spawn", spawn), ("recycling", recycle)):
        bench.figure(f"{what}, {where}", calls.counts, f"{what}, {where}: {calls.total()} system calls, git {git}; "
                     f"{calls.programs()} programs run")
    if pool.read("stats/spawn_backend") == "overlay":
        bench.at_most(f"{where}: programs run for a spawn", spawn.programs(), 0)
        bench.at_most(f"{where}: programs run for a recycling", recycle.programs(), 0)
        bench.at_most(f"{where}: system calls of a spawn against those of git", spawn.total() / git, CALLS_OF_GIT[n_files])
        index = os.path.getsize(f"{repo}/.git/index")
        bench.at_most(f"{where}: bytes on disk of a spawn beside an index of {index}", grown - index, DISK)
    return spawn.total()


def measure(bench, options, n_files, disk):
    work = f"{disk}/{n_files}"
    os.mkdir(work)
    repo = f"{work}/repo"
    make_repo(repo, n_files)
    pool = Pool(options.program, options.backend, repo, work)
    programs = Programs(repo, work)
    took = {"ours": {"spawn": [], "recycle": []}, "theirs": {"spawn": [], "recycle": []}}
    try:
        backend = pool.read("stats/spawn_backend")
        calls = count(bench, pool, repo, n_files, disk)
        for _ in range(n_runs(options.runs, n_files)):
            for who, actor in (("ours", pool), ("theirs", programs)):
                for what in ("spawn", "recycle"):
                    run("sync", "-f", disk)  # what one of them wrote is not written out at the other's cost
                    took[who][what].append(getattr(actor, what)())
        diff = pool.diff()
    finally:
        programs.end()
        pool.end()
    where = f"{n_files} files, {backend}"
    bench.figure(f"{where}: diff, ms", diff, f"{where}: diff {diff:.1f} ms")
    for what in ("spawn", "recycle"):
        ours, theirs = (min(took[who][what]) for who in ("ours", "theirs"))
        bench.figure(f"{where}: {what}", {"ms": ours, "git_and_tmux_ms": theirs, "times_faster": theirs / ours},
                     f"{where}: {what} {ours:.1f} ms, git and tmux {theirs:.1f} ms, {theirs / ours:.1f} times faster")
    shutil.rmtree(work)
    return calls


def main():
    parser = argparse.ArgumentParser(description=__doc__.split(":")[1])
    parser.add_argument("program")
    parser.add_argument("--files", default="100,10000,80000")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    os.environ.update(GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_NOSYSTEM="1")
    for name in ("TMUX", "TMUX_PANE"):
        os.environ.pop(name, None)
    bench = Bench(os.path.dirname(os.path.dirname(os.path.abspath(options.program))), "spawn")
    sizes = [int(n) for n in options.files.split(",")]
    home = tempfile.mkdtemp(prefix="bench-spawn-", dir="/dev/shm")
    disk = f"{home}/disk"
    calls = {}
    try:
        os.mkdir(disk)
        run("truncate", "-s", "12G" if max(sizes) > 50000 else "4G", f"{home}/image")
        run("mkfs.ext4", "-q", "-F", "-i", "4096", f"{home}/image")
        run("mount", "-o", "loop", f"{home}/image", disk)
        for n in sizes:
            calls[n] = measure(bench, options, n, disk)
    finally:
        subprocess.run(["umount", disk], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(home, ignore_errors=True)
    if len(sizes) > 1 and options.backend in ("auto", "overlay"):
        bench.at_most(f"system calls of a spawn among {max(sizes)} files against {min(sizes)}",
                      calls[max(sizes)] / calls[min(sizes)], GROWTH)
    sys.exit(bench.end())


if __name__ == "__main__":
    main()
