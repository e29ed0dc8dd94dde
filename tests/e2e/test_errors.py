"""Every request that is refused: status, problem type, and the pointer of the field to blame."""

import json

import pytest

import harness

# path, body, status, type, pointer (None: none)
USER = {"user_id": "1"}
REFUSED = [
    ("/recall", b"", 400, "invalid-json", None),
    ("/recall", b"{", 400, "invalid-json", None),
    ("/recall", b"\xff\xfe", 400, "invalid-json", None),
    ("/recall", b'{"user":{},"user":{}}', 400, "invalid-json", None),
    ("/recall", b'{"user":{"age":NaN}}', 400, "invalid-json", None),
    ("/recall", b'{"user":{"age":1e999}}', 400, "invalid-json", None),
    ("/recall", b'{"user":{"age":Infinity}}', 400, "invalid-json", None),
    ("/recall", b'{"user":{},"k":123456789012345678901234567890}', 400, "invalid-json", None),
    ("/recall", b"[" * 100000, 400, "invalid-json", None),
    ("/recall", b'{"user":{"user_id":"\\ud800"}}', 400, "invalid-json", None),
    ("/recall", b'{"user":{"user_id":"\\u0000"}}', 400, "invalid-json", None),
    ("/recall", [], 400, "invalid-field", None),
    ("/recall", {}, 400, "missing-field", "/user"),
    ("/recall", {"k": 5}, 400, "missing-field", "/user"),
    ("/recall", {"user": "1"}, 400, "invalid-field", "/user"),
    ("/recall", {"user": None}, 400, "invalid-field", "/user"),
    ("/recall", {"user": {"shoe_size": 43}}, 400, "unknown-field", "/user/shoe_size"),
    ("/recall", {"user": {"a/b~c": 1}}, 400, "unknown-field", "/user/a~1b~0c"),
    ("/recall", {"user": {"age": "young"}}, 400, "invalid-field", "/user/age"),
    ("/recall", {"user": {"age": [1, 2]}}, 400, "invalid-field", "/user/age"),
    ("/recall", {"user": {"age": {"years": 3}}}, 400, "invalid-field", "/user/age"),
    ("/recall", {"user": {"user_id": 1.5}}, 400, "invalid-field", "/user/user_id"),
    ("/recall", {"user": {"user_id": ["1"]}}, 400, "invalid-field", "/user/user_id"),
    ("/recall", {"user": {"topics": ["a", {}]}}, 400, "invalid-field", "/user/topics/1"),
    ("/recall", {"user": {"history": ["1", 2.5]}}, 400, "invalid-field", "/user/history/1"),
    ("/recall", {"user": {"history": ["1"] * 10001}}, 400, "limit-exceeded", "/user/history"),
    ("/recall", {"user": USER, "k": 0}, 400, "invalid-field", "/k"),
    ("/recall", {"user": USER, "k": -5}, 400, "invalid-field", "/k"),
    ("/recall", {"user": USER, "k": 2.5}, 400, "invalid-field", "/k"),
    ("/recall", {"user": USER, "k": "10"}, 400, "invalid-field", "/k"),
    ("/recall", {"user": USER, "k": None}, 400, "invalid-field", "/k"),
    ("/recall", {"user": USER, "k": True}, 400, "invalid-field", "/k"),
    ("/recall", {"user": USER, "k": 1001}, 400, "limit-exceeded", "/k"),
    ("/recall", {"user": USER, "k": 2**62}, 400, "limit-exceeded", "/k"),
    ("/recall", {"user": USER, "exclude": "1"}, 400, "invalid-field", "/exclude"),
    ("/recall", {"user": USER, "exclude": ["1", None]}, 400, "invalid-field", "/exclude/1"),
    ("/recall", {"user": USER, "exclude": [1] * 100001}, 400, "limit-exceeded", "/exclude"),
    ("/recall", {"user": USER, "min_score": "high"}, 400, "invalid-field", "/min_score"),
    ("/recall", {"user": USER, "min_score": 1e300}, 400, "invalid-field", "/min_score"),
    ("/recall", {"user": USER, "search": []}, 400, "invalid-field", "/search"),
    ("/recall", {"user": USER, "search": {"effort": 0}}, 400, "invalid-field", "/search/effort"),
    ("/recall", {"user": USER, "search": {"effort": 10**9}}, 400, "limit-exceeded", "/search/effort"),
    ("/recall", {"user": USER, "search": {"exact": "yes"}}, 400, "invalid-field", "/search/exact"),
    ("/recall", {"user": USER, "search": {"recall": 0}}, 400, "invalid-field", "/search/recall"),
    ("/recall", {"user": USER, "search": {"recall": 1.01}}, 400, "invalid-field", "/search/recall"),
    ("/recall", {"user": USER, "search": {"recall": "0.9"}}, 400, "invalid-field", "/search/recall"),
    ("/recall", {"user": USER, "search": {"recall": 0.9, "effort": 3}}, 400, "invalid-field", "/search/recall"),
    ("/recall", {"user": USER, "search": {"recall": 0.9, "exact": True}}, 400, "invalid-field", "/search/recall"),
    ("/recall", {"user": USER, "search": {"nprobe": 3}}, 400, "unknown-field", "/search/nprobe"),
    ("/recall", {"user": USER, "fields": "category"}, 400, "invalid-field", "/fields"),
    ("/recall", {"user": USER, "fields": ["category", "colour"]}, 400, "invalid-field", "/fields/1"),
    ("/recall", {"user": USER, "max_per": 3}, 400, "invalid-field", "/max_per"),
    ("/recall", {"user": USER, "max_per": {"colour": 3}}, 400, "invalid-field", "/max_per/colour"),
    ("/recall", {"user": USER, "max_per": {"category": 0}}, 400, "invalid-field", "/max_per/category"),
    ("/recall", {"user": USER, "max_per": {"category": "3"}}, 400, "invalid-field", "/max_per/category"),
    ("/recall", {"user": USER, "max_per": {f"a{i}": 1 for i in range(9)}}, 400, "limit-exceeded", "/max_per"),
    ("/recall", {"requests": [{"user": USER, "max_per": {"x": 1}}]}, 400, "invalid-field", "/requests/0/max_per/x"),
    ("/similar", {"item": "1", "max_per": []}, 400, "invalid-field", "/max_per"),
    ("/score", {"user": USER, "items": [], "max_per": {}}, 400, "unknown-field", "/max_per"),
    ("/recall", {"user": USER, "item": "1"}, 400, "unknown-field", "/item"),
    ("/recall", {"requests": {}}, 400, "invalid-field", "/requests"),
    ("/recall", {"requests": []}, 400, "invalid-field", "/requests"),
    ("/recall", {"requests": [{"user": USER}] * 257}, 400, "limit-exceeded", "/requests"),
    ("/recall", {"requests": [{"user": USER}], "k": 3}, 400, "unknown-field", "/k"),
    ("/recall", {"requests": [{"user": USER}, 3]}, 400, "invalid-field", "/requests/1"),
    ("/recall", {"requests": [{"user": USER}, {"user": USER, "k": 0}]}, 400, "invalid-field", "/requests/1/k"),
    ("/recall", {"requests": [{"user": {"age": "x"}}]}, 400, "invalid-field", "/requests/0/user/age"),
    ("/recall", {"requests": [{"k": 1}]}, 400, "missing-field", "/requests/0/user"),
    ("/similar", {"k": 3}, 400, "missing-field", "/item"),
    ("/similar", {"item": {"id": "1"}}, 400, "invalid-field", "/item"),
    ("/similar", {"item": 1.5}, 400, "invalid-field", "/item"),
    ("/similar", {"item": "no such item"}, 404, "unknown-item", "/item"),
    ("/similar", {"item": 123456789}, 404, "unknown-item", "/item"),
    ("/similar", {"item": ""}, 404, "unknown-item", "/item"),
    ("/similar", {"item": "1", "k": 0}, 400, "invalid-field", "/k"),
    ("/similar", {"item": "1", "user": {}}, 400, "unknown-field", "/user"),
    ("/similar", {"item": "1", "requests": []}, 400, "unknown-field", "/requests"),
    ("/score", {"items": ["1"]}, 400, "missing-field", "/user"),
    ("/score", {"user": USER}, 400, "missing-field", "/items"),
    ("/score", {"user": USER, "items": "1"}, 400, "invalid-field", "/items"),
    ("/score", {"user": USER, "items": ["1", 2.5]}, 400, "invalid-field", "/items/1"),
    ("/score", {"user": USER, "items": [1] * 10001}, 400, "limit-exceeded", "/items"),
    ("/score", {"user": {"age": "x"}, "items": []}, 400, "invalid-field", "/user/age"),
    ("/score", {"user": USER, "items": [], "fields": ["colour"]}, 400, "invalid-field", "/fields/0"),
    ("/score", {"user": USER, "items": [], "k": 5}, 400, "unknown-field", "/k"),
    ("/score", {"requests": []}, 400, "unknown-field", "/requests"),
    ("/embed", {}, 400, "missing-field", None),
    ("/embed", {"user": {}, "item": {}}, 400, "invalid-field", None),
    ("/embed", {"user": {}, "k": 3}, 400, "unknown-field", "/k"),
    ("/embed", {"user": {"age": "x"}}, 400, "invalid-field", "/user/age"),
    ("/embed", {"item": {"price": "cheap"}}, 400, "invalid-field", "/item/price"),
    ("/embed", {"item": {"city": "x"}}, 400, "unknown-field", "/item/city"),
    ("/embed", {"item": "5"}, 400, "invalid-field", "/item"),
    ("/nowhere", {}, 404, "not-found", None),
    ("/recall/", {}, 404, "not-found", None),
    ("/", {}, 404, "not-found", None),
]


def check(answer, status, slug, pointer):
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json
    assert problem["type"] == f"urn:recalld:problem:{slug}", problem
    assert problem["status"] == status
    assert problem["title"] and problem["detail"]
    assert problem.get("pointer") == pointer, problem


def show(value):
    text = value.decode(errors="replace") if isinstance(value, bytes) else json.dumps(value)
    return text if len(text) < 60 else text[:57] + "..."


@pytest.mark.parametrize("path,body,status,slug,pointer", REFUSED, ids=[f"{r[0]} {show(r[1])}" for r in REFUSED])
def test_refused(server, path, body, status, slug, pointer):
    connection = server.connect()
    check(connection.call("POST", path, body), status, slug, pointer)
    after = connection.call("POST", "/recall", {"user": USER, "k": 3})  # the connection lives on
    connection.close()
    assert after.status == 200 and len(after.json["items"]) == 3


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"])
@pytest.mark.parametrize("path", ["/recall", "/similar", "/score", "/embed"])
def test_wrong_method_on_post(server, method, path):
    answer = server.call(method, path)
    assert answer.status == 405
    assert answer.headers["Allow"] == "POST"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/model"])
def test_wrong_method_on_get(server, path):
    answer = server.post(path, {})
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET, HEAD"
    check(answer, 405, "method-not-allowed", None)
    assert server.call("HEAD", path).status == 200


def test_body_over_the_limit(server):
    answer = server.post("/recall", b'{"user":{}}' + b" " * (1 << 20))
    check(answer, 413, "body-too-large", None)


def test_a_coded_body_is_refused(server):
    answer = server.post("/recall", b"\x1f\x8b", headers={"Content-Encoding": "br"})
    check(answer, 415, "unsupported-media-type", None)


def test_every_prefix_of_a_body_is_answered(server):
    whole = json.dumps({"user": {"user_id": "1", "topics": ["a", "b"]}, "k": 3, "exclude": ["1"], "fields": ["title"]})
    connection = server.connect()
    for n in range(len(whole)):
        assert connection.call("POST", "/recall", whole[:n]).status == 400
    assert connection.call("POST", "/recall", whole).status == 200
    connection.close()


def test_limits_come_from_the_configuration(serve, world):
    daemon = serve(world.model_a, "--set", "limits.k=10", "--set", "limits.batch=2", "--set", "limits.exclude=3",
                   "--set", "limits.list=2", "--set", "limits.effort=50", "--set", "limits.body=2KiB",
                   "--set", "limits.score=2")
    assert len(daemon.post("/recall", {"user": USER}).json["items"]) == 10  # the default k obeys the limit, too
    check(daemon.post("/recall", {"user": USER, "k": 11}), 400, "limit-exceeded", "/k")
    check(daemon.post("/recall", {"requests": [{"user": USER}] * 3}), 400, "limit-exceeded", "/requests")
    check(daemon.post("/recall", {"user": USER, "exclude": [1, 2, 3, 4]}), 400, "limit-exceeded", "/exclude")
    check(daemon.post("/recall", {"user": {"topics": ["a", "b", "c"]}}), 400, "limit-exceeded", "/user/topics")
    check(daemon.post("/recall", {"user": USER, "search": {"effort": 51}}), 400, "limit-exceeded", "/search/effort")
    check(daemon.post("/score", {"user": USER, "items": [1, 2, 3]}), 400, "limit-exceeded", "/items")
    assert daemon.post("/score", {"user": USER, "items": [1, 2]}).status == 200
    assert daemon.post("/recall", b" " * 2049).status == 413
    assert len(daemon.post("/recall", {"user": USER, "exclude": [1, 2, 3]}).json["items"]) == 10


def test_errors_are_counted(server):
    def count():
        return harness.metric(server.get("/metrics").body.decode(),
                              'recalld_http_responses_total{endpoint="/similar",code="404"}') or 0

    before = count()
    server.post("/similar", {"item": "no such item"})
    assert count() == before + 1
