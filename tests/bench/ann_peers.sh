#!/usr/bin/env bash
# Our index engines against faiss-cpu, hnswlib, ScaNN and scalable-vs; see the head of ann_peers.py. The libraries are
# installed into a virtual environment in build/bench/peers, or PYTHON is an interpreter that has them.
# usage: tests/bench/ann_peers.sh BASE.npy QUERIES.npy [options of ann_peers.py]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export RECALLD_BUILD=${RECALLD_BUILD:-$PWD/build}
make --no-print-directory -s all "$RECALLD_BUILD/bench/bench_ann_turns"
if [ -z "${PYTHON:-}" ]; then
    PYTHON=$RECALLD_BUILD/bench/peers/bin/python
    if [ ! -x "$PYTHON" ]; then
        python3 -m venv "$RECALLD_BUILD/bench/peers"
        "$RECALLD_BUILD/bench/peers/bin/pip" install -q numpy matplotlib faiss-cpu hnswlib scann scalable-vs
    fi
fi
exec env OPENBLAS_NUM_THREADS=1 "$PYTHON" tests/bench/ann_peers.py "$@"
