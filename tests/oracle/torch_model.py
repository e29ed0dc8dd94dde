"""The two towers and their losses in PyTorch, written from the documentation alone: what recall-train is compared with.

Needs nothing but torch. A model comes from the JSON schema of a bundle's manifest and its named weights. To add a network,
a pooling or a loss: one function and one entry in the table it belongs to.
"""

import json
import struct

import torch


def read_safetensors(path):
    """{name: float32 tensor} of a file, with no other library."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = bytearray(file.read())
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        flat = torch.empty(0) if begin == end else torch.frombuffer(data, dtype=torch.float32, offset=begin, count=(end - begin) // 4)
        tensors[name] = flat.reshape(entry["shape"])
    return tensors


def read_probe(path):
    """What train_probe wrote: its description and its tensors."""
    with open(f"{path}.json") as file:
        return json.load(file), read_safetensors(f"{path}.safetensors")


# --- features ------------------------------------------------------------------------------------------------------------

def weigh_mean(feature, count, age):
    return 1 / count


def weigh_sum(feature, count, age):
    return torch.ones_like(count)


def weigh_sqrtn(feature, count, age):
    return count.rsqrt()


def weigh_recency(feature, count, age):
    """2^(-age / half_life), normalised to sum 1; the geometric series is summed in closed form."""
    ratio = 2.0 ** (-1.0 / feature["half_life"])
    total = (1 - ratio**count) / (1 - ratio)
    return ratio**age / total


POOLINGS = {"mean": weigh_mean, "sum": weigh_sum, "sqrtn": weigh_sqrtn, "recency": weigh_recency}


def is_bag(feature):
    return feature["type"] == "sequence" or "multi" in feature


class Column:
    """One feature of some rows: an index a row, or a bag (index, row of each, weight of each), or numbers."""

    def __init__(self, feature, prefix, tensors, dtype):
        self.feature = feature
        self.number = self.row = None
        if f"{prefix}.number" in tensors:
            self.number = tensors[f"{prefix}.number"].to(dtype)
            self.rows = len(self.number)
            return
        self.index = tensors[f"{prefix}.index"].long()
        self.rows = len(self.index)
        if is_bag(feature):
            self.set_bag(tensors[f"{prefix}.start"].long(), dtype)

    def set_bag(self, start, dtype):
        count = start[1:] - start[:-1]
        self.rows = len(count)
        self.start = start
        self.row = torch.arange(self.rows).repeat_interleave(count)
        age = (start[1:][self.row] - 1 - torch.arange(len(self.row))).to(dtype)
        self.weight = POOLINGS[self.feature["pooling"]](self.feature, count.to(dtype)[self.row], age) if "pooling" in self.feature else None


def put_onehot(column, rows, dtype):
    out = torch.zeros(column.rows, rows, dtype=dtype)
    out[torch.arange(column.rows) if column.row is None else column.row, column.index] = 1
    return out


def put_number(column):
    missing = column.number.isnan()
    return torch.stack([torch.where(missing, 0, column.number), missing.to(column.number.dtype)], 1)


def put_embedding(column, table):
    if column.row is None:
        return table[column.index]
    out = torch.zeros(column.rows, table.shape[1], dtype=table.dtype)
    return out.index_add(0, column.row, table[column.index] * column.weight[:, None])


def put_feature(column, table, width, dtype):
    if table is not None:
        return put_embedding(column, table)
    return put_number(column) if column.number is not None else put_onehot(column, width, dtype)


# --- networks ------------------------------------------------------------------------------------------------------------

F = torch.nn.functional
ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "leaky_relu": F.leaky_relu}


def network_none(x, spec, weights):
    return x


def network_mlp(x, spec, weights):
    n = len(spec["layers"])
    for i in range(n):
        y = F.linear(x, weights[f"network.{i}.weight"], weights[f"network.{i}.bias"])
        if i + 1 < n:
            if spec.get("layer_norm"):
                y = F.layer_norm(y, y.shape[1:], weights[f"norm.{i}.weight"], weights[f"norm.{i}.bias"])
            y = ACTIVATIONS[spec["activation"]](y)
        x = y + x if spec.get("residual") and i > 0 and y.shape == x.shape else y
    return x


def network_dcn(x, spec, weights):
    x0 = x
    for i in range(spec["cross_layers"]):
        w = {name.removeprefix(f"cross.{i}."): tensor for name, tensor in weights.items()}
        if spec.get("cross_rank"):
            z = F.linear(F.linear(x, w["v.weight"]), w["u.weight"], w["u.bias"])
        else:
            z = F.linear(x, w["weight"], w["bias"])
        x = x0 * z + x
    return network_mlp(x, spec, weights)


NETWORKS = {"none": network_none, "mlp": network_mlp, "dcn": network_dcn}


def normalize(x):
    """Rows of length 1; a row shorter than 1e-12 has no direction: zeros, and no gradient."""
    norm = x.norm(dim=1, keepdim=True)
    long = norm.detach() >= 1e-12
    return torch.where(long, x, 0) / torch.where(long, norm, 1)


def table_of(feature, side, schema, weights):
    """The embedding table of a feature, or None. A shared history reads the item id's."""
    if feature.get("shared"):
        side, feature = "item", next(f for f in schema["item_tower"]["features"] if f["type"] == "id")
    return weights.get(f"{side}.embedding.{feature['name']}")


def tower(side, schema, columns, weights, onehot_widths):
    """Vectors [rows, dim] of one side, normalised under cosine."""
    spec = schema[f"{side}_tower"]
    own = {name[len(side) + 1:]: w for name, w in weights.items() if name.startswith(f"{side}.")}
    dtype = next(iter(weights.values())).dtype
    parts = [put_feature(c, table_of(c.feature, side, schema, weights), onehot_widths.get((side, c.feature["name"])), dtype) for c in columns]
    x = NETWORKS[spec["network"]["type"]](torch.cat(parts, 1), spec["network"], own)
    return normalize(x) if schema["similarity"] == "cosine" else x


# --- losses --------------------------------------------------------------------------------------------------------------
# positive [rows], negative [rows, candidates] are similarities, counts [rows, candidates] says which negatives count; scale is
# what similarities are multiplied with (1 / temperature, scale or sigma: a number, or the learned tensor). A loss a row.

def corrected(scale, negative, counts, log_q):
    return (negative * scale - log_q).masked_fill(~counts, -torch.inf)


def softmax(settings, scale, positive, negative, counts, positive_log_q, log_q):
    own = positive * scale - positive_log_q
    return torch.logsumexp(torch.cat([own[:, None], corrected(scale, negative, counts, log_q)], 1), 1) - own


def bilateral(settings, scale, positive, negative, counts, positive_log_q, log_q):
    return settings["balance"] * torch.logsumexp(corrected(scale, negative, counts, log_q), 1) - positive * scale


def mean_of_those_that_count(x, counts):
    return (x * counts).sum(1) / counts.sum(1).clamp(min=1)


def pointwise(settings, scale, positive, negative, counts, positive_log_q, log_q):
    softplus = torch.nn.functional.softplus
    negatives = mean_of_those_that_count(softplus(scale * negative), counts)
    return softplus(-scale * positive) + settings["negatives_per_positive"] * negatives


def triplet_hinge(settings, scale, positive, negative, counts, positive_log_q, log_q):
    return mean_of_those_that_count(torch.relu(settings["margin"] + negative - positive[:, None]), counts)


def triplet_logistic(settings, scale, positive, negative, counts, positive_log_q, log_q):
    ahead = (scale * (negative - positive[:, None])).masked_fill(~counts, -torch.inf)
    return torch.log1p(torch.exp(ahead).sum(1))


LOSSES = {"softmax": softmax, "bilateral": bilateral, "pointwise": pointwise, "triplet_hinge": triplet_hinge,
          "triplet_logistic": triplet_logistic}


def loss_scale(settings, learned):
    """`learned` is the logarithm of the scale as a parameter, or None."""
    if learned is not None:
        return torch.exp(learned)
    return {"pointwise": settings["scale"], "triplet_logistic": settings["sigma"]}.get(settings["type"], 1 / settings["temperature"])
