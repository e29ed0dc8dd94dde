"""One batch against PyTorch (tests/oracle/torch_oracle.py). Skipped without PyTorch; `make oracle` insists on it."""

import importlib.util
import sys

import pytest

import harness

if importlib.util.find_spec("torch") is None:

    def test_oracle():
        pytest.skip("PyTorch is not installed (Debian: python3-torch); see make oracle")

else:
    sys.path.insert(0, str(harness.ROOT / "tests" / "oracle"))
    import torch_oracle

    @pytest.fixture(scope="module")
    def data(tmp_path_factory):
        directory = tmp_path_factory.mktemp("oracle")
        torch_oracle.make_world(directory)
        return directory

    @pytest.mark.parametrize("case", torch_oracle.CASES)
    def test_oracle(data, case):
        for what, difference in torch_oracle.differences(data, case):
            assert difference <= torch_oracle.TOLERANCE, f"{what}: {difference}"
