"""manager.py SOCKET MOUNTPOINT: listens as systemd does at NOTIFY_SOCKET, and prints what it is told and by whom; for READY=1
also whether the mount answers at that moment."""

import os
import socket
import struct
import sys

address, mountpoint = sys.argv[1:]
listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
listener.bind("\0" + address[1:] if address.startswith("@") else address)
print("listens", flush=True)
while True:
    text, control, _, _ = listener.recvmsg(4096, socket.CMSG_SPACE(struct.calcsize("3i")))
    pid = struct.unpack("3i", control[0][2])[0]
    answers = ""
    if text == b"READY=1":
        answers = ": the mount answers" if os.path.exists(mountpoint + "/status") else ": the mount does not answer"
    print(f"{pid} says {text.decode()}{answers}", flush=True)
