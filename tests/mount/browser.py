"""A headless Chromium, driven line by line through its WebDriver (W3C): a command a line on standard input, the answer
a line on standard output, as JSON.

open URL            size WIDTH HEIGHT      scheme light|dark
js EXPRESSION       its value
await SECONDS EXPRESSION    seconds until it was true; null: it was not
shot FILE           a picture of the page, as PNG
colours FILE        how many different colours it has
differ FILE FILE    the part of their points that differ; null: they have not the same size
log                 what the console said
end
"""
import base64
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
import zlib

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"]


class Browser:
    def __init__(self, directory):
        # a session of its own, with all that it starts: that is what is ended
        self.driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True,
                                       stderr=subprocess.DEVNULL, env={**os.environ, "HOME": directory, "TMPDIR": directory},
                                       start_new_session=True)
        self.directory = directory

    def begin(self):
        for line in self.driver.stdout:
            if "started successfully on port" in line:
                self.url = f"http://127.0.0.1:{int(line.rstrip('.' + chr(10)).split()[-1])}/session"
                break
        else:
            sys.exit("chromedriver did not start")
        options = {"args": FLAGS + [f"--user-data-dir={self.directory}/profile"]}
        self.url += "/" + self.ask("", {"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}})["sessionId"]

    def ask(self, path, body=None, method=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def end(self):
        """Returns when all of it has gone: it writes to its directory up to then."""
        os.killpg(self.driver.pid, signal.SIGTERM)
        self.driver.wait()
        kill_at = time.monotonic() + 10
        try:
            while time.monotonic() < kill_at + 10:  # zombies may stay that nobody reaps
                os.killpg(self.driver.pid, 0 if time.monotonic() < kill_at else signal.SIGKILL)
                time.sleep(0.02)
        except ProcessLookupError:
            pass

    def cdp(self, cmd, **params):
        return self.ask("/goog/cdp/execute", {"cmd": cmd, "params": params})

    # --- commands ---

    def open(self, url):
        self.ask("/url", {"url": url})

    def size(self, width, height):
        self.cdp("Emulation.setDeviceMetricsOverride", width=int(width), height=int(height), deviceScaleFactor=1,
                 mobile=False)

    def scheme(self, name):
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def js(self, *words):
        return self.ask("/execute/sync", {"script": "return " + " ".join(words), "args": []})

    def await_(self, limit, *words):
        began = time.monotonic()
        while time.monotonic() - began < float(limit):
            if self.js(*words):
                return round(time.monotonic() - began, 2)
            time.sleep(0.1)
        return None

    def shot(self, path):
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.ask("/screenshot")))

    def colours(self, path):
        return len(set(points(path)[2]))

    def differ(self, one, other):
        one, other = points(one), points(other)
        if one[:2] != other[:2]:
            return None
        return sum(a != b for a, b in zip(one[2], other[2])) / len(one[2])

    def log(self):
        return self.ask("/se/log", {"type": "browser"})


def points(path):
    """Width, height and points of a PNG of 8 bits a channel, not interlaced (as Chromium makes them)."""
    with open(path, "rb") as file:
        data = file.read()
    at, packed = 8, b""
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", body)
            assert depth == 8 and colour in (2, 6) and not interlaced
        if kind == b"IDAT":
            packed += body
        at += 12 + length
    n = 3 if colour == 2 else 4
    raw, rows, above = zlib.decompress(packed), [], bytes(width * n)
    for y in range(height):
        kind, row = raw[y * (width * n + 1)], bytearray(raw[y * (width * n + 1) + 1:(y + 1) * (width * n + 1)])
        for x in range(width * n if kind else 0):
            left, corner = (row[x - n], above[x - n]) if x >= n else (0, 0)
            row[x] = (row[x] + [0, left, above[x], (left + above[x]) // 2, paeth(left, above[x], corner)][kind]) & 255
        rows += [bytes(row[x:x + 3]) for x in range(0, width * n, n)]
        above = row
    return width, height, rows


def paeth(left, up, corner):
    estimate = left + up - corner
    return min((left, up, corner), key=lambda value: abs(estimate - value))


with tempfile.TemporaryDirectory() as directory:
    browser = Browser(directory)
    try:
        browser.begin()
        for line in sys.stdin:
            command, *words = line.split()
            if command == "end":
                break
            print(json.dumps(getattr(browser, "await_" if command == "await" else command)(*words)), flush=True)
    finally:
        browser.end()
