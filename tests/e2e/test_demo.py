"""The demo without a network, and the example configurations."""

import csv
import json
import os
import pathlib
import re
import subprocess

import pytest

import harness

EXAMPLES = harness.ROOT / "docs/examples"
DEMO = EXAMPLES / "movielens/demo.sh"


def programs(directory):
    """A build directory of the test's own: the demo works below it."""
    for program in (harness.TRAIN, harness.RECALLD):
        (directory / program.name).symlink_to(program.resolve())
    return directory


def run_demo(build, *arguments, **environment):
    env = {**os.environ, "RECALLD_BUILD": str(build), "RECALLD_DEMO_OFFLINE": "1", **environment}
    env.update(harness.sanitizer_option("TSAN_OPTIONS", "report_bugs=0"))  # see World in conftest.py
    return subprocess.run([str(DEMO), *arguments], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=8 * harness.PATIENCE)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return run_demo(programs(tmp_path_factory.mktemp("build")))


def section(output, title):
    found = re.search(rf"^== {title}.*\n((?:(?!== ).*\n?)*)", output, re.MULTILINE)
    assert found, output
    return found.group(1)


def test_the_demo_ends_well_and_says_that_the_data_is_made_up(demo):
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "synthetic data instead of MovieLens 100K" in section(demo.stdout, "Data")
    assert "== Done: recalld has drained and stopped" in demo.stdout


def test_the_demo_says_where_the_page_is(demo):
    page, = re.findall(r"^The report, .*: (/.*\.html)$", section(demo.stdout, "Training"), re.MULTILINE)
    assert pathlib.Path(page).read_text().startswith("<!DOCTYPE html>")


def test_the_demo_beats_popularity(demo):
    rows = dict(re.findall(r"^ +(recall@20|ndcg@20) +(.*)$", section(demo.stdout, "How good it is"), re.MULTILINE))
    for name in ("recall@20", "ndcg@20"):
        model, popular = map(float, rows[name].split())
        assert model > 2 * popular


@pytest.mark.parametrize("title", ["Recalled for this user", "Recalled for somebody new", "Similar to"])
def test_the_demo_shows_ten_titles(demo, title):
    lines = re.findall(r"^ +(\d+) .(?: +-?\d\.\d{3}) +(\S.*), no\. \d+", section(demo.stdout, title), re.MULTILINE)
    assert [int(place) for place, _ in lines] == list(range(1, 11))


def test_a_demo_that_fails_says_one_line_and_where_the_log_is(tmp_path):
    build = tmp_path / "build"
    build.mkdir()
    done = run_demo(build)
    assert done.returncode == 1
    assert done.stderr == f"demo: {build}/recall-train is not there; run make first (log: {build}/demo/demo.log)\n"


def test_a_demo_whose_training_fails_says_why(tmp_path):
    build = programs(tmp_path)
    train = build / "recall-train"
    train.unlink()
    train.write_text(f'#!/bin/sh\n[ "$1" != fit ] || {{ echo "the disk is full" >&2; exit 1; }}\nexec {harness.TRAIN} "$@"\n')
    train.chmod(0o755)
    done = run_demo(build)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"demo: training failed: the disk is full (log: {build}/demo/demo.log)"


def test_a_wrong_argument_is_usage(tmp_path):
    assert run_demo(tmp_path, "--kepe").returncode == 2


def write_rows(path, rows, delimiter):
    with open(path, "w", newline="") as file:
        csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows(rows)


def pairs():
    """Every one of 12 users with 8 of 30 items."""
    return [(str(u), str((5 * u + 3 * i) % 30)) for u in range(12) for i in range(8)]


@pytest.mark.parametrize("name", ["train.yaml", "new-items.yaml"])
def test_the_movielens_configuration_trains(tmp_path, name):
    write_rows(tmp_path / "ml-100k.user", [("user_id:token", "age:token", "gender:token", "occupation:token")]
               + [(u, 20 + u, "MF"[u % 2], "writer") for u in range(12)], "\t")
    write_rows(tmp_path / "ml-100k.item", [("item_id:token", "movie_title:token_seq", "release_year:token",
                                            "class:token_seq")]
               + [(i, f"Film {i}", 1960 + i, "Action Drama") for i in range(28)]
               + [(28, "Film 28", "unkonwn", "Drama"), (29, "Film 29", "V", "")], "\t")
    write_rows(tmp_path / "ml-100k.inter", [("user_id:token", "item_id:token", "rating:float", "timestamp:float")]
               + [(u, i, 4 + n % 2, 1000 + n) for n, (u, i) in enumerate(pairs())] + [("1", "2", 3, 5000)], "\t")
    (tmp_path / name).write_text((EXAMPLES / "movielens" / name).read_text())
    harness.run(harness.TRAIN, "fit", tmp_path / name, "--set", "optimizer.epochs=1", "--report",
                tmp_path / "report.json", env={**os.environ, **harness.sanitizer_option("TSAN_OPTIONS", "report_bugs=0")})
    assert json.loads((tmp_path / "report.json").read_text())["metrics"]["users"] > 0


@pytest.mark.parametrize("name", ["gowalla.yaml", "gowalla-bilateral.yaml", "matrix-completion.yaml"])
def test_the_other_training_examples_train(tmp_path, name):
    rows = [("user_id", "item_id", "ts")] + [(u, i, 1000 + n) for n, (u, i) in enumerate(pairs())]
    write_rows(tmp_path / "events.csv", rows, ",")
    sets = ["--set", f"data.events.path={tmp_path}/events.csv", "--set", f"output.dir={tmp_path}/models",
            "--set", "optimizer.epochs=1"]
    if name.startswith("gowalla"):
        sets += ["--set", f"data.split.test={tmp_path}/events.csv"]
    harness.run(harness.TRAIN, "fit", EXAMPLES / name, *sets,
                env={**os.environ, **harness.sanitizer_option("TSAN_OPTIONS", "report_bugs=0")})
    harness.run(harness.TRAIN, "verify", tmp_path / "models/current")


def test_the_serving_example_is_a_good_configuration(world):
    done = harness.run(harness.RECALLD, "-c", EXAMPLES / "recalld.yaml", "-t", "--set",
                       f"models.default.path={world.model_a}")
    assert "the configuration is good" in done.stdout


def test_every_example_is_tested():
    known = {"gowalla.yaml", "gowalla-bilateral.yaml", "matrix-completion.yaml", "recalld.yaml", "movielens/train.yaml",
             "movielens/new-items.yaml"}
    assert {str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*.yaml")} == known
