"""batch_window_us: requests that arrive together are answered together, each as if it were alone."""

import json
import signal
import socket
import threading
import time

import pytest

import harness

WINDOW = 0.4  # seconds: long enough to do things to a request that waits


def ask(user, **more):
    return json.dumps({"user": {"user_id": str(user)}, "k": 10, **more}).encode()


def raw(body, path="/recall", close=False):
    end = b"Connection: close\r\n" if close else b""
    return b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n%s" % (path.encode(), len(body), end, body)


def dial(daemon):
    host, port = daemon.address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), harness.PATIENCE)


def send(daemon, *bodies):
    """A connection on which these requests were sent, the last of which ends it."""
    connection = dial(daemon)
    connection.sendall(b"".join(raw(body, close=i + 1 == len(bodies)) for i, body in enumerate(bodies)))
    return connection


def receive(connection, count=1):
    """`count` answers: (status, body)."""
    data, answers = b"", []
    while chunk := connection.recv(65536):
        data += chunk
    connection.close()
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        length = int(next(line.split(b":")[1] for line in head.split(b"\r\n") if line.startswith(b"Content-Length")))
        answers.append((int(head.split()[1]), json.loads(data[:length])))
        data = data[length:]
    assert len(answers) == count, answers
    return answers


def gathered(daemon):
    return harness.metric(daemon.get("/metrics").body.decode(), "recalld_gathered_requests_total")


@pytest.fixture
def windowed(serve):
    return lambda bundle, *more: serve(bundle, "--workers", 1, "--set", f"batch_window_us={int(WINDOW * 1e6)}", *more)


def same(a, b):
    assert [item["id"] for item in a["items"]] == [item["id"] for item in b["items"]]
    assert all(abs(x["score"] - y["score"]) < 1e-5 for x, y in zip(a["items"], b["items"]))
    assert {**a, "items": None} == {**b, "items": None}


def test_each_gets_its_own_answer(windowed, server, world):
    daemon = windowed(world.model_a)
    kinds = [{}, {"search": {"exact": True}}, {"k": 1000}, {"exclude": list(range(50))}, {"filter": {"price": {"gt": 3}}}]
    bodies = [ask(user, **kinds[user % len(kinds)]) for user in range(30)]
    begin = time.monotonic()
    connections = [send(daemon, body) for body in bodies]
    answers = [receive(connection)[0] for connection in connections]
    assert time.monotonic() - begin >= WINDOW
    for body, (status, answer) in zip(bodies, answers):
        assert status == 200
        same(answer, server.post("/recall", body).json)
    assert gathered(daemon) > len(bodies) / 2  # all, unless the machine is very busy


def test_as_many_as_share_a_scan_do_not_wait(windowed, world):
    daemon = windowed(world.model_a, "--set", "limits.batch=8", "--set", "batch_window_us=1000000")
    begin = time.monotonic()
    connections = [send(daemon, ask(user)) for user in range(16)]
    assert all(receive(connection)[0][0] == 200 for connection in connections)
    assert harness.SANITIZED or time.monotonic() - begin < 1


def test_what_does_not_wait(windowed, world):
    daemon = windowed(world.model_a, "--set", "batch_window_us=1000000")
    waiting = send(daemon, ask(1))
    time.sleep(0.05)
    begin = time.monotonic()
    assert daemon.post("/recall", {"requests": [{"user": {}}, {"user": {"user_id": "7"}}]}).status == 200
    assert daemon.post("/similar", {"item": "7", "exclude": ["8"], "filter": {"price": {"gt": 3}}}).status == 200
    assert daemon.post("/embed", {"user": {"user_id": "5"}}).status == 200
    assert daemon.post("/recall", b"{").status == 400
    assert harness.SANITIZED or time.monotonic() - begin < 0.9
    alone = receive(waiting)[0][1]  # what others did meanwhile has not touched it
    same(alone, daemon.post("/recall", ask(1)).json)


def test_a_mistake_harms_nobody_else(windowed, server, world):
    daemon = windowed(world.model_a)
    wrong = [b'{"user": {"user_id": "3"}, "k": 0}', b'{"k": 3}', b'{"user": {"no such": 1}}', b"[]",
             b'{"user": {"user_id": "3", "history": ["1", "2", true]}}']
    bodies = [body for pair in zip((ask(user) for user in range(5)), wrong) for body in pair]
    bodies += [ask(9)]
    connections = [send(daemon, body) for body in bodies]
    for body, connection in zip(bodies, connections):
        status, answer = receive(connection)[0]
        alone = server.post("/recall", body)
        assert status == alone.status
        if status == 200:
            same(answer, alone.json)
        else:
            assert answer.pop("request_id") != alone.json["request_id"]
            assert {**answer, "request_id": alone.json["request_id"]} == alone.json and body in wrong


def test_a_client_that_goes_away_while_waiting(windowed, world):
    daemon = windowed(world.model_a)
    stays, goes, resets, half = (send(daemon, ask(user)) for user in range(4))
    time.sleep(0.05)
    goes.close()
    resets.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    resets.close()
    half.shutdown(socket.SHUT_WR)
    assert receive(stays)[0][0] == 200
    assert receive(half)[0][0] == 200
    assert gathered(daemon) >= 2
    assert daemon.post("/recall", ask(1)).status == 200


def test_pipelined_requests_keep_their_order(windowed, server, world):
    daemon = windowed(world.model_a, "--set", "batch_window_us=50000")
    bodies = [ask(user) for user in range(5)] + [b'{"user": 1}'] + [ask(7)]
    connections = [send(daemon, *bodies) for _ in range(3)]
    for connection in connections:
        answers = receive(connection, len(bodies))
        for body, (status, answer) in zip(bodies, answers):
            alone = server.post("/recall", body)
            assert status == alone.status
            if status == 200:
                same(answer, alone.json)
    assert gathered(daemon) > 0


def test_drain_answers_those_that_wait(windowed, world):
    daemon = windowed(world.model_a)
    connections = [dial(daemon) for _ in range(3)]
    for connection in connections:
        connection.sendall(raw(ask(1)))
    time.sleep(0.1)
    daemon.process.send_signal(signal.SIGTERM)
    assert all(receive(connection)[0][0] == 200 for connection in connections)
    assert daemon.wait() == 0


def test_a_stop_drops_those_that_wait(windowed, world):
    """drain_timeout is over before the window is."""
    daemon = windowed(world.model_a, "--set", "batch_window_us=1000000", "--set", "limits.drain_timeout=1ms")
    connections = [send(daemon, ask(1)) for _ in range(3)]
    time.sleep(0.1)
    assert daemon.terminate() == 0


def test_a_reload_while_waiting(windowed, serve, world, link):
    """The model that is served when the window ends answers, with its own vectors."""
    link.point(world.model_a)
    daemon = windowed(link, "--set", "batch_window_us=1000000")
    other = serve(world.model_b)
    alone = other.post("/recall", ask(1)).json
    for _ in range(3):  # a load may take longer than the window
        link.point(world.model_a)
        daemon.reload()
        connections = [send(daemon, ask(1)) for _ in range(3)]
        link.point(world.model_b)
        daemon.reload()
        answers = [receive(connection)[0] for connection in connections]
        assert all(status == 200 for status, _ in answers)
        assert len({answer["model"] for _, answer in answers}) == 1
        if answers[0][1]["model"] == world.model_b.name:
            for _, answer in answers:
                same(answer, alone)
            return
    pytest.skip("every load took longer than a second")


def test_a_small_window_under_load(serve, server, world):
    daemon = serve(world.model_a, "--workers", 2, "--set", "batch_window_us=300")
    alone = {user: server.post("/recall", ask(user)).json for user in range(8)}
    wrong = []

    def work(user):
        connection = daemon.connect()
        for _ in range(100):
            answer = connection.call("POST", "/recall", ask(user))
            try:
                assert answer.status == 200
                same(answer.json, alone[user])
            except AssertionError as error:
                wrong.append(error)
                return
        connection.close()

    threads = [threading.Thread(target=work, args=[user]) for user in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert gathered(daemon) > 0
