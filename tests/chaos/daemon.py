#!/usr/bin/python3
"""Chaos for recalld: what can happen to a process happens to it, again and again, under load.

    tests/chaos/daemon.py [ROUNDS] [--seed N]     ROUNDS: 1000 by default; programs: $RECALLD_BUILD

Four clients ask without a pause and compare every answer, byte for byte, with what one of two bundles gives. Each round one of
these, at random: kill -9 and a start; SIGHUP with a good bundle; SIGHUP with a damaged one; a full disk, or a file size limit, under
the log; no descriptors left; no memory left; the wall clock jumps; the process is stopped for a while. Then: how long until a new
connection is answered rightly, and did anything fail that should not. Exit status 1 for a wrong answer, a crash, an error
where none is allowed, or a recovery that took 2 s.
"""

import argparse
import collections
import contextlib
import pathlib
import random
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
import faults  # noqa: E402
import harness  # noqa: E402
import proxies  # noqa: E402
import rolling  # noqa: E402

RECOVERY = 2.0


class Askers(rolling.Askers):
    """Errors are noted with the fault that was going on; a wrong answer ends everything."""

    fault = "none"

    def __init__(self, address, expected):
        super().__init__(address, expected)
        self.errors = collections.Counter()

    def ask(self):
        connection, at = harness.Connection(self.address), 0
        connection.timeout = 5
        while not self.stop.is_set():
            at = (at + 1) % len(rolling.BODIES)
            try:
                answer = connection.call("POST", "/recall", rolling.BODIES[at])
            except Exception:
                self.errors[self.fault] += 1
                connection.close()
                time.sleep(0.005)
                continue
            version = next((v for v, bodies in self.expected.items() if bodies[at] == answer.body), None)
            if version is not None and answer.status == 200:
                self.counts[version] += 1
            elif answer.status == 503:
                self.errors[self.fault] += 1
            else:
                self.wrong.append((self.fault, answer.status, answer.body[:200]))
        connection.close()


class Stand:
    def __init__(self, directory, seed):
        self.directory, self.random = directory, random.Random(seed)
        self.bundles = rolling.make_bundles(directory)
        self.expected = dict(rolling.answers_of(directory, bundle) for bundle in self.bundles)
        self.link, self.good = directory / "current", self.bundles[0]
        self.link.symlink_to(self.good)
        self.logs = directory / "logs"
        self.logs.mkdir()
        self.tmpfs = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", self.logs], check=False,
                                    capture_output=True).returncode == 0
        self.control = faults.Control(directory / "failat.control")
        self.environment = {"LD_PRELOAD": str(faults.build_shim(directory)), "FAILAT_CONTROL": str(directory / "failat.control")}
        self.port = proxies.free_ports(1)[0]
        self.address = f"127.0.0.1:{self.port}"
        self.start()

    def start(self):
        self.daemon = harness.Daemon(self.logs, "--bundle", self.link, "--listen", self.address, "--workers", 2, env=self.environment)
        self.pid = self.daemon.process.pid

    def point(self, target):
        rolling.point(self.link, target)

    def reload(self):
        """Returns the state afterwards."""
        return self.daemon.reload()["reload"]

    @contextlib.contextmanager
    def limited(self, what, value):
        """A lower soft limit of the running process."""
        before = resource.prlimit(self.pid, what)
        resource.prlimit(self.pid, what, (min(value, before[1]), before[1]))
        try:
            yield
        finally:
            resource.prlimit(self.pid, what, before)

    # --- the faults: each ends when it is over ---------------------------------------------------------------------------

    def kill(self):
        self.daemon.process.kill()
        self.daemon.process.wait()
        self.daemon.process.stdout.close()
        self.daemon.log_path.unlink()
        self.start()

    def reload_good(self):
        self.good = self.bundles[1 - self.bundles.index(self.good)]
        self.point(self.good)
        assert self.reload()["last_error"] is None

    def damaged_copy(self):
        copy = self.directory / "damaged"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.random.choice(self.bundles), copy)
        files = sorted(path for path in copy.rglob("*") if path.is_file() and path.stat().st_size > 0)
        victim = self.random.choice(files)
        how = self.random.choice(["flip", "cut", "remove", "empty", "grow", "nothing there", "not JSON"])
        data = bytearray(victim.read_bytes())
        if how == "flip":
            data[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
            victim.write_bytes(data)
        elif how == "cut":
            victim.write_bytes(data[:self.random.randrange(len(data))])
        elif how == "remove":
            victim.unlink()
        elif how == "empty":
            victim.write_bytes(b"")
        elif how == "grow":
            victim.write_bytes(data + b"\0")
        elif how == "nothing there":
            shutil.rmtree(copy)
        else:
            (copy / "manifest.json").write_text("{" * 1000)
        return copy

    def reload_damaged(self):
        self.point(self.damaged_copy())
        state = self.reload()
        self.point(self.good)
        assert state["last_error"], "a damaged bundle was loaded"

    def log_full(self):
        """Several reloads' lines that nobody can keep."""
        filler = self.logs / "filler"
        if self.tmpfs and self.random.random() < 0.5:
            with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            self.reload_good()
            self.reload_damaged()
            filler.unlink()
        else:
            with self.limited(resource.RLIMIT_FSIZE, self.daemon.log_path.stat().st_size):
                self.reload_good()
                self.reload_damaged()

    def no_descriptors(self):
        socks = []
        used = max(map(int, (path.name for path in pathlib.Path(f"/proc/{self.pid}/fd").iterdir())))
        with self.limited(resource.RLIMIT_NOFILE, used + 3):
            for _ in range(60):
                sock = socket.socket()
                sock.settimeout(1)
                sock.connect(("127.0.0.1", self.port))
                socks.append(sock)
            self.daemon.hup()
            time.sleep(0.15)
        for sock in socks:
            sock.close()

    def no_memory(self):
        pages = int(pathlib.Path(f"/proc/{self.pid}/statm").read_text().split()[0])
        with self.limited(resource.RLIMIT_AS, pages * 4096 + self.random.choice([0, 1 << 20, 16 << 20])):
            self.daemon.hup()
            connection = self.daemon.connect()
            for body in (b'{"user":{}}' + b" " * 1000000, b'{"requests":[' + b",".join([b'{"user":{},"k":1000}'] * 256) + b"]}"):
                with contextlib.suppress(OSError, harness.http.client.HTTPException):
                    assert connection.call("POST", "/recall", body).status in (200, 503)
            connection.close()
            time.sleep(0.05)

    def clock_jump(self):
        self.control["clock_offset"] = self.random.choice([10**9, -10**9, 86400 * 365, -3600, 0])
        time.sleep(0.05)

    def stopped(self):
        self.daemon.process.send_signal(signal.SIGSTOP)
        time.sleep(self.random.uniform(0.01, 0.3))
        self.daemon.process.send_signal(signal.SIGCONT)

    # ---------------------------------------------------------------------------------------------------------------------

    def recovered(self, begin):
        """Seconds until a new connection is answered rightly, counted from `begin`."""
        while time.monotonic() < begin + 30:
            assert self.daemon.process.poll() is None, f"recalld ended with {self.daemon.process.returncode}: {self.daemon.log}"
            try:
                answer = self.daemon.post("/recall", rolling.BODIES[0])
                if any(answer.body == bodies[0] for bodies in self.expected.values()):
                    return time.monotonic() - begin
            except OSError:
                pass
            time.sleep(0.002)
        raise AssertionError("no recovery")

    def settle(self):
        """A load may have been refused for want of something: the good bundle once more."""
        harness.wait_for(lambda: not self.daemon.reload_state()["running"], "the reload", 10)
        self.control["clock_offset"] = 0

    def stop(self):
        self.daemon.stop()
        if self.tmpfs:
            subprocess.run(["umount", self.logs], check=True)


# name: (method, errors are allowed)
FAULTS = {"kill -9": ("kill", True), "reload, good": ("reload_good", False), "reload, damaged": ("reload_damaged", False),
          "log full": ("log_full", False), "no descriptors": ("no_descriptors", True), "no memory": ("no_memory", True),
          "clock jump": ("clock_jump", False), "stopped": ("stopped", False)}


def main():
    parser = argparse.ArgumentParser(description="chaos for recalld")
    parser.add_argument("rounds", nargs="?", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    arguments = parser.parse_args()
    print(f"{arguments.rounds} rounds, seed {arguments.seed}", flush=True)
    directory = pathlib.Path(tempfile.mkdtemp(prefix="recalld-chaos."))
    stand = Stand(directory, arguments.seed)
    recoveries = collections.defaultdict(list)
    with Askers(stand.address, stand.expected) as askers:
        for n in range(arguments.rounds):  # each once, then at random
            name = list(FAULTS)[n] if n < len(FAULTS) else stand.random.choice(list(FAULTS))
            askers.fault = name
            begin = time.monotonic()
            getattr(stand, FAULTS[name][0])()
            seconds = stand.recovered(begin if name == "kill -9" else time.monotonic())
            stand.settle()
            time.sleep(0.02)
            recoveries[name].append(seconds)
            if askers.wrong:
                break
        askers.fault = "none"
        time.sleep(0.2)
    stand.stop()
    print(f"{'what':<18}{'rounds':>8}{'failed requests':>17}{'recovery, ms: median':>22}{'slowest':>9}")
    for name in FAULTS:
        times = recoveries[name] or [0.0]
        print(f"{name:<18}{len(recoveries[name]):>8}{askers.errors[name]:>17}{statistics.median(times) * 1000:>22.0f}"
              f"{max(times) * 1000:>9.0f}")
    print(f"{sum(askers.counts.values())} answers compared, {len(askers.wrong)} wrong")
    for wrong in askers.wrong[:5]:
        print(wrong)
    forbidden = [name for name in askers.errors if name == "none" or not FAULTS[name][1]]
    for name in forbidden:
        print(f"requests failed during: {name}")
    shutil.rmtree(directory)
    return 1 if askers.wrong or forbidden or max(map(max, recoveries.values())) >= RECOVERY else 0


if __name__ == "__main__":
    sys.exit(main())
