#!/usr/bin/env bash
# Every loss and every kind of negative on MovieLens 100K: docs/examples/movielens/train.yaml with its features, and with
# nothing but the two ids. Prints a row a model, tab-separated; "new" are users and items without a train event. The first
# model's report gives the baselines, its bundle what "mined" looks for negatives in.
# usage: tests/bench/movielens_losses.sh [leave_last|time [SEED [DIR for models and reports]]]
# leave_last: the split of train.yaml, where hardly anything is new; time: the latest fifth of all events, mostly of new users.
# The data is what `make demo` has fetched, or three files ml-100k.* in $MOVIELENS.
set -euo pipefail
split=${1:-leave_last} seed=${2:-1} out=${3:-$(mktemp -d)}
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
data=${MOVIELENS:-${XDG_CACHE_HOME:-$HOME/.cache}/recalld/ml-100k}
[ -s "$data/ml-100k.inter" ] || { echo "no MovieLens 100K in $data: run make demo first" >&2; exit 1; }
case $split in
leave_last) splitting=() ;;
time) splitting=(--set 'data.split={method: time, fraction: 0.2}') ;;
*) sed -n '5,6s/^# //p' "$0" >&2; exit 2 ;;
esac
mkdir -p "$out"

fit() { # name, more arguments: trains, prints one row; a configuration that is refused gives its reason as the row
    local name=$1 path=$out/$kind-${1//[^a-z0-9]/-}
    shift
    rm -rf "$path"
    if ! "$top/build/recall-train" fit "$top/docs/examples/movielens/train.yaml" --set data.users.path="$data/ml-100k.user" \
        --set data.items.path="$data/ml-100k.item" --set data.events.path="$data/ml-100k.inter" "${splitting[@]}" \
        --set seed="$seed" --set 'index={engine: flat}' --set 'evaluate.baselines=[popularity, item_cf]' \
        "${towers[@]}" --set output.dir="$path" --report "$path.json" "$@" >"$path.log" 2>&1; then
        printf '%s\t%s\t%s\n' "$name" "$kind" "$(tail -n 1 "$path.log")"
        return
    fi
    /usr/bin/python3 - "$name" "$kind" "$path.json" <<'P'
import json, sys
name, kind, path = sys.argv[1:]
report = json.load(open(path))
new = {s["by"]: s for s in report["slices"] if s["value"] == "new" and s["by"] in ("new_users", "new_items")}

def row(name, kind, metrics, values):
    cells = [f"{metrics['recall@20']:.4f}", f"{metrics['ndcg@20']:.4f}"]
    for by in ("new_users", "new_items"):
        cells.append(f"{values(new[by])['recall@20']:.4f} ({new[by]['users']} users)" if by in new else "-")
    print(name, kind, *cells, sep="\t", flush=True)

if name == "softmax" and kind == "features":
    for baseline, metrics in report["baselines"].items():
        row(baseline, "", metrics, lambda s: s["baselines"][baseline])
row(name, kind, report["metrics"], lambda s: s)
P
}

everything() {
    local mined="source: mined, bundle: $out/$kind-softmax/current"
    fit softmax # in-batch negatives, temperature 0.2, logQ
    fit bilateral --set 'loss={type: bilateral, temperature: 0.2}'
    fit pointwise --set 'loss={type: pointwise}'
    fit triplet_hinge --set 'loss={type: triplet_hinge}'
    fit triplet_logistic --set 'loss={type: triplet_logistic}'
    fit 'softmax, no logQ' --set loss.logq=false
    fit 'softmax, uniform 512' --set 'negatives={in_batch: false, uniform: 512}'
    fit 'softmax, popularity 512' --set 'negatives={in_batch: false, popularity: 512}'
    fit 'softmax, popularity 512 + uniform 32' --set 'negatives={in_batch: false, popularity: 512, uniform: 32}'
    fit 'softmax, in-batch + uniform 512' --set negatives.uniform=512
    fit 'softmax, in-batch + mined 101-500' --set "negatives.hard={$mined, ranks: [101, 500]}"
    fit 'softmax, in-batch + mined 20-100' --set "negatives.hard={$mined, ranks: [20, 100]}"
    fit 'softmax, in-batch + exposed' --set negatives.exposed=1 --set negatives.allow_exposed=true
}

printf 'model\ttowers\trecall@20\tndcg@20\trecall@20, new users\trecall@20, new items\n'
kind=features towers=()
everything
kind=ids
towers=(--set 'user_tower={features: [{name: user_id, type: id, dim: 64}]}'
    --set 'item_tower={features: [{name: item_id, type: id, dim: 64}]}')
everything
