"""Prints sequences by which a terminal sets the clipboard or passes others on, for the terminal of the human who looks on.
Success: they have come through tmux."""

import base64
import os
import sys

mark = base64.b64encode(f"clip-{os.environ['T_MARK']}".encode()).decode()
with open("/dev/tty", "w") as terminal:
    terminal.write(f"\x1b]52;c;{mark}\x07")
    terminal.write(f"\x1bPtmux;\x1b\x1b]52;c;{mark}\x07\x1b\\")
    terminal.write(f"\x1bP\x1b]52;c;{mark}\x07\x1b\\")
    terminal.write("end-of-clip\n")
print("printed")
sys.exit(1)  # it cannot see that itself
