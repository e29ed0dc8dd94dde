"""HTTP as bytes: sends what no library would send, and reads answers without forgiving anything."""

import re
import socket

import harness


class Answers:
    """What came back on one connection: (status, headers, body) of each answer, and whether the other side closed."""

    def __init__(self, data, closed, methods=()):
        self.closed, self.all, self.rest = closed, [], data
        while self.rest:
            method = methods[len(self.all)] if len(self.all) < len(methods) else "GET"
            if not self.take(method):
                break

    def take(self, method):
        head, end, rest = self.rest.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        status = re.fullmatch(rb"HTTP/1\.[01] ([1-5]\d\d) [ -~]*", lines[0])
        if not end or not status:
            return False
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            headers[name.decode().lower()] = value.strip().decode()
        size = 0 if method == "HEAD" or status[1] in (b"100", b"204", b"304") else int(headers.get("content-length", 0))
        if len(rest) < size:
            return False
        if status[1] != b"100":
            self.all.append((int(status[1]), headers, rest[:size]))
        self.rest = rest[size:]
        return True

    @property
    def statuses(self):
        return [status for status, _, _ in self.all]


def connect(address, timeout=harness.PATIENCE):
    host, port = address.rsplit(":", 1)
    sock = socket.create_connection((host, int(port)), timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def receive(sock, quiet=None):
    """All bytes until the other side closes, or (with `quiet`) until nothing came for so many seconds."""
    data = b""
    if quiet is not None:
        sock.settimeout(quiet)
    while True:
        try:
            piece = sock.recv(65536)
        except TimeoutError:
            return data, False
        except ConnectionResetError:
            return data, True
        if not piece:
            return data, True
        data += piece


def send(sock, data):
    """Sends; that the other side refused to take the rest is no failure."""
    try:
        sock.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        pass


def exchange(address, data, methods=(), quiet=None):
    """Sends the bytes in one piece and returns the Answers: until it closes, or is quiet."""
    with connect(address) as sock:
        send(sock, data)
        return Answers(*receive(sock, quiet), methods)
