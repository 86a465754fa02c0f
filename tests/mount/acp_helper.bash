# For tests of programs that speak the Agent Client Protocol. The agent is acp_agent.py, whose prompts are its script;
# what the client does against the protocol it notes down, and every test ends by looking at that.

setup() {
    common_setup
    JOB=$POOL/leases/job TREE=$STATE/worktrees/agent-1
    export ACP_HOME=$DIR/acp ACP_LOG=$DIR/acp/log ACP_SENT=$DIR/acp/sent ACP_PROMPTS=$DIR/acp/prompts \
        ACP_SCRIPT=$DIR/acp/script ACP_CHARGES=$DIR/acp/charges
    mkdir "$ACP_HOME"
    echo 'mode = acp' >"$DIR/acp.conf"
}

teardown() {
    local result=0
    unmount_pool || result=1
    if [ -s "$ACP_HOME/faults" ]; then
        echo "what the agent was told is against the protocol:" >&2
        cat "$ACP_HOME/faults" >&2
        result=1
    fi
    common_teardown && [ $result = 0 ]
}

# A pool over the agent, mounted as mount_pool, mount_again or start_pool does it.
acp_pool() { # HOW MIN MAX [OPTION...]
    "$@" -o "program_profile=$DIR/acp.conf" -- python3 -u "$BATS_TEST_DIRNAME/acp_agent.py"
}

lease_agent() { # [OPTION...]
    acp_pool mount_pool 1 1 "$@"
    echo job > "$POOL/acquire"
    assert_equal "$(wait_for_job)" ready
}

# The agent goes on, and another daemon finds it.
crash_and_mount() {
    crash_pool
    acp_pool mount_again 1 1
}

wait_for_job() {
    timeout 60 cat "$JOB/wait"
}

prompt() { # TEXT
    printf '%s' "$1" > "$JOB/prompt"
}

response() {
    timeout 60 cat "$JOB/response"
}

ask() { # PROMPT: prints the response
    prompt "$1"
    response
}
