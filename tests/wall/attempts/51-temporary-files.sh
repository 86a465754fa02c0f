#!/bin/sh
# Reads what other programs have left in /tmp, and what lies in the user's runtime directory. Success: a secret is
# printed.
cat "$T_TMP/secret" "$T_RUN/secret"
