#!/usr/bin/env python3
"""recall-train against PyTorch: the same model, batches, negatives, loss, optimizer, start and order of events.

    tests/bench/torch_speed.sh [--events N] [--epochs N] [--runs N] [--threads 1,2] [--only CASE] [--verbose]

PyTorch (of the interpreter in PYTHON; Debian: python3-torch) gets its index tensors ready made, which is not timed, and
warms up before it is timed; recall-train's time includes drawing, encoding and everything else of an epoch. PyTorch's
model is tried in every formulation of VARIANTS, and the fastest of the case is what is compared. Runs alternate; each is a
process of its own. Both compute the same thing: the loss of every epoch is compared.

Tab-separated, a line a case and number of threads: case, threads, PyTorch's variant, examples/s of both (median of runs),
ratio (median of the pairs), lowest and highest ratio, ratio of examples a CPU second (what other processes on the machine
do not change; with several threads waiting counts, too), largest relative difference of an epoch's loss. For cases with
ids only also the rate of bare matrix products (bench_sgemm) measured in the same rounds, and recall-train's share of it,
by time and by CPU time. Then the same as Markdown.
"""

import argparse
import itertools
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("RECALLD_BUILD", ROOT / "build"))
PROBE = BUILD / "tests" / "train_probe"
USERS, ITEMS, EVENTS = 30000, 41000, 198 * 4096  # as large as Gowalla, and no batch that is not full

IDS = """
data:
  events: {{path: ids/clicks.csv, user: user_id, item: item_id, time: ts}}
  split: {{method: none}}
user_tower: {{features: [{{name: user_id, type: id, dim: {dim}, unknown_rate: 0}}], network: {{type: none}}}}
item_tower: {{features: [{{name: item_id, type: id, dim: {dim}, unknown_rate: 0}}], network: {{type: none}}}}
similarity: cosine
loss: {{type: softmax, temperature: 0.1, logq: true}}
negatives: {{in_batch: true, mask_seen: false}}
optimizer: {{type: adagrad, lr: 0.1, batch_size: {batch}, epochs: 1, init_scale: 0.1}}
index: {{engine: flat}}
output: {{dir: models}}
"""
FEATURES = """
data:
  users: {{path: rich/users.csv, id: user_id}}
  items: {{path: rich/items.csv, id: item_id}}
  events: {{path: rich/clicks.csv, user: user_id, item: item_id, time: ts}}
  split: {{method: none}}
user_tower:
  features:
    - {{name: user_id, type: id, dim: 32, unknown_rate: 0}}
    - {{name: gender, type: onehot, unknown_rate: 0}}
    - {{name: city, type: categorical, dim: 8, unknown_rate: 0}}
    - {{name: topics, type: categorical, multi: "|", dim: 16, pooling: mean, unknown_rate: 0}}
    - {{name: age, type: numeric, transform: standardize, unknown_rate: 0}}
    - {{name: spend, type: numeric, transform: log, unknown_rate: 0}}
    - {{name: activity, type: numeric, transform: bucketize, buckets: 16, dim: 4, unknown_rate: 0}}
    - {{name: history, type: sequence, of: item_id, last: 20, dim: 32, pooling: mean, unknown_rate: 0}}
  network: {{type: mlp, layers: [256, 128, {dim}]}}
item_tower:
  features:
    - {{name: item_id, type: id, dim: 32, unknown_rate: 0}}
    - {{name: category, type: categorical, dim: 8, unknown_rate: 0}}
    - {{name: tags, type: categorical, multi: "|", dim: 16, pooling: mean, unknown_rate: 0}}
    - {{name: price, type: numeric, transform: log, unknown_rate: 0}}
  network: {{type: mlp, layers: [256, 128, {dim}]}}
similarity: cosine
loss: {{type: softmax, temperature: 0.1, logq: true}}
negatives: {{in_batch: true, mask_seen: false}}
optimizer: {{type: adagrad, lr: 0.02, batch_size: {batch}, epochs: 1, init_scale: 0.1}}
index: {{engine: flat}}
output: {{dir: models}}
"""
# name: (configuration, batch, dim)
CASES = {
    "ids 1024 x 64": (IDS, 1024, 64),
    "ids 1024 x 128": (IDS, 1024, 128),
    "ids 4096 x 64": (IDS, 4096, 64),
    "ids 4096 x 128": (IDS, 4096, 128),
    "12 fields, MLP 256-128-64": (FEATURES, 1024, 64),
}
# how the embeddings are kept, and how the loss is computed
VARIANTS = ["sparse", "dense", "sparse chunks", "sparse compile", "dense compile"]


# --- data ----------------------------------------------------------------------------------------------------------------

def write_clicks(path, events):
    """Popularity and activity fall off about as in Gowalla."""
    draw = random.Random(7)
    users = draw.choices(range(USERS), cum_weights=list(itertools.accumulate((i + 60) ** -0.6 for i in range(USERS))), k=events)
    items = draw.choices(range(ITEMS), cum_weights=list(itertools.accumulate((i + 60) ** -0.75 for i in range(ITEMS))), k=events)
    with open(path, "w") as file:
        file.write("user_id,item_id,ts\n")
        file.writelines(f"{u},{i},{t}\n" for t, (u, i) in enumerate(zip(users, items)))


def make_data(directory, events):
    stamp = directory / f"events-{events}"
    if stamp.exists():
        return
    (directory / "ids").mkdir(parents=True, exist_ok=True)
    write_clicks(directory / "ids" / "clicks.csv", events)
    subprocess.run([BUILD / "recall-train", "synth", directory / "rich", "--users", str(USERS), "--items", str(ITEMS),
                    "--events", str(events), "--seed", "1"], check=True, stdout=subprocess.DEVNULL)
    stamp.touch()


# --- PyTorch ---------------------------------------------------------------------------------------------------------------

class Run:
    """The model of a probe's description in one variant."""

    def __init__(self, path, variant):
        import torch
        sys.path.insert(0, str(ROOT / "tests" / "oracle"))
        import torch_model
        self.torch, self.model = torch, torch_model
        self.description, self.tensors = torch_model.read_probe(path)
        self.variant = variant
        self.sparse = variant.startswith("sparse")
        self.batch = self.description["batch_size"]
        self.weights = {}
        self.reset()
        loss = self.loss
        if "compile" in variant:
            loss = torch.compile(loss, dynamic=False)
        self.loss_function = self.loss_in_chunks if "chunks" in variant else lambda u, v, b: loss(u, v, b)
        self.networks = torch.compile(self.network, dynamic=False) if "compile" in variant else self.network

    def reset(self):
        """Back to the start: weights and optimizer."""
        torch = self.torch
        lr = self.description["optimizer"]["lr"]
        for name, value in self.tensors.items():
            if name.startswith("value."):
                self.weights[name[6:]] = torch.nn.Parameter(value.clone())
        tables = [w for name, w in self.weights.items() if ".embedding." in name]
        dense = [w for name, w in self.weights.items() if ".embedding." not in name]
        if not self.sparse:
            tables, dense = [], tables + dense
        self.optimizers = [torch.optim.Adagrad(tables, lr=lr)] if tables else []
        if dense:
            try:  # one pass over all parameters, where this version of PyTorch has it
                self.optimizers.append(torch.optim.Adagrad(dense, lr=lr, fused=True))
            except (TypeError, RuntimeError):
                self.optimizers.append(torch.optim.Adagrad(dense, lr=lr, foreach=True))

    # index tensors, made before the clock runs

    def columns(self, side, rows):
        """The encoded values of `rows` (users or items) for every feature: what put() takes."""
        torch, t = self.torch, self.tensors
        made = []
        for f in self.description["schema"][f"{side}_tower"]["features"]:
            prefix = f"{side}.{f['name']}"
            if f["type"] == "sequence":
                made.append(None)  # set by history()
            elif f"{prefix}.start" in t:
                made.append(self.bags(t[f"{prefix}.start"].long(), t[f"{prefix}.index"].long(), rows))
            elif f"{prefix}.index" in t:
                index = t[f"{prefix}.index"].long()
                made.append(torch.nn.functional.one_hot(index[rows], int(index.max()) + 1).float() if f["type"] == "onehot" else index[rows])
            else:
                number = t[f"{prefix}.number"][rows]
                made.append(torch.stack([number.nan_to_num(0), number.isnan().float()], 1))
        return made

    def bags(self, start, index, rows):
        """(indices, offsets) of some rows of a bag, for embedding_bag."""
        torch = self.torch
        count = start[rows + 1] - start[rows]
        offsets = torch.cat([count.new_zeros(1), count.cumsum(0)])
        within = torch.arange(int(offsets[-1])) - offsets[:-1].repeat_interleave(count)
        return index[start[rows].repeat_interleave(count) + within], offsets[:-1]

    def batches(self, epoch):
        torch, t = self.torch, self.tensors
        order = t[f"order.{epoch}"].long()
        start = t["seen.start"].long()
        user_of = torch.arange(len(start) - 1).repeat_interleave(start[1:] - start[:-1])
        item_of = t["seen.item"].long()
        for events in order.split(self.batch):
            items = item_of[events]
            columns = {"user": self.columns("user", user_of[events]), "item": self.columns("item", items)}
            if "history.start" in t:
                at = next(i for i, c in enumerate(columns["user"]) if c is None)
                columns["user"][at] = self.bags(t["history.start"].long(), t["history.row"].long(), events)
            same = items[:, None] == items[None, :]
            same.fill_diagonal_(False)
            yield {"columns": columns, "items": items.int(), "log_q": t["log_q"][items], "hits": same.nonzero(as_tuple=True),
                   "target": torch.arange(len(items))}

    # the model

    def put(self, feature, side, column):
        table = self.weights.get(f"{side}.embedding.{feature['name']}")
        if table is None:
            return column
        if isinstance(column, tuple):
            return self.torch.nn.functional.embedding_bag(column[0], table, column[1], mode=feature["pooling"], sparse=self.sparse)
        return self.torch.nn.functional.embedding(column, table, sparse=self.sparse)

    def network(self, side, x):
        spec = self.description["schema"][f"{side}_tower"]["network"]
        own = {name[5:]: w for name, w in self.weights.items() if name.startswith(f"{side}.network")}
        x = self.model.NETWORKS[spec["type"]](x, spec, own)
        return self.torch.nn.functional.normalize(x, dim=1, eps=1e-12)

    def vectors(self, side, columns):
        features = self.description["schema"][f"{side}_tower"]["features"]
        parts = [self.put(f, side, c) for f, c in zip(features, columns)]
        return self.networks(side, parts[0] if len(parts) == 1 else self.torch.cat(parts, 1))

    def loss(self, user, item, batch):
        """Positives on the diagonal; other rows' positives are the negatives, but for accidental hits."""
        torch = self.torch
        scale = 1 / self.description["loss"]["temperature"]
        logits = torch.addmm(-batch["log_q"], user * scale, item.T)
        if "compile" in self.variant:  # fused with what follows
            items, own = batch["items"], batch["target"]
            logits = logits.masked_fill((items[:, None] == items[None, :]) & (own[:, None] != own[None, :]), -torch.inf)
        else:
            logits = logits.index_put(batch["hits"], logits.new_tensor(-torch.inf))
        return torch.nn.functional.cross_entropy(logits, batch["target"])

    def loss_in_chunks(self, user, item, batch, rows=256):
        """The same, 256 rows of the logits at a time, each backward at once: they stay in cache."""
        torch = self.torch
        scale = 1 / self.description["loss"]["temperature"]
        n = len(user)
        u, v = user.detach().requires_grad_(), item.detach().requires_grad_()
        total = 0.0
        for first in range(0, n, rows):
            chunk = slice(first, first + rows)
            items = batch["items"]
            logits = torch.addmm(-batch["log_q"], u[chunk] * scale, v.T)
            same = items[chunk, None] == items[None, :]
            same.diagonal(first).fill_(False)
            loss = torch.nn.functional.cross_entropy(logits.masked_fill(same, -torch.inf), batch["target"][chunk], reduction="sum") / n
            loss.backward()
            total += loss.detach()
        torch.autograd.backward([user, item], [u.grad, v.grad])
        return total

    def step(self, batch):
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss = self.loss_function(self.vectors("user", batch["columns"]["user"]), self.vectors("item", batch["columns"]["item"]), batch)
        if loss.requires_grad:
            loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss.detach()

    def warm_up(self, batches):
        for batch in batches[:3]:
            self.step(batch)
        self.reset()


def torch_run(path, variant, threads, epochs):
    """As train_probe run: prints loss, examples, seconds, CPU seconds of each epoch."""
    import torch
    torch.set_num_threads(threads)
    run = Run(path, variant)
    for epoch in range(1, epochs + 1):
        batches = list(run.batches(epoch))
        if epoch == 1:
            run.warm_up(batches)
        started, cpu = time.perf_counter(), time.process_time()
        losses = [run.step(b) for b in batches]
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        print(f"{float(torch.stack(losses).mean()):.9g}\t{sum(len(b['items']) for b in batches)}\t{seconds:.6f}\t{cpu:.6f}", flush=True)


def torch_try(path, variant, threads, steps=10):
    """Prints the seconds of the fastest of a few steps; of one thread CPU seconds, which a busy machine does not change."""
    import torch
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    run = Run(path, variant)
    batches = list(itertools.islice(run.batches(1), steps))
    run.warm_up(batches)
    best = float("inf")
    for batch in batches:
        started = clock()
        run.step(batch)
        best = min(best, clock() - started)
    print(best)


# --- comparing -----------------------------------------------------------------------------------------------------------

def core_type():
    """OpenBLAS chooses kernels by the processor's model; a model that it does not know would get those of 2004."""
    flags = pathlib.Path("/proc/cpuinfo").read_text()
    return "SkylakeX" if "avx512dq" in flags else "Haswell" if "avx2" in flags else "Nehalem"


def call(argv, threads):
    env = {"OPENBLAS_CORETYPE": core_type(), **os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, env=env)
    if done.returncode != 0:
        raise RuntimeError(f"{argv}: {done.stderr[-2000:]}")
    return done.stdout


def epochs_of(output):
    """(losses, examples a second, examples a CPU second)"""
    rows = [[float(x) for x in line.split("\t")] for line in output.splitlines()]
    examples, seconds, cpu = (sum(r[i] for r in rows) for i in (1, 2, 3))
    return [r[0] for r in rows], examples / seconds, examples / cpu


def fastest(path, threads, wanted, show):
    times = {}
    for variant in wanted:
        try:
            times[variant] = float(call([sys.executable, __file__, "--try", path, variant, threads], threads))
        except RuntimeError as error:  # no compiler, an old PyTorch: that variant is not to be had
            print(f"# {variant}: {str(error).strip().splitlines()[-1][:150]}", file=sys.stderr)
    if show:
        print("# " + ", ".join(f"{v} {1000 * s:.1f} ms" for v, s in times.items()) + " a step at best", file=sys.stderr)
    return min(times, key=times.get)


def compare(case, threads, args, directory):
    yaml, batch, dim = CASES[case]
    config = directory / "case.yaml"
    config.write_text(yaml.format(batch=batch, dim=dim))
    path = directory / "case"
    call([PROBE, "inputs", config, path, args.epochs], threads)
    variant = fastest(path, threads, args.variant or VARIANTS, args.verbose)
    ours, theirs, bare = [], [], []
    for _ in range(args.runs):
        ours.append(epochs_of(call([PROBE, "run", config, args.epochs, threads], threads)))
        theirs.append(epochs_of(call([sys.executable, __file__, "--torch", path, variant, threads, args.epochs], threads)))
        if yaml is IDS:
            wall, _, cpu = call([BUILD / "bench" / "bench_sgemm", batch, dim, threads], threads).split("\t")
            bare.append((float(wall), float(cpu)))
    ratios = [a[1] / b[1] for a, b in zip(ours, theirs)]
    middle = statistics.median
    row = {
        "case": case, "threads": threads, "PyTorch's variant": variant,
        "recall-train": f"{middle(a[1] for a in ours):.0f}", "PyTorch": f"{middle(b[1] for b in theirs):.0f}",
        "ratio": f"{middle(ratios):.2f}", "lowest": f"{min(ratios):.2f}", "highest": f"{max(ratios):.2f}",
        "by CPU time": f"{middle(a[2] / b[2] for a, b in zip(ours, theirs)):.2f}",
        "loss differs by": f"{max(abs(x / y - 1) for a, b in zip(ours, theirs) for x, y in zip(a[0], b[0])):.0e}",
        "bare sgemm": f"{middle(w for w, _ in bare):.0f}" if bare else "",
        "share": f"{middle(a[1] / w for a, (w, _) in zip(ours, bare)):.2f}" if bare else "",
        "share by CPU time": f"{middle(a[2] / c for a, (_, c) in zip(ours, bare)):.2f}" if bare else "",
    }
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--only", help="cases whose name contains this")
    parser.add_argument("--variant", action="append", help="PyTorch's variants to try, of " + ", ".join(VARIANTS) + "; all of them")
    parser.add_argument("--verbose", action="store_true", help="show what a step of each variant takes")
    parser.add_argument("--directory", type=pathlib.Path, default=BUILD / "bench" / "torch")
    args = parser.parse_args()
    directory = args.directory / str(args.events)
    make_data(directory, args.events)
    rows = []
    for case in CASES:
        if args.only and args.only not in case:
            continue
        for threads in (int(n) for n in args.threads.split(",")):
            rows.append(compare(case, threads, args, directory))
            if len(rows) == 1:
                print("\t".join(rows[0]))
            print("\t".join(str(v) for v in rows[-1].values()), flush=True)
    print("\n| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(str(v) for v in row.values()) + " |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--torch"]:
        torch_run(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    elif sys.argv[1:2] == ["--try"]:
        torch_try(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main()
