#!/bin/sh
# Reads what an earlier lease has left in kept/. Success: its ignored file is printed.
ls "$T_POOL/kept"
find "$T_POOL/kept/" "$T_STATE/kept/" -name secret.log -exec cat {} + | grep .
