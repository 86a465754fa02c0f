#!/usr/bin/env python3
"""differential.py AGENTPOOLFS CASES [SEED[:CASE]] [BACKEND] [GIT]: what the pool saves beside what git would.

AGENTPOOLFS is the daemon, best the one without programs. A case is one lease of a random repository, in whose worktree files
are written, removed, renamed, ignored, committed and so on, at random. Then the tree on the branch must be the one that
`git add --all` gives with an index of its own, and hold file for file what lay there; what `changes`, `diff` and `diffstat`
said before must be the difference to it, and nothing else in the repository may have changed. BACKEND is spawn_backend, and
GIT the option `git`; an empty word is the default of either. Prints what a case that fails did, and by which SEED:CASE it is
done again alone; ends with a line of counts, and 1 if any failed.

The index of its own is the one that the worktree was handed over with, and what the agent's index and HEAD track beside it:
what nobody touched is unchanged then, however attributes have changed. A path of the base that the agent's git does not
track any more, and that is ignored, may be in the tree or not."""

import collections
import concurrent.futures
import os
import random
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time

PER_REPOSITORY = 20  # cases
AT_ONCE = 4  # leases
LIMIT = 300  # seconds in which some case ends, else the daemon hangs
IS_ROOT = os.geteuid() == 0

os.umask(0o022)
ENV = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
ENV.update(GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_NOSYSTEM="1", GIT_AUTHOR_NAME="agent", GIT_AUTHOR_EMAIL="agent@example.org",
           GIT_COMMITTER_NAME="agent", GIT_COMMITTER_EMAIL="agent@example.org", LC_ALL="C.UTF-8")


class Failed(Exception):
    pass


def run(*words, check=True, **more):
    env = {**ENV, **more.pop("env", {})}
    done = subprocess.run(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False,
                          **({"stdin": subprocess.DEVNULL} if "input" not in more else {}), **more)
    if check and done.returncode != 0:
        raise Failed(f"{words}: {done.returncode}: {done.stderr.decode(errors='replace')}")
    return done


# --- what there is to choose from ---

DIRS = [b"d", b"d", b"sub", b"sub", b"dir one", b"-d", b"\xc3\xbc", b"\xfe\xff", b"new\nline", b"build", b"deep", b".hid"]
NAMES = [b"a.txt", b"a.txt", b"b.txt", b"plain", b"plain", b"c.log", b"keep.log", b"d.tmp", b"e.crlf", b"f.lf", b"g.id", b"h.bin",
         b"i.x", b"j.up", b"-dash", b"--all", b" lead", b"trail ", b"two  blanks", b"new\nline", b"tab\t", b"\xc3\xbc", b"u\xcc\x88",
         b"\xff\xfe", b'quote"', b"back\\slash", b"star*", b"[br]", b"#hash", b"!bang", b".hidden", b"Plain", b"a~1", b"colon:c",
         b"n" * 200]
IGNORES = [b"*.log", b"*.log", b"!keep.log", b"*.tmp", b"!*.tmp", b"build/", b"/plain", b"/d/*", b"!/d/plain", b"sub/*.tmp",
           b"**/deep", b"deep/**", b"!deep/plain", b"\\#hash", b"\\!bang", b"[a-c].txt", b"# said", b"", b"d/", b"!d/", b"*.b?n",
           b"sub", b"/*/a.txt", b"trail\\ ", b"new*", b"*~1", b"/-d", b"*.log\r"]
ATTRIBUTES = [b"*.txt text", b"*.txt text=auto", b"*.crlf text eol=crlf", b"*.lf text eol=lf", b"*.id ident", b"* text=auto",
              b"*.bin -text", b"*.bin binary", b"/d/* -text", b"[attr]both text eol=crlf", b"*.x both", b"*.up filter=up",
              b"*.up filter=nowhere", b"*.txt !text", b"sub/** text", b"*.log ident"]


def random_content(pick):
    kind = pick.randrange(12)
    if kind == 0:
        return b""
    if kind == 1:
        return bytes(pick.randrange(256) for _ in range(pick.randrange(1, 300))) + b"\0"
    if kind == 2:
        return b"long line of a long file\n" * pick.randrange(1000, 5000)
    ends = [[b"\n"], [b"\n"], [b"\r\n"], [b"\n", b"\r\n"], [b"\n", b"\r"]][pick.randrange(5)]
    words = [b"one", b"two words", b"$Id$", b"$Id: 1234 $", b"diff --git a/x b/x", b"-- ", b"\xff", b"", b"+", str(pick.random()).encode()]
    text = b"".join(pick.choice(words) + pick.choice(ends) for _ in range(pick.randrange(1, 12)))
    return text + pick.choice([b"", b"", b"no newline"])


def random_lines(pick, lines):
    return b"".join(pick.choice(lines) + b"\n" for _ in range(pick.randrange(1, 5)))


# --- files, as they lie there ---


def join(*names):
    return b"/".join(name for name in names if name)


def walk(top):
    """All directories and all else below `top`, relative, but for its .git; what cannot be read is not entered."""
    dirs, others, left = [], [], [b""]
    while left:
        at = left.pop()
        try:
            entries = sorted(os.scandir(join(top, at)), key=lambda entry: entry.name)
        except PermissionError:
            continue
        for entry in entries:
            path = join(at, entry.name)
            if path == b".git":
                continue
            if entry.is_dir(follow_symlinks=False):
                dirs.append(path)
                left.append(path)
            else:
                others.append(path)
    return dirs, others


def look(top):
    """What lies below it: path -> (mode of its kind, bits of its mode, what it holds)."""
    dirs, others = walk(top)
    ret = {path: (stat.S_IFDIR, os.lstat(join(top, path)).st_mode & 0o7777, b"") for path in dirs}
    for path in others:
        st = os.lstat(join(top, path))
        held = b""
        if stat.S_ISLNK(st.st_mode):
            held = os.readlink(join(top, path))
        elif stat.S_ISREG(st.st_mode):
            with open(join(top, path), "rb") as file:
                held = file.read()
        ret[path] = (stat.S_IFMT(st.st_mode), st.st_mode & 0o7777 if not stat.S_ISLNK(st.st_mode) else 0, held)
    return ret


def stamps(top, found):
    """What a change of a file cannot leave as it is: path -> the file itself, and when it was changed."""
    return {path: (lambda st: (st.st_ino, st.st_ctime_ns))(os.lstat(join(top, path))) for path in found}


def write_file(path, content, append=False):
    """Never through a link."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | (os.O_APPEND if append else os.O_TRUNC), 0o666)
    with os.fdopen(fd, "wb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError("no regular file")
        file.write(content)


# --- what git holds ---


class Objects:
    """The objects of a repository, by one git that stays."""

    def __init__(self, git_dir):
        self.lock = threading.Lock()
        self.git = subprocess.Popen(["git", "--git-dir", git_dir, "cat-file", "--batch"], stdin=subprocess.PIPE,
                                    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=ENV)

    def get(self, name):
        with self.lock:
            self.git.stdin.write(name.encode() + b"\n")
            self.git.stdin.flush()
            words = self.git.stdout.readline().split()
            if len(words) != 3:
                return None
            data = self.git.stdout.read(int(words[2]))
            self.git.stdout.read(1)
            return data

    def files(self, tree):
        """path -> (mode, oid) of all that a tree, or that of a commit, has below it."""
        ret = {}
        left = [(b"", f"{tree}^{{tree}}")]
        while left:
            at, name = left.pop()
            data = self.get(name)
            if data is None:
                raise Failed(f"there is no tree {name}")
            n = 0
            while n < len(data):
                end = data.index(b"\0", n)
                mode, entry = data[n:end].split(b" ", 1)
                oid = data[end + 1:end + 21].hex()
                n = end + 21
                if mode == b"40000":
                    left.append((join(at, entry), oid))
                else:
                    ret[join(at, entry)] = (int(mode, 8), oid)
        return ret

    def close(self):
        self.git.stdin.close()
        self.git.wait()


def index_files(text):
    """path -> (mode, oid) of what `git ls-files --stage -z` or `git ls-tree -r -z` prints."""
    ret = {}
    for line in text.split(b"\0")[:-1]:
        words, path = line.split(b"\t", 1)
        words = words.split()
        ret[path] = (int(words[0], 8), (words[2] if words[1] in (b"blob", b"commit") else words[1]).decode())
    return ret


# --- a random repository ---


class Repository:
    def __init__(self, work, pick):
        self.work = work
        self.path, self.own = f"{work}/repo", f"{work}/own"
        top = os.fsencode(self.path)
        run("git", "init", "-qb", "main", self.path)
        settings = {"user.name": "user", "user.email": "user@example.org", "gc.auto": "0"}
        self.converts = pick.random() < 0.6
        self.kind = []
        if self.converts and pick.random() < 0.5:
            settings["core.autocrlf"] = pick.choice(["true", "input"])
        if pick.random() < 0.1:
            settings["core.fileMode"] = "false"
        if self.converts and pick.random() < 0.3:
            settings["filter.up.clean"] = "tr a-z A-Z"
            settings["filter.up.smudge"] = "cat"
        settings_first = pick.random() < 0.5 or "core.fileMode" in settings
        if settings_first:
            self.configure(settings)
        for _ in range(pick.randrange(5, 40)):
            self.make_something(top, pick)
        if pick.random() < 0.3:
            write_file(join(top, b".git/info/exclude"), random_lines(pick, IGNORES))
        if self.converts and pick.random() < 0.3:
            write_file(join(top, b".git/info/attributes"), random_lines(pick, ATTRIBUTES))
        write_file(join(top, b"first"), b"first\n")
        run("git", "-C", self.path, "add", "--all", *(["--force"] if pick.random() < 0.3 else []))
        run("git", "-C", self.path, "-c", "user.name=user", "-c", "user.email=u@e", "commit", "-qm", "first")
        if pick.random() < 0.2:
            settings["core.ignoreCase"] = "true"  # as git sets it on a Mac
        self.configure(settings)
        for path in os.listdir(top):  # as git checks it out
            if path != b".git":
                run("rm", "-rf", join(top, path))
        run("git", "-C", self.path, "reset", "-q", "--hard")
        top_dirs = sorted({path.split(b"/")[0] for path in walk(top)[1] if b"/" in path and not path.startswith((b"-", b'"'))})
        plain = [path for path in top_dirs if path.isalpha()]
        self.is_sparse = bool(plain) and pick.random() < 0.2
        if self.is_sparse:
            run("git", "-C", self.path, "sparse-checkout", "set", "--cone", *pick.sample(plain, pick.randrange(1, len(plain) + 1)))
        self.settings = settings
        self.commit = run("git", "-C", self.path, "rev-parse", "HEAD").stdout.decode().strip()
        self.checkout = {path: what for path, what in look(top).items() if what[0] != stat.S_IFDIR}
        for path in list(self.checkout):
            while b"/" in path:
                path = path.rsplit(b"/", 1)[0]
                self.checkout[path] = (stat.S_IFDIR, 0o755, b"")
        self.prepare_own()
        self.objects = Objects(f"{self.path}/.git")
        self.base = self.objects.files(self.commit)
        self.before = self.fingerprint()

    def configure(self, settings):
        for name, value in settings.items():
            run("git", "-C", self.path, "config", name, value)

    def make_something(self, top, pick):
        at = join(*(pick.choice(DIRS) for _ in range(pick.choice([0, 0, 1, 1, 1, 2, 3]))))
        try:
            if at:
                os.makedirs(join(top, at), exist_ok=True)
            what = pick.randrange(12)
            if what == 0:
                write_file(join(top, at, b".gitignore"), random_lines(pick, IGNORES))
            elif what == 1 and self.converts:
                write_file(join(top, at, b".gitattributes"), random_lines(pick, ATTRIBUTES))
            elif what == 2:
                os.symlink(pick.choice([b"plain", b"..", b"nowhere", b"d"]), join(top, at, pick.choice(NAMES)))
            else:
                path = join(top, at, pick.choice(NAMES))
                write_file(path, random_content(pick))
                if pick.random() < 0.2:
                    os.chmod(path, 0o755)
        except OSError:
            pass  # a file where a directory would be

    def prepare_own(self):
        """Two git directories of our own: one with the repository's settings and rules, one with none."""
        shutil.copytree(f"{self.path}/.git", f"{self.own}/as-it-is", ignore=lambda at, names: ["objects"] if at.endswith(".git") else [])
        os.mkdir(f"{self.own}/as-it-is/objects")
        run("git", "init", "-q", "--bare", f"{self.own}/plain")
        run("git", "--git-dir", f"{self.own}/plain", "read-tree", self.commit, env=self.borrowing())

    def borrowing(self, *more):
        return {"GIT_ALTERNATE_OBJECT_DIRECTORIES": ":".join([f"{self.path}/.git/objects", *more])}

    def fingerprint(self):
        """What is the user's of it: file -> what it holds."""
        ret = {}
        git_dir = f"{self.path}/.git"
        ours = ("refs/heads/agentpool", "refs/agentpool", "logs/refs/heads/agentpool", "logs/refs/agentpool")
        for at, dirs, names in os.walk(git_dir):
            inner = os.path.relpath(at, git_dir)
            if inner == ".":
                dirs[:] = [name for name in dirs if name != "objects"]
            for name in names:
                path = os.path.normpath(f"{inner}/{name}")
                if not path.startswith(tuple(f"{prefix}/" for prefix in ours)):
                    with open(f"{at}/{name}", "rb") as file:
                        ret[path] = file.read()
        refs = [line for line in ret.pop("packed-refs", b"").split(b"\n")
                if line and not line.startswith((b"#", b"^")) and b" refs/heads/agentpool/" not in line and b" refs/agentpool/" not in line]
        ret["packed-refs"] = b"\n".join(refs)
        for path, what in look(os.fsencode(self.path)).items():
            ret[f"files: {path!r}"] = what
        return ret

    def end(self):
        self.objects.close()
        after = self.fingerprint()
        changed = sorted(path for path in {*after, *self.before} if after.get(path) != self.before.get(path))
        if changed:
            raise Failed(f"the user's side of the repository has changed: {changed[:20]}")
        run("git", "-C", self.path, "-c", "fsck.gitattributesBlob=ignore", "-c", "fsck.gitattributesSymlink=ignore", "fsck", "--no-progress", "--strict", "--no-dangling")

    def __str__(self):
        return f"{self.settings}{' sparse' if self.is_sparse else ''}, {len(self.base)} files"


# --- what a holder does ---


class Holder:
    """Does something to a worktree at each step; what fails is no step."""

    def __init__(self, top, pick, converts):
        self.top, self.pick, self.converts = top, pick, converts
        self.did = []
        self.used_git = False

    def git(self, *words):
        self.used_git = True
        done = run("git", "-C", self.top, *words, check=False, env={"GIT_CEILING_DIRECTORIES": os.path.dirname(os.fsdecode(self.top))})
        if done.returncode != 0:
            raise OSError(f"git: {done.stderr.decode(errors='replace').strip()[:80]}")

    def some_dir(self):
        return self.pick.choice([b"", *walk(self.top)[0]])

    def inner_dir(self):
        dirs = walk(self.top)[0]
        if not dirs:
            raise OSError("no directory")
        return self.pick.choice(dirs)

    def some_file(self):
        files = walk(self.top)[1]
        if not files:
            raise OSError("no file")
        return self.pick.choice(files)

    def new_path(self):
        at = self.some_dir()
        if self.pick.random() < 0.3:
            at = join(at, self.pick.choice(DIRS))
            os.makedirs(join(self.top, at), exist_ok=True)
        return join(at, self.pick.choice(NAMES))

    def full(self, path):
        return join(self.top, path)

    def write(self):
        path = self.new_path()
        write_file(self.full(path), random_content(self.pick))
        return path

    def rewrite(self):
        path = self.some_file()
        write_file(self.full(path), random_content(self.pick))
        return path

    def append(self):
        path = self.some_file()
        write_file(self.full(path), self.pick.choice([b"more\n", b"more\r\n", b"x"]), append=True)
        return path

    def write_again(self):
        """The same bytes, at another time, as of another file or not."""
        path = self.some_file()
        if not stat.S_ISREG(os.lstat(self.full(path)).st_mode):
            raise OSError("no file")
        with open(self.full(path), "rb") as file:
            content = file.read()
        if self.pick.random() < 0.5:
            os.unlink(self.full(path))
        write_file(self.full(path), content)
        return path

    def write_at_old_time(self):
        """Of the same length and the same time."""
        path = self.some_file()
        st = os.lstat(self.full(path))
        if not stat.S_ISREG(st.st_mode) or st.st_size == 0:
            raise OSError("no file")
        write_file(self.full(path), bytes(self.pick.choice(b"xyz") for _ in range(st.st_size)))
        os.utime(self.full(path), ns=(st.st_atime_ns, st.st_mtime_ns))
        return path

    def delete(self):
        path = self.some_file()
        os.unlink(self.full(path))
        return path

    def chmod(self):
        path = self.some_file()
        if not stat.S_ISREG(os.lstat(self.full(path)).st_mode):
            raise OSError("no file")
        mode = self.pick.choice([0o755, 0o755, 0o644, 0o700, 0o600, 0o444, 0o555, 0o654] + ([0o000, 0o100, 0o010] if IS_ROOT else []))
        os.chmod(self.full(path), mode)
        return path, oct(mode)

    def chmod_dir(self):
        path = self.inner_dir()
        mode = self.pick.choice([0o700, 0o777, 0o555])
        os.chmod(self.full(path), mode)
        return path, oct(mode)

    def link(self):
        path = self.new_path()
        to = self.pick.choice([b"plain", b"..", b".", b"/nowhere", b"\xff", b"../../..", b"x" * 300, self.some_dir() or b"d"])
        os.symlink(to, self.full(path))
        return path, to

    def file_to_link(self):
        path = self.some_file()
        os.unlink(self.full(path))
        os.symlink(b"plain", self.full(path))
        return path

    def dir_to_link(self):
        """To another directory, or to where its files are now."""
        path = self.inner_dir()
        to = path + b".moved"
        os.rename(self.full(path), self.full(to))
        os.symlink(os.path.basename(to), self.full(path))
        return path

    def rename(self):
        path, to = self.some_file(), self.new_path()
        os.rename(self.full(path), self.full(to))
        return path, to

    def rename_dir(self):
        path = self.inner_dir()
        to = join(self.some_dir(), self.pick.choice(DIRS))
        if to.startswith(path + b"/") or to == path:
            raise OSError("into itself")
        os.rename(self.full(path), self.full(to))
        return path, to

    def rename_dir_twice(self):
        path = self.inner_dir()
        os.rename(self.full(path), self.full(path + b"1"))
        os.rename(self.full(path + b"1"), self.full(path + b"2"))
        return path

    def rename_dir_and_back(self):
        path = self.inner_dir()
        os.rename(self.full(path), self.full(path + b"1"))
        os.rename(self.full(path + b"1"), self.full(path))
        return path

    def rename_dir_into_new(self):
        path = self.inner_dir()
        new = join(self.some_dir(), self.pick.choice([b"new-dir", b"build", b"deep"]))
        if new.startswith(path + b"/") or new == path:
            raise OSError("into itself")
        os.mkdir(self.full(new))
        os.rename(self.full(path), self.full(join(new, self.pick.choice(DIRS))))
        return path, new

    def swap_dirs(self):
        one, two = self.inner_dir(), self.inner_dir()
        if one.startswith(two) or two.startswith(one):
            raise OSError("one in the other")
        os.rename(self.full(one), self.full(b"swapped"))
        os.rename(self.full(two), self.full(one))
        os.rename(self.full(b"swapped"), self.full(two))
        return one, two

    def file_to_dir(self):
        path = self.some_file()
        os.unlink(self.full(path))
        os.mkdir(self.full(path))
        if self.pick.random() < 0.7:
            write_file(self.full(join(path, self.pick.choice(NAMES))), random_content(self.pick))
        return path

    def dir_to_file(self):
        path = self.inner_dir()
        shutil.rmtree(self.full(path))
        write_file(self.full(path), random_content(self.pick))
        return path

    def remove_dir(self):
        path = self.inner_dir()
        shutil.rmtree(self.full(path))
        return path

    def make_dir_again(self):
        """Removed and made again, with some of the names that were in it."""
        path = self.inner_dir()
        dirs, others = walk(self.full(path))
        shutil.rmtree(self.full(path))
        os.mkdir(self.full(path))
        for name in dirs:
            if self.pick.random() < 0.7:
                os.makedirs(self.full(join(path, name)), exist_ok=True)
        for name in others:
            if self.pick.random() < 0.5 and os.path.isdir(os.path.dirname(self.full(join(path, name)))):
                write_file(self.full(join(path, name)), random_content(self.pick))
        return path

    def empty_dir(self):
        path = join(self.some_dir(), self.pick.choice(DIRS))
        os.mkdir(self.full(path))
        return path

    def hard_link(self):
        path, to = self.some_file(), self.new_path()
        os.link(self.full(path), self.full(to), follow_symlinks=False)
        return path, to

    def ignore(self):
        path, lines = join(self.some_dir(), b".gitignore"), random_lines(self.pick, IGNORES)
        write_file(self.full(path), lines)
        return path, lines

    def attribute(self):
        if not self.converts:
            raise OSError("not in this repository")
        path, lines = join(self.some_dir(), b".gitattributes"), random_lines(self.pick, ATTRIBUTES)
        write_file(self.full(path), lines)
        return path, lines

    def rules_to_other(self):
        """A link, or a directory, in place of a file of rules."""
        path = join(self.some_dir(), self.pick.choice([b".gitignore", b".gitattributes"]))
        if os.path.lexists(self.full(path)):
            os.unlink(self.full(path))
        if self.pick.random() < 0.5:
            write_file(self.full(b"other-rules"), b"*\n")
            os.symlink(os.path.relpath(self.full(b"other-rules"), os.path.dirname(self.full(path))), self.full(path))
        else:
            os.mkdir(self.full(path))
        return path

    def special(self):
        path = join(self.some_dir(), b"special-%d" % len(self.did))
        if self.pick.random() < 0.5:
            os.mkfifo(self.full(path))
        else:
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(os.path.relpath(self.full(path)) if len(self.full(path)) > 100 else self.full(path))
        return path

    def git_add(self):
        self.git("add", "--all")

    def git_add_forced(self):
        path = self.some_file()
        self.git("add", "--force", "--", b":(literal)" + path)
        return path

    def git_add_forced_dir(self):
        path = self.inner_dir()
        self.git("add", "--force", "--", b":(literal)" + path)
        return path

    def git_intend(self):
        path = self.some_file()
        self.git("add", "--intent-to-add", "--", b":(literal)" + path)
        return path

    def git_commit(self):
        self.git("add", "--all")
        self.git("commit", "-qm", f"commit {len(self.did)}")

    def git_commit_known(self):
        self.git("commit", "-qam", f"commit {len(self.did)}")

    def git_commit_staged(self):
        self.git("commit", "-qm", f"commit {len(self.did)}")

    def git_amend(self):
        self.git("commit", "-q", "--amend", "--no-edit", "--all")

    def git_remove(self):
        path = self.some_file()
        self.git("rm", "-q", "--force", "--", b":(literal)" + path)
        return path

    def git_forget(self):
        path = self.some_file()
        self.git("rm", "-q", "--cached", "--", b":(literal)" + path)
        return path

    def git_move(self):
        path, to = self.some_file(), self.new_path()
        self.git("mv", "--force", "--", path, to)
        return path, to

    def git_stash(self):
        words = self.pick.choice([[], ["-u"], ["--keep-index"], ["--all"]])
        self.git("stash", "push", "-q", *words)
        return words

    def git_pop(self):
        self.git("stash", "pop", "-q")

    def git_detach(self):
        self.git("checkout", "-q", "--detach")

    def git_branch(self):
        name = f"side-{self.pick.randrange(10**9)}"
        self.git("checkout", "-q", "-b", name)
        return name

    def git_reset(self):
        words = self.pick.choice([["--hard"], ["--mixed"], ["--soft", "HEAD~1"], ["--hard", "HEAD~1"], ["--mixed", "HEAD~1"]])
        self.git("reset", "-q", *words)
        return words

    def git_flag(self):
        path, flag = self.some_file(), self.pick.choice(["--assume-unchanged", "--skip-worktree"])
        self.git("update-index", flag, "--", path)
        return path, flag

    def git_refresh(self):
        self.git("status", "--porcelain")

    def git_set(self):
        name, value = self.pick.choice([("core.fileMode", "false"), ("core.autocrlf", "input"), ("core.ignoreCase", "true"),
                                        ("core.excludesFile", "/dev/null"), ("core.quotePath", "false"), ("core.symlinks", "false")])
        self.git("config", name, value)
        return name, value

    def git_clean(self):
        self.git("clean", "-qfd")

    STEPS = {write: 12, rewrite: 6, append: 6, write_again: 2, write_at_old_time: 2, delete: 5, chmod: 4, chmod_dir: 1, link: 2,
             file_to_link: 1, dir_to_link: 1, rename: 4, rename_dir: 3, rename_dir_twice: 2, rename_dir_and_back: 1,
             rename_dir_into_new: 2, swap_dirs: 1, file_to_dir: 2, dir_to_file: 1, remove_dir: 2, make_dir_again: 2, empty_dir: 1,
             hard_link: 1, ignore: 3, attribute: 2, rules_to_other: 1, special: 1}
    GIT_STEPS = {git_add: 3, git_add_forced: 3, git_add_forced_dir: 1, git_intend: 1, git_commit: 4, git_commit_known: 2,
                 git_commit_staged: 2, git_amend: 1, git_remove: 1, git_forget: 1, git_move: 1, git_stash: 2, git_pop: 2,
                 git_detach: 1, git_branch: 1, git_reset: 2, git_flag: 2, git_refresh: 1, git_set: 1, git_clean: 1}

    def work(self):
        steps = dict(self.STEPS)
        if self.pick.random() < 0.5:
            steps.update(self.GIT_STEPS)
        wanted = self.pick.choice([0, 1, 2, 3, 5, 8, 13, 21])
        for _ in range(wanted * 3):  # some steps cannot be taken
            if len(self.did) >= wanted:
                break
            step = self.pick.choices(list(steps), weights=list(steps.values()))[0]
            try:
                self.did.append((step.__name__, step(self)))
            except (OSError, ValueError):  # ValueError: of Python, for a path that is gone
                pass


# --- what must come of it ---


class Expected:
    """What git makes of a worktree as it lies there."""

    def __init__(self, repository, holder, top, git_dir, first_index, first_stamps, scratch):
        index = f"{scratch}/index"
        shutil.copy2(first_index, index)  # with its time: git compares those of files with it
        env = {
            "GIT_DIR": f"{repository.own}/as-it-is", "GIT_WORK_TREE": os.fsdecode(top), "GIT_INDEX_FILE": index,
            "GIT_OBJECT_DIRECTORY": f"{scratch}/objects", **repository.borrowing(f"{git_dir}/objects"), "GIT_CONFIG_COUNT": "3",
            # those of the file system that the files lie on
            "GIT_CONFIG_KEY_0": "core.ignoreCase", "GIT_CONFIG_VALUE_0": "false",
            "GIT_CONFIG_KEY_1": "core.fileMode", "GIT_CONFIG_VALUE_1": "true",
            "GIT_CONFIG_KEY_2": "core.safecrlf", "GIT_CONFIG_VALUE_2": "false"}
        os.mkdir(f"{scratch}/objects")
        self.lay = look(top)
        tracked = repository.base
        self.head = None
        self.stashes = []
        if holder.used_git:
            tracked = self.ask_git(top)
        # git compares seconds: it is told what has been touched since, so that it reads that again
        now = stamps(top, self.lay)
        touched = {path: what for path, what in {**tracked, **repository.base}.items()
                   if self.lay.get(path, (0,))[0] in (stat.S_IFREG, stat.S_IFLNK) and
                   (path not in repository.base or now[path] != first_stamps.get(path))}
        if touched:
            run("git", "update-index", "--replace", "-z", "--index-info", env=env,
                input=b"".join(b"%o %s\t%s\0" % (mode, oid.encode(), path) for path, (mode, oid) in touched.items()))
        gone = [path for path in repository.base if path not in tracked and path in self.lay]
        self.may_be = set()
        if gone:
            ignored = run("git", "check-ignore", "--no-index", "-z", "--stdin", env=env, input=b"\0".join(gone), check=False).stdout
            self.may_be = set(ignored.split(b"\0")) - {b""}
        # git refuses to add what became a FIFO or a socket; no tree can hold it, as if it was removed
        special = [path for path in {**tracked, **repository.base} if path_is_special(os.path.join(top, path))]
        if special:
            run("git", "update-index", "-z", "--force-remove", "--stdin", env=env, input=b"".join(path + b"\0" for path in special))
        # attributes that are gone, or no file any more, decide nothing; git would read them from the index until it has
        # removed them there
        stale = [path for path in {**tracked, **repository.base} if os.path.basename(path) == b".gitattributes" and
                 self.lay.get(path, (0,))[0] != stat.S_IFREG and (path not in repository.base or path in first_stamps)]
        if stale:
            run("git", "update-index", "-z", "--force-remove", "--stdin", env=env, input=b"".join(path + b"\0" for path in stale))
        run("git", "add", "--all", "--sparse", env=env)
        # but they are tracked, also where new ones would be ignored
        links = [path for path in stale if self.lay.get(path, (0,))[0] == stat.S_IFLNK]
        if links:
            run("git", "update-index", "-z", "--add", "--stdin", env=env, input=b"".join(path + b"\0" for path in links))
        self.files = index_files(run("git", "ls-files", "--stage", "-z", env=env).stdout)

    def ask_git(self, top):
        """What HEAD and the index of the agent's git track."""
        env = {"GIT_OPTIONAL_LOCKS": "0"}
        listed = run("git", "-C", top, "ls-tree", "-r", "-z", "HEAD", env=env).stdout
        tracked = index_files(listed)
        tracked.update(index_files(run("git", "-C", top, "ls-files", "--stage", "-z", env=env).stdout))
        self.head = run("git", "-C", top, "rev-parse", "HEAD", env=env).stdout.decode().strip()
        self.stashes = run("git", "-C", top, "log", "-g", "--format=%H", "refs/stash", "--", env=env, check=False).stdout.decode().split()
        return tracked


def path_is_special(full):
    try:
        mode = os.lstat(full).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode))


def unquote(text):
    """A path as git prints it."""
    if not text.startswith(b'"'):
        return text
    plain = {b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
    return re.sub(rb"\\([0-7]{3}|.)", lambda at: bytes([int(at[1], 8)]) if len(at[1]) == 3 else plain.get(at[1], at[1]), text[1:-1])


def split_diff(diff):
    """The text of a diff that can be applied, the paths of its binary files, and those of them that go."""
    texts, binary, gone = [], set(), set()
    for section in re.split(rb"(?m)^(?=diff --git )", diff):
        if not re.search(rb"(?m)^Binary files .* differ$", section):
            texts.append(section)
            continue
        renamed = {what: unquote(path) for what, path in re.findall(rb"(?m)^(rename from|rename to|copy to) (.*)$", section)}
        if renamed:
            binary |= set(renamed.values())
            gone |= {renamed[b"rename from"]} if b"rename from" in renamed else set()
            continue
        names = section.split(b"\n", 1)[0][len(b"diff --git "):]
        if names.startswith(b'"'):
            path = unquote(re.match(rb'"(?:[^"\\]|\\.)*"', names)[0])[2:]
        else:
            path = names[2:2 + (len(names) - 5) // 2]
        binary.add(path)
        if re.search(rb"(?m)^deleted file mode", section):
            gone.add(path)
    return b"".join(texts), binary, gone


def changed_paths(text):
    """The paths of a short status."""
    ret = set()
    for line in text.split(b"\n")[:-1]:
        if len(line) < 4 or line[2:3] != b" ":
            raise Failed(f"changes: {line!r} is no line of git status --porcelain")
        for name in re.findall(rb'"(?:[^"\\]|\\.)*"|.+', line[3:]):
            ret |= {unquote(one) for one in ([name] if name.startswith(b'"') else name.split(b" -> "))} - {b" -> "}
    return ret


def lines_of(data):
    return data.count(b"\n") + (not data.endswith(b"\n") and data != b"")


def differences(one, two, skipped=frozenset()):
    return sorted(path for path in {*one, *two} - set(skipped) if one.get(path) != two.get(path))


def say_differences(name, is_, should_be, paths):
    return [f"{name}: {path!r} is {is_.get(path)}, should be {should_be.get(path)}" for path in paths[:6]] + [f"{name}: and {len(paths) - 6} more"] * (len(paths) > 6)


def same_content(disk, blob, repository):
    if disk == blob:
        return True
    if not repository.converts:
        return False
    # a filter comes before $Id$ is made short, and may have changed its letters
    plain = [re.sub(rb"(?i)\$Id:[^$\n]*\$", b"$Id$", data.replace(b"\r\n", b"\n")) for data in (disk, blob)]
    return plain[0] == plain[1] or ("filter.up.clean" in repository.settings and plain[0].upper() == plain[1].upper())


class Case:
    def __init__(self, number, repository, pool, seed):
        self.number, self.repository, self.pool = number, repository, pool
        self.label = f"case-{number}"
        self.pick = random.Random(f"{seed}:{number}")
        self.scratch = f"{repository.work}/{self.label}"
        self.wrong = []
        self.holder = None

    def control(self, file, line):
        try:
            with open(f"{self.pool}/{file}", "w") as opened:
                opened.write(line + "\n")
        except OSError as error:
            with open(f"{self.pool}/last_error") as opened:
                raise Failed(f"{file}: {error}: {opened.read().strip()}") from None

    def git_reads_its_own(self, env):
        """Whether git applies what it prints of the same: not if a name ends with a blank before a slash, say, or if
        a directory comes in the place of a link that is renamed."""
        branch = f"refs/heads/agentpool/{self.label}"
        commit = branch if self.repository.objects.get(branch) is not None else self.repository.commit
        where = ("git", "--git-dir", f"{self.repository.path}/.git", "-c", "core.quotePath=false")
        patch = run(*where, "diff-tree", "-r", "-p", "-M", self.repository.commit, commit).stdout
        return run("git", "apply", "--cached", "--check", env=env, input=split_diff(patch)[0], check=False).returncode == 0

    def read(self, name):
        try:
            with open(f"{self.pool}/leases/{self.label}/{name}", "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            with open(f"{self.pool}/last_error") as opened:
                self.wrong.append(f"{name}: {error}: {opened.read().strip()}")
            return None

    def run(self):
        os.mkdir(self.scratch)
        self.control("acquire", f"{self.label} timeout=5m")
        top = os.fsencode(os.readlink(f"{self.pool}/leases/{self.label}/worktree"))
        git_dir = run("git", "-C", top, "rev-parse", "--absolute-git-dir").stdout.decode().rstrip("\n")
        shutil.copy2(f"{git_dir}/index", f"{self.scratch}/first-index")
        found = look(top)
        self.wrong += say_differences("at the grant", found, self.repository.checkout, differences(found, self.repository.checkout))
        first_stamps = stamps(top, found)
        self.holder = Holder(top, self.pick, self.repository.converts)
        self.holder.work()
        texts = {name: self.read(name) for name in ("changes", "diff", "diffstat")}
        expected = Expected(self.repository, self.holder, top, git_dir, f"{self.scratch}/first-index", first_stamps, self.scratch)
        self.control("release", self.label)
        self.compare(expected, texts)
        shutil.rmtree(self.scratch)

    def compare(self, expected, texts):
        objects = self.repository.objects
        branch = f"refs/heads/agentpool/{self.label}"
        is_there = objects.get(branch) is not None
        files = objects.files(branch) if is_there else self.repository.base
        # Of a file with the bytes of the checkout, the times that are found decide whether its blob stays or is
        # made anew by the rules of today: the one is as right as the other.
        base, checkout = self.repository.base, self.repository.checkout
        kept = {path for path, (mode, oid) in files.items()
                if path in base and path in expected.files and expected.files[path][0] == mode
                and base[path][1] in (oid, expected.files[path][1])
                and expected.lay.get(path, (0, 0, b""))[2] == checkout.get(path, (0, 0, None))[2]}
        self.wrong += say_differences("on the branch" if is_there else "without a branch", files, expected.files,
                                      differences(files, expected.files, expected.may_be | kept))
        for path, (mode, oid) in files.items():
            kind, bits, held = expected.lay.get(path, (0, 0, b""))
            if kind == 0:
                continue  # sparse, or wrong and said above
            if kind != stat.S_IFMT(mode) or (kind == stat.S_IFREG and bool(bits & 0o100) != (mode == 0o100755)):
                self.wrong.append(f"{path!r}: mode {mode:o} of what lay there with {kind | bits:o}")
            elif not same_content(held, objects.get(oid), self.repository):
                self.wrong.append(f"{path!r}: what lay there is not what {oid} holds")
        if expected.head and is_there and expected.head != self.repository.commit:
            if run("git", "-C", self.repository.path, "merge-base", "--is-ancestor", expected.head, branch, check=False).returncode != 0:
                self.wrong.append(f"HEAD {expected.head} does not lead to the branch")
        for oid in expected.stashes:
            if objects.get(oid) is None:
                self.wrong.append(f"a stash is lost: {oid}")
        self.compare_looks(files, texts)

    def compare_looks(self, files, texts):
        base, objects = self.repository.base, self.repository.objects
        changed = set(differences(files, base))
        if texts["changes"] is not None:
            said = changed_paths(texts["changes"])
            if said != changed:
                self.wrong.append(f"changes: {sorted(said ^ changed)[:6]} are in it or in the tree, not in both")
        if texts["diff"] is None or texts["diffstat"] is None:
            return
        diff, binary, gone = split_diff(texts["diff"])
        applied = base
        if diff:
            index = f"{self.scratch}/applied"
            shutil.copy2(f"{self.repository.own}/plain/index", index)
            env = {"GIT_DIR": f"{self.repository.own}/plain", "GIT_INDEX_FILE": index, **self.repository.borrowing(),
                   "GIT_OBJECT_DIRECTORY": f"{self.scratch}/objects", "GIT_WORK_TREE": self.scratch}
            if gone:
                run("git", "update-index", "-z", "--force-remove", "--stdin", env=env, input=b"".join(path + b"\0" for path in gone))
            done = run("git", "apply", "--cached", "--whitespace=nowarn", env=env, input=diff, check=False)
            if done.returncode != 0:
                if self.git_reads_its_own(env):
                    self.wrong.append(f"diff: does not apply: {done.stderr.decode(errors='replace').strip()[:300]}")
                return
            applied = index_files(run("git", "ls-files", "--stage", "-z", env=env).stdout)
        if not binary <= changed:
            self.wrong.append(f"diff: {binary - changed} are not changed")
        self.wrong += say_differences("diff applied", applied, files, differences(applied, files, binary))
        numbers = {word: int(n) for n, word in re.findall(rb"(\d+) (file|insertion|deletion)", texts["diffstat"].rsplit(b"\n", 2)[-2] if texts["diffstat"] else b"")}
        net = sum(lines_of(objects.get(tree[path][1])) * sign for path in changed - binary for tree, sign in ((files, 1), (base, -1))
                  if path in tree and tree[path][0] != 0o160000)
        # Where a link comes in the place of a binary file, git counts one binary file, and the library a link that is
        # new beside what became of the file. And the library takes a binary file that is gone and a text that is new
        # for one that was renamed, where they are alike, and counts no lines of it.
        other_kind = any(path in files and path in base and stat.S_IFMT(files[path][0]) != stat.S_IFMT(base[path][0]) for path in binary)
        may_pair = any((path in files) != (path in base) for path in binary) and changed - set(files) and changed - set(base)
        if other_kind or may_pair:
            net = numbers.get(b"insertion", 0) - numbers.get(b"deletion", 0)
        # git looks up attributes for files alone; the library takes a link for binary whose name they say so of.
        links = sum(stat.S_ISLNK(tree[path][0]) for path in changed for tree in (files, base) if path in tree)
        counted = numbers.get(b"insertion", 0) - numbers.get(b"deletion", 0)
        if len(re.findall(rb"\| +Bin ", texts["diffstat"])) > len(binary) and abs(counted - net) <= links:
            net = counted
        if (numbers.get(b"file", 0) > 0) != bool(changed) or numbers.get(b"insertion", 0) - numbers.get(b"deletion", 0) != net:
            self.wrong.append(f"diffstat: {numbers} is not {len(changed)} paths and {net} lines more")


# --- a pool for each repository ---


class Pool:
    def __init__(self, daemon, work, repository, options):
        self.mount, self.log = f"{work}/pool", f"{work}/log"
        if not IS_ROOT:  # whose overlays are where this process is not, and git resolves links by itself
            options += ",spawn_backend=copy"
        os.mkdir(self.mount)
        with open(self.log, "w") as log:
            self.daemon = subprocess.Popen(
                [daemon, "-f", "-o", f"state_dir={work}/state,min_pool_size={AT_ONCE},max_pool_size={AT_ONCE}{options}", repository.path,
                 self.mount, "--", "fake"], env={**ENV, "HOME": work}, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + LIMIT
        while not os.path.exists(f"{self.mount}/acquire"):
            if self.daemon.poll() is not None or time.monotonic() > deadline:
                self.daemon.kill()
                raise Failed(f"no mount: {self.said()}")
            time.sleep(0.01)

    def said(self):
        with open(self.log, errors="replace") as log:
            return log.read().strip()

    def end(self):
        subprocess.run(["fusermount3", "-u", self.mount], check=False)
        try:
            self.daemon.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            raise Failed(f"the daemon {self.daemon.pid} does not end") from None
        if self.said():
            raise Failed(f"the daemon said: {self.said()}")


class Watch:
    """Ends a daemon that hangs: whoever waits for it is refused then."""

    def __init__(self):
        self.alive = time.monotonic()
        self.pool = None
        threading.Thread(target=self.watch, daemon=True).start()

    def tick(self):
        self.alive = time.monotonic()

    def watch(self):
        while True:
            time.sleep(1)
            if self.pool and time.monotonic() - self.alive > LIMIT:
                print(f"no case has ended in {LIMIT} s: the daemon hangs", flush=True)
                self.pool.daemon.kill()
                subprocess.run(["umount", "-l", self.pool.mount], check=False)
                self.tick()


def one_case(number, repository, pool, seed, watch):
    case = Case(number, repository, pool.mount, seed)
    try:
        case.run()
    except (Failed, OSError) as error:
        case.wrong.append(f"{type(error).__name__}: {error}")
    watch.tick()
    return case


def one_repository(first, numbers, daemon, seed, options, watch, counts):
    """Runs the cases of one repository. How many failed."""
    work = tempfile.mkdtemp(prefix="agentpool-differential-")
    failed = 0
    name = f"{seed}:{numbers[0]}"
    try:
        pick = random.Random(f"{seed}:repository:{first}")
        repository = Repository(work, pick)
        options += pick.choice(["", ",on_release=keep", ",on_release=restart"])
        pool = Pool(daemon, work, repository, options)
        watch.pool = pool
        try:
            with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as threads:
                for case in threads.map(lambda number: one_case(number, repository, pool, seed, watch), numbers):
                    counts["steps"] += len(case.holder.did) if case.holder else 0
                    if case.wrong:
                        failed += 1
                        counts.update(line.split(":")[0] for line in case.wrong if not line.startswith(("b'", 'b"')))
                        print(f"failed: {seed}:{case.number}: repository {repository}{options}")
                        for did in case.holder.did if case.holder else []:
                            print(f"    did {did[0]} {did[1] if did[1] is not None else ''}")
                        print("\n".join(f"    {line[:500]}" for line in case.wrong), flush=True)
        finally:
            watch.pool = None
            pool.end()
        repository.end()
    except (Failed, OSError) as error:
        failed += 1
        counts[str(error).split(":", maxsplit=1)[0]] += 1
        print(f"failed: the cases from {name}: {error}", flush=True)
    finally:
        if not os.environ.get("KEEP"):
            subprocess.run(["chmod", "-R", "u+rwx", work], check=False, stderr=subprocess.DEVNULL)
            shutil.rmtree(work, ignore_errors=True)
    return failed


def main():
    daemon = os.path.abspath(sys.argv[1])
    n_cases = int(sys.argv[2])
    seed, _, only = (sys.argv[3] if len(sys.argv) > 3 and sys.argv[3] else "1").partition(":")
    options = "".join(f",{name}={word}" for name, word in zip(("spawn_backend", "git"), sys.argv[4:]) if word)
    os.chdir("/")  # git looks at the names of an index where it is, too
    numbers = [int(only)] if only else list(range(n_cases))
    # one that another thread takes would interrupt what a thread waits for in the mount
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    watch, counts, failed, n_done = Watch(), collections.Counter(), 0, 0
    for first in sorted({number - number % PER_REPOSITORY for number in numbers}):
        here = [number for number in numbers if first <= number < first + PER_REPOSITORY]
        failed += one_repository(first, here, daemon, seed, options, watch, counts)
        n_done += len(here)
        if n_done // 1000 > (n_done - len(here)) // 1000:  # of a run that is broken off, how far it came
            print(f"so far {n_done} cases, {failed} failed", file=sys.stderr, flush=True)
    steps = counts.pop("steps", 0)
    why = "".join(f", {n} {what}" for what, n in counts.most_common())
    print(f"{len(numbers)} cases, {steps} steps, {failed} failed{why}")
    sys.exit(1 if failed or not numbers or (not only and not steps) else 0)


main()
