#!/usr/bin/env python3
"""What one worker answers, and how fast, when less or more is asked than it can do: open_loop.c at 0.5 to 4 times its capacity.

    tests/bench/overload.py BUNDLE OUT.svg [--seconds 5] [--k 100] [--users 5000] [--set key=value ...]

The daemon has one core, the load the other. Capacity: what open_loop gets answered at the usual effort (degrade.recall=1) when far too
much is asked of a queue of eight. Prints a table in Markdown and draws it. RECALLD_BUILD: where the programs are (build).
"""

import argparse
import json
import os
import pathlib
import subprocess
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("RECALLD_BUILD", ROOT / "build"))
LOADS = (0.5, 0.75, 1, 1.25, 1.5, 2, 3, 4)
CONNECTIONS = 4000


class Daemon:
    def __init__(self, bundle, *sets):
        more = [part for text in sets for part in ("--set", text)]
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(["taskset", "-c", "0", BUILD / "recalld", "--bundle", bundle, "--listen", "127.0.0.1:0",
                                         "--workers", "1", *more], stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.address = self.process.stdout.readline().split()[-1]
        while True:
            try:
                urllib.request.urlopen(f"http://{self.address}/readyz").read()
                break
            except OSError:
                time.sleep(0.1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


def load(program, daemon, rate, args):
    port = daemon.address.rsplit(":", 1)[1]
    out = subprocess.run(["taskset", "-c", "1", program, port, str(rate), str(args.seconds), str(args.users), str(args.k),
                          str(CONNECTIONS)], capture_output=True, text=True, check=True).stdout
    return json.loads(out)


# --- drawing -------------------------------------------------------------------------------------------------------------

WIDTH, HEIGHT, LEFT, TOP, SIDE = 360, 240, 60, 30, 20


def line(points, x_most, y_most, x0, color):
    spots = [(x0 + LEFT + x / x_most * WIDTH, TOP + HEIGHT - min(y / y_most, 1) * HEIGHT) for x, y in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>' for x, y in spots)
    return f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>{dots}'


def panel(title, rows, series, y_most, x0):
    parts = [f'<text x="{x0 + LEFT}" y="18" font-weight="bold">{title}</text>']
    for i in range(5):
        y = TOP + HEIGHT * i / 4
        parts.append(f'<line x1="{x0 + LEFT}" x2="{x0 + LEFT + WIDTH}" y1="{y}" y2="{y}" stroke="#ddd"/>'
                     f'<text x="{x0 + LEFT - 6}" y="{y + 4}" text-anchor="end">{y_most * (4 - i) / 4:,.0f}</text>')
    for x in range(5):
        parts.append(f'<text x="{x0 + LEFT + WIDTH * x / 4}" y="{TOP + HEIGHT + 18}" text-anchor="middle">{x}</text>')
    parts.append(f'<text x="{x0 + LEFT + WIDTH / 2}" y="{TOP + HEIGHT + 36}" text-anchor="middle">asked, times capacity</text>')
    for i, (name, color, value) in enumerate(series):
        parts.append(line([(row["load"], value(row)) for row in rows], 4, y_most, x0, color))
        parts.append(f'<text x="{x0 + LEFT + 8}" y="{TOP + 16 + 16 * i}" fill="{color}">{name}</text>')
    return "".join(parts)


def draw(rows, path):
    rate_most = max(row["good"] / row["seconds"] for row in rows) * 1.25
    ms_most = max(row["p99"] for row in rows) * 1.25
    left = panel("answers a second", rows,
                 [("200", "#1664c0", lambda row: row["good"] / row["seconds"]),
                  ("of these degraded", "#c07016", lambda row: row["degraded"] / row["seconds"])], rate_most, 0)
    right = panel("milliseconds until a 200", rows,
                  [("p50", "#1664c0", lambda row: row["p50"]), ("p99", "#b01030", lambda row: row["p99"])],
                  ms_most, LEFT + WIDTH + SIDE)
    width, height = 2 * (LEFT + WIDTH + SIDE), TOP + HEIGHT + 46
    path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
                    f'font-size="12"><rect width="{width}" height="{height}" fill="#fff"/>{left}{right}</svg>\n')


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle")
    parser.add_argument("svg", type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--users", type=int, default=5000)
    parser.add_argument("--set", action="append", default=[])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        program = pathlib.Path(tmp) / "open_loop"
        subprocess.run(["gcc", "-std=c11", "-D_GNU_SOURCE", "-O2", "-I.", "-o", program, "tests/bench/open_loop.c",
                        BUILD / "libcore.a", "-lm"], cwd=ROOT, check=True)
        with Daemon(args.bundle, "degrade.recall=1", *args.set) as daemon:
            for rate in (2000, 4000, 8000, 16000, 32000):  # until no more is answered
                result = load(program, daemon, rate, args)
                capacity = result["good"] / result["seconds"]
                if capacity < 0.9 * rate:
                    break
        print(f"capacity {capacity:.0f} requests/s\n\n| asked | answered/s | of these degraded | p50 ms | p99 ms | 503/s | 503 p99 ms |"
              "\n|---|---|---|---|---|---|---|")
        rows = []
        for times in LOADS:
            with Daemon(args.bundle, *args.set) as daemon:
                row = {"load": times, **load(program, daemon, times * capacity, args)}
            rows.append(row)
            print(f"| {times} | {row['good'] / row['seconds']:,.0f} | {row['degraded'] / max(row['good'], 1):.0%} | {row['p50']} | "
                  f"{row['p99']} | {row['refused'] / row['seconds']:,.0f} | {row['refused_p99']} |", flush=True)
    draw(rows, args.svg)


if __name__ == "__main__":
    main()
