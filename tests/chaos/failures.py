#!/usr/bin/python3
"""Each allocation and each system call of every kind of request, and of a reload, fails once; prints what came of it.

    tests/chaos/failures.py [STEP]     STEP: of a reload's allocations only every so-manieth (1: all); programs: $RECALLD_BUILD

Exit status 1 at the first crash, wrong answer or leak. A few minutes; tests/e2e/test_failures.py is the short version.
"""

import collections
import pathlib
import shutil
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
import faults  # noqa: E402
from rolling import make_bundles  # noqa: E402


def row(what, kind, outcomes):
    total = sum(outcomes.values())
    told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    print(f"{what:<10}{kind:<8}{total:>6}  {told}", flush=True)


def main():
    step = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    directory = pathlib.Path(tempfile.mkdtemp(prefix="recalld-failures."))
    faulty = faults.Faulty(directory, make_bundles(directory)[0])
    faulty.daemon.reload()
    descriptors = faulty.descriptors()
    print(f"{'':<10}{'':<8}{'failed':>6}")
    for kind in ("memory", "calls"):
        allocations, total = faulty.living(), collections.Counter()
        for name in [name for name in faults.REQUESTS if name not in ("add", "remove")]:
            outcomes = faults.each_failure_of_a_request(faulty, name, kind)
            total.update(outcomes)
            row(name, kind, outcomes)
        row("requests", kind, total)
        assert faulty.living() <= allocations + 20, "a leak"
        for name in ("add", "remove"):
            row(name, kind, faults.each_failure_of_a_request(faulty, name, kind))
        faulty.daemon.reload()
        allocations = faulty.living()
        used = faults.allocations_of_a_reload(faulty)
        steps = range(1, used, step) if kind == "memory" else range(1, 10000)
        row("reload", kind, faults.each_failure_of_a_reload(faulty, kind, steps)[0])
        assert faulty.living() <= allocations + 20, "a leak"
    faulty.wait_for_descriptors(descriptors)
    faulty.daemon.stop()
    shutil.rmtree(directory)


if __name__ == "__main__":
    sys.exit(main())
