# fish completion of agentpoolfs(1). Options of the pool are those of agentpoolfs --list-options, a line each:
# NAME DEFAULT MEANING [WORD|WORD...]; a default of - is none.

# The options, behind those that stand before the last comma; of one that has its =, what may follow.
function __agentpoolfs_options
    set -l option (commandline -ct | string replace -r '^-o' '')
    set -l before (string match -r '^.*,' -- $option)
    set option (string replace -r '^.*,' '' -- $option)
    set -l given (string split -m 1 = -- $option)
    set -l command (commandline -opc)[1]
    eval (string escape -- $command) --list-options 2>/dev/null | while read -l name initial doc
        set -l words (string match -r '\[([^][]+)\]$' -- $doc)[2]
        set doc (string replace -r ' \[[^][]+\]$' '' -- $doc)
        test $initial = -; and set initial; or set doc "$doc ($initial)"
        if not set -q given[2]
            printf '%s%s=\t%s\n' "$before" $name "$doc"
        else if test $name = $given[1]
            switch $name
                case state_dir
                    set words (__fish_complete_directories $given[2] '' | string replace -r '\t.*' '')
                case program
                    set words (complete -C $given[2] | string replace -r '\t.*' '')
                case '*'
                    set words (string split '|' -- $words)
                    set -q words[1]; or set words $initial
            end
            for word in $words
                printf '%s%s=%s\n' "$before" $name $word
            end
        end
    end
end

# Whether the program's words have begun.
function __agentpoolfs_in_program
    contains -- -- (commandline -opc)
end

function __agentpoolfs_program
    set -l words (commandline -opc)
    set -l at (contains -i -- -- $words)
    set -e words[1..$at]
    complete -C (string join ' ' -- (string escape -- $words) (commandline -ct))
end

complete -c agentpoolfs -f
complete -c agentpoolfs -n 'not __agentpoolfs_in_program' -a '(__fish_complete_directories)'
complete -c agentpoolfs -n __agentpoolfs_in_program -a '(__agentpoolfs_program)'
complete -c agentpoolfs -s f -l foreground -d 'stay in the foreground'
complete -c agentpoolfs -s d -d 'stay in the foreground and trace FUSE requests'
complete -c agentpoolfs -s o -x -a '(__agentpoolfs_options)' -d 'options of the pool and of FUSE'
complete -c agentpoolfs -l list -d 'print your pools'
complete -c agentpoolfs -l forget -x -a '(__fish_complete_directories)' -d 'remove what pools of a repository have left'
complete -c agentpoolfs -l list-files -d 'print the files of a mount'
complete -c agentpoolfs -l list-options -d 'print the options'
complete -c agentpoolfs -s h -l help -d 'print the usage'
complete -c agentpoolfs -s V -l version -d 'print the version'
