#!/bin/sh
# Ends a process of the user. Success: it has ended.
kill -TERM "$T_SIGNAL"
