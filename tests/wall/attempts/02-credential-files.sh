#!/bin/sh
# Reads what other programs keep in the home directory: tokens of clouds, forges and registries. Success: any is
# printed.
status=1
for file in $T_CREDENTIALS; do
    grep . "$T_HOME/$file" && status=0
done
exit $status
