"""What the demo shows: the metrics, then recalls from a running recalld, with titles. Standard library only.

ask.py movielens|synth DATA REPORT.json HOST:PORT|unix:PATH
"""

import csv
import http.client
import json
import pathlib
import socket
import statistics
import sys
import textwrap
import time

K = 10
TIMED = 300  # requests that are timed
HELD_OUT = {"movielens": 5, "synth": 1}  # test events a user: split.n of the training configuration


def read_table(path, delimiter):
    """Rows as dictionaries; a header like "age:token" names the column age."""
    with open(path, newline="", encoding="utf-8") as file:
        quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
        rows = csv.reader(file, delimiter=delimiter, quoting=quoting)
        names = [name.split(":")[0] for name in next(rows)]
        return [dict(zip(names, row)) for row in rows]


class MovieLens:
    thing, things = "film", "films"
    fields = ["movie_title", "class", "release_year"]
    user = "802"
    newcomer = {"age": 24, "occupation": "student"}
    like = "50"  # Star Wars

    def __init__(self, data):
        self.users = {row["user_id"]: row for row in read_table(data / "ml-100k.user", "\t")}
        self.items = {row["item_id"]: row for row in read_table(data / "ml-100k.item", "\t")}
        events = read_table(data / "ml-100k.inter", "\t")
        self.events = [(int(e["timestamp"]), e["user_id"], e["item_id"], float(e["rating"]) >= 4) for e in events]
        positives = sum(liked for _, _, _, liked in self.events)
        self.summary = (f"{len(self.users)} users, {len(self.items)} films, {len(events)} ratings; the {positives} of"
                        " 4 and 5 stars are the positives")

    def user_features(self, user):
        row = self.users[user]
        return {"user_id": user, "gender": row["gender"], "age": int(row["age"]), "occupation": row["occupation"]}

    def describe_user(self, user):
        row = self.users[user]
        return f"user {user}: {row['age']} years, {row['gender']}, {row['occupation']}"

    def describe(self, item):
        title = item["movie_title"] or "?"
        # "Godfather, The" is how the data set sorts
        for article in ("The", "A", "An", "Il", "La", "Le", "Les", "Das"):
            if title.endswith(f", {article}"):
                title = f"{article} {title[:-len(article) - 2]}"
        genres = item["class"] if isinstance(item["class"], list) else (item["class"] or "").split()
        year = item["release_year"]
        return f"{title} ({year if isinstance(year, str) or year is None else int(year)})", ", ".join(genres)


class Synth:
    thing, things = "item", "items"
    fields = ["title", "category", "tags"]
    user = "1"
    newcomer = {"age": 24, "city": "city1"}
    like = None

    def __init__(self, data):
        self.users = {row["user_id"]: row for row in read_table(data / "users.csv", ",")}
        self.items = {row["item_id"]: row for row in read_table(data / "items.csv", ",")}
        events = read_table(data / "clicks.csv", ",")
        self.events = [(int(e["ts"]), e["user_id"], e["item_id"], True) for e in events]
        self.summary = f"{len(self.users)} users, {len(self.items)} items, {len(events)} clicks, all made up"

    def user_features(self, user):
        numbers = ("age", "spend", "activity")
        return {name: float(value) if name in numbers and value else value for name, value in self.users[user].items()}

    def describe_user(self, user):
        row = self.users[user]
        return f"user {user}: {row['gender']}, {row['city']}, topics {row['topics'].replace('|', ', ') or 'not known'}"

    def describe(self, item):
        tags = item["tags"] if isinstance(item["tags"], list) else (item["tags"] or "").split("|")
        return item["title"], ", ".join(tags)


class Client:
    """One kept connection."""

    def __init__(self, address):
        is_unix = address.startswith("unix:")
        self.connection = http.client.HTTPConnection("localhost" if is_unix else address, timeout=10)
        if is_unix:
            self.connection.sock = socket.socket(socket.AF_UNIX)
            self.connection.sock.settimeout(10)
            self.connection.sock.connect(address.removeprefix("unix:"))

    def call(self, method, path, body=None):
        self.connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
        response = self.connection.getresponse()
        text = response.read().decode()
        if response.status != 200:
            raise SystemExit(f"{method} {path}: status {response.status}: {text.strip()}")
        return text

    def post(self, path, body):
        return json.loads(self.call("POST", path, body))


def step(title):
    print(f"\n== {title}", flush=True)


def show_request(path, body):
    body = dict(body)
    if len(body.get("exclude", [])) > 3:
        body["exclude"] = body["exclude"][:3] + ["..."]
    if len(body.get("user", {}).get("history", [])) > 3:
        body["user"] = {**body["user"], "history": body["user"]["history"][:3] + ["..."]}
    print(textwrap.fill(f"POST {path} {json.dumps(body)}", 110, initial_indent="   ", subsequent_indent="       ",
                        break_long_words=False, break_on_hyphens=False))


def show_items(world, answer, marked=()):
    for place, item in enumerate(answer["items"], 1):
        title, kinds = world.describe(item["fields"])
        mark = "*" if item["id"] in marked else " "
        print(f"   {place:2d} {mark} {item['score']:.3f}  {title:<52.52s}  {kinds}")


def show_metrics(world, report):
    model, popular = report["metrics"], report["baselines"]["popularity"]
    print(f"   {'':<14s}{'this model':>12s}{'most popular':>15s}")
    for name in ("recall@20", "ndcg@20", "hit_rate@10", "mrr", "coverage@20"):
        print(f"   {name:<14s}{model[name]:>12.4f}{popular[name]:>15.4f}")
    index = report["index"]
    print(f"   Every {world.thing} was ranked for {model['users']} users, what they had before the split left out;"
          f" the right column\n   recalls the same most popular {world.things} for everybody.")
    print(f"   Index: {index['engine']} {index.get('factory') or ''}, recall@100 {index['recall@100']:.4f} against exact"
          f" search. Training took {report['train']['seconds']:.1f} s.")


def known_user(world, kind):
    """The user's train positives, what else he has met, and what was held out; in time order."""
    mine = sorted((e for e in world.events if e[1] == world.user), key=lambda e: e[0])
    liked = [item for _, _, item, positive in mine if positive]
    train, held_out = liked[:-HELD_OUT[kind]], liked[-HELD_OUT[kind]:]
    seen = [item for _, _, item, _ in mine if item not in held_out]
    return train, seen, held_out


def show_known_user(world, kind, client):
    train, seen, held_out = known_user(world, kind)
    step(f"What {world.describe_user(world.user)} liked last, of {len(train)} {world.things}")
    for item in reversed(train[-K:]):
        title, kinds = world.describe(world.items[item])
        print(f"             {title:<52.52s}  {kinds}")
    step(f"Recalled for this user, without the {len(seen)} {world.things} known to him or her")
    request = {"user": {**world.user_features(world.user), "history": train[-20:]}, "k": K, "exclude": seen,
               "fields": world.fields}
    show_request("/recall", request)
    answer = client.post("/recall", request)
    show_items(world, answer, held_out)
    found = sum(item["id"] in held_out for item in answer["items"])
    if found:
        print(f"   * {found} of the {len(held_out)} that this user really went for afterwards; training did not see them.")
    return request


def show_newcomer(world, client):
    words = ", ".join(f"{name} {value}" for name, value in world.newcomer.items())
    step(f"Recalled for somebody new, of whom only this is known: {words}")
    request = {"user": world.newcomer, "k": K, "fields": world.fields}
    show_request("/recall", request)
    show_items(world, client.post("/recall", request))


def show_similar(world, client, fallback):
    item = world.like or fallback
    step(f"Similar to {world.describe(world.items[item])[0]}")
    request = {"item": item, "k": K, "fields": world.fields}
    show_request("/similar", request)
    show_items(world, client.post("/similar", request))


def server_seconds(client):
    """Sum and count of the daemon's own clock for /recall."""
    values = dict(line.rsplit(" ", 1) for line in client.call("GET", "/metrics").splitlines() if line[:1] != "#")
    family = 'recalld_request_seconds_{}{{endpoint="/recall"}}'
    return float(values[family.format("sum")]), float(values[family.format("count")])


def show_time(client, request):
    step("How long a recall takes")
    before = server_seconds(client)
    times = []
    for _ in range(TIMED):
        start = time.perf_counter()
        client.post("/recall", request)
        times.append(1e3 * (time.perf_counter() - start))
    after = server_seconds(client)
    inside = 1e3 * (after[0] - before[0]) / (after[1] - before[1])
    print(f"   {TIMED} times the request above on one connection: {inside:.3f} ms in recalld (mean); seen from this Python"
          f" client\n   median {statistics.median(times):.2f} ms, slowest {max(times):.2f} ms.")


def main():
    kind, data, report, address = sys.argv[1:]
    world = {"movielens": MovieLens, "synth": Synth}[kind](pathlib.Path(data))
    client = Client(address)
    step("How good it is")
    print(f"   {world.summary}.")
    show_metrics(world, json.loads(pathlib.Path(report).read_text()))
    request = show_known_user(world, kind, client)
    show_newcomer(world, client)
    show_similar(world, client, request["user"]["history"][-1])
    show_time(client, request)


if __name__ == "__main__":
    main()
