#!/usr/bin/python3
"""How well does a model rank new films among themselves? recall@k on MovieLens 100K where the candidates are only the films
without a train event, for models of the split by time (movielens_losses.sh time). In the report of `fit` new films compete
with all films; here popularity, which no new film can have learned, is out of the way.
usage: tests/bench/movielens_new_items.py RECALL_TRAIN DATA_DIR FRACTION K BUNDLE...
Prints a row a bundle: recall@K with a 95 % interval (bootstrap over users), then what chance gives."""
import json
import random
import subprocess
import sys
import tempfile


def table(path):
    with open(path, encoding="utf-8") as f:
        names = [name.split(":")[0] for name in f.readline().rstrip("\n").split("\t")]
        return [dict(zip(names, line.rstrip("\n").split("\t"))) for line in f]


def embed(program, bundle, side, rows):
    with tempfile.TemporaryDirectory() as tmp:
        args = [program, "embed", bundle, "--side", side, "--output", f"{tmp}/out.jsonl"]
        if rows is not None:
            with open(f"{tmp}/in.jsonl", "w", encoding="utf-8") as f:
                f.writelines(json.dumps(row) + "\n" for row in rows)
            args += ["--input", f"{tmp}/in.jsonl"]
        subprocess.run(args, check=True, stdout=subprocess.DEVNULL)
        with open(f"{tmp}/out.jsonl", encoding="utf-8") as f:
            return [json.loads(line) for line in f]


def request(schema, user, history):
    row = {"user_id": user["user_id"], "history": history[-20:], "gender": user["gender"], "age": float(user["age"]),
           "occupation": user["occupation"]}
    return {name: value for name, value in row.items() if name in schema}


def main():
    program, data, fraction, k, bundles = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]), sys.argv[5:]
    users = {u["user_id"]: u for u in table(f"{data}/ml-100k.user")}
    events = [e for e in table(f"{data}/ml-100k.inter") if float(e["rating"]) >= 4]
    events.sort(key=lambda e: float(e["timestamp"]))
    cut = len(events) - int(len(events) * fraction)
    known = {e["item_id"] for e in events[:cut]}
    history, wanted = {}, {}
    for e in events[:cut]:
        history.setdefault(e["user_id"], []).append(e["item_id"])
    for e in events[cut:]:
        if e["item_id"] not in known:
            wanted.setdefault(e["user_id"], set()).add(e["item_id"])
    for bundle in bundles:
        items = {row["id"]: row["vector"] for row in embed(program, bundle, "item", None) if row["id"] not in known}
        schema = inspect_features(program, bundle)
        asked = sorted(wanted)
        vectors = embed(program, bundle, "user", [request(schema, users[u], history.get(u, [])) for u in asked])
        recalls = []
        for user, row in zip(asked, vectors):
            score = {i: sum(a * b for a, b in zip(row["vector"], v)) for i, v in items.items()}
            best = sorted(score, key=lambda i: (-score[i], i))[:k]
            recalls.append(len(wanted[user].intersection(best)) / len(wanted[user]))
        draw = random.Random(1)
        means = sorted(sum(draw.choices(recalls, k=len(recalls))) / len(recalls) for _ in range(1000))
        print(f"{bundle}\t{sum(recalls) / len(recalls):.4f}\t[{means[25]:.4f}, {means[974]:.4f}]\tchance {k / len(items):.4f}\t"
              f"{len(asked)} users, {sum(map(len, wanted.values()))} events, {len(items)} new films", flush=True)


def inspect_features(program, bundle):
    shown = subprocess.run([program, "inspect", bundle, "--json"], check=True, capture_output=True, text=True).stdout
    return {f["name"] for f in json.loads(shown)["schema"]["user_tower"]["features"]}


main()
