"""SIGHUP: a new bundle replaces the old one between two requests; a bad one changes nothing but what is reported."""

import json
import shutil
import threading
import time

import pytest

import harness

BODY = json.dumps({"user": {"user_id": "1"}, "k": 50})


def expected_answers(serve, world):
    """What each model answers to BODY, by version."""
    answers = {}
    for model in (world.model_a, world.model_b):
        daemon = serve(model)
        answers[model.name] = daemon.post("/recall", BODY).body
    return answers


class Load(harness.Askers):
    """Threads that ask without a pause, and remember everything that is not one model's whole answer."""

    def __init__(self, daemon, answers, threads=4):
        super().__init__(threads)
        self.daemon, self.answers = daemon, answers
        self.wrong, self.counts = [], {name: 0 for name in answers}

    def ask(self):
        connection = self.daemon.connect()
        while not self.stop.is_set():
            try:
                answer = connection.call("POST", "/recall", BODY)
            except OSError as error:
                self.wrong.append(repr(error))
                return
            version = answer.json.get("model")
            if answer.status != 200 or self.answers.get(version) != answer.body:
                self.wrong.append(answer.body)
            else:
                self.counts[version] += 1
        connection.close()


def test_a_reload_serves_the_new_model(serve, world, link):
    link.point(world.model_a)
    daemon = serve(link)
    assert daemon.get("/model").json["model"] == world.model_a.name
    link.point(world.model_b)
    after = daemon.reload()
    assert after["reload"]["failed"] == 0 and after["reload"]["last_error"] is None
    harness.wait_for(lambda: daemon.get("/model").json["model"] == world.model_b.name, "the new model")
    assert daemon.post("/recall", BODY).json["model"] == world.model_b.name
    assert daemon.get("/model").json["directory"] == str(world.model_b)


def test_reloads_under_load(serve, world, link):
    answers = expected_answers(serve, world)
    link.point(world.model_a)
    daemon = serve(link, "--workers", 2)
    with Load(daemon, answers) as load:
        for turn in range(12):
            link.point(world.model_b if turn % 2 == 0 else world.model_a)
            daemon.reload()
            time.sleep(0.05)
    assert load.wrong == []
    assert all(count > 0 for count in load.counts.values()), load.counts
    assert daemon.get("/model").json["reload"]["ok"] == 13


def test_many_signals_become_few_loads(serve, world, link):
    link.point(world.model_a)
    daemon = serve(link)
    for _ in range(50):
        daemon.hup()
    link.point(world.model_b)
    daemon.hup()
    harness.wait_for(lambda: daemon.get("/model").json["model"] == world.model_b.name, "the last publication")
    harness.wait_for(lambda: not daemon.reload_state()["running"], "the end of the loads")
    assert 2 <= daemon.reload_state()["ok"] <= 53


def files_of(bundle):
    return sorted(path.relative_to(bundle) for path in bundle.rglob("*") if path.is_file() and path.stat().st_size)


def damage(path, how):
    data = bytearray(path.read_bytes())
    if how == "flipped":
        data[len(data) * 2 // 3] ^= 16
        path.write_bytes(data)
    elif how == "cut":
        path.write_bytes(data[:len(data) * 2 // 3])
    else:
        path.unlink()


def test_damaged_bundles_are_refused_under_load(serve, world, link):
    answers = expected_answers(serve, world)
    link.point(world.model_a)
    daemon = serve(link, "--workers", 2)
    refused = 0
    with Load(daemon, answers, threads=2) as load:
        for name in files_of(world.model_b):
            for how in ("flipped", "cut", "gone"):
                copy = link.copy(world.model_b, "bad")
                damage(copy / name, how)
                link.point(copy)
                state = daemon.reload()["reload"]
                refused += 1
                assert state["failed"] == refused, (name, how)
                assert name.name in state["last_error"], (name, how, state)
    assert load.wrong == []
    assert daemon.get("/model").json["model"] == world.model_a.name
    assert daemon.get("/readyz").status == 200
    text = daemon.get("/metrics").body.decode()
    assert harness.metric(text, 'recalld_reloads_total{result="failed"}') == refused
    assert harness.metric(text, "recalld_last_reload_successful") == 0
    assert "the old model keeps serving" in daemon.log
    link.point(world.model_b)
    assert daemon.reload()["reload"]["last_error"] is None


@pytest.mark.parametrize("name", ["weights.safetensors", "items/vectors.f32", "items/ids.strings", "index/native.index"])
def test_a_file_of_another_bundle_is_refused(serve, world, link, name):
    link.point(world.model_a)
    daemon = serve(link)
    mixed = link.copy(world.model_a, "mixed")
    shutil.copy(world.model_b / name, mixed / name)
    if (mixed / name).read_bytes() == (world.model_a / name).read_bytes():
        pytest.skip("both models have the same")
    link.point(mixed)
    state = daemon.reload()["reload"]
    assert state["failed"] == 1 and name in state["last_error"]


def test_no_bundle_at_all(serve, world, link):
    link.point(world.model_a)
    daemon = serve(link)
    for target in (link.directory / "nowhere", link.directory, "/dev/null"):
        link.point(target)
        assert daemon.reload()["reload"]["last_error"]
    assert daemon.post("/recall", BODY).status == 200


def test_files_cut_while_they_are_loaded(serve, world, link):
    """Somebody truncates a bundle in place at the worst moments: loads may fail, the daemon may not."""
    link.point(world.model_a)
    # an interrupted load is leaked, and says so (server/reload.c)
    daemon = serve(link, env=harness.sanitizer_option("ASAN_OPTIONS", "detect_leaks=0"))
    name = next(name for name in files_of(world.model_b) if name.name == "vectors.f32")
    for turn in range(40):
        copy = link.copy(world.model_b, f"cut{turn % 2}")
        link.point(copy)
        daemon.hup()
        time.sleep(turn * 0.0005)
        with open(copy / name, "r+b") as file:
            file.truncate(1000)
        link.point(world.model_a)
        daemon.reload()
        harness.wait_for(lambda: not daemon.reload_state()["running"], "the load")
        if daemon.get("/model").json["model"] != world.model_a.name:
            daemon.reload()
        assert daemon.process.poll() is None
    assert daemon.post("/recall", BODY).status == 200


def test_readiness_never_flaps(serve, world, link):
    link.point(world.model_a)
    daemon = serve(link)
    seen, stop = set(), threading.Event()

    def probe():
        connection = daemon.connect()
        while not stop.is_set():
            seen.add(connection.call("GET", "/readyz").status)
        connection.close()

    thread = threading.Thread(target=probe)
    thread.start()
    for turn in range(6):
        link.point(world.model_b if turn % 2 else world.directory / "nowhere")
        daemon.reload()
    stop.set()
    thread.join()
    assert seen == {200}


@pytest.mark.skipif(harness.SANITIZED, reason="sanitizers keep what was freed")
def test_memory_stays_flat_over_reloads(serve, world, link):
    link.point(world.model_a)
    daemon = serve(link)

    def resident():
        return harness.metric(daemon.get("/metrics").body.decode(), "recalld_process_resident_memory_bytes")

    for _ in range(20):
        daemon.reload()
    before = resident()
    for _ in range(60):
        daemon.reload()
    assert resident() < before * 1.3 + (8 << 20)
