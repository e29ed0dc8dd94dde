"""Bodies with Content-Encoding: gzip, and answers for clients that accept it."""

import gzip
import json
import zlib

import pytest

import harness

GZIP = {"Content-Encoding": "gzip"}
BODY = {"requests": [{"user": {"user_id": str(i)}, "k": 50} for i in range(20)]}


def packed(body):
    return gzip.compress(json.dumps(body).encode())


def expect_problem(answer, status, slug):
    assert answer.status == status and answer.json["type"] == "urn:recalld:problem:" + slug, answer.body


def test_packed_requests(server):
    connection = server.connect()
    for coding in ("gzip", "GZIP", "x-gzip"):
        answer = connection.call("POST", "/recall", packed(BODY), {"Content-Encoding": coding})
        assert answer.body == server.post("/recall", BODY).body and answer.status == 200
    assert connection.call("POST", "/recall", BODY, {"Content-Encoding": "identity"}).status == 200
    assert connection.call("POST", "/similar", packed({"item": "7"}), GZIP).body == server.post("/similar", {"item": "7"}).body
    connection.close()


def test_bombs(serve, world):
    daemon = serve(world.model_a, "--set", "limits.body=64KiB", "--workers", 1)
    connection = daemon.connect()
    bomb = zlib.compressobj(9, wbits=31)
    text = bomb.compress(b" " * 50_000_000) + bomb.flush()
    assert len(text) < 65536
    before = harness.metric(daemon.get("/metrics").body.decode(), "recalld_process_resident_memory_bytes")
    for _ in range(50):
        expect_problem(connection.call("POST", "/recall", text, GZIP), 413, "body-too-large")
    fits = json.dumps({"user": {"user_id": "1"}}).encode()
    fits += b" " * (65536 - len(fits))
    assert connection.call("POST", "/recall", gzip.compress(fits), GZIP).status == 200
    expect_problem(connection.call("POST", "/recall", gzip.compress(fits + b" "), GZIP), 413, "body-too-large")
    after = harness.metric(daemon.get("/metrics").body.decode(), "recalld_process_resident_memory_bytes")
    assert harness.SANITIZED or after - before < 4_000_000
    connection.close()


def test_damaged_streams(server):
    connection = server.connect()
    good = packed(BODY)
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 4
    for text in (b"", b"{}", good[:-1], good[:20], bytes(flipped), good + b"x", good + good, zlib.compress(b"{}")):
        expect_problem(connection.call("POST", "/recall", text, GZIP), 400, "invalid-content-coding")
    expect_problem(connection.call("POST", "/recall", gzip.compress(b""), GZIP), 400, "invalid-json")
    expect_problem(connection.call("POST", "/recall", gzip.compress(b"{"), GZIP), 400, "invalid-json")
    connection.close()


def test_other_codings(server, serve, world):
    for coding in ("br", "gzip, gzip", "deflate", "zstd"):
        answer = server.call("POST", "/recall", packed(BODY), {"Content-Encoding": coding})
        expect_problem(answer, 415, "unsupported-media-type")
        assert answer.headers["Accept-Encoding"] == "gzip"
    daemon = serve(world.model_a, "--set", "gzip.requests=false")
    answer = daemon.call("POST", "/recall", packed(BODY), GZIP)
    expect_problem(answer, 415, "unsupported-media-type")
    assert answer.headers["Accept-Encoding"] == "identity"


def test_answers_are_not_packed_unless_set(server):
    answer = server.call("POST", "/recall", BODY, {"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in answer.headers and answer.json["results"]


def test_packed_answers(serve, world, server):
    daemon = serve(world.model_a, "--set", "gzip.responses=true")
    connection = daemon.connect()
    plain = server.post("/recall", BODY).body
    for _ in range(3):
        answer = connection.call("POST", "/recall", BODY, {"Accept-Encoding": "br;q=1, gzip;q=0.5"})
        assert answer.headers["Content-Encoding"] == "gzip" and answer.headers["Vary"] == "Accept-Encoding"
        assert len(answer.body) < len(plain) / 2 and gzip.decompress(answer.body) == plain
    answer = connection.call("POST", "/recall", BODY, {"Accept-Encoding": "gzip;q=0"})
    assert answer.body == plain and answer.headers["Vary"] == "Accept-Encoding"
    assert "Content-Encoding" not in answer.headers
    answer = connection.call("GET", "/metrics", headers={"Accept-Encoding": "gzip"})
    assert b"recalld_ready 1" in gzip.decompress(answer.body)
    head = connection.call("HEAD", "/metrics", headers={"Accept-Encoding": "gzip"})
    assert head.headers["Content-Encoding"] == "gzip" and head.body == b"" and int(head.headers["Content-Length"]) > 100
    small = connection.call("GET", "/readyz", headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in small.headers and small.json == {"status": "ready"}
    problem = connection.call("POST", "/recall", {"user": {}, "x" * 2000: 1}, {"Accept-Encoding": "gzip"})
    assert problem.status == 400 and "Content-Encoding" not in problem.headers
    connection.close()


@pytest.mark.parametrize("size", [1, 999])
def test_packed_requests_wait_in_the_window(serve, world, server, size):
    """What a body was unpacked to lives until its answer."""
    daemon = serve(world.model_a, "--workers", 1, "--set", "batch_window_us=20000")
    body = {"user": {"user_id": "1"}, "exclude": ["x" * size], "k": 3}
    connections = [daemon.connect() for _ in range(8)]
    for connection in connections:
        connection.request("POST", "/recall", packed(body), GZIP)
    ids = [item["id"] for item in server.post("/recall", body).json["items"]]
    for connection in connections:
        answer = json.loads(connection.getresponse().read())
        assert [item["id"] for item in answer["items"]] == ids
        connection.close()
