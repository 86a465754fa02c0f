# shellcheck shell=bash
# bash completion of agentpoolfs(1). Options of the pool are those of agentpoolfs --list-options, a line each:
# NAME DEFAULT MEANING [WORD|WORD...]; a default of - is none.

# What may stand for a value, as far as it is typed.
_agentpoolfs_values() { # COMMAND NAME TYPED
    local name initial doc words
    case $2 in
    state_dir) compgen -d -- "$3" && return ;;
    program) compgen -c -- "$3" && return ;;
    esac
    while read -r name initial doc; do
        [ "$name" = "$2" ] || continue
        words=
        if [[ $doc =~ \[([^][]+)\]$ ]]; then words=${BASH_REMATCH[1]//|/ }; fi
        if [ -z "$words" ] && [ "$initial" != - ]; then words=$initial; fi
        compgen -W "$words" -- "$3"
    done < <("$1" --list-options 2>/dev/null)
}

# The words of the program: as if it stood alone, where bash-completion is there to do so.
_agentpoolfs_program() { # INDEX OF THE FIRST ONE
    if declare -F _command_offset >/dev/null; then
        _command_offset "$1"
    elif [ "$COMP_CWORD" -eq "$1" ]; then
        mapfile -t COMPREPLY < <(compgen -c -- "${COMP_WORDS[COMP_CWORD]}")
    else
        compopt -o default 2>/dev/null
    fi
}

# The last of options with commas between.
_agentpoolfs_option() { # COMMAND WORD, with -o before the options or not
    local option=${2#-o} before
    option=${option##*,}
    before=${2%"$option"}
    if [[ $option == *=* ]]; then
        before+=${option%%=*}=
        mapfile -t COMPREPLY < <(_agentpoolfs_values "$1" "${option%%=*}" "${option#*=}")
    else
        mapfile -t COMPREPLY < <(compgen -W "$("$1" --list-options 2>/dev/null | cut -d ' ' -f 1 | sed 's/$/=/')" -- "$option")
    fi
    compopt -o nospace 2>/dev/null # a comma may follow
    COMPREPLY=("${COMPREPLY[@]/#/$before}")
    if [[ $2 == *=* && $COMP_WORDBREAKS == *=* ]]; then # readline takes what follows the last = for the word
        before=${2%"${2##*=}"}
        COMPREPLY=("${COMPREPLY[@]#"$before"}")
    fi
}

_agentpoolfs() { # COMMAND
    local line=${COMP_LINE:0:COMP_POINT} typed='' words i
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        if [ "${COMP_WORDS[i]}" = -- ]; then _agentpoolfs_program $((i + 1)) && return; fi
    done
    read -ra words <<<"$line" # COMP_WORDS is split at =, too
    if [[ $line != *[[:space:]] ]]; then
        typed=${words[-1]}
        unset 'words[-1]'
    fi
    if [[ $typed == -o?* || ${words[-1]} == -o ]]; then
        _agentpoolfs_option "$1" "$typed"
    elif [[ $typed == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W '-f -d -o --list --forget --list-files --list-options -h -V --' -- "$typed")
    else
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -d -- "${COMP_WORDS[COMP_CWORD]}")
    fi
}

complete -F _agentpoolfs agentpoolfs
