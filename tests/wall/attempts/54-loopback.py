"""Talks to a service on the machine's loopback. Success: it answers."""

import os
import sys

from sockets import answers

sys.exit(not answers([int(os.environ["T_PORT"])]))
