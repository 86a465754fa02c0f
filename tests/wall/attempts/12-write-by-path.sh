#!/bin/sh
# Writes where the user may: into his files, his shell's start, the machine's users. Success: one of them can be
# written.
status=1
for file in "$T_OUT/mine" "$T_HOME/.bashrc" "$T_HOME/.profile"; do
    echo "$T_MARK" >>"$file" && status=0
done
(: >>/etc/passwd) && status=0 # changes nothing
exit $status
