"""TLS: answers as without it, certificates that are replaced, and clients that are slow, rude or no clients of TLS at all."""

import gzip
import json
import os
import random
import socket
import ssl
import struct
import subprocess
import time
import warnings

import pytest

import harness

BODY = {"user": {"user_id": "1"}, "k": 5}
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


class Pki:
    """Certificates of a test, each its own authority."""

    def __init__(self, directory):
        self.directory = directory

    def make(self, name, *more):
        key, certificate = self.directory / f"{name}.key", self.directory / f"{name}.pem"
        harness.run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", key, "-out", certificate, "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost",
                    "-days", "2", *more)
        return certificate, key

    def trust(self, certificate):
        context = ssl.create_default_context(cafile=str(certificate))
        context.set_alpn_protocols(["http/1.1"])
        return context


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def first(pki):
    return pki.make("first")


def options(pair, prefix=""):
    return ["--set", f"{prefix}tls.certificate={pair[0]}", "--set", f"{prefix}tls.key={pair[1]}"]


@pytest.fixture
def secure(serve, world, pki, first):
    """A function that starts a daemon which speaks TLS."""
    return lambda *more: serve(world.model_a, *options(first), *more, tls=pki.trust(first[0]))


def raw(daemon):
    host, port = daemon.address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), harness.PATIENCE)


def metric(daemon, name):
    return harness.metric(daemon.get("/metrics").body.decode(), "recalld_http_" + name)


class Client:
    """TLS by hand: what is sent when, and what is not."""

    def __init__(self, daemon, receive_buffer=None):
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = daemon.tls.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self.sock = socket.socket()
        self.sock.settimeout(harness.PATIENCE)
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        host, port = daemon.address.rsplit(":", 1)
        self.sock.connect((host, int(port)))

    def flush(self):
        self.sock.sendall(self.outgoing.read())

    def receive(self, size=65536):
        chunk = self.sock.recv(size)
        if chunk:
            self.incoming.write(chunk)
        else:
            self.incoming.write_eof()

    def handshake(self):
        while True:
            try:
                self.tls.do_handshake()
                self.flush()
                return self
            except ssl.SSLWantReadError:
                self.flush()
                self.receive()

    def hello(self):
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.outgoing.read()

    def send(self, data):
        self.tls.write(data)
        self.flush()

    def read(self, size=65536):
        """Some bytes; b"" at the end."""
        while True:
            try:
                return self.tls.read(size)
            except ssl.SSLWantReadError:
                self.receive()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    def read_all(self):
        data = b""
        while chunk := self.read():
            data += chunk
        return data

    def close(self):
        self.sock.close()


def test_answers_are_the_same(secure, server, world):
    daemon = secure("--workers", 2)
    connection = daemon.connect()
    connection.connect()
    assert connection.sock.version() == "TLSv1.3" and connection.sock.selected_alpn_protocol() == "http/1.1"
    for path, body in (("/recall", BODY), ("/similar", {"item": "7"}), ("/embed", {"user": {"user_id": "5"}}), ("/recall", b"{")):
        trace = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}  # which error documents repeat
        ours, plain = connection.call("POST", path, body, trace), server.post(path, body, headers=trace)
        assert (ours.status, ours.body) == (plain.status, plain.body)
    large = {"requests": [{"user": {"user_id": str(i)}, "exclude": ["x" * 60] * 40, "k": 3} for i in range(256)]}
    assert connection.call("POST", "/recall", large).body == server.post("/recall", large).body
    connection.close()
    assert metric(daemon, "handshake_failures_total") == 0 and metric(daemon, "handshakes_total") >= 2


def test_a_client_of_tls_1_2(secure):
    daemon = secure()
    daemon.tls.maximum_version = ssl.TLSVersion.TLSv1_2
    connection = daemon.connect()
    assert connection.call("POST", "/recall", BODY).status == 200
    assert connection.sock.version() == "TLSv1.2" and connection.sock.cipher()[0].startswith("ECDHE-")
    connection.close()


def test_older_versions_and_other_protocols_are_refused(secure, pki, first):
    daemon = secure()
    old = pki.trust(first[0])
    old.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    other = pki.trust(first[0])
    other.set_alpn_protocols(["h2"])
    for context in (old, other):
        with pytest.raises(OSError):
            context.wrap_socket(raw(daemon), server_hostname="localhost").close()
    assert metric(daemon, "handshake_failures_total") == 2
    both = pki.trust(first[0])
    both.set_alpn_protocols(["h2", "http/1.1"])
    sock = both.wrap_socket(raw(daemon), server_hostname="localhost")
    assert sock.selected_alpn_protocol() == "http/1.1"
    sock.close()


def test_no_renegotiation(secure):
    daemon = secure()
    done = harness.run("openssl", "s_client", "-connect", daemon.address, "-tls1_2", "-legacy_renegotiation", input="R\n",
                       check=False)
    assert "no renegotiation" in done.stderr, done.stderr


def test_a_change_of_keys(secure):
    daemon = secure()
    client = subprocess.Popen(["openssl", "s_client", "-connect", daemon.address, "-tls1_3"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    for text in (b"K\n", b"K\n", HEALTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")):
        time.sleep(0.5)  # each is a command, or data, by what a read begins with
        client.stdin.write(text)
        client.stdin.flush()
    output = client.stdout.read()
    client.stdin.close()
    client.stdout.close()
    client.wait(harness.PATIENCE)
    assert b"HTTP/1.1 200 " in output and b'{"status":"alive"}' in output


def test_resumed_sessions(secure):
    daemon = secure()
    connection = daemon.connect()
    connection.call("GET", "/healthz")
    session = connection.sock.session
    sock = daemon.tls.wrap_socket(raw(daemon), server_hostname="localhost", session=session)
    assert sock.session_reused
    sock.sendall(HEALTH)
    assert sock.recv(20).startswith(b"HTTP/1.1 200")
    sock.close()
    connection.close()


def test_plain_http_is_told_so(secure):
    daemon = secure()
    for request in (HEALTH, b"POST /recall HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100000):
        sock = raw(daemon)
        sock.sendall(request)
        answer = b""
        while chunk := sock.recv(4096):
            answer += chunk
        assert answer.startswith(b"HTTP/1.1 400 ") and b"https" in answer and b"malformed-request" in answer
        sock.close()


def test_a_slow_handshake_ends_in_time(secure):
    daemon = secure("--set", "limits.request_timeout=400ms")
    silent, slow = Client(daemon), Client(daemon)
    hello, begin = slow.hello(), time.monotonic()
    with pytest.raises(OSError):
        for i in range(len(hello)):
            slow.sock.sendall(hello[i:i + 1])
            time.sleep(0.02)
    assert 0.3 < time.monotonic() - begin < (30 if harness.SANITIZED else 3)
    assert silent.sock.recv(1) == b""
    assert metric(daemon, "handshake_failures_total") == 2
    silent.close()
    slow.close()


def test_a_slow_request_is_told_so(secure):
    daemon = secure("--set", "limits.request_timeout=300ms")
    client = Client(daemon).handshake()
    client.send(HEALTH[:20])
    assert client.read_all().startswith(b"HTTP/1.1 408 ")
    client.close()


def test_clients_that_leave_during_the_handshake(secure):
    daemon = secure("--workers", 2)
    reset = struct.pack("ii", 1, 0)
    for turn in range(200):
        client = Client(daemon)
        hello = client.hello()
        client.sock.sendall(hello[:len(hello) * (turn % 5) // 4])
        if turn % 3 == 0:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        elif turn % 3 == 1:
            client.sock.shutdown(socket.SHUT_WR)
        client.close()
    harness.wait_for(lambda: metric(daemon, "connections_open") == 1, "the end of the connections")
    assert daemon.post("/recall", BODY).status == 200


def test_noise(secure):
    daemon = secure()
    chance = random.Random(1)
    for turn in range(100):
        sock = raw(daemon)
        noise = chance.randbytes(chance.randrange(1, 300))
        if turn % 2:
            noise = b"\x16\x03\x01" + len(noise).to_bytes(2, "big") + noise
        try:
            sock.sendall(noise)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(4096):
                pass
        except OSError:  # it was faster
            pass
        sock.close()
    for turn in range(50):
        client = Client(daemon).handshake()
        client.tls.write(HEALTH)
        data = bytearray(client.outgoing.read())
        data[chance.randrange(5, len(data))] ^= 1 << chance.randrange(8)
        client.sock.sendall(data)
        try:
            assert b"HTTP" not in client.read_all()
        except (ssl.SSLError, ConnectionResetError):
            pass
        client.close()
    assert daemon.get("/healthz").status == 200
    harness.wait_for(lambda: metric(daemon, "connections_open") == 1, "the end of the connections")


@pytest.mark.parametrize("how", ["close_notify", "tcp"])
def test_a_client_that_closes_its_half(secure, how):
    daemon = secure()
    client = Client(daemon).handshake()
    request = json.dumps(BODY).encode()
    client.tls.write(b"POST /recall HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(request), request))
    if how == "close_notify":
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.unwrap()
        client.flush()
    else:
        client.flush()
        client.sock.shutdown(socket.SHUT_WR)
    raw_bytes = b""
    while chunk := client.sock.recv(65536):
        raw_bytes += chunk
    client.incoming.write(raw_bytes)
    assert client.tls.read(65536).startswith(b"HTTP/1.1 200 ")
    client.close()


def test_half_a_request_before_the_end(secure):
    daemon = secure()
    client = Client(daemon).handshake()
    client.send(HEALTH[:-4])
    client.sock.shutdown(socket.SHUT_WR)
    assert client.read_all().startswith(b"HTTP/1.1 400 ")
    client.close()


def large_request(k=1000):
    body = json.dumps({"requests": [{"user": {"user_id": str(i)}, "k": k} for i in range(100)]}).encode()
    return b"POST /recall HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def test_a_large_answer_to_a_slow_reader(secure, server):
    daemon = secure("--workers", 1)
    request = large_request()
    plain = server.connect()
    plain.connect()
    plain.sock.sendall(request)
    expected = b""
    while chunk := plain.sock.recv(1 << 20):
        expected += chunk
    plain.close()
    assert len(expected) > 2_000_000
    client = Client(daemon, receive_buffer=8192).handshake()
    client.send(request)
    received, chance = b"", random.Random(2)
    while chunk := client.read(chance.randrange(1, 40000)):
        received += chunk
        if len(received) < 400_000:
            time.sleep(0.002)
            assert chance.randrange(10) or daemon.get("/healthz").status == 200  # others are served meanwhile
    assert received.split(b"\r\n\r\n", 1)[1] == expected.split(b"\r\n\r\n", 1)[1]
    client.close()


def test_a_reader_that_stops(secure):
    daemon = secure("--set", "limits.response_timeout=300ms")
    client = Client(daemon, receive_buffer=8192).handshake()
    client.send(large_request())
    harness.wait_for(lambda: metric(daemon, "response_timeouts_total") == 1, "the reset")
    client.close()


@pytest.mark.parametrize("size", [1, 7, 1000, 16384])
def test_many_requests_in_a_row(secure, size):
    """Records that end anywhere, and more requests in one than are taken at once."""
    daemon = secure("--workers", 1)
    client = Client(daemon).handshake()
    count = 40 if size == 1 else 600
    data = HEALTH * (count - 1) + HEALTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    for at in range(0, len(data), size):
        client.tls.write(data[at:at + size])
    client.flush()
    answers = client.read_all()
    assert answers.count(b"HTTP/1.1 200 ") == count and answers.count(b'{"status":"alive"}') == count
    client.close()


def test_expect_continue(secure):
    daemon = secure()
    client = Client(daemon).handshake()
    body = json.dumps(BODY).encode()
    client.send(b"POST /recall HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
    assert client.read() == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(body)
    assert client.read().startswith(b"HTTP/1.1 200 ")
    client.close()


def test_the_cap_on_connections(secure):
    daemon = secure("--workers", 1, "--set", "limits.connections=2")
    clients = [Client(daemon).handshake() for _ in range(2)]
    refused = Client(daemon)
    refused.sock.sendall(refused.hello())
    try:
        assert refused.sock.recv(1) == b""
    except ConnectionResetError:
        pass
    for client in clients:
        client.send(HEALTH)
        assert client.read().startswith(b"HTTP/1.1 200 ")
        client.close()
    refused.close()


def test_draining(secure):
    daemon = secure("--set", "limits.request_timeout=1s")
    idle = Client(daemon).handshake()
    busy = Client(daemon).handshake()
    busy.send(HEALTH[:20])
    half = Client(daemon)
    half.sock.sendall(half.hello()[:50])
    time.sleep(0.2)
    daemon.process.terminate()
    assert idle.read_all() == b""
    busy.send(HEALTH[20:])
    assert b"Connection: close" in busy.read_all()
    assert daemon.wait() == 0
    for client in (idle, busy, half):
        client.close()


def test_a_certificate_is_replaced(start, world, pki, tmp_path):
    first, second = pki.make("one"), pki.make("two")
    current = tmp_path / "current.pem", tmp_path / "current.key"

    def install(pair):
        for source, target in zip(pair, current):
            fresh = target.with_suffix(".new")
            fresh.write_bytes(source.read_bytes())
            fresh.chmod(0o600)
            os.replace(fresh, target)

    install(first)
    daemon = start("--bundle", world.model_a, "--listen", "127.0.0.1:0", "--workers", 2, *options(current),
                   tls=pki.trust(first[0]))
    old = daemon.connect()
    assert old.call("GET", "/healthz").status == 200
    install((first[0], second[1]))
    state = daemon.reload()["reload"]
    assert state["failed"] == 1 and "current.key" in state["last_error"] and "not the certificate's" in state["last_error"]
    install(second)
    daemon.hup()
    trusts_second = pki.trust(second[0])

    def shows_second():
        try:
            trusts_second.wrap_socket(raw(daemon), server_hostname="localhost").close()
            return True
        except ssl.SSLCertVerificationError:
            return False

    harness.wait_for(lambda: all(shows_second() for _ in range(20)), "the new certificate at all workers")
    assert old.call("POST", "/recall", BODY).status == 200
    daemon.tls = trusts_second
    assert daemon.post("/recall", BODY).status == 200
    old.close()


def test_files_are_checked(world, pki, first, tmp_path):
    other = pki.make("other")
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    broken.chmod(0o600)
    readable = tmp_path / "readable.key"
    readable.write_bytes(first[1].read_bytes())
    readable.chmod(0o644)
    locked = tmp_path / "locked.key"
    harness.run("openssl", "ec", "-in", first[1], "-out", locked, "-aes256", "-passout", "pass:secret")
    locked.chmod(0o600)
    cases = [((broken, first[1]), [broken, "no certificate"]), ((first[0], broken), [broken, "no private key"]),
             ((first[0], other[1]), [other[1], "not the certificate's key"]), ((first[0], readable), [readable, "chmod"]),
             ((first[0], locked), [locked, "without a password"]), ((tmp_path / "none.pem", first[1]), ["none.pem"]),
             ((first[0], tmp_path / "none.key"), ["none.key"]), ((first[0], tmp_path), [tmp_path])]
    for pair, names in cases:
        done = harness.run(harness.RECALLD, "--bundle", world.model_a, *options(pair), "-t", check=False)
        assert done.returncode == 1, pair
        for name in ["tls: ", *names]:
            assert str(name) in done.stderr, done.stderr
    done = harness.run(harness.RECALLD, "--bundle", world.model_a, *options(first)[:2], "-t", check=False)
    assert done.returncode == 1 and "tls.key" in done.stderr
    done = harness.run(harness.RECALLD, "--bundle", world.model_a, *options(first, "admin."), "-t", check=False)
    assert done.returncode == 1 and "admin.listen" in done.stderr
    assert harness.run(harness.RECALLD, "--bundle", world.model_a, *options(first), "-t").returncode == 0


def test_the_admin_listener(start, world, pki, first):
    daemon = start("--bundle", world.model_a, "--listen", "127.0.0.1:0", "--set", "admin.listen=127.0.0.1:0",
                   *options(first, "admin."))
    admin = next(line for line in daemon.log.splitlines() if "admin paths on" in line).split()[-1]
    assert daemon.post("/recall", BODY).status == 200
    assert daemon.get("/model", address=admin).status == 400
    daemon.tls = pki.trust(first[0])
    assert daemon.get("/model", address=admin).status == 200


def test_tls_on_a_unix_socket(start, world, pki, first, tmp_path):
    path = tmp_path / "recalld.sock"
    daemon = start("--bundle", world.model_a, "--listen", f"unix:{path}", *options(first), tls=pki.trust(first[0]))
    assert daemon.post("/recall", BODY).status == 200


def test_packed_answers_of_the_slow_lane(secure, server):
    daemon = secure("--set", "gzip.responses=true", "--set", "limits.batch=1000", "--workers", 1)
    body = {"requests": [{"user": {"user_id": str(i)}, "k": 50} for i in range(1000)]}
    plain = daemon.post("/recall", body)
    assert plain.status == 200 and len(plain.json["results"]) == 1000 and "Content-Encoding" not in plain.headers
    text = gzip.compress(json.dumps(body).encode())
    connection = daemon.connect()
    for _ in range(3):
        answer = connection.call("POST", "/recall", text, {"Accept-Encoding": "gzip", "Content-Encoding": "gzip"})
        assert answer.status == 200 and answer.headers["Content-Encoding"] == "gzip"
        assert answer.headers["Vary"] == "Accept-Encoding"
        assert len(answer.body) < len(plain.body) / 2 and gzip.decompress(answer.body) == plain.body
        assert connection.call("GET", "/healthz").status == 200
    connection.close()
    assert harness.metric(daemon.get("/metrics").body.decode(), "recalld_slow_requests_total") == 4
    alone = server.post("/recall", body["requests"][0]).json
    assert [item["id"] for item in plain.json["results"][0]["items"]] == [item["id"] for item in alone["items"]]


def test_small_packed_bodies_that_unpack_to_long_ones_are_slow(secure):
    daemon = secure("--workers", 1)
    body = json.dumps({"user": {"user_id": "1"}, "k": 5}).encode() + b" " * 20000
    answer = daemon.call("POST", "/recall", gzip.compress(body), {"Content-Encoding": "gzip"})
    assert answer.status == 200 and len(answer.json["items"]) == 5
    assert harness.metric(daemon.get("/metrics").body.decode(), "recalld_slow_requests_total") == 1
