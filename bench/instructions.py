#!/usr/bin/env python3
"""Instructions that callgrind counts: of small programs (the benchmark `instructions`), and of
one malloc and one free that hit (as a command).

Seconds vary on a busy machine; instructions do not: with a fixed hash seed, without `site`,
with the same few variables in the environment and the same working directory, a run repeats
to the instruction. Another path of the tree or the interpreter moves the heap a little, and
with it everything that depends on addresses (copies, hashes of identities): up to 0.05 % in
the sums and 0.2 % in one program seen so far, so smaller differences mean nothing. The
library's own loading is included. Instructions leave out the cost of memory: cache misses,
page faults, system calls.

    bench/run.py instructions           the programs, by interpreter
    bench/instructions.py               one malloc(48) and one free, function by function

For the second one, a C program (programs/hit_path.c) calls PyObject_Malloc and PyObject_Free
in a loop, under callgrind, with two numbers of rounds. The difference of the two runs by the
difference of the rounds is the cost of one round: the loop, the exported names, and the two
functions that are also in CPython's tables, or their twins.
"""

import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor

import hosts
import measure
import places
from results import Row

ROUNDS = (2000, 52000)
EXPORTED = ("PyObject_Malloc", "PyObject_Free")


# ---- the benchmark ----

def measured(benchmark, options):
    """(place, {side: {program: Row}}, complaints) of each interpreter."""
    for place in places.places(benchmark, options) if measure.has_valgrind() else ():
        yield (place.name,) + count_programs(benchmark, place, options)


def count_programs(benchmark, place, options):
    found, complaints = {side.name: {} for side in place.sides}, []
    with ThreadPoolExecutor(options.jobs) as pool:
        jobs = {(label, side): pool.submit(
            measure.callgrind, [path] + words, **dict(
                side.settings, **{name: value for name, value in environment.items()
                                  if name == "LD_PRELOAD"}))
                for label, words in places.programs(benchmark, options).items()
                for side, (path, environment) in place.sides.items()}
        outputs = {}
        for (label, side), job in jobs.items():
            count, out, _ = job.result()
            found[side.name][label] = Row("integer", [count])
            outputs.setdefault(label, set()).add(out)
    complaints += ["%s, %s: the outputs differ" % (place.name, label)
                   for label, different in outputs.items() if len(different) != 1]
    return found, complaints


# ---- the hit path ----

def build(name, library):
    """Compiles programs/NAME.c against the library, whose SONAME must resolve as well."""
    folder = os.path.join(hosts.BUILD, "lib")
    os.makedirs(folder, exist_ok=True)
    link = os.path.join(folder, "libobmalloc.so.0")
    if os.path.lexists(link):
        os.unlink(link)
    os.symlink(os.path.relpath(library, folder), link)
    program = os.path.join(hosts.BUILD, name)
    # -fno-plt: calls reach the library without a stub of the linker.
    hosts.compile_c(name + ".c", ["-O2", "-Wall", "-Werror", "-fno-plt",
                                  os.path.join(hosts.PROGRAMS, name + ".c"), "-o", program,
                                  library, "-Wl,-rpath,%s" % folder])
    return program


def short(name):
    """A demangled name without its hash and the part behind an apostrophe."""
    return re.sub(r"::h[0-9a-f]{16}$", "", name.split("'")[0])


def main():
    options = hosts.parser(__doc__).parse_args()
    if not measure.has_valgrind():
        return 0
    program, costs = build("hit_path", hosts.library(options.library)), []
    for rounds in ROUNDS:
        out = os.path.join(hosts.BUILD, "callgrind.hit_path.%d" % rounds)
        try:
            measure.callgrind([program, str(rounds)], out)
        except measure.Failed as problem:
            hosts.stop(str(problem))
        costs.append(measure.self_costs(out))
    few, many = costs
    each = {name: (many[name] - few.get(name, 0)) / (ROUNDS[1] - ROUNDS[0]) for name in many}
    each = {name: cost for name, cost in each.items() if cost >= 0.01}
    print("instructions of one malloc(48) and one free that hit (%d rounds less %d):"
          % ROUNDS[::-1])
    for name, cost in sorted(each.items(), key=lambda item: -item[1]):
        print("  %7.2f  %s" % (cost, short(name)))
    loop = sum(cost for name, cost in each.items() if name == "main")
    exported = sum(cost for name, cost in each.items() if name in EXPORTED)
    total = sum(each.values())
    print("  %7.2f  a round, with the loop" % total)
    print("  %7.2f  a round, without the loop" % (total - loop))
    print("  %7.2f  the two functions alone, without the exported names"
          % (total - loop - exported))
    return hosts.finish([], "counted")


if __name__ == "__main__":
    sys.exit(main())
