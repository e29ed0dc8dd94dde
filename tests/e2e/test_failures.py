"""Each allocation and each system call of a request and of a reload fails once: an error or a 5xx, never a wrong answer, a
crash, a leak. All of them are here but for the allocations of a reload, of which tests/chaos/failures.py does all."""

import pytest

import faults
import harness

pytestmark = pytest.mark.skipif(harness.SANITIZED, reason="the shim replaces malloc, as sanitizers do")
READING = [name for name in faults.REQUESTS if name not in ("add", "remove")]


@pytest.fixture
def faulty(world, tmp_path):
    faulty = faults.Faulty(tmp_path, world.model_a)
    yield faulty
    faulty.daemon.stop()


@pytest.mark.parametrize("kind", ["memory", "calls"])
def test_every_failure_of_a_request(faulty, kind):
    allocations, descriptors, failures = faulty.living(), faulty.descriptors(), 0
    for name in READING:
        failures += sum(faults.each_failure_of_a_request(faulty, name, kind).values())
    assert failures > 60
    assert faulty.living() <= allocations + 20
    faulty.wait_for_descriptors(descriptors)
    for name in ("add", "remove"):  # these leave something behind, as they should
        faults.each_failure_of_a_request(faulty, name, kind)
    faulty.wait_for_descriptors(descriptors)


def test_failures_of_a_reload(faulty):
    faulty.daemon.reload()
    allocations, descriptors = faulty.living(), faulty.descriptors()
    outcomes, all_of_them = faults.each_failure_of_a_reload(faulty, "calls", range(1, 10000))
    assert all_of_them and outcomes["refused"] > 50
    used = faults.allocations_of_a_reload(faulty)
    assert used > 1000
    outcomes, _ = faults.each_failure_of_a_reload(faulty, "memory", [*range(1, 100), *range(100, used, used // 100)])
    assert outcomes["refused"] > 100
    assert faulty.living() <= allocations + 20
    faulty.wait_for_descriptors(descriptors)


@pytest.mark.parametrize("seconds", [10**9, -10**9])
def test_the_wall_clock_decides_nothing(world, tmp_path, seconds):
    """Thirty years forth or back in the middle: no connection times out, no answer changes, and reloads go on."""
    faulty = faults.Faulty(tmp_path, world.model_a, "--set", "limits.idle_timeout=5s")
    usual = faulty.ask("recall")
    connection = faulty.daemon.connect()
    assert connection.call("GET", "/healthz").status == 200
    date = connection.call("GET", "/healthz").headers["Date"]
    faulty.control["clock_offset"] = seconds
    after = connection.call("GET", "/healthz")  # over the same connection
    assert after.status == 200 and after.headers["Date"][12:16] != date[12:16]
    assert faulty.ask("recall") == usual
    assert faulty.daemon.reload()["reload"]["last_error"] is None
    assert connection.call("GET", "/readyz").status == 200
    connection.close()
    faulty.daemon.stop()
