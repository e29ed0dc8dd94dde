#!/usr/bin/env bash
# Requests a second, latency and CPU of POST /recall at 1, 8 and 64 connections, with wrk on the same machine. Of batches,
# whose requests have 64 users each, users a second, and CPU a user.
#   tests/bench/serve.sh BUNDLE [WORKERS] [SECONDS] [K]         programs from $RECALLD_BUILD (default: build)
# RECALLD_SET is a setting of the daemon, for example batch_window_us=200.
# "cpu us" is the daemon's own CPU time a request, user + system: what it costs wherever wrk runs. "ping" is GET /healthz,
# the cost of HTTP alone. "in process" is the same tower pass and search without HTTP and JSON (bench_recall.c), and
# "times" the daemon's CPU over it.
set -euo pipefail
bundle=$(realpath "${1:?usage: serve.sh BUNDLE [WORKERS] [SECONDS] [K]}") workers=${2:-1} seconds=${3:-5} k=${4:-100}
build=$(realpath "${RECALLD_BUILD:-$PWD/build}")
cd "$(dirname "$0")/../.."
command -v wrk >/dev/null || { echo "wrk is missing: apt-get install wrk" >&2; exit 1; }
tmp=$(mktemp -d)
"$build/recalld" --bundle "$bundle" --listen 127.0.0.1:0 --workers "$workers" ${RECALLD_SET:+--set "$RECALLD_SET"} >"$tmp/out" 2>"$tmp/log" & pid=$!
trap 'kill $pid 2>/dev/null || true; wait $pid 2>/dev/null || true; rm -rf "$tmp"' EXIT
for _ in $(seq 600); do
    address=$(sed -n 's/^listening on //p' "$tmp/out")
    [ -n "$address" ] && curl -fs "$address/readyz" >/dev/null && break
    kill -0 $pid || { cat "$tmp/log"; exit 1; }
    sleep 0.1
done

cat >"$tmp/recall.lua" <<'L'
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local i, k, extra, what = 0, os.getenv("K"), os.getenv("EXTRA"), os.getenv("WHAT")
request = function()
    i = i + 1
    if what == "ping" then return wrk.format("GET", "/healthz") end
    if what == "embed" then return wrk.format(nil, "/embed", nil, '{"user":{"user_id":"' .. (i % 5000) .. '"}}') end
    local function one(n) return '{"user":{"user_id":"' .. (n % 5000) .. '"},"k":' .. k .. extra .. '}' end
    if what ~= "batch" then return wrk.format(nil, "/recall", nil, one(i)) end
    local all = {}
    for j = 1, 64 do all[j] = one(64 * i + j) end
    return wrk.format(nil, "/recall", nil, '{"requests":[' .. table.concat(all, ",") .. ']}')
end
done = function(s, latency)
    local n = s.requests * (what == "batch" and 64 or 1)
    io.write(string.format("RESULT %d %.1f %.0f %.0f %d\n", n, n / s.duration * 1e6, latency:percentile(50),
             latency:percentile(99), s.errors.status + s.errors.connect + s.errors.read + s.errors.write + s.errors.timeout))
end
L

gcc -std=c11 -D_GNU_SOURCE -O3 -I. -o "$tmp/bench_recall" tests/bench/bench_recall.c -Wl,--start-group "$build"/lib{ann,core}.a \
    -Wl,--end-group "@$build/faiss.libs" -ljansson -lopenblas -lcrypto -lzstd -lz -lm
in_process() { "$tmp/bench_recall" "$bundle" "$k" 5000 "$1" | awk '{ print $1 + $2 }'; }

hertz=$(getconf CLK_TCK)
cpu() { awk -v hz="$hertz" '{print ($14 + $15) / hz}' "/proc/$pid/stat"; }
measure() { # $1 label, $2 what, $3 connections, $4 more members, $5 us in process
    local from to
    from=$(cpu)
    K=$k WHAT=$2 EXTRA=$4 wrk -t1 -c"$3" -d"${seconds}s" --latency -s "$tmp/recall.lua" "http://$address" >"$tmp/wrk"
    to=$(cpu)
    awk -v label="$1" -v c="$3" -v from="$from" -v to="$to" -v bare="${5:-0}" '$1 == "RESULT" {
        us = (to - from) / $2 * 1e6
        printf "%-14s %5d %12.0f %9d %9d %9.1f %7d", label, c, $3, $4, $5, us, $6
        if (bare > 0) printf " %11.1f %6.2f", bare, us / bare
        printf "\n" }' "$tmp/wrk"
}

echo "recalld: $workers workers, k $k, $(curl -s "$address/model" | python3 -c '
import json, sys
m = json.load(sys.stdin)
print(m["items"], "items, dim", m["dim"], m["index"]["engine"], m["index"]["factory"], "effort", m["index"]["effort"])')"
printf '%-14s %5s %12s %9s %9s %9s %7s %11s %6s\n' what conns requests/s "p50 us" "p99 us" "cpu us" errors "in process" times
bare=$(in_process ann)
for connections in 1 8 64; do measure recall recall $connections "" "$bare"; done
for connections in 8 64; do
    measure "recall exact" recall $connections ',"search":{"exact":true}' "$(in_process exact)"
done
measure batch batch 1 "" "$bare"
measure "batch exact" batch 1 ',"search":{"exact":true}' "$(in_process exact)"
measure embed embed 8 ""
measure ping ping 8 ""
