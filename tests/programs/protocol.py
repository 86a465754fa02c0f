#!/usr/bin/env python3
"""protocol.py AGENTPOOLFS NODE_MODULES: what a pool and a program say to one another in the Agent Client Protocol, held
against the protocol's own schema and against another client of it.

The program is tests/mount/acp_agent.py, so that no model is needed. NODE_MODULES has @agentclientprotocol/sdk, of which
the schema is taken, and acpx, the other client. Every line is checked, in both directions: what we send must be valid,
and what the program of our tests says too, or our tests would be about another protocol. Where acpx says other things
than we do in the same turns, that is printed. Prints TAP."""

import json
import os
import shutil
import subprocess
import sys
import tempfile

import jsonschema

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
from pool import Failed, Pool  # noqa: E402 (beside this directory)

AGENT = os.path.join(os.path.dirname(HERE), "mount", "acp_agent.py")
TURNS = ["say hello", "ask execute something", "turn"]
number = failed = 0


def check(name, problems):
    global number, failed
    number += 1
    failed += bool(problems)
    print(f"{'not ok' if problems else 'ok'} {number} - {name}", flush=True)
    for problem in problems[:20]:
        note(problem)


def note(text):
    print("# " + text.replace("\n", "\n# "), flush=True)


class Schema:
    """The definitions of the protocol, by method: requests and notifications of each side, and the answers to them."""

    def __init__(self, modules):
        with open(f"{modules}/@agentclientprotocol/sdk/schema/v1/schema.json", encoding="utf-8") as file:
            self.schema = json.load(file)
        self.said, self.answers, self.validators = {}, {}, {}
        for name, definition in self.schema["$defs"].items():
            if "x-method" in definition:
                which = self.answers if name.endswith("Response") else self.said
                which[definition["x-side"], definition["x-method"]] = name

    def problems(self, name, value):
        if name not in self.validators:
            self.validators[name] = jsonschema.Draft202012Validator({**self.schema, "anyOf": [{"$ref": f"#/$defs/{name}"}]})
        return [f"{error.json_path}: {error.message}" for one in self.validators[name].iter_errors(value)
                for error in one.context or [one]]

    def required(self, method):
        return set(self.schema["$defs"][self.said["agent", method]].get("required", []))


def messages(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def invalid(schema, ours, theirs, side):
    """What is wrong with the messages of one end, whose methods are those that `side` serves; `theirs` are the other
    end's, which it answers."""
    asked = {json.dumps(m["id"]): m["method"] for m in theirs if "method" in m and "id" in m}
    other = "client" if side == "agent" else "agent"
    wrong = []
    for message in ours:
        method = message.get("method")
        about = f"{method or 'an answer'}: "
        if message.get("jsonrpc") != "2.0":
            wrong.append(about + "it is not of version 2.0")
        if method and (side, method) not in schema.said:
            found = [] if method.startswith("_") else ["the schema does not know it"]
        elif method:
            found = schema.problems(schema.said[side, method], message.get("params"))
            if ("id" in message) != schema.said[side, method].endswith("Request"):
                found.append("it is no request, or no notification")
        elif json.dumps(message.get("id")) not in asked:
            found = ["to what was not asked"]
        elif "error" in message:
            found = schema.problems("Error", message["error"])
        else:
            answered = asked[json.dumps(message["id"])]
            about = f"the answer to {answered}: "
            found = schema.problems(schema.answers[other, answered], message.get("result"))
        if "id" in message:
            found += schema.problems("RequestId", message["id"])
        wrong += [about + problem for problem in found]
    return wrong


class Conversation(Pool):
    """A pool over the program, with what both have said."""

    def __init__(self, agentpoolfs, script=None, profile=""):
        self.place = tempfile.mkdtemp(prefix="agentpool-test-")
        self.log, self.sent = f"{self.place}/log", f"{self.place}/sent"
        with open(f"{self.place}/script", "w", encoding="utf-8") as file:
            json.dump(script or {}, file)
        with open(f"{self.place}/acp.conf", "w", encoding="utf-8") as file:
            file.write("mode = acp\n" + profile)
        env = {"ACP_HOME": self.place, "ACP_LOG": self.log, "ACP_SENT": self.sent, "ACP_SCRIPT": f"{self.place}/script"}
        super().__init__(agentpoolfs, f"program_profile={self.place}/acp.conf", ["python3", "-u", AGENT], lambda _: env)
        self.expect("ready")

    def end(self):
        super().end()
        shutil.rmtree(self.place)

    def expect(self, activity):
        said = self.settle()
        if said != activity:
            raise Failed(f"it is {said}, not {activity}")

    def write(self, name, text):
        with open(f"{self.job}/{name}", "w", newline="", encoding="utf-8") as file:
            file.write(text)

    def ask(self, text, answer=None):
        self.write("prompt", text)
        if answer:
            self.expect("waiting")
            self.write("answer", answer)
        self.expect("ready")


def everything(pool):
    """All that we ever say."""
    pool.ask("say hello")
    for answer in ("allow", "always", "reject", "cancel"):
        pool.ask("ask execute something", answer)
    pool.ask("turn", "allow")
    for text in ("edit made text", "plan one two", "usage", "thought of it", "fail execute it", "call fs/read_text_file",
                 "call _vendor/thing", "stop refusal", "error -32603 broken", "leave execute something"):
        pool.ask(text)
    pool.write("prompt", "wait")
    pool.wait_for("the prompt", lambda: pool.activity() == "busy" and '"wait"' in open(pool.log).read())
    pool.write("ctl", "cancel\n")
    pool.expect("ready")
    pool.write("ctl", "reset\n")
    pool.ask("say again")
    pool.write("prompt", "die")
    pool.expect("exited")
    pool.write("ctl", "restart\n")
    pool.expect("ready")
    pool.ask("history")


def both_are_valid(schema, agentpoolfs, name, must_say, *words):
    said, sent = [], []
    try:
        pool = Conversation(agentpoolfs, *words)
        try:
            everything(pool)
        finally:
            said, sent = messages(pool.log), messages(pool.sent)
            faults = f"{pool.place}/faults"
            found = [open(faults, encoding="utf-8").read()] if os.path.exists(faults) else []
            pool.end()
    except (Failed, OSError) as error:
        found = [str(error)]
    missing = must_say - {m.get("method", "answer") for m in said}
    check(f"{name}: what we say is valid", invalid(schema, said, sent, "agent") + found
          + [f"{method} was not said" for method in sorted(missing)])
    check(f"{name}: what the program of our tests says is valid", invalid(schema, sent, said, "client"))


def the_schema_sees(schema):
    """What is wrong is found at all."""
    begin = {"jsonrpc": "2.0", "id": 1, "method": "session/new", "params": {"cwd": "/", "mcpServers": []}}
    wrong = [{**begin, "params": {"cwd": "/"}}, {**begin, "params": {"cwd": 5, "mcpServers": []}}, {**begin, "id": 1.5},
             {**begin, "jsonrpc": "1.0"}, {**begin, "method": "session/create"}, {"jsonrpc": "2.0", "id": 1, "result": {}},
             {"jsonrpc": "2.0", "method": "session/new", "params": begin["params"]},
             {"jsonrpc": "2.0", "id": 2, "result": {"outcome": {"outcome": "selected"}}}]
    asked = [{"id": 2, "method": "session/request_permission"}]
    missed = [json.dumps(one) for one in wrong if not invalid(schema, [one], asked, "agent")]
    check("what is wrong is seen", missed + invalid(schema, [begin], asked, "agent"))


def of_acpx(modules, folder, text):
    """What acpx says in one turn."""
    os.makedirs(f"{folder}/home", exist_ok=True)
    log = f"{folder}/log"
    env = {**os.environ, "HOME": f"{folder}/home", "ACP_HOME": folder, "ACP_LOG": log, "ACP_SENT": f"{folder}/sent"}
    subprocess.run([f"{modules}/.bin/acpx", "--agent", f"python3 -u {AGENT}", "--cwd", folder, "--approve-all", "--timeout", "60",
                    "exec", text], env=env, check=True, timeout=120, stdout=subprocess.DEVNULL)
    said = messages(log)
    os.unlink(log)
    return said


def of_ours(agentpoolfs, text):
    pool = Conversation(agentpoolfs)
    try:
        pool.ask(text, None if text.startswith("say") else "allow")
        return messages(pool.log)
    finally:
        pool.end()


def compare(schema, agentpoolfs, modules):
    with tempfile.TemporaryDirectory(prefix="agentpool-test-") as folder:
        for text in TURNS:
            problems = []
            try:
                other, ours = of_acpx(modules, folder, text), of_ours(agentpoolfs, text)
            except (Failed, OSError, subprocess.SubprocessError) as error:
                check(f"acpx and we in a turn `{text}`", [str(error)])
                continue
            names = [[m.get("method", "answer") for m in said] for said in (ours, other)]
            if names[0] != names[1]:
                note(f"we say {' '.join(names[0])}; acpx says {' '.join(names[1])}")
            for name in dict.fromkeys(names[1]):
                if name not in names[0]:
                    problems.append(f"acpx says {name}, and we do not")
                    continue
                mine, its = (said[names[i].index(name)] for i, said in enumerate((ours, other)))
                part = "params" if name != "answer" else "result"
                keys = [set(m.get(part, {})) for m in (mine, its)]
                if set(mine) != set(its) or keys[0] != keys[1]:
                    note(f"{name}: we say {sorted(mine)} {sorted(keys[0])}; acpx says {sorted(its)} {sorted(keys[1])}")
                needed = schema.required(name) if name != "answer" else {"outcome"}
                problems += [f"{name}: {key} is missing" for key in sorted(needed - keys[0])]
                if name == "answer" and mine["result"] != its["result"]:
                    problems.append(f"we answer {mine['result']}, acpx {its['result']}")
            check(f"acpx and we in a turn `{text}`", problems)


def main():
    agentpoolfs, modules = (os.path.abspath(path) for path in sys.argv[1:3])
    schema = Schema(modules)
    the_schema_sees(schema)
    say = {"initialize", "session/new", "session/prompt", "session/cancel", "answer"}
    both_are_valid(schema, agentpoolfs, "a program that can all", say | {"session/close", "session/resume"})
    both_are_valid(schema, agentpoolfs, "one that loads, and has options", say | {"session/load", "session/set_config_option",
                   "session/set_mode"}, {"resume": False, "close": False}, "configure = model large\nconfigure = mode ask\n")
    both_are_valid(schema, agentpoolfs, "one that remembers nothing", say, {"resume": False, "load": False})
    compare(schema, agentpoolfs, modules)
    print(f"1..{number}")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
