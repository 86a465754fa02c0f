#!/bin/sh
# Leases an agent of another pool of the same user, and looks into it. Success: the pool has the lease, or its output
# is printed.
cat "$T_POOL2/agents"/*/output "$T_STATE2/agents"/*/output
echo "stolen timeout=0" >"$T_POOL2/acquire"
