"""What the tests of Prometheus have no other tool for. Speaks to loopback alone.

serve FILE             an HTTP server of the OpenMetrics page FILE, on a port that it says
get URL                what a server answers
query URL EXPR         what a Prometheus answers: a line `JOB VALUE` each, sorted
strangers URL          selectors in the rules of a Prometheus that select nothing there
layout DASHBOARD       what is wrong with the panels of a dashboard of Grafana
rules DASHBOARD        its expressions as a file of recording rules
"""
import http.server
import json
import re
import sys
import urllib.parse
import urllib.request

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def serve(path):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            with open(path, "rb") as file:
                page = file.read()
            self.send_response(200)
            self.send_header("Content-Type", OPENMETRICS)
            self.end_headers()
            self.wfile.write(page)

        def log_request(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"address=127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


def get(url):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(url, timeout=30).read().decode()


def query(url, expr):
    answer = json.loads(get(f"{url}/api/v1/query?" + urllib.parse.urlencode({"query": expr})))
    return sorted(f"{series['metric'].get('job', '-')} {series['value'][1]}" for series in answer["data"]["result"])


def strangers(url):
    groups = json.loads(get(f"{url}/api/v1/rules"))["data"]["groups"]
    text = " ".join(rule["query"] for group in groups for rule in group["rules"])
    selectors = sorted(set(re.findall(r"agentpool_[a-z_]+(?:\{[^}]*\})?", text)))
    assert len(selectors) > 20, selectors
    return [selector for selector in selectors if not query(url, f"count({selector})")]


def layout(dashboard):
    wrong, panels = [], dashboard["panels"]
    if len({panel["id"] for panel in panels}) != len(panels):
        wrong.append("two panels have one id")
    taken = {}
    for panel in panels:
        at, title = panel["gridPos"], panel["title"]
        if at["x"] < 0 or at["w"] < 1 or at["h"] < 1 or at["x"] + at["w"] > 24:
            wrong.append(f"outside: {title}")
        for place in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            if taken.setdefault(place, title) != title:
                wrong.append(f"{title} lies over {taken[place]} at {place}")
                break
        if not panel["description"] or not panel["targets"]:
            wrong.append(f"says nothing: {title}")
        for place in [panel] + panel["targets"]:
            if place["datasource"]["uid"] != "${datasource}":
                wrong.append(f"a data source of its own: {title}")
        if any('pool=~"$pool"' not in target["expr"] for target in panel["targets"]):
            wrong.append(f"not of the pool that was chosen: {title}")
    names = {panel["title"] + panel["type"] for panel in panels}
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    if len(names) != len(panels) or set(variables) != {"datasource", "pool"}:
        wrong.append("two panels have one title, or other variables than datasource and pool")
    if variables["pool"]["query"]["query"] != "label_values(agentpool_build_info, pool)":
        wrong.append("pools are not those that there are")
    return wrong


def rules(dashboard):
    exprs = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    exprs = [expr.replace("$__rate_interval", "1m").replace("$pool", ".*") for expr in exprs]
    assert exprs and "$" not in "".join(exprs), exprs
    return {"groups": [{"name": "dashboard", "rules": [{"record": f"dashboard:{i}", "expr": expr}
                                                       for i, expr in enumerate(exprs)]}]}


def main():
    word, what = sys.argv[1:3]
    match word:
        case "serve":
            serve(what)
        case "get":
            print(get(what))
        case "query":
            print("\n".join(query(what, sys.argv[3])))
        case "strangers":
            print("\n".join(strangers(what)))
        case "layout":
            with open(what, encoding="utf-8") as file:
                print("\n".join(layout(json.load(file))))
        case "rules":
            with open(what, encoding="utf-8") as file:
                json.dump(rules(json.load(file)), sys.stdout, indent=1)


main()
