#!/usr/bin/python3
"""kill -9 of recall-train at random moments: what is published always loads, and nothing half-written has a name.

    tests/chaos/kill9.py [KILLS] [--every] [--seed N] [--keep DIR]    KILLS: 100 by default; programs: $RECALLD_BUILD

Each round starts one command on a small data set (fit, index through the link, index of a plain directory, publish), and
kills it at a random moment of the time that it takes; half of the moments are chosen late, where files are written,
renamed and linked. After each kill

  - `recall-train verify models/current` passes, and so it does for the plain directory,
  - every name under models that does not begin with a dot is the link, or a directory that verifies,
  - where the command was killed before it could publish, current is what it was.

--every does the same before every single call that changes the file system (killat.c), one after the other.
At the end one undisturbed fit must succeed and leave no leftovers. Prints a table; exit status 1 at the first violation.
"""

import argparse
import collections
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TRAIN = pathlib.Path(os.environ.get("RECALLD_BUILD", ROOT / "build")) / "recall-train"


class Violation(Exception):
    pass


def run(*argv):
    return subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=600)


def must(*argv):
    done = run(TRAIN, *argv)
    if done.returncode != 0:
        raise Violation(f"{' '.join(map(str, argv))}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout.strip()


class Chaos:
    def __init__(self, directory, seed):
        self.random = random.Random(seed)
        self.directory = directory
        self.data, self.models, self.home = directory / "data", directory / "models", directory / "home"
        must("synth", self.data, "--users", 200, "--items", 600, "--events", 4000, "--seed", 1)
        must(*self.fit())
        self.home.mkdir()
        shutil.copytree((self.models / "current").resolve(), self.home / "served")
        self.older = (self.models / "current").resolve()
        must(*self.fit())
        self.table = collections.defaultdict(collections.Counter)
        self.seconds = {}
        for name in self.commands():
            started = time.monotonic()
            must(*self.commands()[name])
            self.seconds[name] = time.monotonic() - started

    def fit(self):
        return ["fit", self.data / "train.yaml", "--set", f"output.dir={self.models}", "--set", "optimizer.epochs=1",
                "--set", f"seed={self.random.randrange(1, 10**6)}"]

    def commands(self):
        factory = self.random.choice(["HNSW8", "HNSW16", "HNSW32", "IVF8,Flat", "SQ8"])
        other = self.older if self.random.random() < 0.9 else (self.models / "current").resolve()
        return {
            "fit": self.fit(),
            "index": ["index", self.models / "current", "--engine", "faiss", "--factory", factory],
            "index-dir": ["index", self.home / "served", "--engine", self.random.choice(["flat", "faiss"])],
            "publish": ["publish", other, self.models / "current"],
        }

    def moment(self, name):
        """Anywhere in the command's time, or in its last third."""
        whole = self.seconds[name]
        begin = 0 if self.random.random() < 0.5 else 0.67 * whole
        return self.random.uniform(begin, 1.1 * whole)

    def check(self, name, before, survived):
        if not (self.models / "current").is_symlink():
            raise Violation(f"{name}: models/current is gone")
        for bundle in self.models / "current", self.home / "served":
            must("verify", bundle)
        for models in self.models, self.home:
            for entry in sorted(models.iterdir()):
                if entry.name.startswith(".") or entry.name == "current":
                    continue
                if entry.is_symlink() and entry.name.startswith("current.tmp-"):
                    continue  # a link that was not renamed; the next writer clears it
                must("verify", entry)
        now = (self.models / "current").resolve()
        return "finished" if survived else "published" if now != before else "unchanged"

    def leftovers(self, *places):
        return [entry.name for models in places or (self.models, self.home) for entry in models.iterdir()
                if ".tmp-" in entry.name]

    def tidy(self):
        for models in self.models, self.home:
            for name in self.leftovers(models):
                path = models / name
                path.unlink() if path.is_symlink() else shutil.rmtree(path)

    def prune(self):
        """Keeps the directory small: only what is current, and the one that publish goes back to."""
        kept = {(self.models / "current").resolve(), self.older}
        for entry in self.whole():
            if entry not in kept:
                shutil.rmtree(entry)

    def after(self, name, before, process):
        """Checks what a command that has ended left; True if it was killed."""
        status = process.wait()
        message = process.stderr.read()
        process.stderr.close()
        if status > 0:
            raise Violation(f"{name}: exit {status}: {message.strip()}")
        counts = self.table[name]
        counts["killed" if status < 0 else "too late"] += 1
        counts[self.check(name, before, status == 0)] += 1
        counts["leftovers"] += bool(self.leftovers())
        self.prune()
        return status < 0

    def start(self, name, **more):
        return subprocess.Popen([str(a) for a in [TRAIN, *self.commands()[name]]], stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE, text=True, **more)

    def round(self, name):
        before = (self.models / "current").resolve()
        started = time.monotonic()
        process = self.start(name)
        try:
            process.wait(self.moment(name))
            self.seconds[name] = (self.seconds[name] + time.monotonic() - started) / 2  # the machine's load changes
        except subprocess.TimeoutExpired:
            process.kill()
        return self.after(name, before, process)

    def at_random(self, wanted):
        kills = 0
        for attempt in range(20 * wanted + 20):
            if kills == wanted:
                break
            kills += self.round(["fit", "index", "index-dir", "publish"][attempt % 4])
        return kills

    def every(self):
        """Kills before the first, the second, ... change of the file system, until a command gets through."""
        shim = self.directory / "killat.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-D_GNU_SOURCE", "-o", shim, ROOT / "tests/chaos/killat.c",
                        "-ldl"], check=True)
        kills = 0
        for name, tidy in [(name, True) for name in self.commands()] + [("index", False)]:
            step, killed = 0, True
            while killed:
                step += 1
                if tidy:  # otherwise clearing what the last one left is a part of it, and steps are passed over
                    self.tidy()
                before = (self.models / "current").resolve()
                # the other bundle, every time: a rename that changes nothing would not show
                if self.whole() == [before]:
                    must(*self.fit())
                    before = (self.models / "current").resolve()
                self.older = next(b for b in self.whole() if b != before)
                process = self.start(name, env={**os.environ, "LD_PRELOAD": str(shim), "KILL_AT": str(step)})
                killed = self.after(name, before, process)
                kills += killed
        return kills

    def whole(self):
        return [e for e in self.models.iterdir() if e.is_dir() and not e.is_symlink() and not e.name.startswith(".")]

    def finish(self):
        must(*self.fit())
        must("index", self.home / "served", "--engine", "flat")
        self.check("fit", None, True)
        if self.leftovers():
            raise Violation(f"left over after an undisturbed run: {self.leftovers()}")

    def report(self):
        columns = ["killed", "too late", "unchanged", "published", "finished", "leftovers"]
        print(f"{'command':<12}" + "".join(f"{column:>11}" for column in columns))
        for name, counts in self.table.items():
            print(f"{name:<12}" + "".join(f"{counts[column]:>11}" for column in columns))


def main():
    parser = argparse.ArgumentParser(description="kill -9 recall-train at random moments")
    parser.add_argument("kills", nargs="?", type=int, default=100)
    parser.add_argument("--every", action="store_true", help="before every change of the file system, not at random")
    parser.add_argument("--seed", type=int, default=None, help="of the moments; printed")
    parser.add_argument("--keep", type=pathlib.Path, help="work there, and leave it")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.randrange(10**6)
    directory = arguments.keep or pathlib.Path(tempfile.mkdtemp(prefix="recalld-chaos."))
    directory.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    how = "before every change of the file system" if arguments.every else f"{arguments.kills} at random"
    print(f"kill -9 {how}, seed {seed}", flush=True)
    try:
        chaos = Chaos(directory, seed)
        kills = chaos.every() if arguments.every else chaos.at_random(arguments.kills)
        chaos.finish()
        chaos.report()
        print(f"{kills} kills in {time.monotonic() - started:.0f} s: whatever was published loads, nothing half-written "
              "has a name")
        return 0 if kills == arguments.kills or arguments.every else 1
    except Violation as violation:
        print(f"VIOLATION: {violation}")
        return 1
    finally:
        if not arguments.keep:
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
