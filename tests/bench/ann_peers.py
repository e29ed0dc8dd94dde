#!/usr/bin/env python3
"""Our index engines against libraries of the field: recall@k against time, all in turns on one machine.

    tests/bench/ann_peers.sh BASE.npy QUERIES.npy [--k 100] [--rounds 3] [--peers NAME,...] [--out DIR]

Every library gets the same vectors, in unit length, one thread to search, all cores to build; each is searched one query at
a time and in batches, at a ladder of its own search parameter. Rounds go through all libraries and parameters, so that
whatever else the machine does hits them alike; a point's time is its median round. Times of peers include their Python
binding, which a search among a hundred vectors shows ("overhead"). Time at a recall is read off the curve between the two
points around it, in the logarithm of both.

Prints, tab-separated: library, mode, microseconds at recall .90, .95 and .98, build seconds, bytes a vector (growth of
resident memory while building, without the vectors where a library borrows them), overhead. --out gets curves.json and
curves.svg.
"""

import argparse
import bisect
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("RECALLD_BUILD", ROOT / "build"))
TARGETS = (0.90, 0.95, 0.98)
CORES = len(os.sched_getaffinity(0))


def resident():
    """Bytes, with what malloc keeps."""
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Faiss:
    parameters = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)

    def __init__(self, base):
        import faiss
        self.faiss = faiss
        faiss.omp_set_num_threads(CORES)
        self.index = faiss.IndexHNSWFlat(base.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
        self.index.add(base)
        faiss.omp_set_num_threads(1)

    def set(self, value):
        self.index.hnsw.efSearch = value

    def one(self, query, k):
        return self.index.search(query[None, :], k)[1][0]

    def many(self, queries, k):
        return self.index.search(queries, k)[1]


class Hnswlib:
    parameters = (100, 150, 200, 300, 400, 600, 800, 1200)

    def __init__(self, base):
        import hnswlib
        self.index = hnswlib.Index(space="ip", dim=base.shape[1])
        self.index.init_index(max_elements=len(base), M=32, ef_construction=200)
        self.index.add_items(base, num_threads=CORES)
        self.index.set_num_threads(1)

    def set(self, value):
        self.index.set_ef(value)

    def one(self, query, k):
        return self.index.knn_query(query, k)[0][0]

    def many(self, queries, k):
        return self.index.knn_query(queries, k)[0]


class Scann:
    """2 sqrt(n) leaves, SOAR, exact re-ranking."""
    parameters = tuple((leaves, rank) for leaves, rank in (
        (4, 200), (8, 250), (12, 300), (16, 350), (24, 400), (32, 500), (48, 600), (64, 700), (96, 900), (128, 1200)))

    def __init__(self, base):
        import scann
        leaves = int(2 * math.sqrt(len(base)))
        self.index = (scann.scann_ops_pybind.builder(base, 100, "dot_product")
                      .tree(leaves, 100, training_sample_size=min(len(base), leaves * 100), soar_lambda=1.5,
                            overretrieve_factor=2.0)
                      .score_ah(2, anisotropic_quantization_threshold=0.2).reorder(500).build())

    def set(self, value):
        self.leaves, self.rank = value

    def one(self, query, k):
        return self.index.search(query, k, pre_reorder_num_neighbors=self.rank, leaves_to_search=self.leaves)[0]

    def many(self, queries, k):
        return self.index.search_batched(queries, k, self.rank, self.leaves)[0]


class Svs:
    """Vamana, degree 64, vectors in 8 bits (LVQ)."""
    parameters = (100, 110, 125, 150, 200, 250, 300, 400, 600, 800)

    def __init__(self, base):
        import svs
        self.svs = svs
        loader = svs.LVQLoader(svs.VectorDataLoader(self.file(base), svs.DataType.float32), primary=8, residual=0)
        build = svs.VamanaBuildParameters(alpha=0.95, graph_max_degree=64, window_size=128)
        self.index = svs.Vamana.build(build, loader, svs.DistanceType.MIP, num_threads=CORES)
        self.index.num_threads = 1

    def file(self, base):
        path = str(pathlib.Path(os.environ.get("TMPDIR", "/tmp")) / f"svs-{os.getpid()}.fvecs")
        self.svs.write_vecs(base, path)
        return path

    def set(self, value):
        p = self.index.search_parameters
        p.buffer_config = self.svs.SearchBufferConfig(value)
        self.index.search_parameters = p

    def one(self, query, k):
        return self.index.search(query[None, :], k)[0][0]

    def many(self, queries, k):
        return self.index.search(queries, k)[0]


class Ours:
    """A process of its own, which waits for its turns."""
    threads = 1

    def __init__(self, engine, paths, k, parameters):
        self.parameters = parameters
        self.process = subprocess.Popen([BUILD / "bench" / "bench_ann_turns", *paths, engine, str(k), str(CORES)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        _, self.seconds, self.bytes = self.process.stdout.readline().split()

    def measure(self, effort, batch):
        self.process.stdin.write(f"{effort} {self.threads} {batch}\n")
        self.process.stdin.flush()
        time_, recall = self.process.stdout.readline().split()
        return float(time_), float(recall)


PEERS = {"faiss-cpu": Faiss, "hnswlib": Hnswlib, "scann": Scann, "scalable-vs": Svs}
EFFORTS = (1, 2, 3, 4, 6, 8, 10, 12, 15, 18, 22, 27, 33, 40, 50, 65, 80, 100, 130, 160, 200, 250)
BEAMS = (100, 130, 170, 220, 300, 400, 550, 750, 1000)
MODES = ("single", "batch")


def truth_of(base, queries, k):
    worst = np.empty(len(queries), np.float32)
    for i in range(0, len(queries), 50):
        scores = queries[i:i + 50] @ base.T
        worst[i:i + 50] = np.partition(scores, len(base) - k, axis=1)[:, len(base) - k]
    return worst


def recall_of(base, queries, worst, rows):
    """A row that scores as much as the last true one is a true one."""
    good = 0
    for q, w, found in zip(queries, worst, rows):
        found = np.unique(found[found >= 0])
        good += min(int((base[found] @ q >= w - 1e-6).sum()), rows.shape[1])
    return good / rows.size


def run_peer(peer, value, mode, queries, k):
    peer.set(value)
    rows = np.full((len(queries), k), -1, np.int64)
    started = time.perf_counter()
    if mode == "single":
        for i, q in enumerate(queries):
            found = peer.one(q, k)
            rows[i, :len(found)] = found
    else:
        found = peer.many(queries, k)
        rows[:, :found.shape[1]] = found
    return 1e6 * (time.perf_counter() - started) / len(queries), rows


def at_recall(points, target):
    """points: (recall, microseconds), recall ascending."""
    points = sorted(points)
    best = []
    for recall, t in points:  # only what no point with more recall beats
        best = [p for p in best if p[1] < t] + [(recall, t)]
    i = bisect.bisect_left([r for r, _ in best], target)
    if i == len(best):
        return float("nan")
    if i == 0:
        return best[0][1]
    (r0, t0), (r1, t1) = best[i - 1], best[i]
    a, b, c = (math.log(1.000001 - r) for r in (r0, r1, target))
    return math.exp(math.log(t0) + (math.log(t1) - math.log(t0)) * (c - a) / (b - a))


def draw(curves, path, title):
    import matplotlib
    matplotlib.use("svg")
    from matplotlib import pyplot as plt
    fig, axes = plt.subplots(1, 2, figsize=(11, 4.5), sharey=True)
    for ax, mode in zip(axes, MODES):
        for name, modes in curves.items():
            points = sorted((p["recall"], p["microseconds"]) for p in modes[mode] if 0.8 <= p["recall"] < 0.9995)
            ax.plot([r for r, _ in points], [t for _, t in points], "o-", ms=3, label=name,
                    lw=2.2 if name.startswith("recalld") else 1.2)
        ax.set_yscale("log")
        ax.set_xlabel("recall")
        ax.set_title(f"{title}: {'one query at a time' if mode == 'single' else 'in batches'}", fontsize=10)
        ax.grid(alpha=0.3, which="both")
    axes[0].set_ylabel("microseconds a query, one thread")
    axes[1].legend(fontsize=8)
    fig.tight_layout()
    fig.savefig(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("queries")
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--engines", default="native")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    base = np.ascontiguousarray(np.load(args.base))
    queries = np.ascontiguousarray(np.load(args.queries))
    worst = truth_of(base, queries, args.k)
    contestants, facts = {}, {}
    for engine in filter(None, args.engines.split(",")):
        ours = Ours(engine, (args.base, args.queries), args.k, BEAMS if engine == "faiss" else EFFORTS)
        contestants[f"recalld {engine}"] = ours
        facts[f"recalld {engine}"] = (float(ours.seconds), int(ours.bytes) / len(base), 0.0)
        print(f"# recalld {engine}: built in {ours.seconds} s", file=sys.stderr)
    for name in filter(None, args.peers.split(",")):
        small = base[:1000].copy()
        try:
            peer = PEERS[name](small)
            overhead = min(run_peer(peer, peer.parameters[0], "single", queries[:500], 1)[0] for _ in range(3))
            before, started = resident(), time.monotonic()
            peer = PEERS[name](base)
        except Exception as error:  # a library that does not install here is left out, not the others
            print(f"# {name}: {type(error).__name__}: {str(error)[:300]}", file=sys.stderr)
            continue
        contestants[name] = peer
        facts[name] = (time.monotonic() - started, (resident() - before) / len(base), overhead)
        print(f"# {name}: built in {facts[name][0]:.1f} s", file=sys.stderr)
    times, recalls = {}, {}
    for round_ in range(args.rounds):
        for name, peer in contestants.items():
            for mode in MODES:
                for value in peer.parameters:
                    key = (name, mode, value)
                    if isinstance(peer, Ours):
                        t, recalls[key] = peer.measure(value, 1 if mode == "single" else 256)
                    else:
                        t, rows = run_peer(peer, value, mode, queries, args.k)
                        if key not in recalls:
                            recalls[key] = recall_of(base, queries, worst, rows)
                    times.setdefault(key, []).append(t)
        print(f"# round {round_ + 1} of {args.rounds}", file=sys.stderr)
    curves = {}
    print("library\tmode\t" + "\t".join(f"us at {t}" for t in TARGETS) + "\tbuild s\tbytes a vector\toverhead us")
    for name, peer in contestants.items():
        for mode in MODES:
            points = [(recalls[name, mode, v], statistics.median(times[name, mode, v])) for v in peer.parameters]
            curves.setdefault(name, {})[mode] = [
                {"parameter": v, "recall": r, "microseconds": t} for v, (r, t) in zip(peer.parameters, points)]
            print("\t".join([name, mode, *(f"{at_recall(points, t):.0f}" for t in TARGETS), f"{facts[name][0]:.1f}",
                             f"{facts[name][1]:.0f}", f"{facts[name][2]:.1f}"]))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "curves.json").write_text(json.dumps(curves, indent=1))
        draw(curves, args.out / "curves.svg", f"{len(base):,} x {base.shape[1]}, k = {args.k}")


if __name__ == "__main__":
    main()
