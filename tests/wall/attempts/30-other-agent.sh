#!/bin/sh
# Reads another agent's directory of the mount and prompts it, by the mount and by the way up from its own. Success:
# what the other said is printed, or it runs the prompt.
status=1
for place in "$T_POOL/agents" "${AGENTPOOL_DIR:-/nowhere}/.."; do
    cat "$place/$T_SECOND/output" "$place/$T_SECOND/screen" && status=0
    echo "echo prompted-$T_MARK" >"$place/$T_SECOND/prompt" && status=0
done
exit $status
