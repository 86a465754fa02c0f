#!/usr/bin/env python3
"""deliver.py AGENTPOOLFS [PROMPTS]: prompts of mixed size into programs of every kind.

Each kind gets PROMPTS (100) prompts of 1 byte to 1 MiB, some of 5,000 lines, one after the other and
without waiting: all must arrive byte for byte, once, in order. Prints TAP."""

import json
import os
import random
import shutil
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
from pool import Failed, Pool  # noqa: E402 (beside this directory)

DEADLINE = 300
# so that a short look at the reader is enough
PROFILE = r"""
ready = screen:1 ^> *(?:\[\d+ bytes\])?\s*\z
composer = ^> *((?:\[\d+ bytes\])?)\s*\z
debounce = 20ms
hold = 100ms
"""
# a reader of whole lines shows nothing of what it was given but the terminal's echo
LINES_PROFILE = r"""
ready = screen:1 ^> *$
debounce = 20ms
hold = 100ms
"""
ALPHABET = "abcdefghijklmnopqrstuvwxyz ABC 0123456789 '\"\\$`#;{}()[]<>|&*?~!%^=+-_@,.:/ äöü 日本 🎉 \t"


def text(rng, size):
    made = "".join(rng.choices(ALPHABET, k=size)).encode()[:size]
    made = made.decode(errors="ignore").encode()
    return made + b"." * (size - len(made))


def many_lines(rng, n_lines, width):
    return b"\n".join(text(rng, rng.randint(0, width)) for _ in range(n_lines)) + b"\nend"


def short_lines(rng, size):
    """Text without an empty line at either end, of lines that a terminal takes whole."""
    lines = []
    while size > 0:
        lines.append(b"x" + text(rng, min(size, rng.randint(1, 2000)) - 1).replace(b"\t", b" "))
        size -= len(lines[-1]) + 1
    return b"\n".join(lines)


def sizes(n):
    """Most prompts are short; every tenth is large, and one of them the largest there is."""
    small = [1, 2, 10, 80, 500, 1000, 4000, 4096]
    return [(1 << 20) - 200 if i == n // 2 else 100_000 if i % 10 == 9 else small[i % len(small)] for i in range(n)]


class Reading(Pool):
    """A pool over a program that writes what it takes into MESSAGES."""

    def __init__(self, agentpoolfs, profile, program):
        work = tempfile.mkdtemp(prefix="agentpool-messages-")
        self.messages = work
        options = "requests_per_quota=0"
        if profile:
            with open(f"{work}/reader.conf", "w") as file:
                file.write(profile)
            options += f",program_profile={work}/reader.conf"
        program = [word.replace("MESSAGES", work) for word in program]
        super().__init__(agentpoolfs, options, program, deadline=DEADLINE)
        self.wait_for("ready", lambda: self.activity() == "ready")

    def prompt(self, message):
        """Writes one; while too many or too large ones wait already, it is tried again."""
        end = time.monotonic() + DEADLINE
        while True:
            try:
                fd = os.open(f"{self.job}/prompt", os.O_WRONLY)
                try:
                    at = 0
                    while at < len(message):
                        at += os.write(fd, message[at:at + (128 << 10)])
                finally:
                    os.close(fd)
                return
            except BlockingIOError:
                if time.monotonic() > end:
                    raise Failed("the queue stays full") from None
                time.sleep(0.05)

    def settle_ready(self):
        """Until it is ready: of a reader that stands still for seconds, on a slow disk, `wait` says
        that it waits for a human, and what is queued is given when it goes on."""
        end = time.monotonic() + DEADLINE
        while (said := self.settle()) != "ready":
            if said != "waiting" or time.monotonic() > end:
                raise Failed(f"wait says {said}: {self.read('why').strip()}")
            time.sleep(0.1)

    def outcomes(self):
        with open(f"{self.mount}/events") as file:
            events = [json.loads(line) for line in file]
        return [event for event in events if event["event"] == "prompt"]

    def arrived(self):
        names = sorted(name for name in os.listdir(self.messages) if name.isdigit())
        return [open(f"{self.messages}/{name}", "rb").read() for name in names]

    def end(self):
        super().end()
        shutil.rmtree(self.messages, ignore_errors=True)


def compare(sent, arrived):
    for i, message in enumerate(sent):
        if i >= len(arrived):
            raise Failed(f"{len(arrived)} of {len(sent)} arrived")
        if arrived[i] != message:
            same = os.path.commonprefix([arrived[i], message])
            raise Failed(f"prompt {i} of {len(message)} bytes arrived as {len(arrived[i])}, the same for {len(same)}: "
                         f"{message[len(same):len(same) + 20]!r} is {arrived[i][len(same):len(same) + 20]!r}")
    if len(arrived) != len(sent):
        raise Failed(f"{len(arrived)} arrived of {len(sent)}")


def send_all(pool, sent):
    for message in sent:
        pool.prompt(message + b"\n")
    pool.settle_ready()
    outcomes = pool.outcomes()
    others = [event for event in outcomes if event["outcome"] != "submitted"]
    if others or len(outcomes) != len(sent):
        raise Failed(f"events tell of {len(outcomes)} of {len(sent)}, and not submitted: {others}")


def into_reader(agentpoolfs, n, mode):
    rng = random.Random(mode)
    pool = Reading(agentpoolfs, PROFILE, [sys.executable, f"{HERE}/reader.py", mode, "MESSAGES"])
    try:
        sent = [many_lines(rng, 5000, 30) if i % 12 == 5 else text(rng, size) for i, size in enumerate(sizes(n))]
        sent = [message.rstrip(b"\n") or b"." for message in sent]
        send_all(pool, sent)
        compare(sent, pool.arrived())
    finally:
        pool.end()


def into_lines(agentpoolfs, n):
    rng = random.Random("lines")
    pool = Reading(agentpoolfs, LINES_PROFILE, [sys.executable, f"{HERE}/reader.py", "lines", "MESSAGES"])
    try:
        sent = [short_lines(rng, size) for size in sizes(n)]
        send_all(pool, sent)
        compare([b"".join(message + b"\n" for message in sent)], [b"".join(pool.arrived())])
        before = len(pool.arrived())
        pool.prompt(b"y" * 4096 + b"\n")
        try:
            pool.settle()
            raise Failed("a line of 4096 bytes was taken")
        except Failed as refused:
            if "over 4095 bytes" not in str(refused):
                raise
        pool.prompt(b"z" * 4095 + b"\n")
        pool.settle()
        compare([b"z" * 4095 + b"\n"], pool.arrived()[before:])
    finally:
        pool.end()


def into_bash(agentpoolfs, n):
    rng = random.Random("bash")
    pool = Reading(agentpoolfs, "", ["bash", "--norc"])
    try:
        sent = [many_lines(rng, 5000, 30) if i % 12 == 5 else short_lines(rng, size) for i, size in enumerate(sizes(n))]
        sent = [message.replace(b"\t", b" ") for message in sent]  # a tab completes
        commands = [b"cat > %s/%04d <<'END'\n%s\nEND" % (pool.messages.encode(), i, message)
                    for i, message in enumerate(sent)]
        send_all(pool, commands)
        compare([message + b"\n" for message in sent], pool.arrived())
    finally:
        pool.end()


def main():
    agentpoolfs = os.path.abspath(sys.argv[1])
    n = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    cases = [(f"{n} prompts into a raw program with bracketed paste", lambda: into_reader(agentpoolfs, n, "bracketed")),
             (f"{n} prompts into a raw program without it", lambda: into_reader(agentpoolfs, n, "raw")),
             (f"{n} prompts into a slow reader", lambda: into_reader(agentpoolfs, n, "slow")),
             (f"{n} prompts into bash", lambda: into_bash(agentpoolfs, n)),
             (f"{n} prompts into a reader of lines, and one that is too long is refused",
              lambda: into_lines(agentpoolfs, n))]
    print(f"1..{len(cases)}")
    failed = 0
    for number, (what, case) in enumerate(cases, 1):
        start = time.monotonic()
        try:
            case()
            print(f"ok {number} - {what}")
        except (Failed, OSError) as error:
            failed += 1
            print(f"not ok {number} - {what}\n# {error}")
        print(f"# {time.monotonic() - start:.1f} s", flush=True)
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
