"""A short run of tests/chaos/kill9.py."""

import os

import harness


def test_five_kills():
    done = harness.run("/usr/bin/python3", harness.ROOT / "tests" / "chaos" / "kill9.py", 5, check=False,
                       env={**os.environ, "RECALLD_BUILD": str(harness.BUILD)})
    assert done.returncode == 0, done.stdout + done.stderr
