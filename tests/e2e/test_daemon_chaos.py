"""The short version of tests/chaos/daemon.py: each of its faults twice or so, under load."""

import pytest

import harness


@pytest.mark.skipif(harness.SANITIZED, reason="the shim replaces malloc, as sanitizers do")
def test_faults_under_load():
    done = harness.run(harness.ROOT / "tests/chaos/daemon.py", 16, "--seed", 1, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 wrong" in done.stdout
