"""max_per: how many items there may be of a value, against taking items from the best down."""

import random

import pytest

import bundles

ITEMS, WIDTH, ALL = 12000, 8, 20000


def make_items(rng):
    """Clustered items: neighbours share a category and, less so, an author; some have none, or several tags."""
    centres = [[rng.gauss(0, 1) for _ in range(WIDTH)] for _ in range(25)]
    items = {}
    for i in range(ITEMS):
        c = min(int(rng.expovariate(0.15)), len(centres) - 1)
        attributes = {"category": f"c{c}", "author": f"{c}-{rng.randrange(60)}", "tags": rng.choices("abcdefgh", k=rng.randrange(4)),
                      "year": 1990 + rng.randrange(30)}
        if rng.random() < 0.05:
            attributes["category"] = None
        items[f"i{i:05}"] = ([x + rng.gauss(0, 0.6) for x in centres[c]], attributes)
    return items


@pytest.fixture(scope="module")
def given():
    rng = random.Random(5)
    return bundles.Given(make_items(rng), [[rng.gauss(0, 1) for _ in range(WIDTH)] for _ in range(500)])


@pytest.fixture(scope="module", params=["native", "faiss", "flat"])
def bundle(request, given, tmp_path_factory):
    return given.write(tmp_path_factory.mktemp("max_per") / "given", request.param)


@pytest.fixture
def daemon(serve, bundle):
    return serve(bundle, "--set", f"limits.k={ALL}", "--workers", 1)


def user_of(rng):
    return {f"x{i}": rng.gauss(0, 1) for i in range(WIDTH)}


def ask(daemon, body, path="/recall"):
    answer = daemon.post(path, body)
    assert answer.status == 200, answer.body
    return answer.json


def values(item, name):
    value = item["fields"][name]
    return {str(v) for v in (value if isinstance(value, list) else [value]) if v is not None}


def oracle(daemon, body, path="/recall"):
    """Everything that fits, best first, taken by hand."""
    caps = body["max_per"]
    whole = {name: value for name, value in body.items() if name != "max_per"}
    everything = ask(daemon, {**whole, "k": ALL, "fields": list(caps), "search": {"exact": True}}, path)["items"]
    taken, counts = [], {}
    for item in everything:
        held = [(name, value) for name in caps for value in values(item, name)]
        if all(counts.get(pair, 0) < caps[pair[0]] for pair in held):
            taken.append(item["id"])
            counts.update({pair: counts.get(pair, 0) + 1 for pair in held})
    return taken[:body.get("k", 100)]


def check_caps(items, caps):
    for name, most in caps.items():
        counts = {}
        for item in items:
            for value in values(item, name):
                counts[value] = counts.get(value, 0) + 1
        assert max(counts.values(), default=0) <= most, (name, counts)


def check(daemon, body, path="/recall"):
    """An exact answer is the oracle's; returns how much of it another one found."""
    wanted = oracle(daemon, body, path)
    k = body.get("k", 100)
    exact = ask(daemon, {**body, "search": {"exact": True}}, path)
    assert [item["id"] for item in exact["items"]] == wanted
    assert exact["complete"] == (len(wanted) == k) and exact["strategy"] == "exact"
    some = ask(daemon, {**body, "fields": list(body["max_per"])}, path)
    ids, scores = [i["id"] for i in some["items"]], [i["score"] for i in some["items"]]
    check_caps(some["items"], body["max_per"])
    assert len(set(ids)) == len(ids) and scores == sorted(scores, reverse=True)
    if len(body["max_per"]) == 1 and "tags" not in body["max_per"]:  # else another choice may hold more, or fewer
        assert len(ids) == len(wanted)
    assert some["complete"] == (len(ids) == k)
    if some["strategy"] == "exact":
        assert ids == wanted
    return len(set(ids) & set(wanted)) / max(len(wanted), 1)


CAPS = [{"category": 5}, {"category": 1}, {"category": 40}, {"author": 1}, {"tags": 10}, {"category": 7, "author": 2},
        {"category": 9, "tags": 6, "author": 1, "year": 3}, {"year": 4}, {"category": 10**9}]


@pytest.mark.parametrize("caps", CAPS, ids=str)
def test_random_users(daemon, caps):
    rng = random.Random(str(caps))
    found = [check(daemon, {"user": user_of(rng), "k": k, "max_per": caps}) for k in (1, 10, 100, 100, 400)]
    assert sum(found) / len(found) > 0.9


def test_with_everything_else(daemon, given):
    rng = random.Random(9)
    for _ in range(10):
        user = user_of(rng)
        best = [item["id"] for item in ask(daemon, {"user": user, "k": 500})["items"]]
        body = {"user": user, "k": rng.choice([5, 50, 200]), "max_per": {"category": rng.randint(1, 30), "year": rng.randint(1, 9)},
                "exclude": rng.sample(best, 200), "filter": {"year": {"gte": 1990 + rng.randrange(25)}, "not": {"tags": ["a"]}}}
        check(daemon, body)
        floor = ask(daemon, {"user": user, "k": 60})["items"][-1]["score"]
        check(daemon, {**body, "min_score": floor})


def test_similar(daemon):
    rng = random.Random(4)
    for _ in range(5):
        check(daemon, {"item": f"i{rng.randrange(ITEMS):05}", "k": 30, "max_per": {"category": 4, "author": 1}}, "/similar")


def test_a_batch_holds_both_kinds(daemon):
    rng = random.Random(6)
    requests = []
    for i in range(12):
        requests.append({"user": user_of(rng), "k": 20, "search": {"exact": True}, "filter": {"year": {"gte": 2000}}})
        if i % 3 == 1:
            requests[-1]["max_per"] = {"category": 2}
    answers = ask(daemon, {"requests": requests})["results"]
    for request, answer in zip(requests, answers):
        one = ask(daemon, request)
        assert [i["id"] for i in answer["items"]] == [i["id"] for i in one["items"]]
        assert (answer["complete"], answer["strategy"]) == (one["complete"], one["strategy"])


def test_items_that_come_and_go(daemon):
    rng = random.Random(8)
    user = user_of(rng)
    best = [item["id"] for item in ask(daemon, {"user": user, "k": 40})["items"]]
    for id_ in best[:5]:
        assert daemon.call("DELETE", f"/items/{id_}").status == 200
    added = [{"id": f"new-{i}", "features": {"item_id": best[rng.randrange(10)]},
              "attributes": {"category": rng.choice(["new", "c0", None]), "tags": ["n", "n", rng.choice("ab")], "year": 2030}}
             for i in range(200)]
    moved = [{"id": id_, "features": {"item_id": id_}, "attributes": {"category": "new"}} for id_ in best[5:15]]
    assert ask(daemon, {"items": added}, "/items")["added"] == 200
    assert ask(daemon, {"items": moved}, "/items")["replaced"] == 10
    for caps in {"category": 3}, {"tags": 4}, {"year": 2}, {"category": 2, "year": 50}:
        for k in 5, 50, 300:
            check(daemon, {"user": user, "k": k, "max_per": caps})


def test_when_nothing_is_left(daemon):
    user = user_of(random.Random(1))
    answer = ask(daemon, {"user": user, "k": 100, "max_per": {"category": 2}, "filter": {"category": [f"c{i}" for i in range(25)]}})
    assert len(answer["items"]) == 50 and not answer["complete"]
    check(daemon, {"user": user, "k": 100, "max_per": {"category": 2}, "filter": {"category": ["c0"], "year": 1991}})
    check(daemon, {"user": user, "k": 5000, "max_per": {"category": 2}})  # those without a category are never passed over


@pytest.mark.parametrize("engine", ["native", "flat"])
@pytest.mark.parametrize("run", [1000, 6000])
def test_the_best_are_all_of_one_category(serve, tmp_path, engine, run):
    """Categories in long rows: the best thousands of one, the next thousands of the next."""
    rng = random.Random(run)
    items = {}
    for i in range(15000):
        x = [(15000 - i) / 1000] + [rng.gauss(0, 0.01) for _ in range(WIDTH - 1)]
        items[f"i{i:05}"] = (x, {"category": f"c{i // run}", "pair": [f"p{i // run}", f"q{i % 3}"]})
    daemon = serve(bundles.Given(items).write(tmp_path / "given", engine), "--set", f"limits.k={ALL}", "--workers", 1)
    small = serve(bundles.Given(items).write(tmp_path / "small", engine), "--workers", 1)  # rounds of 1000 at most
    user = {"x0": 1, **{f"x{i}": 0.5 for i in range(1, WIDTH)}}
    for caps in {"category": 1}, {"category": 3}, {"pair": 2}:
        for k in 2, 10, 100:
            body = {"user": user, "k": k, "max_per": caps}
            check(daemon, body)
            wanted = oracle(daemon, body)
            for search in {}, {"exact": True}:
                answer = ask(small, {**body, "search": search})
                assert [i["id"] for i in answer["items"]] == wanted or (not search and answer["strategy"] != "exact")
                assert len(answer["items"]) == len(wanted) and answer["complete"] == (len(wanted) == k)


def test_it_is_enough_to_look_a_little_wider(serve, given, tmp_path):
    """Usual requests are answered by the index."""
    daemon = serve(given.write(tmp_path / "given", "native"), "--workers", 1)
    rng = random.Random(3)
    strategies = [ask(daemon, {"user": user_of(rng), "k": 20, "max_per": {"category": 10}})["strategy"] for _ in range(20)]
    assert "exact" not in strategies and "filtered_ann" in strategies
