"""A pool of one agent for tests in Python, in a directory of its own: mounted, leased as `job`, ended."""

import os
import shutil
import subprocess
import tempfile
import time


class Failed(Exception):
    pass


class Pool:
    """`agentpoolfs` is a path, or the words of a command. `options` go behind -o, `program` behind --; `prepare(pool)` may put files into pool.home or pool.work before the
    mount, and returns what the environment is to have."""

    def __init__(self, agentpoolfs, options, program, prepare=None, deadline=90):
        self.deadline = deadline
        self.work = tempfile.mkdtemp(prefix="agentpool-test-")
        self.mount, self.repo, self.home = (f"{self.work}/{name}" for name in ("pool", "repo", "home"))
        for path in (self.mount, self.home):
            os.mkdir(path)
        strange = ("XDG_", "CLAUDE", "ANTHROPIC", "OPENAI", "GEMINI", "TMUX")
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
        self.env.update(HOME=self.home, GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_NOSYSTEM="1")
        self.git("init", "-qb", "main", self.repo)
        for setting in ("user.name=user", "user.email=user@example.org"):
            self.git("-C", self.repo, "config", *setting.split("="))
        with open(f"{self.repo}/README.md", "w") as file:
            file.write("a project\n")
        self.git("-C", self.repo, "add", ".")
        self.git("-C", self.repo, "commit", "-qm", "first")
        self.env.update(prepare(self) if prepare else {})
        self.daemon = subprocess.Popen(
            [*([agentpoolfs] if isinstance(agentpoolfs, str) else agentpoolfs), "-f", "-o", f"state_dir={self.work}/state,min_pool_size=1,max_pool_size=1,{options}",
             self.repo, self.mount, "--", *program], env=self.env)
        self.job = f"{self.mount}/leases/job"
        self.wait_for("the mount", lambda: os.path.exists(f"{self.mount}/acquire"))
        self.control("acquire", "job timeout=60")

    def git(self, *words):
        subprocess.run(["git", *words], check=True, env=self.env)

    def control(self, file, line):
        with open(f"{self.mount}/{file}", "w") as opened:
            opened.write(line + "\n")

    def read(self, name):
        with open(f"{self.job}/{name}", errors="replace") as file:
            return file.read()

    def stat(self, name):
        with open(f"{self.mount}/stats/{name}") as file:
            return int(file.read())

    def activity(self):
        return self.read("activity").strip()

    def last_error(self):
        with open(f"{self.mount}/last_error") as file:
            return file.read().strip()

    def wait_for(self, what, condition, deadline=None):
        end = time.monotonic() + (deadline or self.deadline)
        while not condition():
            if time.monotonic() > end:
                raise Failed(f"{what} did not come")
            if self.daemon.poll() is not None:
                raise Failed("the daemon has ended")
            time.sleep(0.02)

    def settle(self, meanwhile=None):
        """Reads `wait` and returns what it says; calls `meanwhile` until it has. Failed with last_error."""
        reader = subprocess.Popen(["timeout", str(self.deadline), "cat", f"{self.job}/wait"], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True)
        while meanwhile and reader.poll() is None:
            meanwhile()
            time.sleep(0.1)
        out, err = reader.communicate()
        if reader.returncode != 0:
            raise Failed(f"wait: {err.strip()}: {self.last_error()}")
        return out.strip()

    def end(self):
        """Failed when it does not end: what it leaves is there to be looked at."""
        if self.daemon.poll() is None:
            subprocess.run(["fusermount3", "-u", self.mount], check=False)
        try:
            self.daemon.wait(300)
        except subprocess.TimeoutExpired:
            raise Failed(f"the daemon of {self.work} does not end") from None
        shutil.rmtree(self.work, ignore_errors=True)
