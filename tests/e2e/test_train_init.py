"""recall-train fit --init: yesterday's model for today's data."""

import array
import csv
import json
import shutil
import subprocess

import pytest

import harness
from train_tools import bundles, fit, make_data, manifest, sets, train

FLAT = {"threads": 2, "index__engine": "flat", "index__factory": "null", "index__target_recall": "null"}


def fit_file(config, models, *arguments, check=True, **values):
    return train("fit", config, *sets(output__dir=models, **FLAT, **values), *arguments, check=check)


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    """Directory with day1.yaml, the oldest 80 % of the clicks (and the users and items in them), and both.yaml, all of them."""
    directory = make_data(tmp_path_factory.mktemp("days") / "data", users=500, items=400, events=20000)
    rows = list(csv.reader(open(directory / "clicks.csv", newline="")))
    head, rows = rows[0], rows[1:]
    rows.sort(key=lambda row: int(row[head.index("ts")]))
    # users and items that only the second day knows: they are left out of the first
    late_users = set(sorted({row[0] for row in rows[:len(rows) // 2]})[7:30:10])
    late_items = set(sorted({row[1] for row in rows[:len(rows) // 2]})[5:26:10])
    assert len(late_users) == len(late_items) == 3
    first = [row for row in rows[:len(rows) * 8 // 10] if row[0] not in late_users and row[1] not in late_items]

    def write(name, lines):
        with open(directory / name, "w", newline="") as out:
            csv.writer(out).writerows([head, *lines])

    write("both.csv", rows)
    write("day1.csv", first)
    for name, late in ("users", late_users), ("items", late_items):
        table = list(csv.reader(open(directory / f"{name}.csv", newline="")))
        with open(directory / f"{name}1.csv", "w", newline="") as out:
            csv.writer(out).writerows([row for row in table if row[0] not in late])
    text = (directory / "train.yaml").read_text()
    split = "  split: {method: leave_last, n: 1}\n"
    assert split in text
    both = text.replace("clicks.csv", "both.csv").replace(split, "  split: {method: time, fraction: 0.1}\n")
    (directory / "both.yaml").write_text(both)
    (directory / "day1.yaml").write_text(text.replace("clicks.csv", "day1.csv").replace(split, "").replace(
        "users.csv", "users1.csv").replace("items.csv", "items1.csv"))
    fit_file(directory / "day1.yaml", directory / "day1", optimizer__epochs=6)
    return directory


def tensors(bundle):
    """Name: (shape, rows of floats) of weights.safetensors."""
    data = (bundle / "weights.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    found = {}
    for name, entry in json.loads(data[8:8 + length]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            found[name] = entry["shape"], array.array("f", data[8 + length + begin:8 + length + end])
    return found


def vocabulary(bundle, name):
    """Table row of each value of a vocabulary file (docs/bundle.md)."""
    data = (bundle / "vocab" / name).read_bytes()
    count = int.from_bytes(data[8:16], "little")
    offsets = [int.from_bytes(data[24 + 8 * i:32 + 8 * i], "little") for i in range(count + 1)]
    base = 24 + 8 * (count + 1)
    return {data[base + a:base + b].decode(): 2 + i for i, (a, b) in enumerate(zip(offsets, offsets[1:]))}


def metric(models):
    return manifest((models / "current").resolve())["metrics"]["recall@20"]


def test_one_epoch_more_beats_one_from_scratch(days, tmp_path):
    fit_file(days / "both.yaml", tmp_path / "scratch", optimizer__epochs=1)
    done = fit_file(days / "both.yaml", tmp_path / "more", "--init", days / "day1" / "current", optimizer__epochs=1,
                    optimizer__lr=0.03)
    assert "rows of its tables kept" in done.stderr
    assert metric(tmp_path / "more") > 1.2 * metric(tmp_path / "scratch")
    bundle, = bundles(tmp_path / "more")
    assert manifest(bundle)["train"]["init"] == (days / "day1" / "current").resolve().name


def test_begins_where_it_ended(days, tmp_path):
    """With a rate that moves nothing: rows of old values are where they were, wherever they stand; statistics stay."""
    fit_file(days / "both.yaml", tmp_path, "--init", days / "day1" / "current", optimizer__epochs=1,
             optimizer__lr=1e-6)
    old, new = (days / "day1" / "current").resolve(), (tmp_path / "current").resolve()
    before, after = tensors(old), tensors(new)
    moved = 0
    for name, (shape, values) in after.items():
        if "embedding" not in name:
            if shape == before[name][0]:
                assert max(abs(a - b) for a, b in zip(values, before[name][1])) < 1e-4
            continue
        file = f"{name.split('.')[0]}.{name.split('.')[2]}.strings"
        if not (new / "vocab" / file).exists():
            assert shape == before[name][0]
            assert max(abs(a - b) for a, b in zip(values, before[name][1])) < 1e-4
            continue
        dim = shape[1]
        rows, was = vocabulary(new, file), vocabulary(old, file)
        for value, row in rows.items():
            now = values[row * dim:(row + 1) * dim]
            if value in was:
                source = before[name][1][was[value] * dim:(was[value] + 1) * dim]
                assert max(abs(a - b) for a, b in zip(now, source)) < 1e-4
                moved += was[value] != row
            else:  # as in any training: init_scale 0.1
                assert 0.02 < (sum(x * x for x in now) / dim) ** 0.5 < 0.3
        if name in ("user.embedding.user_id", "item.embedding.item_id"):
            assert len(rows) == len(was) + 3
    assert moved > 100
    for tower in "user_tower", "item_tower":
        statistics = [[(f["name"], f.get("mean"), f.get("bounds")) for f in manifest(b)["schema"][tower]["features"]]
                      for b in (old, new)]
        assert statistics[0] == statistics[1]


def test_onehot_values_follow_their_columns(days, tmp_path):
    """A new one-hot value moves the columns of the first layer; its own begins at 0."""
    data = tmp_path / "data"
    shutil.copytree(days, data, ignore=shutil.ignore_patterns("day1"))
    table = list(csv.reader(open(data / "users.csv", newline="")))
    gender = table[0].index("gender")
    for row in table[1:40]:
        row[gender] = "a"  # before the others
    with open(data / "users.csv", "w", newline="") as out:
        csv.writer(out).writerows(table)
    fit_file(data / "both.yaml", tmp_path / "models", "--init", days / "day1" / "current", optimizer__epochs=1,
             optimizer__lr=1e-6)
    old, new = (days / "day1" / "current").resolve(), (tmp_path / "models" / "current").resolve()
    was, now = vocabulary(old, "user.gender.strings"), vocabulary(new, "user.gender.strings")
    assert "a" in now and "a" not in was
    (_, wide), weights = tensors(new)["user.network.0.weight"]
    (_, narrow), before = tensors(old)["user.network.0.weight"]
    assert wide == narrow + 1
    offset = 32  # of gender, behind the id's embedding
    for value, row in now.items():
        for unit in range(3):
            expected = before[unit * narrow + offset + was[value]] if value in was else 0
            assert abs(weights[unit * wide + offset + row] - expected) < 1e-4
    assert abs(weights[offset + 2 + len(now) + 5] - before[offset + 2 + len(was) + 5]) < 1e-4  # behind it: the next feature


def test_early_stop_begins_there_twice(days, tmp_path):
    done = fit_file(days / "both.yaml", tmp_path, "--init", days / "day1" / "current", optimizer__epochs=2,
                    optimizer__lr=0.01, optimizer__early_stop="{patience: 1}")
    assert done.stderr.count("rows of its tables kept") == 2  # the validation run, and the refit
    assert metric(tmp_path) > 0


@pytest.mark.parametrize("change,message", [
    ({"user_tower__features__0__dim": 16}, "dim of feature user_id is 16 here, and 32 there"),
    ({"user_tower__features__1__name": "city", "user_tower__features__2__name": "gender"}, "feature city is onehot here"),
    ({"user_tower__network__layers": "[16, 32]"}, "network.layers"),
    ({"user_tower__features__1": "null"}, "feature gender is not wanted here, and part of the model there"),
    ({"item_tower__features__2__buckets": 500}, "buckets of feature tags is 500 here, and 1000 there"),
    ({"user_tower__features__5__transform": "standardize"}, "feature spend is standardize here, and log there"),
    ({"user_tower__features__7": "{name: history, type: sequence, of: item_id, shared: true, last: 20}"},
     "feature history is shared here, and not there"),
    ({"similarity": "dot"}, "similarity is dot here, and cosine there"),
])
def test_what_differs_is_named(days, tmp_path, change, message):
    done = fit_file(days / "both.yaml", tmp_path, "--init", days / "day1" / "current", check=False, **change)
    assert done.returncode == 1 and message in done.stderr.strip().split("\n")[-1], done.stderr
    assert "without --init" in done.stderr and not (tmp_path / "current").exists()


def test_no_bundle(days, tmp_path):
    done = fit_file(days / "both.yaml", tmp_path, "--init", tmp_path, check=False)
    assert done.returncode == 1 and "--init" in done.stderr and "manifest.json" in done.stderr


def test_resume_knows_where_it_began(days, tmp_path):
    """A training with --init is killed, resumed to the weights of an unbroken one, and not taken for one without."""
    arguments = ["fit", days / "both.yaml", *sets(output__dir=tmp_path / "broken", **FLAT, checkpoint__every="1ms",
                                                  optimizer__epochs=4, optimizer__lr=0.03)]
    init = ["--init", days / "day1" / "current"]
    process = subprocess.Popen([str(a) for a in [harness.TRAIN, *arguments, *init]], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    harness.wait_for((tmp_path / "broken" / ".checkpoint").exists, "a checkpoint")
    process.kill()
    process.wait()
    done = train(*arguments, "--resume", check=False)
    assert done.returncode == 1 and "--init" in done.stderr
    train(*arguments, *init, "--resume")
    fit_file(days / "both.yaml", tmp_path / "whole", *init, optimizer__epochs=4, optimizer__lr=0.03)
    weights = [manifest((tmp_path / name / "current").resolve())["files"]["weights.safetensors"]["sha256"]
               for name in ("broken", "whole")]
    assert weights[0] == weights[1]
