"""recall-train ann-bench: every engine on any vectors."""

import json
import random
import struct

import pytest

from train_tools import train


def write_npy(path, rows, dim, numbers=None, header=None, cut=0, extra=b""):
    header = header or f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dim}), }}"
    head = header.encode()
    head += b" " * (-(10 + len(head) + 1) % 64) + b"\n"
    body = b"".join(struct.pack(f"<{len(r)}f", *r) for r in numbers or [])
    data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + body + extra
    path.write_bytes(data[:len(data) - cut])
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    home = tmp_path_factory.mktemp("npy")
    moments = random.Random(5)

    def draw(n):
        return [[moments.gauss(0, 1) for _ in range(8)] for _ in range(n)]
    return write_npy(home / "base.npy", 3000, 8, draw(3000)), write_npy(home / "queries.npy", 40, 8, draw(40))


def bench(*arguments, **more):
    return train("ann-bench", *arguments, **more)


def test_every_engine_at_every_target(files, tmp_path):
    report = tmp_path / "bench.json"
    done = bench(*files, "--k", 10, "--recall", "0.9,0.95", "--metric", "cosine", "--report", report)
    head, *lines = [line.split("\t") for line in done.stdout.splitlines()]
    rows = [dict(zip(head, line)) for line in lines]
    assert [(r["engine"], r["target"]) for r in rows] == [(e, t) for e in ("flat", "faiss", "native") for t in ("0.9", "0.95")]
    for r in rows:
        assert r["reached"] == "yes" and float(r["recall@10"]) >= float(r["target"])
        assert float(r["us a query"]) > 0 and float(r["queries/s"]) > 0
        assert (float(r["bytes a vector"]) == 0) == (r["engine"] == "flat")
    record = json.loads(report.read_text())["ann_bench"]
    assert (record["vectors"], record["dim"], record["queries"], record["k"]) == (3000, 8, 40, 10)
    for engine in record["engines"]:
        efforts = [point["effort"] for point in engine["curve"]]
        assert efforts == sorted(efforts)
    page = (tmp_path / "bench.html").read_text()
    assert "<svg" in page and "native" in page and "<script" not in page


def test_one_engine_and_a_factory(files):
    done = bench(*files, "--engine", "faiss", "--factory", "IVF16,Flat", "--recall", "0.9", "--threads", 2)
    line = done.stdout.splitlines()[1].split("\t")
    assert line[:4] == ["faiss", "IVF16,Flat", "0.9", "yes"]


def test_embed_writes_what_it_reads(models_npy):
    base = models_npy
    assert "native\t" in bench(base, base, "--engine", "native", "--k", 5).stdout


@pytest.fixture
def models_npy(world, tmp_path):
    train("embed", world.model_a, "--side", "item", "--output", tmp_path / "items.npy")
    return tmp_path / "items.npy"


@pytest.mark.parametrize("make, words", [
    (lambda p: p.write_bytes(b"1,2,3\n"), "not a .npy file"),
    (lambda p: write_npy(p, 2, 8, header="{'descr': '<f8', 'fortran_order': False, 'shape': (2, 8), }"), "not of float32"),
    (lambda p: write_npy(p, 2, 8, header="{'descr': '<f4', 'fortran_order': True, 'shape': (2, 8), }"), "not in C order"),
    (lambda p: write_npy(p, 2, 8, header="{'descr': '<f4', 'fortran_order': False, 'shape': (16,), }"), "not two-dimensional"),
    (lambda p: write_npy(p, 2, 8, header="{'descr': '<f4', 'fortran_order': False, 'shape': (2, 8, 1), }"), "not two-dimensional"),
    (lambda p: write_npy(p, 2, 8, [[1.0] * 8] * 2, cut=1), "another number of them"),
    (lambda p: write_npy(p, 2, 8, [[1.0] * 8] * 2, extra=b"x"), "another number of them"),
    (lambda p: write_npy(p, 2, 8, header="{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 8), }"),
     "not two-dimensional"),
    (lambda p: write_npy(p, 2**61, 8), "another number of them"),
    (lambda p: write_npy(p, 2, 0), "0 columns"),
    (lambda p: write_npy(p, 0, 8), "no vectors"),
    (lambda p: write_npy(p, 2, 4, [[1.0] * 4] * 2), "of 4 numbers"),
    (lambda p: write_npy(p, 2, 8, [[1.0] * 8, [float("nan")] * 8]), "row 1 has numbers that are not finite"),
    (lambda p: p.write_bytes(b"\x93NUMPY\x09\x00" + bytes(200)), "version 9"),
    (lambda p: p.write_bytes(b"\x93NUMPY\x01\x00\xff\xff" + bytes(20)), "cut"),
    (lambda p: p.write_bytes(b"\x93NUMPY"), "not a .npy file"),
    (lambda p: None, "No such file"),
])
def test_bad_files(files, tmp_path, make, words):
    make(tmp_path / "bad.npy")
    done = bench(tmp_path / "bad.npy", files[1], check=False)
    assert done.returncode == 1 and words in done.stderr and "bad.npy" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments, words", [
    ([], "two files"), (["--engine", "annoy"], "no engine 'annoy'"), (["--metric", "l2"], "no metric 'l2'"),
    (["--recall", "0.9,"], "--recall"), (["--recall", "2"], "--recall"), (["--k", "0"], "--k"),
    (["--engine", "native", "--factory", "HNSW32"], "factories"), (["--recall", ",".join(["0.9"] * 9)], "at most 8"),
])
def test_usage(files, arguments, words):
    done = bench(*(files if arguments else []), *arguments, check=False)
    assert done.returncode == 2 and words in done.stderr
