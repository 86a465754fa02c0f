#!/usr/bin/env python3
"""host.py PYTHON COMMAND...: runs these statements with `h`, which speaks to the agentpool-host that the command starts.

Frames as core/host/wire.h has them. An answer with an error is an OSError."""

import errno
import json
import os
import struct
import subprocess
import sys
import time


class Host:
    def __init__(self, argv, greet=True):
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.n, self.files, self.answers = 0, 0, {}
        if greet:
            self.greeting = self.call("hello", version=1)

    def send(self, head, data=b""):
        text = head if isinstance(head, bytes) else json.dumps(head).encode()
        self.process.stdin.write(struct.pack(">II", len(text), len(data)) + text + data + b"\n")
        self.process.stdin.flush()

    def exactly(self, n):
        data = self.process.stdout.read(n)
        if len(data) < n:
            raise EOFError("it has ended")
        return data

    def start(self, op, data=b"", **words):
        """Sends a request, and returns its id."""
        self.n += 1
        self.send({"id": self.n, "op": op, **words}, data)
        return self.n

    def answer(self, number):
        """Waits for the answer of that request: (head, bytes)."""
        while number not in self.answers:
            head, data = struct.unpack(">II", self.exactly(8))
            head = json.loads(self.exactly(head))
            assert head["id"] not in self.answers, "answered twice"
            self.answers[head["id"]] = head, self.exactly(data)
            assert self.exactly(1) == b"\n", "a frame ends with a newline"
        head, data = self.answers.pop(number)
        if "error" in head:
            code = getattr(errno, head["error"])
            raise OSError(code, os.strerror(code))
        return head, data

    def call(self, op, data=b"", **words):
        return self.answer(self.start(op, data, **words))

    def open(self, path, mode="r"):
        self.files += 1
        self.call("open", file=self.files, path=path, mode=mode)
        return self.files

    def read(self, path):
        file, text = self.open(path), b""
        while piece := self.call("read", file=file, size=65536)[1]:
            text += piece
        self.call("close", file=file)
        return text.decode()

    def write(self, path, text):
        file = self.open(path, "w")
        try:
            self.call("write", text.encode(), file=file)
        finally:
            self.call("close", file=file)

    def list(self, path):
        return self.call("list", path=path)[1].decode().split("\0")[:-1]

    def link(self, path):
        return self.call("link", path=path)[1].decode()

    def sleeps(self, label):
        """Has the shell of that lease do what keys alone end, and returns when it does."""
        self.write(f"leases/{label}/prompt", 'echo beg""un; sleep 1000\n')
        while "begun" not in self.read(f"leases/{label}/output"):
            time.sleep(0.02)

    def fails(self, error, call):
        """Whether that fails, with this errno."""
        try:
            call()
        except OSError as failure:
            return errno.errorcode[failure.errno] == error or sys.exit(f"{error}, not {failure}")
        sys.exit(f"{error}, not well")

    def end(self):
        """Its exit status once its input has ended."""
        self.process.stdin.close()
        return self.process.wait(60)


def main():
    code, *argv = sys.argv[1:]
    greet = "greet=False" not in code
    h = Host(argv, greet)
    exec(code, {"h": h, "os": os, "time": time, "struct": struct, "json": json})
    if greet:
        sys.exit(h.end())


if __name__ == "__main__":
    main()
