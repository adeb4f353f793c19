"""Phases that are timed from inside, for all programs of this folder.

A program works in `with phase("build"):`, does everything that is not measured outside of it,
and ends with `report`, which prints one line of JSON. Of a phase that runs several times the
median counts. A program's answer depends on its scale and the interpreter only.

By hand, with a scale below 1 for a test:

    bench/programs/heaps/dicts.py [SCALE]
"""

import contextlib
import json
import resource
import sys
import time

SCALE = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0

_runs = {}      # {phase: [(wall seconds, CPU seconds, page faults)]}, in order


def scaled(count):
    """The count times the scale, at least 1."""
    return max(1, int(count * SCALE))


def _now():
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    return time.perf_counter(), time.process_time(), faults


@contextlib.contextmanager
def phase(name):
    start = _now()
    yield
    end = _now()
    _runs.setdefault(name, []).append([b - a for a, b in zip(start, end)])


def _peak():
    """VmHWM in KiB. Not ru_maxrss, which the process that forked passes on."""
    with open("/proc/self/status") as stream:
        return next(int(line.split()[1]) for line in stream if line.startswith("VmHWM:"))


def _median(numbers):
    return sorted(numbers)[len(numbers) // 2]


def report(answer, right):
    """Prints the line that the driver reads; exits with a message if the answer is wrong."""
    peak = _peak()
    phases = {name: dict(zip(("wall", "cpu", "faults"), map(_median, zip(*runs))))
              for name, runs in _runs.items()}
    print(json.dumps({"phases": phases, "answer": answer, "peak": peak}))
    sys.stdout.flush()
    if not right:
        sys.exit("the answer is not what it should be: %r" % (answer,))
