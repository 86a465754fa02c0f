#!/usr/bin/env python3
"""circles.py BUILD: which files of the house need one another, round and round. Prints TAP.

A file needs another if it names a function or an object that the other defines, as the linker sees it; what is called
through a table or a callback is no need. No circle goes through files of two wings, and none inside a wing has more
files than LARGEST says."""

import glob
import os
import subprocess
import sys

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
LARGEST = 4  # files in a circle inside a wing
APART = {"backend_fake.c", "agentpool_shim.c"}  # the other side of a choice of the link, and another program


def objects(build):
    """Path of an object file -> the source file that it is of, from the top."""
    ret = {}
    for path in glob.glob(f"{build}/core/**/*.p/*.c.o", recursive=True) + glob.glob(f"{build}/fs/*.p/*.c.o"):
        wing = os.path.relpath(os.path.dirname(os.path.dirname(path)), build)
        name = os.path.basename(path)[:-2]
        if name not in APART and not name.startswith(".."):
            ret[path] = f"{wing}/{name}"
    return ret


def sources():
    return {path for wing in ("core/*", "fs") for path in glob.glob(f"{wing}/*.c", root_dir=TOP) if os.path.basename(path) not in APART}


def symbols(path):
    """What an object file defines for others, and what it needs of them."""
    defined, needed = set(), set()
    for line in subprocess.run(["nm", "-g", path], check=True, capture_output=True, text=True).stdout.splitlines():
        kind, name = line.split()[-2:]
        (needed if kind == "U" else defined).add(name)
    return defined, needed


def circles(needs):
    """The sets of files that reach one another (Tarjan's algorithm)."""
    number, lowest, stack, found = {}, {}, [], []

    def visit(file):
        number[file] = lowest[file] = len(number)
        stack.append(file)
        for other in needs[file]:
            if other not in number:
                visit(other)
            if other in stack:
                lowest[file] = min(lowest[file], lowest[other])
        if lowest[file] == number[file]:
            at = stack.index(file)
            found.append(sorted(stack[at:]))
            del stack[at:]

    for file in sorted(needs):
        if file not in number:
            visit(file)
    return [files for files in found if len(files) > 1]


def main():
    of = objects(sys.argv[1])
    unseen = sources() - set(of.values())
    if unseen:
        sys.exit(f"{sys.argv[1]} has no object files of {' '.join(sorted(unseen))}")
    table = {of[path]: symbols(path) for path in of}
    definer = {name: file for file, (defined, _) in table.items() for name in defined}
    needs = {file: sorted({definer[name] for name in needed if name in definer} - {file}) for file, (_, needed) in table.items()}
    found = circles(needs)
    wings = sorted({os.path.dirname(file) for file in needs})
    across = [files for files in found if len({os.path.dirname(file) for file in files}) > 1]
    print(f"1..{len(wings) + 1}")
    print(f"{'not ok' if across else 'ok'} 1 - no circle goes through two wings")
    for files in across:
        print(f"# {' '.join(files)}")
    failed = bool(across)
    for n, wing in enumerate(wings, 2):
        inside = [files for files in found if {os.path.dirname(file) for file in files} == {wing}]
        largest = max(map(len, inside), default=0)
        good = largest <= LARGEST
        print(f"{'ok' if good else 'not ok'} {n} - {wing}: the largest circle has {largest} files, at most {LARGEST}")
        failed |= not good
        for files in inside:
            print(f"# {' '.join(os.path.basename(file) for file in files)}")
    sys.exit(failed)


main()
