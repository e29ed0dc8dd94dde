"""recall-train fit and eval: the report, the published bundle, repeatability, and metrics that can be had again."""

import copy
import json
import shutil
import subprocess

import pytest

import harness
from train_tools import (REPORT_METRICS, bundles, digest, fit, make_data, manifest, need_root_mount, sets, split_last,
                         train, verify)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("fit") / "data")


@pytest.fixture(scope="module")
def fitted(data, tmp_path_factory):
    """One fit with its report."""
    directory = tmp_path_factory.mktemp("fitted")
    done = fit(data, directory / "models", "--report", directory / "report.json", epochs=3)
    return directory / "models", json.loads((directory / "report.json").read_text()), done


def test_report(fitted):
    models, report, done = fitted
    for name in REPORT_METRICS:
        assert 0 <= report["metrics"][name] <= 1
        assert 0 <= report["baselines"]["popularity"][name] <= 1
    assert report["train"]["epochs"] == 3 and len(report["train"]["loss"]) == 3
    assert report["train"]["loss"][2] < report["train"]["loss"][0]
    assert report["train"]["examples_per_second"] > 0
    index = report["index"]
    assert index["engine"] == "native" and index["factory"] == "" and index["recall@100"] >= 0.98
    assert index["build_seconds"] >= 0 and index["bytes_per_item"] > 0
    assert done.stdout.strip() == report["bundle"]


def test_report_of_uncertainty_and_slices(fitted):
    _, report, done = fitted
    for name, (low, high) in report["metrics_ci"].items():
        assert low <= report["metrics"][name] <= high
    assert set(report["metrics_ci"]) == {name for name in report["metrics"] if "coverage" not in name} - {"users"}
    assert set(report["baselines_ci"]) == set(report["comparison"]) == set(report["baselines"])
    for name, values in report["comparison"].items():
        for metric in "recall@20", "ndcg@20":
            low, high = values[metric]["interval"]
            assert values[metric]["difference"] == pytest.approx(report["metrics"][metric]
                                                                 - report["baselines"][name][metric], abs=1e-6)
            assert low <= values[metric]["difference"] <= high and 0 <= values[metric]["better"] <= 1
    by = {}
    for part in report["slices"]:
        by.setdefault((part["side"], part["by"]), []).append(part)
        assert set(part["baselines"]) == set(report["baselines"])
        if part["users"] >= 10:
            assert part["recall@20_ci"][0] <= part["recall@20"] <= part["recall@20_ci"][1]
    assert {("user", "new_users"), ("item", "new_items"), ("item", "popularity"), ("user", "gender"),
            ("item", "category")} <= set(by)
    users = by["user", "gender"]  # a partition: the mean of its parts is the whole
    assert sum(part["users"] for part in users) == report["metrics"]["users"]
    assert sum(part["users"] * part["recall@20"] for part in users) / report["metrics"]["users"] == pytest.approx(
        report["metrics"]["recall@20"], abs=1e-6)
    assert set(report["popularity_bias"]) == {"test", "model"} | set(report["baselines"])
    for bias in report["popularity_bias"].values():
        assert bias["average_popularity"] > 0 and 0 <= bias["gini"] < 1 and 0 < bias["coverage"] <= 1
    assert report["popularity_bias"]["model"]["coverage"] == report["metrics"]["coverage@20"]
    assert report["evaluation"]["protocol"] == "full" and not report["evaluation"]["sampled"]


def test_some_users_are_enough(data, tmp_path):
    done = fit(data, tmp_path / "models", "--report", tmp_path / "r.json", epochs=1, evaluate__max_users=50,
               evaluate__slices="[category]")
    report = json.loads((tmp_path / "r.json").read_text())
    assert "random sample of 50 of" in done.stderr
    assert report["metrics"]["users"] == report["evaluation"]["users"] == 50 and report["evaluation"]["sampled"]
    assert {part["by"] for part in report["slices"]} == {"new_users", "new_items", "popularity", "category"}


def test_baselines(data, tmp_path):
    """Those that are asked for; without asking, matrix completion where the model is more than that."""
    def baselines(**values):
        fit(data, tmp_path / "models", "--report", tmp_path / "r.json", epochs=1, **values)
        return list(json.loads((tmp_path / "r.json").read_text())["baselines"])
    assert baselines() == ["popularity", "item_cf", "matrix_completion"]
    assert baselines(evaluate__baselines="[item_cf]") == ["item_cf"]
    ids = {f"{side}_tower": f"{{features: [{{name: {side}_id, type: id, dim: 8}}]}}" for side in ("user", "item")}
    assert baselines(**ids) == ["popularity", "item_cf"]
    assert baselines(evaluate__baselines="[matrix_completion, popularity]", **ids) == ["popularity", "matrix_completion"]


def test_published(fitted):
    models, report, _ = fitted
    bundle, = bundles(models)
    assert str(bundle) == report["bundle"]
    assert (models / "current").is_symlink() and str((models / "current").readlink()) == bundle.name
    content = manifest(bundle)
    assert content["version"] == bundle.name
    assert content["metrics"] == pytest.approx(report["metrics"], rel=1e-8)  # a report has nine digits
    assert bundle.name in verify(models / "current")


def test_moved_as_a_whole(fitted, tmp_path):
    shutil.copytree(fitted[0], tmp_path / "elsewhere", symlinks=True)
    assert "ok" in verify(tmp_path / "elsewhere" / "current")


def test_report_to_stdout(data, tmp_path):
    done = fit(data, tmp_path / "models", "--report", "-", epochs=1)
    text, _, path = done.stdout.rstrip().rpartition("\n")
    assert json.loads(text)["bundle"] == path


def test_same_seed_same_weights(data, fitted, tmp_path):
    first, = bundles(fitted[0])
    threads = len(manifest(first)["train"]["loss"]) and manifest(first)["train"]["threads"]
    fit(data, tmp_path / "same", epochs=3, threads=threads)
    fit(data, tmp_path / "other", epochs=3, threads=threads, seed=2)
    same, other = bundles(tmp_path / "same")[0], bundles(tmp_path / "other")[0]
    for name in "weights.safetensors", "items/vectors.f32", "probes.json", "queries.f32":
        assert digest(same, name) == digest(first, name)
        assert digest(other, name) != digest(first, name)


@pytest.fixture(scope="module")
def by_files(data, tmp_path_factory):
    """The same data with the split in two files, fitted; (directory, report)."""
    directory = tmp_path_factory.mktemp("files")
    for name in "users.csv", "items.csv", "train.yaml":
        shutil.copy(data / name, directory)
    split_last(data, directory / "seen.csv", directory / "test.csv")
    fit(directory, directory / "models", "--report", directory / "report.json", epochs=3,
        data__events__path=directory / "seen.csv", data__split=f"{{method: file, test: {directory / 'test.csv'}}}")
    return directory, json.loads((directory / "report.json").read_text())


def test_split_by_file_is_the_split(fitted, by_files):
    assert by_files[1]["metrics"] == fitted[1]["metrics"]
    for name in "popularity", "item_cf":  # matrix completion cuts its validation part as the test part was cut
        assert by_files[1]["baselines"][name] == fitted[1]["baselines"][name]


def test_eval_reproduces_fit(by_files, tmp_path):
    directory, report = by_files[0], copy.deepcopy(by_files[1])
    train("eval", directory / "models" / "current", "--test", directory / "test.csv", "--exclude",
          directory / "seen.csv", "--report", tmp_path / "eval.json")
    again = json.loads((tmp_path / "eval.json").read_text())
    for member in "baselines", "popularity_bias", "comparison":  # eval does not train
        assert report[member].pop("matrix_completion")
    for member in "metrics", "baselines", "popularity_bias", "evaluation":
        assert again[member] == report[member], member
    assert len(again["slices"]) == len(report["slices"]) > 20
    for ours, theirs in zip(again["slices"], report["slices"]):  # intervals differ: users come in another order
        assert all(part.pop("recall@20_ci") and part.pop("ndcg@20_ci") for part in (ours, theirs) if part["users"] >= 10)
        assert theirs["baselines"].pop("matrix_completion") and ours["baselines"] == theirs["baselines"]
        for name in set(ours) - {"recall@20_ci", "ndcg@20_ci", "baselines"}:
            assert ours[name] == (pytest.approx(theirs[name]) if "@" in name else theirs[name]), (ours, theirs)


def test_eval_popularity_is_of_all_users(by_files, tmp_path):
    """Users that are only in the excluded pairs count in popularity and in what is alike."""
    directory, _ = by_files
    lines = (directory / "test.csv").read_text().splitlines()
    (tmp_path / "few.csv").write_text("\n".join(lines[:12]) + "\n")
    bias = []
    for test in tmp_path / "few.csv", directory / "test.csv":
        train("eval", directory / "models" / "current", "--test", test, "--exclude", directory / "seen.csv",
              "--report", tmp_path / "r.json")
        bias.append(json.loads((tmp_path / "r.json").read_text())["popularity_bias"]["popularity"]["average_popularity"])
    assert bias[0] == pytest.approx(bias[1], rel=0.1)  # the same list but for what each has seen


def test_eval_slices(by_files, tmp_path):
    directory, report = by_files
    arguments = ["eval", directory / "models" / "current", "--test", directory / "test.csv", "--report",
                 tmp_path / "r.json"]
    train(*arguments, "--slices", "gender,category", "--max-users", 40, "--protocol", "full")
    again = json.loads((tmp_path / "r.json").read_text())
    assert {part["by"] for part in again["slices"]} == {"gender", "category"}  # without --exclude nothing is new
    assert again["metrics"]["users"] == 40 and again["baselines"] == {} and again["popularity_bias"] == {}
    done = train(*arguments, "--slices", "gender,age", check=False)
    assert done.returncode == 1 and "age" in done.stderr and "--slices" in done.stderr
    done = train(*arguments, "--protocol", "sampled", check=False)
    assert done.returncode == 2 and "Krichene" in done.stderr


def test_eval_cutoffs(by_files):
    directory, report = by_files
    done = train("eval", directory / "models" / "current", "--test", directory / "test.csv", "--exclude",
                 directory / "seen.csv", "--k", "10,20", "--threads", 3)
    table = {line.split("\t")[0]: line.split("\t")[1:] for line in done.stdout.splitlines()}
    assert table.pop("metric") == ["model", "low", "high", "popularity", "item_cf"]
    assert set(table) == {"recall@10", "recall@20", "ndcg@10", "ndcg@20", "hit_rate@10", "hit_rate@20", "coverage@10",
                          "coverage@20", "mrr", "users"}
    for name, (model, low, high, popular, item_cf) in table.items():
        if name == "users" or name.startswith("coverage"):
            assert low == high == ""
        else:
            assert float(low) <= float(model) <= float(high)
        assert float(model) == pytest.approx(report["metrics"][name], rel=1e-5)
        assert float(popular) == pytest.approx(report["baselines"]["popularity"][name], rel=1e-5)
        assert float(item_cf) == pytest.approx(report["baselines"]["item_cf"][name], rel=1e-5)


def test_eval_without_exclude(by_files):
    directory, _ = by_files
    done = train("eval", directory / "models" / "current", "--test", directory / "test.csv")
    assert done.stdout.startswith("metric\tmodel\tlow\thigh\n")


def test_eval_without_the_users_file(by_files, tmp_path):
    """The users file of the training is gone: an error that says so, and --users helps."""
    directory, report = by_files
    moved = tmp_path / "users.csv"
    shutil.move(directory / "users.csv", moved)
    try:
        arguments = ["eval", directory / "models" / "current", "--test", directory / "test.csv", "--exclude",
                     directory / "seen.csv"]
        done = train(*arguments, check=False)
        assert done.returncode == 1 and "--users" in done.stderr and "users.csv" in done.stderr
        train(*arguments, "--users", moved, "--report", tmp_path / "eval.json")
        assert json.loads((tmp_path / "eval.json").read_text())["metrics"] == report["metrics"]
    finally:
        shutil.move(moved, directory / "users.csv")


def test_the_test_part_changes_nothing(by_files, tmp_path):
    """Another test file: the same weights, epochs and vocabularies."""
    directory, _ = by_files
    lines = (directory / "test.csv").read_text().splitlines()
    (tmp_path / "test.csv").write_text("\n".join([lines[0]] + lines[1:20] + ["nobody,nothing,99999999999"]) + "\n")
    fit(directory, tmp_path / "models", epochs=3, data__events__path=directory / "seen.csv",
        data__split=f"{{method: file, test: {tmp_path / 'test.csv'}}}")
    ours, theirs = bundles(tmp_path / "models")[0], bundles(directory / "models")[0]
    names = [name for name in manifest(ours)["files"] if name.startswith(("weights", "vocab", "items"))]
    assert len(names) > 5
    for name in names:
        assert digest(ours, name) == digest(theirs, name)


def test_early_stopping(data, tmp_path):
    fit(data, tmp_path / "models", "--report", tmp_path / "report.json", epochs=12,
        optimizer__early_stop="{metric: ndcg@30, patience: 2}")
    record = json.loads((tmp_path / "report.json").read_text())["train"]
    values = record["validation"]
    best = values.index(max(values)) + 1
    assert record["best_epoch"] == best == record["epochs"] == len(record["loss"])
    assert len(values) == min(best + 2, 12) and record["validation_metric"] == "ndcg@30"


def test_matrix_completion(data, tmp_path):
    """Ids, dot, no network, no users or items file."""
    config = tmp_path / "ids.yaml"
    config.write_text(f"""
data:
  events: {{path: {data / 'clicks.csv'}, user: user_id, item: item_id, time: ts}}
  split: {{method: leave_last}}
user_tower: {{features: [{{name: user_id, type: id, dim: 16}}]}}
item_tower: {{features: [{{name: item_id, type: id, dim: 16}}]}}
similarity: dot
loss: {{temperature: 1}}
optimizer: {{epochs: 3, lr: 0.1}}
""")
    train("fit", config, "--report", "r.json", cwd=tmp_path)
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["train"]["loss"][-1] < report["train"]["loss"][0]
    assert (tmp_path / "models" / "current").is_symlink()  # beside the configuration
    assert "ok" in verify(tmp_path / "models" / "current")


def test_without_test_part(data, tmp_path):
    done = fit(data, tmp_path / "models", "--report", "-", epochs=1, data__split="null")
    report = json.loads(done.stdout.rstrip().rpartition("\n")[0])
    assert report["metrics"] == {} and report["baselines"] == {}
    assert "ok" in verify(tmp_path / "models" / "current")


def test_two_at_once(data, tmp_path):
    """Two fits into one directory: one after the other they publish, and both are there."""
    command = [harness.TRAIN, "fit", data / "train.yaml"]
    processes = [subprocess.Popen([*command, *sets(output__dir=tmp_path / "models", optimizer__epochs=1, seed=seed)],
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for seed in (1, 2, 3)]
    outputs = [process.communicate(timeout=4 * harness.PATIENCE) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    found = bundles(tmp_path / "models")
    assert sorted(out.strip() for out, _ in outputs) == [str(bundle) for bundle in found] and len(found) == 3
    for bundle in found + [tmp_path / "models" / "current"]:
        verify(bundle)


def test_leftovers_are_cleared(data, tmp_path):
    models = tmp_path / "models"
    (models / ".tmp-123" / "items").mkdir(parents=True)
    (models / ".tmp-123" / "items" / "ids.strings").write_text("half")
    gone = subprocess.Popen(["true"])
    gone.wait()
    (models / f"current.tmp-{gone.pid}-0").symlink_to("nothing")
    fit(data, models, epochs=1)
    assert len(bundles(models)) == 1


# --- a full disk ---------------------------------------------------------------------------------------------------


def check_untouched(models, before, done):
    assert done.returncode == 1
    assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == 1
    assert (models / "current").readlink() == before
    for bundle in bundles(models):
        verify(bundle)


@pytest.mark.parametrize("kilobytes", [1, 4, 16, 48, 64])
def test_file_size_limit(data, fitted, tmp_path, kilobytes):
    models = tmp_path / "models"
    shutil.copytree(fitted[0], models, symlinks=True)
    before = (models / "current").readlink()
    done = harness.run("bash", "-c", f'ulimit -f {kilobytes}; exec "$@"', "-", harness.TRAIN, "fit",
                       data / "train.yaml", *sets(output__dir=models, optimizer__epochs=1), check=False)
    check_untouched(models, before, done)
    assert "File too large" in done.stderr and str(models) in done.stderr


@pytest.mark.parametrize("kilobytes", [48, 150, 300])
def test_full_disk(data, fitted, tmp_path, kilobytes):
    """Whatever does not fit any more: vocabularies, vectors, index or manifest."""
    source = tmp_path / "source"
    shutil.copytree(fitted[0], source, symlinks=True)
    used = sum((f.stat().st_size + 4095) // 4096 * 4 + 4 for f in source.rglob("*"))
    models = tmp_path / "models"
    models.mkdir()
    need_root_mount(models, f"{used + kilobytes}k")
    try:
        shutil.copytree(source, models, symlinks=True, dirs_exist_ok=True)
        before = (models / "current").readlink()
        for command in (["fit", data / "train.yaml", *sets(output__dir=models, optimizer__epochs=1)],
                        ["index", models / "current", "--factory", "HNSW64"]):
            if command[0] == "index" and kilobytes > 48:
                continue  # links cost nothing, and the index fits
            done = train(*command, check=False)
            check_untouched(models, before, done)
            assert "No space left" in done.stderr
    finally:
        subprocess.run(["umount", models], check=True)


def test_full_stdout(fitted):
    with open("/dev/full", "w") as full:
        for command in (["inspect", fitted[0] / "current", "--json"], ["inspect", fitted[0] / "current"],
                        ["embed", fitted[0] / "current", "--side", "item"], ["--help"], ["fit", "--help"]):
            done = subprocess.run([harness.TRAIN, *command], stdout=full, stderr=subprocess.PIPE, text=True)
            assert done.returncode == 1 and "stdout" in done.stderr


@pytest.mark.parametrize("tower, feature, table", [("user_tower", "category", "items.csv"),
                                                   ("item_tower", "gender", "users.csv")])
def test_a_column_of_the_other_side_is_early_fusion(tmp_path, tower, feature, table):
    data = make_data(tmp_path / "data")
    done = fit(data, tmp_path / "models", check=False, **{f"{tower}__features__1__name": feature})
    assert done.returncode == 1 and not (tmp_path / "models").exists()
    assert feature in done.stderr and table in done.stderr and "late fusion" in done.stderr
    assert "nearest-neighbour" in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_features_that_say_nothing_are_named(tmp_path):
    """A number that never changes, a column without values, one value for all: each a warning with the fix; the fit goes on."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "users.csv").write_text("user_id,age,city,group\n" + "".join(f"u{i},41,,all\n" for i in range(30)))
    (data / "clicks.csv").write_text("user_id,item_id,ts\n" + "".join(
        f"u{i},i{(i + j) % 12},{100 * i + j}\n" for i in range(30) for j in range(4)))
    (data / "train.yaml").write_text(f"""
data:
  users: {{path: {data}/users.csv, id: user_id}}
  events: {{path: {data}/clicks.csv, user: user_id, item: item_id, time: ts}}
  split: {{method: leave_last, n: 1}}
user_tower:
  features:
    - {{name: user_id, type: id, dim: 4}}
    - {{name: age, type: numeric, transform: standardize}}
    - {{name: city, type: categorical, dim: 4}}
    - {{name: group, type: categorical, dim: 4}}
  network: {{type: mlp, layers: [4]}}
item_tower: {{features: [{{name: item_id, type: id, dim: 4}}], network: {{type: none}}}}
""")
    done = fit(data, tmp_path / "models", epochs=1)
    lines = done.stderr.splitlines()

    def warned(name, what):
        return any(f"user feature {name}: " in line and what in line for line in lines)

    assert warned("age", "the number is 41 in all 30 rows that have one: it cannot help; leave it out")
    assert warned("city", "no value in any of the 30 rows with train events: it cannot help; check the column")
    assert warned("group", "the same value in all 30 rows: it cannot help; leave it out")
    assert not warned("user_id", "")
    verify(bundles(tmp_path / "models")[0])
