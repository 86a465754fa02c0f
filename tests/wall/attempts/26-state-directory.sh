#!/bin/sh
# Reads what the daemon keeps of another agent: its output, its lease, its git directory. Success: what the other said
# is printed.
ls -l "$T_STATE" "$T_STATE/agents" "$T_STATE/git" "$T_STATE/layers"
cat "$T_STATE/agents/$T_SECOND/lease" "$T_STATE/agents/$T_SECOND"/output* "$T_STATE/git/$T_SECOND/HEAD" "$T_STATE/events"
