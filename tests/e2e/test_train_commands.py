"""The command line of recall-train: help, usage, and what each error says."""

import json

import pytest

import harness
from train_tools import make_data, sets, train

COMMANDS = ["fit", "eval", "index", "embed", "verify", "inspect", "publish", "synth"]


def test_help():
    for arguments in ["--help"], ["-h"], ["help"]:
        done = train(*arguments)
        assert all(f"\n  {command} " in done.stdout for command in COMMANDS) and done.stderr == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of(command):
    for option in "--help", "-h":
        done = train(command, option)
        assert done.stdout.startswith(f"usage: recall-train {command} ") and done.stderr == ""
        assert max(map(len, done.stdout.splitlines())) <= 120


@pytest.mark.parametrize("arguments, words", [
    ([], "which command"),
    (["nosuch"], "no command 'nosuch'"),
    (["--nosuch"], "no command '--nosuch'"),
    ([""], "no command ''"),
    (["fit"], "configuration file"),
    (["fit", "a", "b"], "configuration file"),
    (["fit", "--nope", "x"], "no option '--nope'"),
    (["fit", "x", "--set"], "--set needs a value"),
    (["fit", "-x", "y"], "no option '-x'"),
    (["eval", "b"], "--test"),
    (["eval", "--test", "t"], "one bundle"),
    (["eval", "b", "--test", "t", "--k", "20,10"], "--k"),
    (["eval", "b", "--test", "t", "--k", "10,10"], "--k"),
    (["eval", "b", "--test", "t", "--k", "0"], "--k"),
    (["eval", "b", "--test", "t", "--k", "1001"], "--k"),
    (["eval", "b", "--test", "t", "--k", ""], "--k"),
    (["eval", "b", "--test", "t", "--k", "10,"], "--k"),
    (["eval", "b", "--test", "t", "--k", "+10"], "--k"),
    (["eval", "b", "--test", "t", "--k", ",".join(map(str, range(1, 18)))], "--k"),
    (["eval", "b", "--test", "t", "--threads", "x"], "--threads"),
    (["eval", "b", "--test", "t", "--protocol", "sampled"], "--max-users"),
    (["eval", "b", "--test", "t", "--protocol", "other"], "--protocol"),
    (["eval", "b", "--test", "t", "--slices", ","], "--slices"),
    (["eval", "b", "--test", "t", "--max-users", "0"], "--max-users"),
    (["index"], "one bundle"),
    (["embed", "b"], "--side"),
    (["embed", "b", "--side", "both"], "--side is user or item"),
    (["embed", "b", "--side", "user"], "--input"),
    (["verify"], "one bundle"),
    (["verify", "a", "b"], "one bundle"),
    (["verify", "--json", "a"], "--json"),
    (["publish", "a"], "a bundle and a link"),
    (["inspect"], "one bundle"),
    (["synth"], "one directory"),
    (["synth", "d", "--users", "0"], "--users"),
    (["synth", "d", "--items", "many"], "--items"),
    (["synth", "d", "--events", "1e6"], "--events"),
    (["synth", "d", "--seed", "-1"], "--seed"),
])
def test_usage(arguments, words, tmp_path):
    done = train(*arguments, check=False, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert words in done.stderr and "--help" in done.stderr and len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("commands") / "data", users=30, items=40, events=300)


@pytest.mark.parametrize("command", [["eval", "--test", "t"], ["index"], ["embed", "--side", "item"], ["verify"],
                                     ["inspect"]])
def test_no_bundle(command, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "file").write_text("{}")
    for name in "missing", "empty", "dangling", "file":
        done = train(command[0], tmp_path / name, *command[1:], check=False)
        assert done.returncode == 1 and done.stdout == ""
        assert str(tmp_path / name) in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("values, words", [
    ({"data.events.path": "nowhere.csv"}, ["data.events.path", "nowhere.csv"]),
    ({"optimizer.lr": "-1"}, ["optimizer.lr"]),
    ({"optimizer.epohcs": "3"}, ["optimizer.epohcs", "optimizer.epochs"]),
    ({"optimizer.early_stop": "{metric: recall@0}"}, ["early_stop.metric"]),
    ({"negatives.in_batch": "false"}, ["negatives"]),
    ({"user_tower.features.0.name": "item_id"}, ["early fusion"]),
])
def test_configuration(data, tmp_path, values, words):
    arguments = [a for key, value in values.items() for a in ("--set", f"{key}={value}")]
    done = train("fit", data / "train.yaml", *arguments, "--set", f"output.dir={tmp_path / 'models'}", check=False)
    assert done.returncode == 1 and done.stdout == ""
    for word in words:
        assert word in done.stderr
    assert not (tmp_path / "models").exists()


def test_no_configuration(tmp_path):
    done = train("fit", tmp_path / "no.yaml", check=False)
    assert done.returncode == 1 and "no.yaml" in done.stderr and len(done.stderr.splitlines()) == 1


def test_report_is_checked_before_the_work(data, tmp_path):
    for path, words in ("/no/where/r.json", "No such file"), (tmp_path, "directory"):
        done = train("fit", data / "train.yaml", *sets(output__dir=tmp_path / "models"), "--report", path, check=False)
        assert done.returncode == 1 and str(path) in done.stderr and words in done.stderr
        assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "models").exists()


def test_output_cannot_be_made(data, tmp_path):
    (tmp_path / "file").write_text("")
    done = train("fit", data / "train.yaml", *sets(output__dir=tmp_path / "file" / "models", optimizer__epochs=1),
                 check=False)
    assert done.returncode == 1 and str(tmp_path / "file") in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")


def test_diverging(data, tmp_path):
    """A learning rate from another planet: an error that names epoch and batch, and nothing published."""
    done = train("fit", data / "train.yaml", check=False,
                 *sets(output__dir=tmp_path / "models", optimizer__lr=100, optimizer__init_scale=10, similarity="dot",
                       loss__temperature=0.001, optimizer__type="adam", index__engine="flat", index__factory="null"))
    assert done.returncode == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    assert "epoch" in last and "optimizer.lr" in last
    assert not (tmp_path / "models" / "current").exists()


def test_scale_that_runs_away(data, tmp_path):
    """A learned temperature that falls below .05 gets a warning that names it; one that stays above gets none."""
    for lr, start, warns in (0.001, 0.04, True), (0.001, 0.2, False):
        report = tmp_path / f"{lr}.json"
        done = train("fit", data / "train.yaml", *sets(output__dir=tmp_path / "models", optimizer__lr=lr, optimizer__epochs=3, loss__learn="true",
                                                       loss__temperature=start, index__engine="flat", index__factory="null"), "--report", report)
        temperature = json.loads(report.read_text())["train"]["temperature"]
        assert (temperature < 0.05) == warns
        assert (f"(temperature {temperature:.3g})" in done.stderr) == warns == ("loss.learn" in done.stderr)


def test_parameters():
    lines = train("fit", "--parameters").stdout.splitlines()
    assert len(lines) > 50 and all(len(line.split("\t")) == 8 for line in lines)


def test_synth(tmp_path):
    done = train("synth", tmp_path / "a", "--users", 20, "--items", 30, "--events", 100, "--seed", 9)
    assert done.stdout.strip() == str(tmp_path / "a" / "train.yaml")
    train("synth", tmp_path / "b", "--users", 20, "--items", 30, "--events", 100, "--seed", 9)
    names = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert names == ["clicks.csv", "items.csv", "train.yaml", "users.csv"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    done = train("synth", "/proc/nowhere", check=False)
    assert done.returncode == 1 and "/proc/nowhere" in done.stderr
