#!/bin/sh
# Looks for tokens in its own environment. Success: one that the user has exported is printed.
env | grep -e _TOKEN= -e _SECRET= -e SECRET_ACCESS_KEY=
