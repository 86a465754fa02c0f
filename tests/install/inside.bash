# shellcheck shell=bash
# What scripts begin with that run in a copy of the machine (elsewhere): the package is installed there, and ann has a
# repository and a place for a pool.

as_ann() { # COMMAND...
    setpriv --reuid=61235 --regid=61235 --clear-groups -- \
        env HOME=/home/ann USER=ann LOGNAME=ann XDG_RUNTIME_DIR=/run/user/61235 "$@"
}

await() { # COMMAND...
    local deadline=$((SECONDS + 120))
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS > deadline)); then echo "still not: $*" && return 1; fi
        sleep 0.05
    done
}

not() { # COMMAND...
    ! "$@"
}

# What a program of ann's pool prints.
asked() { # COMMAND
    as_ann sh -c "echo job timeout=2m > pool/acquire; echo '$1' > pool/leases/job/prompt; cat pool/leases/job/response; echo job > pool/release"
}

rm -f /var/lib/man-db/auto-update # the index of man pages takes longest, and says nothing
DEBIAN_FRONTEND=noninteractive apt-get install -qq -y /given/agentpoolfs_[0-9]*.deb >/tmp/apt 2>&1 || { cat /tmp/apt && exit 1; }
install -d -m 700 -o ann -g ann /run/user/61235
cd /home/ann || exit
as_ann git init -q -b main repo
as_ann git -C repo -c user.name=ann -c user.email=ann@example.org commit -q --allow-empty -m first
as_ann mkdir pool
