"""Whole programs, from their start to their end: time, peak, page faults.

    compile_stdlib      compileall, of the standard library into a temporary folder
    read_stdlib         bench/programs/read_stdlib.py, of all of the standard library's top
    build_manual        docutils makes HTML of some hundred KiB of reStructuredText
    check_types         mypy looks at some modules of the standard library, without a cache

Each runs on all sides in turn (bench/rounds.py): stock, obmalloc, and those asked for,
as in heaps.py; what it prints has to be the same on all of them. docutils and mypy come
from PyPI, into a virtual environment for each interpreter under target/bench/.

    bench/whole.py                      five minutes for each interpreter
    bench/whole.py --quick              little of everything, once: a test of the answers
    bench/whole.py --only check_types --mimalloc --side patient:OBMALLOC_DECAY_MS=10000

The hash seed is fixed, so that a program does the same at every run.
"""

import os
import subprocess
import sys

import hosts
import rounds

FOLDER = os.path.join(hosts.HERE, "whole")
# What pip is asked for. The versions are fixed: another docutils is another program.
PACKAGES = {"build_manual": "docutils==0.20.1", "check_types": "mypy==1.14.1"}
PROGRAMS = ("compile_stdlib", "read_stdlib", "build_manual", "check_types")
QUICK = "0.1"
TOP = {True: "5", False: "1000"}    # of read_stdlib: how many files, by --quick


def arguments(name, quick):
    if name == "read_stdlib":
        return [hosts.program(name), TOP[quick]]
    return [os.path.join(FOLDER, name + ".py")] + ([QUICK] if quick else [])


def last_line(command):
    """Empty if a command succeeds, else what it said last."""
    result = subprocess.run(command, env=hosts.clean_environment(), stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            universal_newlines=True)
    said = result.stdout.strip().splitlines() or ["exit status %d" % result.returncode]
    return said[-1] if result.returncode else ""


def python_with(package, host):
    """(path of an interpreter that has the package, why there is none)."""
    folder = os.path.join(hosts.BUILD, "venv-" + host.name.replace(" ", "-"))
    python = os.path.join(folder, "bin", "python")
    trouble = "" if os.path.exists(python) else last_line([host.path, "-m", "venv", folder])
    return python, trouble or last_line(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
         "--only-binary", ":all:", package])


def measure(host, name, sides, options):
    """(rows, complaints) of a program."""
    python, trouble = host.path, ""
    if name in PACKAGES:
        python, trouble = python_with(PACKAGES[name], host)
    if trouble:
        print("skip: %s, %s: %s" % (host.name, name, trouble), flush=True)
        return [], []
    runs = rounds.run(host, name, [python] + arguments(name, options.quick), sides, options,
                      PYTHONHASHSEED="0")
    by_side = list(zip(*runs))
    faults = [[run.faults for run in side] for side in by_side]
    rows = [rounds.Row("%s, %s ms" % (name, clock), "ms",
                       [[getattr(run, clock) * 1e3 for run in side] for side in by_side], faults)
            for clock in ("wall", "cpu")] + [rounds.peak(name, runs)]
    answers = sorted({run.out.strip() for together in runs for run in together})
    differ = ["%s, %s: %s" % (host.name, name, " | ".join(answers))] if len(answers) > 1 else []
    return rows, differ


def main():
    parser = hosts.parser(__doc__, "3.11,3.13,distribution")
    rounds.add_options(parser, PROGRAMS)
    return rounds.measure_all("whole", PROGRAMS, measure, parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
