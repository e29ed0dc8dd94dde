"""The access log: what a line says, rotation, and files that take no more."""

import json
import os
import re
import resource
import signal

import pytest

import harness

ID = "4bf92f3577b34da6a3ce929d0e0e4736"


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def dropped(daemon):
    return harness.metric(daemon.get("/metrics").body.decode(), "recalld_access_log_dropped_total")


@pytest.fixture
def logged(serve, world, tmp_path):
    def logged(*more, path=tmp_path / "access.log", **options):
        return serve(world.model_a, "--set", f"access_log.path={path}", *more, **options)

    return logged


def test_what_a_line_says(logged, tmp_path):
    daemon = logged("--workers", 1)  # lines of one worker are in order
    good = daemon.post("/recall", {"user": {"user_id": "1"}, "k": 3}, headers={"traceparent": f"00-{ID}-00f067aa0ba902b7-01"})
    daemon.post("/recall", {"requests": [{"user": {}, "k": 2}, {"user": {}, "k": 5}]})
    daemon.post("/recall", {"user": {}, "k": 0})
    daemon.call("GET", "/a%22%0a%ff%5c" + "x" * 2000)
    mine = lambda: [line for line in lines(tmp_path / "access.log") if line.get("path") != "/readyz"]
    one, batch, bad, hostile = harness.wait_for(lambda: len(mine()) == 4 and mine(), "four lines")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", one["time"])
    assert one["client"].startswith("127.0.0.1:") and (one["method"], one["path"], one["status"]) == ("POST", "/recall", 200)
    assert one["bytes"] == len(good.body) and one["duration_us"] > 0 and one["wait_us"] >= 0
    assert one["model"] == good.json["model"] and one["strategy"] == good.json["strategy"]
    assert (one["users"], one["k"], one["degraded"], one["trace_id"]) == (1, 3, False, ID)
    assert "error" not in one
    assert (batch["users"], batch["k"]) == (2, 5)
    assert (bad["status"], bad["error"]) == (400, "invalid-field") and "model" not in bad
    assert hostile["path"].startswith('/a"\n\ufffd\\x') and len(hostile["path"]) == 512 and hostile["error"] == "not-found"


def test_the_sample_has_all_errors(logged, tmp_path):
    daemon = logged("--set", "access_log.sample=0")
    for _ in range(20):
        assert daemon.post("/recall", {"user": {}}).status == 200
        assert daemon.post("/recall", {}).status == 400
    daemon.stop()
    assert [line["status"] for line in lines(tmp_path / "access.log") if line["path"] == "/recall" and line["duration_us"] < 500000] == [400] * 20


def test_rotation_loses_no_line(logged, tmp_path):
    daemon = logged()
    path = tmp_path / "access.log"
    sent = []

    class Asker(harness.Askers):
        def ask(self):
            connection = daemon.connect()
            while not self.stop.is_set():
                answer = connection.call("POST", "/recall", {"user": {"user_id": "1"}, "k": 1})
                sent.append(answer.headers["traceparent"].split("-")[1])

    rotated = []
    with Asker(3):
        for i in range(10):
            harness.wait_for(lambda: path.exists() and path.stat().st_size > 0, "lines")
            rotated.append(tmp_path / f"access.log.{i}")
            os.rename(path, rotated[-1])
            daemon.process.send_signal(signal.SIGUSR1)
            harness.wait_for(path.exists, "the new file")
    assert dropped(daemon) == 0
    daemon.stop()
    seen = [line["trace_id"] for file in [*rotated, path] for line in lines(file) if line["path"] == "/recall"]
    assert sorted(seen) == sorted(sent)


def test_a_full_disk(logged, tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, resource.RLIM_INFINITY))

    daemon = logged(preexec_fn=limit)
    path = tmp_path / "access.log"
    for _ in range(200):
        assert daemon.post("/recall", {"user": {}}).status == 200
    harness.wait_for(lambda: dropped(daemon) >= 100, "lost lines")  # what is left fits into another file
    assert "lines are dropped until it works again" in daemon.log
    os.rename(path, tmp_path / "full")
    daemon.process.send_signal(signal.SIGUSR1)
    harness.wait_for(path.exists, "the new file")
    daemon.get("/again")
    harness.wait_for(lambda: any(line["path"] == "/again" for line in lines(path)), "a line after that")


def test_dev_full_and_a_pipe_nobody_reads(logged):
    for path in "/dev/full", "-":
        daemon = logged(path=path)  # the harness does not read standard output any more
        connection = daemon.connect()
        for _ in range(2000):
            assert connection.call("GET", "/healthz").status == 200
        if path != "-":
            harness.wait_for(lambda: dropped(daemon) > 1000, "lost lines")
        daemon.stop()


def test_a_path_that_cannot_be(logged, tmp_path):
    with pytest.raises(AssertionError, match="access_log.path"):
        logged(path="relative.log")
    with pytest.raises(AssertionError, match="access_log.path"):
        logged(path=tmp_path / "missing" / "access.log")


def test_sigusr1_without_a_log(serve, world):
    daemon = serve(world.model_a)
    daemon.process.send_signal(signal.SIGUSR1)
    assert daemon.get("/healthz").status == 200
