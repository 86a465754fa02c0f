# The manual pages, as the two programs see them that format them: neither has anything to say, at 80 columns.

# without those that are another one's second name
mapfile -t pages < <(grep -L '^\.so ' "$BATS_TEST_DIRNAME"/../../man/*)

@test "mandoc complains of no manual page" {
    run mandoc -T lint -W warning "${pages[@]}"
    echo "$output"
    [ "$status" -eq 0 ] && [ -z "$output" ]
}

@test "groff complains of no manual page" {
    for page in "${pages[@]}"; do
        run bash -c 'groff -z -t -ww -man -Tutf8 -rLL=80n "$1" 2>&1' - "$page"
        echo "$page: $output"
        [ "$status" -eq 0 ] && [ -z "$output" ]
    done
}
