#!/bin/sh
# Leases more agents of its own pool. Success: the pool has a lease more.
for pool in "$T_POOL" "${AGENTPOOL_DIR:-/nowhere}/../.."; do
    echo "more timeout=0" >"$pool/acquire" && exit 0
done
exit 1
