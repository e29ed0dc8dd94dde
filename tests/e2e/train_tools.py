"""What the tests of recall-train share: a small data set, its split as files, and looking at bundles."""

import array
import csv
import json
import os

import pytest

import harness

REPORT_METRICS = ["recall@20", "ndcg@20", "hit_rate@10", "mrr", "coverage@20"]


def train(*arguments, check=True, **more):
    return harness.run(harness.TRAIN, *arguments, check=check, **more)


def sets(**values):
    """--set arguments; double underscores in names are dots."""
    arguments = []
    for name, value in values.items():
        arguments += ["--set", f"{name.replace('__', '.')}={value}"]
    return arguments


def fit(data, output, *arguments, check=True, epochs=2, **values):
    return train("fit", data / "train.yaml", *sets(output__dir=output, optimizer__epochs=epochs, **values), *arguments,
                 check=check)


def make_data(directory, users=200, items=400, events=5000, seed=4):
    train("synth", directory, "--users", users, "--items", items, "--events", events, "--seed", seed)
    return directory


def split_last(data, train_file, test_file):
    """Each user's last click for the test, as train.yaml's leave_last does it."""
    with open(data / "clicks.csv", newline="") as clicks:
        rows = list(csv.reader(clicks))
    last = {row[0]: i for i, row in enumerate(rows) if i > 0}  # in order of time
    count = {}
    for row in rows[1:]:
        count[row[0]] = count.get(row[0], 0) + 1
    for path, wanted in (train_file, False), (test_file, True):
        with open(path, "w", newline="") as out:
            writer = csv.writer(out)
            writer.writerow(rows[0])
            for i, row in enumerate(rows[1:], 1):
                if (last[row[0]] == i and count[row[0]] > 1) == wanted:
                    writer.writerow(row)


def read_npy(path):
    """(rows, dim, float32 values) of a .npy file of version 1."""
    data = path.read_bytes()
    assert data[:8] == b"\x93NUMPY\x01\x00"
    length = int.from_bytes(data[8:10], "little")
    assert (10 + length) % 64 == 0 and data[10 + length - 1:10 + length] == b"\n"
    header = eval(data[10:10 + length].decode(), {"__builtins__": {}})  # a literal that our own program wrote
    assert header["descr"] == "<f4" and header["fortran_order"] is False
    values = array.array("f", data[10 + length:])
    assert len(values) == header["shape"][0] * header["shape"][1]
    return *header["shape"], values


def manifest(bundle):
    return json.loads((bundle / "manifest.json").read_text())


def bundles(models):
    """Everything that a reader could take for a bundle; nothing else may be lying about."""
    found = []
    for entry in sorted(models.iterdir()):
        if entry.name in (".lock", "current"):
            continue
        assert entry.is_dir() and not entry.is_symlink() and not entry.name.startswith("."), f"left over: {entry}"
        found.append(entry)
    return found


def verify(bundle):
    return train("verify", bundle).stdout


def digest(bundle, name):
    return manifest(bundle)["files"][name]["sha256"]


def need_root_mount(directory, size):
    """Mounts a small tmpfs or skips the test."""
    import subprocess
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", directory],
                                           capture_output=True).returncode != 0:
        pytest.skip("cannot mount a small file system here")
