"""Stand-ins for what an agent must not reach: services at sockets, a process with secrets in it, a human at a terminal.

    standins.py serve DIRECTORY SECRET NAME=ADDRESS...   answers who connects with SECRET-NAME; ADDRESS is a path, @NAME for an
                                                         abstract socket, or tcp:0 (its port is then in DIRECTORY/NAME.port)
    standins.py victim DIRECTORY SECRET WORDS            holds secrets in memory, in a removed file and in shared memory
    standins.py human DIRECTORY COMMAND                  a shell in a terminal of its own, which runs COMMAND first

Each writes DIRECTORY/KIND.ready when all is there, and lives until it is ended.
"""

import ctypes
import os
import pty
import select
import signal
import socket
import sys


def ready(directory, kind, text=""):
    with open(f"{directory}/{kind}.new", "w") as file:
        file.write(text)
    os.rename(f"{directory}/{kind}.new", f"{directory}/{kind}.ready")


def serve(directory, secret, *services):
    names = {}
    for service in services:
        name, address = service.split("=", 1)
        if address.startswith("tcp:"):
            listener = socket.socket(socket.AF_INET)
            listener.bind(("127.0.0.1", 0))
            with open(f"{directory}/{name}.port", "w") as file:
                file.write(f"{listener.getsockname()[1]}\n")
        else:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind("\0" + address[1:] if address.startswith("@") else address)
        listener.listen(8)
        names[listener.fileno()] = (listener, name)
    ready(directory, "serve")
    while True:
        for fd in select.select(list(names), [], [])[0]:
            listener, name = names[fd]
            connection, _ = listener.accept()
            try:
                connection.sendall(f"{secret}-{name}\n".encode())
            except OSError:
                pass
            connection.close()


def victim(directory, secret, words):
    memory = ctypes.create_string_buffer(f"{secret}-memory".encode())
    path = f"{directory}/removed"
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.write(fd, f"{secret}-descriptor\n".encode())
    os.unlink(path)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p
    shm = libc.shmget(0, 4096, 0o1600)
    at = libc.shmat(shm, None, 0)
    text = f"{secret}-sysv".encode()
    ctypes.memmove(at, text, len(text) + 1)
    libc.shmctl(shm, 0, None)  # gone with this process; who knows its number attaches it until then
    ready(directory, "victim", f"{ctypes.addressof(memory)} {len(memory.value)} {shm}\n")
    while True:
        signal.pause()


def human(directory, command):
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(PS1="human$ ", TERM="xterm")
        os.execlp("sh", "sh", "-i")
    signal.signal(signal.SIGTERM, lambda *_: (os.kill(pid, signal.SIGKILL), os._exit(0)))
    os.write(terminal, command.encode() + b"\n")
    with open(f"{directory}/human.screen", "wb", buffering=0) as file:
        while True:
            try:
                file.write(os.read(terminal, 65536))
            except OSError:
                sys.exit()
            at = os.readlink(f"/proc/{pid}/fd/0")  # what is read first is but the echo: it may not have its terminal yet
            if at.startswith("/dev/pts/") and not os.path.exists(f"{directory}/human.ready"):
                ready(directory, "human", f"{at}\n")


{"serve": serve, "victim": victim, "human": human}[sys.argv[1]](*sys.argv[2:])
