#!/usr/bin/env python3
"""One batch of recall-train against PyTorch: the loss, and the gradient of every parameter.

    make oracle            fails where PyTorch is missing (Debian: python3-torch; or PYTHON=the interpreter that has it)
    make test              runs the same cases where /usr/bin/python3 has PyTorch, else skips them

The trainer computes in float32, PyTorch here in float64. A gradient may differ by TOLERANCE times the largest element of
its tensor, the loss by TOLERANCE times itself. (A softmax of dot products does not see what is added to all items: the
gradient of the item tower's last bias is zero, and is compared with the largest of all gradients.)

To add a case: one line in CASES.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

import torch

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import torch_model  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("RECALLD_BUILD", ROOT / "build"))
TOLERANCE = 1e-5
USERS, ITEMS, EVENTS = 60, 50, 900

DATA = """
data:
  users: {path: users.csv, id: user_id}
  items: {path: items.csv, id: item_id}
  events: {path: clicks.csv, user: user_id, item: item_id, time: ts}
  split: {method: none}
"""
REST = """
optimizer: {type: adagrad, lr: 0.1, batch_size: 97, epochs: 1, init_scale: 0.3}
index: {engine: flat}
output: {dir: models}
"""
EVERY_FEATURE = DATA + """
user_tower:
  features:
    - {name: user_id, type: id, dim: 6, min_count: 4}
    - {name: gender, type: onehot}
    - {name: city, type: categorical, dim: 4, min_count: 2}
    - {name: topics, type: categorical, multi: "|", dim: 5, pooling: sum}
    - {name: age, type: numeric, transform: standardize}
    - {name: spend, type: numeric, transform: log}
    - {name: activity, type: numeric, transform: bucketize, buckets: 5, dim: 3}
    - {name: history, type: sequence, of: item_id, last: 5, dim: 4, pooling: mean}
  network: {type: mlp, layers: [12, 9, 7]}
item_tower:
  features:
    - {name: item_id, type: id, dim: 6}
    - {name: category, type: onehot}
    - {name: tags, type: categorical, multi: "|", dim: 5, buckets: 17, pooling: mean}
    - {name: price, type: numeric, transform: log}
    - {name: age, type: numeric, transform: bucketize, buckets: 4, dim: 3}
  network: {type: mlp, layers: [9, 7]}
""" + REST
ONEHOT_BAGS = DATA + """
user_tower:
  features:
    - {name: user_id, type: id, dim: 5}
    - {name: topics, type: onehot, multi: "|"}
    - {name: history, type: sequence, of: item_id, last: 4, dim: 5, pooling: sum}
  network: {type: mlp, layers: [8]}
item_tower:
  features:
    - {name: item_id, type: id, dim: 5}
    - {name: tags, type: onehot, multi: "|"}
  network: {type: mlp, layers: [6, 8]}
""" + REST
POOLINGS = DATA + """
user_tower:
  features:
    - {name: topics, type: categorical, multi: "|", dim: 3, pooling: sqrtn}
    - {name: history, type: sequence, of: item_id, last: 6, dim: 5, pooling: recency, half_life: 1.5}
  network: {type: mlp, layers: [8]}
item_tower:
  features:
    - {name: item_id, type: id, dim: 5}
    - {name: tags, type: categorical, multi: "|", dim: 5, pooling: sqrtn}
  network: {type: mlp, layers: [8]}
""" + REST
SHARED = DATA + """
user_tower:
  features:
    - {name: user_id, type: id, dim: 4}
    - {name: history, type: sequence, of: item_id, last: 5, shared: true, pooling: mean}
  network: {type: mlp, layers: [8]}
item_tower:
  features:
    - {name: item_id, type: id, dim: 5}
    - {name: category, type: onehot}
  network: {type: mlp, layers: [8]}
""" + REST
NO_NETWORK = DATA + """
user_tower:
  features:
    - {name: user_id, type: id, dim: 6}
    - {name: city, type: categorical, dim: 4}
    - {name: topics, type: categorical, multi: "|", dim: 3, pooling: mean}
    - {name: history, type: sequence, of: item_id, last: 4, dim: 5, pooling: sum}
    - {name: activity, type: numeric, transform: bucketize, buckets: 5, dim: 2}
  network: {type: none}
item_tower:
  features:
    - {name: item_id, type: id, dim: 11}
    - {name: category, type: categorical, dim: 4}
    - {name: tags, type: categorical, multi: "|", dim: 5, pooling: sum}
  network: {type: none}
""" + REST
IDS = """
data:
  events: {path: clicks.csv, user: user_id, item: item_id, time: ts}
  split: {method: none}
user_tower: {features: [{name: user_id, type: id, dim: 8}], network: {type: none}}
item_tower: {features: [{name: item_id, type: id, dim: 8}], network: {type: none}}
""" + REST

SOFTMAX = ["loss.type=softmax", "loss.temperature=0.5"]
BILATERAL = ["loss.type=bilateral", "loss.temperature=0.5", "loss.balance=1.3"]
POINTWISE = ["loss.type=pointwise", "loss.scale=4", "loss.negatives_per_positive=2"]
HINGE = ["loss.type=triplet_hinge", "loss.margin=0.3"]
LOGISTIC = ["loss.type=triplet_logistic", "loss.sigma=3"]
LEARNED = ["loss.learn=true"]
ROW = ["negatives.draw=row"]
POPULARITY = ["negatives.popularity=9"]
WEIGHTED = ["data.events.weight=clicked"]  # see make_world
IN_BATCH = []
UNIFORM = ["negatives.in_batch=false", "negatives.uniform=31"]
MIXED = ["negatives.uniform=13"]
UNMASKED = ["negatives.mask_seen=false"]
COSINE, DOT = ["similarity=cosine"], ["similarity=dot"]
NO_LOGQ = ["loss.logq=false"]


def network(side, *settings):
    return [f"{side}_tower.network.{s}" for s in settings]


# name: (configuration, settings)
CASES = {
    "ids, in-batch, dot": (IDS, SOFTMAX + DOT),
    "ids, in-batch, cosine, no logQ": (IDS, SOFTMAX + COSINE + NO_LOGQ),
    "ids, in-batch, nothing masked": (IDS, SOFTMAX + COSINE + UNMASKED),
    "ids, uniform": (IDS, SOFTMAX + DOT + UNIFORM),
    "ids, mixed, no logQ": (IDS, SOFTMAX + COSINE + MIXED + NO_LOGQ),
    "ids, the whole train part as one batch": (IDS, SOFTMAX + COSINE + ["optimizer.batch_size=2000"]),
    "no network, in-batch": (NO_NETWORK, SOFTMAX + COSINE),
    "no network, mixed, dot, no logQ": (NO_NETWORK, SOFTMAX + DOT + MIXED + NO_LOGQ),
    "every feature, in-batch": (EVERY_FEATURE, SOFTMAX + COSINE),
    "every feature, uniform, no logQ": (EVERY_FEATURE, SOFTMAX + DOT + UNIFORM + NO_LOGQ),
    "every feature, mixed, nothing masked": (EVERY_FEATURE, SOFTMAX + DOT + MIXED + UNMASKED),
    "poolings sqrtn and recency": (POOLINGS, SOFTMAX + COSINE),
    "a history that shares the item id's table": (SHARED, SOFTMAX + COSINE),
    "one-hot bags, in-batch": (ONEHOT_BAGS, SOFTMAX + COSINE),
    "one-hot bags, mixed": (ONEHOT_BAGS, SOFTMAX + DOT + MIXED),
    "gelu": (EVERY_FEATURE, SOFTMAX + COSINE + network("user", "activation=gelu") + network("item", "activation=gelu")),
    "leaky relu": (EVERY_FEATURE, SOFTMAX + COSINE + network("user", "activation=leaky_relu")),
    "layer norm": (EVERY_FEATURE, SOFTMAX + COSINE + network("user", "layer_norm=true") + network("item", "layer_norm=true")),
    "residual, layer norm, gelu": (EVERY_FEATURE, SOFTMAX + COSINE + network(
        "user", "layers=[9,9,7,7]", "residual=true", "layer_norm=true", "activation=gelu")),
    "cross layers": (EVERY_FEATURE, SOFTMAX + COSINE + network("user", "type=dcn") + network("item", "type=dcn")),
    "cross layers of low rank": (EVERY_FEATURE, SOFTMAX + DOT + network("user", "type=dcn", "cross_rank=2") + network(
        "item", "type=dcn", "cross_rank=4", "cross_layers=3")),
    "bilateral, every feature, in-batch": (EVERY_FEATURE, BILATERAL + COSINE),
    "bilateral, uniform, no logQ": (IDS, BILATERAL + COSINE + UNIFORM + NO_LOGQ),
    "bilateral, drawn by row, dot": (ONEHOT_BAGS, BILATERAL + DOT + UNIFORM + ROW),
    "softmax, drawn by row, every feature": (EVERY_FEATURE, SOFTMAX + COSINE + UNIFORM + ROW),
    "softmax, in-batch and popularity by row": (IDS, SOFTMAX + DOT + POPULARITY + ROW),
    "softmax, learned temperature": (EVERY_FEATURE, SOFTMAX + COSINE + MIXED + LEARNED),
    "softmax, weighted rows": (IDS, SOFTMAX + COSINE + MIXED + WEIGHTED),
    "pointwise, every feature, in-batch": (EVERY_FEATURE, POINTWISE + COSINE),
    "pointwise, drawn by row, dot": (IDS, POINTWISE + DOT + UNIFORM + ROW),
    "pointwise, drawn by batch, learned scale": (ONEHOT_BAGS, POINTWISE + COSINE + UNIFORM + ["negatives.draw=batch"] + LEARNED),
    "pointwise, weighted rows, by row": (IDS, POINTWISE + COSINE + UNIFORM + ROW + WEIGHTED),
    "triplet hinge, every feature, in-batch": (EVERY_FEATURE, HINGE + COSINE),
    "triplet hinge, drawn by row, dot": (SHARED, HINGE + DOT + UNIFORM + ROW),
    "triplet logistic, every feature, in-batch": (EVERY_FEATURE, LOGISTIC + COSINE),
    "triplet logistic, mixed by row, dot": (POOLINGS, LOGISTIC + DOT + MIXED + ROW),
    "triplet logistic, cross layers": (EVERY_FEATURE, LOGISTIC + COSINE + UNIFORM + network("user", "type=dcn") + network("item", "type=dcn")),
}


def run(*argv):
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(f"{argv[0]} exited {done.returncode}: {done.stderr}")


def make_world(directory):
    """Synthetic data for all cases, with gaps."""
    run(BUILD / "recall-train", "synth", directory, "--users", USERS, "--items", ITEMS, "--events", EVENTS, "--seed", 5)
    clicks = directory / "clicks.csv"
    header, *rows = clicks.read_text().splitlines()
    clicks.write_text("\n".join([f"{header},clicked"] + [f"{row},{0.25 + i % 3}" for i, row in enumerate(rows)]) + "\n")


def probe(directory, case):
    """The trainer's batch of a case: (description, tensors)."""
    yaml, settings = CASES[case]
    (directory / "case.yaml").write_text(yaml)
    run(BUILD / "tests" / "train_probe", "batch", directory / "case.yaml", directory / "case", *settings)
    return torch_model.read_probe(directory / "case")


def counting(description, tensors):
    """[positives, candidates]: which candidates are negatives of which row."""
    items, users = tensors["items"].long(), tensors["users"].long()
    n = len(users)
    candidates = items if description["negatives"]["in_batch"] else items[n:]
    counts = items[:n, None] != candidates[None, :]
    if description["negatives"]["mask_seen"]:
        start, item = tensors["seen.start"].long(), tensors["seen.item"].long()
        for row, user in enumerate(users):
            counts[row] &= ~torch.isin(candidates, item[start[user]:start[user + 1]])
    return counts


def owning(tensors, n, drawn):
    """[positives, negatives drawn for one row]: whose they are."""
    owns = torch.zeros(n, drawn, dtype=torch.bool)
    for row in range(n if drawn else 0):
        owns[row, int(tensors["own.start"][row]):int(tensors["own.start"][row + 1])] = True
    return owns


def columns_of(side, description, tensors):
    return [torch_model.Column(f, f"{side}.{f['name']}", tensors, torch.float64)
            for f in description["schema"][f"{side}_tower"]["features"]]


def onehot_widths(description, weights):
    """The width of each one-hot block: what the first layer's input leaves over is learned from the vocabulary, which
    the description does not hold. There is at most one such block a side in CASES."""
    widths = {}
    for side in ("user", "item"):
        spec = description["schema"][f"{side}_tower"]
        if spec["network"]["type"] == "none":
            continue
        total = weights[f"{side}.network.0.weight"].shape[1]
        for f in spec["features"]:
            table = torch_model.table_of(f, side, description["schema"], weights)
            total -= table.shape[1] if table is not None else 2 if f["type"] == "numeric" else 0
        widths.update({(side, f["name"]): total for f in spec["features"] if f["type"] == "onehot"})
    return widths


def torch_batch(description, tensors):
    """The same batch in PyTorch: the loss and {parameter: gradient}."""
    weights = {name[len("value."):]: t.double().requires_grad_() for name, t in tensors.items() if name.startswith("value.")}
    widths = onehot_widths(description, weights)
    user, item = (torch_model.tower(side, description["schema"], columns_of(side, description, tensors), weights, widths)
                  for side in ("user", "item"))
    n, shared = len(user), len(tensors["items"])
    first = 0 if description["negatives"]["in_batch"] else n
    log_q = torch.cat([tensors["log_q"].double(), tensors.get("own.log_q", torch.zeros(0)).double()])
    counts = torch.cat([counting(description, tensors), owning(tensors, n, len(item) - shared)], 1)
    settings = description["loss"]
    scale = torch_model.loss_scale(settings, weights.get("loss.log_scale"))
    losses = torch_model.LOSSES[settings["type"]](settings, scale, (user * item[:n]).sum(1), user @ item[first:].T,
                                                  counts, log_q[:n], log_q[first:])
    loss = (losses * tensors["weight"].double()).mean()
    loss.backward()
    return loss.item(), {name: w.grad for name, w in weights.items()}


def differences(directory, case):
    """(what, difference relative to the largest element) of the loss and every gradient."""
    description, tensors = probe(directory, case)
    loss, gradients = torch_batch(description, tensors)
    yield "loss", abs(loss - description["loss_value"]) / abs(loss)
    largest = max(g.abs().max().item() for g in gradients.values())
    for name, wanted in gradients.items():
        got = tensors[f"gradient.{name}"].double()
        size = wanted.abs().max().item()
        yield name, (got - wanted).abs().max().item() / (size if size > 1e-9 * largest else largest)


def documented_network():
    """The module that docs/bundle.md shows."""
    page = (ROOT / "docs" / "bundle.md").read_text()
    names = {"nn": torch.nn, "F": torch.nn.functional}
    exec(page[page.index("class Network"):].split("```")[0], names)
    return names["Network"]


def documentation_difference(directory, case):
    """How far the documented module is from torch_model's network, with a case's weights as its state_dict."""
    description, tensors = probe(directory, case)
    worst = 0.0
    for side in ("user", "item"):
        spec = description["schema"][f"{side}_tower"]["network"]
        own = {name[len(f"value.{side}."):]: t.double() for name, t in tensors.items()
               if name.startswith(f"value.{side}.") and ".embedding." not in name}
        if spec["type"] != "none":
            x = torch.randn(50, own["network.0.weight"].shape[1], dtype=torch.float64)
            module = documented_network()(x.shape[1], **spec).double()
            module.load_state_dict(own)
            worst = max(worst, (module(x) - torch_model.NETWORKS[spec["type"]](x, spec, own)).abs().max().item())
    return worst


def main():
    print(f"PyTorch {torch.__version__}")
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        directory = pathlib.Path(scratch)
        make_world(directory)
        for case in CASES:
            worst = max(differences(directory, case), key=lambda pair: pair[1])
            bad = not worst[1] <= TOLERANCE
            failed += bad
            print(f"  {'FAIL' if bad else 'ok':4}  {case:45} largest difference {worst[1]:.1e} ({worst[0]})")
        documentation = max(documentation_difference(directory, case) for case in CASES)
        failed += documentation > TOLERANCE
        print(f"  {'FAIL' if documentation > TOLERANCE else 'ok':4}  {'the module in docs/bundle.md':45} largest difference "
              f"{documentation:.1e}")
    print(f"{len(CASES) + 1 - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
