#!/usr/bin/env python3
"""bench_crowd.py AGENTPOOLFS [--agents N] [--reads N] [--options OPT,...] [--json FILE] [-- PROGRAM...]: many agents.

Starts a pool of N agents (150 of bash, four at once) and reads status and status.json in turn while they are being made,
again when all are ready; then unmounts, and says how long the pool took to end. Prints the worst, the median and the
mean of each in milliseconds, what the daemon used of a CPU for it, and writes the same as JSON. A measurement, no gate:
nothing here makes it fail but a pool that does not come or go."""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from pool import Pool

FILES = ["status", "status.json"]
DEADLINE = 600


def read(path):
    began = time.perf_counter()
    with open(path, "rb", buffering=0) as file:
        while file.read(1 << 17):
            pass
    return (time.perf_counter() - began) * 1e3


def cpu_of(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def summary(times):
    return {"reads": len(times), "worst_ms": round(max(times), 1), "median_ms": round(statistics.median(times), 2),
            "mean_ms": round(statistics.mean(times), 2)}


def look(pool, n, pause, until=lambda: False):
    """Reads each file n times, or until it is so; what was seen, by file, and the share of a CPU that the daemon used."""
    seen = {name: [] for name in FILES}
    began, used = time.perf_counter(), cpu_of(pool.daemon.pid)
    for _ in range(n):
        if until():
            break
        for name in FILES:
            seen[name].append(read(f"{pool.mount}/{name}"))
        time.sleep(pause)
    share = (cpu_of(pool.daemon.pid) - used) / (time.perf_counter() - began)
    return {**{name: summary(times) for name, times in seen.items() if times}, "cpu": round(share, 2)}


def main():
    words = sys.argv[1:]
    program = words[words.index("--") + 1:] if "--" in words else ["bash"]
    parser = argparse.ArgumentParser()
    parser.add_argument("agentpoolfs")
    parser.add_argument("--agents", type=int, default=150)
    parser.add_argument("--reads", type=int, default=50)
    parser.add_argument("--options", default="max_spawning=4")
    parser.add_argument("--json")
    args = parser.parse_args(words[:words.index("--")] if "--" in words else words)
    options = f"hard_cap={args.agents + 1},max_pool_size={args.agents},{args.options}"
    pool = Pool(args.agentpoolfs, options, program)
    result = {"agents": args.agents, "program": program, "options": args.options, "cpus": os.cpu_count(),
              "load_before": os.getloadavg()[0]}
    try:
        pool.control("release", "job")

        def n_idle():
            with open(f"{pool.mount}/stats/idle_agents") as file:
                return int(file.read())

        began = time.perf_counter()
        pool.control("scale", str(args.agents))
        result["starting"] = look(pool, 100 * args.reads, 0.02, lambda: n_idle() >= args.agents)
        pool.wait_for("the agents", lambda: n_idle() >= args.agents, DEADLINE)
        result["starting"]["seconds"] = round(time.perf_counter() - began, 1)

        def all_ready():
            with open(f"{pool.mount}/status.json") as file:
                return all(agent["activity"] == "ready" for agent in json.load(file)["agents"])

        pool.wait_for("ready programs", all_ready, DEADLINE)
        result["started"] = look(pool, args.reads, 0.1)
        began, used = time.perf_counter(), cpu_of(pool.daemon.pid)
        subprocess.run(["fusermount3", "-u", pool.mount], check=True)
        while pool.daemon.poll() is None:
            try:
                used_last = cpu_of(pool.daemon.pid)
            except OSError:
                break
            if time.perf_counter() - began > DEADLINE:
                raise SystemExit("the pool does not end")
            time.sleep(0.01)
        result["ending"] = {"seconds": round(time.perf_counter() - began, 2), "cpu_seconds": round(used_last - used, 2)}
    finally:
        pool.end()
    for part in ("starting", "started", "ending"):
        for name, value in result[part].items():
            print(f"{part:9s} {name:12s} {value}")
    if args.json:
        with open(args.json, "w") as file:
            json.dump(result, file, indent=1)
            file.write("\n")


main()
