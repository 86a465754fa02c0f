#!/usr/bin/env python3
"""bench_reading.py AGENTPOOLFS [FILE...]: what it costs the daemon, and a lease, that others look on.

Counts what one reading of a file takes: requests of the kernel, programs of the daemon, and its instructions, which grow
with the agents at most as they do; those of a lease do not grow. Eight clients then read 1,000 times a second together
while another acquires and releases, in windows with and without readers that take turns: the median of the ratios of
neighbours is printed and decides nothing. Prints TAP; figures and times are kept in BUILD/bench/reading.json."""

import multiprocessing
import os
import pathlib
import resource
import shutil
import signal
import statistics
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from counting import Bench, SystemCalls, counted_daemon, instructions_meanwhile
from pool import Pool

FILES = ["status.json", "status.html", "metrics", "events"]
OF_THE_WHOLE = ("status", "status.json", "metrics.prom")  # their text is of every agent
N_CLIENTS, RATE, WINDOWS, WINDOW = 8, 1000, 6, 0.2
READINGS, COUNTED = 200, 7
REQUESTS = 8  # of the kernel for one reading
PROGRAMS = 0.25  # the pool may have something of its own to do meanwhile
FEW, MANY, N_WAITERS = 8, 64, 2000
GROWTH = 1.3  # of what a reading takes for each agent, with MANY against with FEW
LEASE_GROWTH = 2  # of what a lease takes, with MANY against with FEW, and beside waiters against alone


def write(path, text):
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, text)
    os.close(fd)


def read(path):
    """To its end; of events, which grow, the last 16 KiB as tail does."""
    piece = bytearray(1 << 17)
    fd = os.open(path, os.O_RDONLY)
    if path.endswith("/events"):
        os.lseek(fd, max(0, os.fstat(fd).st_size - 16384), os.SEEK_SET)
    while os.readv(fd, [piece]):
        pass
    os.close(fd)


def lease(mount):
    write(f"{mount}/acquire", b"pair timeout=60\n")
    write(f"{mount}/release", b"pair\n")


def lease_times(mount, seconds):
    took, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        lease(mount)
        took.append(time.perf_counter() - began)
    return took


def reader(path, go, n_reads, i):
    """Reads at its part of the rate while `go` is set."""
    pause, due = N_CLIENTS / RATE, time.perf_counter()
    while True:
        if not go.is_set():
            go.wait()
            due = time.perf_counter()
        read(path)
        n_reads[i] += 1
        due = max(due + pause, time.perf_counter() - 10 * pause)
        time.sleep(max(0, due - time.perf_counter()))


def measure(bench, mount, file):
    """Times of leases, alone and beside readers."""
    go, n_reads = multiprocessing.Event(), multiprocessing.RawArray("l", N_CLIENTS)
    readers = [multiprocessing.Process(target=reader, args=(f"{mount}/{file}", go, n_reads, i), daemon=True)
               for i in range(N_CLIENTS)]
    for one in readers:
        one.start()
    alone, beside, ratios, read_for = [], [], [], 0
    for _ in range(WINDOWS):
        first = lease_times(mount, WINDOW)
        began = time.perf_counter()
        go.set()
        second = lease_times(mount, WINDOW)
        read_for += time.perf_counter() - began
        go.clear()
        alone, beside = alone + first, beside + second
        ratios.append(statistics.median(second) / statistics.median(first))
        time.sleep(2 * N_CLIENTS / RATE)  # the last reads end
    for one in readers:
        os.kill(one.pid, signal.SIGKILL)
        one.join()
    figures = {"alone_ms": statistics.median(alone) * 1e3, "beside_ms": statistics.median(beside) * 1e3,
               "ratio": statistics.median(ratios), "reads_per_second": sum(n_reads) / read_for}
    bench.figure(f"a lease beside readers of {file}", figures,
                 "a lease takes {alone_ms:.2f} ms, {beside_ms:.2f} ms beside {reads_per_second:.0f} readings a second of "
                 .format(**figures) + f"{file}: {figures['ratio']:.2f} times as long")


def count_calls(bench, pool, file):
    pool.wait_for("the end of cleaning", lambda: pool.stat("idle_agents") == 3)
    read(f"{pool.mount}/{file}")
    with SystemCalls(pool.daemon.pid) as calls:
        for _ in range(READINGS):
            read(f"{pool.mount}/{file}")
    answers = (calls.counts.get("writev", 0) + calls.counts.get("splice", 0)) / READINGS
    bench.figure(f"system calls of a reading of {file}", {call: n / READINGS for call, n in calls.counts.items()},
                 f"{file}: {sum(calls.counts.values()) / READINGS:.1f} system calls a reading")
    bench.at_most(f"{file}: programs run for a reading", calls.programs() / READINGS, PROGRAMS)
    bench.at_most(f"{file}: answers to the kernel for a reading", answers, REQUESTS)


def wait_for_agent(pool, n):
    """So many who wait for the agent that is leased, in a process of their own: a program that is run closes
    what it has inherited, and the daemon is told of each."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    line = f"agent={os.path.basename(os.readlink(pool.job))} timeout=1h\n".encode()
    for _ in range(n):
        os.write(os.open(f"{pool.mount}/acquire", os.O_RDWR), line)
    signal.pause()


def cost_of_readings(build, n_agents):
    """Instructions of the daemon for one reading of each file, and for a lease, with so many agents."""
    directory = tempfile.mkdtemp(prefix="bench-reading-")
    daemon = counted_daemon(f"{build}/tests/agentpoolfs-fake", directory)
    pool = Pool(daemon, f"hard_cap={n_agents},max_pool_size={n_agents},min_pool_size={n_agents},"
                "max_spawning=4,maintenance_interval=1d,spawn_backend=git", ["fake", "spawn=1ms"], deadline=300)
    try:
        pool.wait_for("the agents", lambda: len(os.listdir(f"{pool.mount}/agents")) == n_agents)
        pool.wait_for("the starts", lambda: pool.stat("idle_agents") == n_agents - 1)

        def cost(act):  # the least: now and then one finds something to look at
            return min(instructions_meanwhile(pool.daemon.pid, directory, act) for _ in range(COUNTED))

        costs = {file: cost(lambda file=file: read(f"{pool.mount}/{file}")) for file in OF_THE_WHOLE}
        costs["a lease"] = cost(lambda: lease(pool.mount))
        if n_agents != FEW:
            return costs
        waiters = multiprocessing.Process(target=wait_for_agent, args=(pool, N_WAITERS), daemon=True)
        waiters.start()
        pool.wait_for("waiters", lambda: pool.stat("waiting") == N_WAITERS)
        costs["a lease beside waiters"] = cost(lambda: lease(pool.mount))
        waiters.kill()
        waiters.join()
    finally:
        pool.end()
        shutil.rmtree(directory)
    return costs


def main():
    program = os.path.abspath(sys.argv[1])
    build = os.path.dirname(os.path.dirname(program))
    bench = Bench(build, "reading")
    few, many = cost_of_readings(build, FEW), cost_of_readings(build, MANY)
    for what in OF_THE_WHOLE:
        bench.at_most(f"{what}: instructions a reading for each of {MANY} agents against those for each of {FEW}",
                      many[what] / MANY / (few[what] / FEW), GROWTH)
    bench.at_most(f"a lease: instructions of the daemon with {MANY} agents against those with {FEW}",
                  many["a lease"] / few["a lease"], LEASE_GROWTH)
    bench.at_most(f"a lease: instructions of the daemon beside {N_WAITERS} waiters for another agent against those alone",
                  few["a lease beside waiters"] / few["a lease"], LEASE_GROWTH)
    bench.figure("instructions", {FEW: few, MANY: many}, f"instructions with {FEW} agents: {few}, with {MANY}: {many}")
    pool = Pool(program, "min_pool_size=4,max_pool_size=4", ["bash"])
    try:
        pool.wait_for("four agents", lambda: pool.stat("idle_agents") == 3)
        lease_times(pool.mount, 0.5)
        for file in sys.argv[2:] or FILES:
            count_calls(bench, pool, file)
            measure(bench, pool.mount, file)
    finally:
        pool.end()
    return bench.end()


sys.exit(main())
