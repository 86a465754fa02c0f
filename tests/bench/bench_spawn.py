#!/usr/bin/env python3
"""bench_spawn.py AGENTPOOLFS [--files N,N,...] [--backend NAME]: what a worktree costs.

Counts, for repositories of so many files, the system calls, programs and bytes on disk of spawning an agent and of
recycling it, beside what `git worktree add` takes. What the project promises of these decides. Times are in the table
of scripts/bench.

Everything lies in a file system of its own (ext4 in a file in memory), mounted for the run: needs root. Prints TAP;
figures are kept in BUILD/bench/spawn.json."""

import argparse
import glob
import os
import shutil
import subprocess
import sys
import tempfile
import time

from counting import DEADLINE, Bench, SystemCalls, calls_of

# Of one spawn with an overlay. The agent's own program is tmux's to start.
CALLS_OF_GIT = {100: 0.3, 10000: 0.015, 80000: 0.002}  # system calls against those of git, by files in the repository
GROWTH = 1.5  # system calls in the largest repository against those in the smallest
DISK = 1 << 18  # bytes beside a copy of git's index


def run(*words, **kwargs):
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **kwargs)


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

    def await_true(self, holds, what):
        deadline = time.monotonic() + DEADLINE
        while not holds():
            if self.daemon.poll() is not None or time.monotonic() > deadline:
                sys.exit(what)
            time.sleep(0.001)

    def await_value(self, name, value):
        def has_value():
            try:
                return self.read(name) == value
            except OSError:
                return False

        self.await_true(has_value, f"{name} is not {value}")

    def staged(self):
        """The git directory that the next spawn takes, when it is complete."""
        return glob.glob(f"{self.state}/git/.staged-*/admin/packed-refs")

    def acted(self, act):
        """Acts, and waits until the pool has staged again what it took for it: this belongs to the act."""
        taken = self.staged()
        act()
        self.await_true(lambda: self.staged() and self.staged() != taken, "nothing is staged")

    def newest(self):
        return max(os.listdir(f"{self.mount}/agents"), key=lambda name: int(name.split("-")[1]))

    def spawn(self):
        n = int(self.read("stats/total_agents"))
        self.write("scale", str(n + 1))
        self.await_value("stats/idle_agents", str(n + 1))

    def recycle(self):
        agent = self.newest()
        n = self.read("stats/idle_agents")
        with open(f"{self.read_link(agent)}/changed", "w") as file:
            file.write("a change\n")
        generation = int(self.read(f"agents/{agent}/generation"))
        self.write(f"agents/{agent}/ctl", "recycle")
        self.await_value(f"agents/{agent}/generation", str(generation + 1))
        self.await_value("stats/idle_agents", n)

    def read_link(self, agent):
        return os.readlink(f"{self.mount}/agents/{agent}/worktree")

    def end(self):
        subprocess.run(["fusermount3", "-u", self.mount], check=False)
        self.daemon.wait(timeout=DEADLINE)
        os.rmdir(self.mount)


def used(disk):
    run("sync", "-f", disk)
    found = os.statvfs(disk)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def count(bench, pool, repo, n_files, disk):
    """System calls of a spawn."""
    pool.acted(pool.spawn)  # the first one has made the template and what the next find
    before = used(disk)
    with SystemCalls(pool.daemon.pid) as spawn:
        pool.acted(pool.spawn)
    grown = used(disk) - before
    with SystemCalls(pool.daemon.pid) as recycle:
        pool.acted(pool.recycle)
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
    try:
        calls = count(bench, pool, repo, n_files, disk)
    finally:
        pool.end()
    shutil.rmtree(work)
    return calls


def main():
    parser = argparse.ArgumentParser(description=__doc__.split(":")[1])
    parser.add_argument("program")
    parser.add_argument("--files", default="100,10000,80000")
    parser.add_argument("--backend", default="auto")
    options = parser.parse_args()
    os.environ.update(GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_NOSYSTEM="1")
    for name in ("TMUX", "TMUX_PANE"):
        os.environ.pop(name, None)
    bench = Bench(os.path.dirname(os.path.dirname(os.path.abspath(options.program))), "spawn")
    sizes = [int(n) for n in options.files.split(",")]
    home = tempfile.mkdtemp(prefix="bench-spawn-", dir="/dev/shm")
    os.environ["XDG_STATE_HOME"] = home
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
