"""recall-train fit with negatives.hard: lists from a file, and mined from an earlier bundle."""

import subprocess

import pytest

import harness
from train_tools import bundles, digest, fit, make_data, sets, train

FLAT = {"threads": 2, "index__engine": "flat", "index__factory": "null", "index__target_recall": "null"}
EASY = {"negatives__hard__easy_per_hard": 20}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("hard") / "data")


@pytest.fixture(scope="module")
def yesterday(data, tmp_path_factory):
    models = tmp_path_factory.mktemp("yesterday") / "models"
    fit(data, models, **FLAT)
    return models


def mined(bundle, ranks="[3, 20]", **more):
    return {**FLAT, **EASY, "negatives__hard__source": "mined", "negatives__hard__bundle": bundle,
            "negatives__hard__ranks": ranks, **more}


def weights(models):
    return digest((models / "current").resolve(), "weights.safetensors")


def last_line(done):
    assert done.returncode == 1 and done.stdout == ""
    return done.stderr.strip().split("\n")[-1]


def test_mined(data, yesterday, tmp_path):
    done = fit(data, tmp_path / "a", **mined(yesterday / "current"))
    assert "hard negatives: " in done.stderr and "of the ranks 3 to 20 in " in done.stderr
    assert len(bundles(tmp_path / "a")) == 1
    fit(data, tmp_path / "again", **mined(yesterday / "current"))
    fit(data, tmp_path / "seed", **mined(yesterday / "current", "[21, 60]"))
    assert weights(tmp_path / "a") == weights(tmp_path / "again")
    assert len({weights(tmp_path / "a"), weights(tmp_path / "seed"), weights(yesterday)}) == 3


def test_mined_from_a_graph_into_its_own_place(data, tmp_path):
    """Day after day: each model mines from the one before, published under the same link."""
    fit(data, tmp_path)
    values = {name: value for name, value in mined(tmp_path / "current").items() if not name.startswith("index")}
    fit(data, tmp_path, **values)
    fit(data, tmp_path, "--init", tmp_path / "current", **values)
    assert len(bundles(tmp_path)) == 3


def test_resumed(data, yesterday, tmp_path):
    """Killed and resumed, the lists are mined again and are the same; from another bundle they are refused."""
    values = mined(yesterday / "current", optimizer__epochs=5, optimizer__batch_size=512, checkpoint__every="1ms")
    arguments = ["fit", data / "train.yaml", *sets(output__dir=tmp_path / "broken", **values)]
    process = subprocess.Popen([str(a) for a in [harness.TRAIN, *arguments]], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    harness.wait_for((tmp_path / "broken" / ".checkpoint").exists, "a checkpoint")
    process.kill()
    process.wait()
    was = (yesterday / "current").resolve()
    fit(data, tmp_path / "other", seed=9, **FLAT)
    try:
        train("publish", (tmp_path / "other" / "current").resolve(), yesterday / "current")
        assert "is of other data: " in last_line(train(*arguments, "--resume", check=False))
    finally:
        train("publish", was, yesterday / "current")
    assert "resumed from the checkpoint" in train(*arguments, "--resume").stderr
    train("fit", data / "train.yaml", *sets(output__dir=tmp_path / "whole", **values))
    assert weights(tmp_path / "broken") == weights(tmp_path / "whole")


@pytest.mark.parametrize("change,message", [
    ({"negatives__hard__ranks": "[101, 5000]"}, "the bundle"),
    ({"similarity": "dot"}, "similarity is dot here, and cosine there"),
    ({"user_tower__features__0__dim": 16}, "dim of feature user_id is 16 here, and 32 there"),
    ({"negatives__hard__bundle": "/nowhere"}, "negatives.hard.bundle"),
])
def test_refused(data, yesterday, tmp_path, change, message):
    done = fit(data, tmp_path, check=False, **{**mined(yesterday / "current"), **change})
    line = last_line(done)
    assert message in line and "negatives.hard." in line and "--init" not in line
    assert not (tmp_path / "current").exists()


def test_from_a_file(data, yesterday, tmp_path):
    clicks = [line.split(",")[:2] for line in (data / "clicks.csv").read_text().split("\n")[1:-1]]
    pairs = [f"{user},{item}" for (user, _), (_, item) in zip(clicks, clicks[40:])]
    path = tmp_path / "dropped.csv"
    path.write_text("\n".join(["user_id,item_id", *pairs]) + "\n")
    values = {**FLAT, **EASY, "negatives__hard__source": "file", "negatives__hard__file": path}
    done = fit(data, tmp_path / "models", **values)
    assert "pairs for negatives" in done.stderr
    assert weights(tmp_path / "models") != weights(yesterday)
