"""Talks to the user's ssh-agent, by the environment or by a known path. Success: an agent answers."""

import os
import sys

from sockets import answers

sys.exit(not answers([os.environ.get("SSH_AUTH_SOCK", "/nowhere"), *os.environ["T_SSH_AGENT"].split()]))
