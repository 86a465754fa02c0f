"""Types into the terminal of the human who looks on (TIOCSTI): leaves tmux and runs a command there. Success: the human's
shell has run it."""

import fcntl
import os
import sys
import time

from calls import trying

TIOCSTI = 0x5412


def type_text(fd, text):
    for byte in text.encode():
        fcntl.ioctl(fd, TIOCSTI, bytes([byte]))


def type_into(terminal):
    fd = os.open(terminal, os.O_RDWR | os.O_NOCTTY)
    typed = f"{os.environ['T_OUT']}/typed"
    type_text(fd, "\x02d")
    for _ in range(100):  # tmux lets go of the terminal, and the shell has it again
        time.sleep(0.1)
        type_text(fd, f"touch '{typed}'\n")
        if os.path.exists(typed):
            return True
    return None


sys.exit(not trying(type_into, os.environ["T_TERMINAL"]))
