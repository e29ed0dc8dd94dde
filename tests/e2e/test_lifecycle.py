"""Starting, the command line, listeners, readiness, signals, the service manager."""

import json
import pathlib
import signal
import socket
import subprocess
import threading
import time

import pytest

import harness

BODY = {"user": {"user_id": "1"}, "k": 5}


def recalld(*arguments, **more):
    return harness.run(harness.RECALLD, *arguments, check=False, **more)


# --- command line -------------------------------------------------------------------------------------------------------


def test_help_and_version():
    help_ = recalld("--help")
    assert help_.returncode == 0 and "usage: recalld" in help_.stdout and help_.stderr == ""
    version = recalld("--version")
    assert version.returncode == 0 and version.stdout.startswith("recalld ")
    for library in ("libevent 2.", "OpenSSL 3.", "zlib 1."):
        assert library in version.stdout


@pytest.mark.parametrize("arguments", [[], ["--bundle"], ["--no-such"], ["-c"], ["--bundle", "x", "left-over"],
                                       ["--bundle", "x", "--set", "novalue"]], ids=str)
def test_wrong_usage_exits_2(arguments):
    done = recalld(*arguments)
    assert done.returncode == 2
    assert "--help" in done.stderr and done.stdout == ""


def test_check_of_a_good_configuration(world, tmp_path):
    path = tmp_path / "recalld.yaml"
    path.write_text(f"listen: 127.0.0.1:0\nmodels: {{default: {{path: {world.model_a}}}}}\n")
    done = recalld("-c", path, "-t")
    assert done.returncode == 0, done.stderr
    assert "good" in done.stdout


@pytest.mark.parametrize("text,names", [
    ("listne: 127.0.0.1:0\n", ["listne", ":1:"]),
    ("limits: {k: 0}\n", ["limits.k", ":1:"]),
    ("limits: {k: many}\nworkers: -1\n", ["limits.k", "workers", ":1:", ":2:"]),
    ("listen: nonsense\n", ["listen"]),
    ("listen: 127.0.0.1:99999\n", ["listen"]),
    ("models: {default: {path: no/such/bundle}}\n", ["no/such/bundle"]),
], ids=str)
def test_check_of_a_bad_configuration(tmp_path, text, names):
    path = tmp_path / "recalld.yaml"
    path.write_text(text)
    done = recalld("-c", path, "-t")
    assert done.returncode == 1
    for name in names:
        assert name in done.stderr, done.stderr


def test_dump_config_reads_back(world, tmp_path):
    first = recalld("--bundle", world.model_a, "--set", "limits.k=77", "--dump-config")
    assert first.returncode == 0 and "77" in first.stdout
    path = tmp_path / "dumped.yaml"
    path.write_text(first.stdout)
    assert recalld("-c", path, "--dump-config").stdout == first.stdout
    assert recalld("-c", path, "-t").returncode == 0


def test_a_configuration_file_is_served(start, world, tmp_path):
    path = tmp_path / "recalld.yaml"
    path.write_text(f"listen: 127.0.0.1:0\nworkers: 1\nmodels: {{default: {{path: {world.model_a}}}}}\n")
    daemon = start("-c", path)
    assert daemon.get("/model").json["workers"] == 1
    assert daemon.post("/recall", BODY).status == 200


def test_a_bad_bundle_at_the_start_ends_it(tmp_path, world):
    done = recalld("--bundle", tmp_path, "--listen", "127.0.0.1:0")
    assert done.returncode == 1
    assert "manifest.json" in done.stderr.splitlines()[-1]
    done = recalld("--bundle", tmp_path / "nowhere", "--listen", "127.0.0.1:0")
    assert done.returncode == 1


def test_an_address_in_use_is_said(server, world):
    done = recalld("--bundle", world.model_a, "--listen", server.address)
    assert done.returncode == 1
    assert server.address in done.stderr and "in use" in done.stderr


# --- listeners ----------------------------------------------------------------------------------------------------------


def test_admin_paths_on_loopback(server):
    assert server.get("/metrics").status == 200
    assert server.get("/model").status == 200


def admin_address(daemon):
    line = next(line for line in daemon.log.splitlines() if "admin paths on" in line)
    return line.split()[-1]


def test_an_admin_listener_takes_the_admin_paths(serve, world):
    daemon = serve(world.model_a, "--set", "admin.listen=127.0.0.1:0")
    admin = admin_address(daemon)
    for path in ("/metrics", "/model"):
        assert daemon.get(path).status == 404
        assert daemon.get(path, address=admin).status == 200
    for path in ("/healthz", "/readyz"):
        assert daemon.get(path).status == 200
        assert daemon.get(path, address=admin).status == 200
    assert daemon.post("/recall", BODY).status == 200
    assert daemon.post("/recall", BODY, address=admin).status == 404


def test_no_admin_paths_on_a_public_address(start, world):
    daemon = start("--bundle", world.model_a, "--listen", "0.0.0.0:0")
    assert daemon.get("/metrics").status == 404
    assert daemon.get("/model").status == 404
    assert daemon.post("/recall", BODY).status == 200
    assert "not served" in daemon.log


def test_unix_sockets(start, world, tmp_path):
    path = tmp_path / "recalld.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    daemon = start("--bundle", world.model_a, "--listen", f"unix:{path}")
    assert daemon.address == f"unix:{path}"
    assert daemon.post("/recall", BODY).status == 200
    assert daemon.get("/metrics").status == 200
    again = recalld("--bundle", world.model_a, "--listen", f"unix:{path}")
    assert again.returncode == 1 and "in use" in again.stderr
    assert daemon.terminate() == 0
    assert not path.exists()


def test_a_unix_socket_for_the_admin_paths(serve, world, tmp_path):
    path = tmp_path / "admin.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    daemon = serve(world.model_a, "--set", f"admin.listen=unix:{path}", umask=0o077)
    assert daemon.get("/model", address=f"unix:{path}").status == 200
    assert daemon.get("/model").status == 404
    assert path.stat().st_mode & 0o777 == 0o700
    assert "OpenSSL 3." in daemon.log and "zlib 1." in daemon.log
    assert daemon.terminate() == 0
    assert not path.exists()


def test_a_file_in_the_place_of_a_socket_stays(world, tmp_path):
    path = tmp_path / "precious"
    path.write_text("data")
    link = tmp_path / "link"
    link.symlink_to(path)
    for name in (path, link, tmp_path):
        done = recalld("--bundle", world.model_a, "--listen", f"unix:{name}")
        assert done.returncode == 1 and "no socket" in done.stderr, done.stderr
    assert path.read_text() == "data" and link.is_symlink()


def test_ipv6(start, world):
    try:
        daemon = start("--bundle", world.model_a, "--listen", "[::1]:0")
    except AssertionError as error:
        pytest.skip(f"no IPv6 here: {error}")
    assert daemon.address.startswith("[::1]:")
    assert daemon.post("/recall", BODY).status == 200
    assert daemon.get("/metrics").status == 200


# --- readiness, signals -------------------------------------------------------------------------------------------------


def test_alive_before_ready(start, world, link, tmp_path):
    """Bound before the bundle is loaded. The load is held up by a manifest that lists a very large (sparse) file."""
    copy = link.copy(world.model_a, "slow")
    with open(copy / "weights.safetensors", "r+b") as file:
        file.truncate(2 << 30)
    daemon = start("--bundle", copy, "--listen", "127.0.0.1:0", wait=False)
    assert daemon.get("/healthz").status == 200
    answer = daemon.get("/readyz")
    assert answer.status == 503 and answer.json["type"] == "urn:recalld:problem:not-ready"
    answer = daemon.post("/recall", BODY)
    assert answer.status == 503 and answer.headers["Retry-After"]
    assert daemon.get("/model").json["model"] is None
    assert b"recalld_ready 0" in daemon.get("/metrics").body
    daemon.process.kill()
    daemon.process.wait()
    daemon.process.returncode = 0  # asked for


def test_sigterm_while_loading(start, world, link):
    copy = link.copy(world.model_a, "slow")
    with open(copy / "weights.safetensors", "r+b") as file:
        file.truncate(2 << 30)
    daemon = start("--bundle", copy, "--listen", "127.0.0.1:0", wait=False)
    assert daemon.terminate() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_end_by_signal(serve, world, number):
    daemon = serve(world.model_a)
    daemon.process.send_signal(number)
    assert daemon.wait() == 0
    with pytest.raises(OSError):
        daemon.get("/healthz")


def test_drain_finishes_what_is_in_flight(serve, world):
    daemon = serve(world.model_a, "--workers", 1)
    idle = daemon.connect()
    assert idle.call("POST", "/recall", BODY).status == 200
    body = json.dumps(BODY).encode()
    half = socket.create_connection(("127.0.0.1", int(daemon.address.rsplit(":", 1)[1])), 30)
    half.sendall(b"POST /recall HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:5])
    time.sleep(0.2)
    daemon.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert daemon.process.poll() is None  # the half request is waited for
    half.sendall(body[5:])
    answer = b""
    while chunk := half.recv(65536):
        answer += chunk
    assert answer.startswith(b"HTTP/1.1 200 ") and b'"items"' in answer and b"Connection: close" in answer
    assert daemon.wait() == 0


def test_drain_delay(serve, world):
    daemon = serve(world.model_a, "--set", "drain_delay=1s")
    daemon.process.send_signal(signal.SIGTERM)
    answer = harness.wait_for(lambda: (a := daemon.get("/readyz")).status == 503 and a, "not ready")
    assert answer.json["type"] == "urn:recalld:problem:draining"
    assert daemon.get("/healthz").status == 200
    assert daemon.post("/recall", BODY).status == 200  # still answered, on new connections too
    daemon.hup()  # of no consequence
    assert daemon.wait() == 0


def test_drain_deadline(serve, world):
    daemon = serve(world.model_a, "--set", "limits.drain_timeout=500ms")
    half = socket.create_connection(("127.0.0.1", int(daemon.address.rsplit(":", 1)[1])), 30)
    half.sendall(b"POST /recall HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
    time.sleep(0.2)
    begin = time.monotonic()
    assert daemon.terminate() == 0
    assert 0.3 < time.monotonic() - begin < 5
    half.close()


def test_the_second_signal_ends_it_at_once(serve, world):
    daemon = serve(world.model_a, "--set", "drain_delay=60s")
    daemon.process.send_signal(signal.SIGTERM)
    harness.wait_for(lambda: daemon.get("/readyz").status == 503, "not ready")
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.wait() == -signal.SIGTERM


def test_a_drain_under_load_loses_nothing(serve, world):
    """Until the listener closes every request is answered; afterwards connecting fails, which a client may repeat."""
    daemon = serve(world.model_a, "--workers", 2, "--set", "drain_delay=300ms")
    lost, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            connection = daemon.connect()
            try:
                connection.connect()
            except OSError:
                return
            try:
                answer = connection.call("POST", "/recall", BODY)
                if answer.status != 200:
                    lost.append(answer.body)
            except OSError as error:
                lost.append(repr(error))
            connection.close()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    assert daemon.terminate() == 0
    stop.set()
    for thread in threads:
        thread.join()
    assert lost == []


class Manager:
    """The service manager's end of NOTIFY_SOCKET."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(harness.PATIENCE)

    def next(self):
        return dict(line.split("=", 1) for line in self.socket.recv(4096).decode().splitlines())


def test_the_service_manager_is_told(serve, world, tmp_path):
    manager = Manager(tmp_path / "notify")
    daemon = serve(world.model_a, env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
    assert manager.next()["READY"] == "1"
    daemon.hup()
    reloading = manager.next()
    assert reloading["RELOADING"] == "1" and int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    assert manager.next()["READY"] == "1"
    daemon.process.send_signal(signal.SIGTERM)
    assert manager.next()["STOPPING"] == "1"
    assert daemon.wait() == 0


# --- metrics ------------------------------------------------------------------------------------------------------------


def test_metrics_are_well_formed(server):
    server.post("/recall", BODY)
    answer = server.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    families, samples = {}, set()
    for line in answer.body.decode().splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name not in families, "a family twice"
            families[name] = kind
        elif not line.startswith("#"):
            name = line.split("{")[0].split(" ")[0]
            assert name.startswith("recalld_")
            base = next((name[:-len(end)] for end in ("_bucket", "_sum", "_count") if name.endswith(end)), name)
            assert base in families or name in families, line
            kind = families.get(name) or families[base]
            assert (kind == "counter") == name.endswith("_total"), line
            assert line.rsplit(" ", 1)[0] not in samples, "a sample twice"
            samples.add(line.rsplit(" ", 1)[0])
            float(line.rsplit(" ", 1)[1])
    for name in ("recalld_build_info", "recalld_model_info", "recalld_ready", "recalld_request_seconds",
                 "recalld_http_responses_total", "recalld_reloads_total", "recalld_uptime_seconds"):
        assert name in families


def test_metrics_count(serve, world):
    daemon = serve(world.model_a, "--workers", 2)
    connections = [daemon.connect() for _ in range(8)]
    for connection in connections:
        for _ in range(5):
            connection.call("POST", "/recall", {"requests": [BODY, BODY]})
    text = daemon.get("/metrics").body.decode()
    assert harness.metric(text, 'recalld_http_responses_total{endpoint="/recall",code="200"}') == 40
    assert harness.metric(text, 'recalld_request_seconds_count{endpoint="/recall"}') == 40
    assert harness.metric(text, "recalld_users_total") == 80
    assert harness.metric(text, "recalld_items_total") == 400
    for connection in connections:
        connection.close()


def test_the_unit_file_is_what_systemd_understands():
    unit = (pathlib.Path(harness.ROOT) / "systemd/recalld.service").read_text()
    for line in ("Type=notify", "ExecReload=", "ExecStartPre=", "NoNewPrivileges="):
        assert line in unit
    try:
        done = subprocess.run(["systemd-analyze", "verify", harness.ROOT / "systemd/recalld.service"],
                              capture_output=True, text=True, timeout=30)
    except FileNotFoundError:
        pytest.skip("no systemd-analyze here")
    complaints = [line for line in done.stderr.splitlines()
                  if "recalld.service" in line and "not executable" not in line]
    assert complaints == []
