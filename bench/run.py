#!/usr/bin/env python3
"""The driver of the benchmarks that bench/definitions.py defines; bench/README.md lists them.

    bench/run.py                        those that need no packages (`make bench`), with pyperf
    bench/run.py heaps memory           these
    bench/run.py --quick                everything tiny, once: checks answers, measures nothing
    bench/run.py heaps --only dicts --side huge:OBMALLOC_THP=always --interpreters 3.13
    bench/run.py instructions --relinked 3.11       obmalloc.o of CPython, and ours linked in
    bench/run.py heaps --record         keeps the result in bench/results

The sides run in turn, round after round, in processes of their own, since other work on the
machine varies from one moment to the next. Results are pyperf files (bench/results.py), and
pyperf prints the comparison: `pip install pyperf`, or `make bench`, which installs it in
target/tools. A benchmark fails if the sides give different answers.
"""

import importlib
import os
import shlex
import subprocess
import sys

import definitions
import hosts
import measure
import results
import thresholds
from definitions import EXTRA
from places import places, programs


def with_packages(python, label, packages):
    """An interpreter with these packages, None if they cannot be installed."""
    if not packages:
        return python.path
    folder = os.path.join(hosts.BUILD, "venv-" + hosts.name(python).replace(" ", "-"))
    path = os.path.join(folder, "bin", "python")
    for command in ([] if os.path.exists(path) else [[python.path, "-m", "venv", folder]]) + [
            [path, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
             "--only-binary", ":all:"] + packages.split()]:
        result = subprocess.run(command, env=hosts.clean_environment(), stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if result.returncode != 0:
            print("skip: %s, %s: %s" % (hosts.name(python), label,
                                        (result.stdout.strip().splitlines() or ["?"])[-1]))
            return None
    return path


def measure_programs(benchmark, place, options):
    """({side: {name: Row}}, complaints): all programs, the sides in turn."""
    found, complaints = {side.name: {} for side in place.sides}, []
    rounds = 1 if options.quick else options.rounds or benchmark.rounds
    installed = {side: with_packages(place.python, "side " + side.name, side.packages)
                 for side in place.sides}
    # With a side that needs packages, all sides have the interpreter with the packages.
    common = next((path for side, path in installed.items() if side.packages and path), None)
    for label, words in programs(benchmark, options).items():
        packages = benchmark.packages.get(label, "")
        path = with_packages(place.python, label, packages)
        if path is None:
            continue
        answers = set()
        for _ in range(rounds * benchmark.repeats.get(label, 1)):
            for side, (own, environment) in place.sides.items():
                if installed[side] is None:
                    continue
                python = path if packages else common or own
                run = measure.run([python] + list(side.words) + words, environment,
                                  benchmark.sample)
                rows, answer = benchmark.read(label, run)
                answers.add(repr(answer))
                for name, row in rows.items():
                    found[side.name].setdefault(name, results.Row(row.unit)).values += row.values
        if len(answers) != 1:
            complaints.append("%s, %s: the answers differ: %s"
                              % (place.name, label, " | ".join(sorted(answers))))
    return {side: rows for side, rows in found.items() if rows}, complaints


def everything(benchmark, options):
    """(place, {side: {name: Row}}, complaints) of each place."""
    if benchmark.module:
        yield from importlib.import_module(benchmark.module).measured(benchmark, options)
        return
    for place in places(benchmark, options):
        yield (place.name,) + measure_programs(benchmark, place, options)


def report(benchmark, place, sides, options):
    """Stores the result and has pyperf compare the sides."""
    paths = results.store(benchmark.name, place, sides, options.record)
    print("%s, %s:" % (benchmark.name, place), flush=True)
    if len(paths) > 1:
        subprocess.run([sys.executable, "-m", "pyperf", "compare_to", "--table"]
                       + [os.path.basename(path) for path in paths],
                       cwd=os.path.dirname(paths[0]), check=False)
    else:
        subprocess.run([sys.executable, "-m", "pyperf", "show", "--quiet", paths[0]], check=False)
    print("stored in " + os.path.relpath(os.path.dirname(paths[0]), hosts.ROOT), flush=True)


def arguments():
    parser = hosts.parser(__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks: %s"
                        % ", ".join(definitions.BY_NAME))
    parser.add_argument("--list", action="store_true", help="what each one answers, and its time")
    parser.add_argument("--quick", action="store_true", help="tiny and once: check the answers")
    parser.add_argument("--interpreters", default="", metavar="LIST",
                        help="versions, distribution or paths (each benchmark has its own)")
    parser.add_argument("--relinked", default="", metavar="LIST", help="versions that are linked "
                        "twice, with CPython's obmalloc.o and with ours")
    parser.add_argument("--only", default="", metavar="LIST",
                        help="programs with these in the name")
    parser.add_argument("--side", action="append", default=[], metavar="SIDE",
                        help="one more: %s, or NAME:VARIABLE=VALUE,..." % ", ".join(EXTRA))
    parser.add_argument("--rounds", type=int, default=0, help="of all sides")
    parser.add_argument("--jobs", type=int, default=2,
                        help="callgrind runs at a time (%(default)s)")
    parser.add_argument("--record", action="store_true", help="keep the result in bench/results")
    parser.add_argument("--strict", action="store_true", help="fail if a threshold is exceeded")
    options = parser.parse_args()
    for name in options.names:
        if name not in definitions.BY_NAME:
            parser.error("%s: no such benchmark; there are %s"
                         % (name, ", ".join(definitions.BY_NAME)))
    options.chosen = [benchmark for benchmark in definitions.BENCHMARKS
                      if benchmark.name in options.names
                      or not options.names and (benchmark.by_default or options.list)]
    return options


def main():
    options = arguments()
    if options.list:
        hosts.table(["name", "takes", "answers"],
                    [[one.name, one.takes, one.answers] for one in options.chosen])
        return 0
    print("$ " + hosts.command_line(), flush=True)
    if not options.quick:
        try:
            import pyperf   # noqa: F401
        except ImportError:
            hosts.stop("pyperf is missing: pip install pyperf, or make bench BENCH=%s"
                       % shlex.quote(" ".join(options.names)))
    hosts.library(options.library)
    complaints, measured = [], 0
    for benchmark in options.chosen:
        try:
            for place, sides, found in everything(benchmark, options):
                found = found + (benchmark.check(sides) if benchmark.check else [])
                complaints += found
                measured += 1
                if options.quick:
                    print("%s, %s: %d rows on %d sides" % (
                        benchmark.name, place, max(map(len, sides.values())), len(sides)),
                        flush=True)
                elif not found:
                    report(benchmark, place, sides, options)
                missed = thresholds.judge(benchmark.name, sides, show=not options.quick)
                if options.strict:
                    complaints += ["%s: %s" % (place, text) for text in missed]
        except measure.Failed as problem:
            complaints.append("%s: %s" % (benchmark.name, problem))
    if not measured and not complaints:
        print("skip: nothing could be measured here")
    return hosts.finish(complaints, "%d results, the same answers on all sides" % measured)


if __name__ == "__main__":
    sys.exit(main())
