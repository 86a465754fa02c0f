#!/bin/sh
# Changes the pool's size and its settings. Success: one of them has changed.
status=1
for pool in "$T_POOL" "${AGENTPOOL_DIR:-/nowhere}/../.."; do
    echo +1 >"$pool/scale" && status=0
    echo 4567 >"$pool/config/max_prompt" && status=0
done
exit $status
