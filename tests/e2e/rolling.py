"""Two daemons behind a proxy, restarted and reloaded in turns under load. Used by test_rolling.py and tests/chaos/rolling.py."""

import json
import os
import time

import harness
import proxies

BODIES = [json.dumps(body).encode() for body in
          [{"user": {"user_id": str(user)}, "k": 20} for user in range(1, 30)] +
          [{"requests": [{"user": {"user_id": str(user)}, "k": 5} for user in range(1, 9)]}]]
KNOWS_WITHIN = 2.0  # seconds: the proxy's checks see a change of /readyz (docs/examples/haproxy.cfg: 2 * 500 ms)


def make_bundles(directory):
    """Two models of one made-up world, for scripts outside of pytest."""
    harness.run(harness.TRAIN, "synth", directory / "data", "--users", 300, "--items", 1500, "--events", 12000, "--seed", 3)
    for seed in (1, 2):
        harness.run(harness.TRAIN, "fit", directory / "data/train.yaml", "--set", f"output.dir={directory}/{seed}",
                    "--set", "optimizer.epochs=1", "--set", f"seed={seed}")
    return [(directory / name / "current").resolve() for name in ("1", "2")]


def point(link, target):
    """Moves a link in one step."""
    fresh = link.with_name(link.name + ".new")
    fresh.symlink_to(target)
    os.replace(fresh, link)


def answers_of(directory, bundle):
    """Version, and what a daemon that serves nothing else answers to each of BODIES."""
    daemon = harness.Daemon(directory, "--bundle", bundle, "--listen", "127.0.0.1:0", "--workers", 1)
    bodies = [daemon.post("/recall", body).body for body in BODIES]
    daemon.stop()
    return json.loads(bodies[0])["model"], bodies


class Askers(harness.Askers):
    """Ask the proxy without a pause; `wrong` is everything that is not, byte for byte, one model's answer."""

    def __init__(self, address, expected, threads=4):
        super().__init__(threads)
        self.address, self.expected = address, expected
        self.wrong, self.counts = [], {version: 0 for version in expected}

    def ask(self):
        connection = harness.Connection(self.address)
        at = 0
        while not self.stop.is_set():
            at = (at + 1) % len(BODIES)
            try:
                answer = connection.call("POST", "/recall", BODIES[at])
            except Exception as error:  # whatever it is, it is a failed request
                self.wrong.append(repr(error))
                connection.close()
                continue
            version = next((v for v, bodies in self.expected.items() if bodies[at] == answer.body), None)
            if answer.status != 200 or version is None:
                self.wrong.append((answer.status, answer.body[:200]))
            else:
                self.counts[version] += 1
        connection.close()


class Pair:
    def __init__(self, directory, kind, bundles):
        self.directory, self.bundles = directory, bundles
        self.link = directory / "current"
        self.link.symlink_to(bundles[0])
        self.published = 0
        self.ports = proxies.free_ports(2)
        self.daemons = [self.start(port) for port in self.ports]
        self.proxy = proxies.ALL[kind](directory, [daemon.address for daemon in self.daemons])

    def start(self, port):
        return harness.Daemon(self.directory, "--bundle", self.link, "--listen", f"127.0.0.1:{port}", "--workers", 1,
                              "--set", f"drain_delay={int(KNOWS_WITHIN * 1000)}ms")

    def restart(self, n):
        status = self.daemons[n].terminate()
        assert status == 0, f"exit {status}: {self.daemons[n].log}"
        self.daemons[n].stop()
        self.daemons[n] = self.start(self.ports[n])
        time.sleep(KNOWS_WITHIN)

    def publish(self):
        self.published = 1 - self.published
        point(self.link, self.bundles[self.published])

    def reload(self, n):
        state = self.daemons[n].reload()
        assert state["reload"]["last_error"] is None, state

    def stop(self):
        self.proxy.stop()
        for daemon in self.daemons:
            daemon.stop()
