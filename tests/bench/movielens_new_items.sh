#!/usr/bin/env bash
# New films on MovieLens 100K, split by time: ids only, train.yaml, and new-items.yaml. Prints for each the report's recall@20,
# of all, of new users and of new items, then recall@20 among new films only (movielens_new_items.py).
# usage: tests/bench/movielens_new_items.sh [SEED [DIR for models and reports]]
set -euo pipefail
seed=${1:-1} out=${2:-$(mktemp -d)}
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
data=${MOVIELENS:-${XDG_CACHE_HOME:-$HOME/.cache}/recalld/ml-100k}
[ -s "$data/ml-100k.inter" ] || { echo "no MovieLens 100K in $data: run make demo first" >&2; exit 1; }
mkdir -p "$out"

fit() { # name, configuration, more arguments
    local name=$1 config=$2
    shift 2
    "$top/build/recall-train" fit "$top/docs/examples/movielens/$config" --set data.users.path="$data/ml-100k.user" \
        --set data.items.path="$data/ml-100k.item" --set data.events.path="$data/ml-100k.inter" \
        --set 'data.split={method: time, fraction: 0.2}' --set threads=1 --set seed="$seed" --set 'index={engine: flat}' \
        --set 'evaluate.baselines=[popularity]' --set output.dir="$out/$name" --report "$out/$name.json" "$@" \
        >"$out/$name.log" 2>&1
    /usr/bin/python3 - "$out/$name.json" "$name" <<'P'
import json, sys
report = json.load(open(sys.argv[1]))
new = [s for s in report["slices"] if s["value"] == "new"]
print(sys.argv[2], report["metrics"]["recall@20"], *(f"{s['by']} {s['recall@20']} {s['recall@20_ci']}" for s in new), sep="\t")
P
    /usr/bin/python3 "$top/tests/bench/movielens_new_items.py" "$top/build/recall-train" "$data" 0.2 20 "$out/$name/current"
}

fit ids train.yaml --set 'user_tower={features: [{name: user_id, type: id, dim: 64}]}' \
    --set 'item_tower={features: [{name: item_id, type: id, dim: 64}]}'
fit train train.yaml
fit new-items new-items.yaml
