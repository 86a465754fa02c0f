#!/bin/sh
# Could start a set-user-id program, which has the rights of another user. Success: no_new_privs is not set.
grep NoNewPrivs /proc/self/status
grep -q 'NoNewPrivs:.*0' /proc/self/status
