#!/usr/bin/env python3
"""program.py [deaf|stuck|asks|slow|late]: a small agent program with an input field, for tests.

Shows "> " with what was typed behind it. A message is answered with "answer to MESSAGE" after a moment of
"working"; `ask` has it ask for leave first, `limit TEXT` shows that a usage limit is reached, `retry TEXT` says that it
tries again and waits, `wait` waits until the file `go` is there, which it removes, or for Escape, `edit FILE TEXT` writes
that; /clear forgets, /quit ends. PROGRAM_PROMPTS: file that a line for each message is appended to, SHA-256 and bytes.
With `deaf` it shows nothing of what is typed, with `stuck` it does not take Enter, with `asks` it begins with a question,
with `slow` it counts for a moment behind its first message before it stands still, with `late` it takes no Enter but the
second."""

import codecs
import hashlib
import os
import select
import sys
import time
import tty

mode = sys.argv[1] if len(sys.argv) > 1 else ""
turns = 0


def say(text):
    os.write(1, ("\r\x1b[2K" + text).encode())


def ask(question):
    say(f"{question}\r\n1. Yes  2. No\r\nPress y to go on")
    while True:
        key = os.read(0, 1)
        if key in b"yn":
            say("allowed\r\n" if key == b"y" else "denied\r\n")
            return


def note(message):
    if "PROGRAM_PROMPTS" in os.environ:
        data = message.encode()
        with open(os.environ["PROGRAM_PROMPTS"], "a") as file:
            file.write(f"{hashlib.sha256(data).hexdigest()} {len(data)}\n")


def wait():
    while not os.path.exists("go"):
        if select.select([0], [], [], 0.02)[0] and b"\x1b" in os.read(0, 65536):
            say("broken off\r\n")
            return
    os.unlink("go")


def edit(name, text):
    with open(name, "w") as file:
        file.write(text)


def handle(message):
    global turns
    say(f"you: {message}\r\n")
    if message == "/quit":
        if "GOODBYE" in os.environ:
            with open(os.environ["GOODBYE"], "w") as file:
                file.write("goodbye\n")
        sys.exit(7)
    if message == "/clear":
        turns = 0
        say("cleared\r\n")
        return
    turns += 1
    note(message)
    word, _, rest = message.partition(" ")
    if word == "ask":
        ask("May I?")
    say("working")
    if word == "limit":
        time.sleep(0.1)
        say(f"limit: {rest}\r\n")
        return
    if word == "retry":
        say(f"retrying {rest}")
    if word in ("wait", "retry"):
        wait()
    elif word == "edit":
        edit(*rest.split(" ", 1))
    else:
        time.sleep(0.3)
    say(f"answer {turns} to {message}\r\n")


tty.setraw(0)
os.write(1, b"\x1b[?2004h")
if mode == "asks":
    ask("Do you trust this?")
typed = ""
decoder = codecs.getincrementaldecoder("utf-8")("replace")
say("> ")
while True:
    block = decoder.decode(os.read(0, 65536))
    if not block:
        break
    if mode == "deaf":
        continue
    for c in block.replace("\x1b[200~", "").replace("\x1b[201~", ""):
        if c == "\r" and mode == "late":
            mode = ""
        elif c == "\r" and mode != "stuck":
            message, typed = typed, ""
            handle(message)
        elif c in "\x15\x1b":
            typed = ""
        elif c != "\r":
            typed += c
    if mode == "slow" and typed:
        mode = ""
        end, n = time.monotonic() + 0.7, 0
        while time.monotonic() < end:
            say(f"> {typed} {n}")
            time.sleep(0.02)
            n += 1
    say("> " + typed)
