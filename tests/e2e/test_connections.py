"""Caps on connections: for one client address at all workers together, and what descriptors allow."""

import resource
import socket

import harness

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def connect(daemon, source):
    host, port = daemon.address.rsplit(":", 1)
    return socket.create_connection((host.strip("[]"), int(port)), harness.PATIENCE, (source, 0))


def ask(connection):
    """The first bytes of the answer; the connection stays open if the daemon lets it."""
    connection.sendall(GET)
    return connection.recv(4096)


def expect_refused(connection):
    text = b""
    while chunk := connection.recv(4096):
        text += chunk
    assert text.startswith(b"HTTP/1.1 503 ") and b"urn:recalld:problem:too-many-connections" in text
    assert b"This address has 5 connections" in text and b"Retry-After: 1" in text
    connection.close()


def open_five(daemon, source="127.0.0.2"):
    connections = [connect(daemon, source) for _ in range(5)]
    assert all(ask(connection).startswith(b"HTTP/1.1 200 ") for connection in connections)
    return connections


def close(connections):
    for connection in connections:
        connection.close()


def test_one_address_over_all_workers(serve, world):
    daemon = serve(world.model_a, "--workers", 4, "--set", "limits.connections_per_address=5")
    connections = open_five(daemon)
    for _ in range(8):
        expect_refused(connect(daemon, "127.0.0.2"))
    others = open_five(daemon, "127.0.0.3")
    text = daemon.get("/metrics").body.decode()
    assert harness.metric(text, "recalld_http_connections_refused_address_total") == 8
    assert harness.metric(text, "recalld_http_connections_refused_total") == 0
    connections.pop().close()

    def is_taken_again():
        connection = connect(daemon, "127.0.0.2")
        good = ask(connection).startswith(b"HTTP/1.1 200 ")
        connection.close() if not good else connections.append(connection)
        return good

    harness.wait_for(is_taken_again, "room for another connection")
    expect_refused(connect(daemon, "127.0.0.2"))
    close(connections + others)


def test_the_cap_is_reloaded(start, world, tmp_path):
    path = tmp_path / "recalld.yaml"

    def write(limit):
        path.write_text(f"listen: 127.0.0.1:0\nmodels: {{default: {{path: {world.model_a}}}}}\n"
                        f"limits: {{connections_per_address: {limit}}}\n")

    write(0)
    daemon = start("-c", path, "--workers", 2)
    connections = open_five(daemon) + open_five(daemon)
    write(5)
    daemon.reload()
    expect_refused(connect(daemon, "127.0.0.2"))
    assert all(ask(connection).startswith(b"HTTP/1.1 200 ") for connection in connections)
    close(connections)
    harness.wait_for(lambda: harness.metric(daemon.get("/metrics").body.decode(), "recalld_http_connections_open") == 1,
                     "the ends of the connections")
    close(open_five(daemon))


def test_unix_sockets_have_no_address(start, world, tmp_path):
    path = tmp_path / "recalld.sock"
    daemon = start("--bundle", world.model_a, "--listen", f"unix:{path}", "--set", "limits.connections_per_address=1")
    connections = [daemon.connect() for _ in range(6)]
    assert all(connection.call("GET", "/healthz").status == 200 for connection in connections)
    close(connections)


def test_too_few_descriptors_are_said(start, world):
    daemon = start("--bundle", world.model_a, "--listen", "127.0.0.1:0", "--workers", 2, "--set", "limits.connections=300",
                   preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (200, 400)))
    assert "2 workers; with 80 descriptors for other things that is 680, and this process may open 400" in daemon.log
    assert harness.metric(daemon.get("/metrics").body.decode(), "recalld_process_max_fds") == 400


def test_enough_descriptors(start, world):
    daemon = start("--bundle", world.model_a, "--listen", "127.0.0.1:0", "--workers", 2, "--set", "limits.connections=100",
                   preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 400)))
    assert "descriptors" not in daemon.log
