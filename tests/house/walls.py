#!/usr/bin/env python3
"""walls.py BUILD: which wing may include which headers, as the build holds it. Prints TAP.

Each header of the house is looked for in the include directories that one source file of each wing is compiled with: it is
there if the wing's row allows it, and else it is not. What is allowed is included by the compiler, all at once; and three that
are not are tried, which must not compile."""

import json
import os
import shlex
import subprocess
import sys

build = os.path.abspath(sys.argv[1])
top = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
WINGS = {  # directory: a source file there, and whose headers it may include
    "core/base": ("text.c", ["core/base"]),
    "core/machine": ("machine.c", ["core/machine", "core/base"]),
    "core/host": ("cgroup.c", ["core/host", "core/base"]),
    "core/session": ("profile.c", ["core/session", "core/host", "core/base"]),
    "core/work": ("save.c", ["core/work", "core/base"]),
    "core/record": ("store.c", ["core/record", "core/base"]),
    "core/pool": ("pool.c", ["core/pool", "core", "core/machine", "core/host", "core/session", "core/work", "core/record", "core/base"]),
    "fs": ("ops.c", ["fs", "core", "core/base"]),
}

FACE = "core"  # headers alone
FORBIDDEN = {"core/session": "machine.h", "core/host": "session.h", "fs": "pool_internal.h"}


def headers(wing):
    return sorted(name for name in os.listdir(os.path.join(top, wing)) if name.endswith(".h"))


def arguments(commands, source):
    """The include directories that a source file is compiled with, where it is compiled."""
    for command in commands:
        if os.path.normpath(os.path.join(command["directory"], command["file"])) == os.path.join(top, source):
            words = shlex.split(command["command"])
            return command["directory"], [word for word in words if word.startswith("-I")]
    sys.exit(f"{source} is not in the build")


def found(directory, includes, header):
    return any(os.path.isfile(os.path.join(directory, word[2:], header)) for word in includes)


def compiles(directory, includes, names):
    """Whether these are found by their names, with all that they include themselves."""
    command = ["gcc", "-D_GNU_SOURCE", "-D_FILE_OFFSET_BITS=64", "-DFUSE_USE_VERSION=314", "-E", "-x", "c", *includes, "-"]
    text = "".join(f'#include "{name}"\n' for name in names)
    return subprocess.run(command, input=text, text=True, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def main():
    with open(os.path.join(build, "compile_commands.json")) as file:
        commands = json.load(file)
    failed = 0
    print(f"1..{len(WINGS)}")
    for number, (wing, (source, allowed)) in enumerate(WINGS.items(), 1):
        directory, includes = arguments(commands, f"{wing}/{source}")
        wrong = []
        for other in [*WINGS, FACE]:
            for header in headers(other):
                may = other in allowed
                if found(directory, includes, header) != may:
                    wrong.append(f"{other}/{header}: {'not found' if may else 'found'}")
        if not compiles(directory, includes, [header for other in allowed for header in headers(other)]):
            wrong.append("what is allowed does not compile")
        if wing in FORBIDDEN and compiles(directory, includes, [FORBIDDEN[wing]]):
            wrong.append(f"{FORBIDDEN[wing]} compiles")
        print(f"{'not ok' if wrong else 'ok'} {number} - {wing} includes what {', '.join(allowed)} have, and nothing else")
        for line in wrong:
            print(f"# {line}")
        failed += bool(wrong)
    sys.exit(failed > 0)


main()
