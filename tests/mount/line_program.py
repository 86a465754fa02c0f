#!/usr/bin/env python3
"""line_program.py editor|marked|blind|ticks: a program that has no profile, for tests.

It always waits for its terminal and for something else at once, so that its process does not tell whether it
works. `editor` edits its line in a terminal in raw mode, with the cursor behind its prompt "? "; `marked` hides
the cursor and marks its prompts and commands by OSC 133; `blind` hides the cursor and marks nothing; so does `ticks`,
which waits for its terminal alone, but never for long, as what works beside that does. A line is
answered with "answer to LINE" after a moment; the file `gate`, if it is there, has to go first."""

import os
import select
import sys
import time
import tty

kind = sys.argv[1]
never, _ = os.pipe()


def say(text):
    os.write(1, text.encode())


def mark(letter):
    if kind == "marked":
        say(f"\x1b]133;{letter}\a")


def wait():
    """Whatever it does, it waits for both."""
    if kind == "ticks":
        ready, _, _ = select.select([0], [], [], 0.05)
    else:
        ready, _, _ = select.select([0, never], [], [])
    return os.read(0, 65536).decode() if 0 in ready else ""


def prompt():
    mark("A")
    say("? ")
    mark("B")


tty.setraw(0)
if kind != "editor":
    say("\x1b[?25l")
line = ""
prompt()
while True:
    for letter in wait():
        if letter != "\r":
            line += letter
            say(letter)
            continue
        say("\r\n")
        mark("C")
        if kind == "editor":
            say("\x1b[?25l")
        while os.path.exists("gate"):
            time.sleep(0.01)
        say(f"answer to {line}\r\n")
        if kind == "editor":
            say("\x1b[?25h")
        line = ""
        mark("D")
        prompt()
