#!/bin/sh
# Leaves commands in its own worktree and git directory for the pool's git to run outside, and asks for diff and
# changes. Success: one has run.
git=$(git rev-parse --git-dir)
run="touch '$T_OUT/ran'"
cat >>"$git/config" <<END
[core]
	fsmonitor = "$run; false"
	hooksPath = $PWD/.wall/hooks
	sshCommand = $run
[diff]
	external = $run
[filter "planted"]
	clean = "$run; cat"
	smudge = "$run; cat"
	process = $run
[gc]
	auto = 1
END
echo '* filter=planted diff=planted' >.gitattributes
mkdir -p .wall/hooks "$git/hooks"
for hook in pre-commit post-commit post-checkout reference-transaction post-index-change pre-auto-gc; do
    printf '#!/bin/sh\n%s\n' "$run" | tee "$git/hooks/$hook" >.wall/hooks/$hook
    chmod +x "$git/hooks/$hook" .wall/hooks/$hook
done
echo changed >>file-0
cat "$AGENTPOOL_DIR/diff" "$AGENTPOOL_DIR/changes" "$AGENTPOOL_DIR/diffstat" >/dev/null
exit 1 # it cannot see that itself
