"""recall-train fit --resume: killed at any moment, it ends at the weights of a training that was never interrupted."""

import os
import random
import shutil
import subprocess
import time

import pytest

import harness
from train_tools import bundles, digest, fit, make_data, need_root_mount, sets, train

# Rows at rest, momentum and a schedule; a validation run and a refit; the best weights kept, a learned temperature too
VARIANTS = {
    "adam": {"optimizer__type": "adam", "optimizer__lr": 0.003, "optimizer__schedule": "{type: cosine, warmup: 3}",
             "optimizer__clip_norm": 1},
    "refit": {"optimizer__early_stop": "{metric: recall@10, patience: 1}"},
    "keep": {"optimizer__early_stop": "{metric: recall@10, patience: 2, refit: false}", "optimizer__type": "sgd",
             "optimizer__lr": 1, "loss__learn": "true"},
}
COMMON = {"threads": 2, "optimizer__batch_size": 512, "index__engine": "flat", "index__factory": "null",
          "index__target_recall": "null", "checkpoint__every": "1ms"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("resume") / "data")


def settings(variant, **more):
    return {"epochs": 5, **COMMON, **VARIANTS[variant], **more}


def weights(models):
    """The checksum shared by every published bundle: a run killed after publishing, before its exit, publishes once more."""
    checksum, = {digest(bundle, "weights.safetensors") for bundle in bundles(models)}
    return checksum


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory):
    """By variant: checksum of the weights, and how long it took."""
    found = {}
    for variant in VARIANTS:
        models = tmp_path_factory.mktemp(variant)
        started = time.monotonic()
        fit(data, models, **settings(variant))
        found[variant] = weights(models), time.monotonic() - started
    return found


def arguments(data, models, variant, **more):
    values = settings(variant, **more)
    values["optimizer__epochs"] = values.pop("epochs")
    return ["fit", data / "train.yaml", *sets(output__dir=models, **values)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_random_kills(data, unbroken, tmp_path, variant):
    moments = random.Random(variant)
    expected, seconds = unbroken[variant]
    command = [str(a) for a in [harness.TRAIN, *arguments(data, tmp_path, variant), "--resume"]]
    kills = resumed = 0
    for _ in range(12):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            _, message = process.communicate(timeout=moments.uniform(0.1, 0.9) * seconds)
            assert process.returncode == 0, message
            break
        except subprocess.TimeoutExpired:
            process.kill()
            _, message = process.communicate()
            kills += 1
        resumed += "resumed from the checkpoint" in message
    else:
        done = train(*command[1:])
        resumed += "resumed from the checkpoint" in done.stderr
    assert weights(tmp_path) == expected
    assert kills > 0


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    path = tmp_path_factory.mktemp("shim") / "killat.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-D_GNU_SOURCE", "-o", path,
                    harness.ROOT / "tests" / "chaos" / "killat.c", "-ldl"], check=True)
    return path


@pytest.mark.skipif(harness.SANITIZED, reason="the sanitizer must be the first library")
def test_killed_at_changes_of_the_file_system(data, unbroken, shim, tmp_path):
    """Of the checkpoints of three epochs and of publishing: every fifth, which meets each of the three of a checkpoint."""
    small = {"checkpoint__every": 0, "epochs": 3}
    fit(data, tmp_path / "whole", **settings("adam", **small))
    expected = weights(tmp_path / "whole")
    resumed, step = 0, -3
    while True:
        step += 5
        models = tmp_path / str(step)
        command = arguments(data, models, "adam", **small)
        done = train(*command, check=False, env={**os.environ, "LD_PRELOAD": str(shim), "KILL_AT": str(step)})
        if done.returncode == 0:
            break
        assert done.returncode < 0, done.stderr
        done = train(*command, "--resume")
        resumed += "resumed from the checkpoint" in done.stderr
        assert digest((models / "current").resolve(), "weights.safetensors") == expected
        assert not list(models.glob(".checkpoint*"))
        shutil.rmtree(models)
    assert step > 15 and resumed > 2


def stop_early(data, models, variant="adam", **more):
    """A checkpoint of a training that was killed when the first one had been written."""
    command = [str(a) for a in [harness.TRAIN, *arguments(data, models, variant, **more)]]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    harness.wait_for((models / ".checkpoint").exists, "a checkpoint")
    process.kill()
    process.wait()
    return models / ".checkpoint"


def refused(data, models, *more, variant="adam", **changes):
    done = train(*arguments(data, models, variant, **changes), "--resume", *more, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert len(done.stderr.strip().split("\n")[-1]) > 0
    return done.stderr.strip().split("\n")[-1]


def test_another_configuration(data, tmp_path):
    stop_early(data, tmp_path)
    message = refused(data, tmp_path, optimizer__lr=0.002)
    assert 'optimizer.lr is "0.002", and was "0.003"' in message and "without --resume" in message
    assert "seed" in refused(data, tmp_path, seed=7)
    message = refused(data, tmp_path, threads=1)
    assert "was written by 2 threads" in message and "--set threads=2" in message
    # what has no part in the weights may change
    train(*arguments(data, tmp_path, "adam", checkpoint__every="1h"), "--resume")


def test_other_data(data, tmp_path):
    moved = tmp_path / "data"
    shutil.copytree(data, moved)
    stop_early(moved, tmp_path / "models")
    clicks = (moved / "clicks.csv").read_text()
    (moved / "clicks.csv").write_text("\n".join(clicks.split("\n")[:-20]) + "\n")
    assert "is of other data" in refused(moved, tmp_path / "models")
    (moved / "clicks.csv").write_text(clicks)
    users = (moved / "users.csv").read_text().split("\n")
    cells = users[1].split(",")
    cells[1] = "f" if cells[1] != "f" else "m"
    (moved / "users.csv").write_text("\n".join([users[0], ",".join(cells), *users[2:]]))
    assert "the users have changed" in refused(moved, tmp_path / "models")


def test_damaged(data, tmp_path):
    path = stop_early(data, tmp_path)
    whole = path.read_bytes()
    for damaged in whole[:-1], whole[:10], b"", whole[:len(whole) // 2], \
            whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:]:
        path.write_bytes(damaged)
        message = refused(data, tmp_path)
        assert "damaged" in message and "without --resume" in message
    path.write_bytes(whole)
    train(*arguments(data, tmp_path, "adam"), "--resume")


def test_nothing_to_resume(data, unbroken, tmp_path):
    done = train(*arguments(data, tmp_path, "keep"), "--resume")
    assert "begins at the beginning" in done.stderr
    assert weights(tmp_path) == unbroken["keep"][0]


def test_without_resume_anew(data, unbroken, tmp_path):
    stop_early(data, tmp_path)
    done = train(*arguments(data, tmp_path, "adam"))
    assert "did not end" in done.stderr and "resumed" not in done.stderr
    assert weights(tmp_path) == unbroken["adam"][0]


def test_off(data, tmp_path):
    values = {**settings("adam"), "checkpoint__every": "null", "checkpoint__enabled": "false"}
    done = fit(data, tmp_path, "--resume", check=False, **values)
    assert done.returncode == 1 and "checkpoint.enabled" in done.stderr
    fit(data, tmp_path, **values)
    assert len(bundles(tmp_path)) == 1


def test_divergence_leaves_the_last_good_one(data, tmp_path):
    """A rate that rises until training diverges, with checkpoints on the way there."""
    values = settings("adam", optimizer__type="sgd", optimizer__lr=100, optimizer__clip_norm="null",
                      optimizer__schedule="{warmup: 3000}", similarity="dot", optimizer__batch_size=64)
    done = fit(data, tmp_path, check=False, **{**values, "epochs": 60})
    assert done.returncode == 1
    message = done.stderr.strip().split("\n")[-1]
    assert "epoch" in message and "batch" in message and "step" in message and "optimizer.lr" in message
    assert (tmp_path / ".checkpoint").exists() and not (tmp_path / "current").exists()


def test_disk_full(data, tmp_path):
    """No room for checkpoints: a warning each, the model is trained all the same, and the checkpoint before stays."""
    small = tmp_path / "small"
    small.mkdir()
    need_root_mount(small, "1m")
    try:
        (small / ".checkpoint").write_bytes(b"the one before")
        (small / "filler").write_bytes(b"x" * 900_000)
        done = fit(data, small, check=False, **settings("adam"))
        assert done.stderr.count("No space left") > 1 and "training goes on" in done.stderr
        assert (small / ".checkpoint").read_bytes() == b"the one before"
        assert not (small / ".checkpoint.new").exists() and not (small / "current").exists()
    finally:
        subprocess.run(["umount", small], check=True)


def test_two_at_once(data, tmp_path):
    """The second fit of a directory keeps no checkpoint, and does not touch that of the first."""
    command = [str(a) for a in [harness.TRAIN, *arguments(data, tmp_path, "adam")]]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    harness.wait_for((tmp_path / ".checkpoint").exists, "a checkpoint")
    os.kill(first.pid, 19)  # SIGSTOP
    try:
        second = train(*arguments(data, tmp_path, "adam"))
        assert "keeps none" in second.stderr and (tmp_path / ".checkpoint").exists()
        assert "another fit" in refused(data, tmp_path)
    finally:
        first.kill()
        first.wait()
