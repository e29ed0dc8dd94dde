"""Which request it was: traceparent in, traceparent and request_id out."""

import re
import socket

import pytest

ID, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
FORM = re.compile("00-([0-9a-f]{32})-([0-9a-f]{16})-(0[01])")


def parts(answer):
    return FORM.fullmatch(answer.headers["traceparent"]).groups()


def test_the_callers_id_goes_on(server):
    for path, body in ("/recall", {"user": {"user_id": "1"}}), ("/recall", {}), ("/nothing", {}):
        answer = server.post(path, body, headers={"traceparent": f"00-{ID}-{PARENT}-01"})
        trace, parent, flags = parts(answer)
        assert trace == ID and parent != PARENT and flags == "01"
        assert answer.status == 200 or answer.json["request_id"] == ID


@pytest.mark.parametrize("bad", [f"00-{ID.upper()}-{PARENT}-01", f"ff-{ID}-{PARENT}-01", f"00-{'0' * 32}-{PARENT}-01",
                                 f"00-{ID}-{PARENT}-01-x", "x" * 4000, ""])
def test_others_are_replaced(server, bad):
    seen = set()
    for _ in range(3):
        answer = server.post("/recall", {}, headers={"traceparent": bad})
        seen.add(parts(answer)[0])
        assert answer.json["request_id"] == parts(answer)[0]
    assert len(seen) == 3 and ID not in seen


def raw(server, text):
    host, port = server.address.rsplit(":", 1)
    with socket.create_connection((host.strip("[]"), int(port)), 30) as sock:
        sock.sendall(text.encode())
        sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(65536), b"")).decode()


def test_two_are_none(server):
    line = f"traceparent: 00-{ID}-{PARENT}-01\r\n"
    assert ID in raw(server, f"GET /x HTTP/1.1\r\nHost: a\r\n{line}\r\n")
    assert ID not in raw(server, f"GET /x HTTP/1.1\r\nHost: a\r\n{line}{line}\r\n")


@pytest.mark.parametrize("rest, status", [("Transfer-Encoding: chunked\r\n\r\n", 501), ("no colon\r\n\r\n", 400),
                                          ("Content-Length: 99999999999\r\n\r\n", 413), ("cut", 400)])
def test_errors_of_the_http_layer(server, rest, status):
    got = raw(server, f"POST /recall HTTP/1.1\r\nHost: a\r\ntraceparent: 00-{ID}-{PARENT}-01\r\n{rest}")
    assert got.startswith(f"HTTP/1.1 {status} ")
    assert f"traceparent: 00-{ID}-" in got and f'"request_id":"{ID}"' in got


def test_an_unreadable_line_has_an_id_too(server):
    got = raw(server, "nonsense\r\n\r\n")
    assert FORM.search(got) and f'"request_id":"{FORM.search(got)[1]}"' in got
