"""A bundle whose vectors are given, written from docs/bundle.md alone: what is asked of the daemon can be counted out here.

The user's vector is the user's features x0, x1, ... themselves; items have an embedding each, which is their vector.
"""

import hashlib
import json
import pathlib
import struct

import harness


def strings(values):
    data, offsets = [v.encode() for v in values], [0]
    for d in data:
        offsets.append(offsets[-1] + len(d))
    return b"RECSTR1\n" + struct.pack(f"<{len(offsets) + 2}Q", len(data), offsets[-1], *offsets) + b"".join(data)


def floats(values):
    return struct.pack(f"<{len(values)}f", *values)


def safetensors(tensors):
    header, data = {}, b""
    for name, (shape, values) in tensors.items():
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + 4 * len(values)]}
        data += floats(values)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def write_files(directory, manifest, files):
    """The manifest's members besides those that follow from the files, and the files by name."""
    files = dict(files)
    listed = {n: {"size": len(d), "sha256": hashlib.sha256(d).hexdigest()} for n, d in files.items()}
    text = json.dumps({"format": 1, "version": "given-1", "fingerprint": "0" * 64, **manifest, "files": listed}, indent=1)
    digest = hashlib.sha256(text.encode()).hexdigest()
    files["manifest.json"] = text.replace("0" * 64, digest, 1).encode()
    for name, data in files.items():
        path = pathlib.Path(directory) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


class Given:
    """Items by id: (coordinates, attributes)."""

    def __init__(self, items, queries=()):
        self.items = dict(sorted(items.items(), key=lambda pair: pair[0].encode()))
        self.width = len(next(iter(self.items.values()))[0])
        self.dim = 2 * self.width  # a number has a second column, for being missing
        self.queries = [y for query in queries for x in query for y in (x, 0.0)]  # to tune the index with
        self.names = sorted({name for _, attributes in self.items.values() for name in attributes})

    def vector(self, id_):
        return [y for x in self.items[id_][0] for y in (x, 0.0)]

    def manifest(self):
        numbers = [{"name": f"x{i}", "type": "numeric", "transform": "standardize", "mean": 0.0, "stddev": 1.0}
                   for i in range(self.width)]
        none = {"type": "none", "layers": []}
        schema = {"user_tower": {"features": numbers, "network": none}, "similarity": "dot",
                  "item_tower": {"features": [{"name": "item_id", "type": "id", "dim": self.dim}], "network": none}}
        return {"schema": schema, "attributes": self.names, "index": {"engine": "flat"}}

    def files(self):
        ids = list(self.items)
        vectors = [x for id_ in ids for x in self.vector(id_)]
        nothing = [0.0, 1.0] * self.width  # what an empty request gives: all numbers are missing
        best = [{"id": id_, "score": 0.0} for id_ in ids[:1]]
        files = {
            "weights.safetensors": safetensors(
                {"item.embedding.item_id": ([len(ids) + 2, self.dim], [0.0] * (2 * self.dim) + vectors)}),
            "vocab/item.item_id.strings": strings(ids), "items/ids.strings": strings(ids),
            "items/vectors.f32": floats(vectors),
            "probes.json": json.dumps({"k": 1, "probes": [{"user": {}, "vector": nothing, "items": best}]}).encode(),
        }
        if self.queries:
            files["queries.f32"] = floats(self.queries)
        for name in self.names:
            files[f"items/attributes/{name}.strings"] = strings(
                json.dumps(self.items[id_][1].get(name)) for id_ in ids)
        return files

    def write(self, directory, engine="flat"):
        """The bundle's directory; another engine's index is built by recall-train."""
        write_files(directory, self.manifest(), self.files())
        if engine != "flat":
            harness.run(harness.TRAIN, "index", directory, "--engine", engine, "--target-recall", 0.95)
        return pathlib.Path(directory)
