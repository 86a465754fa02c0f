"""Writes into the daemon's store. Success: its data base has a table more."""

import os
import sqlite3
import sys

try:
    store = sqlite3.connect(f"file:{os.environ['T_STATE']}/state.db?mode=rw", uri=True, timeout=20)
    store.execute("CREATE TABLE wall (mark TEXT)")
    store.commit()
except sqlite3.Error as error:
    print(error)
    sys.exit(1)
