"""recall-train index, embed, verify, inspect, publish: what they do to bundles, and what they leave alone."""

import json
import shutil
import struct
import subprocess

import pytest

import harness
from train_tools import bundles, digest, fit, make_data, manifest, read_npy, train, verify


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """models/ with two bundles, the later one current."""
    directory = tmp_path_factory.mktemp("bundle")
    data = make_data(directory / "data")
    fit(data, directory / "models", epochs=1)
    fit(data, directory / "models", epochs=1, seed=2)
    return directory / "models"


@pytest.fixture
def models(source, tmp_path):
    shutil.copytree(source, tmp_path / "models", symlinks=True)
    return tmp_path / "models"


# --- index ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments, engine, factory", [
    (["--engine", "flat"], "flat", ""),
    (["--engine", "native"], "native", ""),
    (["--factory", "HNSW16"], "faiss", "HNSW16"),
    (["--engine", "faiss", "--factory", "IVF8,Flat", "--threads", "2"], "faiss", "IVF8,Flat"),
    (["--factory", "HNSW16_SQ8", "--target-recall", "0.9"], "faiss", "HNSW16_SQ8"),
])
def test_index_through_the_link(models, tmp_path, arguments, engine, factory):
    before = (models / "current").resolve()
    content = {path: path.read_bytes() for path in before.rglob("*") if path.is_file()}
    done = train("index", models / "current", *arguments, "--report", tmp_path / "index.json")
    after = (models / "current").resolve()
    assert after != before and done.stdout.strip() == str(after)
    assert str((models / "current").readlink()) == after.name
    assert {path: path.read_bytes() for path in before.rglob("*") if path.is_file()} == content  # left alone
    record = json.loads((tmp_path / "index.json").read_text())
    assert record == manifest(after)["index"]
    assert (record["engine"], record["factory"]) == (engine, factory)
    assert record["recall@100"] >= 0.9 and record["build_seconds"] >= 0 and record["bytes_per_item"] >= 0
    for name in "weights.safetensors", "items/vectors.f32", "probes.json":
        assert digest(after, name) == digest(before, name)
    assert len(bundles(models)) == 3
    assert f"index {engine}" in verify(models / "current")


def test_index_of_a_link_with_a_slash(models):
    before = bundles(models)
    train("index", f"{models / 'current'}/", "--engine", "flat")
    assert all(bundle.exists() for bundle in before)
    assert str((models / "current").readlink()) == (models / "current").resolve().name
    assert manifest(models / "current")["index"]["engine"] == "flat"


def test_index_of_a_directory(models, tmp_path):
    """No link: the directory is exchanged in one step, and the old one is gone."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copytree((models / "current").resolve(), home / "served")
    version = manifest(home / "served")["version"]
    done = train("index", home / "served", "--engine", "flat")
    assert done.stdout.strip() == str(home / "served")
    assert sorted(p.name for p in home.iterdir()) == [".lock", "served"]
    assert manifest(home / "served")["index"]["engine"] == "flat"
    assert manifest(home / "served")["version"] != version
    assert not (home / "served" / "index").exists()
    verify(home / "served")
    train("index", home / "served", "--engine", "faiss")
    assert manifest(home / "served")["index"]["factory"] == "HNSW32"
    assert sorted(p.name for p in home.iterdir()) == [".lock", "served"]
    verify(home / "served")


def test_index_back_and_forth(models):
    """Flat and back: what is not given stays, and the file is the same again."""
    before = digest(models / "current", "index/native.index")
    train("index", models / "current", "--engine", "flat")
    assert "index/native.index" not in manifest(models / "current")["files"]
    train("index", models / "current", "--factory", "HNSW32", "--threads", 1)
    assert manifest(models / "current")["index"]["engine"] == "faiss"
    assert digest(models / "current", "index/faiss.index")
    train("index", models / "current", "--threads", 1)
    assert manifest(models / "current")["index"]["factory"] == "HNSW32"
    train("index", models / "current", "--engine", "native")
    assert digest(models / "current", "index/native.index") == before


def test_index_refuses(models):
    before = (models / "current").readlink()
    for arguments, status, words in [
            (["--factory", "Nonsense77"], 1, "Nonsense77"),
            (["--engine", "flat", "--factory", "HNSW32"], 1, "--factory"),
            (["--engine", "native", "--factory", "HNSW32"], 1, "--factory"),
            (["--engine", "foo"], 2, "no engine 'foo'"),
            (["--target-recall", "0"], 2, "--target-recall"),
            (["--target-recall", "nan"], 2, "--target-recall"),
            (["--target-recall", ""], 2, "--target-recall"),
            (["--threads", "0"], 2, "--threads"),
            (["--threads", "-1"], 2, "--threads"),
            (["--report", "/no/where/r.json"], 1, "/no/where/r.json"),
    ]:
        done = train("index", models / "current", *arguments, check=False)
        assert (done.returncode, done.stdout) == (status, "") and words in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert (models / "current").readlink() == before
    assert len(bundles(models)) == 2


def test_index_without_queries(models):
    """Another trainer's bundle may have none: item vectors take their place, with a warning."""
    bundle = (models / "current").resolve()
    subprocess.run(["/usr/bin/python3", "-c", """
import hashlib, json, pathlib, sys
bundle = pathlib.Path(sys.argv[1])
m = json.loads((bundle / "manifest.json").read_text())
del m["files"]["queries.f32"]
(bundle / "queries.f32").unlink()
m["fingerprint"] = "0" * 64
text = json.dumps(m)
(bundle / "manifest.json").write_text(text.replace("0" * 64, hashlib.sha256(text.encode()).hexdigest()))
""", bundle], check=True)
    done = train("index", models / "current", "--factory", "HNSW16")
    assert "queries.f32" in done.stderr
    verify(models / "current")


# --- embed ---------------------------------------------------------------------------------------------------------


def item_vectors(bundle):
    return (bundle.resolve() / "items" / "vectors.f32").read_bytes()


def test_embed_items_npy(models, tmp_path):
    train("embed", models / "current", "--side", "item", "--output", tmp_path / "items.npy")
    rows, dim, values = read_npy(tmp_path / "items.npy")
    assert (rows, dim) == (400, 32)
    assert values.tobytes() == item_vectors(models / "current")
    assert [p.name for p in tmp_path.iterdir() if "tmp" in p.name] == []


@pytest.mark.parametrize("to_file", [True, False])
def test_embed_items_jsonl(models, tmp_path, to_file):
    output = ["--output", tmp_path / "items.jsonl"] if to_file else []
    done = train("embed", models / "current", "--side", "item", *output)
    text = (tmp_path / "items.jsonl").read_text() if to_file else done.stdout
    lines = [json.loads(line) for line in text.splitlines()]
    assert b"".join(struct.pack("<32f", *line["vector"]) for line in lines) == item_vectors(models / "current")
    ids = [line["id"] for line in lines]
    assert len(set(ids)) == 400 and ids == sorted(ids)


def test_embed_items_from_features(models, tmp_path):
    """The features of items.csv as requests give the bundle's vectors."""
    import csv
    source = json.loads((models / "current" / "manifest.json").read_text())
    wanted = [feature["name"] for feature in source["schema"]["item_tower"]["features"]]
    by_id = {}
    with open(source["data"]["users"].replace("users.csv", "items.csv"), newline="") as items:
        for row in csv.DictReader(items):
            by_id[row["item_id"]] = {name: row[name] for name in wanted}
    lines = train("embed", models / "current", "--side", "item").stdout.splitlines()
    some = [json.loads(line) for line in lines[::7]]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(by_id[line["id"]]) + "\n" for line in some))
    train("embed", models / "current", "--side", "item", "--input", tmp_path / "in.jsonl", "--output",
          tmp_path / "out.npy")
    rows, dim, values = read_npy(tmp_path / "out.npy")
    assert rows == len(some)
    for i, line in enumerate(some):
        for got, expected in zip(values[i * dim:(i + 1) * dim], line["vector"]):
            assert abs(got - expected) < 1e-6


def test_embed_users(models, tmp_path):
    requests = [{"user_id": "1", "age": 30}, {}, {"user_id": "stranger", "history": ["1", "2"]}]
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps(r) for r in requests))  # no newline at the end
    done = train("embed", models / "current", "--side", "user", "--input", tmp_path / "in.jsonl")
    vectors = [json.loads(line)["vector"] for line in done.stdout.splitlines()]
    assert len(vectors) == 3 and all(len(v) == 32 for v in vectors)
    assert all(abs(sum(x * x for x in v) - 1) < 1e-5 for v in vectors)  # cosine
    train("embed", models / "current", "--side", "user", "--input", tmp_path / "in.jsonl", "--output",
          tmp_path / "out.npy")
    assert read_npy(tmp_path / "out.npy")[2].tobytes() == b"".join(struct.pack("<32f", *v) for v in vectors)


def test_embed_nothing(models, tmp_path):
    (tmp_path / "in.jsonl").write_text("")
    train("embed", models / "current", "--side", "user", "--input", tmp_path / "in.jsonl", "--output",
          tmp_path / "out.npy")
    assert read_npy(tmp_path / "out.npy")[:2] == (0, 32)


@pytest.mark.parametrize("line, words", [
    ('{"age": "old"}', "/age"),
    ('{"age": [1, 2]}', "/age"),
    ('{"colour": "red"}', "colour"),
    ('{"history": {"a": 1}}', "/history"),
    ('["age"]', "object"),
    ('{"age": 1', "JSON"),
    ('{"age": 1} {"age": 2}', "JSON"),
    ('{"age": 1, "age": 2}', "JSON"),
])
def test_embed_bad_line(models, tmp_path, line, words):
    (tmp_path / "in.jsonl").write_text('{"age": 3}\n' + line + "\n")
    (tmp_path / "out.npy").write_text("precious")
    done = train("embed", models / "current", "--side", "user", "--input", tmp_path / "in.jsonl", "--output",
                 tmp_path / "out.npy", check=False)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert f"{tmp_path / 'in.jsonl'}:2" in done.stderr and words in done.stderr
    assert (tmp_path / "out.npy").read_text() == "precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.jsonl", "models", "out.npy"]


def test_embed_cannot_write(models, tmp_path):
    done = train("embed", models / "current", "--side", "item", "--output", tmp_path / "no" / "out.npy", check=False)
    assert done.returncode == 1 and "no/out.npy" in done.stderr
    done = train("embed", models / "current", "--side", "user", "--input", tmp_path / "nothing", check=False)
    assert done.returncode == 1 and "nothing" in done.stderr
    done = train("embed", models / "current", "--side", "user", "--input", tmp_path, check=False)
    assert done.returncode == 1 and str(tmp_path) in done.stderr


# --- verify, inspect, publish -----------------------------------------------------------------------------------------


def test_verify_and_inspect(models):
    content = manifest(models / "current")
    assert content["version"] in verify(models / "current")
    assert json.loads(train("inspect", models / "current", "--json").stdout) == content
    text = train("inspect", models / "current").stdout
    for words in content["version"], "user tower", "history", "native", "recall@20", "cosine":
        assert words in text


def test_verify_names_the_damaged_file(models):
    bundle = (models / "current").resolve()
    for name in sorted(manifest(bundle)["files"]):
        path = bundle / name
        good = path.read_bytes()
        path.unlink()  # another file, since bundles may share theirs
        path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]) if good else b"x")
        done = train("verify", bundle, check=False)
        assert done.returncode == 1 and name in done.stderr and len(done.stderr.splitlines()) == 1
        path.write_bytes(good)
    verify(bundle)


def test_publish_and_rollback(models, tmp_path):
    old, new = sorted(bundles(models), key=lambda b: b != (models / "current").resolve(), reverse=True)
    assert (models / "current").resolve() == new
    done = train("publish", old, models / "current")
    assert manifest(old)["version"] in done.stdout
    assert str((models / "current").readlink()) == old.name
    train("publish", new, f"{models / 'current'}/")
    assert str((models / "current").readlink()) == new.name
    train("publish", models / "current", tmp_path / "live")  # through a link, from elsewhere: an absolute path
    assert (tmp_path / "live").readlink() == new
    train("publish", old.name, "fresh", cwd=models)
    assert str((models / "fresh").readlink()) == old.name


def test_publish_refuses(models, tmp_path):
    bundle, other = bundles(models)
    before = (models / "current").readlink()
    (bundle / "items" / "ids.strings").write_text("damaged")
    (tmp_path / "file").write_text("")
    for arguments, words in [
            ([bundle, models / "current"], "items/ids.strings"),
            ([tmp_path / "nothing", models / "current"], "nothing"),
            ([tmp_path, models / "current"], "manifest.json"),
            ([other, tmp_path / "no" / "link"], "no"),
            ([other, tmp_path / "file"], "not a symbolic link"),
            ([other, models], "not a symbolic link"),
    ]:
        done = train("publish", *arguments, check=False)
        assert done.returncode == 1 and words in done.stderr and len(done.stderr.splitlines()) == 1
    assert (models / "current").readlink() == before
    assert not [p for p in tmp_path.iterdir() if ".tmp" in p.name]


def test_publish_while_others_publish(models):
    """Links changed by several at once: never missing, never half."""
    old, new = bundles(models)
    processes = [subprocess.Popen([harness.TRAIN, "publish", bundle, models / "current"], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.PIPE) for bundle in [old, new] * 4]
    while any(process.poll() is None for process in processes):
        assert (models / "current").resolve() in (old, new)
    for process in processes:
        assert process.wait() == 0, process.stderr.read()
        process.stderr.close()
    assert len(bundles(models)) == 2


def test_sixty_four_zeros_are_no_fingerprint(tmp_path):
    """The fingerprint must go into its own member, also when the configuration's text holds 64 zeros."""
    data = make_data(tmp_path / "data")
    models = tmp_path / ("m" + "0" * 64)
    fit(data, models, epochs=1)
    verify(models / "current")
