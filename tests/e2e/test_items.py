"""POST /items and DELETE /items/{id}: items come and go while others are served."""

import csv
import json
import random
import urllib.parse

import pytest

import harness

ALL = 20000
LIMITS = ("--set", f"limits.k={ALL}", "--workers", 2)


@pytest.fixture(scope="module")
def rows(world):
    with open(world.data / "items.csv", newline="") as file:
        return {row["item_id"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module", params=["native", "faiss", "flat"])
def bundle(request, world):
    return world.model_a if request.param == "native" else world.fit(
        f"items-{request.param}", "seed=1", f"index.engine={request.param}")


def features_of(row, **changes):
    return {**{name: row[name] for name in ("category", "tags", "price", "age")}, **changes}


def add(daemon, *items):
    answer = daemon.post("/items", {"items": items})
    assert answer.status == 200, answer.body
    return answer.json


def remove(daemon, id_):
    return daemon.call("DELETE", "/items/" + urllib.parse.quote(id_, safe=""))


def recall(daemon, user="1", **more):
    answer = daemon.post("/recall", {"user": {"user_id": user}, **more})
    assert answer.status == 200, answer.body
    return answer.json["items"]


def ids_of(items):
    return [item["id"] for item in items]


def everything(daemon, **more):
    """All items with their scores; each must be there once."""
    items = recall(daemon, k=ALL, search={"exact": True}, **more)
    found = {item["id"]: item["score"] for item in items}
    assert len(found) == len(items)
    return found


def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def test_an_added_item_is_found(serve, bundle, rows):
    daemon = serve(bundle, *LIMITS)
    before = everything(daemon)
    best = max(before, key=before.get)
    twin = {"id": "brand new/ę", "features": features_of(rows[best], item_id=best),
            "attributes": {"title": "A twin", "category": ["twins", 7]}}
    answer = add(daemon, twin)
    assert answer == {"model": bundle.name, "added": 1, "replaced": 0}
    for search in {}, {"exact": True}, {"effort": 50}:
        found = {item["id"]: item for item in recall(daemon, k=20, search=search, fields=["title", "category", "price"])}
        assert abs(found[twin["id"]]["score"] - found[best]["score"]) < 1e-5
        fields = found[twin["id"]]["fields"]
        assert fields["title"] == "A twin" and fields["category"] == ["twins", 7]
        assert fields["price"] == found[best]["fields"]["price"]
    assert everything(daemon).keys() == before.keys() | {twin["id"]}
    assert daemon.get("/model").json["items"] == len(before) + 1

    assert twin["id"] in ids_of(daemon.post("/similar", {"item": best, "k": 5}).json["items"])
    similar = ids_of(daemon.post("/similar", {"item": twin["id"], "k": 5}).json["items"])
    assert best in similar and twin["id"] not in similar
    assert twin["id"] not in ids_of(recall(daemon, k=20, exclude=[twin["id"]]))
    for filter_ in {"category": "twins"}, {"category": 7}, {"category": {"gte": 7, "lte": 7}, "title": ["A twin"]}:
        assert ids_of(recall(daemon, filter=filter_)) == [twin["id"]]
    assert twin["id"] not in everything(daemon, filter={"not": {"category": "twins"}})
    vector = daemon.post("/embed", {"item": twin["features"]}).json["vector"]
    user = daemon.post("/embed", {"user": {"user_id": "1"}}).json["vector"]
    assert abs(everything(daemon)[twin["id"]] - dot(vector, user)) < 1e-5


def test_attributes_come_from_features(serve, world, rows):
    """As the trainer would have written them; a bundle's item that is added again has the same."""
    daemon = serve(world.model_a, *LIMITS)
    some = list(rows)[:40]
    before = {item["id"]: item for item in recall(daemon, k=ALL, fields=["category", "tags", "price", "age"])}
    answer = add(daemon, *({"id": id_, "features": features_of(rows[id_])} for id_ in some))
    assert (answer["added"], answer["replaced"]) == (0, 40)
    after = {item["id"]: item for item in recall(daemon, k=ALL, fields=["category", "tags", "price", "age"])}
    assert after.keys() == before.keys()
    for id_ in some:
        assert after[id_]["fields"] == before[id_]["fields"]
        assert abs(after[id_]["score"] - before[id_]["score"]) < 1e-5


def test_an_integer_is_an_id(serve, world, rows):
    daemon = serve(world.model_a, *LIMITS)
    number = 9007199254740993
    add(daemon, {"id": number, "features": {}})
    assert str(number) in everything(daemon)
    assert daemon.post("/similar", {"item": number, "k": 1}).status == 200
    assert remove(daemon, str(number)).status == 200
    assert str(number) not in everything(daemon)


def test_replacing(serve, bundle, rows):
    daemon = serve(bundle, *LIMITS)
    before = everything(daemon)
    best, worst = max(before, key=before.get), min(before, key=before.get)
    assert add(daemon, {"id": worst, "features": features_of(rows[best], item_id=best)})["replaced"] == 1
    now = everything(daemon)
    assert now.keys() == before.keys() and abs(now[worst] - before[best]) < 1e-5
    assert worst in ids_of(recall(daemon, k=5))
    assert add(daemon, {"id": worst, "features": {}, "attributes": {"title": "again"}})["replaced"] == 1
    assert everything(daemon).keys() == before.keys()
    assert ids_of(recall(daemon, filter={"title": "again"})) == [worst]
    assert recall(daemon, filter={"title": rows[worst]["title"]}) == []
    assert daemon.get("/model").json["items"] == len(before)


def test_removing(serve, bundle, rows):
    daemon = serve(bundle, *LIMITS)
    before = everything(daemon)
    gone = ids_of(recall(daemon, k=10))
    add(daemon, {"id": "short-lived", "features": {}})
    for id_ in gone + ["short-lived"]:
        answer = remove(daemon, id_)
        assert answer.status == 200 and answer.json == {"model": bundle.name, "removed": 1}
        again = remove(daemon, id_)
        assert again.status == 404 and again.json["type"].endswith("unknown-item")
        assert daemon.post("/similar", {"item": id_}).status == 404
    assert everything(daemon).keys() == before.keys() - set(gone)
    assert not set(gone) & set(ids_of(recall(daemon, k=100)))
    assert recall(daemon, filter={"title": [rows[id_]["title"] for id_ in gone]}) == []
    assert len(recall(daemon, k=20, exclude=gone)) == 20
    assert daemon.get("/model").json["items"] == len(before) - len(gone)
    add(daemon, {"id": gone[0], "features": features_of(rows[gone[0]])})
    assert abs(everything(daemon)[gone[0]] - before[gone[0]]) < 1e-5


def served(daemon, model):
    """Waits until all workers serve a model: each connection may be another worker's."""
    harness.wait_for(lambda: all(daemon.get("/model").json["model"] == model.name for _ in range(20)), "the new model")


def test_changes_survive_a_reload(serve, world, link, rows):
    link.point(world.model_a)
    daemon = serve(link, *LIMITS)
    before = everything(daemon)
    gone, changed = list(rows)[0], list(rows)[1]
    back = list(rows)[2]
    add(daemon, {"id": "new", "features": features_of(rows["5"]), "attributes": {"title": "New"}},
        {"id": changed, "features": {}, "attributes": {"title": "changed"}}, {"id": "short-lived", "features": {}})
    for id_ in gone, back, "short-lived":
        assert remove(daemon, id_).status == 200
    add(daemon, {"id": back, "features": features_of(rows[back])})
    expected = before.keys() - {gone} | {"new"}
    for model in world.model_b, world.model_a, world.model_a:
        link.point(model)
        assert daemon.reload()["reload"]["last_error"] is None
        served(daemon, model)
        assert everything(daemon).keys() == expected
        vector = daemon.post("/embed", {"item": {"item_id": "new", **features_of(rows["5"])}}).json["vector"]
        user = daemon.post("/embed", {"user": {"user_id": "1"}}).json["vector"]
        assert abs(everything(daemon)["new"] - dot(vector, user)) < 1e-5
        assert ids_of(recall(daemon, filter={"title": "New"})) == ["new"]
        assert recall(daemon, filter={"title": "changed"}) == []  # the bundle's own wins
        assert remove(daemon, gone).status == 404
        assert daemon.get("/model").json["items"] == len(expected)
    assert remove(daemon, "new").status == 200
    daemon.reload()
    harness.wait_for(lambda: daemon.get("/model").json["changes"]["room_used"] == 0, "the model without it")
    assert everything(daemon).keys() == expected - {"new"}
    other = serve(link, *LIMITS)
    assert everything(other).keys() == before.keys()  # a restart begins with the bundle


def test_changes_during_a_reload_are_not_lost(serve, world, link, rows):
    link.point(world.model_a)
    daemon = serve(link, *LIMITS)
    expected = set(everything(daemon))
    names = list(rows)
    for turn in range(30):
        link.point(world.model_b if turn % 2 == 0 else world.model_a)
        daemon.hup()
        for i in range(3):
            add(daemon, {"id": f"new{turn}-{i}", "features": features_of(rows["5"])})
            assert remove(daemon, names[turn * 3 + i]).status == 200
            expected = expected - {names[turn * 3 + i]} | {f"new{turn}-{i}"}
        assert remove(daemon, f"new{turn}-1").status == 200
        expected.remove(f"new{turn}-1")
    harness.wait_for(lambda: not daemon.reload_state()["running"], "the loads")
    harness.wait_for(lambda: all(everything(daemon).keys() == expected for _ in range(10)), "what was changed")


def test_what_a_new_model_does_not_take_is_dropped(serve, world, link, rows, tmp_path):
    config = world.data / "narrow.yaml"
    text = (world.data / "train.yaml").read_text().splitlines()
    config.write_text("\n".join(line for line in text if "name: price" not in line) + "\n")
    narrow = world.fit("narrow", "seed=1", config=config)
    link.point(world.model_a)
    daemon = serve(link, *LIMITS)
    add(daemon, {"id": "with", "features": {"price": 3}}, {"id": "without", "features": {"category": "c"}})
    link.point(narrow)
    assert daemon.reload()["reload"]["last_error"] is None
    served(daemon, narrow)
    assert "without" in everything(daemon) and "with" not in everything(daemon)
    assert "1 added items do not fit the new model" in daemon.log and "item with, /features/price" in daemon.log
    link.point(world.model_a)
    daemon.reload()
    served(daemon, world.model_a)
    assert "with" not in everything(daemon)


def test_compaction(serve, world, link, rows):
    link.point(world.model_a)
    daemon = serve(link, *LIMITS)
    expected = set(everything(daemon))
    names = list(rows)
    for id_ in names[:50]:
        remove(daemon, id_)
    mix = random.Random(1)
    for turn in range(17):
        items = []
        for i in range(250):
            a, b, c, d = (rows[mix.choice(names)] for _ in range(4))
            items.append({"id": f"new{turn}-{i}", "features": {"item_id": a["item_id"], "category": b["category"],
                                                               "tags": c["tags"], "price": d["price"]}})
        add(daemon, *items)
    expected = expected - set(names[:50]) | {f"new{turn}-{i}" for turn in range(17) for i in range(250)}
    harness.wait_for(lambda: daemon.get("/model").json["changes"]["compactions"] == 1, "the compaction")
    changes = daemon.get("/model").json["changes"]
    assert changes["overhead"] < 4096 and changes["room_used"] == 4250
    assert "index compacted" in daemon.log

    def check():
        assert everything(daemon).keys() == expected
        exact, fast = recall(daemon, k=100, search={"exact": True}), recall(daemon, k=100, search={"effort": 60})
        assert len(set(ids_of(exact)) & set(ids_of(fast))) >= 90
        assert daemon.get("/model").json["items"] == len(expected)

    check()
    add(daemon, {"id": "after", "features": {}})
    assert remove(daemon, "new3-60").status == 200
    expected = expected - {"new3-60"} | {"after"}
    check()
    assert harness.metric(daemon.get("/metrics").body.decode(), "recalld_index_compactions_total") == 1
    link.point(world.model_b)
    daemon.reload()
    served(daemon, world.model_b)
    check()


@pytest.mark.parametrize("body, type_, pointer", [
    ({}, "missing-field", "/items"),
    ({"items": []}, "invalid-field", "/items"),
    ({"items": {}}, "invalid-field", "/items"),
    ({"items": [{"id": "x", "features": {}}] * 257}, "limit-exceeded", "/items"),
    ({"items": [{"id": "x", "features": {}}], "a/b": 1}, "unknown-field", "/a~1b"),
    ({"items": [1]}, "invalid-field", "/items/0"),
    ({"items": [{"features": {}}]}, "missing-field", "/items/0/id"),
    ({"items": [{"id": "x"}]}, "missing-field", "/items/0/features"),
    ({"items": [{"id": "", "features": {}}]}, "invalid-field", "/items/0/id"),
    ({"items": [{"id": 1.5, "features": {}}]}, "invalid-field", "/items/0/id"),
    ({"items": [{"id": None, "features": {}}]}, "invalid-field", "/items/0/id"),
    ({"items": [{"id": "x" * 513, "features": {}}]}, "limit-exceeded", "/items/0/id"),
    ({"items": [{"id": "x", "features": []}]}, "invalid-field", "/items/0/features"),
    ({"items": [{"id": "x", "features": {"colour": 1}}]}, "unknown-field", "/items/0/features/colour"),
    ({"items": [{"id": "x", "features": {"price": "dear"}}]}, "invalid-field", "/items/0/features/price"),
    ({"items": [{"id": "x", "features": {"tags": ["t"] * 10001}}]}, "limit-exceeded", "/items/0/features/tags"),
    ({"items": [{"id": "x", "features": {}, "attributes": 1}]}, "invalid-field", "/items/0/attributes"),
    ({"items": [{"id": "x", "features": {}, "attributes": {"a~b": 1}}]}, "unknown-field", "/items/0/attributes/a~0b"),
    ({"items": [{"id": "x", "features": {}, "attributes": {"title": {}}}]}, "invalid-field",
     "/items/0/attributes/title"),
    ({"items": [{"id": "x", "features": {}, "attributes": {"title": [[]]}}]}, "invalid-field",
     "/items/0/attributes/title"),
    ({"items": [{"id": "x", "features": {}, "attributes": {"title": "t" * 70000}}]}, "limit-exceeded", "/items/0"),
    ({"items": [{"id": "x", "features": {}, "label": 1}]}, "unknown-field", "/items/0/label"),
    ({"items": [{"id": "x", "features": {}}, {"id": 7, "features": {}}, {"id": "7", "features": {}}]}, "invalid-field",
     "/items/2/id"),
])
def test_mistakes_are_named_and_change_nothing(server, body, type_, pointer):
    answer = server.post("/items", body)
    assert answer.status == 400
    assert answer.json["type"].endswith(":" + type_), answer.json
    assert answer.json["pointer"] == pointer, answer.json
    changes = server.get("/model").json["changes"]
    assert changes["room_used"] == 0 and changes["overhead"] == 0


def test_all_items_of_a_request_or_none(serve, world, rows):
    daemon = serve(world.model_a, *LIMITS)
    before = everything(daemon)
    answer = daemon.post("/items", {"items": [{"id": "one", "features": {}}, {"id": "two", "features": {"price": "x"}}]})
    assert answer.status == 400 and answer.json["pointer"] == "/items/1/features/price"
    assert everything(daemon) == before


def test_room_is_used_up(serve, world, link):
    link.point(world.model_a)
    daemon = serve(link, *LIMITS, "--set", "limits.added_items=5")
    add(daemon, *({"id": f"new{i}", "features": {}} for i in range(3)))
    for items in [{"id": f"other{i}", "features": {}} for i in range(3)], [{"id": f"new{i}", "features": {}}
                                                                         for i in range(3)]:
        answer = daemon.post("/items", {"items": items})
        assert answer.status == 507 and answer.json["type"].endswith("no-room"), answer.json
        assert "limits.added_items" in answer.json["detail"] and "new bundle" in answer.json["detail"]
    assert not any(id_.startswith("other") for id_ in everything(daemon))
    add(daemon, *({"id": f"new{i}", "features": {}} for i in range(2)))
    assert remove(daemon, "new0").status == 200
    assert daemon.get("/model").json["changes"]["room_left"] == 0
    daemon.reload()
    harness.wait_for(lambda: daemon.get("/model").json["changes"]["room_left"] == 3, "room")
    add(daemon, *({"id": f"other{i}", "features": {}} for i in range(3)))


def test_no_room_at_all(serve, world, rows):
    daemon = serve(world.model_a, "--set", "limits.added_items=0")
    assert daemon.post("/items", {"items": [{"id": "x", "features": {}}]}).status == 507
    assert remove(daemon, "5").status == 200
    assert len(recall(daemon)) == 100


def test_where_they_are_served(start, world, tmp_path):
    body = {"items": [{"id": "x", "features": {}}]}
    admin = f"unix:{tmp_path}/admin.sock"
    daemon = start("--bundle", world.model_a, "--listen", "127.0.0.1:0", "--set", f"admin.listen={admin}")
    assert daemon.post("/items", body).status == 404
    assert daemon.post("/items", body, address=admin).status == 200
    assert remove(daemon, "x").status == 404
    assert daemon.call("DELETE", "/items/x", address=admin).status == 200


def test_methods_and_paths(server):
    for method, path, allow in ("GET", "/items", "POST"), ("DELETE", "/items", "POST"), ("POST", "/items/x", "DELETE"):
        answer = server.call(method, path)
        assert answer.status == 405 and answer.headers["Allow"] == allow
    assert server.call("DELETE", "/items/").status == 404
    for path in "/items/nothing", "/items/%ff%fe", "/items/a%2Fb":
        answer = server.call("DELETE", path)
        assert answer.status == 404 and answer.json["type"].endswith("unknown-item")


def test_numbers_are_counted(serve, world):
    daemon = serve(world.model_a, *LIMITS)
    add(daemon, *({"id": f"new{i}", "features": {}} for i in range(3)))
    add(daemon, {"id": "new0", "features": {}})
    remove(daemon, "new1")
    text = daemon.get("/metrics").body.decode()
    for name, value in (("items_added_total", 4), ("items_removed_total", 1), ("items_room_used", 4),
                        ("items_room_left", 99996), ("index_overhead", 6), ("model_items", 1502)):
        assert harness.metric(text, "recalld_" + name) == value, name
    assert harness.metric(text, 'recalld_http_responses_total{endpoint="/items",code="200"}') == 2
    assert harness.metric(text, 'recalld_http_responses_total{endpoint="/items/{id}",code="200"}') == 1


class Readers(harness.Askers):
    """Threads that ask for all items, and note every answer that cannot be."""

    def __init__(self, daemon, check, threads=2):
        super().__init__(threads)
        self.daemon, self.check, self.wrong, self.answers = daemon, check, [], 0

    def ask(self):
        connection = self.daemon.connect()
        body = json.dumps({"user": {"user_id": "1"}, "k": ALL, "search": {"exact": True}, "exclude": ["out"]})
        while not self.stop.is_set():
            answer = connection.call("POST", "/recall", body)
            problem = self.check(ids_of(answer.json["items"])) if answer.status == 200 else answer.body
            self.answers += 1
            if problem:
                self.wrong.append(problem)
        connection.close()


def test_changes_while_others_recall(serve, bundle, rows):
    """An item that is replaced is there once, always; one that is excluded never; what was there stays, what is gone is gone."""
    daemon = serve(bundle, *LIMITS)
    remove(daemon, "5")
    kept = set(everything(daemon))
    add(daemon, {"id": "in", "features": {}}, {"id": "out", "features": {}})
    removed = set()

    def check(ids):
        found = set(ids)
        if len(found) != len(ids):
            return "an item twice"
        if "out" in found:
            return "an excluded item"
        if not kept | {"in"} <= found:
            return f"missing: {sorted((kept | {'in'}) - found)[:5]}"
        return None

    with Readers(daemon, check) as readers:
        connection = daemon.connect()
        for turn in range(150):
            items = [{"id": id_, "features": features_of(rows[str(turn + 10)])} for id_ in ("in", "out", f"t{turn}")]
            assert connection.call("POST", "/items", {"items": items}).status == 200
            assert f"t{turn}" in everything(daemon)
            if turn > 0:
                assert connection.call("DELETE", f"/items/t{turn - 1}").status == 200
                removed.add(f"t{turn - 1}")
                assert not removed & set(everything(daemon))
        connection.close()
    assert readers.wrong == [] and readers.answers > 0
