"""Every kind of network: the daemon computes what the trainer computes, and both what docs/bundle.md says (in plain Python,
from the bundle's files). What is for training alone leaves no trace in a bundle."""

import json
import math
import struct

import pytest

import harness
from test_parity import far, trainer_vectors, users  # noqa: F401 (a fixture)
from train_tools import manifest

NETWORKS = {
    "gelu": ["type=mlp", "layers=[24,16]", "activation=gelu"],
    "leaky_relu": ["type=mlp", "layers=[24,16]", "activation=leaky_relu"],
    "layer_norm": ["type=mlp", "layers=[24,20,16]", "layer_norm=true", "dropout=0.2"],
    "residual": ["type=mlp", "layers=[24,24,16,16]", "residual=true", "dropout=0.1"],
    "dcn": ["type=dcn", "layers=[24,16]", "cross_layers=2"],
    "dcn_low_rank": ["type=dcn", "layers=[16]", "cross_layers=3", "cross_rank=3"],
    "all": ["type=dcn", "layers=[24,24,16]", "cross_layers=1", "cross_rank=2", "activation=gelu", "layer_norm=true",
            "residual=true", "dropout=0.3"],
}


@pytest.fixture(scope="module")
def trained(world):
    """A bundle with the network in both towers, made once."""
    bundles = {}

    def fit(name):
        if name not in bundles:
            sets = [f"{tower}.network.{s}" for tower in ("user_tower", "item_tower") for s in NETWORKS[name]]
            bundles[name] = world.fit(f"network_{name}", *sets,
                                      "user_tower.features.0.dropout=0.25")
        return bundles[name]

    return fit


def read_tensors(bundle):
    data = (bundle / "weights.safetensors").read_bytes()
    length = struct.unpack_from("<Q", data)[0]
    tensors = {}
    for name, entry in json.loads(data[8:8 + length]).items():
        begin, end = entry["data_offsets"]
        flat = struct.unpack_from(f"<{(end - begin) // 4}f", data, 8 + length + begin)
        columns = entry["shape"][1] if len(entry["shape"]) == 2 else None
        tensors[name] = flat if columns is None else [flat[i:i + columns] for i in range(0, len(flat), columns)]
    return tensors


def linear(x, weight, bias=None):
    return [math.fsum(a * b for a, b in zip(row, x)) + (bias[i] if bias else 0) for i, row in enumerate(weight)]


def norm(x, weight, bias):
    mean = sum(x) / len(x)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in x) / len(x) + 1e-5)
    return [(v - mean) / deviation * w + b for v, w, b in zip(x, weight, bias)]


ACTIVATIONS = {
    "relu": lambda z: max(0, z),
    "leaky_relu": lambda z: z if z > 0 else 0.01 * z,
    "gelu": lambda z: z * 0.5 * (1 + math.erf(z / math.sqrt(2))),
}


def network(x, spec, w):
    """docs/bundle.md, Networks."""
    x0 = x
    for i in range(spec.get("cross_layers", 0)):
        if spec.get("cross_rank", 0):
            z = linear(linear(x, w[f"cross.{i}.v.weight"]), w[f"cross.{i}.u.weight"], w[f"cross.{i}.u.bias"])
        else:
            z = linear(x, w[f"cross.{i}.weight"], w[f"cross.{i}.bias"])
        x = [a * b + c for a, b, c in zip(x0, z, x)]
    for i in range(len(spec["layers"])):
        y = linear(x, w[f"network.{i}.weight"], w[f"network.{i}.bias"])
        if i + 1 < len(spec["layers"]):
            if spec.get("layer_norm"):
                y = norm(y, w[f"norm.{i}.weight"], w[f"norm.{i}.bias"])
            y = [ACTIVATIONS[spec["activation"]](z) for z in y]
        x = [a + b for a, b in zip(y, x)] if spec.get("residual") and i > 0 and len(x) == len(y) else y
    return x


def vector_of_nobody(bundle):
    """The user tower's vector for {}: the missing rows of single values, nothing pooled, numbers missing."""
    tensors = read_tensors(bundle)
    spec = manifest(bundle)["schema"]["user_tower"]
    w = {name.removeprefix("user."): tensor for name, tensor in tensors.items() if name.startswith("user.")}
    x = []
    for f in spec["features"]:
        if f["type"] == "onehot":
            count = struct.unpack_from("<Q", (bundle / "vocab" / f"user.{f['name']}.strings").read_bytes(), 8)[0]
            x += [0, 1] + [0] * count
        elif f"embedding.{f['name']}" not in w:
            x += [0, 1]
        elif "multi" in f or f["type"] == "sequence":
            x += [0] * f["dim"]
        else:
            x += w[f"embedding.{f['name']}"][1]
    v = network(x, spec["network"], w)
    length = math.sqrt(sum(a * a for a in v))
    return [a / length for a in v]


@pytest.mark.parametrize("name", NETWORKS)
def test_daemon_trainer_and_documentation_agree(trained, serve, users, tmp_path, name):  # noqa: F811
    bundle = trained(name)
    some = users[:150]
    offline = trainer_vectors(bundle, [*some, {}], tmp_path / "users.jsonl")
    with_daemon = serve(bundle)
    connection = with_daemon.connect()
    for user, vector in zip([*some, {}], offline, strict=True):
        answer = connection.call("POST", "/embed", {"user": user})
        assert answer.status == 200, (user, answer.body)
        assert far(answer.json["vector"], vector) <= 1e-6, user
    connection.close()
    assert far(vector_of_nobody(bundle), offline[-1]) <= 2e-6


@pytest.mark.parametrize("name", ["layer_norm", "all"])
def test_dropout_stays_in_training(trained, name):
    schema = manifest(trained(name))["schema"]
    assert "dropout" not in json.dumps(schema)
    shown = harness.run(harness.TRAIN, "inspect", trained(name)).stdout
    assert "layer norm" in shown


def test_dropout_is_used_and_repeatable(world):
    def weights(name, rate):
        bundle = world.fit(name, "user_tower.network.type=mlp", "user_tower.network.layers=[24,32]",
                           f"user_tower.network.dropout={rate}", "item_tower.network.type=mlp",
                           "item_tower.network.layers=[32]", "threads=2")
        return manifest(bundle)["files"]["weights.safetensors"]["sha256"]

    assert weights("dropout_a", 0.3) == weights("dropout_b", 0.3) != weights("dropout_c", 0)
