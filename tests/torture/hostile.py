#!/usr/bin/env python3
"""hostile.py POOL REPO STATE LEASES SEED: leases whose holders do their worst in git and beside it, at random.

In its worktree each holder writes, commits, stashes, detaches and deletes; has .git files and links lead elsewhere, puts FIFOs,
devices and endless files in the place of git's own, repositories and worktrees inside, sparse patterns, flags, hooks, filters
and settings, unreadable and immutable files, paths that are too long, mounts. What lies there before its end is noted. Then each
file must be on the branch of its lease, in a repository's commits that are kept beside it, or below STATE/kept; each commit must
be led to by a ref, or lie in the git directory that was kept; nothing that an agent named may have been run; what was mounted
must be whole; and all of the repository but refs/heads/agentpool/, refs/agentpool/ and objects must be what it was, byte for
byte. Prints what is not so, then a line of counts, and exits with 1."""

import collections
import concurrent.futures
import glob
import hashlib
import os
import random
import stat
import subprocess
import sys
import threading

pool, repo, state = sys.argv[1:4]
n_leases, seed = int(sys.argv[4]), sys.argv[5]
LOOKED_AT = 1 << 20  # bytes of a file that are compared
LIMIT = 200  # seconds that a lease may take to end
is_root = os.geteuid() == 0
work = f"{pool}.hostile"
ran = f"{work}/ran"

HOLDER = r"""
import os, random, signal, socket, subprocess, sys
note, repo, work, ran, git_dir = open(sys.argv[1], "a"), *sys.argv[3:7]
pick = random.Random(sys.argv[2])
is_root = os.geteuid() == 0
n = 0
def say(*words):
    note.write("\t".join(words) + "\n")
    note.flush()
def git(*words, at="."):
    return subprocess.run(["timeout", "-k", "1", "3", "git", "-C", at, "-c", "user.name=a", "-c", "user.email=a@e", *words], stdin=open(work + "/null"),
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60)
def committed(at="."):
    for name in ("HEAD", "refs/stash"):
        done = git("rev-parse", "-q", "--verify", name + "^{commit}", at=at)
        if done.returncode == 0:
            say("commit", done.stdout.decode().strip())
def new(prefix="n"):
    global n
    n += 1
    return prefix + str(n)
def put(path, text):
    if os.path.dirname(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    with os.fdopen(fd, "w") as file:
        file.write(text)
def write():
    name = pick.choice(["", "dir/", "a b/\u00fc/", "deep/er/", "in/", "sub/", "new\nline/"]) + pick.choice(
        ["one", "two", "-three", "sp ace", "x.log", "file-0", "file-1", "\udcff\udcfe", "a\n"])
    put(name, str(pick.random()) * pick.choice([1, 1, 1, 1000]))
def delete():
    for top, dirs, files in os.walk("."):
        dirs[:] = [d for d in dirs if d != ".git"]
        for name in files:
            if name != ".git" and pick.random() < 0.2:
                return os.unlink(os.path.join(top, name))
def commit():
    git("add", "--all")
    git("commit", "-q", "-m", "mine")
    committed()
def stash():
    put("file-0", str(pick.random()))
    git("stash", "-q")
    committed()
def inner():
    at = new("in/repo")
    git("init", "-q", at)
    put(at + "/inside", str(pick.random()))
    git("add", "--all", at=at)
    git("commit", "-q", "-m", "inner", at=at)
    committed(at)
    if pick.random() < 0.5:
        put(at + "/inside", str(pick.random()))
        git("stash", "-q", at=at)
        committed(at)
    if pick.random() < 0.5:
        put(at + "/dirty", str(pick.random()))
    if pick.random() < 0.3:
        git("add", at)
    if pick.random() < 0.3:
        spoil(at + "/.git", pick.choice(["config", "index", "packed-refs", "logs/HEAD", "objects/info/alternates", "info/exclude"]))
def lead_out():
    at = new("out/")
    put(at + "/evil", str(pick.random()))
    target = pick.choice([repo + "/.git", repo, "/", "../../..", git_dir, work + "/zero", os.path.dirname(git_dir)])
    if pick.random() < 0.5:
        put(at + "/.git", "gitdir: " + target + "\n")
    else:
        os.symlink(target, at + "/.git")
def fixture():
    at = new("fixture/")
    put(at + "/.git/" + pick.choice(["config", "HEAD", "refs/x", "objects/x"]), str(pick.random()))
    put(at + "/beside", str(pick.random()))
def spoil(at=None, name=None):
    at = at or git_dir
    name = name or pick.choice(["HEAD", "index", "logs/HEAD", "packed-refs", "config", "info/exclude", "info/attributes", "shallow",
        "objects/info/alternates", "MERGE_HEAD", "ORIG_HEAD", "refs/stash", "logs/refs/stash", "info/sparse-checkout", "modules", "index.lock"])
    path = os.path.join(at, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.lexists(path):
        subprocess.run(["rm", "-rf", path])
    say("spoilt")
    special(path)
def special(path=None):
    path = path or new(pick.choice(["special", "deep/special"]))
    if os.path.dirname(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
    way = pick.randrange(6)
    if way == 0:
        os.mkfifo(path)
    elif way == 1:
        os.symlink(pick.choice([work + "/zero", work + "/tty", "/proc/self/fd/0"]), path)
    elif way == 2:
        os.symlink(os.path.basename(path), path)
    elif way == 3:
        os.mkdir(path)
    elif way == 4:
        with open(path, "wb") as file:
            file.truncate(1 << pick.choice([20, 24, 33]) if path.startswith("/") else 1 << 22)
    elif is_root:
        os.mknod(path, 0o666 | 0o020000, os.makedev(1, 5))
def rules():
    path = pick.choice(["", "dir/", "in/"]) + pick.choice([".gitignore", ".gitattributes", ".gitmodules"])
    if os.path.dirname(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.lexists(path):
        os.unlink(path)
    if pick.random() < 0.3:
        special(path)
    else:
        put(path, pick.choice(["*.log\n", "*\n", "!x.log\n", "* filter=evil diff=evil\n", "* text eol=crlf\n"]))
def poison():
    put(work + "/evil.sh", "#!/bin/sh\ntouch " + ran + "\ncat\n")
    os.chmod(work + "/evil.sh", 0o755)
    for name in ("filter.evil.clean", "filter.evil.process", "diff.evil.textconv", "diff.external", "core.fsmonitor", "core.sshCommand",
                 "uploadpack.packObjectsHook", "gpg.program"):
        # not by git: that would run it itself
        put(git_dir + "/config.new", "")
    fd = os.open(git_dir + "/config", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o666)  # it may have been spoilt
    with os.fdopen(fd, "a") as file:
        file.write('[filter "evil"]\n\tclean = %s\n[diff "evil"]\n\ttextconv = %s\n[diff]\n\texternal = %s\n[core]\n\tfsmonitor = %s\n'
                   % ((work + "/evil.sh",) * 4))
    os.makedirs(git_dir + "/hooks", exist_ok=True)
    for name in ("post-index-change", "reference-transaction", "pre-commit", "post-checkout"):
        put(git_dir + "/hooks/" + name, "#!/bin/sh\ntouch " + ran + "\n")
        os.chmod(git_dir + "/hooks/" + name, 0o755)
    poisoned.append(True)
def too_deep():
    here = os.open(".", os.O_RDONLY)
    at = new("long")
    os.mkdir(at)
    os.chdir(at)
    for _ in range(25):
        os.mkdir("d" * 200)
        os.chdir("d" * 200)
    put("bottom", "bottom")
    os.fchdir(here)
def shut():
    at = new("shut")
    put(at + "/in/work", str(pick.random()))
    os.chmod(at + "/in", pick.choice([0o000, 0o311, 0o555]))
def immutable():
    at = new("held/")
    put(at, str(pick.random()))
    if is_root:
        subprocess.run(["chattr", pick.choice(["+i", "+a"]), at], stderr=subprocess.DEVNULL)
poisoned = []
steps = {write: 10, delete: 2, commit: 4, stash: 2, inner: 3, lead_out: 2, fixture: 1, rules: 2, special: 2, too_deep: 1, shut: 1, immutable: 1,
    lambda: spoil(): 2, poison: 1,
    lambda: (git("checkout", "-q", "--detach"), committed()): 1,
    lambda: (git("checkout", "-q", "-b", new("side-") + str(os.getpid())), committed()): 1,
    lambda: git("branch", "-D", "main"): 1,
    lambda: git("update-ref", "-d", "refs/heads/main"): 1,
    lambda: git("update-ref", "refs/heads/theirs", "HEAD"): 1,
    lambda: (git("commit", "-q", "--amend", "-a", "--no-edit", "--allow-empty"), committed()): 1,
    lambda: git("gc", "-q", "--prune=now"): 1,
    lambda: git("pack-refs", "--all"): 1,
    lambda: git("config", "user.name", "somebody"): 1,
    lambda: git("tag", new("tag-") + str(os.getpid())): 1,
    lambda: git("replace", "-f", "HEAD", "HEAD~1"): 1,
    lambda: git("worktree", "add", "-q", "--detach", new("inner-tree")): 1,
    lambda: git("worktree", "add", "-q", "--detach", work + "/" + new("outer-") + str(os.getpid())): 1,
    lambda: git("sparse-checkout", "set", "dir"): 1,
    lambda: git("update-index", pick.choice(["--assume-unchanged", "--skip-worktree"]), "file-1"): 2,
    lambda: git("update-index", "--add", "--cacheinfo", "160000," + "1" * 40 + ",link"): 1,
    lambda: os.path.lexists(".git") and os.unlink(".git"): 1,
    lambda: git("clone", "-q", "--bare", ".", new("bare") + ".git"): 1,
}
for _ in range(pick.randrange(1, 30)):
    if poisoned:  # git of this holder's own would run it
        step = pick.choice([write, delete, lead_out, fixture, special, rules])
    else:
        step = pick.choices(list(steps), weights=list(steps.values()))[0]
    try:
        step()
    except (OSError, subprocess.SubprocessError):
        pass
    if pick.random() < 0.02:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def git(*words, at=repo):
    return subprocess.run(["git", "-C", at, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)


def blob_of(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def lay(top):
    """Regular files and links: path -> blob; what is too large or cannot be read is left out, and so are directories that other
    file systems are mounted on."""
    ret, left = {}, [b""]
    top = os.fsencode(top)
    while left:
        at = left.pop()
        try:
            entries = list(os.scandir(os.path.join(top, at)))
        except OSError:
            continue
        for entry in entries:
            path = os.path.join(at, entry.name)
            if path == b".git":
                continue
            try:
                if entry.is_symlink():
                    ret[path] = blob_of(os.readlink(entry.path))
                elif entry.is_dir(follow_symlinks=False):
                    left.append(path)
                elif entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_size <= LOOKED_AT:
                    with open(entry.path, "rb") as file:
                        ret[path] = blob_of(file.read())
            except OSError:
                pass
    return ret


class Lease:
    def __init__(self, number):
        self.number, self.label = number, f"hostile-{number}"
        self.notes = f"{work}/notes-{number}"
        self.files, self.commits, self.is_spoilt = {}, set(), False
        self.wrong = []

    def control(self, file, line):
        done = subprocess.run(["timeout", str(LIMIT), "sh", "-c", 'printf "%s\\n" "$1" > "$2"', "sh", line, f"{pool}/{file}"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=False)
        if done.returncode != 0:
            with open(f"{pool}/last_error") as said:
                self.wrong.append(f"{file} '{line}': {done.returncode}: {said.read().strip()[:300]}")
        return done.returncode == 0

    def mount(self, tree, git_dir, pick):
        """Something that is the user's, in the worktree, over it or over its git."""
        data = f"{work}/precious-{self.number}"
        os.makedirs(f"{data}/below")
        for path in ("file", "below/file"):
            with open(f"{data}/{path}", "w") as file:
                file.write("precious")
        at = pick.choice([tree, f"{tree}/mounted", git_dir])
        os.makedirs(at, exist_ok=True)
        subprocess.run(["mount", "--bind", data, at], check=False, stderr=subprocess.DEVNULL)

    def run(self):
        pick = random.Random(f"{seed}-{self.number}")
        if not self.control("acquire", f"{self.label} timeout=10m"):
            return
        tree = os.readlink(f"{pool}/leases/{self.label}/worktree")
        agent = os.path.basename(os.readlink(f"{pool}/leases/{self.label}"))
        git_dir = git("rev-parse", "--absolute-git-dir", at=tree).stdout.decode().strip()
        subprocess.run([sys.executable, "-c", HOLDER, self.notes, f"{seed}-{self.number}", repo, work, ran, git_dir], cwd=tree, check=False,
                       stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.files = lay(tree)
        if is_root and pick.random() < 0.1:
            self.mount(tree, git_dir, pick)
        for name in pick.sample(["diff", "diffstat", "changes", "head"], pick.randrange(3)):
            done = subprocess.run(["timeout", str(LIMIT), "cat", f"{pool}/leases/{self.label}/{name}"], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL, check=False)
            if done.returncode == 124:
                self.wrong.append(f"{name} hangs")
        way = pick.randrange(4)
        if way == 0:
            os.unlink(f"{pool}/leases/{self.label}")
        elif way == 1:
            self.control(f"agents/{agent}/ctl", "kill")
        else:
            self.control("release", self.label)

    def read_notes(self):
        try:
            with open(self.notes) as notes:
                for line in notes:
                    what, *words = line.rstrip("\n").split("\t")
                    self.is_spoilt |= what == "spoilt"
                    if what == "commit" and words:
                        self.commits.add(words[0])
        except FileNotFoundError:
            pass

    def kept(self):
        return glob.glob(f"{glob.escape(state)}/kept/{self.label}@*")

    def check(self, base, reached):
        """How many are lost, of files and of commits."""
        self.read_notes()
        listed = git("ls-tree", "-r", "-z", f"refs/heads/agentpool/{self.label}").stdout or git("ls-tree", "-r", "-z", "HEAD").stdout
        branch = {line.split(b"\t", 1)[1]: line.split()[2].decode() for line in listed.split(b"\0")[:-1]}
        refs = git("for-each-ref", "--format=%(refname)", f"refs/agentpool/{self.label}").stdout.decode().split()
        inner = {line.split(b" ")[0].decode() for line in git("rev-list", "--objects", *refs).stdout.split(b"\n")} if refs else set()
        kept = collections.ChainMap(*(lay(f"{at}/files") for at in self.kept()))
        lost = [path for path, blob in self.files.items() if branch.get(path) != blob and kept.get(path) != blob and blob not in inner and blob not in base]
        self.wrong += [f"lost: {path!r}" for path in lost[:5]]
        gone = [oid for oid in self.commits if oid not in reached and not any(self.holds(at, oid) for at in self.kept())]
        self.wrong += [f"lost: commit {oid}" for oid in gone[:5] if not self.is_spoilt]
        return len(lost), 0 if self.is_spoilt else len(gone)

    @staticmethod
    def holds(at, oid):
        if glob.glob(f"{glob.escape(at)}/git/**/{oid[:2]}/{oid[2:]}", recursive=True) or glob.glob(f"{glob.escape(at)}/files/**/.git/objects/{oid[:2]}/{oid[2:]}", recursive=True):
            return True
        return any(oid.encode() in subprocess.run(["git", "show-index"], stdin=open(index, "rb"), stdout=subprocess.PIPE, check=False).stdout
                   for index in glob.glob(f"{glob.escape(at)}/git/objects/pack/*.idx"))


def users_side():
    ret = {}
    ours = ("refs/heads/agentpool/", "refs/agentpool/", "logs/refs/heads/agentpool/", "logs/refs/agentpool/")
    for at, dirs, names in os.walk(f"{repo}/.git"):
        inner = os.path.relpath(at, f"{repo}/.git")
        if inner == ".":
            dirs[:] = [name for name in dirs if name != "objects"]
        for name in names:
            path = os.path.normpath(f"{inner}/{name}")
            if not path.startswith(ours) and stat.S_ISREG(os.lstat(f"{at}/{name}").st_mode):
                with open(f"{at}/{name}", "rb") as file:
                    ret[path] = file.read()
    ret["packed-refs"] = [line for line in ret.get("packed-refs", b"").split(b"\n")
                          if line and not line.startswith((b"#", b"^")) and b" refs/heads/agentpool/" not in line and b" refs/agentpool/" not in line]
    ret["files"] = lay(repo)
    return ret


def watch(leases):
    """So that a hung daemon is seen, not waited for: each step of a lease has a limit of its own."""
    over = threading.Event()

    def wait():
        while os.listdir(f"{pool}/leases"):
            if over.wait(0.05):
                return
    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    thread.join(LIMIT)
    over.set()
    if thread.is_alive():
        leases[0].wrong.append(f"leases do not end: {os.listdir(f'{pool}/leases')[:5]}")


def make_devices():
    """The holders' own: git that writes through a link puts a file in the place of what it leads to, and root could do so with the machine's."""
    for name, major, minor in ("null", 1, 3), ("zero", 1, 5), ("tty", 5, 0):
        if is_root:
            os.mknod(f"{work}/{name}", 0o666 | stat.S_IFCHR, os.makedev(major, minor))
        else:
            os.symlink(f"/dev/{name}", f"{work}/{name}")


def main():
    os.makedirs(work)
    make_devices()
    before = users_side()
    base = {line.split()[2].decode() for line in git("ls-tree", "-r", "-z", "HEAD").stdout.split(b"\0")[:-1]}
    leases = [Lease(number) for number in range(n_leases)]
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        list(threads.map(Lease.run, leases))
    watch(leases)
    reached = set(git("rev-list", "--all").stdout.decode().split())
    lost = [lease.check(base, reached) for lease in leases]
    after = users_side()
    changed = sorted(path for path in {*before, *after} if before.get(path) != after.get(path))
    harmed = [at for at in glob.glob(f"{work}/precious-*") if not all(os.path.exists(f"{at}/{name}") for name in ("file", "below/file"))]
    failed = 0
    for lease in leases:
        failed += bool(lease.wrong)
        for line in lease.wrong:
            print(f"{lease.label}: {line}")
    if changed:
        print(f"the user's side of the repository has changed: {changed[:20]}")
    if harmed:
        print(f"what was mounted is not whole: {harmed}")
    if os.path.exists(ran):
        print("what an agent named was run")
    if git("fsck", "--no-progress", "--no-dangling").returncode != 0:
        print("fsck finds faults")
        failed += 1
    n_files, n_commits = sum(len(lease.files) for lease in leases), sum(len(lease.commits) for lease in leases)
    print(f"{n_leases} leases, {n_files} files, {sum(n for n, _ in lost)} lost, {n_commits} commits, {sum(n for _, n in lost)} lost, {failed} leases failed, "
          f"{len(changed)} changes of the user's")
    sys.exit(1 if failed or changed or harmed or os.path.exists(ran) or not n_files or not n_commits else 0)


main()
