"""follow.py FILE UNTIL [epoll|select|read] [SIZE]: reads a stream of events until one has the text UNTIL.

Its own checks: seq goes up by one, and every read returns whole lines (unless SIZE is smaller than a line)."""
import json
import os
import select
import sys

path, until = sys.argv[1:3]
how = sys.argv[3] if len(sys.argv) > 3 else "read"
size = int(sys.argv[4]) if len(sys.argv) > 4 else 65536
fd = os.open(path, os.O_RDONLY | (os.O_NONBLOCK if how != "read" else 0))
epoll = select.epoll()
epoll.register(fd, select.EPOLLIN)
print("open", file=sys.stderr, flush=True)
text, last = b"", None
while True:
    if how == "epoll" and not epoll.poll(60):
        sys.exit("no event for a minute")
    if how == "select" and not select.select([fd], [], [], 60)[0]:
        sys.exit("no event for a minute")
    piece = os.read(fd, size)
    if not piece:
        print("end of file")
        break
    text += piece
    lines = text.split(b"\n")
    text = lines.pop()
    if text and size >= 4096:
        sys.exit("a line in part: %r" % text)
    for line in lines:
        event = json.loads(line)
        if last is not None and event["seq"] != last + 1 and event["event"] != "missed":
            sys.exit("%d behind %d" % (event["seq"], last))
        if last is not None and event["event"] == "missed" and event["seq"] != last + event["count"]:
            sys.exit("%d missed, but %d behind %d" % (event["count"], event["seq"], last))
        last = event["seq"]
        print(line.decode(), flush=True)
    if any(until.encode() in line for line in lines):
        break
