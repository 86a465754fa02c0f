#!/usr/bin/env python3
"""reader.py MODE DIR: a program that takes prompts in a terminal, and writes each into DIR/NNNN.

Modes: `bracketed` reads raw and asks for bracketed paste, `slow` too, 4 KB every 2 ms; `raw` reads raw
without it, so that Enter is what comes as a carriage return; `lines` reads whole lines as the terminal
edits them. Shows "> " when it is ready, and how much has been typed behind it."""

import os
import sys
import termios
import time
import tty

mode, directory = sys.argv[1:]
count = 0


def take(message):
    global count
    path = f"{directory}/{count:04}"
    with open(path + ".new", "wb") as file:
        file.write(message)
    os.rename(path + ".new", path)
    count += 1


def read_lines():
    while True:
        # on a line of its own, also where lines were typed ahead and it only now comes to read them
        os.write(1, b"\r\x1b[2K> ")
        line = sys.stdin.buffer.readline()
        if not line:
            return
        take(line)


def read_raw():
    tty.setraw(0, termios.TCSANOW)
    bracketed = mode != "raw"
    if bracketed:
        os.write(1, b"\x1b[?2004h")
    os.write(1, b"> ")
    pending, typed, in_paste = b"", b"", False
    while True:
        block = os.read(0, 4096)
        if not block:
            return
        if mode == "slow":
            time.sleep(0.002)
        pending += block
        while pending:
            if bracketed and not in_paste and pending.startswith(b"\x1b[200~"):
                pending, in_paste = pending[6:], True
            elif in_paste:
                end = pending.find(b"\x1b[201~")
                keep = 0 if end >= 0 else 5  # the end may be cut in two
                stop = end if end >= 0 else max(len(pending) - keep, 0)
                typed += pending[:stop]
                pending = pending[stop + 6:] if end >= 0 else pending[stop:]
                in_paste = end < 0
                if end < 0:
                    break
            elif bracketed and pending[0] == 0x1b and len(pending) < 6:
                break
            elif pending[0] == 0x0d:
                take(typed)
                pending, typed = pending[1:], b""
                os.write(1, b"\r\x1b[2K> working\r\n")
            else:
                stop = min((i for i in (pending.find(b"\r"), pending.find(b"\x1b", 1)) if i >= 0), default=len(pending))
                typed += pending[:stop]
                pending = pending[stop:]
        os.write(1, b"\r\x1b[2K> " + (b"[%d bytes]" % len(typed) if typed else b""))


os.makedirs(directory, exist_ok=True)
read_lines() if mode == "lines" else read_raw()
