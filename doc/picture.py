#!/usr/bin/env python3
"""picture.py [AGENTPOOLFS]: records doc/picture.svg, the picture of the README: a terminal in which the first lease is typed, with
real programs, a real repository and a real mount in a home of its own."""

import html
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

COLUMNS, ROWS = 92, 34
CELL_WIDTH, CELL_HEIGHT, FONT = 8.4, 17, 14
PALETTE = ["#1c2128", "#ff7b72", "#57ab5a", "#d29922", "#539bf5", "#b083f0", "#39c5cf", "#adbac7"]
GROUND, INK, FAINT = "#1c2128", "#adbac7", "#768390"
LINES = [  # what is typed
    "agentpoolfs -o min_pool_size=2,status_color ~/src/app ~/pool -- bash",
    "cd ~/pool; echo fix-auth > acquire         # lease an agent; waits until one is free",
    "cd leases/fix-auth",
    "echo 'sed -i s/flaky/steady/ auth.py; echo done' > prompt",
    "cat wait                                   # returns when the agent is done",
    "cat diff",
    "cd ~/pool; cat status",
    "echo fix-auth > release                    # the work is on a branch now",
    "git -C ~/src/app log --oneline --stat -1 agentpool/fix-auth",
]
here = os.path.dirname(os.path.abspath(__file__))
program = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "../build/fs/agentpoolfs"))
top = tempfile.mkdtemp(prefix="picture-")
home = f"{top}/ann"
tmux = ["tmux", "-S", f"{top}/socket"]


def run(*words):
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout


environment = {**os.environ, "HOME": home, "PATH": os.path.dirname(program) + ":" + os.environ["PATH"], "PS1": r"\[\e[32m\]$\[\e[m\] ",
               "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "TERM": "tmux-256color", "LC_ALL": "C.UTF-8"}
for name in ("TMUX", "TMUX_PANE", "XDG_STATE_HOME", "PROMPT_COMMAND"):
    environment.pop(name, None)


def make_repository():
    app = f"{home}/src/app"
    os.makedirs(app)
    os.mkdir(f"{home}/pool")
    with open(f"{home}/.bashrc", "w", encoding="utf-8") as file:  # the agents' prompt, which status shows
        file.write(r"PS1='\W$ '" + "\n")
    run("git", "init", "-q", "-b", "main", app)
    with open(f"{app}/auth.py", "w", encoding="utf-8") as file:
        file.write('def login(user):\n    return "flaky"\n')
    run("git", "-C", app, "add", ".")
    run("git", "-C", app, "config", "user.name", "Ann")
    run("git", "-C", app, "config", "user.email", "ann@example.org")
    run("git", "-C", app, "commit", "-q", "-m", "first")


def screen():
    return run(*tmux, "capture-pane", "-e", "-p", "-t", "picture")


def await_prompt(n):
    """Until the shell has shown its prompt for the n-th time, with nothing behind it."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        text = re.sub(r"\x1b\[[0-9;]*m", "", run(*tmux, "capture-pane", "-p", "-S", "-", "-t", "picture")).rstrip("\n")
        if sum(line.startswith("$") for line in text.split("\n")) == n and text.split("\n")[-1].strip() == "$":
            return
        time.sleep(0.05)
    sys.exit(f"the shell does not come back:\n{text}")


def record():
    run(*tmux, "-f", "/dev/null", "new-session", "-d", "-s", "picture", "-x", str(COLUMNS), "-y", str(ROWS), "-c", home,
        "bash", "--norc", "--noprofile", "-i")
    await_prompt(1)
    for n, line in enumerate(LINES):
        run(*tmux, "send-keys", "-t", "picture", "-l", line)
        run(*tmux, "send-keys", "-t", "picture", "Enter")
        await_prompt(n + 2)
    return screen().rstrip("\n").split("\n")[:-1]


def spans(line):
    """(text, style) of a line: what SGR sequences say that the picture shows."""
    style, at = {}, 0
    for match in re.finditer(r"\x1b\[([0-9;]*)m", line + "\x1b[m"):
        if match.start() > at:
            yield line[at:match.start()], dict(style)
        at = match.end()
        for code in [int(code or 0) for code in match.group(1).split(";")]:
            if code == 0:
                style = {}
            elif code == 1:
                style["bold"] = True
            elif code == 2:
                style["faint"] = True
            elif 30 <= code <= 37:
                style["color"] = PALETTE[code - 30]
            elif 90 <= code <= 97:
                style["color"] = PALETTE[code - 90]
            elif code == 39:
                style.pop("color", None)


def picture(lines):
    width, height = COLUMNS * CELL_WIDTH + 24, len(lines) * CELL_HEIGHT + 24
    yield (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" font-family="ui-monospace, Menlo, Consolas, '
           f'DejaVu Sans Mono, monospace" font-size="{FONT}">')
    yield "<title>A first lease in a terminal</title>"
    yield f'<rect width="100%" height="100%" rx="8" fill="{GROUND}"/>'
    for row, line in enumerate(lines):
        column = 0
        for text, style in spans(line):
            color = style.get("color", FAINT if style.get("faint") else INK)
            bold = ' font-weight="bold"' if style.get("bold") else ""
            if text.strip():
                yield (f'<text x="{12 + column * CELL_WIDTH:.1f}" y="{12 + (row + 0.8) * CELL_HEIGHT:.1f}" fill="{color}"{bold} '
                       f'textLength="{len(text) * CELL_WIDTH:.1f}" xml:space="preserve">{html.escape(text)}</text>')
            column += len(text)
    yield "</svg>"


try:
    make_repository()
    lines = record()
    with open(f"{here}/picture.svg", "w", encoding="utf-8") as file:
        file.write("\n".join(picture(lines)) + "\n")
finally:
    subprocess.run([*tmux, "kill-server"], check=False, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while os.path.ismount(f"{home}/pool") and time.monotonic() < deadline:  # the shell that ends stands in it
        subprocess.run(["fusermount3", "-u", "-q", f"{home}/pool"], check=False)
        time.sleep(0.1)
    while "alive" in run(program, "--list") and time.monotonic() < deadline:  # the daemon removes what it has made
        time.sleep(0.1)
    shutil.rmtree(top, ignore_errors=True)
