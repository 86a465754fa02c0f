#!/usr/bin/env python3
"""asker.py LOG: a small agent program that asks for leave, for tests. A message is a list of words, done one after the
other: KIND or KIND:WHAT asks whether it may, with "1. Yes", "2. Always" and "3. No"; KIND/always offers no 1,
KIND/never a 4 in place of 3, KIND/deaf takes a key only when the file LOG.hears is there; `what` asks what no rule
knows; `until` works until the file LOG.go is there, and removes it; `quit` ends. What it is given stands in LOG, a
line each: the question and the key, or a message. With ASKS in its environment it begins with that question."""

import os
import sys
import time
import tty

log = sys.argv[1]


def show(text):
    os.write(1, ("\x1b[2J\x1b[H" + text).encode())


def note(line):
    with open(log, "a") as file:
        file.write(line + "\n")


def ask(word):
    word, _, how = word.partition("/")
    kind, _, what = word.partition(":")
    offers = {"": "1. Yes\r\n2. Always\r\n3. No", "deaf": "1. Yes\r\n2. Always\r\n3. No",
              "always": "2. Always\r\n3. No", "never": "1. Yes\r\n4. Never"}[how]
    title = "What now?" if kind == "what" else f"May I {kind} {what or 'it'}?"
    show(f"{title}\r\n{offers}\r\nPress a number")
    while how == "deaf" and not os.path.exists(log + ".hears"):
        time.sleep(0.01)
    note(f"{word} {os.read(0, 1).decode()}")


def until():
    show("working")
    while not os.path.exists(log + ".go"):
        time.sleep(0.01)
    os.unlink(log + ".go")


tty.setraw(0)
os.write(1, b"\x1b[?2004h")
if "ASKS" in os.environ:
    ask(os.environ["ASKS"])
typed = ""
show("> ")
while True:
    block = os.read(0, 65536).decode(errors="replace")
    if not block:
        break
    for c in block.replace("\x1b[200~", "").replace("\x1b[201~", ""):
        if c != "\r":
            typed += c
            continue
        note(typed)
        for word in typed.split():
            if word == "quit":
                sys.exit(0)
            if word == "until":
                until()
            else:
                ask(word)
        typed = ""
        show("done")
    show("> " + typed)
