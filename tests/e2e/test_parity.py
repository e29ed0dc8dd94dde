"""The daemon computes what the trainer computes: /embed against `recall-train embed`, to 1e-6, and the same refusals."""

import json
import random

import pytest

import harness

CITIES = ["city01", "city05", "city13", "Atlantis", "", None, "Łódź", 7]
TOPICS = ["nature", "fantasy", "comedy", "unheard-of", "", "日本", "a b"]


def some(r, *choices):
    return r.choice(choices)


def make_user(r):
    """Features of every type: present, missing, unknown, extreme, as text or as a number."""
    user = {
        "user_id": some(r, str(r.randint(1, 300)), r.randint(1, 300), "stranger", 10**15, "", None),
        "gender": some(r, "m", "f", "x", "", None),
        "city": r.choice(CITIES),
        "topics": some(r, "|".join(r.sample(TOPICS, 3)), r.sample(TOPICS, 2) + [None], [], None, "nature", [3, "war"]),
        "age": some(r, r.randint(10, 90), str(r.randint(10, 90)), 1e9, -1e9, 0, 33.25, "4.5e1", None, ""),
        "spend": some(r, round(r.expovariate(0.01), 2), 0, "12.50", 1e30, None),
        "activity": some(r, r.randint(0, 100), -5, 1e12, 0.5, None),
        "history": some(r, [str(r.randint(1, 2000)) for _ in range(r.randint(0, 40))],
                        [r.randint(1, 1500) for _ in range(5)], [], None, [None, "1", ""]),
    }
    for name in list(user):
        if r.random() < 0.15:
            del user[name]
    return user


@pytest.fixture(scope="module")
def users():
    r = random.Random(11)
    return [make_user(r) for _ in range(1000)]


def trainer_vectors(bundle, users, path):
    path.write_text("".join(json.dumps(user) + "\n" for user in users))
    lines = harness.run(harness.TRAIN, "embed", bundle, "--side", "user", "--input", path).stdout.splitlines()
    return [json.loads(line)["vector"] for line in lines]


@pytest.fixture(scope="module")
def variants(world):
    """Models that read their features otherwise than synth's configuration: history by recency, and over the item ids'
    own embeddings, with ages that are unix times: a mean large beside its deviation must survive the manifest."""
    history = ["user_tower.features.7.pooling=recency", "user_tower.features.7.half_life=2.5"]
    text = (world.data / "train.yaml").read_text()
    assert "{name: history, type: sequence, of: item_id, last: 20, dim: 32, pooling: mean}" in text
    shared = world.data / "shared.yaml"
    shared.write_text(text.replace("last: 20, dim: 32, pooling: mean", "last: 20, shared: true, pooling: sqrtn")
                      .replace("users.csv", "late.csv"))
    lines = (world.data / "users.csv").read_text().splitlines()
    age = lines[0].split(",").index("age")
    rows = [line.split(",") for line in lines[1:]]
    late = [row[:age] + [row[age] and str(1_700_000_000 + int(float(row[age])))] + row[age + 1:] for row in rows]
    (world.data / "late.csv").write_text("\n".join([lines[0]] + [",".join(row) for row in late]) + "\n")
    return [world.fit("recency", *history), world.fit("shared", config=shared)]


@pytest.mark.parametrize("variant", [0, 1], ids=["recency", "shared"])
def test_other_ways_to_read_features(serve, variants, variant, users, tmp_path):
    bundle = variants[variant]
    offline = trainer_vectors(bundle, users[:300], tmp_path / "users.jsonl")
    connection = serve(bundle).connect()
    seen = set()
    for user, vector in zip(users, offline):
        answer = connection.call("POST", "/embed", {"user": user})
        assert far(answer.json["vector"], vector) <= 1e-6, user
        seen.add(tuple(vector))
    connection.close()
    assert len(seen) > 250
    assert (bundle / "vocab/user.history.strings").exists() == (variant == 0)


def far(a, b):
    assert len(a) == len(b)
    return max(abs(x - y) for x, y in zip(a, b))


def test_a_thousand_users(server, world, users, tmp_path):
    offline = trainer_vectors(world.model_a, users, tmp_path / "users.jsonl")
    connection = server.connect()
    for user, vector in zip(users, offline, strict=True):
        answer = connection.call("POST", "/embed", {"user": user})
        assert answer.status == 200, (user, answer.body)
        assert far(answer.json["vector"], vector) <= 1e-6, user
    connection.close()


def test_vectors_have_length_one(server, users):
    for user in users[:50]:
        vector = server.post("/embed", {"user": user}).json["vector"]
        assert abs(sum(x * x for x in vector) - 1) < 1e-4


@pytest.mark.parametrize("user", [
    {"age": "young"}, {"age": [1]}, {"age": {}}, {"age": True}, {"age": "0x10"}, {"age": "nan"}, {"age": "inf"},
    {"user_id": 1.5}, {"user_id": ["1"]}, {"user_id": {}}, {"city": [1]}, {"topics": [["a"]]}, {"topics": [{}]},
    {"history": [1.5]}, {"history": "1"}, {"spend": "12,5"}, {"shoe_size": 4}, {"gender": True},
], ids=json.dumps)
def test_both_refuse(server, world, user, tmp_path):
    path = tmp_path / "user.jsonl"
    path.write_text(json.dumps(user) + "\n")
    done = harness.run(harness.TRAIN, "embed", world.model_a, "--side", "user", "--input", path, check=False)
    answer = server.post("/embed", {"user": user})
    assert (done.returncode == 1) == (answer.status == 400), (done.stderr, answer.body)
    if done.returncode:
        name = next(iter(user))
        assert name in done.stderr and ":1:" in done.stderr
        assert answer.json["pointer"].startswith(f"/user/{name}")
