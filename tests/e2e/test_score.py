"""POST /score: the scores of /recall for a list of items, in its order."""

import csv
import random

import pytest

import harness

ALL = 20000


@pytest.fixture(scope="module")
def item_rows(world):
    with open(world.data / "items.csv", newline="") as file:
        return {row["item_id"]: row for row in csv.DictReader(file)}


def score(daemon, user, items, **more):
    answer = daemon.post("/score", {"user": user, "items": items, **more})
    assert answer.status == 200, answer.body
    return answer.json


def recall(daemon, user, **more):
    answer = daemon.post("/recall", {"user": user, **more})
    assert answer.status == 200, answer.body
    return answer.json["items"]


USERS = {"user_id": "7"}, {"user_id": "no such user", "age": 40, "topics": ["nature"]}, {}


@pytest.mark.parametrize("user", USERS, ids=str)
def test_scores_are_those_of_recall(server, world, user):
    rng = random.Random(1)
    fields = ["category", "title"]
    known = recall(server, user, k=1000, fields=fields, search={"exact": True}) + recall(server, user, fields=fields)
    rng.shuffle(known)
    answer = score(server, user, [item["id"] for item in known], fields=fields)
    assert answer["model"] == world.model_a.name
    assert answer["items"] == known  # floats that parse to the same number, ids in the order that was asked for
    assert score(server, user, [known[0]["id"]])["items"] == [{k: known[0][k] for k in ("id", "score")}]


def test_order_repetitions_and_nothing(server):
    one, two = (item["id"] for item in recall(server, {"user_id": "1"}, k=2))
    answer = score(server, {"user_id": "1"}, [two, one, two, int(one)])["items"]
    assert [item["id"] for item in answer] == [two, one, two, one]
    assert answer[0] == answer[2] and answer[1] == answer[3] and answer[0]["score"] < answer[1]["score"]
    assert score(server, {}, [])["items"] == []


def test_an_item_that_is_not_there_scores_null(server):
    known = recall(server, {}, k=1)[0]["id"]
    answer = score(server, {}, ["no such/\"item", known, 987654321], fields=["category"])["items"]
    assert answer[0] == {"id": "no such/\"item", "score": None}
    assert answer[1]["id"] == known and "fields" in answer[1]
    assert answer[2] == {"id": "987654321", "score": None}


@pytest.mark.parametrize("engine", ["native", "faiss", "flat"])
def test_items_that_come_and_go(serve, world, item_rows, engine):
    bundle = world.model_a if engine == "native" else world.fit(f"score-{engine}", "seed=1", f"index.engine={engine}")
    daemon = serve(bundle, "--set", f"limits.k={ALL}", "--set", f"limits.score={ALL}", "--workers", 1)
    user = {"user_id": "3"}
    ids = sorted(item_rows)
    removed, replaced, added = ids[:30], ids[30:60], [f"new-{i}" for i in range(30)]
    features = {name: item_rows[ids[100]][name] for name in ("category", "tags", "price", "age")}
    for id_ in removed:
        assert daemon.call("DELETE", f"/items/{id_}").status == 200
    assert daemon.post("/items", {"items": [{"id": i, "features": features} for i in replaced + added]}).status == 200

    everything = {item["id"]: item["score"] for item in recall(daemon, user, k=ALL, search={"exact": True})}
    asked = ids + added
    random.Random(2).shuffle(asked)
    answer = {item["id"]: item["score"] for item in score(daemon, user, asked)["items"]}
    assert all(answer[id_] is None for id_ in removed)
    assert {id_: s for id_, s in answer.items() if s is not None} == everything
    assert all(answer[id_] == answer[added[0]] for id_ in added)


def test_items_scored_are_counted(server):
    def count(name):
        return harness.metric(server.get("/metrics").body.decode(), f"recalld_{name}") or 0

    names = "users_total", "items_total", 'http_responses_total{endpoint="/score",code="200"}'
    before = [count(name) for name in names]
    known = [item["id"] for item in recall(server, {}, k=5)]
    score(server, {}, known + ["no such item"])
    assert [count(name) for name in names] == [before[0] + 2, before[1] + 10, before[2] + 1]
