#!/usr/bin/env bash
# Size: a large synthetic world and one a hundredth of it, each read and trained for one epoch with the configuration that
# synth writes. Prints rows read a second, examples a second, and the peaks of memory (anonymous and resident) until the model is
# trained and afterwards (evaluation, baselines, index), beside what it may be: tables + optimizer state + 1 GiB.
# usage: tests/bench/size.sh [DIR [USERS ITEMS EVENTS]]     default: build/bench/size 10000000 1000000 100000000
# The large world's files take 3 GB; the whole takes an hour or more. More settings for fit in FIT, like
# FIT="--set optimizer.batch_size=4096".
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
out=${1:-$top/build/bench/size} users=${2:-10000000} items=${3:-1000000} events=${4:-100000000}

world() { # name, users, items, events: made once
    [ -e "$out/$1/train.yaml" ] || "$top/build/recall-train" synth "$out/$1" --users "$2" --items "$3" --events "$4"
}

fit() { # name, rows of all files as they are read (tables twice, events once)
    local -a more
    read -ra more <<<"${FIT:-}"
    /usr/bin/python3 - "$1" "$2" "$out/$1/report.json" "$top/build/recall-train" fit "$out/$1/train.yaml" \
        --set optimizer.epochs=1 --set evaluate.max_users=10000 --set output.dir="$out/$1/models" \
        --report "$out/$1/report.json" "${more[@]}" <<'P'
import json, os, subprocess, sys, threading, time
name, rows, report, *command = sys.argv[1:]
def anonymous(pid):
    """Resident bytes that are no file's: mapped files can be dropped at any time."""
    try:
        with open(f"/proc/{pid}/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))
    except (OSError, StopIteration):
        return 0


def watch(pid):
    while not finished.wait(0.2):
        phase = "training" if trained is None else "after"
        peaks[phase] = max(peaks[phase], anonymous(pid))


started = time.monotonic()
loaded = trained = None
peaks, finished = {"training": 0, "after": 0}, threading.Event()
with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
    watcher = threading.Thread(target=watch, args=(run.pid,))
    watcher.start()
    for line in run.stderr:
        print(line, end="", file=sys.stderr)
        if loaded is None and "data: " in line and " train events" in line:
            loaded = time.monotonic() - started
        if "epoch 1/1  loss" in line:
            trained = time.monotonic() - started
    bundle = run.stdout.read().strip().splitlines()[-1:]
    finished.set()
    watcher.join()
if run.returncode != 0 or not bundle or loaded is None:
    sys.exit(f"{name}: fit failed")
weights = os.path.getsize(os.path.join(bundle[0], "weights.safetensors"))
allowed = 2 * weights + (1 << 30)  # Adagrad keeps a number for each weight
print(f"{name}\t{int(rows) / loaded:.0f}\t{json.load(open(report))['train']['examples_per_second']:.0f}\t"
      f"{peaks['training'] / 1e9:.2f}\t{peaks['after'] / 1e9:.2f}\t{allowed / 1e9:.2f}")
P
}

printf 'world\trows read a second\texamples/s\tpeak GB until trained\tafter\ttables + state + 1 GiB\n'
world small $((users / 100)) $((items / 100)) $((events / 100)) >/dev/null
world large "$users" "$items" "$events" >/dev/null
fit small $(((2 * users + 2 * items + events) / 100))
fit large $((2 * users + 2 * items + events))
