#!/usr/bin/env bash
# Everything that docs/benchmarks.md can repeat without a download: serving and reloading of a synthetic model, the bare
# search; with GOWALLA=DIR (train.csv.gz and test.csv.gz in it) also quality on Gowalla.
# usage: tests/bench/run.sh        models and reports go to build/bench
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
out=build/bench
mkdir -p "$out"
if [ ! -e "$out/models/current" ]; then
    build/recall-train synth "$out/data" --users 5000 --items 50000 --events 500000 >/dev/null
    for seed in 1 2; do
        build/recall-train fit "$out/data/train.yaml" --set output.dir="$out/models" --set seed=$seed 2>&1 | tail -1
    done
fi
mapfile -t bundles < <(find "$out/models" -mindepth 1 -maxdepth 1 -type d -not -name '.*' | sort)
tests/bench/serve.sh "$out/models/current"
/usr/bin/python3 tests/bench/reload_load.py "${bundles[0]}" "${bundles[1]}"
if [ -n "${GOWALLA:-}" ]; then
    tests/bench/gowalla.sh "$GOWALLA/train.csv.gz" "$GOWALLA/test.csv.gz" "$out/gowalla"
fi
