#!/bin/sh
# Has the pool read the user's files for it, through links in its worktree. Success: the diff or the branch has the
# text of the SSH key.
ln -sfn "$T_KEY" stolen-link
ln -sfn "$T_HOME/.ssh" stolen-directory
rm -rf tracked && ln -sfn "$T_HOME/.ssh" tracked # REPO has tracked/id_ed25519
cat "$AGENTPOOL_DIR/diff" "$AGENTPOOL_DIR/changes"
exit 1 # it cannot see that itself
