"""User profiles: what the bundle knows of users need not be said in requests."""

import collections
import csv
import json
import random

import pytest

import harness


@pytest.fixture(scope="module")
def people(world):
    """The users' features as requests would say them, from the files; some users have no events."""
    with open(world.data / "users.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    more = [{**row, "user_id": f"quiet-{i}"} for i, row in enumerate(rows[:20])]
    with open(world.data / "people.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows + more)
    events = collections.defaultdict(list)
    with open(world.data / "clicks.csv", newline="") as file:
        for row in csv.DictReader(file):
            events[row["user_id"]].append((int(row["ts"]), row["item_id"]))
    people = {}
    for row in rows + more:
        person = {name: value for name, value in row.items() if value}
        kept = sorted(events[row["user_id"]], key=lambda event: event[0])[:-1]  # the last one is for the test
        person["history"] = [item for _, item in kept[-20:]]
        people[row["user_id"]] = person
    return people


@pytest.fixture(scope="module")
def configs(world, people):
    text = (world.data / "train.yaml").read_text().replace("users.csv", "people.csv")
    (world.data / "people.yaml").write_text(text)
    anonymous = text.replace("    - {name: user_id, type: id, dim: 32}\n", "", 1)
    assert anonymous != text
    (world.data / "anonymous.yaml").write_text(anonymous)
    return {"people": world.data / "people.yaml", "anonymous": world.data / "anonymous.yaml"}


@pytest.fixture(scope="module", params=["people", "anonymous"])
def bundle(request, world, configs):
    return world.fit(f"profiles-{request.param}", "output.user_profiles=true", config=configs[request.param])


@pytest.fixture
def daemon(serve, bundle):
    return serve(bundle, "--workers", 1)


def said(bundle, person):
    """What the tower of this bundle takes of a person."""
    return person if "people" in str(bundle) else {k: v for k, v in person.items() if k != "user_id"}


def ask(daemon, path, **body):
    answer = daemon.post(path, body)
    assert answer.status == 200, answer.body
    return answer.json


def test_a_name_is_enough(daemon, bundle, people):
    for id_, person in people.items():
        short = ask(daemon, "/embed", user={"user_id": id_})["vector"]
        assert short == ask(daemon, "/embed", user=said(bundle, person))["vector"], id_


def test_answers_say_where_they_come_from(daemon, bundle, people):
    person = people["7"]
    short = ask(daemon, "/recall", user={"user_id": "7"}, k=20)
    full = ask(daemon, "/recall", user=said(bundle, person), k=20)
    assert short["source"] == "profile" and full["source"] == "tower"
    assert short["items"] == full["items"]
    ids = [item["id"] for item in full["items"]]
    scored = ask(daemon, "/score", user={"user_id": 7}, items=ids)
    assert scored["items"] == full["items"] and scored["source"] == "profile"
    results = ask(daemon, "/recall", requests=[{"user": {"user_id": "7"}}, {"user": {"user_id": "nobody"}}, {"user": {}}])["results"]
    assert [result["source"] for result in results] == ["profile", "tower", "tower"]
    assert "source" not in ask(daemon, "/similar", item=ids[0])


def test_what_a_request_says_wins(daemon, bundle, people):
    rng = random.Random(2)
    names = [name for name in said(bundle, next(iter(people.values()))) if name != "user_id"]
    ids = list(people)
    for _ in range(100):
        id_, other = rng.choice(ids), people[rng.choice(ids)]
        own = {name: rng.choice([other.get(name), None, other.get(name, "")]) for name in rng.sample(names, rng.randint(1, 6))}
        mixed = {**said(bundle, people[id_]), **own}
        short = ask(daemon, "/embed", user={"user_id": id_, **own})["vector"]
        assert short == ask(daemon, "/embed", user=mixed)["vector"], own


def test_a_stranger_is_as_before(daemon, bundle):
    for user in {"user_id": "nobody", "age": 30}, {"user_id": None, "age": 30}, {"age": 30}:
        answer = ask(daemon, "/recall", user=user, k=5)
        assert answer["source"] == "tower"
    answer = daemon.post("/recall", {"user": {"user_id": ["7"]}})
    assert answer.status == 400 and answer.json["pointer"] == "/user/user_id"
    assert answer.json["type"].endswith("invalid-field")
    answer = daemon.post("/recall", {"user": {"userid": "7"}})
    assert answer.status == 400 and answer.json["type"].endswith("unknown-field")


def test_others_show_it(daemon, bundle, people, tmp_path):
    names = [name for name in daemon.get("/model").json["features"]["user"] if name != "user_id"]
    profiles = {"users": len(people), "key": "user_id", "features": names}
    assert daemon.get("/model").json["profiles"] == profiles
    shown = harness.run(harness.TRAIN, "inspect", bundle).stdout
    assert f"profiles     {len(people)} users by user_id: {' '.join(names)}\n" in shown
    (tmp_path / "users.jsonl").write_text('{"user_id": "7"}\n{"user_id": "quiet-3", "age": 20}\n')
    lines = harness.run(harness.TRAIN, "embed", bundle, "--side", "user", "--input", tmp_path / "users.jsonl").stdout.splitlines()
    for line, user in zip(lines, [{"user_id": "7"}, {"user_id": "quiet-3", "age": 20}], strict=True):
        here = ask(daemon, "/embed", user=user)["vector"]
        assert max(abs(a - b) for a, b in zip(json.loads(line)["vector"], here, strict=True)) < 1e-6


def test_probes_check_profiles(bundle):
    probes = json.loads((bundle / "probes.json").read_text())["probes"]
    assert sum(probe["user"].keys() == {"user_id"} for probe in probes) == 8


def test_another_index_keeps_them(serve, link, bundle):
    copy = link.copy(bundle, "copy")
    harness.run(harness.TRAIN, "index", copy, "--engine", "flat")
    assert ask(serve(copy), "/recall", user={"user_id": "7"})["source"] == "profile"


def test_they_come_and_go_with_reloads(serve, link, world, bundle):
    link.point(world.model_a)
    daemon = serve(link)
    assert ask(daemon, "/recall", user={"user_id": "7"})["source"] == "tower"
    assert "profiles" not in daemon.get("/model").json
    link.point(bundle)
    daemon.reload()
    assert ask(daemon, "/recall", user={"user_id": "7"})["source"] == "profile"
    damaged = link.copy(bundle, "damaged")
    path = damaged / "users/features/history.bags"
    path.write_bytes(path.read_bytes()[:-4])
    link.point(damaged)
    assert "history.bags" in daemon.reload()["reload"]["last_error"]
    assert ask(daemon, "/recall", user={"user_id": "7"})["source"] == "profile"


def test_off_unless_asked_for(world):
    assert not (world.model_a / "users").exists()
    assert "users" not in json.loads((world.model_a / "manifest.json").read_text())
