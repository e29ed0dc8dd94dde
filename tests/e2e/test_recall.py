"""POST /recall, /similar and /embed: what they answer."""

import csv
import json
import math
import struct

import pytest


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="session")
def items(world):
    return {row["item_id"]: row for row in read_csv(world.data / "items.csv")}


@pytest.fixture(scope="session")
def vectors(world):
    """The bundle's item vectors by id, read without our code."""
    block = (world.model_a / "items/ids.strings").read_bytes()
    count, size = struct.unpack_from("<QQ", block, 8)
    offsets = struct.unpack_from(f"<{count + 1}Q", block, 24)
    text = block[24 + 8 * (count + 1):]
    assert len(text) == size
    ids = [text[offsets[i]:offsets[i + 1]].decode() for i in range(count)]
    numbers = (world.model_a / "items/vectors.f32").read_bytes()
    dim = len(numbers) // 4 // count
    return {name: struct.unpack_from(f"<{dim}f", numbers, i * dim * 4) for i, name in enumerate(ids)}


def dot(a, b):
    return math.fsum(x * y for x, y in zip(a, b))


def recall(server, user="1", **more):
    answer = server.post("/recall", {"user": {"user_id": user}, **more})
    assert answer.status == 200, answer.body
    return answer.json


def test_the_shape_of_an_answer(server, world):
    answer = server.post("/recall", {"user": {"user_id": "1"}, "k": 7})
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    body = answer.json
    assert list(body) == ["model", "items", "complete", "strategy", "degraded", "source", "defaulted"]
    assert body["model"] == world.model_a.name
    assert body["complete"] is True
    assert body["strategy"] in ("ann", "exact")
    assert len(body["items"]) == 7
    assert all(list(item) == ["id", "score"] for item in body["items"])


def test_k_is_100_unless_said(server):
    assert len(recall(server)["items"]) == 100


def test_scores_are_the_similarity_best_first_ties_by_id(server, vectors):
    vector = server.post("/embed", {"user": {"user_id": "1"}}).json["vector"]
    found = recall(server, k=1000, search={"exact": True})["items"]
    order = [(-item["score"], item["id"].encode()) for item in found]
    assert order == sorted(order)
    for item in found:
        assert abs(item["score"] - dot(vector, vectors[item["id"]])) < 1e-5
    worst = found[-1]["score"]
    returned = {item["id"] for item in found}
    for name, other in vectors.items():
        assert name in returned or dot(vector, other) <= worst + 1e-5


def test_ann_finds_what_exact_finds(server):
    total = hits = 0
    for user in range(1, 40):
        fast = {item["id"]: item["score"] for item in recall(server, str(user), k=50)["items"]}
        slow = {item["id"]: item["score"] for item in recall(server, str(user), k=50, search={"exact": True})["items"]}
        total += len(slow)
        hits += len(fast.keys() & slow.keys())
        for name in fast.keys() & slow.keys():
            assert fast[name] == slow[name]
    assert hits / total >= 0.95


def test_strategy_says_what_was_done(server):
    assert recall(server, search={"exact": True})["strategy"] == "exact"


def test_effort_is_accepted(server):
    assert len(recall(server, k=5, search={"effort": 10})["items"]) == 5


def test_exclude(server):
    everything = [item["id"] for item in recall(server, k=20)["items"]]
    excluded = everything[:10] + ["no such item", everything[0], int(everything[11])]
    left = [item["id"] for item in recall(server, k=20, exclude=excluded)["items"]]
    assert len(left) == 20
    assert left[0] == everything[10]
    assert not set(map(str, excluded)) & set(left)


def test_fewer_items_than_asked_for_is_said(server, items):
    keep = list(items)[:3]
    answer = recall(server, k=10, exclude=[name for name in items if name not in keep])
    assert {item["id"] for item in answer["items"]} == set(keep)
    assert answer["complete"] is False


def test_min_score(server):
    everything = recall(server, k=50)["items"]
    floor = everything[9]["score"]
    answer = recall(server, k=50, min_score=floor)
    assert [item["id"] for item in answer["items"]] == [item["id"] for item in everything[:10]]
    assert answer["complete"] is False
    assert recall(server, min_score=2)["items"] == []


def test_a_recall_picks_the_effort(server, world):
    """The least effort of the bundle's curve that promises it; beyond the curve all items are scanned."""
    curve = json.loads((world.model_a / "manifest.json").read_text())["index"]["curve"]
    for target in 0.5, 0.9, curve[0]["recall_low"], curve[-1]["recall_low"]:
        effort = next((p["effort"] for p in curve if p["recall_low"] >= target), None)
        search = {"effort": effort} if effort else {"exact": True}
        assert recall(server, k=50, search={"recall": target}) == recall(server, k=50, search=search)
    if curve[-1]["recall_low"] < 1:
        assert recall(server, search={"recall": 1})["strategy"] == "exact"


def test_fields(server, items):
    answer = recall(server, k=5, fields=["category", "price", "title"])
    for item in answer["items"]:
        row = items[item["id"]]
        assert set(item["fields"]) == {"category", "price", "title"}
        assert item["fields"]["title"] == row["title"]
        assert str(item["fields"]["category"]) == row["category"]
        assert item["fields"]["price"] == (float(row["price"]) if row["price"] else None)
    assert all("fields" not in item for item in recall(server, k=5, fields=[])["items"])


def test_batch_answers_as_single_requests_do(server):
    requests = [{"user": {"user_id": str(i), "age": i}, "k": i + 1, "exclude": [i]} for i in range(30)]
    batch = server.post("/recall", {"requests": requests}).json
    assert list(batch) == ["model", "results"]
    assert len(batch["results"]) == len(requests)
    for request, result in zip(requests, batch["results"]):
        single = server.post("/recall", request).json
        assert list(result) == ["items", "complete", "strategy", "degraded", "source", "defaulted"]
        assert [item["id"] for item in result["items"]] == [item["id"] for item in single["items"]]
        for a, b in zip(result["items"], single["items"]):
            assert abs(a["score"] - b["score"]) < 1e-5


@pytest.mark.parametrize("k", [10, 1000])
def test_a_batch_of_every_kind_of_request(server, world, k):
    """Large batches are searched in groups: filters, exclusions, floors and exact searches mixed, in their order."""
    kinds = [{}, {"search": {"exact": True}}, {"search": {"effort": 3}}, {"exclude": list(range(1, 60))},
             {"filter": {"price": {"gte": 5}}}, {"min_score": 0.2}, {"fields": ["category", "title"]},
             {"filter": {"price": {"gte": 5}}, "search": {"exact": True}}, {"filter": {"not": {"category": ["none"]}}}]
    requests = [{"user": {"user_id": str(i)}, "k": k - i % 7, **kinds[i % len(kinds)]} for i in range(150)]
    for i, request in enumerate(requests):
        if i % 4 == 0:  # more filters than one group has room for
            request["filter"] = {"price": {"gte": i / 10}}
    results = server.post("/recall", {"requests": requests}).json["results"]
    assert len(results) == len(requests)
    for request, result in zip(requests, results):
        single = server.post("/recall", request).json
        assert (result["complete"], result["strategy"]) == (single["complete"], single["strategy"])
        a, b = ({item["id"]: item for item in answer["items"]} for answer in (result, single))
        assert len(a) == len(b) and len(a.keys() - b.keys()) <= 1 + len(a) // 50  # near ties: the tower's last bits differ
        for name in a.keys() & b.keys():
            assert abs(a[name].pop("score") - b[name].pop("score")) < 1e-5
            assert a[name] == b[name]


def test_a_stranger_gets_an_answer(server):
    assert len(server.post("/recall", {"user": {}}).json["items"]) == 100
    assert len(server.post("/recall", {"user": {"user_id": "nobody", "city": "nowhere"}}).json["items"]) == 100


def test_ids_may_be_numbers(server):
    assert recall(server, 1) == recall(server, "1")


def test_similar(server, vectors):
    answer = server.post("/similar", {"item": "7", "k": 20, "search": {"exact": True}, "fields": ["title"]}).json
    assert list(answer) == ["model", "items", "complete", "strategy", "degraded"]
    names = [item["id"] for item in answer["items"]]
    assert len(names) == 20 and "7" not in names
    wanted = sorted(((-dot(vectors["7"], v), name.encode()) for name, v in vectors.items() if name != "7"))[:20]
    assert abs(answer["items"][0]["score"] + wanted[0][0]) < 1e-5
    assert len(set(names) & {name.decode() for _, name in wanted}) >= 19
    assert server.post("/similar", {"item": 7, "k": 20, "search": {"exact": True}, "fields": ["title"]}).json == answer


def test_similar_excludes(server):
    first = server.post("/similar", {"item": "7", "k": 5}).json["items"]
    rest = server.post("/similar", {"item": "7", "k": 5, "exclude": [first[0]["id"], "7"]}).json["items"]
    assert [item["id"] for item in rest[:4]] == [item["id"] for item in first[1:]]


def test_embed_an_item(server, items, vectors):
    row = items["5"]
    features = {"item_id": "5", **{name: row[name] for name in ("category", "tags", "price", "age")}}
    answer = server.post("/embed", {"item": features}).json
    assert list(answer) == ["model", "vector"]
    assert max(abs(a - b) for a, b in zip(answer["vector"], vectors["5"])) < 1e-6


def test_embedded_numbers_are_float32_exactly(server):
    vector = server.post("/embed", {"user": {"user_id": "3"}}).json["vector"]
    for number in vector:
        assert abs(struct.unpack("<f", struct.pack("<f", number))[0] - number) <= abs(number) * 1e-8


def test_many_requests_on_one_connection(server):
    connection = server.connect()
    first = connection.call("POST", "/recall", {"user": {"user_id": "1"}, "k": 10}).body
    for _ in range(100):
        assert connection.call("POST", "/recall", {"user": {"user_id": "1"}, "k": 10}).body == first
    connection.close()


def test_unicode_passes_through(server):
    user = {"user_id": "żółw \U0001f422", "city": "東京", "topics": ["日本", "film|noir"]}
    plain = server.post("/embed", json.dumps({"user": user}, ensure_ascii=False)).json
    escaped = server.post("/embed", json.dumps({"user": user}, ensure_ascii=True)).json
    assert plain == escaped
