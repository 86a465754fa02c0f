"""OpenMetrics text on standard input, held against the rules of its specification (1.0).

check                       says what is wrong, and fails then
get NAME [LABEL=VALUE...]   the value of the one sample that fits
compare OTHER               what has fallen since the page in the file OTHER, that may not
same OTHER                  how the page in Prometheus's older format in the file OTHER, read at about the same time,
                            says something else
"""
import re
import sys

SUFFIXES = {"counter": ["_total"], "gauge": [""], "info": ["_info"], "stateset": [""],
            "histogram": ["_bucket", "_count", "_sum"]}
SAMPLE = re.compile(r'([a-z_]+)\{((?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)*)\} (-?[0-9.e+-]+)$')
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\\n]|\\["\\n])*)"')


class Page:
    def __init__(self, data):
        self.wrong, self.samples, self.families = [], [], {}
        text = data.decode()  # UTF-8, or it is none
        if not text.endswith("\n# EOF\n") or text.count("# EOF") != 1:
            self.wrong.append("the end is not one # EOF")
        family, seen = None, set()
        for line in text.splitlines()[:-1]:
            if line.startswith("# "):
                _, word, name, rest = (line + " ").split(" ", 3)
                if family is None or name != family["name"]:
                    if name in self.families:
                        self.wrong.append(f"{name} is interleaved")
                    family = self.families.setdefault(name, {"name": name, "samples": []})
                if word not in ("TYPE", "UNIT", "HELP") or word in family or family["samples"]:
                    self.wrong.append(f"out of place: {line}")
                family[word] = rest.strip()
                continue
            match = SAMPLE.match(line)
            if not match:
                self.wrong.append(f"no sample: {line}")
                continue
            name, labels, value = match[1], dict(LABEL.findall(match[2])), float(match[3])
            if match[2].endswith(",") or (name, match[2]) in seen:
                self.wrong.append(f"twice, or a stray comma: {line}")
            seen.add((name, match[2]))
            self.samples.append((name, labels, value))
            if family is None or name not in [family["name"] + s for s in SUFFIXES[family["TYPE"]]]:
                self.wrong.append(f"not of its family: {line}")
            else:
                family["samples"].append((name, labels, value))
        for family in self.families.values():
            self.check_family(family)

    def check_family(self, family):
        name, kind, samples = family["name"], family.get("TYPE"), family["samples"]
        say = lambda what: self.wrong.append(f"{name}: {what}")
        if not family.get("HELP") or kind not in SUFFIXES:
            say("no help or no type")
        if name.endswith(("_total", "_info", "_count", "_sum", "_bucket")):
            say("its name ends as a sample's")
        unit = family.get("UNIT", "")
        if unit and not name.endswith("_" + unit):
            say("its name does not end in its unit")
        if not unit and name.endswith(("_seconds", "_bytes", "_ratio")):
            say("no unit")
        if any("pool" not in labels for _, labels, _ in samples):
            say("a sample without its pool")
        if kind in ("counter", "histogram") and any(v < 0 for _, _, v in samples):
            say("below zero")
        if kind == "info" and any(v != 1 for _, _, v in samples):
            say("not 1")
        if kind == "stateset" and (any(v not in (0, 1) or name not in l for _, l, v in samples) or
                                   sum(v for _, _, v in samples) != 1):
            say("not in one of its states")
        if kind == "histogram":
            buckets = [(float(l["le"]), v) for n, l, v in samples if n.endswith("_bucket")]
            count = [v for n, _, v in samples if n.endswith("_count")]
            if buckets != sorted(buckets) or buckets[-1][0] != float("inf"):
                say("its buckets do not ascend to +Inf")
            if [v for _, v in buckets] != sorted(v for _, v in buckets) or [buckets[-1][1]] != count:
                say("its buckets do not add up")

    def get(self, name, wanted):
        found = [v for n, l, v in self.samples if n == name and wanted.items() <= l.items()]
        return found[0] if len(found) == 1 else None


# go on between two reads, or may at any moment
MOVING = ("agentpool_uptime_seconds", "agentpool_agent_seconds_total", "agentpool_waiter_oldest_seconds",
          "agentpool_agent_memory_bytes", "agentpool_agent_cpu_seconds_total", "agentpool_agent_age_seconds")
OLDER = {"counter": ("_total", "counter"), "gauge": ("", "gauge"), "info": ("_info", "gauge"),
         "stateset": ("", "gauge"), "histogram": ("", "histogram")}


def same(page, other):
    """The older format gives comments the name of the samples, and has fewer types and no units."""
    wanted = []
    for family in page.families.values():
        suffix, kind = OLDER[family["TYPE"]]
        wanted.append(f"# TYPE {family['name']}{suffix} {kind}")
        wanted.append(f"# HELP {family['name']}{suffix} {family['HELP']}")
        wanted += [(n, l, None if n in MOVING else v) for n, l, v in family["samples"]]
    found = []
    for line in other.decode().split("\n")[:-1]:
        match = SAMPLE.match(line)
        found.append((match[1], dict(LABEL.findall(match[2])), None if match[1] in MOVING else float(match[3]))
                     if match else line)
    page.wrong += [f"not there: {line}" for line in wanted if line not in found]
    page.wrong += [f"not of metrics: {line}" for line in found if line not in wanted]
    if not page.wrong and wanted != found:
        page.wrong.append("another order")


def compare(page, before):
    for family in before.families.values():
        for name, labels, value in family["samples"] if family["TYPE"] in ("counter", "histogram") else []:
            now = page.get(name, labels)
            if now is None and "agent" not in labels or now is not None and now < value:
                page.wrong.append(f"fell: {name} {labels} from {value} to {now}")


def main():
    page = Page(sys.stdin.buffer.read())
    match sys.argv[1]:
        case "get":
            value = page.get(sys.argv[2], dict(pair.split("=", 1) for pair in sys.argv[3:]))
            print("none" if value is None else f"{value:.15g}")
            return 0
        case "compare":
            with open(sys.argv[2], "rb") as file:
                compare(page, Page(file.read()))
        case "same":
            with open(sys.argv[2], "rb") as file:
                same(page, file.read())
    print("\n".join(page.wrong), end="")
    return 1 if page.wrong else 0


sys.exit(main())
