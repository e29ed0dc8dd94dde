#!/usr/bin/env bash
# Fuzzes every parser with libFuzzer under AddressSanitizer and UndefinedBehaviorSanitizer: tests/fuzz/fuzz_*.c.
# usage: tests/fuzz/run.sh [SECONDS each, default 60] [NAME...]    e.g. tests/fuzz/run.sh 3600 http csv
# Corpora are kept under build/fuzz/corpus/<name>, beginning with what tests/fuzz/corpus has, and with real files where a target
# makes some (FUZZ_SEEDS);
# an input that fails is left in build/fuzz and ends the run. FUZZ_KEEP=1 keeps what covers most in tests/fuzz/corpus, for make test.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
seconds=${1:-60}
[[ $seconds =~ ^[0-9]+$ ]] || { sed -n '3s/^# //p' "$0" >&2; exit 2; }
shift || true
names=("$@")
if [ ${#names[@]} = 0 ]; then
    for f in tests/fuzz/fuzz_*.c; do f=${f##*/fuzz_}; names+=("${f%.c}"); done
fi

out=build/fuzz
mkdir -p "$out"
make -s fuzz-deps
make -s build/lint/include/omp.h # clang has none
ann/faiss-build.sh flags "$out"
flags=(-std=c11 -D_GNU_SOURCE -O1 -g -fno-omit-frame-pointer -DRECALLD_NO_CLONES -Wno-psabi -I. -pthread
       '-fsanitize=fuzzer-no-link,address,undefined' -fno-sanitize-recover=all)
libraries=("@$out/faiss.libs" -ljansson -lopenblas -lcrypto -lyaml -lzstd -lz -levent -levent_pthreads -lm)

# Everything but the main programs, instrumented; what a target does not use, the linker leaves out.
objects=()
for f in core/*.c config/*.c ann/*.c train/*.c server/*.c; do
    [[ $f == */main.c ]] && continue
    o=$out/obj/${f%.c}.o
    objects+=("$o")
    if [ ! "$o" -nt "$f" ]; then
        mkdir -p "$(dirname "$o")"
        clang "${flags[@]}" "@$out/faiss.cflags" -idirafter build/lint/include -c -o "$o" "$f"
    fi
done
rm -f "$out/libparsers.a"
ar rcs "$out/libparsers.a" "${objects[@]}"

for name in "${names[@]}"; do
    clang "${flags[@]}" -fsanitize=fuzzer -o "$out/$name" "tests/fuzz/fuzz_$name.c" "$out/libparsers.a" "${libraries[@]}"
    mkdir -p "$out/corpus/$name"
    if [ -e "tests/fuzz/corpus/$name" ]; then tests/fuzz/pack.py --unpack "tests/fuzz/corpus/$name" "$out/corpus/$name"; fi
    echo "fuzz $name: $seconds s"
    FUZZ_SEEDS="$out/corpus/$name" "$out/$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
        -artifact_prefix="$out/$name-" -print_final_stats=1 "$out/corpus/$name" >"$out/$name.log" 2>&1 || { tail -30 "$out/$name.log" >&2; exit 1; }
    grep -E 'number_of_executed_units|average_exec_per_sec' "$out/$name.log"
    if [ -n "${FUZZ_KEEP:-}" ]; then
        rm -rf "$out/kept" && mkdir "$out/kept"
        "$out/$name" -merge=1 "$out/kept" "$out/corpus/$name" >"$out/$name.log" 2>&1
        tests/fuzz/pack.py "$out/kept" "tests/fuzz/corpus/$name"
    fi
done
echo "fuzz: nothing found"
