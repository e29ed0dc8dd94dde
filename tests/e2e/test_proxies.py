"""recalld behind HAProxy and nginx: sequences of bytes that two readers of HTTP may take for different things.

For each sequence, sent to the proxy on a connection of its own:
  - the proxy has forwarded as many requests as recalld has answered (one that it gave up in the middle of its body may
    have been answered or not);
  - every answer the client got belongs to its request: requests carry markers, which answers repeat, in order;
  - nothing that the proxy would not have forwarded was executed: the sequences carry a DELETE of an item, a path which the
    proxy's configuration refuses, so only a smuggled one could get through;
  - whoever asks next, over the same connections between proxy and recalld, gets the answers to what was asked.
"""

import json
import re
import struct
import time

import pytest

import harness
import proxies
import raw_http

QUIET = 0.4 if harness.SANITIZED else 0.1  # seconds without a byte, after which a connection has said everything
H = b"Host: a\r\n"
BAIT = b"DELETE /items/1 HTTP/1.1\r\nHost: a\r\n\r\n"


def body_of(marker):
    return b'{"user":{},"%s":1}' % marker


def ask(marker, more=b"", version=b"HTTP/1.1", target=b"/recall", method=b"POST", host=H):
    """A request that is answered 400 with its marker as the pointer, on a connection that stays."""
    body = body_of(marker)
    return b"%s %s %s\r\n%s%sContent-Length: %d\r\n\r\n%s" % (method, target, version, host, more, len(body), body)


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def head(fields, method=b"POST", target=b"/recall", version=b"HTTP/1.1"):
    return b"%s %s %s\r\n%s%s\r\n" % (method, target, version, H, b"".join(line + b"\r\n" for line in fields))


def coding_and_length(line):
    """The same message twice: the coding would end it before the DELETE, or the length would."""
    early = b"0\r\n\r\n" + BAIT
    yield head([line, b"Content-Length: %d" % len(early)]) + early
    yield head([b"Content-Length: %d" % len(early), line]) + early
    inside = chunk(body_of(b"m1") + BAIT) + b"0\r\n\r\n"
    yield head([line, b"Content-Length: 4"]) + inside
    yield head([line]) + inside


CODINGS = [
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: xchunked", b"Transfer-Encoding : chunked", b"Transfer-Encoding:\x0bchunked",
    b"Transfer-Encoding:\tchunked", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x", b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
    b" Transfer-Encoding: chunked", b"X: y\nTransfer-Encoding: chunked", b"X: y\rTransfer-Encoding: chunked",
    b"Transfer-Encoding:\r\n chunked", b'Transfer-Encoding: "chunked"', b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: identity, chunked", b"Transfer-Encoding: identity", b"Transfer_Encoding: chunked", b"Transfer-Encoding: chunked\0",
    b"Transfer-Encoding: ch\xc3\xbcnked", b"tRANSFER-eNCODING: ChUnKeD", b"Transfer-Encoding;: chunked", b"Transfer-Encoding: chunked;q=1",
    b"Transfer-Encoding: ,chunked", b"Transfer-Encoding: chunked,", b"Transfer-Encoding:", b"\x00Transfer-Encoding: chunked",
    b"Transfer-Encoding\t: chunked", b"Content-Encoding: chunked", b"Transfer\xadEncoding: chunked",
]

LENGTHS = [  # fields of a request whose body is as long as {}
    (b"Content-Length: {}", b"Content-Length: 0"), (b"Content-Length: 0", b"Content-Length: {}"), (b"Content-Length: {}", b"Content-Length: {}"),
    (b"Content-Length: {}, 0",), (b"Content-Length: 0, {}",), (b"Content-Length: {}, {}",), (b"Content-Length: +{}",), (b"Content-Length: -{}",),
    (b"Content-Length: 0x{}",), (b"Content-Length: {}.0",), (b"Content-Length: 0 {}",), (b"Content-Length: ",), (b"Content-Length : {}",),
    (b"Content-Length:\x0b{}",), (b"Content-Length:\r\n {}",), (b" Content-Length: {}",), (b"X: y\nContent-Length: {}",), (b"X: y\rContent-Length: {}",),
    (b"Content_Length: {}",), (b"Content-Length: {}\0",), (b"Content-Length: 184467440737095516{}",), (b"Content-Length: 0000000000000000000{}",),
    (b"Content-Length: 1e2",), (b"Content-Length;: {}",), (b"Connection: Content-Length", b"Content-Length: {}"),
    (b"Connection: close, Content-Length", b"Content-Length: {}"), (b"Connection: Host, Transfer-Encoding", b"Content-Length: {}"),
    (b"Expect: 100-continue", b"Content-Length: {}"), (b"Expect: 100-continue, x", b"Content-Length: {}"), (b"Expect: \x0b100-continue", b"Content-Length: {}"),
    (b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", b"Content-Length: {}"),
    (b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA", b"Content-Length: {}"),
    (b"Content-Length: {}", b"Content-Encoding: gzip"), (b"Trailer: Content-Length", b"TE: trailers", b"Content-Length: {}"),
]

CHUNKED = [  # bodies behind "Transfer-Encoding: chunked"
    chunk(body_of(b"m1")) + b"0\r\n\r\n",
    b"12;ext=1\r\n" + body_of(b"m1") + b"\r\n0\r\n\r\n",
    b"12;ext=\"\r\n" + body_of(b"m1") + b"\r\n0\r\n\r\n",
    b"12;\n" + body_of(b"m1") + b"\r\n0\r\n\r\n",
    b"12\n" + body_of(b"m1") + b"\n0\n\n",
    b"12;" + b"a" * 20000 + b"\r\n" + body_of(b"m1") + b"\r\n0\r\n\r\n",
    b"1" * 20000,
    b"0x12\r\n" + body_of(b"m1") + b"\r\n0\r\n\r\n",
    b"-1\r\n" + body_of(b"m1") + b"\r\n0\r\n\r\n",
    b"+12\r\n" + body_of(b"m1") + b"\r\n0\r\n\r\n",
    b" 12\r\n" + body_of(b"m1") + b"\r\n0\r\n\r\n",
    b"12 \r\n" + body_of(b"m1") + b"\r\n0\r\n\r\n",
    b"00000000000000000012\r\n" + body_of(b"m1") + b"\r\n0\r\n\r\n",
    b"10000000000000012\r\n" + body_of(b"m1") + b"\r\n0\r\n\r\n",
    b"ffffffffffffffff\r\n" + body_of(b"m1") + b"\r\n0\r\n\r\n",
    b"12\r\n" + body_of(b"m1") + b"0\r\n\r\n",
    b"12\r\n" + body_of(b"m1") + b"XX0\r\n\r\n",
    chunk(body_of(b"m1")) + b"0\r\nContent-Length: 5\r\n\r\n",
    chunk(body_of(b"m1")) + b"0\r\nTransfer-Encoding: x\r\n folded\r\n\r\n",
    chunk(body_of(b"m1")) + b"0\r\n" + BAIT,
    chunk(body_of(b"m1")) + b"0\r\n\n",
    chunk(body_of(b"m1")) + b"00\r\n\r\n",
    chunk(body_of(b"m1")) + b"g\r\n\r\n",
    chunk(body_of(b"m1")) + b"\r\n0\r\n\r\n",
]

LINES = [  # whole heads, each with a body of 18 bytes that its length says
    b"POST /recall HTTP/1.1\nHost: a\nContent-Length: 18\n\n",
    b"POST /recall HTTP/1.1\r\nHost: a\r\nContent-Length: 18\n\r\n",
    b"POST /recall HTTP/1.1\r\nHost: a\r\nContent-Length: 18\r\n\n",
    b"POST /recall HTTP/1.1\rHost: a\rContent-Length: 18\r\r",
    b"POST /recall HTTP/1.1\r\nHost: a\r\nX: a\r\r\nContent-Length: 18\r\n\r\n",
    b"POST /recall HTTP/1.1\r\nHost: a\r\nX: a\rb\r\nContent-Length: 18\r\n\r\n",
    b"POST /recall HTTP/1.1\r\nHost: a\r\nX: a\0b\r\nContent-Length: 18\r\n\r\n",
    b"POST /recall HTTP/1.1\r\nHost: a\r\nX\0: a\r\nContent-Length: 18\r\n\r\n",
    b"POST /rec\0all HTTP/1.1\r\nHost: a\r\nContent-Length: 18\r\n\r\n",
    b"POST /recall HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\nContent-Length: 18\r\n\r\n",
    b"POST /recall HTTP/1.1\r\nHost: a\r\nX: a\r\n\tContent-Length: 0\r\nContent-Length: 18\r\n\r\n",
    b"POST /recall HTTP/1.1\r\nHost: a\r\n \r\nContent-Length: 18\r\n\r\n",
    b"POST /recall HTTP/1.1\r\nHost: a\r\nX : a\r\nContent-Length: 18\r\n\r\n",
    b"POST /recall HTTP/1.1\r\nHost: a\r\n: a\r\nContent-Length: 18\r\n\r\n",
    b"POST /recall HTTP/1.1\r\nHost: a\r\nX\r\nContent-Length: 18\r\n\r\n",
    b"POST /recall HTTP/1.1\r\nHost: a\r\n\r\nContent-Length: 18\r\n\r\n",
    b"POST /recall HTTP/1.1\r\nContent-Length: 18\r\n\r\n",
    b"POST /recall HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 18\r\n\r\n",
    b"POST /recall HTTP/1.1\r\nHost: a b\r\nContent-Length: 18\r\n\r\n",
    b"POST /recall HTTP/1.1\r\nHost: a/b?c\r\nContent-Length: 18\r\n\r\n",
    b"POST /recall HTTP/1.1\r\nHost:\r\nContent-Length: 18\r\n\r\n",
    b"POST  /recall HTTP/1.1\r\nHost: a\r\nContent-Length: 18\r\n\r\n",
    b"POST\t/recall\tHTTP/1.1\r\nHost: a\r\nContent-Length: 18\r\n\r\n",
    b"POST /recall  HTTP/1.1\r\nHost: a\r\nContent-Length: 18\r\n\r\n",
    b"POST /recall HTTP/1.1 \r\nHost: a\r\nContent-Length: 18\r\n\r\n",
    b"POST /recall HTTP/1.1 HTTP/1.1\r\nHost: a\r\nContent-Length: 18\r\n\r\n",
    b"POST /recall HTTP/1.0\r\nContent-Length: 18\r\n\r\n",
    b"POST /recall HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 18\r\n\r\n",
    b"POST /recall HTTP/1.2\r\nHost: a\r\nContent-Length: 18\r\n\r\n",
    b"POST /recall HTTP/2.0\r\nHost: a\r\nContent-Length: 18\r\n\r\n",
    b"POST /recall HTTP/0.9\r\nHost: a\r\nContent-Length: 18\r\n\r\n",
    b"POST /recall http/1.1\r\nHost: a\r\nContent-Length: 18\r\n\r\n",
    b"POST /recall HTTP/01.1\r\nHost: a\r\nContent-Length: 18\r\n\r\n",
    b"POST /recall\r\n",
    b"GET /recall\r\n",
    b"\r\n\r\nPOST /recall HTTP/1.1\r\nHost: a\r\nContent-Length: 18\r\n\r\n",
    b"\n\nPOST /recall HTTP/1.1\r\nHost: a\r\nContent-Length: 18\r\n\r\n",
    b"GET /recall HTTP/1.1\r\nHost: a\r\nContent-Length: 18\r\n\r\n",
    b"HEAD /recall HTTP/1.1\r\nHost: a\r\nContent-Length: 18\r\n\r\n",
    b"DELETE /recall HTTP/1.1\r\nHost: a\r\nContent-Length: 18\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\nContent-Length: 18\r\n\r\n",
    b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\nContent-Length: 18\r\n\r\n",
    b"TRACE /recall HTTP/1.1\r\nHost: a\r\nContent-Length: 18\r\n\r\n",
    b"post /recall HTTP/1.1\r\nHost: a\r\nContent-Length: 18\r\n\r\n",
    b"PO(ST /recall HTTP/1.1\r\nHost: a\r\nContent-Length: 18\r\n\r\n",
    b"POST http://b/recall HTTP/1.1\r\nHost: a\r\nContent-Length: 18\r\n\r\n",
    b"POST http://b/recall HTTP/1.1\r\nContent-Length: 18\r\n\r\n",
    b"POST http://b/recall@c HTTP/1.1\r\nHost: a\r\nContent-Length: 18\r\n\r\n",
    b"POST //b/recall HTTP/1.1\r\nHost: a\r\nContent-Length: 18\r\n\r\n",
    b"POST /recall#x HTTP/1.1\r\nHost: a\r\nContent-Length: 18\r\n\r\n",
    b"POST /recall?\xff HTTP/1.1\r\nHost: a\r\nContent-Length: 18\r\n\r\n",
    b"POST /recall?%0d%0aX:%20y HTTP/1.1\r\nHost: a\r\nContent-Length: 18\r\n\r\n",
    b"POST /recall%20HTTP/1.1%0d%0aHost:%20a HTTP/1.1\r\nHost: a\r\nContent-Length: 18\r\n\r\n",
    b"DELETE /items/1/../../recall HTTP/1.1\r\nHost: a\r\nContent-Length: 18\r\n\r\n",
    b"DELETE /%69tems/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 18\r\n\r\n",
    b"DELETE /recall/..%2fitems/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 18\r\n\r\n",
    b"DELETE http://a/items/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 18\r\n\r\n",
    b"POST /recall?" + b"a" * 8175 + b" HTTP/1.1\r\nHost: a\r\nContent-Length: 18\r\n\r\n",
    b"POST /recall?" + b"a" * 20000 + b" HTTP/1.1\r\nHost: a\r\nContent-Length: 18\r\n\r\n",
    b"POST /recall HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 70 + b"Content-Length: 18\r\n\r\n",
    b"POST /recall HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 200 + b"Content-Length: 18\r\n\r\n",
    b"POST /recall HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 20000 + b"\r\nContent-Length: 18\r\n\r\n",
    b"POST /recall HTTP/1.1\r\nHost: a\r\n" + (b"X: " + b"a" * 4000 + b"\r\n") * 5 + b"Content-Length: 18\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nPOST /recall HTTP/1.1\r\nHost: a\r\nContent-Length: 18\r\n\r\n",
]

OVER = b"POST /recall HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
PIPELINES = [
    b"".join(ask(b"m%d" % i) for i in range(1, 9)),
    ask(b"m1") + BAIT + ask(b"m2"),
    ask(b"m1") + ask(b"m2", b"Connection: close\r\n") + ask(b"m3"),
    ask(b"m1", b"Connection: keep-alive\r\n", b"HTTP/1.0") + ask(b"m2", b"", b"HTTP/1.0") + ask(b"m3"),
    ask(b"m1") + b"\r\n" + ask(b"m2"),
    ask(b"m1") + b"\r\n\r\n\r\n" + ask(b"m2"),
    ask(b"m1") + b"X" + ask(b"m2"),
    ask(b"m1") + head([], b"HEAD") + ask(b"m2"),
    ask(b"m1") + head([b"Transfer-Encoding: chunked"]) + CHUNKED[0] + ask(b"m2"),
    ask(b"m1", b"X: " + b"a" * 14000 + b"\r\n") + ask(b"m2"),
    OVER % (2 << 20) + BAIT * ((2 << 20) // len(BAIT)) + ask(b"m2"),
    OVER % (1 << 20) + (b" " * ((1 << 20) - 18)) + body_of(b"m1") + ask(b"m2"),
    OVER % 99999999999999999999 + BAIT,
    OVER % 100 + BAIT,
    OVER % 0 + ask(b"m2"),
]


def sequences():
    for line in CODINGS:
        for n, data in enumerate(coding_and_length(line)):
            yield f"coding {line!r} {n}", data + ask(b"m9")
    for fields in LENGTHS:
        size = b"%d" % len(body_of(b"m1"))
        whole = head([line.replace(b"{}", size) for line in fields]) + body_of(b"m1")
        yield f"length {fields!r}", whole + BAIT + ask(b"m9")
    for data in CHUNKED:
        yield f"chunked {data[:40]!r}", head([b"Transfer-Encoding: chunked"]) + data + BAIT + ask(b"m9")
    for data in LINES:
        yield f"line {data[:70]!r}", data + body_of(b"m1") + BAIT + ask(b"m9")
    for n, data in enumerate(PIPELINES):
        yield f"pipeline {n}", data


# --- HTTP/2, which the proxies turn into HTTP/1.1 -------------------------------------------------------------------------


def h2_frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def h2_number(value):
    """An HPACK length in seven bits."""
    if value < 127:
        return bytes([value])
    value, out = value - 127, b"\x7f"
    while value >= 128:
        value, out = value >> 7, out + bytes([value & 127 | 128])
    return out + bytes([value])


def h2_request(stream, fields, data):
    block = b"".join(b"\x10" + h2_number(len(n)) + n + h2_number(len(v)) + v for n, v in fields)
    return h2_frame(1, 4, stream, block) + h2_frame(0, 1, stream, data)


def h2_ask(stream, marker, more=(), path=b"/recall", method=b"POST"):
    fields = [(b":method", method), (b":scheme", b"http"), (b":path", path), (b":authority", b"a"), *more]
    return h2_request(stream, fields, body_of(marker))


H2 = [[h2_ask(1, b"m1", more)] for more in (
    [(b"content-length", b"18")], [(b"content-length", b"0")], [(b"content-length", b"5")], [(b"content-length", b"+18")],
    [(b"content-length", b"18"), (b"content-length", b"0")], [(b"content-length", b"18, 18")], [(b"content-length", b"100")],
    [(b"transfer-encoding", b"chunked")], [(b"transfer-encoding", b"chunked"), (b"content-length", b"18")],
    [(b"x", b"y\r\nTransfer-Encoding: chunked")], [(b"x", b"y\nContent-Length: 0")], [(b"x", b"y\r\n\r\n" + BAIT)], [(b"x\r\n", b"y")],
    [(b"x: y\r\ntransfer-encoding", b"chunked")], [(b"x", b"a\0b")], [(b"Transfer-Encoding", b"chunked")], [(b"connection", b"close")],
    [(b"host", b"b")], [(b"host", b"b"), (b"host", b"c")], [(b"upgrade", b"h2c")], [(b"expect", b"100-continue")], [(b"te", b"chunked")],
    [(b":path", b"/items/1")], [(b"", b"y")], [(b"x ", b"y")], [(b"x", b" y ")], [(b"x", b"a" * 15000)],
)] + [[h2_ask(1, b"m1", (), path, method)] for path, method in (
    (b"/recall HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n" + BAIT, b"POST"), (b"/recall\r\n", b"POST"), (b"recall", b"POST"),
    (b"http://a/recall", b"POST"), (b"*", b"OPTIONS"), (b"/recall", b"DELETE /items/1 HTTP/1.1\r\nHost: a\r\n\r\nPOST"), (b"/recall", b"GET"),
    (b"/recall", b"PO ST"), (b"/items/1", b"DELETE"), (b"/recall?\xff", b"POST"), (b"/recall#x", b"POST"),
)] + [[h2_ask(stream, b"m%d" % stream) for stream in (1, 3, 5, 7)]]


def h2_exchange(address, frames):
    """The bodies of the answers, by stream."""
    with raw_http.connect(address) as sock:
        raw_http.send(sock, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + h2_frame(4, 0, 0, b"") + b"".join(frames))
        data, _ = raw_http.receive(sock, QUIET)
    bodies = {}
    while len(data) >= 9:
        size, kind, stream = int.from_bytes(data[:3], "big"), data[3], int.from_bytes(data[5:9], "big")
        if kind == 0:
            bodies[stream] = bodies.get(stream, b"") + data[9:9 + size]
        data = data[9 + size:]
    return bodies


# --- what is checked ------------------------------------------------------------------------------------------------------


def marker_of(body):
    try:
        return json.loads(body).get("pointer", "").lstrip("/").encode()
    except (ValueError, AttributeError):
        return b""


def answered(daemon):
    """Answers of recalld to all but our own looks at the counters and the proxies' health checks: one look, since checks go on."""
    total = 0
    for line in daemon.get("/metrics").body.decode().splitlines():
        if line.startswith("recalld_http_responses_total{") and not re.search(r'endpoint="/(metrics|readyz)"', line):
            total += int(float(line.split()[-1]))
    return total


class Stand:
    """A proxy and the daemon behind it. Its health checks are not in its log, so the daemon says no more about them."""

    def __init__(self, proxy, daemon):
        self.proxy, self.daemon, self.count = proxy, daemon, 0

    def counts(self):
        return *self.proxy.forwarded(), answered(self.daemon)

    def settled(self, before):
        """How many answers of recalld came on top, when the proxy agrees, whose log comes later."""
        end = time.monotonic() + 2
        while True:
            forwarded, taken, answers = (b - a for a, b in zip(before, self.counts()))
            if taken <= answers <= forwarded:
                return answers
            assert time.monotonic() < end, f"forwarded {forwarded}, got {taken} answers, recalld made {answers}"
            time.sleep(0.01)

    def victims(self):
        for _ in range(3):
            self.count += 1
            marker = b"victim%d" % self.count
            answers = raw_http.exchange(self.proxy.address, ask(marker, b"Connection: close\r\n"))
            assert [marker_of(body) for _, _, body in answers.all] == [marker], "somebody else's answer"

    def check(self, send):
        """`send` returns the markers that it got and those that it may get, in order."""
        before = self.counts()
        got, sent = send()
        forwarded = self.settled(before)
        at = -1
        for marker in filter(None, got):
            assert marker in sent[at + 1:], f"{got} for {sent}"
            at = sent.index(marker, at + 1)
        before = self.counts()
        self.victims()
        assert self.settled(before) == 3
        left = self.daemon.post("/similar", {"item": "1"}).status
        assert left == 200, "a smuggled request was executed"
        return forwarded


@pytest.fixture(scope="module", params=sorted(proxies.ALL))
def stand(request, world, tmp_path_factory):
    if not proxies.program(request.param):
        pytest.skip(f"{request.param} is not installed (make proxy-deps)")
    directory = tmp_path_factory.mktemp("proxy")
    daemon = harness.Daemon(directory, "--bundle", world.model_a, "--listen", "127.0.0.1:0", "--workers", 1)
    proxy = proxies.ALL[request.param](directory, [daemon.address, daemon.address])
    yield Stand(proxy, daemon)
    proxy.stop()
    daemon.stop()


def test_no_sequence_is_read_in_two_ways(stand):
    failures, forwarded, total = [], 0, 0
    for name, data in sequences():
        def send():
            answers = raw_http.exchange(stand.proxy.address, data, quiet=QUIET)
            return [marker_of(body) for _, _, body in answers.all], re.findall(rb'"(m\d+)":1', data)

        total += 1
        try:
            forwarded += stand.check(send)
        except AssertionError as error:
            failures.append(f"{name}: {str(error).splitlines()[0]}")
    assert not failures, "\n".join(failures)
    assert total > 200 and forwarded > 100  # the proxies do not refuse everything by themselves


def test_no_http2_request_becomes_two(stand):
    failures, forwarded = [], 0
    for frames in H2:
        def send():
            bodies = h2_exchange(stand.proxy.h2_address, frames)
            for stream, body in bodies.items():
                assert marker_of(body) in (b"", b"m%d" % stream)
            return [marker_of(body) for _, body in sorted(bodies.items())], [b"m1", b"m3", b"m5", b"m7"]

        try:
            forwarded += stand.check(send)
        except AssertionError as error:
            failures.append(f"{frames!r:.150}: {str(error).splitlines()[0]}")
    assert not failures, "\n".join(failures)
    assert forwarded >= 10


def test_cut_in_two_anywhere(stand):
    """A pipeline that arrives in two pieces, wherever the cut is."""
    data = ask(b"m1") + ask(b"m2", b"Connection: close\r\n")
    for cut in range(1, len(data), 7):
        before = stand.counts()
        with raw_http.connect(stand.proxy.address) as sock:
            sock.sendall(data[:cut])
            time.sleep(0.002)
            sock.sendall(data[cut:])
            answers = raw_http.Answers(*raw_http.receive(sock))
        assert [marker_of(body) for _, _, body in answers.all] == [b"m1", b"m2"]
        assert stand.settled(before) == 2
