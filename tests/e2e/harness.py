"""Helpers of the end-to-end tests: running the two programs, and talking to the daemon.

The programs are those in $RECALLD_BUILD. Every process is ended by its recorded id.
"""

import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("RECALLD_BUILD", ROOT / "build"))
RECALLD = BUILD / "recalld"
TRAIN = BUILD / "recall-train"
SANITIZED = bool(os.environ.get("RECALLD_SANITIZER"))  # set by make asan and the like
PATIENCE = 60  # seconds that anything may take; sanitizers are slow


def run(*argv, check=True, **more):
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=4 * PATIENCE, **more)
    if check and done.returncode != 0:
        raise AssertionError(f"{argv[0]} exited {done.returncode}: {done.stderr}")
    return done


def sanitizer_option(variable, option):
    """An environment in which a sanitizer has one more option (and ignores it when it is another sanitizer)."""
    return {variable: os.environ.get(variable, "") + ":" + option}


def wait_for(condition, what, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.01)
    return value


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)


class Connection(http.client.HTTPConnection):
    """To host:port, or to a unix socket; `tls` is an ssl.SSLContext."""

    def __init__(self, address, tls=None):
        super().__init__("localhost", timeout=PATIENCE)
        self.address, self.tls = address, tls

    def connect(self):
        if self.address.startswith("unix:"):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self.timeout)
            self.sock.connect(self.address[5:])
        else:
            host, port = self.address.rsplit(":", 1)
            self.sock = socket.create_connection((host.strip("[]"), int(port)), self.timeout)
        if self.sock.family != socket.AF_UNIX:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls:
            self.sock = self.tls.wrap_socket(self.sock, server_hostname="localhost")

    def call(self, method, path, body=None, headers=None):
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        if isinstance(body, str):
            body = body.encode()
        self.request(method, path, body, {"Content-Type": "application/json", **(headers or {})})
        response = self.getresponse()
        return Answer(response.status, response.headers, response.read())


class Daemon:
    """A running recalld. `arguments` as on its command line."""

    def __init__(self, directory, *arguments, wait=True, env=None, tls=None, **more):
        self.log_path = pathlib.Path(directory) / f"recalld-{time.monotonic_ns()}.log"
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen([str(RECALLD), *map(str, arguments)], stdin=subprocess.DEVNULL,
                                            stdout=subprocess.PIPE, stderr=log, env={**os.environ, **(env or {})}, **more)
        line = self.process.stdout.readline().decode()
        if not line.startswith("listening on "):
            self.process.wait(PATIENCE)
            raise AssertionError(f"recalld did not start: {self.log}")
        self.address = line.split()[-1]
        self.headers, self.tls = {}, tls  # of every request
        if wait:
            wait_for(self.is_ready, "readyz")

    @property
    def log(self):
        return self.log_path.read_text(errors="replace")

    def connect(self, address=None):
        return Connection(address or self.address, self.tls)

    def call(self, method, path, body=None, headers=None, address=None):
        connection = self.connect(address)
        try:
            return connection.call(method, path, body, {**self.headers, **(headers or {})})
        except OSError as error:
            if self.process.poll() is None:
                raise
            raise ConnectionError(f"recalld ended with {self.process.returncode}") from error
        finally:
            connection.close()

    def get(self, path, **more):
        return self.call("GET", path, **more)

    def post(self, path, body, **more):
        return self.call("POST", path, body, **more)

    def is_ready(self):
        assert self.process.poll() is None, f"recalld ended with {self.process.returncode}: {self.log}"
        return self.get("/readyz").status == 200

    def hup(self):
        self.process.send_signal(signal.SIGHUP)

    def reload_state(self):
        return self.get("/model").json["reload"]

    def reload(self):
        """SIGHUP, and wait until that load has ended; returns /model."""
        before = self.reload_state()
        self.hup()

        def ended():
            now = self.get("/model").json
            state = now["reload"]
            done = state["ok"] + state["failed"] > before["ok"] + before["failed"] and not state["running"]
            return now if done else None

        return wait_for(ended, "the reload")

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self):
        return self.process.wait(PATIENCE)

    def stop(self):
        """Ends it if it still runs; what it says on the way (a sanitizer's report) fails the test."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                status = self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise
            assert status == 0, f"recalld ended with {status}: {self.log}"
        self.process.stdout.close()
        assert "ERROR: " not in self.log and "WARNING: ThreadSanitizer" not in self.log, self.log


class Askers:
    """Threads that call `ask` of a subclass, which goes on until `stop` is set: with Askers(...): ..."""

    def __init__(self, threads):
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.ask) for _ in range(threads)]

    def ask(self):
        raise NotImplementedError

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()


def metric(text, name):
    """The value of one line of /metrics, labels included in the name; None when it is not there."""
    for line in text.splitlines():
        if line.startswith(name + " "):
            return float(line.split()[-1])
    return None
