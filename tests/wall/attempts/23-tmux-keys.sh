#!/bin/sh
# Types into another agent through the socket of the pool's tmux server. Success: the other's terminal shows it.
for name in "$T_SECOND" $(tmux -S "$T_STATE/tmux.sock" list-sessions -F '#{session_name}' | grep -Fx "$T_SECOND"); do
    tmux -S "$T_STATE/tmux.sock" send-keys -t "$name" "echo typed-$T_MARK" Enter && exit 0
done
exit 1
