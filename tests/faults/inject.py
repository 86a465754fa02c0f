#!/usr/bin/env python3
"""inject.py AGENTPOOLFS [STRIDE [SEED]]: the n-th call of a system call fails, over start, acquire, release, unmount.

Every STRIDE-th of the cases below (all with 1) runs the daemon under strace, which lets one call fail. Whatever fails
then may fail with an errno, but the daemon never dies of a signal, nobody hangs, and the next daemon finds nothing
lost: what was answered with success holds. Prints TAP."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

program = os.path.abspath(sys.argv[1])
stride = int(sys.argv[2]) if len(sys.argv) > 2 else 10
seed = int(sys.argv[3]) if len(sys.argv) > 3 else 0
os.environ.update(GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_NOSYSTEM="1")
CASES = [(call, error, n)
         for call, error, counts in [
             ("pwrite64", "ENOSPC", (1, 3, 5, 8, 12, 20, 40)),
             ("fdatasync", "EIO", (1, 2, 3, 5, 8)),
             ("openat", "EIO", (60, 90, 120, 150, 180, 250, 400)),
             ("read", "EINTR", (30, 60, 100, 200, 400)),
             ("write", "ENOSPC", (1, 2, 4, 8, 16, 32, 64)),
             ("mkdir", "ENOSPC", (1, 2, 3, 4, 6)),
             ("rename", "EIO", (1, 2, 3, 5)),
             ("mount", "EPERM", (1, 2, 3)),
             ("poll", "EINTR", (1, 3, 7)),
             ("ppoll", "EINTR", (1, 3, 7)),
             ("epoll_wait", "EINTR", (1, 5, 20)),
             ("unlink", "EACCES", (1, 3, 6)),
             ("pidfd_open", "EMFILE", (1, 2, 3)),
             ("clone3", "EAGAIN", (2, 5, 9)),
             ("vfork", "EAGAIN", (2, 5, 9, 14)),
         ] for n in counts]


class Trial:
    def __init__(self):
        self.top = tempfile.mkdtemp(prefix="agentpool-inject-")
        self.repo, self.pool, self.state = (f"{self.top}/{name}" for name in ("repo", "pool", "state"))
        os.environ["HOME"] = self.top
        subprocess.run(["git", "init", "-q", "-b", "main", self.repo], check=True)
        subprocess.run(["git", "-C", self.repo, "-c", "user.name=u", "-c", "user.email=u@example.org",
                        "commit", "-q", "--allow-empty", "-m", "first"], check=True)
        os.mkdir(self.pool)
        self.tracer = None

    def start(self, inject=None):
        command = [program, "-f", "-o", f"state_dir={self.state},min_pool_size=1,max_pool_size=2,spawn_timeout=10s",
                   self.repo, self.pool]
        if inject:
            call, error, n = inject
            command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}",
                       "-e", f"inject={call}:error={error}:when={n}"] + command
        self.log = open(f"{self.top}/log", "ab")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            if os.path.exists(f"{self.pool}/acquire"):
                return True
            time.sleep(0.02)
        return False

    def command(self, file, line):
        """Whether it was taken. Never hangs: its own time limit is longer than any of the pool's."""
        result = subprocess.run(["bash", "-c", 'printf "%s\\n" "$1" > "$2"', "_", line, f"{self.pool}/{file}"],
                                stderr=subprocess.DEVNULL, timeout=120, check=False)
        return result.returncode == 0

    def scenario(self):
        """What was answered with success."""
        done = set()
        if self.command("acquire", "job timeout=20s"):
            done.add("acquired")
            try:
                tree = os.readlink(f"{self.pool}/leases/job/worktree")
                with open(f"{tree}/work", "w") as file:
                    file.write("work\n")
                done.add("worked")
            except OSError:
                pass
            if self.command("release", "job"):
                done.add("released")
        return done

    def unmount(self):
        subprocess.run(["fusermount3", "-u", self.pool], stderr=subprocess.DEVNULL, check=False)
        try:
            return self.process.wait(120)
        except subprocess.TimeoutExpired:
            return None

    def left(self):
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    if self.state.encode() in file.read():
                        found.append(int(pid))
            except OSError:
                pass
        return found

    def clean(self):
        if os.path.ismount(self.pool):
            subprocess.run(["umount", "-l", self.pool], check=False)
        for pid in self.left():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        subprocess.run(f"umount -l {self.state}/worktrees/* 2>/dev/null; true", shell=True, check=False)
        shutil.rmtree(self.top, ignore_errors=True)


def run(case):
    """None, or what is wrong."""
    trial = Trial()
    try:
        done = trial.scenario() if trial.start(case) else set()
        status = trial.unmount()
        if status is None:
            return f"the daemon does not end ({', '.join(done)})"
        if status < 0 or status > 1:
            return f"the daemon ended with {status}: {open(trial.top + '/log').read()[-300:]}"
        if not trial.start():
            return "the next daemon does not start: " + open(trial.top + "/log").read()[-300:]
        held = os.path.exists(f"{trial.pool}/leases/job")
        if held:
            trial.command("release", "job")
        elif not trial.command("acquire", "second timeout=60s"):
            return "the next daemon serves nobody: " + open(f"{trial.pool}/last_error").read()
        if trial.unmount() != 0:
            return "the next daemon does not end well"
        shown = subprocess.run(["git", "-C", trial.repo, "show", "agentpool/job:work"], capture_output=True, text=True,
                               check=False).stdout
        if "worked" in done and shown != "work\n":
            return f"the work is lost ({', '.join(sorted(done))})"
        deadline = time.monotonic() + 20
        while trial.left() and time.monotonic() < deadline:
            time.sleep(0.05)
        if trial.left() or os.path.exists(f"{trial.state}/worktrees"):
            return "something is left"
        return None
    except subprocess.TimeoutExpired as error:
        return f"somebody hangs: {error}"
    finally:
        trial.clean()


chosen = CASES[seed % stride::stride]
failed = 0
for number, case in enumerate(chosen, 1):
    wrong = run(case)
    failed += wrong is not None
    print(f"{'not ok' if wrong else 'ok'} {number} - {case[0]} fails with {case[1]} at call {case[2]}", flush=True)
    if wrong:
        print(f"# {wrong}", flush=True)
print(f"1..{len(chosen)}")
sys.exit(1 if failed else 0)
