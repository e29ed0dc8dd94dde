"""The rules of docs/http.md ("HTTP itself"), byte by byte: what is refused, with which status and type, and that nothing
behind a refused request is ever taken for another one.

Behind every refused request a DELETE of an item lies in wait: were it taken for a request, the item would be gone.
"""

import json
import socket
import struct
import time

import pytest

import harness
import raw_http

H = b"Host: a\r\n"
BAIT = b"DELETE /items/1 HTTP/1.1\r\nHost: a\r\n\r\n"
BODY = b'{"user":{"user_id":"1"},"k":1}'


def post(headers, body=BODY, path=b"/recall", version=b"HTTP/1.1"):
    return b"POST " + path + b" " + version + b"\r\n" + H + headers + b"\r\n" + body


def sized(body=BODY):
    return b"Content-Length: %d\r\n" % len(body)


CODING = "transfer-coding-not-supported"
CHUNKS = b"1e\r\n" + BODY + b"\r\n0\r\n\r\n"

# name, bytes, status, problem type; the connection is closed after each
REFUSED = [
    # lengths
    ("request line 8193", b"GET /" + b"a" * (8193 - 14) + b" HTTP/1.1\r\n" + H + b"\r\n", 414, "request-line-too-long"),
    ("request line without an end", b"GET /" + b"a" * 9000, 414, "request-line-too-long"),
    ("method without an end", b"A" * 9000, 414, "request-line-too-long"),
    ("head over 16 KiB", b"GET / HTTP/1.1\r\n" + H + b"X: " + b"a" * 16384 + b"\r\n\r\n", 431, "head-too-large"),
    ("header line without an end", b"GET / HTTP/1.1\r\nX: " + b"a" * 20000, 431, "head-too-large"),
    ("header name without an end", b"GET / HTTP/1.1\r\n" + b"a" * 20000, 431, "head-too-large"),
    ("65 headers", b"GET / HTTP/1.1\r\n" + H + b"X: 1\r\n" * 64 + b"\r\n", 431, "head-too-large"),
    ("body over 1 MiB", post(b"Content-Length: 1048577\r\n", b""), 413, "body-too-large"),
    ("body over 2^64", post(b"Content-Length: 18446744073709551646\r\n"), 413, "body-too-large"),
    ("413 before 100", post(b"Expect: 100-continue\r\nContent-Length: 9999999\r\n", b""), 413, "body-too-large"),
    # Content-Length
    ("+30", post(b"Content-Length: +30\r\n"), 400, "malformed-request"),
    ("-30", post(b"Content-Length: -30\r\n"), 400, "malformed-request"),
    ("3 0", post(b"Content-Length: 3 0\r\n"), 400, "malformed-request"),
    ("0x1e", post(b"Content-Length: 0x1e\r\n"), 400, "malformed-request"),
    ("1e", post(b"Content-Length: 1e\r\n"), 400, "malformed-request"),
    ("30.0", post(b"Content-Length: 30.0\r\n"), 400, "malformed-request"),
    ("empty length", post(b"Content-Length:\r\n"), 400, "malformed-request"),
    ("blank length", post(b"Content-Length: \t \r\n"), 400, "malformed-request"),
    ("length list", post(b"Content-Length: 30, 30\r\n"), 400, "malformed-request"),
    ("length comma", post(b"Content-Length: 30,\r\n"), 400, "malformed-request"),
    ("equal lengths", post(sized() + sized()), 400, "malformed-request"),
    ("unequal lengths", post(sized() + b"Content-Length: 0\r\n"), 400, "malformed-request"),
    ("length twice, in another case", post(sized() + b"content-length: 3\r\n"), 400, "malformed-request"),
    ("length with vertical tab", post(b"Content-Length: \x0b30\r\n"), 400, "malformed-request"),
    ("length in other digits", post("Content-Length: ٣٠\r\n".encode()), 400, "malformed-request"),
    # Transfer-Encoding
    ("chunked", post(b"Transfer-Encoding: chunked\r\n", CHUNKS), 501, CODING),
    ("identity", post(b"Transfer-Encoding: identity\r\n"), 501, CODING),
    ("gzip, chunked", post(b"Transfer-Encoding: gzip, chunked\r\n", CHUNKS), 501, CODING),
    ("chunked twice", post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", CHUNKS), 501, CODING),
    ("identity, then chunked", post(b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", CHUNKS), 501, CODING),
    ("xchunked", post(b"Transfer-Encoding: xchunked\r\n", CHUNKS), 501, CODING),
    ("quoted", post(b'Transfer-Encoding: "chunked"\r\n', CHUNKS), 501, CODING),
    ("CHUNKED after a tab", post(b"TRANSFER-ENCODING:\tCHUNKED\r\n", CHUNKS), 501, CODING),
    ("empty coding", post(b"Transfer-Encoding:\r\n"), 501, CODING),
    ("coding on GET", b"GET /healthz HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501, CODING),
    ("endless chunk size", post(b"Transfer-Encoding: chunked\r\n", b"1" * 100000), 501, CODING),
    ("endless chunk extension", post(b"Transfer-Encoding: chunked\r\n", b"1;" + b"a" * 100000), 501, CODING),
    ("CL.TE", post(sized() + b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"), 400, "malformed-request"),
    ("TE.CL", post(b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", CHUNKS), 400, "malformed-request"),
    ("coding and length 0", post(b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", CHUNKS), 400, "malformed-request"),
    ("coding in HTTP/1.0", post(b"Transfer-Encoding: chunked\r\n", CHUNKS, version=b"HTTP/1.0"), 400, "malformed-request"),
    ("coding, space before the colon", post(sized() + b"Transfer-Encoding : chunked\r\n"), 400, "malformed-request"),
    ("coding, folded", post(sized() + b"Transfer-Encoding:\r\n chunked\r\n"), 400, "malformed-request"),
    ("coding behind a bare LF", post(sized() + b"X: y\nTransfer-Encoding: chunked\r\n"), 400, "malformed-request"),
    ("coding behind a bare CR", post(sized() + b"X: y\rTransfer-Encoding: chunked\r\n"), 400, "malformed-request"),
    ("coding with NUL", post(sized() + b"Transfer-Encoding: chunked\0\r\n"), 400, "malformed-request"),
    ("coding with vertical tab", post(sized() + b"Transfer-Encoding:\x0bchunked\r\n"), 400, "malformed-request"),
    ("coding, NUL in the name", post(sized() + b"Transfer-Encoding\0: chunked\r\n"), 400, "malformed-request"),
    ("coding, high byte in the name", post(sized() + b"Transfer\xadEncoding: chunked\r\n"), 400, "malformed-request"),
    # lines
    ("bare LF after the request line", b"GET /healthz HTTP/1.1\n" + H + b"\r\n", 400, "malformed-request"),
    ("bare LF after a header", b"GET /healthz HTTP/1.1\r\nHost: a\n\r\n", 400, "malformed-request"),
    ("bare LF as the empty line", b"GET /healthz HTTP/1.1\r\n" + H + b"\n", 400, "malformed-request"),
    ("bare CR in a value", b"GET /healthz HTTP/1.1\r\n" + H + b"X: a\rb\r\n\r\n", 400, "malformed-request"),
    ("CR CR LF", b"GET /healthz HTTP/1.1\r\n" + H + b"X: a\r\r\n\r\n", 400, "malformed-request"),
    ("NUL in the target", b"GET /heal\0thz HTTP/1.1\r\n" + H + b"\r\n", 400, "malformed-request"),
    ("NUL in a value", b"GET /healthz HTTP/1.1\r\n" + H + b"X: a\0b\r\n\r\n", 400, "malformed-request"),
    ("NUL in a name", b"GET /healthz HTTP/1.1\r\n" + H + b"X\0: a\r\n\r\n", 400, "malformed-request"),
    ("escape in a value", b"GET /healthz HTTP/1.1\r\n" + H + b"X: \x1b[2J\r\n\r\n", 400, "malformed-request"),
    ("space before the colon", b"GET /healthz HTTP/1.1\r\n" + H + b"X : a\r\n\r\n", 400, "malformed-request"),
    ("tab before the colon", b"GET /healthz HTTP/1.1\r\n" + H + b"X\t: a\r\n\r\n", 400, "malformed-request"),
    ("folded header", b"GET /healthz HTTP/1.1\r\n" + H + b"X: a\r\n b\r\n\r\n", 400, "malformed-request"),
    ("folded with a tab", b"GET /healthz HTTP/1.1\r\n" + H + b"X: a\r\n\tb\r\n\r\n", 400, "malformed-request"),
    ("folded first header", b"GET /healthz HTTP/1.1\r\n " + H + b"\r\n", 400, "malformed-request"),
    ("header without a colon", b"GET /healthz HTTP/1.1\r\n" + H + b"X\r\n\r\n", 400, "malformed-request"),
    ("header without a name", b"GET /healthz HTTP/1.1\r\n" + H + b": a\r\n\r\n", 400, "malformed-request"),
    ("parenthesis in a name", b"GET /healthz HTTP/1.1\r\n" + H + b"X(y): a\r\n\r\n", 400, "malformed-request"),
    # the request line
    ("two spaces", b"GET  /healthz HTTP/1.1\r\n" + H + b"\r\n", 400, "malformed-request"),
    ("tab for a space", b"GET\t/healthz HTTP/1.1\r\n" + H + b"\r\n", 400, "malformed-request"),
    ("space behind the version", b"GET /healthz HTTP/1.1 \r\n" + H + b"\r\n", 400, "malformed-request"),
    ("space in front", b" GET /healthz HTTP/1.1\r\n" + H + b"\r\n", 400, "malformed-request"),
    ("two empty lines in front", b"\r\n\r\nGET /healthz HTTP/1.1\r\n" + H + b"\r\n", 400, "malformed-request"),
    ("HTTP/0.9", b"GET /healthz\r\n", 400, "malformed-request"),
    ("HTTP/0.9, written out", b"GET /healthz HTTP/0.9\r\n\r\n", 505, "http-version-not-supported"),
    ("HTTP/1.2", b"GET /healthz HTTP/1.2\r\n" + H + b"\r\n", 505, "http-version-not-supported"),
    ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "http-version-not-supported"),
    ("HTTP/1.10", b"GET /healthz HTTP/1.10\r\n" + H + b"\r\n", 400, "malformed-request"),
    ("http/1.1", b"GET /healthz http/1.1\r\n" + H + b"\r\n", 400, "malformed-request"),
    ("TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 400, "malformed-request"),
    ("target without a slash", b"GET healthz HTTP/1.1\r\n" + H + b"\r\n", 400, "malformed-request"),
    ("fragment", b"GET /healthz#x HTTP/1.1\r\n" + H + b"\r\n", 400, "malformed-request"),
    ("backslash", b"GET \\healthz HTTP/1.1\r\n" + H + b"\r\n", 400, "malformed-request"),
    ("%00", b"GET /healthz%00 HTTP/1.1\r\n" + H + b"\r\n", 400, "malformed-request"),
    ("bad escape", b"GET /%zz HTTP/1.1\r\n" + H + b"\r\n", 400, "malformed-request"),
    ("CONNECT", b"CONNECT a:80 HTTP/1.1\r\n" + H + b"\r\n", 400, "malformed-request"),
    ("ftp URL", b"GET ftp://a/healthz HTTP/1.1\r\n" + H + b"\r\n", 400, "malformed-request"),
    ("user in the URL", b"GET http://u@a/healthz HTTP/1.1\r\n" + H + b"\r\n", 400, "malformed-request"),
    # Host
    ("no Host", b"GET /healthz HTTP/1.1\r\n\r\n", 400, "malformed-request"),
    ("no Host, absolute form", b"GET http://a/healthz HTTP/1.1\r\n\r\n", 400, "malformed-request"),
    ("Host twice", b"GET /healthz HTTP/1.1\r\n" + H + H + b"\r\n", 400, "malformed-request"),
    ("Host twice in HTTP/1.0", b"GET /healthz HTTP/1.0\r\n" + H + b"Host: b\r\n\r\n", 400, "malformed-request"),
    ("Host list", b"GET /healthz HTTP/1.1\r\nHost: a, b\r\n\r\n", 400, "malformed-request"),
    ("Host with a path", b"GET /healthz HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "malformed-request"),
    ("Host with a user", b"GET /healthz HTTP/1.1\r\nHost: u@a\r\n\r\n", 400, "malformed-request"),
    # Expect
    ("another expectation", post(b"Expect: 200-ok\r\n" + sized()), 417, "expectation-failed"),
    ("two expectations", post(b"Expect: 100-continue\r\nExpect: x\r\n" + sized()), 417, "expectation-failed"),
]


@pytest.fixture(scope="module")
def daemon(world, tmp_path_factory):
    daemon = harness.Daemon(tmp_path_factory.mktemp("http"), "--bundle", world.model_a, "--listen", "127.0.0.1:0",
                            "--workers", 1)
    yield daemon
    assert daemon.post("/similar", {"item": "1"}).status == 200  # nobody took the bait
    daemon.stop()


def check_problem(answer, status, slug):
    got, headers, body = answer
    assert got == status, answer
    assert headers["content-type"] == "application/problem+json"
    problem = json.loads(body)
    assert problem["type"] == f"urn:recalld:problem:{slug}" and problem["status"] == status
    assert problem["title"] and problem["detail"]


@pytest.mark.parametrize("data,status,slug", [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_refused_and_closed(daemon, data, status, slug):
    answers = raw_http.exchange(daemon.address, data + BAIT)
    assert len(answers.all) == 1 and answers.closed and answers.rest == b"", answers.all
    check_problem(answers.all[0], status, slug)
    assert answers.all[0][1]["connection"] == "close"
    assert daemon.post("/similar", {"item": "1"}).status == 200


@pytest.mark.parametrize("data,status,slug", [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_refused_behind_a_good_one(daemon, data, status, slug):
    """The request before it is answered; the verdict is the same, and nothing behind it is read."""
    answers = raw_http.exchange(daemon.address, post(sized()) + data + BAIT)
    if data.startswith((b"\r\n\r\n", b"\n")):  # an empty line may stand behind a request, and this one has two
        assert answers.statuses == [200, 400]
    else:
        assert answers.statuses == [200, status]
    check_problem(answers.all[1], status, slug)
    assert answers.closed and daemon.post("/similar", {"item": "1"}).status == 200


ACCEPTED = [
    ("request line of 8192", b"GET /" + b"a" * (8192 - 14) + b" HTTP/1.1\r\n" + H + b"\r\n", 404),
    ("head of 16 KiB", b"GET /healthz HTTP/1.1\r\n" + H + b"X: " + b"a" * (16384 - 39) + b"\r\n\r\n", 200),
    ("64 headers", b"GET /healthz HTTP/1.1\r\n" + H + b"X: 1\r\n" * 63 + b"\r\n", 200),
    ("body of 1 MiB", post(b"Content-Length: 1048576\r\n", BODY + b" " * (1048576 - len(BODY))), 200),
    ("zeros before a length", post(b"Content-Length: 00030\r\n"), 200),
    ("blanks around a length", post(b"Content-Length: \t30 \t\r\n"), 200),
    ("no length", post(b"", b""), 400),
    ("body on GET", b"GET /healthz HTTP/1.1\r\n" + H + b"Content-Length: %d\r\n\r\n" % len(BAIT) + BAIT, 200),
    ("body on HEAD", b"HEAD /healthz HTTP/1.1\r\n" + H + b"Content-Length: %d\r\n\r\n" % len(BAIT) + BAIT, 200),
    ("body on DELETE", b"DELETE /items/none HTTP/1.1\r\n" + H + b"Content-Length: %d\r\n\r\n" % len(BAIT) + BAIT, 404),
    ("body on OPTIONS", b"OPTIONS * HTTP/1.1\r\n" + H + b"Content-Length: %d\r\n\r\n" % len(BAIT) + BAIT, 404),
    ("body on an unknown method", b"BREW /recall HTTP/1.1\r\n" + H + b"Content-Length: %d\r\n\r\n" % len(BAIT) + BAIT, 405),
    ("body on an unknown path", b"GET /none HTTP/1.1\r\n" + H + b"Content-Length: %d\r\n\r\n" % len(BAIT) + BAIT, 404),
    ("an empty line in front", b"\r\nGET /healthz HTTP/1.1\r\n" + H + b"\r\n", 200),
    ("empty Host", b"GET /healthz HTTP/1.1\r\nHost:\r\n\r\n", 200),
    ("absolute form", b"GET http://b:80/healthz HTTP/1.1\r\n" + H + b"\r\n", 200),
    ("Upgrade is not looked at", b"GET /healthz HTTP/1.1\r\n" + H + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n", 200),
    ("a header that looks like a coding", post(sized() + b"Transfer_Encoding: chunked\r\n"), 200),
    ("escaped path", b"GET /%68ealthz HTTP/1.1\r\n" + H + b"\r\n", 200),
    ("path that escapes a line end", b"GET /healthz%0d%0aX:%20y HTTP/1.1\r\n" + H + b"\r\n", 404),
    ("Expect, body at once", post(b"Expect: 100-continue\r\n" + sized()), 200),
]


@pytest.mark.parametrize("data,status", [r[1:] for r in ACCEPTED], ids=[r[0] for r in ACCEPTED])
def test_accepted_and_kept_alive(daemon, data, status):
    """One answer, and the next request on the connection is the next request."""
    answers = raw_http.exchange(daemon.address, data + b"GET /nowhere HTTP/1.1\r\n" + H + b"Connection: close\r\n\r\n",
                                [data.split()[0].decode()])
    assert answers.statuses == [status, 404] and answers.rest == b"", answers.all
    assert "connection" not in answers.all[0][1]


def test_the_smallest_limits(serve, world):
    address = serve(world.model_a, "--set", "limits.head=1KiB", "--set", "limits.body=1KiB").address
    for line, status in ((1020, 404), (1021, 414)):
        data = b"GET /" + b"a" * (line - 14) + b" HTTP/1.0\r\n\r\n"
        assert raw_http.exchange(address, data).statuses == [status]
    for head, status in ((1024, 200), (1025, 431)):
        data = b"GET /healthz HTTP/1.0\r\nX: " + b"a" * (head - 30) + b"\r\n\r\n"
        assert raw_http.exchange(address, data).statuses == [status]
    for body, status in ((1024, 200), (1025, 413)):
        data = post(b"Connection: close\r\nContent-Length: %d\r\n" % body, BODY + b" " * (body - len(BODY)))
        assert raw_http.exchange(address, data).statuses == [status]


def test_wrong_methods_are_405_with_allow(daemon):
    for path, allow in (("/recall", "POST"), ("/similar", "POST"), ("/embed", "POST"), ("/items", "POST"),
                        ("/items/1", "DELETE"), ("/healthz", "GET, HEAD"), ("/readyz", "GET, HEAD"),
                        ("/metrics", "GET, HEAD"), ("/model", "GET, HEAD")):
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW", "get"):
            if method in allow:
                continue
            answer = daemon.call(method, path)
            assert (answer.status, answer.headers["Allow"]) == (405, allow), (method, path)
            if method != "HEAD":
                assert answer.json["type"] == "urn:recalld:problem:method-not-allowed"


def test_a_pipeline_is_answered_in_order(daemon):
    count = 300
    wanted = [b'{"user":{"user_id":"1"},"k":%d}' % (i % 50 + 1) for i in range(count)]
    data = b"".join(post(sized(body), body) for body in wanted)
    with raw_http.connect(daemon.address) as sock:
        raw_http.send(sock, data + b"GET /healthz HTTP/1.0\r\n\r\n")
        answers = raw_http.Answers(*raw_http.receive(sock))
    assert answers.statuses == [200] * (count + 1) and answers.closed
    assert [len(json.loads(body)["items"]) for _, _, body in answers.all[:-1]] == [i % 50 + 1 for i in range(count)]


def test_a_pipeline_that_is_not_read_is_not_read_either(serve, world):
    """Who sends and never reads is stopped by the kernel's buffers and then cut off; others do not notice."""
    daemon = serve(world.model_a, "--workers", 1, "--set", "limits.response_timeout=1s")
    request = post(sized(b'{"user":{},"k":1000}'), b'{"user":{},"k":1000}')
    with raw_http.connect(daemon.address, timeout=0.5) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sent = 0
        try:
            while sent < 64 << 20:
                sent += sock.send(request * 100)
        except TimeoutError:
            pass
        assert sent < 32 << 20
        began = time.monotonic()
        assert daemon.post("/recall", BODY).status == 200
        assert time.monotonic() - began < 5
        harness.wait_for(lambda: harness.metric(daemon.get("/metrics").body.decode(),
                                                "recalld_http_response_timeouts_total"), "the reset", 20)


def trickle(sock, data, pause):
    """Sends byte by byte until the other side answers; returns the seconds that took, and the answer."""
    began = time.monotonic()
    sock.settimeout(pause)
    for at in range(len(data)):
        try:
            sock.send(data[at:at + 1])
            first = sock.recv(65536)
            return time.monotonic() - began, first + raw_http.receive(sock, 5)[0]
        except TimeoutError:
            continue
    raise AssertionError("no answer while bytes were sent")


@pytest.mark.skipif(harness.SANITIZED, reason="measures time")
@pytest.mark.parametrize("begin,drip", [(b"", b"GET /" + b"a" * 200), (b"GET / HTTP/1.1\r\n" + H, b"X: " + b"a" * 200),
                                        (post(b"Content-Length: 1000\r\n", b""), b" " * 999)],
                         ids=["request line", "headers", "body"])
def test_a_slow_request_ends_by_an_absolute_deadline(serve, world, begin, drip):
    daemon = serve(world.model_a, "--set", "limits.request_timeout=1s")
    with raw_http.connect(daemon.address) as sock:
        sock.sendall(begin)
        seconds, data = trickle(sock, drip, 0.05)
    assert 0.8 < seconds < 2.5
    check_problem(raw_http.Answers(data, True).all[0], 408, "request-timeout")


@pytest.mark.skipif(harness.SANITIZED, reason="measures time")
def test_an_idle_connection_is_closed_without_a_word(serve, world):
    daemon = serve(world.model_a, "--set", "limits.idle_timeout=500ms")
    with raw_http.connect(daemon.address) as sock:
        began = time.monotonic()
        assert raw_http.receive(sock) == (b"", True)
        assert 0.4 < time.monotonic() - began < 2.5


def test_http_1_0(daemon):
    plain = raw_http.exchange(daemon.address, b"GET /healthz HTTP/1.0\r\n\r\n" + BAIT)
    assert plain.statuses == [200] and plain.all[0][1]["connection"] == "close"
    kept = raw_http.exchange(daemon.address, b"GET /healthz HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"
                                             b"POST /recall HTTP/1.0\r\n" + sized() + b"\r\n" + BODY)
    assert kept.statuses == [200, 200]
    assert [headers["connection"] for _, headers, _ in kept.all] == ["keep-alive", "close"]


def test_connection_close_ends_what_is_read(daemon):
    answers = raw_http.exchange(daemon.address, b"GET /healthz HTTP/1.1\r\n" + H + b"Connection: close\r\n\r\n" + BAIT)
    assert answers.statuses == [200] and answers.closed


def test_expect_continue(daemon):
    with raw_http.connect(daemon.address) as sock:
        sock.sendall(post(b"Expect: 100-continue\r\n" + sized(), b""))
        assert sock.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(BODY + b"GET /healthz HTTP/1.0\r\n\r\n")
        answers = raw_http.Answers(*raw_http.receive(sock))
    assert answers.statuses == [200, 200]


def test_a_reset_in_the_middle_of_a_body_costs_nothing(daemon):
    for _ in range(50):
        sock = raw_http.connect(daemon.address)
        sock.sendall(post(b"Content-Length: 500000\r\n", BODY))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    assert daemon.post("/recall", BODY).status == 200


# body, problem type, pointer; None: answered
JSON = [
    (b'{"user":{},"user":{}}', "invalid-json", None),
    (b'{"user":{},"\\u0075ser":{}}', "invalid-json", None),
    (b'{"user":{"age":1,"\\u0061ge":2}}', "invalid-json", None),
    (b'{"user":{},"filter":{"price":{"gte":1,"g\\u0074e":2}}}', "invalid-json", None),
    (b'{"user":{},"filter":' + b"[" * 14 + b"]" * 14 + b"}", "invalid-field", "/filter"),
    (b'{"user":{},"filter":' + b"[" * 15 + b"]" * 15 + b"}", "invalid-field", "/filter"),
    (b'{"user":{},"filter":' + b"[" * 16 + b"]" * 16 + b"}", "invalid-json", None),
    (b'{"user":{},"filter":' + b"[" * 500000, "invalid-json", None),
    (b'{"user":' * 130000, "invalid-json", None),
    (b'{"user":{"age":1e38}}', None, None),
    (b'{"user":{"age":1e39}}', "invalid-field", "/user/age"),
    (b'{"user":{"age":-1e39}}', "invalid-field", "/user/age"),
    (b'{"user":{"age":"1e39"}}', "invalid-field", "/user/age"),
    (b'{"user":{"age":"nan"}}', "invalid-field", "/user/age"),
    (b'{"user":{"age":"inf"}}', "invalid-field", "/user/age"),
    (b'{"user":{"age":1e999}}', "invalid-json", None),
    (b'{"user":{"age":1e-999}}', None, None),
    (b'{"user":{"age":NaN}}', "invalid-json", None),
    (b'{"user":{"age":-Infinity}}', "invalid-json", None),
    (b'{"user":{"age":01}}', "invalid-json", None),
    (b'{"user":{"age":+1}}', "invalid-json", None),
    (b'{"user":{"age":.5}}', "invalid-json", None),
    (b'{"user":{"age":0x10}}', "invalid-json", None),
    (b'{"user":{},"min_score":1e39}', "invalid-field", "/min_score"),
    (b'{"user":{},"min_score":-1e39}', "invalid-field", "/min_score"),
    (b'{"user":{"user_id":1}}', None, None),
    (b'{"user":{"user_id":"1"}}', None, None),
    (b'{"user":{"user_id":1.5}}', "invalid-field", "/user/user_id"),
    (b'{"user":{"user_id":true}}', "invalid-field", "/user/user_id"),
    (b'{"user":{},"exclude":["1",2,-3]}', None, None),
    (b'{"user":{},"exclude":[1.0]}', "invalid-field", "/exclude/0"),
    (b'{"user":{"user_id":9223372036854775807}}', None, None),
    (b'{"user":{"user_id":9223372036854775808}}', "invalid-json", None),
    (b'{"user":{"user_id":-9223372036854775809}}', "invalid-json", None),
    (b'{"user":{"user_id":"\\ud800"}}', "invalid-json", None),
    (b'{"user":{"user_id":"\\udc00"}}', "invalid-json", None),
    (b'{"user":{"user_id":"\\ud800\\ud800"}}', "invalid-json", None),
    (b'{"user":{"user_id":"\\ud83d\\ude00"}}', None, None),
    (b'{"user":{"user_id":"\xed\xa0\x80"}}', "invalid-json", None),
    (b'{"user":{"user_id":"\xc0\xaf"}}', "invalid-json", None),
    (b'{"user":{"user_id":"\xff"}}', "invalid-json", None),
    (b'{"user":{"user_id":"a\x00b"}}', "invalid-json", None),
    (b'{"user":{"user_id":"a\nb"}}', "invalid-json", None),
    (b'{"user":{"user_id":"\\u0000"}}', "invalid-json", None),
    (b'{"us\\u0000er":{}}', "invalid-json", None),
    (b'{"user":{}} x', "invalid-json", None),
    (b'{"user":{}}{"user":{}}', "invalid-json", None),
    (b'{"user":{},}', "invalid-json", None),
    (b"{'user':{}}", "invalid-json", None),
    (b'{"user":{}/**/}', "invalid-json", None),
    (b'\xef\xbb\xbf{"user":{}}', "invalid-json", None),
    (b'{"user":{}}\x00', "invalid-json", None),
]


@pytest.mark.parametrize("body,slug,pointer", JSON, ids=[row[0][:50].decode(errors="backslashreplace") for row in JSON])
def test_json(daemon, body, slug, pointer):
    answer = daemon.post("/recall", body)
    if slug is None:
        assert answer.status == 200, answer.body
        return
    assert answer.status == 400
    assert answer.json["type"] == f"urn:recalld:problem:{slug}" and answer.json.get("pointer") == pointer, answer.body


def test_ids_are_strings_or_integers_alike(daemon):
    assert daemon.post("/recall", b'{"user":{"user_id":7}}').body == daemon.post("/recall", b'{"user":{"user_id":"7"}}').body
    assert daemon.post("/similar", b'{"item":7}').body == daemon.post("/similar", b'{"item":"7"}').body


def test_numbers_of_added_items_are_float32(daemon):
    for price in (b"1e39", b'"1e39"', b"-1e39"):
        answer = daemon.post("/items", b'{"items":[{"id":"big","features":{"price":' + price + b"}}]}")
        assert answer.status == 400 and answer.json["pointer"] == "/items/0/features/price", answer.body
