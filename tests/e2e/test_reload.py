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


# --- the configuration ----------------------------------------------------------------------------------------------------


class Configuration:
    """A configuration file that a test changes."""

    def __init__(self, path, bundle):
        self.path, self.bundle = path, bundle

    def write(self, limits="", more="", log="info", bundle=None):
        self.path.write_text(f"listen: 127.0.0.1:0\nlog: {{level: {log}}}\n"
                             f"models: {{default: {{path: {bundle or self.bundle}}}}}\nlimits: {{{limits}}}\n{more}")


@pytest.fixture
def configured(start, world, tmp_path):
    configuration = Configuration(tmp_path / "recalld.yaml", world.model_a)
    configuration.write("k: 20")

    def run(*arguments):
        return configuration, start("-c", configuration.path, "--workers", 2, *arguments)

    return run


def ask(daemon, k):
    return daemon.post("/recall", {"user": {"user_id": "1"}, "k": k})


def ask_both(daemon, k):
    """Enough new connections that each worker answered some."""
    return {ask(daemon, k).status for _ in range(40)}


def test_limits_are_reloaded(configured):
    configuration, daemon = configured()
    assert ask_both(daemon, 21) == {400}
    configuration.write("k: 30, effort: 50, list: 7, exclude: 3")
    daemon.reload()
    assert ask_both(daemon, 30) == {200}
    answer = ask(daemon, 31)
    assert answer.status == 400 and "30" in answer.json["detail"]
    body = {"user": {"user_id": "1"}, "exclude": ["1", "2", "3", "4"]}
    assert daemon.post("/recall", body).json["pointer"] == "/exclude"
    configuration.write("k: 5")
    daemon.reload()
    assert ask_both(daemon, 6) == {400} and ask_both(daemon, 5) == {200}


def test_timeouts_are_reloaded_for_open_connections_too(configured):
    configuration, daemon = configured()
    idle = daemon.connect()
    idle.connect()
    assert idle.call("GET", "/healthz").status == 200
    configuration.write("idle_timeout: 200ms")
    daemon.reload()
    assert idle.sock.recv(1) == b""
    idle.close()


def test_the_bundle_path_and_the_log_level_are_reloaded(configured, world):
    configuration, daemon = configured()
    configuration.write(bundle=world.model_b, log="error")
    model = daemon.reload()
    assert model["model"] == world.model_b.name and model["path"] == str(world.model_b)
    assert f"model {world.model_b.name}" not in daemon.log
    configuration.write(bundle=world.model_a, log="info")
    daemon.reload()
    assert f"model {world.model_a.name}" in daemon.log


def test_what_needs_a_restart_is_named(configured):
    configuration, daemon = configured()
    assert daemon.get("/model").json["configuration"]["needs_restart"] == []
    configuration.write("head: 2KiB, batch: 3, k: 40", "batch_window_us: 5\nadmin: {listen: 127.0.0.1:0}\n")
    names = ["admin.listen", "batch_window_us", "limits.batch", "limits.head"]
    assert sorted(daemon.reload()["configuration"]["needs_restart"]) == names
    line = next(line for line in daemon.log.splitlines() if "in force after a restart" in line)
    assert sorted(line.split(": ")[1].split(", ")) == names
    assert ask_both(daemon, 40) == {200}
    body = {"requests": [{"user": {"user_id": "1"}}] * 4}
    assert daemon.post("/recall", body).status == 200
    configuration.write()
    assert daemon.reload()["configuration"]["needs_restart"] == []


@pytest.mark.parametrize("text", ["limits: {k: 0}\n", "listne: x\n", "{", ""], ids=repr)
def test_a_bad_file_is_refused_and_nothing_changes(configured, text):
    configuration, daemon = configured()
    configuration.path.write_text(text)
    if text == "":
        configuration.path.unlink()
    model = daemon.reload()
    state = model["reload"]
    assert state["failed"] == 1 and state["ok"] == 1 and "recalld.yaml" in state["last_error"]
    assert "SIGHUP refused, nothing has changed" in daemon.log
    assert ask_both(daemon, 20) == {200} and ask_both(daemon, 21) == {400}
    assert harness.metric(daemon.get("/metrics").body.decode(), "recalld_last_reload_successful") == 0
    configuration.write("k: 25")
    assert daemon.reload()["reload"]["last_error"] is None
    assert ask_both(daemon, 25) == {200}


def test_settings_of_the_command_line_stay(configured):
    configuration, daemon = configured("--set", "limits.k=11")
    configuration.write("k: 40")
    daemon.reload()
    assert ask_both(daemon, 11) == {200} and ask_both(daemon, 12) == {400}


class IdLoad(Load):
    """The same, but of the answers only the ids are compared: gathered requests have scores of other last bits."""

    def ask(self):
        ids = [item["id"] for item in json.loads(next(iter(self.answers.values())))["items"]]
        while not self.stop.is_set():
            answer = self.daemon.post("/recall", BODY)
            if answer.status != 200 or [item["id"] for item in answer.json["items"]] != ids:
                self.wrong.append(answer.body)


@pytest.mark.parametrize("window,load", [([], Load), (["--set", "batch_window_us=200"], IdLoad)], ids=["alone", "gathered"])
def test_settings_change_under_load(serve, world, start, tmp_path, window, load):
    answers = expected_answers(serve, world)
    configuration = Configuration(tmp_path / "recalld.yaml", world.model_a)
    configuration.write("exclude: 100, k: 1000")
    daemon = start("-c", configuration.path, "--workers", 2, *window)
    with load(daemon, answers) as asking:
        for turn in range(30):
            configuration.write(f"exclude: {turn % 3 * 1000}, k: {100 + turn % 4 * 500}, request_timeout: {1 + turn % 2}s")
            daemon.reload()
    assert asking.wrong == []


class SlowLoad(harness.Askers):
    """Requests of one user, and batches, which are computed on the slow lane: each is answered whole, or refused with 503."""

    def __init__(self, daemon, bodies, threads=2):
        super().__init__(threads * len(bodies))
        self.daemon, self.bodies = daemon, bodies * threads
        self.wrong, self.counts = [], {}

    def ask(self):
        body = self.bodies.pop()
        users = len(body.get("requests", [body]))
        text = json.dumps(body)
        connection = self.daemon.connect()
        while not self.stop.is_set():
            answer = connection.call("POST", "/recall", text)
            if answer.status == 200 and len(answer.json.get("results", [answer.json])) == users:
                self.counts[users] = self.counts.get(users, 0) + 1
            elif answer.status != 503:
                self.wrong.append(answer.body[:500])
        connection.close()


def test_settings_change_while_slow_lanes_compute(start, world, tmp_path):
    users = 100 if harness.SANITIZED else 1000
    one = {"user": {"user_id": "1"}, "exclude": ["1", "2"], "k": 100}
    many = {"requests": [{**one, "user": {"user_id": str(i)}} for i in range(users)]}
    configuration = Configuration(tmp_path / "recalld.yaml", world.model_a)
    configuration.write(f"batch: {users}")
    daemon = start("-c", configuration.path, "--workers", 2)
    with SlowLoad(daemon, [one, many]) as load:
        for turn in range(30):
            limits = [f"batch: {users}", f"exclude: {2 + turn % 3 * 1000}", f"k: {100 + turn % 4 * 500}",
                      f"list: {100 + turn}", f"queue: {1 + turn % 3}", f"slow_queue: {1 + turn % 2}", f"timeout: {10 + turn % 2}s"]
            configuration.write(", ".join(limits), f"timeout: {8 + turn % 2}s\ndegrade: {{wait: {1 + turn % 5}ms, recall: 0.{5 + turn % 5}}}\n"
                                                   f"gzip: {{responses: {str(turn % 2 == 0).lower()}}}\n",
                                bundle=world.model_b if turn % 4 == 3 else world.model_a)
            assert daemon.reload()["reload"]["last_error"] is None
    assert load.wrong == []
    assert load.counts.get(1, 0) > 0 and load.counts.get(users, 0) > 0, load.counts
    assert harness.metric(daemon.get("/metrics").body.decode(), "recalld_slow_requests_total") > 0


def test_slow_lanes_go_by_new_limits(start, world, tmp_path):
    """A lane that has begun, and one that has not, go by the new limits."""
    configuration = Configuration(tmp_path / "recalld.yaml", world.model_a)
    configuration.write("batch: 1000, timeout: 5s")
    daemon = start("-c", configuration.path, "--workers", 1)
    body = {"requests": [{"user": {"user_id": str(i)}, "k": 40} for i in range(1000)], "timeout_ms": 4000}
    for most in (39, 40, 38):
        configuration.write(f"batch: 1000, timeout: 4s, k: {most}")
        daemon.reload()
        answer = daemon.post("/recall", body)
        assert answer.status == (200 if most == 40 else 400), answer.body[:200]
    configuration.write("batch: 1000, timeout: 3s")
    daemon.reload()
    assert daemon.post("/recall", body).json["pointer"] == "/timeout_ms"
