"""Users about whom nothing is known: what an answer says of that, and popular items in place of a guess."""

import collections
import csv
import hashlib
import json
import random
import struct

import pytest

import harness

FEATURES = ["user_id", "gender", "city", "topics", "age", "spend", "activity", "history"]
COLD = [{}, {"user_id": "nobody"}, {"user_id": "nobody", "city": "Atlantis", "topics": ["x", "y"], "history": ["none"]},
        {"age": None, "gender": "", "topics": [], "history": []}]
ALL = 20000


def popular_list(bundle):
    data = (bundle / "items/popular.u32").read_bytes()
    return list(struct.iter_unpack("<II", data))


@pytest.fixture(scope="module")
def popular(world):
    """Item ids and numbers of train events, most first, equal ones by id."""
    users = collections.defaultdict(list)
    with open(world.data / "clicks.csv", newline="") as file:
        for row in csv.DictReader(file):
            users[row["user_id"]].append((int(row["ts"]), row["item_id"]))
    counts = collections.Counter(item for events in users.values() for _, item in sorted(events, key=lambda e: e[0])[:-1])
    with open(world.data / "items.csv", newline="") as file:
        ids = {row["item_id"] for row in csv.DictReader(file)} | set(counts)
    return sorted(((id_, counts[id_]) for id_ in ids), key=lambda pair: (-pair[1], pair[0].encode()))


@pytest.fixture
def daemon(serve, world):
    return serve(world.model_a, "--set", "fallback=popular", "--set", f"limits.k={ALL}", "--workers", 1)


def recall(daemon, user=None, **more):
    answer = daemon.post("/recall", {"user": user or {}, **more})
    assert answer.status == 200, answer.body
    return answer.json


def pairs(answer):
    return [(item["id"], item["score"]) for item in answer["items"]]


# --- what was not known ------------------------------------------------------------------------------------------------


def test_what_was_not_known(server):
    cases = [({}, FEATURES), ({"user_id": "1"}, FEATURES[1:]), ({"user_id": "nobody"}, FEATURES),
             ({"age": 30, "spend": "", "activity": 0}, [n for n in FEATURES if n not in ("age", "activity")]),
             ({"topics": ["unheard-of"], "history": ["1"]}, [n for n in FEATURES if n != "history"]),
             ({"history": ["1", "none"], "topics": "unheard-of|nature"}, [n for n in FEATURES if n not in ("topics", "history")])]
    for user, defaulted in cases:
        for answer in recall(server, user, k=3), server.post("/score", {"user": user, "items": []}).json:
            assert answer["defaulted"] == defaulted and answer["source"] == "tower", user
    batch = server.post("/recall", {"requests": [{"user": user, "k": 1} for user, _ in cases]}).json["results"]
    assert [result["defaulted"] for result in batch] == [defaulted for _, defaulted in cases]
    assert "defaulted" not in server.post("/similar", {"item": "1"}).json


def test_profiles_count_as_known(serve, world):
    daemon = serve(world.fit("fallback-profiles", "seed=1", "output.user_profiles=true"), "--set", "fallback=popular")
    assert recall(daemon, {"user_id": "1"})["source"] == "profile"
    assert "history" not in recall(daemon, {"user_id": "1"})["defaulted"]
    assert "history" in recall(daemon, {"user_id": "1", "history": None})["defaulted"]
    assert recall(daemon, {"user_id": "nobody"})["source"] == "popular"


# --- popular items -----------------------------------------------------------------------------------------------------


def test_the_bundle_has_the_list(world, popular):
    ids = sorted((id_ for id_, _ in popular), key=str.encode)
    assert [(ids[row], events) for row, events in popular_list(world.model_a)] == popular
    assert "popular      all items" in harness.run(harness.TRAIN, "inspect", world.model_a).stdout


@pytest.mark.parametrize("user", COLD, ids=json.dumps)
def test_who_is_unknown_gets_popular_items(daemon, popular, user):
    for k in 1, 10, 1000:
        answer = recall(daemon, user, k=k)
        assert pairs(answer) == popular[:k] and answer["complete"]
        assert (answer["source"], answer["strategy"], answer["defaulted"]) == ("popular", "exact", FEATURES)


@pytest.mark.parametrize("user", [{"user_id": "1"}, {"age": 44}, {"history": ["none", "1"]}, {"topics": "x|nature"}], ids=json.dumps)
def test_who_is_known_at_all_does_not(daemon, server, user):
    answer = recall(daemon, user, k=20)
    assert answer["source"] == "tower" and answer == recall(server, user, k=20)


def test_the_tower_answers_unless_told_otherwise(server):
    for user in COLD:
        assert recall(server, user)["source"] == "tower"


def test_whatever_a_request_says_holds(daemon, world, popular):
    with open(world.data / "items.csv", newline="") as file:
        category = {row["item_id"]: row["category"] for row in csv.DictReader(file)}
    rng = random.Random(1)
    ids = [id_ for id_, _ in popular]
    for _ in range(30):
        exclude = rng.sample(ids[:300], 100) + ["none"]
        wanted = rng.sample(sorted(set(category.values())), 3)
        most, k = rng.randint(1, 12), rng.choice([3, 30, 300])
        counts, expected = collections.Counter(), []
        for id_, events in popular:
            if id_ not in exclude and category.get(id_) in wanted and counts[category[id_]] < most:
                counts[category[id_]] += 1
                expected.append((id_, events))
        answer = recall(daemon, k=k, exclude=exclude, filter={"category": wanted}, max_per={"category": most}, min_score=10**9,
                        fields=["category"])
        assert pairs(answer) == expected[:k]
        assert answer["complete"] == (len(expected) >= k)
        assert all(item["fields"]["category"] == category[item["id"]] for item in answer["items"])


def test_a_batch_of_both_kinds(daemon, popular):
    users = [{"user_id": "1"}, {}, {"user_id": "2"}, {"user_id": "3"}, {"user_id": "nobody"}, {}]
    results = daemon.post("/recall", {"requests": [{"user": user, "k": 10} for user in users]}).json["results"]
    assert [result["source"] for result in results] == ["tower", "popular", "tower", "tower", "popular", "popular"]
    for user, result in zip(users, results):
        assert [i["id"] for i in result["items"]] == [i["id"] for i in recall(daemon, user, k=10)["items"]]


def test_items_that_come_and_go(daemon, popular):
    ids = [id_ for id_, _ in popular]
    removed, replaced = ids[1], ids[2]
    assert daemon.call("DELETE", f"/items/{removed}").status == 200
    items = [{"id": id_, "features": {}, "attributes": {"category": "fresh"}} for id_ in (replaced, "new-b", "new-a")]
    assert daemon.post("/items", {"items": items}).status == 200
    wanted = [pair for pair in popular if pair[0] != removed] + [("new-b", 0), ("new-a", 0)]
    answer = recall(daemon, k=ALL)
    assert pairs(answer) == wanted and not answer["complete"]
    assert [pair[0] for pair in pairs(recall(daemon, k=3))] == [ids[0], replaced, ids[3]]
    assert pairs(recall(daemon, k=5, filter={"category": "fresh"})) == [wanted[1], ("new-b", 0), ("new-a", 0)]
    assert pairs(recall(daemon, k=2, exclude=[replaced])) == [wanted[0], wanted[2]]
    assert daemon.call("DELETE", "/items/new-b").status == 200
    assert pairs(recall(daemon, k=5, filter={"category": "fresh"})) == [wanted[1], ("new-a", 0)]


def test_scores_stay_the_towers(daemon, server, popular):
    body = {"user": {}, "items": [id_ for id_, _ in popular[:20]]}
    assert daemon.post("/score", body).json == server.post("/score", body).json


def test_they_are_counted(daemon):
    for user in {}, {"user_id": "1"}, {"user_id": "nobody"}:
        recall(daemon, user)
    text = daemon.get("/metrics").body.decode()
    assert harness.metric(text, "recalld_popular_answers_total") == 2
    assert sum(harness.metric(text, f"recalld_searches_{kind}_total") for kind in ("ann", "exact")) == 1


def without_list(bundle):
    """A bundle of another trainer, which has no such list."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "items/popular.u32").unlink()
    del manifest["files"]["items/popular.u32"]
    manifest["fingerprint"] = "0" * 64
    text = json.dumps(manifest)
    (bundle / "manifest.json").write_text(text.replace("0" * 64, hashlib.sha256(text.encode()).hexdigest(), 1))
    return bundle


def test_a_bundle_without_the_list(serve, link, world):
    other = without_list(link.copy(world.model_b, "other"))
    assert recall(serve(other))["source"] == "tower"
    assert "popular      not there" in harness.run(harness.TRAIN, "inspect", other).stdout
    link.point(world.model_a)
    daemon = serve(link, "--set", "fallback=popular")
    link.point(other)
    assert "items/popular.u32" in daemon.reload()["reload"]["last_error"]
    answer = recall(daemon)
    assert answer["source"] == "popular" and answer["model"] == world.model_a.name
