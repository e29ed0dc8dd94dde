"""The inputs that fuzzing found worth keeping, once more: tests/fuzz/corpus, packed by tests/fuzz/run.sh."""

import pytest

import harness

TARGETS = sorted(path.stem.removeprefix("fuzz_") for path in (harness.ROOT / "tests/fuzz").glob("fuzz_*.c"))


@pytest.mark.parametrize("name", TARGETS)
def test_replay(name, tmp_path):
    corpus = harness.ROOT / "tests/fuzz/corpus" / name
    done = harness.run(harness.BUILD / "tests/fuzz" / name, corpus, cwd=tmp_path)
    assert int(done.stdout.split()[-2]) > 0, done.stdout
