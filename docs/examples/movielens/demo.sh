#!/usr/bin/env bash
# From a click log to an answered POST /recall: fetches MovieLens 100K, trains, serves, asks, prints film titles, stops.
# `make demo` builds the programs and calls this; `make run` calls it with --keep.
#
#   --keep                    go on serving in the foreground, on 127.0.0.1:8080 or, if that is taken, on a free port
#   RECALLD_BUILD=build       where the programs are; the demo works in $RECALLD_BUILD/demo
#   RECALLD_DEMO_OFFLINE=1    do not fetch anything: use data from `recall-train synth`, as without a network
#
# MovieLens 100K may not be redistributed with this project. It is fetched when the demo first runs, out of the Python
# package recbole (of which nothing else is used or installed), and kept in ${XDG_CACHE_HOME:-$HOME/.cache}/recalld.
# The programs' own words are in $RECALLD_BUILD/demo/demo.log and recalld.log. Exit status: 0 all went well; 1 something
# failed, and the last line says what and where the log is; 2 usage.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../../.." && pwd)
BUILD=${RECALLD_BUILD:-$ROOT/build}
PYTHON=/usr/bin/python3
PACKAGE=recbole==1.2.1
FILES=(ml-100k.user ml-100k.item ml-100k.inter)

WORK=$BUILD/demo
LOG=$WORK/demo.log
DAEMON=
DATA=
KIND=

say() { printf '%s\n' "$*"; }
step() { printf '\n== %s\n' "$*"; }
die() {
    printf 'demo: %s (log: %s)\n' "$*" "$LOG" >&2
    exit 1
}

stop_daemon() {
    local pid=$DAEMON status=0
    [ -n "$pid" ] || return 0
    DAEMON=
    kill -TERM "$pid" 2>/dev/null || true
    wait "$pid" || status=$?
    return "$status"
}

# --- data --------------------------------------------------------------------------------------------------------------

cache_folder() {
    if [ -n "${XDG_CACHE_HOME:-}" ]; then
        echo "$XDG_CACHE_HOME/recalld/ml-100k"
    elif [ -n "${HOME:-}" ] && [ -d "$HOME" ] && [ -w "$HOME" ]; then
        echo "$HOME/.cache/recalld/ml-100k"
    else
        echo "$BUILD/cache/ml-100k"
    fi
}

is_whole() {
    local file
    for file in "${FILES[@]}"; do
        [ -s "$1/$file" ] || return 1
    done
}

# Downloads and unpacks into a folder beside $1, then gives it its name: $1 is whole or not there.
fetch_movielens() {
    local target=$1 temporary status=0
    mkdir -p "$(dirname "$target")" && temporary=$(mktemp -d "$target.XXXXXX") || return 1
    unpack_movielens "$temporary" && rm -rf "$target" && mv -T "$temporary/ml-100k" "$target" || status=1
    rm -rf "$temporary"
    return "$status"
}

unpack_movielens() {
    local to=$1 file
    timeout 60 "$PYTHON" -m pip --disable-pip-version-check --no-input download --no-deps --no-cache-dir --quiet \
        --only-binary :all: --timeout 15 --retries 1 --dest "$to" "$PACKAGE" || return 1
    "$PYTHON" -m zipfile -e "$to"/*.whl "$to/wheel" || return 1
    mkdir "$to/ml-100k" || return 1
    for file in "${FILES[@]}"; do
        mv "$to/wheel/recbole/dataset_example/ml-100k/$file" "$to/ml-100k/" || return 1
    done
}

find_data() {
    local cached
    cached=$(cache_folder)
    KIND=movielens
    DATA=$cached
    if [ -n "${RECALLD_DEMO_OFFLINE:-}" ]; then
        KIND=synth
        say "RECALLD_DEMO_OFFLINE is set: synthetic data instead of MovieLens 100K."
    elif is_whole "$cached"; then
        say "MovieLens 100K, fetched earlier: $cached"
    elif say "Fetching MovieLens 100K (inside the Python package recbole, 2 MB) into $cached" &&
        fetch_movielens "$cached" >>"$LOG" 2>&1; then
        say "Research data of GroupLens, University of Minnesota; its licence forbids redistribution, so it is not in this repository."
    else
        KIND=synth
        say "It could not be fetched (no network? $LOG says more): synthetic data instead."
    fi
    if [ "$KIND" = synth ]; then
        DATA=$WORK/synth
        "$BUILD/recall-train" synth "$DATA" --users 2000 --items 4000 --events 100000 >>"$LOG" 2>&1 ||
            die "recall-train synth failed"
    fi
}

# --- training ------------------------------------------------------------------------------------------------------------

train() {
    local config=$DATA/train.yaml
    local -a sets=(--set "output.dir=$WORK/models")
    if [ "$KIND" = movielens ]; then
        config=$HERE/train.yaml
        sets+=(--set "data.users.path=$DATA/ml-100k.user" --set "data.items.path=$DATA/ml-100k.item"
            --set "data.events.path=$DATA/ml-100k.inter")
    fi
    rm -rf "$WORK/models"
    say "recall-train fit ${config#"$ROOT/"}"
    # The two lines with the metrics come again as a table.
    "$BUILD/recall-train" fit "$config" "${sets[@]}" --report "$WORK/report.json" 2>&1 | tee -a "$LOG" |
        sed -E '/^(model|popularity) /d; s/^/   /' || die "training failed: $(tail -n 1 "$LOG")"
    say "The report, a page for your browser: $WORK/report.html"
}

# --- serving -------------------------------------------------------------------------------------------------------------

# Whether 127.0.0.1 can be reached: in a fresh network namespace (unshare -n) even that is down.
has_loopback() {
    "$PYTHON" -c 'import socket
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname(), 2)' 2>/dev/null
}

is_ready() {
    case $ADDRESS in
    '') return 1 ;;
    unix:*) curl -fs -o /dev/null --unix-socket "${ADDRESS#unix:}" http://localhost/readyz ;;
    *) curl -fs -o /dev/null --noproxy '*' "http://$ADDRESS/readyz" ;;
    esac
}

# Starts recalld on the address $1; 0 once it is ready, 1 when it ended.
start_daemon() {
    : >"$WORK/address"
    "$BUILD/recalld" --bundle "$WORK/models/current" --listen "$1" </dev/null >"$WORK/address" 2>"$WORK/recalld.log" &
    DAEMON=$!
    for ((i = 0; i < 600; i++)); do
        if ! kill -0 "$DAEMON" 2>/dev/null; then
            DAEMON=
            cat "$WORK/recalld.log" >>"$LOG"
            return 1
        fi
        ADDRESS=$(sed -n 's/^listening on //p' "$WORK/address")
        if is_ready; then
            return 0
        fi
        sleep 0.1
    done
    die "recalld was not ready after a minute"
}

serve() {
    local address=127.0.0.1:0
    has_loopback || address=unix:$WORK/recalld.sock
    if [ -z "$KEEP" ] || [ "$address" != 127.0.0.1:0 ] || ! start_daemon 127.0.0.1:8080; then
        start_daemon "$address" || die "recalld ended: $(tail -n 1 "$LOG")"
    fi
    say "recalld --bundle ${WORK#"$ROOT/"}/models/current --listen $ADDRESS"
}

KEEP=
case ${1:-} in
'') ;;
--keep) KEEP=1 ;;
*)
    say "usage: demo.sh [--keep]" >&2
    exit 2
    ;;
esac

mkdir -p "$WORK"
: >"$LOG"
trap 'stop_daemon || true' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
for program in "$BUILD/recall-train" "$BUILD/recalld"; do
    [ -x "$program" ] || die "$program is not there; run make first"
done

step "Data"
find_data
step "Training"
train
step "Serving"
serve
"$PYTHON" "$HERE/ask.py" "$KIND" "$DATA" "$WORK/report.json" "$ADDRESS" 2>>"$LOG" ||
    die "asking recalld failed: $(tail -n 1 "$LOG")"

if [ -n "$KEEP" ]; then
    step "Still serving on $ADDRESS (log: $WORK/recalld.log); Ctrl-C stops it"
    stopped=
    trap 'stopped=1' INT TERM
    wait "$DAEMON" || [ -n "$stopped" ] || die "recalld ended: $(tail -n 1 "$WORK/recalld.log")"
fi
stop_daemon || die "recalld did not end well: $(tail -n 1 "$WORK/recalld.log")"
step "Done: recalld has drained and stopped"
[ -n "$KEEP" ] || say "\`make run\` does the same and leaves it serving."
