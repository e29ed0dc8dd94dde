#!/usr/bin/env bash
# Quality on Gowalla, ids only: docs/examples/gowalla.yaml with and without the logQ correction, beside popularity, and
# docs/examples/gowalla-bilateral.yaml.
# usage: tests/bench/gowalla.sh TRAIN.csv[.gz] TEST.csv[.gz] [DIR for models and reports]
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }
train=$(realpath "$1") test=$(realpath "$2") out=${3:-$(mktemp -d)}
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
mkdir -p "$out"

fit() { # name, configuration, more arguments: trains, prints one row
    local name=$1 config=$2 started=$SECONDS
    shift 2
    "$top/build/recall-train" fit "$top/docs/examples/$config" --set data.events.path="$train" \
        --set data.split.test="$test" --set output.dir="$out/$name" --report "$out/$name.json" "$@" \
        >"$out/$name.log" 2>&1 || { tail -1 "$out/$name.log" >&2; exit 1; }
    /usr/bin/python3 - "$name" "$out/$name.json" $((SECONDS - started)) <<'P'
import json, sys
name, path, seconds = sys.argv[1:]
report = json.load(open(path))
rows = [(name, report["metrics"])] + ([("popularity", report["baselines"]["popularity"])] if name == "logq" else [])
for row, m in rows:
    print(f"{row}\t{m['recall@20']:.4f}\t{m['ndcg@20']:.4f}\t{m['hit_rate@20']:.4f}\t{m['mrr']:.4f}\t"
          f"{m['coverage@20']:.4f}", end="")
    train, index = report["train"], report["index"]
    print(f"\t{train['epochs']}\t{train['examples_per_second']:.0f}\t{index['recall@100']:.4f}\t{seconds}"
          if row == name else "\t\t\t\t")
P
}

printf 'model\trecall@20\tndcg@20\thit_rate@20\tmrr\tcoverage@20\tepochs\texamples/s\tindex recall@100\tseconds in all\n'
fit logq gowalla.yaml
fit no-logq gowalla.yaml --set loss.logq=false
fit bilateral gowalla-bilateral.yaml
