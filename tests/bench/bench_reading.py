#!/usr/bin/env python3
"""bench_reading.py AGENTPOOLFS [SECONDS [FILE...]]: what it costs a lease that others look on.

Eight clients read a file 1,000 times a second together, while another acquires and releases; windows with and without
readers take turns, so that a busy machine is busy for both. Prints, for each file, the median time of an acquire and
release without and with; exits with 1 when one is slower by 20 % or more, or the readers did not come to their rate, in
each of three tries: noise adds to a cost."""

import multiprocessing
import os
import pathlib
import signal
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from pool import Pool

FILES = ["status", "status.json", "status.html", "metrics", "metrics.prom", "events", "stats/utilization",
         "agents/agent-1/state"]
N_CLIENTS, RATE, SLOWER, ROUNDS, TRIES = 8, 1000, 1.2, 10, 3


def write(path, text):
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, text)
    os.close(fd)


def pairs(mount, seconds):
    took, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        write(f"{mount}/acquire", b"pair timeout=60\n")
        write(f"{mount}/release", b"pair\n")
        took.append(time.perf_counter() - began)
    return took


def reader(path, go, n_reads, i):
    """Reads it to its end, at its part of the rate, while `go` is set; of events, which grow, the last 16 KiB as tail
    does."""
    pause, due, piece = N_CLIENTS / RATE, time.perf_counter(), bytearray(1 << 17)
    while True:
        if not go.is_set():
            go.wait()
            due = time.perf_counter()
        fd = os.open(path, os.O_RDONLY)
        if path.endswith("/events"):
            os.lseek(fd, max(0, os.fstat(fd).st_size - 16384), os.SEEK_SET)
        while os.readv(fd, [piece]):
            pass
        os.close(fd)
        n_reads[i] += 1
        due = max(due + pause, time.perf_counter() - 10 * pause)
        time.sleep(max(0, due - time.perf_counter()))


def measure(mount, file, seconds):
    go, n_reads = multiprocessing.Event(), multiprocessing.RawArray("l", N_CLIENTS)
    readers = [multiprocessing.Process(target=reader, args=(f"{mount}/{file}", go, n_reads, i), daemon=True)
               for i in range(N_CLIENTS)]
    for one in readers:
        one.start()
    alone, beside, read_for = [], [], 0
    for _ in range(ROUNDS):
        alone += pairs(mount, seconds / ROUNDS)
        go.set()
        began = time.perf_counter()
        beside += pairs(mount, seconds / ROUNDS)
        read_for += time.perf_counter() - began
        go.clear()
        time.sleep(2 * N_CLIENTS / RATE)  # the last reads end
    for one in readers:
        os.kill(one.pid, signal.SIGKILL)
        one.join()
    return statistics.median(alone) * 1000, statistics.median(beside) * 1000, sum(n_reads) / read_for


def main():
    program, seconds = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 5
    pool = Pool(program, "min_pool_size=4,max_pool_size=4", ["bash"])
    slow = False
    try:
        pool.wait_for("four agents", lambda: len(os.listdir(f"{pool.mount}/agents")) == 4)
        pairs(pool.mount, 1)
        print("file                      alone    beside ratio      reads")
        for file in sys.argv[3:] or FILES:
            ok = False
            for _ in range(TRIES):
                alone, beside, rate = measure(pool.mount, file, seconds)
                ok = ok or (beside < SLOWER * alone and rate > 0.9 * RATE)
                print(f"{file:22s} {alone:6.2f} ms {beside:6.2f} ms {beside / alone:5.2f} {rate:8.0f}/s", flush=True)
                if ok:
                    break
            slow = slow or not ok
    finally:
        pool.end()
    sys.exit(slow)


main()
