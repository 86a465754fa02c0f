#!/usr/bin/env python3
"""bench_reading.py AGENTPOOLFS [SECONDS [FILE...]]: what it costs a lease that others look on.

Eight clients read a file 1,000 times a second together, while another acquires and releases. Windows with and without
readers take turns; a ratio is that of two neighbouring windows, so that a busy machine is busy for both, and the file's
is the median of all. Prints, for each file, the median time of an acquire and release without and with, the ratio, and
how often was read. Where it is slower by 20 % or more, or was not read as often, it goes on for up to four times as long
as was asked: noise adds to a cost. Exits with 1 when it is so then."""

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
N_CLIENTS, RATE, SLOWER, ROUNDS, TRIES = 8, 1000, 1.2, 10, 4


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


class Windows:
    """What was measured so far of one file."""

    def __init__(self):
        self.alone, self.beside, self.ratios, self.n_reads, self.read_for = [], [], [], 0, 0

    def ok(self):
        return self.ratio() < SLOWER and self.rate() > 0.9 * RATE

    def ratio(self):
        return statistics.median(self.ratios)

    def rate(self):
        return self.n_reads / self.read_for

    def __str__(self):
        return (f"{statistics.median(self.alone) * 1e3:6.2f} ms {statistics.median(self.beside) * 1e3:6.2f} ms "
                f"{self.ratio():5.2f} {self.rate():8.0f}/s {len(self.ratios):4d}")


def measure(mount, file, seconds):
    go, n_reads = multiprocessing.Event(), multiprocessing.RawArray("l", N_CLIENTS)
    readers = [multiprocessing.Process(target=reader, args=(f"{mount}/{file}", go, n_reads, i), daemon=True)
               for i in range(N_CLIENTS)]
    for one in readers:
        one.start()
    seen = Windows()
    while len(seen.ratios) < ROUNDS * TRIES:
        alone = pairs(mount, seconds / ROUNDS)
        before, began = sum(n_reads), time.perf_counter()
        go.set()
        beside = pairs(mount, seconds / ROUNDS)
        seen.read_for += time.perf_counter() - began
        seen.n_reads += sum(n_reads) - before
        go.clear()
        seen.alone += alone
        seen.beside += beside
        seen.ratios.append(statistics.median(beside) / statistics.median(alone))
        time.sleep(2 * N_CLIENTS / RATE)  # the last reads end
        if len(seen.ratios) % ROUNDS == 0 and seen.ok():
            break
    for one in readers:
        os.kill(one.pid, signal.SIGKILL)
        one.join()
    return seen


def main():
    program, seconds = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 5
    pool = Pool(program, "min_pool_size=4,max_pool_size=4", ["bash"])
    slow = False
    try:
        pool.wait_for("four agents", lambda: len(os.listdir(f"{pool.mount}/agents")) == 4)
        pairs(pool.mount, 1)
        print("file                      alone    beside ratio      reads windows")
        for file in sys.argv[3:] or FILES:
            seen = measure(pool.mount, file, seconds)
            print(f"{file:22s} {seen}", flush=True)
            slow = slow or not seen.ok()
    finally:
        pool.end()
    sys.exit(slow)


main()
