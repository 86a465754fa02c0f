#!/bin/sh
# Ends the lease of somebody else. Success: the pool has it no more.
for pool in "$T_POOL" "${AGENTPOOL_DIR:-/nowhere}/../.."; do
    echo "spare discard" >"$pool/release" && exit 0
    rm "$pool/leases/spare" && exit 0
done
exit 1
