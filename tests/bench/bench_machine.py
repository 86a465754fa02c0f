#!/usr/bin/env python3
"""bench_machine.py BUILD: what a lease costs in the machine, counted: instructions of acquire and release, how they grow
with agents, waiters and hosts, allocations, bytes. Prints TAP; figures are kept in BUILD/bench/machine.json. Times are in the table of scripts/bench."""

import json
import subprocess
import sys

from counting import Bench, instructions

# of acquire and release together, with the lock, in a build with -O2; and against those with ten agents
LEASE, GROWTH = 1600, 1.2
# of all steps of a lease, ten agents on each of a thousand hosts, against as many agents on one
HOSTS_GROWTH = 2
SLOT_BYTES = 256
LEASES = 1000


def main():
    build = sys.argv[1]
    program = f"{build}/tests/bench_machine"
    bench = Bench(build, "machine")

    def cost(agents, waiters, hosts=1, functions="counted_*"):
        return instructions([program, str(agents), str(waiters), str(LEASES), str(hosts)], functions) / LEASES

    floor, ten = cost(0, 0), cost(10, 0)
    bench.figure("floor_instructions", floor, f"a lock, a list and a clock alone take {floor:.0f} instructions")
    bench.at_most("instructions of acquire and release, of 10 agents", ten, LEASE)
    for agents, waiters in ((64, 0), (4096, 0), (10, 1000)):
        beside = f", {waiters} waiters" if waiters else ""
        bench.at_most(f"instructions with {agents} agents{beside} against those with 10", cost(agents, waiters) / ten, GROWTH)
    one, many = (cost(10000, 0, hosts, "pair_batch") for hosts in (1, 1000))
    bench.figure("lease_instructions", one, f"all steps of a lease take {one:.0f} instructions with one host of 10000 agents")
    bench.at_most("instructions of all steps with 1000 hosts of 10 agents against those with one host", many / one, HOSTS_GROWTH)
    measured = json.loads(subprocess.run([program], check=True, capture_output=True, text=True).stdout)
    bench.at_most(f"allocations in {measured['leases']} leases", measured["allocations"], 0)
    bench.at_most("bytes of a slot", measured["slot_bytes"], SLOT_BYTES)
    return bench.end()


sys.exit(main())
