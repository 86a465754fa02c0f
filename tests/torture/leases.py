#!/usr/bin/env python3
"""leases.py POOL REPO LEASES SEED: leases whose holders do whatever they like, at random.

Every holder runs a script in its worktree that writes files, commits, deletes, moves about in git and
may end itself by SIGKILL in the middle; what it has finished writing before its release it notes down.
Then every such file is looked for on the branch of its lease. Prints what was lost, and exits with 1."""

import concurrent.futures
import os
import random
import subprocess
import sys

pool, repo = sys.argv[1], sys.argv[2]
n_leases, seed = int(sys.argv[3]), int(sys.argv[4])

# What a step does to the files: they are looked for afterwards as the last step left them.
HOLDER = r"""
import os, random, signal, subprocess, sys
note = open(sys.argv[1], "a")
pick = random.Random(sys.argv[2])
def git(*words):
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@e", *words],
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
def say(*words):
    note.write("\t".join(words) + "\n")
    note.flush()
def write():
    name = pick.choice(["", "dir/", "a b/ü/", "deep/er/and/deeper/"]) + pick.choice(
        ["one", "two", "-three", "sp ace", "x.txt", "file-0", "file-1"])
    if os.path.dirname(name):
        os.makedirs(os.path.dirname(name), exist_ok=True)
    text = str(pick.random()) * pick.choice([1, 1, 1, 1000])
    say("begin", name, "")
    with open(name + "", "w") as file:
        file.write(text)
    say("wrote", name, text)
def delete():
    for top, dirs, files in os.walk("."):
        dirs[:] = [d for d in dirs if d != ".git"]
        for name in files:
            path = os.path.join(top, name)[2:]
            if name != ".git" and pick.random() < 0.2:
                say("begin", path, "")
                os.unlink(path)
                say("deleted", path, "")
                return
steps = [write] * 8 + [
    delete,
    lambda: (git("add", "--all"), git("commit", "-q", "-m", "mine")),
    lambda: git("add", "--all"),
    lambda: (git("commit", "-q", "-a", "--amend", "--no-edit", "--allow-empty")),
    lambda: git("checkout", "-q", "--detach"),
    lambda: git("checkout", "-q", "-b", "side-" + str(os.getpid())),
    lambda: git("config", "core.fsmonitor", "/bin/false"),
    lambda: os.path.exists(".git") and os.unlink(".git"),
    lambda: git("update-index", "--assume-unchanged", "file-0"),
]
for _ in range(pick.randrange(1, 25)):
    pick.choice(steps)()
    if pick.random() < 0.03:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def lease(number):
    label = f"torture-{number}"
    pick = random.Random(f"{seed}-{number}")
    notes = f"{pool}.notes-{number}"
    with open(f"{pool}/acquire", "w") as acquire:
        acquire.write(f"{label} timeout=10m\n")
    tree = os.readlink(f"{pool}/leases/{label}/worktree")
    agent = os.path.basename(os.readlink(f"{pool}/leases/{label}"))
    subprocess.run([sys.executable, "-c", HOLDER, notes, f"{seed}-{number}"], cwd=tree, check=False)
    way = pick.randrange(4)
    if way == 0:
        os.unlink(f"{pool}/leases/{label}")
    elif way == 1:
        with open(f"{pool}/agents/{agent}/ctl", "w") as ctl:
            ctl.write("kill\n")
    else:
        with open(f"{pool}/release", "w") as release:
            release.write(label + "\n")
    return number


def expected(number):
    """The files as the holder left them; one that it was at when it was killed may be anything."""
    files = {}
    try:
        with open(f"{pool}.notes-{number}") as notes:
            for line in notes:
                what, name, text = line.rstrip("\n").split("\t")
                files.pop(name, None)
                if what == "wrote":
                    files[name] = text
                elif what == "deleted":
                    files[name] = None
    except FileNotFoundError:
        pass
    return files


def git(*words):
    return subprocess.run(["git", "-C", repo, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)


def await_saved():
    while os.listdir(f"{pool}/leases"):
        pass


def check(number):
    lost = 0
    files = expected(number)
    branch = f"agentpool/torture-{number}"
    if git("rev-parse", "--verify", "-q", f"refs/heads/{branch}").returncode != 0:
        branch = "HEAD"  # nothing was left of what it did: then nothing but the base may be expected
    for name, text in files.items():
        found = git("cat-file", "blob", f"{branch}:{name}")
        there = found.stdout.decode() if found.returncode == 0 else None
        if there != text:
            lost += 1
            print(f"torture-{number}: {name}: {str(there)[:40]!r} is not {str(text)[:40]!r}")
    return len(files), lost


with concurrent.futures.ThreadPoolExecutor(8) as threads:
    list(threads.map(lease, range(n_leases)))
await_saved()
results = [check(number) for number in range(n_leases)]
n_files, n_lost = sum(n for n, _ in results), sum(lost for _, lost in results)
print(f"{n_leases} leases, {n_files} files, {n_lost} lost")
sys.exit(1 if n_lost or not n_files else 0)
