"""HAProxy and nginx in front of recalld, from the files in docs/examples with other addresses."""

import os
import pathlib
import shutil
import socket
import subprocess
import tempfile

import harness

EXAMPLES = harness.ROOT / "docs/examples"
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"


def program(name):
    return shutil.which(name, path=PATH)


def free_ports(count):
    socks = [socket.socket() for _ in range(count)]
    for sock in socks:
        sock.bind(("127.0.0.1", 0))
    ports = [sock.getsockname()[1] for sock in socks]
    for sock in socks:
        sock.close()
    return ports


def replaced(text, old, new):
    assert old in text, old
    return text.replace(old, new)


class Proxy:
    """A running proxy before two daemons' addresses. `address` speaks HTTP/1, `h2_address` HTTP/2 without TLS."""

    name = None

    def __init__(self, directory, servers):
        self.directory = pathlib.Path(tempfile.mkdtemp(dir=directory))
        self.directory.chmod(0o755)
        self.log_path = self.directory / "requests.log"
        ports = free_ports(2)
        self.address, self.h2_address = (f"127.0.0.1:{port}" for port in ports)
        self.log = open(self.log_path, "wb")
        self.errors = open(self.directory / "errors.log", "wb")
        self.process = subprocess.Popen(self.command(*servers), stdout=self.log, stderr=self.errors,
                                        stdin=subprocess.DEVNULL, start_new_session=True)
        harness.wait_for(self.answers, f"{self.name} to start")

    def answers(self):
        assert self.process.poll() is None, (self.directory / "errors.log").read_text()
        try:
            return harness.Connection(self.address).call("POST", "/recall", {"user": {}}).status == 200
        except OSError:
            return False

    def lines(self):
        return [line.split() for line in self.log_path.read_text(errors="replace").splitlines()
                if line.startswith("request ")]

    def forwarded(self):
        """How many requests it has forwarded, and to how many of them it got an answer: fewer when it gave one up in
        the middle of its body."""
        raise NotImplementedError

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(harness.PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        self.errors.close()


class Haproxy(Proxy):
    name = "haproxy"

    def command(self, one, two):
        text = (EXAMPLES / "haproxy.cfg").read_text()
        text = replaced(text, "log /dev/log local0", "log stdout format raw local0")
        text = replaced(text, "maxconn 20000", "maxconn 1000")  # it wants twice as many descriptors
        text = replaced(text, "option httplog", 'log-format "request %s %ST %Tr %ts %{+Q}r"')
        text = replaced(text, "bind :80", f"bind {self.address}\n    bind {self.h2_address} proto h2")
        text = replaced(text, "http-reuse safe", "http-reuse always")  # what is riskiest
        text = replaced(replaced(text, "127.0.0.1:8080", one), "127.0.0.1:8082", two)
        path = self.directory / "haproxy.cfg"
        path.write_text(text)
        return [program("haproxy"), "-db", "-f", path]

    def forwarded(self):
        times = [int(milliseconds) for _, server, _, milliseconds, *_ in self.lines() if server != "<NOSRV>"]
        return len(times), sum(time >= 0 for time in times)


class Nginx(Proxy):
    name = "nginx"

    def command(self, one, two):
        text = (EXAMPLES / "nginx.conf").read_text()
        text = replaced(text, "listen 80;", f"listen {self.address}; listen {self.h2_address} http2;")
        text = replaced(replaced(text, "127.0.0.1:8080", one), "127.0.0.1:8082", two)
        (self.directory / "recalld.conf").write_text(text)
        places = "".join(f"{kind}_temp_path {self.directory}/{kind};\n"
                         for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (self.directory / "nginx.conf").write_text(f"""
            daemon off; worker_processes 1; pid {self.directory}/pid; error_log {self.directory}/errors.log;
            {"user root;" if os.getuid() == 0 else ""}
            events {{ worker_connections 4096; }}
            http {{
                {places}
                log_format counted 'request $upstream_header_time $upstream_status $status "$request"';
                access_log {self.log_path} counted;
                include {self.directory}/recalld.conf;
            }}""")
        return [program("nginx"), "-p", self.directory, "-c", self.directory / "nginx.conf"]

    def forwarded(self):
        """A request that was tried on two servers has two times, "0.001, -": the last without a comma."""
        tried = answered = 0
        for _, *fields in self.lines():
            for field in fields[:next(i for i, field in enumerate(fields) if not field.endswith(",")) + 1]:
                answered += field.rstrip(",") != "-"
            tried += fields[0] != "-" or fields[1] != "-"
        return max(tried, answered), answered


ALL = {"haproxy": Haproxy, "nginx": Nginx}
