#!/usr/bin/python3
"""Load with a SIGHUP every second between two bundles: every answer must be, byte for byte, what exactly one of them gives.

    tests/bench/reload_load.py BUNDLE_A BUNDLE_B [--seconds 60] [--connections 8] [--workers 0]

Single requests and batches are mixed. Exit status 0 when nothing failed and both models were seen.
"""

import argparse
import json
import os
import pathlib
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
import harness  # noqa: E402

USERS = 200
BATCHES = 20


def make_requests():
    singles = [{"user": {"user_id": str(i)}, "k": 50} for i in range(USERS)]
    batches = [{"requests": singles[i * 10:i * 10 + 10]} for i in range(BATCHES)]
    return [json.dumps(body).encode() for body in singles + batches]


def ask_all(directory, bundle, requests):
    """Version, and its answer to each request, from a daemon that serves nothing else."""
    daemon = harness.Daemon(directory, "--bundle", bundle, "--listen", "127.0.0.1:0", "--workers", 1)
    connection = daemon.connect()
    answers = [connection.call("POST", "/recall", body).body for body in requests]
    connection.close()
    daemon.stop()
    return json.loads(answers[0])["model"], answers


class Client(threading.Thread):
    def __init__(self, daemon, requests, expected, stop, start):
        super().__init__()
        self.daemon_, self.requests, self.expected, self.stop_, self.at = daemon, requests, expected, stop, start
        self.seen = {version: 0 for version in expected}
        self.failures = []
        self.slowest = 0.0

    def run(self):
        connection = self.daemon_.connect()
        while not self.stop_.is_set():
            self.at = (self.at + 1) % len(self.requests)
            begin = time.monotonic()
            try:
                answer = connection.call("POST", "/recall", self.requests[self.at])
            except Exception as error:  # whatever it is, it is a failed request
                self.failures.append(repr(error))
                connection.close()
                continue
            self.slowest = max(self.slowest, time.monotonic() - begin)
            version = next((v for v, answers in self.expected.items() if answers[self.at] == answer.body), None)
            if answer.status != 200 or version is None:
                self.failures.append(f"{answer.status} {answer.body[:200]}")
            else:
                self.seen[version] += 1
        connection.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs=2, type=pathlib.Path)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--workers", type=int, default=0)
    args = parser.parse_args()
    requests = make_requests()
    with tempfile.TemporaryDirectory() as directory:
        expected = dict(ask_all(directory, bundle, requests) for bundle in args.bundles)
        assert len(expected) == 2, "the two bundles have the same version"
        link = pathlib.Path(directory, "current")
        link.symlink_to(args.bundles[0].resolve())
        daemon = harness.Daemon(directory, "--bundle", link, "--listen", "127.0.0.1:0", "--workers", args.workers)
        stop = threading.Event()
        clients = [Client(daemon, requests, expected, stop, i * 7) for i in range(args.connections)]
        for client in clients:
            client.start()
        for turn in range(args.seconds):
            time.sleep(1)
            fresh = pathlib.Path(directory, "new")
            fresh.symlink_to(args.bundles[(turn + 1) % 2].resolve())
            os.replace(fresh, link)
            daemon.hup()
        stop.set()
        for client in clients:
            client.join()
        state = daemon.reload_state()
        daemon.stop()
    failures = [failure for client in clients for failure in client.failures]
    seen = {version: sum(client.seen[version] for client in clients) for version in expected}
    print(f"{sum(seen.values())} answers in {args.seconds} s over {args.connections} connections, {len(failures)} failed, "
          f"slowest {max(client.slowest for client in clients) * 1e3:.0f} ms; loads: {state['ok']} ok, {state['failed']} failed")
    for version, count in seen.items():
        print(f"  {version}: {count}")
    for failure in failures[:5]:
        print(failure)
    return 1 if failures or not all(seen.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
