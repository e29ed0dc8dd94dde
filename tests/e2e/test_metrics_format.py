"""/metrics by the rules of Prometheus' text format 0.0.4, and of naming: what promtool would complain about."""

import re

import pytest

SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*",?)*)\})? (\S+)')
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"')


def families(text):
    """[(name, type, help, [(sample name, labels, value)])]; asserts what holds for lines and their order."""
    assert text.endswith("\n")
    found, seen = [], set()
    for line in text.splitlines():
        if line.startswith("# HELP "):
            _, _, name, help_ = line.split(" ", 3)
            assert name not in seen and help_.strip(), line
            seen.add(name)
            found.append([name, None, help_, []])
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == found[-1][0] and found[-1][1] is None and kind in ("counter", "gauge", "histogram"), line
            found[-1][1] = kind
        else:
            match = SAMPLE.fullmatch(line)
            assert match, line
            name, kind = found[-1][:2]
            suffixes = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
            assert kind and match[1] in [name + suffix for suffix in suffixes], line
            found[-1][3].append((match[1], dict(LABEL.findall(match[2] or "")), float(match[3])))
    return found


@pytest.fixture(scope="module")
def metrics(server):
    server.post("/recall", {"user": {"user_id": "1"}})
    server.post("/recall", {})
    return families(server.get("/metrics").body.decode())


def test_no_sample_twice(metrics):
    samples = [(name, tuple(sorted(labels.items()))) for family in metrics for name, labels, _ in family[3]]
    assert len(samples) == len(set(samples)) > 100


def test_names(metrics):
    for name, kind, _, _ in metrics:
        assert name.startswith("recalld_") and name == name.lower(), name
        assert name.endswith("_total") == (kind == "counter"), name
        assert not re.search(r"_(ms|us|ns|milliseconds|microseconds|kb|mb|percent)(_|$)", name), name


def test_counters_are_not_negative(metrics):
    assert all(value >= 0 for _, kind, _, samples in metrics if kind == "counter" for *_, value in samples)


def test_histograms(metrics):
    histograms = [family for family in metrics if family[1] == "histogram"]
    assert histograms
    for name, _, _, samples in histograms:
        series = {}
        for sample, labels, value in samples:
            bound = labels.pop("le", None)
            series.setdefault(tuple(sorted(labels.items())), []).append((sample[len(name):], bound, value))
        for parts in series.values():
            buckets = [(float(bound), value) for suffix, bound, value in parts if suffix == "_bucket"]
            rest = {suffix: value for suffix, bound, value in parts if bound is None}
            assert set(rest) == {"_sum", "_count"}
            assert buckets == sorted(buckets) and len({bound for bound, _ in buckets}) == len(buckets)
            assert [value for _, value in buckets] == sorted(value for _, value in buckets)
            assert buckets[-1] == (float("inf"), rest["_count"])
