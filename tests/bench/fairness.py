#!/usr/bin/env python3
"""How long a request of one user and a health check take while a worker has other things to do.

    tests/bench/fairness.py BUNDLE [--seconds 3] [--users 1000] [--connections 1000]

One worker on one core; what asks, on the other. Beside it, one after the other: nothing, batches of --users users, the same
with exact searches, and wrk with --connections busy connections. Health checks come on a new connection each, and on a kept one.
RECALLD_BUILD: where the programs are (build).
"""

import argparse
import http.client
import os
import pathlib
import socket
import subprocess
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("RECALLD_BUILD", ROOT / "build"))
SINGLE = '{"user":{"user_id":"5"},"k":100}'
LUA = """wrk.method = "POST"
local i = 0
request = function() i = i + 1; return wrk.format(nil, "/recall", nil, '{"user":{"user_id":"' .. (i % 5000) .. '"},"k":100}') end
"""


class Asker(threading.Thread):
    """Asks every few milliseconds until told to stop."""

    def __init__(self, address, path, body=None, fresh=False):
        super().__init__()
        self.address, self.path, self.body, self.fresh = address, path, body, fresh
        self.seconds, self.stop = [], False

    def run(self):
        connection = None
        while not self.stop:
            begin = time.monotonic()
            if connection is None or self.fresh:
                connection = http.client.HTTPConnection(self.address)
                connection.connect()
                connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.request("POST" if self.body else "GET", self.path, self.body)
            assert connection.getresponse().read()
            self.seconds.append(time.monotonic() - begin)
            time.sleep(0.003)

    def row(self):
        ms = sorted(second * 1e3 for second in self.seconds)
        return " / ".join(f"{ms[int((len(ms) - 1) * p)]:.2f}" for p in (0.5, 0.99, 1))


def batches(address, users, seconds, more):
    body = '{"requests":[' + ",".join(f'{{"user":{{"user_id":"{i}"}},"k":100{more}}}' for i in range(users)) + "]}"
    end, times = time.monotonic() + seconds, []
    while time.monotonic() < end:
        begin = time.monotonic()
        connection = http.client.HTTPConnection(address)
        connection.request("POST", "/recall", body)
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        answer.read()
        times.append(time.monotonic() - begin)
    return f" ({sorted(times)[len(times) // 2] * 1e3:.0f} ms each)"


def busy(address, connections, seconds):
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as lua:
        lua.write(LUA)
        lua.flush()
        subprocess.run(["wrk", "-t1", f"-c{connections}", f"-d{int(seconds)}s", "-s", lua.name, f"http://{address}"],
                       check=True, capture_output=True)
    return ""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--connections", type=int, default=1000)
    args = parser.parse_args()
    daemon = subprocess.Popen(["taskset", "-c", "0", BUILD / "recalld", "--bundle", args.bundle, "--listen", "127.0.0.1:0", "--workers",
                               "1", "--set", f"limits.batch={args.users}"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    os.sched_setaffinity(0, {1})
    try:
        address = daemon.stdout.readline().split()[-1]
        while b"ready" not in subprocess.run(["curl", "-s", f"{address}/readyz"], capture_output=True).stdout.replace(b"not-ready", b""):
            time.sleep(0.1)
        beside = [("nothing", lambda: time.sleep(args.seconds) or ""),
                  (f"batches of {args.users} users", lambda: batches(address, args.users, args.seconds, "")),
                  ("the same, exact", lambda: batches(address, args.users, args.seconds, ',"search":{"exact":true}')),
                  (f"{args.connections} busy connections", lambda: busy(address, args.connections, args.seconds))]
        print("| beside | single, p50 / p99 / most ms | health check, new connection | health check, kept connection |\n|---|---|---|---|")
        for name, run in beside:
            askers = [Asker(address, "/recall", SINGLE), Asker(address, "/healthz", fresh=True), Asker(address, "/healthz")]
            for asker in askers:
                asker.start()
            note = run()
            for asker in askers:
                asker.stop = True
            for asker in askers:
                asker.join()
            print(f"| {name}{note} | " + " | ".join(asker.row() for asker in askers) + " |", flush=True)
    finally:
        daemon.terminate()
        daemon.wait()


if __name__ == "__main__":
    main()
