"""More work than a worker can do: who waits, who is refused, what is computed less well or not at all, and that this is said.

A burst is made by stopping the daemon (SIGSTOP) while requests are sent: when it goes on, all of them are there at once.
"""

import json
import signal
import socket
import statistics
import threading
import time

import pytest

import harness

K = 1000
BATCH = 100 if harness.SANITIZED else 1000


def raw(body, path="/recall"):
    data = json.dumps(body).encode()
    return b"POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (path.encode(), len(data), data)


def ask(user=1, **more):
    return {"user": {"user_id": str(user)}, "k": K, **more}


def batch(users=BATCH, **more):
    return {"requests": [{"user": {"user_id": str(i)}, "k": K, **more} for i in range(users)]}


class Client:
    """One request on a connection of its own."""

    def __init__(self, daemon, body, path="/recall"):
        host, port = daemon.address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), harness.PATIENCE)
        self.socket.sendall(raw(body, path))

    def receive(self):
        data = b""
        while chunk := self.socket.recv(1 << 20):
            data += chunk
        self.socket.close()
        head, _, body = data.partition(b"\r\n\r\n")
        headers = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
        return harness.Answer(int(head.split()[1]), {k.decode(): v.decode() for k, v in headers.items()}, body)

    def go_away(self):
        self.socket.close()


class Stopped:
    """with Stopped(daemon): what is sent here arrives at once."""

    def __init__(self, daemon):
        self.process = daemon.process

    def __enter__(self):
        self.process.send_signal(signal.SIGSTOP)

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGCONT)


def burst(daemon, bodies):
    with Stopped(daemon):
        clients = [Client(daemon, body) for body in bodies]
    return [client.receive() for client in clients]


def count(daemon, name):
    return harness.metric(daemon.get("/metrics").body.decode(), f"recalld_{name}")


def problem(answer):
    return answer.json["type"].rsplit(":", 1)[1]


@pytest.fixture
def one(serve, world):
    """A worker, on few limits; more settings as key=value."""

    def start(*sets):
        more = [part for text in sets for part in ("--set", text)]
        return serve(world.model_a, "--workers", 1, "--set", f"limits.batch={BATCH}", "--set", "timeout=60s", *more)

    return start


# --- bounds ------------------------------------------------------------------------------------------------------------


def test_past_the_bound_requests_are_refused_at_once(one):
    daemon = one("limits.queue=4")
    answers = burst(daemon, [ask(user % 300) for user in range(200)])
    good = [answer for answer in answers if answer.status == 200]
    refused = [answer for answer in answers if answer.status == 503]
    assert len(good) + len(refused) == len(answers)
    assert len(good) >= 5 and len(refused) > 0
    for answer in refused:
        assert problem(answer) == "overloaded"
        assert int(answer.headers["Retry-After"]) >= 1
    assert all(len(answer.json["items"]) == K and answer.json["complete"] for answer in good)
    assert count(daemon, "shed_requests_total") == len(refused)
    assert count(daemon, "queue_length") == 0
    assert daemon.post("/recall", ask()).status == 200


def test_within_the_bound_all_are_answered(one, server):
    daemon = one("degrade.recall=1")
    answers = burst(daemon, [ask(user) for user in range(100)])
    for user, answer in enumerate(answers):
        assert answer.status == 200
        if user % 10 == 0:
            assert answer.json == server.post("/recall", ask(user)).json
    assert count(daemon, "shed_requests_total") == 0
    text = daemon.get("/metrics").body.decode()
    assert harness.metric(text, 'recalld_wait_seconds_count{lane="fast"}') == 100
    assert harness.metric(text, 'recalld_wait_seconds_sum{lane="fast"}') > 0


def test_the_slow_lane_is_bounded_too(one):
    daemon = one("limits.slow_queue=2")
    answers = burst(daemon, [batch() for _ in range(8)])
    statuses = [answer.status for answer in answers]
    assert statuses.count(200) >= 2 and statuses.count(503) >= 1 and len(set(statuses)) == 2
    assert all(problem(answer) == "overloaded" and answer.headers["Retry-After"] for answer in answers if answer.status == 503)
    assert count(daemon, "shed_requests_total") == statuses.count(503)
    assert count(daemon, "slow_requests_total") == statuses.count(200)
    assert count(daemon, "slow_queue_length") == 0


# --- fairness ----------------------------------------------------------------------------------------------------------


class Asker(harness.Askers):
    """Calls the same thing again and again, and notes how long each call took."""

    def __init__(self, daemon, method, path, body=None):
        super().__init__(1)
        self.daemon, self.call, self.seconds, self.wrong = daemon, (method, path, body), [], []

    def ask(self):
        connection = self.daemon.connect()
        while not self.stop.is_set():
            begin = time.monotonic()
            answer = connection.call(*self.call)
            self.seconds.append(time.monotonic() - begin)
            if answer.status != 200:
                self.wrong.append(answer.body)
            time.sleep(0.001)
        connection.close()


def test_a_batch_stalls_nobody(one):
    daemon = one()
    singles = Asker(daemon, "POST", "/recall", {"user": {"user_id": "1"}, "k": 10})
    health = Asker(daemon, "GET", "/healthz")
    with singles, health:
        begin = time.monotonic()
        for _ in range(5):
            assert daemon.post("/recall", batch()).status == 200
        a_batch = (time.monotonic() - begin) / 5
    assert not singles.wrong and not health.wrong
    assert count(daemon, "slow_requests_total") == 5
    if not harness.SANITIZED:
        # without the lane every call would take about as long as a batch; with it, what the machine's noise takes
        assert statistics.median(singles.seconds) < min(0.02, a_batch / 4)
        assert statistics.median(health.seconds) < min(0.02, a_batch / 4)


def test_many_busy_connections_stall_no_health_check(one):
    daemon = one("limits.queue=1000")
    stop = threading.Event()
    waits = []

    def hammer():
        connections = [socket.create_connection(tuple(daemon.address.rsplit(":", 1)), harness.PATIENCE) for _ in range(100)]
        request = raw(ask()).replace(b"Connection: close\r\n", b"")
        for connection in connections:
            connection.sendall(request)
        while not stop.is_set():
            for connection in connections:  # one answer, and the next request
                data = connection.recv(1 << 20)
                head, _, body = data.partition(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                while len(body) < length:
                    body += connection.recv(1 << 20)
                connection.sendall(request)
        for connection in connections:
            connection.close()

    hammering = threading.Thread(target=hammer)
    hammering.start()
    try:
        wait_from = time.monotonic()
        while time.monotonic() < wait_from + 2:
            begin = time.monotonic()
            assert daemon.get("/healthz").status == 200
            waits.append(time.monotonic() - begin)
            time.sleep(0.005)
    finally:
        stop.set()
        hammering.join()
    assert harness.SANITIZED or statistics.median(waits) < 0.05


# --- deadlines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value, slug", [(0, "invalid-field"), (-1, "invalid-field"), (1.5, "invalid-field"),
                                         ("5", "invalid-field"), (True, "invalid-field"), (None, "invalid-field"),
                                         (60001, "limit-exceeded"), (10**15, "limit-exceeded")])
def test_a_timeout_that_is_none(server, value, slug):
    for path, body in (("/recall", ask()), ("/recall", batch(2)), ("/similar", {"item": "7"}), ("/embed", {"user": {}})):
        answer = server.post(path, {**body, "timeout_ms": value})
        assert (answer.status, problem(answer), answer.json["pointer"]) == (400, slug, "/timeout_ms")


def test_a_timeout_of_a_request_in_a_batch_is_refused(server):
    body = batch(2)
    body["requests"][1]["timeout_ms"] = 100
    answer = server.post("/recall", body)
    assert (answer.status, answer.json["pointer"]) == (400, "/requests/1/timeout_ms")


def test_enough_time_changes_nothing(server):
    for path, body in (("/recall", ask()), ("/recall", batch(3)), ("/similar", {"item": "7"}), ("/embed", {"user": {}})):
        answer = server.post(path, {**body, "timeout_ms": 60000})
        assert answer.status == 200
        assert answer.json == server.post(path, body).json


def test_what_is_late_is_not_computed(one):
    daemon = one()
    bodies = [ask(user % 300, **({"timeout_ms": 1} if user % 2 else {})) for user in range(200)]
    answers = burst(daemon, bodies)
    late = [answer for answer in answers[1::2] if answer.status == 503]
    assert all(answer.status == 200 for answer in answers[::2])
    assert len(late) > 50
    assert all(problem(answer) == "deadline-exceeded" for answer in late)
    assert count(daemon, "late_requests_total") == len(late)
    assert count(daemon, "users_total") == len(answers) - len(late)


def test_the_configured_timeout(one):
    daemon = one("timeout=1ms")
    answers = burst(daemon, [ask(user % 300) for user in range(200)])
    statuses = [answer.status for answer in answers]
    assert statuses.count(503) > 50 and statuses.count(200) >= 1 and len(set(statuses)) == 2
    assert all(answer.status == 200 for answer in burst(daemon, [ask(user, timeout_ms=60000) for user in range(100)]))


def test_a_batch_ends_when_its_time_is_over(one):
    daemon = one()
    seconds = []
    for _ in range(3):
        begin = time.monotonic()
        assert daemon.post("/recall", batch()).status == 200
        seconds.append(time.monotonic() - begin)
    searches = lambda: count(daemon, "searches_ann_total") + count(daemon, "searches_exact_total")
    before = searches()
    answer = daemon.post("/recall", {**batch(), "timeout_ms": max(1, int(min(seconds) * 1000 / 5))})
    assert (answer.status, problem(answer)) == (503, "deadline-exceeded")
    assert searches() - before < BATCH
    assert count(daemon, "late_requests_total") == 1


# --- nobody waits any more -----------------------------------------------------------------------------------------------


def test_what_nobody_waits_for_is_not_computed(one):
    daemon = one()
    with Stopped(daemon):
        clients = [Client(daemon, ask(user % 300)) for user in range(200)]
        for client in clients[1::2]:
            client.go_away()
    assert all(client.receive().status == 200 for client in clients[::2])
    harness.wait_for(lambda: count(daemon, "queue_length") == 0, "the queue")
    dropped = count(daemon, "abandoned_requests_total")
    assert dropped > 0
    assert count(daemon, "users_total") == len(clients) - dropped


def test_a_batch_that_nobody_waits_for_ends(one):
    daemon = one()
    clients = [Client(daemon, batch()) for _ in range(20)]
    for client in clients[1:]:
        client.go_away()
    assert clients[0].receive().status == 200
    harness.wait_for(lambda: count(daemon, "abandoned_requests_total") + count(daemon, "users_total") / BATCH >= 20, "the end")
    assert count(daemon, "abandoned_requests_total") >= 15


# --- effort ------------------------------------------------------------------------------------------------------------


def small(count, *own):
    """Requests that the index answers; every tenth has one of `own`."""
    return [ask(user % 300, k=100, **(own[user // 10 % len(own)] if own and user % 10 == 0 else {})) for user in range(count)]


def efforts(answers):
    return [answer.json["effort"] for answer in answers if answer.json["degraded"]]


def test_effort_falls_while_requests_wait_and_comes_back(one):
    daemon = one("degrade.wait=1ms")
    usual = daemon.get("/model").json["index"]["effort"]
    answers = burst(daemon, small(600, {"search": {"effort": usual}}, {"search": {"recall": 0.97}}, {"search": {"exact": True}}))
    assert all(answer.status == 200 for answer in answers)
    degraded = [answer.json for answer in answers if answer.json["degraded"]]
    assert degraded and len(degraded) < len(answers)
    for answer in degraded:
        assert answer["reason"] == "overload" and 1 <= answer["effort"] < usual
        assert answer["complete"] and len(answer["items"]) == 100 and answer["strategy"] == "ann"
    assert not any(answer.json["degraded"] for answer in answers[::10])  # they said what they want
    assert count(daemon, "degraded_answers_total") == len(degraded)
    again = daemon.post("/recall", ask(k=10)).json
    assert again["degraded"] is False and "reason" not in again and "effort" not in again


def test_effort_has_a_floor(one, world):
    index = json.loads((world.model_a / "manifest.json").read_text())["index"]
    below = [point for point in index["curve"] if point["effort"] < index["effort"]]
    least = [min(efforts(burst(one("degrade.wait=1ms", f"degrade.recall={recall}"), small(600))))
             for recall in (0.01, below[-1]["recall_low"])]
    assert least == [below[0]["effort"], below[-1]["effort"]]


def test_effort_need_not_fall(one):
    daemon = one("degrade.wait=1ms", "degrade.recall=1")
    assert efforts(burst(daemon, small(600))) == []
    assert count(daemon, "degraded_answers_total") == 0


# --- the slow lane's answers --------------------------------------------------------------------------------------------


def test_a_large_batch_answers_as_its_requests_alone(one, server):
    daemon = one()
    body = {"requests": [{"user": {"user_id": str(i)}, "k": 20} for i in range(BATCH)]}
    results = daemon.post("/recall", body).json["results"]
    assert count(daemon, "slow_requests_total") == 1
    for request, result in list(zip(body["requests"], results))[::BATCH // 10]:
        alone = server.post("/recall", request).json
        assert [item["id"] for item in result["items"]] == [item["id"] for item in alone["items"]]
    wrong = batch()
    wrong["requests"][77]["k"] = 0
    answer = daemon.post("/recall", wrong)
    assert (answer.status, answer.json["pointer"]) == (400, "/requests/77/k")


def test_long_requests_of_one_user_are_answered_together(one):
    daemon = one("limits.k=100000")
    body = {"user": {"user_id": "3"}, "k": 100000, "search": {"exact": True}}
    alone = daemon.post("/recall", body)
    assert alone.status == 200 and len(alone.json["items"]) > K
    wrong = {"user": {"no such": 1}, "k": 100000, "search": {"exact": True}}
    answers = burst(daemon, [wrong if i == 5 else body for i in range(20)])
    assert [answer.status for answer in answers] == [400 if i == 5 else 200 for i in range(20)]
    for answer in answers[:5] + answers[6:]:
        assert [item["id"] for item in answer.json["items"]] == [item["id"] for item in alone.json["items"]]
    assert count(daemon, "gathered_requests_total") > 1
    assert count(daemon, "slow_requests_total") >= 20


def test_a_long_similar(one, server):
    daemon = one("limits.k=100000")
    answer = daemon.post("/similar", {"item": "7", "k": 100000})
    assert answer.status == 200 and count(daemon, "slow_requests_total") == 1
    assert answer.json["items"][:50] == server.post("/similar", {"item": "7", "k": 50, "search": {"exact": True}}).json["items"]


def test_pipelined_requests_keep_their_order_through_both_lanes(one):
    daemon = one()
    host, port = daemon.address.rsplit(":", 1)
    bodies = [ask(1), batch(), ask(2), {"user": {}, "k": 0}, batch(50), ask(3)]
    data = b"".join(raw(body).replace(b"Connection: close\r\n", b"") for body in bodies[:-1]) + raw(bodies[-1])
    connection = socket.create_connection((host, int(port)), harness.PATIENCE)
    threading.Thread(target=connection.sendall, args=[data]).start()
    received = b""
    while chunk := connection.recv(1 << 20):
        received += chunk
    shapes = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
        answer, received = json.loads(rest[:length]), rest[length:]
        shapes.append(len(answer["results"]) if "results" in answer else len(answer.get("items", [])))
    assert shapes == [K, BATCH, K, 0, 50, K]
    connection.close()


# --- beginnings and ends -------------------------------------------------------------------------------------------------


def test_draining_answers_what_waits_and_what_takes_long(one):
    daemon = one()
    with Stopped(daemon):
        clients = [Client(daemon, ask(user)) for user in range(50)] + [Client(daemon, batch()) for _ in range(3)]
    harness.wait_for(lambda: count(daemon, "slow_requests_total") == 3, "the batches to be taken")
    daemon.process.send_signal(signal.SIGTERM)
    assert all(client.receive().status == 200 for client in clients)
    assert daemon.wait() == 0


def test_a_stop_drops_what_takes_long(one):
    daemon = one("limits.drain_timeout=1ms")
    clients = [Client(daemon, batch()) for _ in range(8)]
    harness.wait_for(lambda: count(daemon, "slow_requests_total") == 8, "the batches to be taken")
    assert daemon.terminate() == 0
    for client in clients:
        client.go_away()


def test_batches_during_reloads(serve, world, link):
    link.point(world.model_a)
    daemon = serve(link, "--workers", 1, "--set", f"limits.batch={BATCH}")
    asker = Asker(daemon, "POST", "/recall", batch(BATCH // 5))
    with asker:
        for model in (world.model_b, world.model_a, world.model_b) * 2:
            link.point(model)
            assert daemon.reload()["model"] == model.name
            answer = daemon.post("/recall", batch(BATCH // 5)).json
            assert answer["model"] == model.name and len(answer["results"]) == BATCH // 5
    assert not asker.wrong
