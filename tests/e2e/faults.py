"""A daemon in which one chosen allocation or system call fails, once: tests/chaos/failat.c steered from Python."""

import mmap
import os
import pathlib
import struct
import subprocess
import time

import harness
import raw_http

FIELDS = ("memory", "calls", "allocations", "clock_offset", "last_failed")
CALLS = (None, "accept4", "recv", "send", "sendmsg", "shutdown", "setsockopt", "epoll_ctl", "epoll_wait", "fstat", "stat", "lstat",
         "read", "write", "mmap", "madvise", "open", "realpath", "pthread_create")
POST_RECALL = b'{"user":{"user_id":"1","topics":["a","b"]},"k":5,"exclude":["1",2],"fields":["category"],"filter":{"category":["sport","news"]}}'
REQUESTS = {  # name: method, path, body
    "recall": ("POST", "/recall", POST_RECALL),
    "batch": ("POST", "/recall", b'{"requests":[' + POST_RECALL + b',{"user":{},"k":3,"search":{"exact":true}}]}'),
    "similar": ("POST", "/similar", b'{"item":"7","k":4,"fields":["category"]}'),
    "embed": ("POST", "/embed", b'{"user":{"user_id":"1"}}'),
    "refused": ("POST", "/recall", b'{"user":{},"nothing":1}'),
    "no JSON": ("POST", "/recall", b'{"user":'),
    "large": ("POST", "/recall", b'{"user":{}}' + b" " * 100000),
    "add": ("POST", "/items", b'{"items":[{"id":"n1","features":{"category":"sport"},"attributes":{"title":"x"}}]}'),
    "remove": ("DELETE", "/items/n1", b""),
    "health": ("GET", "/healthz", b""),
    "metrics": ("GET", "/metrics", b""),
    "model": ("GET", "/model", b""),
}


def build_shim(directory):
    shim = pathlib.Path(directory) / "failat.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-D_GNU_SOURCE", "-o", shim, harness.ROOT / "tests/chaos/failat.c", "-ldl"],
                   check=True)
    return shim


class Control:
    """The shim's counters."""

    def __init__(self, path):
        path.write_bytes(bytes(4096))
        with open(path, "r+b") as file:
            self.map = mmap.mmap(file.fileno(), 4096)

    def __getitem__(self, name):
        return struct.unpack_from("<q", self.map, 8 * FIELDS.index(name))[0]

    def __setitem__(self, name, value):
        struct.pack_into("<q", self.map, 8 * FIELDS.index(name), value)


class Faulty:
    """A daemon with the shim. One worker, so that counts are the same each time."""

    def __init__(self, directory, bundle, *more):
        self.control = Control(pathlib.Path(directory) / "failat.control")
        environment = {"LD_PRELOAD": str(build_shim(directory)), "FAILAT_CONTROL": str(pathlib.Path(directory) / "failat.control")}
        self.daemon = harness.Daemon(directory, "--bundle", bundle, "--listen", "127.0.0.1:0", "--workers", 1, *more, env=environment)

    def ask(self, name):
        """Status and body on a connection of its own; None when the connection broke."""
        method, path, body = REQUESTS[name]
        head = f"{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
        try:
            answers = raw_http.exchange(self.daemon.address, head + body, [method])
        except OSError:
            return None
        return (answers.all[0][0], answers.all[0][2]) if answers.all else None

    def fail(self, kind, n, action):
        """Runs the action with the n-th allocation ("memory") or system call ("calls") failing. Returns its result and
        whether something failed."""
        self.control[kind] = n
        result = action()
        failed = self.control[kind] <= 0
        self.control[kind] = 0
        assert self.daemon.process.poll() is None, f"{kind} {n}: recalld ended with {self.daemon.process.returncode}: {self.daemon.log}"
        return result, failed

    def reload(self):
        """SIGHUP, and wait, without asking, until the log tells the end; or until it should have, if that line was lost."""
        ends = ("reload failed", "model ", "the next signal", "SIGHUP refused")
        known = len(self.daemon.log)
        self.daemon.hup()
        end = time.monotonic() + 3
        while not any(word in self.daemon.log[known:] for word in ends) and time.monotonic() < end:
            time.sleep(0.002)

    def loaded(self):
        """The state after a reload, when nothing runs any more."""
        return harness.wait_for(lambda: (state := self.daemon.reload_state()) and not state["running"] and state, "the reload")

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.daemon.process.pid}/fd"))

    def wait_for_descriptors(self, count):
        """No more than so many, when the daemon has seen which connections were closed."""
        harness.wait_for(lambda: self.descriptors() <= count, f"{count} descriptors", 5)

    def living(self):
        """Allocations that are there when nothing is going on."""
        for _ in range(3):
            for name in ("recall", "large", "metrics"):
                self.ask(name)
        return self.control["allocations"]


def each_failure_of_a_request(faulty, name, kind):
    """Fails each allocation or call of one request after the other. Returns what came of it: {outcome: how often}."""
    outcomes, n, failed = {}, 0, True
    usual = faulty.ask(name)
    assert usual is not None
    while failed:
        n += 1
        assert n < 5000
        if name == "remove":
            faulty.ask("add")
        answer, failed = faulty.fail(kind, n, lambda: faulty.ask(name))
        outcome = "answered" if answer and answer[0] < 300 else "no answer" if answer is None else str(answer[0])
        if failed:
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
        if name in ("recall", "batch", "similar", "embed") and answer and answer[0] == 200:
            assert answer == usual, f"{name}, {kind} {n}: a wrong answer"
        if kind == "memory":
            assert outcome in ("answered", "503", "500", "no answer") or (answer and answer[0] == usual[0]), f"{name}, {kind} {n}: {answer}"
        faulty.daemon.get("/healthz")
    return outcomes


def each_failure_of_a_reload(faulty, kind, steps):
    """The same for reloads, at the steps given (an iterator of numbers); ends when a step is beyond the last call."""
    outcomes = {}
    usual = faulty.ask("recall")
    for n in steps:
        _, failed = faulty.fail(kind, n, faulty.reload)
        state = faulty.loaded()
        if not failed:
            assert state["last_error"] is None, state
            break
        outcome = "refused" if state["last_error"] else "loaded"
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        assert faulty.ask("recall") == usual, f"reload, {kind} {n}"
    else:
        return outcomes, False
    return outcomes, True


def allocations_of_a_reload(faulty):
    begin = 1 << 40
    faulty.control["memory"] = begin
    faulty.reload()
    used = begin - faulty.control["memory"]
    faulty.control["memory"] = 0
    faulty.loaded()
    return used
