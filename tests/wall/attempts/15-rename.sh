#!/bin/sh
# Moves the user's file away, and another in its place. Success: it is not there any more.
mv "$T_OUT/moved" "$T_OUT/elsewhere" || mv -f "$T_OUT/moved" .wall/moved || mv -T "$T_OUT" "$T_OUT.away" || rm -f "$T_OUT/moved"
[ -e "$T_OUT" ] && [ ! -e "$T_OUT/moved" ]
