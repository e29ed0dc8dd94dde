#!/usr/bin/env bash
# recall-train against PyTorch, examples a second; see the head of torch_speed.py. PyTorch is that of $PYTHON, by default
# /usr/bin/python3 (Debian: apt-get install python3-torch). torch.compile needs g++ and Python's headers besides.
# usage: tests/bench/torch_speed.sh [options of torch_speed.py]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-/usr/bin/python3}
export RECALLD_BUILD=${RECALLD_BUILD:-$PWD/build}
"$python" -c 'import torch; print("# PyTorch", torch.__version__)' ||
    { echo "PyTorch is missing: apt-get install python3-torch, or PYTHON=an interpreter that has it" >&2; exit 1; }
make --no-print-directory -s all probe
mkdir -p "$RECALLD_BUILD/bench"
gcc -std=c11 -D_GNU_SOURCE -O2 -pthread -o "$RECALLD_BUILD/bench/bench_sgemm" tests/bench/bench_sgemm.c -lopenblas
exec "$python" tests/bench/torch_speed.py "$@"
