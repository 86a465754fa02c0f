"""What the benches share. What decides is counted: instructions, system calls, forks, bytes, growth with n, which are the
same on every machine and however busy it is. Times are measured too, printed and kept, and decide nothing."""

import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time

DEADLINE = 300
# of those that wait for something, or hand over what others ask meanwhile, there are as many as the machine is slow
WAITING = {"read", "writev", "futex", "poll", "ppoll", "epoll_wait", "epoll_pwait", "wait4", "waitid", "restart_syscall",
           "clock_nanosleep"}


class Bench:
    """Gates and figures of one run: prints TAP, and keeps all of it in BUILD/bench/NAME.json."""

    def __init__(self, build, name):
        self.path, self.figures, self.gates, self.failed = f"{build}/bench/{name}.json", {}, [], 0

    def at_most(self, what, value, bound):
        self.gate(value <= bound, f"{what}: {value:.4g}, at most {bound:g}", value, bound)

    def at_least(self, what, value, bound):
        self.gate(value >= bound, f"{what}: {value:.4g}, at least {bound:g}", value, bound)

    def gate(self, good, text, value, bound):
        self.gates.append({"gate": text, "value": value, "bound": bound, "good": good})
        self.failed += not good
        print(f"{'ok' if good else 'not ok'} {len(self.gates)} - {text}", flush=True)

    def figure(self, name, value, text):
        """Something that was measured and decides nothing."""
        self.figures[name] = value
        print(f"# {text}", flush=True)

    def end(self):
        """The exit status."""
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        with open(self.path, "w") as file:
            json.dump({"figures": self.figures, "gates": self.gates}, file, indent=1)
            file.write("\n")
        print(f"# kept in {self.path}\n1..{len(self.gates)}", flush=True)
        return 1 if self.failed else 0


def instructions(command, functions):
    """Instructions that a program runs in functions of its own, a pattern, and below them."""
    run = subprocess.run(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null",
                          f"--toggle-collect={functions}", *command], capture_output=True, text=True, check=True)
    return int(re.search(r"Collected : (\d+)", run.stderr).group(1))


def counted_daemon(program, directory):
    """The words of a command that runs it so that instructions_meanwhile() can ask, who leaves files in a directory."""
    return ["valgrind", "-q", "--tool=callgrind", f"--log-file={directory}/log",
            f"--callgrind-out-file={directory}/instructions.%p", program]


def instructions_meanwhile(pid, directory, act):
    """Instructions of a counted daemon, in all its threads, while act() runs."""
    def tell(word):
        subprocess.run(["vgdb", f"--pid={pid}", word], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)

    tell("zero")
    act()
    tell("dump")
    dumps = pathlib.Path(directory).glob(f"instructions.{pid}.*")
    newest = max(dumps, key=lambda path: int(path.suffix[1:]))
    return int(re.search(r"^totals: (\d+)", newest.read_text(), re.M).group(1))


class SystemCalls:
    """Counts the system calls of a process, of its threads and of what it starts meanwhile, within a `with`."""

    def __init__(self, pid):
        self.pid, self.counts = pid, {}

    def __enter__(self):
        self.file = tempfile.NamedTemporaryFile(prefix="bench-calls-")
        self.tracer = subprocess.Popen(["strace", "-f", "-qq", "-e", "signal=none", "-o", self.file.name,
                                        "-p", str(self.pid)], stderr=subprocess.DEVNULL)
        end = time.monotonic() + DEADLINE
        while not self.attached():
            if self.tracer.poll() is not None or time.monotonic() > end:
                raise RuntimeError("strace does not attach")
            time.sleep(0.01)
        return self

    def attached(self):
        tasks = os.listdir(f"/proc/{self.pid}/task")
        return all(self.tracer_of(task) == self.tracer.pid for task in tasks)

    def tracer_of(self, task):
        with open(f"/proc/{self.pid}/task/{task}/status") as file:
            return int(re.search(r"TracerPid:\t(\d+)", file.read()).group(1))

    def __exit__(self, *_):
        self.tracer.send_signal(signal.SIGINT)
        self.tracer.wait(DEADLINE)
        self.counts = count_calls(self.file.name)
        self.file.close()

    def total(self):
        return total(self.counts)

    def programs(self):
        """Programs that were run; threads are none."""
        return self.counts.get("execve", 0)


def count_calls(path):
    counts = {}
    with open(path, errors="replace") as file:
        for line in file:
            call = re.match(r"\d+ +(\w+)\(", line)
            if call:
                counts[call.group(1)] = counts.get(call.group(1), 0) + 1
    return counts


def total(counts):
    """Of the calls that do something."""
    return sum(n for call, n in counts.items() if call not in WAITING)


def calls_of(*command, **kwargs):
    """How many system calls a command makes, with all that it starts."""
    with tempfile.NamedTemporaryFile(prefix="bench-calls-") as file:
        subprocess.run(["strace", "-f", "-qq", "-e", "signal=none", "-o", file.name, *command], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **kwargs)
        return total(count_calls(file.name))
