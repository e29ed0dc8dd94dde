#!/usr/bin/python3
"""Slow and silent clients: what others notice. p99 of a steady client, without and with an attack, in turns.

    tests/chaos/slow_clients.py [SECONDS] [--turns N] [--only NAME...]    SECONDS: 10 each by default; programs: $RECALLD_BUILD

The attacks: slowhttptest's four (slow headers, slow body, range, slow read; `make proxy-deps` installs it), 10,000 idle connections,
connections that ask without pause and never read, and connections that send a byte of a head each second. The client that is
measured sends 200 requests a second, every fourth on a connection of its own, to one worker. Both get precedence over other
processes (as root), the attackers' included, which in life run elsewhere. Exit status 1 when one of the measured requests fails, or their
p99 under an attack is above 1.5 times that without. On a machine with other work the times say little: more --turns.
"""

import argparse
import multiprocessing
import os
import pathlib
import resource
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
import harness  # noqa: E402
import raw_http  # noqa: E402
from rolling import make_bundles  # noqa: E402

RATE = 200
ALLOWED = 1.5


def post(body):
    return b"POST /recall HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


ASK = post(b'{"user":{"user_id":"1"},"k":20}')


def ask(sock):
    sock.sendall(ASK)
    data = b""
    while not data.endswith(b"}\n") and not data.endswith(b"}"):
        piece = sock.recv(65536)
        if not piece:
            raise ConnectionError("closed")
        data += piece
    if not data.startswith(b"HTTP/1.1 200"):
        raise ConnectionError(data[:60])


def measure(address, seconds):
    """Seconds that each request took, and how many failed. Times count from when the request was due."""
    times, failed, kept = [], 0, raw_http.connect(address)
    due = time.monotonic()
    for n in range(int(seconds * RATE)):
        due += 1 / RATE
        time.sleep(max(0.0, due - time.monotonic()))
        begin = time.monotonic()
        try:
            if n % 4 == 0:
                with raw_http.connect(address, 10) as fresh:
                    ask(fresh)
            else:
                ask(kept)
            times.append(time.monotonic() - begin)
        except OSError:
            failed += 1
            kept = raw_http.connect(address)
    kept.close()
    return times, failed


# --- attacks: each runs in a process of its own until that is ended -----------------------------------------------------------


def open_all(address, count):
    host, port = address.rsplit(":", 1)
    socks = []
    for _ in range(count):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect((host, int(port)))
        sock.setblocking(False)
        socks.append(sock)
    return socks


def idle(address):
    socks = open_all(address, 9900)  # the daemon's own limit is 10,000 a worker, and the measured client needs some
    time.sleep(3600)
    return socks


def never_read(address):
    """Fill every buffer on the way, and stay."""
    request = post(b'{"user":{},"k":1000}') * 50
    live = open_all(address, 500)
    while True:
        for sock in live:
            try:
                sock.send(request)
            except OSError:  # full, or cut off
                pass
        time.sleep(0.2)


def drip(address):
    """2,000 heads that get a byte a second and never end; cut off after limits.request_timeout, they begin anew."""
    live = open_all(address, 2000)
    while True:
        for n, sock in enumerate(live):
            try:
                sock.send(b"A")
                if n % 20 == 0:
                    select.select([], [], [], 0.01)
            except OSError:
                sock.close()
                live[n] = open_all(address, 1)[0]


def slowhttptest(*options):
    def attack(address):
        subprocess.run(["slowhttptest", *options, "-c", "2000", "-r", "400", "-l", "3600", "-i", "2", "-p", "3"],
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return attack


def attacks(address):
    url = f"http://{address}"
    known = {"idle": idle, "never read": never_read, "drip": drip}
    if shutil.which("slowhttptest"):
        known |= {"slow headers": slowhttptest("-H", "-u", url + "/healthz"),
                  "slow body": slowhttptest("-B", "-s", "65536", "-u", url + "/recall"),
                  "range": slowhttptest("-R", "-u", url + "/metrics"),
                  "slow read": slowhttptest("-X", "-w", "1", "-y", "8", "-n", "2", "-z", "8", "-k", "10", "-u", url + "/metrics")}
    return known


class Attack:
    def __init__(self, attack, address):
        self.process = multiprocessing.Process(target=self.run, args=(attack, address))

    @staticmethod
    def run(attack, address):
        os.nice(20)
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
        attack(address)

    def __enter__(self):
        self.process.start()
        return self

    def __exit__(self, *_):
        for pid in children(self.process.pid):
            subprocess.run(["kill", str(pid)], check=False)
        self.process.terminate()
        self.process.join()
        time.sleep(1)


def children(pid):
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return found.stdout.split()


def p99(times):
    return sorted(times)[int(len(times) * 0.99)]


def prefer(pid):
    """Precedence for all threads of a process, where that is allowed."""
    for thread in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            os.setpriority(os.PRIO_PROCESS, int(thread.name), -15)
        except PermissionError:
            return


def settle(daemon):
    """Until the attack is under way, and its first flood of real requests has been answered."""
    time.sleep(4)
    count, before = 0, None
    while count < 30 and (before is None or now - before > 200):
        before = requests_of(daemon)
        time.sleep(0.5)
        now = requests_of(daemon)
        count += 1


def requests_of(daemon):
    return int(harness.metric(daemon.get("/metrics").body.decode(), "recalld_http_requests_total"))


def counters(daemon):
    text = daemon.get("/metrics").body.decode()
    names = ("connections_open", "bad_408", "response_timeouts", "connections_refused")
    kinds = [int(harness.metric(text, f"recalld_http_{name}") or harness.metric(text, f"recalld_http_{name}_total") or 0)
             for name in names]
    return (*kinds, int(harness.metric(text, "recalld_process_resident_memory_bytes")) >> 20)


def campaign(daemon, name, attack, seconds, turns):
    quiet, busy, failures = [], [], 0
    before, during = counters(daemon), None
    for _ in range(turns):
        times, failed = measure(daemon.address, seconds)
        quiet += times
        failures += failed
        with Attack(attack, daemon.address):
            settle(daemon)
            times, failed = measure(daemon.address, seconds)
            during = counters(daemon)
        busy += times
        failures += failed
    ratio = p99(busy) / p99(quiet)
    print(f"{name:<14}{during[0]:>10}{during[1] - before[1]:>8}{during[2] - before[2]:>8}{during[4]:>8}"
          f"{p99(quiet) * 1e3:>11.2f}{p99(busy) * 1e3:>11.2f}{ratio:>8.2f}{failures:>8}", flush=True)
    return failures == 0 and ratio <= ALLOWED


def main():
    parser = argparse.ArgumentParser(description="p99 of others under slow and silent clients")
    parser.add_argument("seconds", nargs="?", type=float, default=10)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--only", nargs="*")
    arguments = parser.parse_args()
    directory = pathlib.Path(tempfile.mkdtemp(prefix="recalld-slow."))
    bundle = make_bundles(directory)[0]
    daemon = harness.Daemon(directory, "--bundle", bundle, "--listen", "127.0.0.1:0", "--workers", 1, "--set",
                            "limits.response_timeout=60s")
    prefer(daemon.process.pid)
    prefer(os.getpid())
    known = attacks(daemon.address)
    good = True
    print(f"{'attack':<14}{'open':>10}{'408':>8}{'cut off':>8}{'RSS MiB':>8}{'p99 ms':>11}{'attacked':>11}{'ratio':>8}{'failed':>8}")
    for name in arguments.only or known:
        good &= campaign(daemon, name, known[name], arguments.seconds, arguments.turns)
    daemon.stop()
    shutil.rmtree(directory)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
