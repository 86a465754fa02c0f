"""Has systemd or the desktop start something for the user: by units and entries in his home directory, and by the socket of
`systemd --user`. Success: a file is planted, or the socket answers."""

import os
import sys

from calls import trying
from sockets import answers


def plant(path):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(os.environ["T_MARK"])
    return True


home = os.environ["T_HOME"]
done = [trying(plant, f"{home}/.config/{path}") for path in ("systemd/user/planted.service", "autostart/planted.desktop")]
sys.exit(not (answers([os.environ["T_SYSTEMD"]]) | any(done)))
