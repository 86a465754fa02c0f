# shellcheck shell=bash disable=SC2034
# Sourced by the other scripts: what the project needs from Debian 12, and how it is built.

# A python3 that is a script, which looks for the one to run, would cost more than many a test.
if command -v python3 >/dev/null; then
    PATH=$(dirname "$(python3 -c 'import sys; print(sys.executable)')"):$PATH
fi

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { # with the seconds since the script began
    printf '\033[1m== %3d s: %s\033[0m\n' $SECONDS "$*" >&2
}

# Installs the packages of a list that are missing. Needs root or sudo only where there are any.
install_missing() {
    local package missing=() sudo=
    for package in "$@"; do
        dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed ||
            missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    say "installing ${missing[*]}"
    if [ "$(id -u)" -ne 0 ]; then
        sudo=sudo
        command -v sudo >/dev/null ||
            { echo "these packages are missing, and there is neither root nor sudo: ${missing[*]}" >&2; return 1; }
    fi
    # a list of packages may be old or not there at all on a new machine
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1 ||
        { $sudo apt-get update -qq &&
            $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; }
}

needs_to_build=(gcc libc6-dev meson ninja-build pkg-config libfuse3-dev libsqlite3-dev libpcre2-dev libjansson-dev libgit2-dev)
needs_to_run=(fuse3 git tmux bubblewrap)

# build DIR [MESON_OPTION...]: configures once and builds, all or $build_only; prints only what goes wrong.
build_only=()
build() {
    local dir=$1 log
    shift
    log=$(mktemp)
    if { [ -f "$dir/build.ninja" ] || meson setup "$dir" "$top" "$@"; } >"$log" 2>&1 &&
        ninja -C "$dir" "${build_only[@]}" >>"$log" 2>&1; then
        rm -f "$log"
    else
        cat "$log" >&2
        rm -f "$log"
        return 1
    fi
}
