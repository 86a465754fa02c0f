#!/usr/bin/env python3
"""drive.py AGENTPOOLFS NODE_MODULES [PROGRAM...]: real agent programs in a pool, against a mock model.

To be run where there is no network but loopback (scripts/check-programs does that). Each program gets
ten prompts of mixed size, turns that ask for leave, and one that is interrupted, and is leased in turn by
labels with a conversation each. All must arrive once and byte for byte but for what the program itself trims, be answered, and the activity must
be right throughout. Prints TAP. A failing one leaves its screen in what it prints."""

import calendar
import json
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
from pool import Failed, Pool  # noqa: E402 (beside this directory)


def write_json(path, data):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        json.dump(data, file)


def setup_claude(home, url, repo):
    # what a user has done once: chosen a theme; trust is the profile's to see to
    return {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_AUTH_TOKEN": "dummy", "CLAUDE_CODE_MAX_RETRIES": "0"}


def setup_claude_acp(home, url, repo):
    # as root its adapter starts in a sandbox alone, and trusts the word of who starts it
    return {**setup_claude(home, url, repo), "IS_SANDBOX": "1"}


def setup_codex(home, url, repo):
    os.makedirs(f"{home}/.codex")
    with open(f"{home}/.codex/config.toml", "w") as file:
        file.write('model = "mock"\nmodel_provider = "mock"\nsandbox_mode = "read-only"\n'
                   '[model_providers.mock]\nname = "mock"\n'
                   f'base_url = "{url}/v1"\nenv_key = "MOCK_KEY"\nwire_api = "responses"\n')
    return {"MOCK_KEY": "dummy"}


def setup_codex_acp(home, url, repo):
    config = {"model": "mock", "model_provider": "mock", "sandbox_mode": "read-only", "model_providers": {
        "mock": {"name": "mock", "base_url": f"{url}/v1", "env_key": "MOCK_KEY", "wire_api": "responses"}}}
    return {**setup_codex(home, url, repo), "CODEX_CONFIG": json.dumps(config), "INITIAL_AGENT_MODE": "read-only"}


def setup_opencode(home, url, repo):
    write_json(f"{home}/.config/opencode/opencode.json", {
        "share": "disabled", "model": "mock/mock", "small_model": "mock/mock", "enabled_providers": ["mock"],
        "permission": {"edit": "ask", "bash": "ask"},
        "provider": {"mock": {"npm": "@ai-sdk/openai-compatible", "name": "Mock",
                              "options": {"baseURL": f"{url}/v1", "apiKey": "dummy"},
                              "models": {"mock": {"name": "Mock", "limit": {"context": 200000, "output": 8000}}}}}})
    return {"OPENCODE_DISABLE_MODELS_FETCH": "1"}


def setup_gemini(home, url, repo):
    write_json(f"{home}/.gemini/settings.json", {
        "security": {"auth": {"selectedType": "gemini-api-key"}}, "privacy": {"usageStatisticsEnabled": False}})
    return {"GOOGLE_GEMINI_BASE_URL": url, "GEMINI_API_KEY": "dummy"}


def same(text):
    return text


def tabs(text):
    return text.replace("\t", "    ")


# name: command below node_modules, set-up, what the program makes of a prompt, whether it asks and can be interrupted
# (keys that do; "" by ctl alone; None: it does neither), the profile where it is not the program's name
PROGRAMS = {
    "claude": ("@anthropic-ai/claude-code-linux-x64/claude", setup_claude, tabs, "Escape", ""),
    "codex": (".bin/codex", setup_codex, same, "Escape", ""),
    "opencode": ("opencode-linux-x64/bin/opencode", setup_opencode, same, "Escape Escape", ""),
    "gemini": (".bin/gemini", setup_gemini, same, "Escape", ""),
    "claude-stream": ("@anthropic-ai/claude-code-linux-x64/claude", setup_claude, same, None, "claude-stream"),
    "opencode-acp": ("opencode-linux-x64/bin/opencode", setup_opencode, same, "", "opencode-acp"),
    "gemini-acp": (".bin/gemini", setup_gemini, same, "", "gemini-acp"),
    "claude-acp": (".bin/claude-agent-acp", setup_claude_acp, same, "", "claude-acp"),
    "codex-acp": (".bin/codex-acp", setup_codex_acp, same, "", "codex-acp"),
}


def prompts(name):
    # gemini attaches the files that a prompt names so; the others have a list pop up that takes the Enter
    named = "@nothing-there" if name == "gemini" else "@README"
    lines = lambda n: "\n".join(f"line {i} of {n}: so that there is something to read" for i in range(n))
    texts = ["say one thing", "a\nb\nc\n\ne", lines(200), "x" * 200 + " " + "words and words " * 620,
             lines(2000), "日本語 🎉 café \"quotes\" $HOME `x` 'y' #{z} %w", "tab\there",
             "ends with a backslash \\", f"look at {named}", "#!/bin/sh ; tmux kill-server"]
    return [f"{name}-{i} {text}" for i, text in enumerate(texts)]


class Program(Pool):
    """A pool over one of PROGRAMS, with a model of its own."""

    def __init__(self, agentpoolfs, modules, name, port):
        command, setup, self.trims, self.interrupt, profile = PROGRAMS[name]
        self.name = name

        def prepare(pool):
            pool.log = f"{pool.work}/log"
            open(pool.log, "w").close()
            pool.model = subprocess.Popen(["node", f"{HERE}/mock_model.mjs", str(port), pool.log],
                                          env={**pool.env, "DELAY": "1"}, stdout=subprocess.PIPE, text=True)
            pool.model.stdout.readline()
            path = f"{modules}/.bin:{pool.env['PATH']}"
            return {"PATH": path, **setup(pool.home, f"http://127.0.0.1:{port}", pool.repo)}

        options = "max_memory_mb=0,max_cpu_percent=0" + (f",program_profile={profile}" if profile else "")
        if "POOL_OPTIONS" in os.environ:  # of every mount, such as sandbox=yes
            options += "," + os.environ["POOL_OPTIONS"]
        super().__init__(agentpoolfs, options, [f"{modules}/{command}"], prepare)

    def write(self, name, text):
        with open(f"{self.job}/{name}", "w", newline="") as file:
            file.write(text)

    def arrived(self, mark):
        with open(self.log) as file:
            texts = [json.loads(line)["text"] for line in file]
        return [text for text in texts if mark in text]

    def said(self, mark):
        """All that the human had said in the conversation when that was said."""
        with open(self.log) as file:
            found = [json.loads(line) for line in file]
        return next((line["said"] for line in found if mark in line["text"]), [])

    def settle(self):
        """As that of a pool, and the activity is busy throughout."""
        seen = []
        said = super().settle(lambda: seen.append((self.activity(), self.read("why").strip())))
        # the last look may come after the answer
        wrong = [look for look in seen[:-1] if look[0] != "busy"]
        if wrong:
            raise Failed(f"not busy all the time: {wrong}")
        return said

    def end(self):
        self.model.kill()
        self.model.wait()
        super().end()


def check_ready(pool):
    pool.wait_for("ready", lambda: pool.activity() == "ready")


def check_prompts(pool):
    for text in prompts(pool.name):
        mark = text.split()[0] + " "
        pool.write("prompt", text + "\n")
        got = pool.settle()
        if got != "ready":
            raise Failed(f"{mark}: wait says {got}")
        response = pool.read("response")
        if "ANSWERED" not in response and pool.name != "opencode":  # its screen is all there is
            raise Failed(f"{mark}: the response is {response[-300:]!r}")
        arrived = pool.arrived(mark)
        expected = pool.trims(text).strip()
        if len(arrived) != 1 or arrived[0].strip() != expected:
            raise Failed(f"{mark}: {len(arrived)} arrived, {[a[:60] for a in arrived]}, "
                         f"{[len(a) for a in arrived]} bytes for {len(expected)}")


def used(pool):
    return {name: value for name, value in (line.split() for line in pool.read("usage").splitlines())}


def check_usage(pool):
    """Its use is what the model has charged, to the token, but for what it asks for itself. The adapter of claude counts
    some of that, too."""
    with open(f"{pool.log}.charges") as file:
        charges = [charge for charge in map(json.loads, file) if not charge["own"] or pool.name == "claude-acp"]
    total = {name: sum(charge[name] for charge in charges) for name in charges[0]}
    if "claude" in pool.name:
        total["input"] += total["written"]
    expected = {"input_tokens": total["input"], "output_tokens": total["output"], "cached_tokens": total["cached"]}
    try:
        pool.wait_for(f"a use of {expected} in {len(charges)} calls",
                      lambda: all(0 < int(used(pool).get(name, 0)) <= value if pool.name == "claude-acp"
                                  else used(pool).get(name) == str(value) for name, value in expected.items()), 60)
    except Failed as error:
        raise Failed(f"{error}, but {used(pool)}") from error
    if "claude" in pool.name and float(used(pool)["cost_usd"]) <= 0:
        raise Failed("it costs nothing")


def check_limit(pool):
    """Its provider refuses a prompt for a usage limit, which OpenAI says the end of. In the lease that there is."""
    before = time.time()
    pool.write("prompt", f"{pool.name}-limit go beyond it\n")
    got = pool.settle()
    if got != "limited":
        raise Failed(f"wait says {got}")
    until = pool.read("until").strip()
    if "codex" in pool.name:
        at = calendar.timegm(time.strptime(until, "%Y-%m-%dT%H:%M:%SZ"))
        if not before + 7200 - 60 <= at <= time.time() + 7200:
            raise Failed(f"until says {until}")
    elif until:
        raise Failed(f"until says {until}")


def check_edit(pool):
    pool.write("prompt", "please EDIT the file\n")
    got = pool.settle()
    if got != "waiting":
        raise Failed(f"wait says {got}")
    asked = pool.read("request")
    if not ("kind edit\n" in asked or "kind execute\n" in asked) or " allow_once " not in asked or " allow_always " not in asked:
        raise Failed(f"it asks {asked!r}")
    pool.write("answer", "allow\n")
    got = pool.settle()
    if got != "ready" or "+hello" not in pool.read("diff"):
        raise Failed(f"wait says {got}, the diff {pool.read('diff')!r}")


def check_reject(pool):
    pool.write("prompt", "please RUN the thing\n")
    got = pool.settle()
    asked = pool.read("request")
    if got != "waiting" or "kind execute\n" not in asked or "ran.txt" not in asked:
        raise Failed(f"wait says {got}, it asks {asked!r}")
    pool.write("answer", "reject\n")
    got = pool.settle()
    if got != "ready" or pool.read("request") or "ran.txt" in pool.read("changes"):
        raise Failed(f"wait says {got}, it asks {pool.read('request')!r}, it changed {pool.read('changes')!r}")


def check_interrupt(pool):
    pool.write("prompt", "be SLOW\n")
    pool.wait_for("the prompt", lambda: pool.arrived("be SLOW"))
    time.sleep(1.5)  # into the turn: it is about a busy program
    if pool.activity() != "busy":
        raise Failed(f"{pool.activity()} in a long turn")
    if not pool.interrupt:
        pool.write("ctl", "cancel\n")
    for key in pool.interrupt.split():
        pool.write("keys", key + "\n")
        time.sleep(0.3)  # the program tells two of them apart from one
    pool.wait_for("ready", lambda: pool.activity() == "ready", 15)
    pool.write("prompt", "after-interrupt go on\n")
    if pool.settle() != "ready" or len(pool.arrived("after-interrupt ")) != 1:
        raise Failed("the next prompt did not arrive once")


def check_release(pool):
    pool.control("release", "job")
    pool.wait_for("idle", lambda: open(f"{pool.mount}/stats/idle_agents").read().strip() == "1", 60)
    log = subprocess.run(["git", "-C", pool.repo, "show", "agentpool/job:hello.txt"], stdout=subprocess.PIPE, text=True)
    if pool.interrupt is not None and log.stdout != "hello\n":
        raise Failed("the file is not on the branch")


def check_permission(pool):
    pool.job = f"{pool.mount}/leases/again"
    pool.control("acquire", "again timeout=60 permission=allow:edit")
    pool.wait_for("ready", lambda: pool.activity() == "ready")
    pool.write("prompt", "please EDIT the file\n")
    got = pool.settle()  # has not been waiting meanwhile
    with open(f"{pool.mount}/events") as file:
        answers = [event for event in map(json.loads, file) if event["event"] == "answer" and event["lease"] == "again"]
    if got != "ready" or "+hello" not in pool.read("diff") or len(answers) != 1 or \
            answers[0].get("rule") != "permission=allow:edit" or answers[0]["means"] != "allow_once":
        raise Failed(f"wait says {got}, the diff {pool.read('diff')!r}, events {answers}")
    pool.write("prompt", "please RUN the thing\n")
    got = pool.settle()
    if got != "waiting" or "kind execute\n" not in pool.read("request"):
        raise Failed(f"wait says {got}, it asks {pool.read('request')!r}")
    pool.write("answer", "reject\n")
    pool.settle()
    pool.control("release", "again")
    pool.wait_for("idle", lambda: pool.stat("idle_agents") == 1, 60)


# those that go on with a conversation
RESUMING = ("claude", "codex", "gemini", "opencode")
LIMITED = ("claude", "claude-acp", "codex", "codex-acp")  # whose limits are tried
# those that say what they use, to the token
COUNTING = ("claude", "claude-stream", "claude-acp", "codex", "codex-acp", "opencode-acp")
EVERYWHERE = ("claude", "codex")  # in another worktree, too


def check_conversations(pool):
    def lease(label):
        pool.control("acquire", f"{label} timeout=60")
        pool.job = f"{pool.mount}/leases/{label}"

    def release():
        pool.control("release", os.path.basename(pool.job))
        pool.wait_for("idle", lambda: pool.stat("idle_agents") == 1, 60)

    def tell(mark, *known):
        """Says something; the model must see what was said before in this conversation, and nothing else."""
        pool.wait_for("ready", lambda: pool.activity() == "ready")
        pool.write("prompt", f"{mark} is said\n")
        if pool.settle() != "ready":
            raise Failed(f"{mark}: not ready")
        said = pool.said(f"{mark} ")
        for other in ("green-1", "green-2", "green-3", "green-4", "blue-1", "blue-2", "red-1", "red-2"):
            wanted = other == mark or other in known
            if any(f"{other} " in text for text in said) != wanted:
                raise Failed(f"{mark}: of {other} the model saw {'nothing' if wanted else 'something'}: {said}")

    lease("green")
    tell("green-1")
    release()
    lease("blue")
    tell("blue-1")
    release()
    lease("green")
    tell("green-2", "green-1")
    pool.control("leases/green/ctl", "restart")
    tell("green-3", "green-1", "green-2")
    pool.control("leases/green/ctl", "reset")
    tell("red-1")
    pool.control("leases/green/ctl", "restart")
    tell("red-2", "red-1")
    release()
    lease("blue")
    tell("blue-2", "blue-1")
    release()
    if pool.name not in EVERYWHERE:
        return
    before = os.readlink(f"{pool.mount}/agents/agent-1/worktree")
    pool.control("config/max_pool_size", "2")
    pool.control("config/min_pool_size", "2")
    pool.wait_for("a second agent", lambda: pool.stat("idle_agents") == 2, 60)
    lease("holder")
    first = pool.job
    lease("other")
    # whichever has green's agent keeps it, so that green goes to the other one
    pool.control("release", "other" if os.readlink(f"{first}/worktree") == before else "holder")
    pool.wait_for("idle", lambda: pool.stat("idle_agents") == 1, 60)
    lease("green")
    if os.readlink(f"{pool.job}/worktree") == before:
        raise Failed("green has its agent again")
    tell("green-4", "red-1", "red-2")


CHECKS = [("is ready without a question", check_ready),
          ("takes ten prompts byte for byte, once, and answers them", check_prompts),
          ("says what it uses", check_usage),
          ("asks leave to edit, and goes on when it is answered", check_edit),
          ("asks leave to run a command, and does not when it is rejected", check_reject),
          ("is ready again when it is interrupted", check_interrupt),
          ("gives its work back", check_release),
          ("edits without a question where its lease allows that", check_permission),
          ("goes on with the conversation of its label", check_conversations),
          ("is limited where its provider refuses", check_limit)]


def main():
    agentpoolfs, modules, *names = sys.argv[1:]
    names = names or list(PROGRAMS)
    number = failed = 0
    for at, name in enumerate(names):
        pool = None
        broken = ""
        for what, check in CHECKS:
            # gemini 0.61 keeps no conversation that it has by ACP
            if check is check_conversations and (name.removesuffix("-acp") not in RESUMING or name == "gemini-acp"):
                continue
            if check is check_limit and name not in LIMITED:
                continue
            if check is check_usage and name not in COUNTING:
                continue
            if PROGRAMS[name][3] is None and check in (check_edit, check_reject, check_interrupt):
                continue
            if check is check_permission and name != "claude" and not name.endswith("-acp"):
                continue
            number += 1
            try:
                if broken:
                    raise Failed(broken)
                pool = pool or Program(os.path.abspath(agentpoolfs), os.path.abspath(modules), name, 8800 + at)
                check(pool)
                print(f"ok {number} - {name} {what}", flush=True)
            except (Failed, OSError) as error:
                failed += 1
                print(f"not ok {number} - {name} {what}")
                print(f"# {error}")
                if pool and not broken:
                    for file in ("activity", "why", "screen"):
                        try:
                            print("# " + pool.read(file).replace("\n", "\n# "))
                        except OSError as unreadable:
                            print(f"# {file}: {unreadable}")
                    print("# " + open(f"{pool.mount}/events").read().replace("\n", "\n# "))
                    errors = f"{pool.log}.errors"
                    if os.path.exists(errors):
                        print("# " + open(errors).read().replace("\n", "\n# "))
                broken = "a check before it failed" if check is check_ready else ""
                sys.stdout.flush()
        if pool:
            pool.end()
    print(f"1..{number}")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
