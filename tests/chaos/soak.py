#!/usr/bin/python3
"""Mixed traffic with a reload a second for as long as you like: every answer is one that was expected, memory stays flat.

    tests/chaos/soak.py [SECONDS] [--clients N]     SECONDS: 300 by default; programs: $RECALLD_BUILD, also sanitizers'

Single requests, batches, filters, /similar, /embed, mistakes, items that come and go, looks at /metrics and /model, on kept and on
fresh connections, in pieces, cut off in the middle, and bytes that are no HTTP. Every seventh load is of a bundle that is not there.
Exit status 1 when an answer was not expected, or when the resident memory of the last quarter is above that of the second
by more than a tenth and 16 MiB.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
import harness  # noqa: E402
import raw_http  # noqa: E402
import rolling  # noqa: E402


def answers(count):
    """The answer has so many items, best first."""
    def check(answer):
        items = answer.json["items"]
        scores = [item["score"] for item in items]
        return answer.status == 200 and len(items) == count and scores == sorted(scores, reverse=True)
    return check


def status(*allowed):
    return lambda answer: answer.status in allowed


def kinds(rng):
    """One request of each kind, as (name, method, path, body, what is expected)."""
    user = {"user_id": str(rng.randrange(1, 400)), "city": rng.choice(["a", "b", None]), "topics": ["x", "y"][:rng.randrange(3)]}
    item = f"soak-{rng.randrange(100)}"
    k = rng.choice([1, 10, 100])
    batch = [{"user": {"user_id": str(n)}, "k": 5} for n in range(rng.choice([1, 8, 64]))]
    return [
        ("recall", "POST", "/recall", {"user": user, "k": k}, answers(k)),
        ("exact", "POST", "/recall", {"user": user, "k": k, "search": {"exact": True}}, answers(k)),
        ("exclude", "POST", "/recall", {"user": {}, "k": k, "exclude": list(range(rng.randrange(200)))}, answers(k)),
        ("filter", "POST", "/recall", {"user": user, "k": 5, "filter": {"category": ["sport", "news"]}, "fields": ["category"]}, status(200)),
        ("batch", "POST", "/recall", {"requests": batch}, lambda answer: len(answer.json["results"]) == len(batch)),
        ("similar", "POST", "/similar", {"item": str(rng.randrange(1, 400)), "k": k}, status(200, 404)),
        ("embed", "POST", "/embed", {"user": user}, lambda answer: len(answer.json["vector"]) > 1),
        ("add", "POST", "/items", {"items": [{"id": item, "features": {"category": "sport"}}]}, status(200)),
        ("remove", "DELETE", f"/items/{item}", None, status(200, 404)),
        ("no JSON", "POST", "/recall", '{"user":', status(400)),
        ("mistake", "POST", "/recall", {"user": {}, "k": 0}, status(400)),
        ("large", "POST", "/recall", '{"user":{}}' + " " * rng.randrange(300000), answers(100)),
        ("too large", "POST", "/recall", '{"user":{}}' + " " * 1050000, status(413)),
        ("nowhere", "GET", "/nowhere", None, status(404)),
        ("method", "PUT", "/recall", {}, status(405)),
        ("health", "GET", "/healthz", None, status(200)),
        ("ready", "GET", "/readyz", None, status(200)),
        ("metrics", "GET", "/metrics", None, status(200)),
        ("model", "GET", "/model", None, lambda answer: answer.json["model"]),
    ]


class Clients(harness.Askers):
    def __init__(self, address, threads):
        super().__init__(threads)
        self.address, self.lock, self.seeds = address, threading.Lock(), iter(range(threads))
        self.counts, self.unexpected = collections.Counter(), []

    def raw(self, rng):
        """Bytes that are no HTTP, or a request that nobody waits for."""
        body = b'{"user":{},"k":100}'
        whole = b"POST /recall HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        with raw_http.connect(self.address) as sock:
            if rng.random() < 0.3:
                raw_http.send(sock, rng.randbytes(200) + b"\r\n\r\n")
                got = raw_http.Answers(*raw_http.receive(sock))
                return got.statuses in ([400], [505]) and got.closed
            raw_http.send(sock, whole * 3 + whole[:rng.randrange(1, len(whole))])
        return True

    def one(self, connection, rng):
        if rng.random() < 0.03:
            return "raw", self.raw(rng)
        name, method, path, body, expected = rng.choice(kinds(rng))
        answer = connection.call(method, path, body)
        if not expected(answer):
            return name, (answer.status, answer.body[:300])
        return name, True

    def ask(self):
        with self.lock:
            rng = random.Random(next(self.seeds))
        connection = harness.Connection(self.address)
        while not self.stop.is_set():
            name = "?"
            try:
                name, good = self.one(connection, rng)
            except Exception as error:  # whatever it is, it was not expected
                good = repr(error)
                connection.close()
            with self.lock:
                self.counts[name] += 1
                if good is not True:
                    self.unexpected.append((name, good))
            if name == "too large" or rng.random() < 0.1:
                connection.close()
        connection.close()


def resident(pid):
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


def main():
    parser = argparse.ArgumentParser(description="a soak of recalld")
    parser.add_argument("seconds", nargs="?", type=float, default=300)
    parser.add_argument("--clients", type=int, default=4)
    arguments = parser.parse_args()
    directory = pathlib.Path(tempfile.mkdtemp(prefix="recalld-soak."))
    bundles = rolling.make_bundles(directory)
    link = directory / "current"
    link.symlink_to(bundles[0])
    daemon = harness.Daemon(directory, "--bundle", link, "--listen", "127.0.0.1:0", "--workers", 2)
    memory, reloads, wrong_loads = [], 0, 0
    end = time.monotonic() + arguments.seconds
    with Clients(daemon.address, arguments.clients) as clients:
        while time.monotonic() < end:
            begin = time.monotonic()
            reloads += 1
            bad = reloads % 7 == 0
            rolling.point(link, directory / "nothing" if bad else bundles[reloads % 2])
            wrong_loads += (daemon.reload()["reload"]["last_error"] is not None) != bad
            memory.append(resident(daemon.process.pid))
            time.sleep(max(0.0, begin + 1 - time.monotonic()))
    state = json.loads(daemon.get("/model").body)["reload"]
    daemon.stop()  # fails when a sanitizer has something to say
    shutil.rmtree(directory)
    quarter = max(1, len(memory) // 4)
    second, last = (statistics.median(part) for part in (memory[quarter:2 * quarter] or memory, memory[-quarter:]))
    flat = last <= second * 1.1 + 16
    print(f"{arguments.seconds:.0f} s, {reloads} reloads ({state['failed']} refused, as they should), {sum(clients.counts.values())} requests; "
          f"unexpected: {len(clients.unexpected)} answers, {wrong_loads} loads; resident {second:.0f} MiB in the second quarter, {last:.0f} in the last")
    print(", ".join(f"{name} {count}" for name, count in sorted(clients.counts.items())))
    for unexpected in clients.unexpected[:10]:
        print(unexpected)
    return 0 if flat and not clients.unexpected and not wrong_loads else 1


if __name__ == "__main__":
    sys.exit(main())
