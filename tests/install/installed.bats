# What is installed: files in their places, what completes command lines, the unit of systemd, the Debian package.

load ../mount/helper

setup() {
    note_tests_alone
    load_library
    DIR=$BATS_TEST_TMPDIR
    SOURCE=$(realpath "$BATS_TEST_DIRNAME/../..")
    PATH=$(dirname "$(realpath "$AGENTPOOLFS")"):$PATH
}

# --- completions ---

# Completes a command line as readline has it done, which takes = for a word of its own.
completed() { # LINE
    local rest=$1 word
    # shellcheck source=../../share/completions/agentpoolfs.bash
    . "$SOURCE/share/completions/agentpoolfs.bash"
    COMP_LINE=$1 COMP_POINT=${#1} COMP_WORDS=()
    while [ -n "$rest" ]; do
        word=${rest%%[ =]*}
        case $rest in
        ' '*) word= rest=${rest# } ;;
        =*) word='=' ;;
        esac
        if [ -n "$word" ]; then COMP_WORDS+=("$word"); fi
        rest=${rest#"$word"}
    done
    if [[ $1 == *[\ =] ]]; then COMP_WORDS+=(''); fi
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _agentpoolfs agentpoolfs "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    echo "${COMPREPLY[*]}"
}

@test "bash completes names, defaults and words of options, wherever they stand" {
    assert_equal "$(completed 'agentpoolfs -o min_')" 'min_pool_size= min_idle='
    assert_equal "$(completed 'agentpoolfs -o min_pool_size=')" 1
    assert_equal "$(completed 'agentpoolfs -o min_pool_size=2,min_i')" '2,min_idle='
    assert_equal "$(completed 'agentpoolfs -omin_i')" '-omin_idle='
    assert_equal "$(completed 'agentpoolfs -o min_idle=1,git=')" 'auto library program'
    assert_equal "$(completed 'agentpoolfs -o profile=h')" 'high-load'
    assert_equal "$(completed 'agentpoolfs -o setup=')" ''
    assert_equal "$(completed 'agentpoolfs -o none=')" ''
}

@test "bash completes what the command takes beside options" {
    mkdir "$DIR/repo" "$DIR/real"
    touch "$DIR/refuse"
    assert_equal "$(completed 'agentpoolfs --list')" '--list-files --list-options'
    assert_equal "$(completed "agentpoolfs -f -o git=auto $DIR/re" | xargs -n 1 | sort | xargs)" "$DIR/real $DIR/repo"
    assert_equal "$(completed "agentpoolfs -o state_dir=$DIR/rep")" "$DIR/repo"
    assert_equal "$(completed 'agentpoolfs repo pool -- agentpoolf')" agentpoolfs
}

@test "fish completes the same" {
    command -v fish >/dev/null || skip "fish is not installed"
    in_fish() { # LINE
        HOME=$DIR fish --no-config -c "source '$SOURCE/share/completions/agentpoolfs.fish'; complete -C '$1'" | cut -f 1 | sort | xargs
    }
    assert_equal "$(in_fish 'agentpoolfs -o min_')" 'min_idle= min_pool_size='
    assert_equal "$(in_fish 'agentpoolfs -o min_idle=1,git=')" 'min_idle=1,git=auto min_idle=1,git=library min_idle=1,git=program'
    assert_equal "$(in_fish 'agentpoolfs repo pool -- agentpoolf')" agentpoolfs
}

@test "all shells take their completions" {
    bash -n "$SOURCE/share/completions/agentpoolfs.bash"
    { command -v fish && command -v zsh; } >/dev/null || skip "fish or zsh is not installed"
    fish -n "$SOURCE/share/completions/agentpoolfs.fish"
    zsh -n "$SOURCE/share/completions/_agentpoolfs"
}
