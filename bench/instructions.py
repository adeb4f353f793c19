"""Instructions executed, stock against obmalloc, counted by valgrind's callgrind.

Seconds are noisy here; instructions are not: with a fixed hash seed, without `site`,
with the same few variables in the environment and the same working directory a run
repeats to the instruction. Another path of the tree or the interpreter moves the heap a
little, and with it what depends on addresses (copies, hashes of identities): up to
0.05 % in the sums and 0.2 % in one program seen so far: read no more into a ratio.
The library's own loading is in it.

    bench/instructions.py               the programs, by interpreter
    bench/instructions.py --check       fails if the library's sum is above stock's
    bench/instructions.py --hit-path    what one malloc and one free cost (hit_path.py)
    bench/instructions.py --record      writes bench/records/DATE-instructions.json

Instructions leave out what memory costs: cache misses, page faults, system calls.
"""

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import hit_path
import hosts
import pairs
import record

PROGRAMS = ("nothing", "parse_source", "json_there_and_back", "deep_copies", "small_objects",
            "trees_and_dicts")
COLLECTED = re.compile(r"^==\d+== Collected : (\d+)", re.M)


def run_valgrind(command, out=os.devnull, **more):
    """(instructions, what the program printed) of a command."""
    # Not the caller's PATH: its length would shift the stack, and the counts a little.
    environment = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0",
                   "PYTHONDONTWRITEBYTECODE": "1"}
    environment.update(more)
    valgrind = [shutil.which("valgrind"), "--tool=callgrind", "--callgrind-out-file=" + out]
    result = subprocess.run(valgrind + command, env=environment, cwd=hosts.ROOT,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, universal_newlines=True)
    collected = COLLECTED.search(result.stderr)
    if result.returncode != 0 or not collected:
        last = (result.stderr.strip().splitlines() or [""])[-1]
        hosts.stop("%s under valgrind: %s" % (os.path.basename(command[-1]), last))
    return int(collected.group(1)), result.stdout


def measure(host, name, preloaded):
    more = {"LD_PRELOAD": hosts.LIBRARY} if preloaded else {}
    return run_valgrind([host.path, "-S", hosts.program(name)], **more)


def report(host, names, pool):
    """Prints an interpreter's table; returns ([(name, stock, ours)], complaints)."""
    jobs = {(name, side): pool.submit(measure, host, name, side)
            for name in names for side in (False, True)}
    counts, complaints = [], []
    for name in names:
        (stock, said), (ours, said_too) = (jobs[name, side].result() for side in (False, True))
        if said != said_too:
            complaints.append("%s, %s: another result with the library" % (host.name, name))
        counts.append((name, stock, ours))
    counts.append(("sum",) + tuple(sum(each[side] for each in counts) for side in (1, 2)))
    pairs.table([host.name + ", million instructions", "stock", "obmalloc", "ratio"],
                [row(*each) for each in counts])
    return counts, complaints


def row(name, stock, ours):
    return [name, "%.3f" % (stock / 1e6), "%.3f" % (ours / 1e6), "%.4f" % (ours / stock)]


def main():
    parser = hosts.parser(__doc__, "3.11,3.13,distribution")
    parser.add_argument("--programs", default=",".join(PROGRAMS), metavar="LIST",
                        help="of bench/programs (%(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (%(default)s)")
    parser.add_argument("--check", action="store_true", help="fail if a sum is above stock's")
    parser.add_argument("--hit-path", action="store_true", help="count one malloc and one free")
    parser.add_argument("--record", action="store_true", help="write a record of the counts")
    options = parser.parse_args()
    pairs.reproduce()
    if shutil.which("valgrind") is None:
        print("skip: no valgrind on PATH")
        return 0
    hosts.library(options.library)
    if options.hit_path:
        hit_path.report(run_valgrind)
        return hosts.finish([], "counted")
    complaints, recorded = [], []
    with ThreadPoolExecutor(options.jobs) as pool:
        for host in hosts.choose(options.interpreters):
            counts, found = report(host, options.programs.split(","), pool)
            complaints += found
            recorded += [{"interpreter": host.name, "program": name, "stock": stock, "ours": ours}
                         for name, stock, ours in counts]
            _, stock, ours = counts[-1]
            if options.check and ours > stock:
                complaints.append("%s: %.3f million instructions more than stock's %.3f"
                                  % (host.name, (ours - stock) / 1e6, stock / 1e6))
    if options.record and not complaints:
        print("recorded in %s" % record.write("instructions", recorded))
    return hosts.finish(complaints, "no sum above stock's" if options.check else "the same results")


if __name__ == "__main__":
    sys.exit(main())
