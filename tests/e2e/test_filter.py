"""The filter of /recall and /similar, against the rows of items.csv."""

import csv
import random

import pytest

ALL = 1000  # limits.k


@pytest.fixture(scope="module")
def rows(world):
    with open(world.data / "items.csv", newline="") as file:
        return {row["item_id"]: row for row in csv.DictReader(file)}


def recall(server, user="1", **more):
    answer = server.post("/recall", {"user": {"user_id": user}, **more})
    assert answer.status == 200, answer.body
    return answer.json


def price(row):
    return float(row["price"]) if row["price"] else None


def tags(row):
    return {tag for tag in row["tags"].split("|") if tag}


def holds(row, filter_):
    for name, condition in filter_.items():
        if name == "not":
            if any(holds(row, {inner: value}) for inner, value in condition.items()):
                return False
        elif isinstance(condition, dict):
            x = price(row)
            bounds = {"gte": lambda b: x >= b, "gt": lambda b: x > b, "lte": lambda b: x <= b, "lt": lambda b: x < b}
            if x is None or not all(bounds[k](b) for k, b in condition.items()):
                return False
        else:
            wanted = {str(v) for v in (condition if isinstance(condition, list) else [condition])}
            if not (tags(row) if name == "tags" else {row[name]}) & wanted:
                return False
    return True


def expected(rows, filter_):
    return {id_ for id_, row in rows.items() if holds(row, filter_)}


def check(server, rows, filter_, **more):
    """All that match are returned when k is large, and k of them otherwise; scores are those without a filter."""
    matching = expected(rows, filter_)
    everything = {i["id"]: i["score"] for i in recall(server, k=ALL, search={"exact": True})["items"]}
    for k in 1, 20, ALL:
        answer = recall(server, k=k, filter=filter_, **more)
        ids = [item["id"] for item in answer["items"]]
        assert len(ids) == len(set(ids)) == min(k, len(matching))
        assert set(ids) <= matching
        assert answer["complete"] == (len(matching) >= k)
        assert answer["strategy"] in ("filtered_ann", "exact")
        scores = [item["score"] for item in answer["items"]]
        assert scores == sorted(scores, reverse=True)
        assert all(everything.get(item["id"], item["score"]) == item["score"] for item in answer["items"])
    best = recall(server, k=20, filter=filter_, search={"exact": True})
    assert [i["id"] for i in best["items"]] == [i for i in everything if i in matching][:20] or len(everything) == ALL


def values(rows, column):
    return sorted({row[column] for row in rows.values() if row[column]})


def test_one_value_and_lists(server, rows):
    some = values(rows, "category")
    check(server, rows, {"category": some[0]})
    check(server, rows, {"category": some[:3]})
    check(server, rows, {"category": []})
    check(server, rows, {"category": ["no such category"]})
    check(server, rows, {})


def test_lists_of_values(server, rows):
    some = sorted(set().union(*(tags(row) for row in rows.values())))
    check(server, rows, {"tags": some[:2]})
    check(server, rows, {"not": {"tags": some[:5]}})


def test_ranges(server, rows):
    prices = sorted(p for p in map(price, rows.values()) if p is not None)
    low, high = prices[len(prices) // 4], prices[len(prices) // 2]
    for range_ in ({"gte": low}, {"gt": low}, {"lte": high}, {"lt": high}, {"gte": low, "lt": high},
                   {"gt": low, "lte": high}, {"gte": high, "lte": high}, {"gt": high, "lt": low}):
        check(server, rows, {"price": range_})


def test_a_number_as_a_value(server, rows):
    some = next(row["price"] for row in rows.values() if row["price"])
    assert expected(rows, {"price": {"gte": float(some), "lte": float(some)}}) == {
        item["id"] for item in recall(server, k=ALL, filter={"price": [float(some)]})["items"]}


def test_all_conditions_hold(server, rows):
    moments = random.Random(4)
    categories = values(rows, "category")
    prices = sorted(p for p in map(price, rows.values()) if p is not None)
    for _ in range(10):
        filter_ = {"category": moments.sample(categories, len(categories) // 2),
                   "price": {"lt": moments.choice(prices)},
                   "not": {"tags": ["t1", "t2"], "price": {"lt": prices[len(prices) // 10]}}}
        check(server, rows, filter_, exclude=moments.sample(sorted(rows), 0))


def test_excluded_and_filtered(server, rows):
    filter_ = {"category": values(rows, "category")[:2]}
    best = [item["id"] for item in recall(server, k=30, filter=filter_, search={"exact": True})["items"]]
    rest = recall(server, k=20, filter=filter_, exclude=best[:10], search={"exact": True})
    assert [item["id"] for item in rest["items"]] == best[10:30]


def test_similar_takes_filters(server, rows):
    category = values(rows, "category")[0]
    answer = server.post("/similar", {"item": next(iter(rows)), "k": 10, "filter": {"category": category}}).json
    assert answer["items"]
    assert all(rows[item["id"]]["category"] == category for item in answer["items"])


def test_batches_filter_each(server, rows):
    some = values(rows, "category")[:3]
    requests = [{"user": {"user_id": "1"}, "k": 5, "filter": {"category": c}} for c in some]
    requests.append({"user": {"user_id": "1"}, "k": 5})
    results = server.post("/recall", {"requests": requests}).json["results"]
    for request, result in zip(requests, results):
        alone = recall(server, **{k: v for k, v in request.items() if k != "user"})
        assert (result["complete"], result["strategy"]) == (alone["complete"], alone["strategy"])
        assert [i["id"] for i in result["items"]] == [i["id"] for i in alone["items"]]


@pytest.mark.parametrize("filter_, type_, pointer", [
    ([], "invalid-field", "/filter"),
    ("category", "invalid-field", "/filter"),
    ({"colour": ["a"]}, "invalid-field", "/filter/colour"),
    ({"category": None}, "invalid-field", "/filter/category"),
    ({"category": [["a"]]}, "invalid-field", "/filter/category/0"),
    ({"category": ["a", None]}, "invalid-field", "/filter/category/1"),
    ({"category": ["a"] * 10001}, "limit-exceeded", "/filter/category"),
    ({"title": {"gte": 1}}, "invalid-field", "/filter/title"),
    ({"price": {}}, "invalid-field", "/filter/price"),
    ({"price": {"above": 1}}, "unknown-field", "/filter/price/above"),
    ({"price": {"gte": "1"}}, "invalid-field", "/filter/price/gte"),
    ({"not": ["a"]}, "invalid-field", "/filter/not"),
    ({"not": {"not": {"category": ["a"]}}}, "invalid-field", "/filter/not/not"),
    ({"not": {"a/b~c": ["a"]}}, "invalid-field", "/filter/not/a~1b~0c"),
])
def test_bad_filters_are_named(server, filter_, type_, pointer):
    answer = server.post("/recall", {"user": {"user_id": "1"}, "filter": filter_})
    assert answer.status == 400
    assert answer.json["type"].endswith(type_), answer.json
    assert answer.json["pointer"] == pointer, answer.json
