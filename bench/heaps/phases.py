"""What the programs of this folder have in common: phases that are timed from inside.

A program works in `with phase("build"):`, outside of which it may do what is not to be
measured, and ends with `report`, which prints one line of JSON. A phase that is run again
counts with the median of its runs. What a program reports as its answer depends on
nothing but its scale and the interpreter.

By hand, with a scale below 1 for a test:

    bench/heaps/dicts.py [SCALE]
"""

import contextlib
import json
import resource
import sys
import time

SCALE = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0

_runs = {}      # {phase: [(wall seconds, CPU seconds, page faults)]}, in order


def scaled(count):
    """So many, or few where the program is run as a test."""
    return max(1, int(count * SCALE))


def _now():
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    return time.perf_counter(), time.process_time(), faults


@contextlib.contextmanager
def phase(name):
    began = _now()
    yield
    ended = _now()
    _runs.setdefault(name, []).append([b - a for a, b in zip(began, ended)])


def _median(numbers):
    return sorted(numbers)[len(numbers) // 2]


def report(answer, right):
    """Prints the line that the measurement reads; the exit status says whether all is right."""
    phases = {name: dict(zip(("wall", "cpu", "faults"), map(_median, zip(*runs))))
              for name, runs in _runs.items()}
    print(json.dumps({"phases": phases, "answer": answer}))
    sys.stdout.flush()
    if not right:
        sys.exit("the answer is not what it should be: %r" % (answer,))
