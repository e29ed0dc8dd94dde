#!/usr/bin/env bash
# Runs the unit tests of core, config and server and the kept fuzz inputs of a build with --coverage, and prints which share of the lines and of the
# branches (each way of each) of the files that read foreign bytes they reached. usage: tests/coverage.sh BUILD   (make coverage)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
build=${1:?usage: tests/coverage.sh BUILD}
parsers=(server/http_parse server/http_conn server/http_exchange server/request server/filter server/item_batch
         core/bundle core/safetensors core/schema core/features core/feature_pack core/strtab core/idmap
         config/yaml config/serve_config config/train_config train/csv ann/indexfile)

find "$build" -name '*.gcda' -delete
RECALLD_BUILD=$(realpath "$build")
export RECALLD_BUILD
for test in "$build"/tests/{core,config,server}/test_* "$build"/tests/train/test_csv; do
    [[ ${test##*/} != *.* ]] || continue
    "$test" >/dev/null 2>&1 || echo "failed: $test" >&2
done
for corpus in tests/fuzz/corpus/*; do
    "$build/tests/fuzz/${corpus##*/}" "$corpus" >/dev/null
done
printf '%-24s%10s%10s%10s%10s\n' file lines "of" branches "of"
for name in "${parsers[@]}"; do
    [ -e "$build/obj/$name.gcda" ] || continue
    # gcov speaks of the file and of headers it includes: the file's own paragraph
    gcov -b -n -o "$build/obj/${name%/*}" "$build/obj/$name.gcda" 2>/dev/null | awk -v file="$name.c" '
        /^File/ {mine = index($0, "\x27" file "\x27") > 0}
        mine && /^Lines executed/ {split($0, l, /[:% ]+/); lines = l[3]; n = l[5]}
        mine && /^Taken at least once/ {split($0, b, /[:% ]+/); taken = b[5]; m = b[7]}
        END {printf "%-24s%9.1f%%%10d%9.1f%%%10d\n", file, lines, n, taken, m}'
done
