"""Bearer tokens: who gets an answer, who is told 401 or 403, and how the files are checked and read anew."""

import pytest

import harness

BODY = {"user": {"user_id": "1"}, "k": 5}
PUBLIC, OTHER, ADMIN = "public-token-0001", "public-token-0002", "admin-token-00001"


def bearer(token, scheme="Bearer"):
    return {"Authorization": f"{scheme} {token}"}


@pytest.fixture
def files(tmp_path):
    """Writes the files of tokens; returns their paths as options."""

    def write(public=PUBLIC, admin=ADMIN, mode=0o600):
        options = []
        for key, text in (("tokens", public), ("admin.tokens", admin)):
            if text is not None:
                path = tmp_path / key
                path.write_text(text + "\n")
                path.chmod(mode)
                options += ["--set", f"{key}={path}"]
        return options

    return write


def expect_401(answer, error=""):
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="recalld"' + error
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json["type"] == "urn:recalld:problem:unauthorized" and answer.json["status"] == 401


def test_who_may_ask_for_what(serve, world, files):
    daemon = serve(world.model_a, *files(f"# two\n{PUBLIC}\n{OTHER}"))
    for path in ("/recall", "/similar", "/score", "/embed", "/items"):
        expect_401(daemon.post(path, BODY))
        expect_401(daemon.post(path, BODY, headers=bearer("not-a-token-at-all")), ', error="invalid_token"')
        expect_401(daemon.post(path, BODY, headers=bearer(PUBLIC + "x")), ', error="invalid_token"')
        expect_401(daemon.post(path, BODY, headers=bearer("x" * 5000)), ', error="invalid_token"')
        expect_401(daemon.post(path, BODY, headers=bearer("")), "")
        expect_401(daemon.post(path, BODY, headers=bearer(PUBLIC, "Basic")))
    for token in (PUBLIC, OTHER, ADMIN):
        assert daemon.post("/recall", BODY, headers=bearer(token)).status == 200
    assert daemon.post("/recall", BODY, headers=bearer(PUBLIC, "bEARER ")).status == 200
    for path in ("/metrics", "/model"):
        expect_401(daemon.get(path))
        answer = daemon.get(path, headers=bearer(PUBLIC))
        assert answer.status == 403 and answer.json["type"] == "urn:recalld:problem:forbidden"
        assert daemon.get(path, headers=bearer(ADMIN)).status == 200
    assert daemon.call("DELETE", "/items/1", headers=bearer(PUBLIC)).status == 403
    assert daemon.call("DELETE", "/items/1").status == 401
    assert daemon.call("DELETE", "/items/1", headers=bearer(ADMIN)).status == 200
    for path in ("/healthz", "/readyz"):
        assert daemon.get(path).status == 200
        assert daemon.get(path, headers=bearer("wrong")).status == 200
    assert daemon.get("/recall").status == 401 and daemon.get("/recall", headers=bearer(PUBLIC)).status == 405
    assert PUBLIC not in daemon.log and ADMIN not in daemon.log


def test_the_connection_stays_usable(serve, world, files):
    daemon = serve(world.model_a, *files())
    connection = daemon.connect()
    expect_401(connection.call("POST", "/recall", BODY))
    assert connection.call("POST", "/recall", BODY, bearer(PUBLIC)).status == 200
    connection.close()


def test_only_admin_tokens(serve, world, files):
    daemon = serve(world.model_a, *files(public=None))
    assert daemon.post("/recall", BODY).status == 200
    expect_401(daemon.get("/model"))
    assert daemon.get("/model", headers=bearer(ADMIN)).status == 200


def test_tokens_are_read_anew(serve, world, files):
    daemon = serve(world.model_a, *files(), "--workers", 2)
    daemon.headers = bearer(ADMIN)
    files(public=OTHER)
    assert daemon.reload()["reload"]["failed"] == 0
    assert {daemon.post("/recall", BODY, headers=bearer(PUBLIC)).status for _ in range(40)} == {401}
    assert {daemon.post("/recall", BODY, headers=bearer(OTHER)).status for _ in range(40)} == {200}


@pytest.mark.parametrize("options,what", [
    ({"public": ""}, "has no token"), ({"public": "short"}, ":1: a token must have"),
    ({"public": "a token of words"}, "letters, digits"), ({"mode": 0o644}, "lets others read"),
], ids=["empty", "short", "malformed", "readable"])
def test_a_bad_file_is_refused(serve, world, files, tmp_path, options, what):
    arguments = files(**options)
    check = harness.run(harness.RECALLD, "--bundle", world.model_a, *arguments, "-t", check=False)
    assert check.returncode == 1 and what in check.stderr and str(tmp_path / "tokens") in check.stderr
    started = harness.run(harness.RECALLD, "--bundle", world.model_a, "--listen", "127.0.0.1:0", *arguments, check=False)
    assert started.returncode == 1 and what in started.stderr
    daemon = serve(world.model_a, *files())
    daemon.headers = bearer(ADMIN)
    files(**options)
    state = daemon.reload()["reload"]
    assert state["failed"] == 1 and what in state["last_error"] and "tokens" in state["last_error"]
    assert daemon.post("/recall", BODY, headers=bearer(PUBLIC)).status == 200
    assert daemon.post("/recall", BODY, headers=bearer("wrong")).status == 401
    (tmp_path / "tokens").unlink()
    assert "No such file" in daemon.reload()["reload"]["last_error"]


def test_admin_paths_open_to_the_network_must_be_meant(start, world, files):
    public = ["--bundle", world.model_a, "--listen", "127.0.0.1:0", "--set", "admin.listen=0.0.0.0:0"]
    for more in ([], ["-t"], files(admin=None)):
        done = harness.run(harness.RECALLD, *public, *more, check=False)
        assert done.returncode == 1 and "admin.without_tokens" in done.stderr, done.stderr
    for more in (["--set", "admin.without_tokens=true"], files(public=None)):
        start(*public, *more)


def test_tokens_beside_open_admin_paths_must_be_meant(start, world, files):
    arguments = ["--bundle", world.model_a, "--listen", "127.0.0.1:0", *files(admin=None)]
    done = harness.run(harness.RECALLD, *arguments, check=False)
    assert done.returncode == 1 and "admin.tokens" in done.stderr
    daemon = start(*arguments, "--set", "admin.without_tokens=true")
    assert daemon.get("/model").status == 200 and daemon.post("/recall", BODY).status == 401
    start(*arguments, "--set", "admin.listen=127.0.0.1:0")


def test_what_is_not_allowed_waits_for_nothing(serve, world, files):
    """A long batch without a token is neither queued nor counted as refused for want of room, nor unpacked."""
    daemon = serve(world.model_a, *files(), "--workers", 1, "--set", "limits.batch=1000", "--set", "limits.slow_queue=1")
    body = {"requests": [{"user": {"user_id": str(i)}, "k": 100} for i in range(1000)]}
    for headers in ({}, {"Content-Encoding": "gzip"}):
        for _ in range(5):
            expect_401(daemon.post("/recall", body, headers=headers))
    expect_401(daemon.post("/score", {"user": {}, "items": ["1"]}))
    expect_401(daemon.post("/items", {"items": [{"id": "x"}] * 1000}))
    text = daemon.get("/metrics", headers=bearer(ADMIN)).body.decode()
    assert harness.metric(text, "recalld_slow_requests_total") == 0 and harness.metric(text, "recalld_shed_requests_total") == 0
    answer = daemon.post("/recall", body, headers=bearer(PUBLIC))
    assert answer.status == 200 and len(answer.json["results"]) == 1000
    assert daemon.post("/score", {"user": {"user_id": "1"}, "items": ["1"]}, headers=bearer(PUBLIC)).status == 200
    assert harness.metric(daemon.get("/metrics", headers=bearer(ADMIN)).body.decode(), "recalld_slow_requests_total") == 1
