#!/usr/bin/python3
"""Rolling restarts and reloads of two daemons behind HAProxy or nginx under load: no request may fail.

    tests/chaos/rolling.py [SECONDS] [--proxy haproxy|nginx]     SECONDS: 60 by default; programs: $RECALLD_BUILD

Each round publishes the other bundle and reloads one daemon after the other, then publishes again and restarts one after
the other. The load is four clients that compare every answer, byte for byte, with what one of the two bundles gives, and wrk
where it is installed. Exit status 1 when one request failed or was answered wrongly.
"""

import argparse
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
import harness  # noqa: E402
import proxies  # noqa: E402
import rolling  # noqa: E402


def start_wrk(directory, address, seconds):
    if not shutil.which("wrk"):
        return None
    script = directory / "recall.lua"
    script.write_text(f"wrk.method = 'POST'\nwrk.body = [[{rolling.BODIES[0].decode()}]]\n")
    return subprocess.Popen(["wrk", "-t1", "-c32", f"-d{int(seconds)}s", "--timeout", "10s", "-s", script,
                             f"http://{address}/recall"], stdout=subprocess.PIPE, text=True)


def wrk_failures(process):
    """Requests that wrk made, and those that it says failed."""
    report = process.communicate()[0]
    requests = int(re.search(r"(\d+) requests in", report)[1])
    failed = sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", report)))
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", report)
    return requests, failed + (sum(map(int, errors.groups())) if errors else 0)


def main():
    parser = argparse.ArgumentParser(description="rolling restarts and reloads behind a proxy")
    parser.add_argument("seconds", nargs="?", type=int, default=60)
    parser.add_argument("--proxy", choices=sorted(proxies.ALL), default="haproxy")
    arguments = parser.parse_args()
    if not proxies.program(arguments.proxy):
        sys.exit(f"{arguments.proxy} is not installed: make proxy-deps")
    directory = pathlib.Path(tempfile.mkdtemp(prefix="recalld-rolling."))
    directory.chmod(0o755)
    bundles = rolling.make_bundles(directory)
    expected = dict(rolling.answers_of(directory, bundle) for bundle in bundles)
    pair = rolling.Pair(directory, arguments.proxy, bundles)
    end = time.monotonic() + arguments.seconds
    restarts = reloads = 0
    wrk = start_wrk(directory, pair.proxy.address, arguments.seconds)
    with rolling.Askers(pair.proxy.address, expected) as askers:
        while time.monotonic() < end:
            pair.publish()
            for n in (0, 1):
                pair.reload(n)
                reloads += 1
            pair.publish()
            for n in (0, 1):
                pair.restart(n)
                restarts += 1
    requests, failed = wrk_failures(wrk) if wrk else (0, 0)
    pair.stop()
    shutil.rmtree(directory)
    compared = sum(askers.counts.values())
    print(f"{arguments.proxy}: {restarts} restarts, {reloads} reloads; {compared} answers compared, {len(askers.wrong)} wrong or "
          f"failed; wrk: {requests} requests, {failed} failed")
    for wrong in askers.wrong[:5]:
        print(wrong)
    return 1 if askers.wrong or failed else 0


if __name__ == "__main__":
    sys.exit(main())
