#!/bin/sh
# Reads the user's SSH key. Success: its text is printed.
cat "$T_HOME/.ssh/id_ed25519"
