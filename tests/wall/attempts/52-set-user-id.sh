# Starts a set-user-id program, which could be anybody. Success: no_new_privs is not set, or such a program has another user than we.
grep NoNewPrivs /proc/self/status
grep -q 'NoNewPrivs:.*0' /proc/self/status
