#!/usr/bin/env python3
"""hostile.py bomb PROCESSES SECONDS | eat MIB: programs that do no good, within bounds of their own.

`bomb` is as many processes, deaf to SIGTERM and SIGHUP, in sessions of their own: one in fifty has the others as
its children, which live for a moment each and are replaced at once. It waits for those that end, so that there are
never more, and after that time all end by themselves. `eat` takes memory and keeps it. Both say "begun"."""

import os
import random
import signal
import sys
import time


def say(text):
    os.write(1, (text + "\n").encode())


def live_for_a_moment():
    time.sleep(random.uniform(0.5, 3))
    os._exit(0)


def keep_up(children, end):
    os.setsid()
    n = 0
    while time.monotonic() < end:
        try:
            if n < children and os.fork() == 0:
                live_for_a_moment()
            n += n < children
        except OSError:  # there is no room for one more
            time.sleep(0.1)
        if n == children:
            os.wait()
            n -= 1
    os._exit(0)


def bomb(processes, seconds):
    end = time.monotonic() + seconds
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    for _ in range(processes // 50):
        if os.fork() == 0:
            keep_up(49, end)
    time.sleep(1)
    say("be" + "gun")
    while time.monotonic() < end:
        time.sleep(0.1)


def eat(mib):
    block = bytearray(mib << 20)
    for at in range(0, len(block), 4096):
        block[at] = 1
    say("be" + "gun")
    time.sleep(1000)


if __name__ == "__main__":
    {"bomb": bomb, "eat": eat}[sys.argv[1]](*map(int, sys.argv[2:]))
