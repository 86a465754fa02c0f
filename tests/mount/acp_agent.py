#!/usr/bin/env python3
"""acp_agent.py: an agent that speaks the Agent Client Protocol over standard input and output, for tests.

A prompt is a little script: its first word says what the turn does, see the functions do_WORD (`ask-wait` is
do_ask_wait); any other text is answered with its SHA-256. Where these variables are set:

ACP_HOME     directory of the conversations, which outlive the program; `faults` in it: what the client did wrong
ACP_SCRIPT   file with an object of JSON, how it behaves: login, protocol, load, resume, close, garbage, slow, stderr,
             step
ACP_LOG      file that every line which it reads is appended to
ACP_SENT     file that all it writes to standard output is appended to, before
ACP_CHARGES  file that a line for each `use` is appended to: input, output and cached tokens, dollars
ACP_PROMPTS  file that a line for each prompt is appended to: SHA-256 and bytes of its text"""

import hashlib
import json
import os
import re
import signal
import sys
import threading
import time
import uuid

AUTH = [{"id": "key", "name": "API key"}, {"id": "browser", "name": "Browser"}]
OPTIONS = [{"optionId": "yes", "name": "Yes", "kind": "allow_once"},
           {"optionId": "always", "name": "Yes, always", "kind": "allow_always"},
           {"optionId": "no", "name": "No", "kind": "reject_once"}]
MODELS = ["small", "large"]

home = os.environ.get("ACP_HOME")
script = {}  # login: true; protocol: 2; load, resume, close: false; garbage: true; slow: FILE awaited; stderr: TEXT;
# step: true: its N-th message waits for a file ACP_HOME/step-N
conversations = {}  # those that are open
asked = {}  # what the client was asked, by id as JSON: [event, answer]
ids = set()  # of the client's requests
lock = threading.Lock()  # of output, ids of ours, faults
n_asked = 0
model = MODELS[0]
initialized = False
n_written = 0
hears = threading.Event()
hears.set()


def append(path, data):
    if path:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(fd, data)
        os.close(fd)


def fault(text):
    """The client did what it must not: tests look for it at their end."""
    append(home and home + "/faults", f"{os.getpid()} {text[:500]}\n".encode())


def write(data):
    global n_written
    with lock:
        n_written += 1
        while "step" in script and not os.path.exists(f"{home}/step-{n_written}"):
            time.sleep(0.01)
        append(os.environ.get("ACP_SENT"), data)
        while data:
            data = data[os.write(1, data):]


def line(**message):
    return json.dumps({"jsonrpc": "2.0", **message}, ensure_ascii=False).encode() + b"\n"


def request(method, **params):
    """Asks the client. Every second id is a word, and the numbers are also those of the client's requests."""
    global n_asked
    with lock:
        number = n_asked if n_asked % 2 == 0 else f"agent-{n_asked}"
        n_asked += 1
    pending = asked[json.dumps(number)] = [threading.Event(), None]
    write(line(id=number, method=method, params=params))
    return pending


def answer_of(pending):
    pending[0].wait()
    return pending[1]


class Conversation:
    def __init__(self, name, cwd):
        self.name, self.cwd, self.turn, self.said, self.cost = name, cwd, None, [], 0.0
        self.file = home and f"{home}/{name}.json"
        conversations[name] = self

    def restore(self):
        with open(self.file, encoding="utf-8") as file:
            self.said = [json.loads(text) for text in file]
        return self

    def keep(self, who, text):
        self.said.append([who, text])
        append(self.file, json.dumps([who, text]).encode() + b"\n")

    def update(self, name, /, **fields):
        return line(method="session/update",
                    params={"sessionId": self.name, "update": {"sessionUpdate": name, **fields}})

    def spend(self, dollars):  # says what it has cost since it was opened
        self.cost = round(self.cost + dollars, 9)
        write(self.update("usage_update", used=1200, size=200000, cost={"amount": self.cost, "currency": "USD"}))

    def chunk(self, text, who="agent_message"):
        return self.update(who + "_chunk", content={"type": "text", "text": text})


class Turn(threading.Thread):
    def __init__(self, conversation, number, text):
        super().__init__(daemon=True)
        self.conversation, self.number, self.text = conversation, number, text
        self.cancelled, self.answer, self.behind = threading.Event(), "", b""
        self.reply = {"result": {"stopReason": "end_turn"}}

    def run(self):
        self.conversation.keep("user", self.text)
        word, _, rest = self.text.partition(" ")
        do = getattr(self, "do_" + word.replace("-", "_"), None)
        try:
            if do:
                do(rest)
            else:
                self.say(hashlib.sha256(self.text.encode()).hexdigest())
        except (ValueError, TypeError, OSError) as error:
            self.reply = {"error": {"code": -32603, "message": f"{word}: {error}"}}
        if self.cancelled.is_set():
            self.reply = {"result": {"stopReason": "cancelled"}}
        self.conversation.keep("agent", self.answer)
        self.conversation.turn = None
        write(line(id=self.number, **self.reply) + self.behind)

    def say(self, text):
        self.answer += text
        write(self.conversation.chunk(text))

    def tool(self, kind, title, **fields):
        call = f"call-{uuid.uuid4().hex[:8]}"
        write(self.conversation.update("tool_call", toolCallId=call, title=title, kind=kind, status="pending",
                                       **fields))
        return call

    def tool_ends(self, call, status):
        write(self.conversation.update("tool_call_update", toolCallId=call, status=status))

    def asks(self, kind, title, bare=False):
        """A tool that needs leave. A bare request says of it no more than its id."""
        call = self.tool(kind, title, rawInput={"command": f"run {title}"})
        about = {"title": title, "kind": kind, "status": "pending", "rawInput": {"command": f"run {title}"}}
        return call, request("session/request_permission", sessionId=self.conversation.name,
                             toolCall={"toolCallId": call, **({} if bare else about)}, options=OPTIONS)

    def outcome(self, call, pending):
        if "error" in answer_of(pending):
            self.tool_ends(call, "failed")
            return "refused"
        outcome = answer_of(pending).get("result", {}).get("outcome", {})
        option = outcome.get("optionId") if outcome.get("outcome") == "selected" else None
        if outcome.get("outcome") != "cancelled" and option not in [o["optionId"] for o in OPTIONS]:
            fault(f"no outcome: {pending[1]}")
        self.tool_ends(call, "completed" if option in ("yes", "always") else "failed")
        return f"{'rejected' if option == 'no' else 'allowed'} {option}" if option else "cancelled"

    def do_say(self, rest):  # TEXT: word by word
        for part in re.findall(r"\s*\S+|\s+", rest):
            self.say(part)

    def do_limit(self, rest):  # TEXT: the turn ends with that error, of a usage limit
        self.reply = {"error": {"code": -32603, "message": "Internal error",
                                "data": {"message": rest, "codexErrorInfo": "usageLimitExceeded"}}}

    def do_limit_said(self, rest):  # TEXT: the same, said as the last message of a turn
        self.say("I will have a look.")
        self.tool_ends(self.tool("read", "file"), "completed")
        self.say(f"limit: {rest}")

    def do_ask(self, rest, **how):  # KIND TITLE: what becomes of it: `allowed OPTION`, `rejected OPTION` or `cancelled`
        self.say(self.outcome(*self.asks(*rest.split(" ", 1), **how)))

    def do_ask_bare(self, rest):  # KIND TITLE: the same, with a request that names its tool by its id alone
        self.do_ask(rest, bare=True)

    def do_ask_wait(self, rest):  # KIND TITLE: ask, then wait
        self.do_ask(rest)
        self.do_wait(" ")

    def do_wait_ask(self, rest):  # KIND TITLE: wait, then ask
        self.do_wait("")
        self.do_ask(rest)

    def do_asks(self, rest):  # N KIND...: that many at once, `request 1` and so on; a line for each
        n, *kinds = rest.split()
        all_asked = [self.asks(kinds[i % len(kinds)], f"request {i + 1}") for i in range(int(n))]
        self.say("\n".join(self.outcome(*one) for one in all_asked))

    def do_leave(self, rest):  # KIND TITLE: asks, and ends the turn before it is answered
        self.asks(*rest.split(" ", 1))
        self.say("left")

    def do_wait_leave(self, _):  # wait, then that
        self.do_wait("")
        self.do_leave("execute something")

    def do_offer(self, rest):  # KIND=ID...: asks with these options, and says which was chosen
        options = [{"optionId": one.split("=")[1], "name": f"Number {n + 1}", "kind": one.split("=")[0]}
                   for n, one in enumerate(rest.split())]
        pending = request("session/request_permission", sessionId=self.conversation.name,
                          toolCall={"toolCallId": self.tool("other", "offer")}, options=options)
        self.say(json.dumps(answer_of(pending)["result"]["outcome"].get("optionId")))

    def do_deaf(self, rest):  # N: asks for so much that there is not, and reads nothing until the file `go` is there
        hears.clear()
        for _ in range(int(rest)):
            request("_vendor/thing", text="x" * 50)
        self.say("asked ")
        self.do_wait("")
        hears.set()

    def do_heavy(self, rest):  # a line that is short for what it takes to hold it; then a request with a long id
        write(b'{"x":[' + b"{}," * 5000000 + b"{}]}\n")
        write(line(id="x" * 100000, method="_vendor/thing"))
        self.say("good")

    def do_forge(self, rest):  # KIND: asks with a title that would be more lines, and has control sequences
        self.do_ask(f"{rest} one\x1b[31mred\x1b[0m\u009b1m\nid forged\nforged allow_once Forged")

    def do_edit(self, rest):  # FILE TEXT
        name, text = rest.split(" ", 1)
        path = os.path.join(self.conversation.cwd, name)
        content = [{"type": "diff", "path": path, "oldText": None, "newText": text}]
        call = self.tool("edit", f"Write {name}", locations=[{"path": path, "line": 1}], content=content,
                         rawInput={"path": path})
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        self.tool_ends(call, "completed")
        self.say(f"edited {name}")

    def do_tool(self, rest, status="completed", say="done"):  # KIND TITLE
        call = self.tool(*rest.split(" ", 1))
        self.tool_ends(call, "in_progress")
        self.tool_ends(call, status)
        if say:
            self.say(say)

    def do_fail(self, rest):  # KIND TITLE
        self.do_tool(rest, "failed")

    def do_plan(self, rest):  # ENTRY...: the first one is in progress, and more urgent
        entries = [{"content": content, "priority": "medium" if i else "high",
                    "status": "pending" if i else "in_progress"} for i, content in enumerate(rest.split())]
        write(self.conversation.update("plan", entries=entries))
        self.say("planned")

    def do_wait(self, before):  # until the file `go` is there, which it removes, or it is cancelled; says `waited`
        go = os.path.join(self.conversation.cwd, "go")
        while not self.cancelled.wait(0.02):
            if os.path.exists(go):
                os.unlink(go)
                self.say(before + "waited")
                return

    def do_history(self, _):  # the prompts of the conversation before this one, a line each, and its id
        prompts = [text for who, text in self.conversation.said[:-1] if who == "user"]
        self.say("\n".join(prompts + ["session " + self.conversation.name]))

    def do_exit(self, rest):  # N
        os._exit(int(rest))

    def do_die(self, _):
        os.kill(os.getpid(), signal.SIGKILL)

    def do_error(self, rest):  # CODE TEXT
        code, text = rest.split(" ", 1)
        self.reply = {"error": {"code": int(code), "message": text}}

    def do_stop(self, rest):  # REASON
        self.say("stopped")
        self.reply = {"result": {"stopReason": rest}}

    def do_call(self, method):  # METHOD: asks the client for it; the code of the error, or the result
        answer = answer_of(request(method, sessionId=self.conversation.name, path="/etc/passwd", command="true"))
        self.say(str(answer["error"]["code"]) if "error" in answer else json.dumps(answer["result"]))

    def do_turn(self, _):  # a message of every kind, the answer to what it asks last: eleven with the end of the turn
        self.say("begun")
        write(self.conversation.chunk("of it", "agent_thought"))
        entries = [{"content": "look", "priority": "high", "status": "completed"}]
        write(self.conversation.update("plan", entries=entries))
        self.do_tool("read first", say="")
        self.do_ask("execute second")

    def do_late(self, _):  # says something behind the answer
        self.say("early")
        self.behind = self.conversation.chunk("late")

    def do_stderr(self, rest):  # TEXT: between two halves of a message
        message = self.conversation.chunk("whole")
        write(message[:20])
        os.write(2, rest.encode() + b"\n")
        write(message[20:])

    def do_control(self, _):
        self.say("\x1b[31mred\x1b[0m \u009b1m\x1b]0;title\x07\x1b]52;c;ZXZpbA==\x1b\\\x07 end")

    def do_thought(self, rest):  # TEXT
        write(self.conversation.chunk(rest, "agent_thought"))
        self.say("thought")

    def do_use(self, rest):  # INPUT OUTPUT CACHED DOLLARS [REST]: uses that, and goes on with REST
        spent, (*numbers, dollars), rest = rest, rest.split()[:4], " ".join(rest.split()[4:])
        given, written, cached = (int(number) for number in numbers)
        append(os.environ.get("ACP_CHARGES"), " ".join(spent.split()[:4]).encode() + b"\n")
        self.conversation.spend(float(dollars))
        if rest:
            word, _, rest = rest.partition(" ")
            getattr(self, "do_" + word.replace("-", "_"))(rest)
        self.reply["result"]["usage"] = {
            "totalTokens": given + written + cached, "inputTokens": given, "outputTokens": written,
            "cachedReadTokens": cached, "cachedWriteTokens": 0}
        self.say("used")

    def do_usage(self, _):
        cost = {"amount": 0.25, "currency": "USD"}
        write(self.conversation.update("usage_update", used=1200, size=200000, cost=cost))
        self.reply["result"]["usage"] = {"totalTokens": 1500, "inputTokens": 1200, "outputTokens": 300}
        self.say("used")

    def do_garbage(self, _):  # all that a client has to bear, then `good`
        update, other = self.conversation.update, Conversation("s-other", "/")
        del conversations["s-other"]
        for text in (b"no JSON", b"", b"  ", b"{", b"null", b"42", b"[]", b'"text"', b"{}", b'{"jsonrpc":"2.0"}',
                     b"[" * 5000, b'{"a":"\xff\xfe"}', b"a\0b", b'{"id":1e400}', b'{"id":99999999999999999999}'):
            write(text + b"\n")
        bad = self.conversation.chunk("bad", "agent_message")
        write(bad.replace(b'"bad"', b'"bad \\ud800"'))
        write(bad.replace(b'"bad"', b'"bad \xff"'))
        write(bad.replace(b'"bad"', b'"bad ' + b"x" * (17 << 20) + b'"'))
        write(line(id=999999, result={}) + line(id=None, result={}) + line(id="1", error={"code": "x"}))
        write(line(method="_vendor/status", params={"a": 1}) + line(method="session/update")
              + line(method="session/update", params=[1]) + line(method=5) + line(method=None, params={}))
        write(update("compaction_update", text="bad") + update(5) + update("plan") + update("plan", entries=[1, {}])
              + update("agent_message_chunk", content={"type": "image", "data": "AA=="}) + update("agent_message_chunk")
              + update("agent_message_chunk", content=["bad"]) + update("tool_call")
              + update("tool_call_update", toolCallId=7) + other.chunk("bad of another"))
        write(self.conversation.chunk("good").replace(b"\n", b"\r\n"))
        self.answer = "good"


def options_of():
    return [{"id": "model", "name": "Model", "category": "model", "type": "select", "currentValue": model,
             "options": [{"value": name, "name": name} for name in MODELS]}]


def initialize(_, params):
    global initialized
    initialized = True
    if params.get("protocolVersion") != 1:
        fault(f"offers version {params.get('protocolVersion')}")
    while "slow" in script and not os.path.exists(script["slow"]):
        time.sleep(0.02)
    may = {name: {} for name in ("resume", "close") if script.get(name, True)}
    return {"protocolVersion": script.get("protocol", 1), "authMethods": AUTH if script.get("login") else [],
            "agentCapabilities": {"loadSession": script.get("load", True), "sessionCapabilities": may},
            "agentInfo": {"name": "acp_agent", "version": "1"}}


def begin(method, params):
    """session/new, load and resume."""
    name, cwd = params.get("sessionId", f"s-{uuid.uuid4()}"), params.get("cwd", "")
    servers = params.get("mcpServers", [] if method == "session/resume" else None)
    if not os.path.isabs(cwd) or not isinstance(servers, list):
        fault(f"{method}: {params}")
    if script.get("login"):
        return {"code": -32000, "message": "Authentication required"}
    if method == "session/new":
        append(Conversation(name, cwd).file, b"")
        return {"sessionId": name, "configOptions": options_of(),
                "modes": {"currentModeId": "ask", "availableModes": [{"id": "ask", "name": "Ask"}]}}
    verb = method.removeprefix("session/")
    if not script.get(verb, True):
        fault(f"{method} is not offered")
        return {"code": -32601, "message": method}
    if not home or not os.path.exists(f"{home}/{name}.json"):
        return {"code": -32002, "message": f"there is no {name}"}
    conversation = Conversation(name, cwd).restore()
    for who, text in conversation.said if verb == "load" else []:
        write(conversation.chunk(text, f"{who}_message"))
    return {}


def close(method, params):
    conversation = conversations.pop(params.get("sessionId"), None)
    if not script.get("close", True) or not conversation:
        fault(f"{method}: {params}")
    elif conversation.turn:
        conversation.turn.cancelled.set()
    return {}


def set_option(method, params):
    global model
    if params.get("configId") == "model":
        model = params["value"]
    return {"configOptions": options_of()} if method.endswith("option") else {}


METHODS = {"initialize": initialize, "authenticate": lambda *_: {}, "session/new": begin, "session/load": begin,
           "session/resume": begin, "session/close": close, "session/set_config_option": set_option,
           "session/set_mode": set_option}


def prompt(number, params):
    text = "".join(block["text"] for block in params["prompt"])
    data = text.encode()
    append(os.environ.get("ACP_PROMPTS"), f"{hashlib.sha256(data).hexdigest()} {len(data)}\n".encode())
    conversation = conversations.get(params["sessionId"])
    if not conversation or conversation.turn:
        fault(f"a prompt {'during a turn' if conversation else 'to no conversation'}: {text}")
        write(line(id=number, error={"code": -32002, "message": "there is no such conversation"}))
        return
    conversation.turn = Turn(conversation, number, text)
    conversation.turn.start()


def answered(message):
    pending = asked.get(json.dumps(message.get("id")))
    if not pending or pending[0].is_set() or ("result" in message) == ("error" in message):
        fault(f"answers what it was not asked: {message}")
        return
    pending[1] = message
    pending[0].set()


def handle(message):
    method, number, params = message.get("method"), message.get("id"), message.get("params", {})
    if message.get("jsonrpc") != "2.0" or (method and not initialized and method != "initialize"):
        fault(f"out of place: {message}")
    if not method:
        answered(message)
    elif method == "session/cancel":
        turn = conversations[params["sessionId"]].turn if params["sessionId"] in conversations else None
        if turn:
            turn.cancelled.set()
    elif "id" not in message:
        if not method.startswith("$/"):
            fault(f"an unknown notification: {message}")
    else:
        if number in ids:
            fault(f"an id again: {message}")
        ids.add(number)
        if method == "session/prompt":
            prompt(number, params)
        elif method not in METHODS:
            write(line(id=number, error={"code": -32601, "message": "Method not found"}))
        else:
            result = METHODS[method](method, params)
            write(line(id=number, **{"error" if "code" in result else "result": result}))


def main():
    if os.path.exists(os.environ.get("ACP_SCRIPT", "")):
        with open(os.environ["ACP_SCRIPT"], encoding="utf-8") as file:
            script.update(json.load(file))
    if "stderr" in script:
        os.write(2, script["stderr"].encode() + b"\n")
    if script.get("garbage"):
        write(b"mock agent 1.0, welcome\n\x1b[1mloading\x1b[0m\r\n{\n\xff\xfe\n")
    for text in sys.stdin.buffer:
        hears.wait()
        append(os.environ.get("ACP_LOG"), text)
        try:
            if text.strip():
                handle(json.loads(text))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            fault(f"{error!r}: {text[:200]!r}")


main()
