#!/usr/bin/env python3
"""conversing.py [--begin ID | --resume ID]: a small agent program that keeps what it is told, for tests.

A conversation is a file ~/told/ID, made when the first message comes: a line {"id", "cwd"}, then a line a
message. Without --begin it chooses an id by itself, and so does /clear. It answers a message with all that was said
in the conversation. --resume of a conversation that it does not have ends it with code 1; so does the file ~/broken
at any start. While there is a file ~/slow, --resume shows an empty field, and drops what is typed into that; then it
says "resumed". Notes its arguments in ~/starts, and
conversations that begin in $LOG if that is set."""

import datetime
import json
import os
import sys
import termios
import time
import tty
import uuid

told = os.path.expanduser("~/told")
words = sys.argv[1:]
os.makedirs(told, exist_ok=True)
with open(os.path.expanduser("~/starts"), "a") as file:
    file.write(" ".join([os.path.basename(os.getcwd()), *words]) + "\n")


def path(conversation):
    return f"{told}/{conversation}"


def say(text):
    os.write(1, ("\r\x1b[2K" + text).encode())


if "--resume" in words:
    conversation = words[words.index("--resume") + 1]
    if not os.path.exists(path(conversation)):
        sys.exit(f"there is no conversation {conversation}")
elif "--begin" in words:
    conversation = words[words.index("--begin") + 1]
else:
    conversation = str(uuid.uuid4())
if os.path.exists(os.path.expanduser("~/broken")):
    sys.exit("broken")


def handle(message):
    global conversation
    if message == "/quit":
        sys.exit(0)
    if message == "/clear":
        conversation = str(uuid.uuid4())
        return
    new = not os.path.exists(path(conversation))
    with open(path(conversation), "a") as file:
        if new:
            file.write(json.dumps({"id": os.environ.get("SAYS_ID", conversation), "cwd": os.getcwd()}) + "\n")
        file.write(message + "\n")
    if new and "LOG" in os.environ:
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        with open(os.environ["LOG"], "a") as file:
            file.write(f"noise\ntime={now} created {conversation} in {os.getcwd()}\n{'noise ' * 100}\n")
    say("working")
    time.sleep(0.2)
    with open(path(conversation)) as file:
        said = file.read().splitlines()[1:]
    say(f"heard {', '.join(said)}\r\n")


tty.setraw(0)
os.write(1, b"\x1b[?2004h")
typed = ""
say("> ")
if "--resume" in words and os.path.exists(os.path.expanduser("~/slow")):
    while os.path.exists(os.path.expanduser("~/slow")):
        time.sleep(0.02)
    termios.tcflush(0, termios.TCIFLUSH)
    say("resumed\r\n> ")
while True:
    block = os.read(0, 65536).decode(errors="replace")
    if not block:
        break
    for c in block.replace("\x1b[200~", "").replace("\x1b[201~", ""):
        if c == "\r":
            message, typed = typed, ""
            handle(message)
        elif c in "\x15\x1b":
            typed = ""
        else:
            typed += c
    say("> " + typed)
