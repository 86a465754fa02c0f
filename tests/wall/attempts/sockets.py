"""Connects to sockets and prints what they answer."""

import socket


def answers(addresses):
    """Whether any of them answers: a path, @NAME for an abstract socket, or a port of this machine."""
    found = False
    for address in addresses:
        try:
            if isinstance(address, int):
                client = socket.create_connection(("127.0.0.1", address), timeout=20)
            else:
                client = socket.socket(socket.AF_UNIX)
                client.settimeout(20)
                client.connect("\0" + address[1:] if address.startswith("@") else address)
            answer = client.recv(1000)
            print(address, answer)
            found = found or bool(answer)
        except OSError as error:
            print(address, error)
    return found
