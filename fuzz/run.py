#!/usr/bin/env python3
"""The model at length: random operations, then a fuzzer.

    fuzz/run.py [--ops 1e9] [--paranoid-ops 1e6] [--minutes 30] [--jobs 2]

Three parts: --ops operations with the release profile; --paranoid-ops operations with all
invariants checked after each; --minutes of libFuzzer, which needs a nightly toolchain and
`cargo install cargo-fuzz`. 0 skips a part. A difference from the model ends the run with a
non-zero exit status and prints the command that repeats it. The first part and the last
write their rows of docs/evidence.md.
"""

import argparse
import glob
import os
import re
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "tests"))

from concurrency.run import run  # noqa: E402
from support import evidence  # noqa: E402

CARGO = os.environ.get("CARGO", "cargo")
MODEL = [CARGO, "run", "--quiet", "--manifest-path", os.path.join(HERE, "Cargo.toml"),
         "--bin", "model"]
FUZZER = ["--fuzz-dir", ".", "--sanitizer", "none", "--features", "libfuzzer", "operations"]


def model(profile, operations, options, *more):
    return run(MODEL + profile + ["--", "--runs", "--ops", operations, "--jobs",
                                  str(options.jobs), *more])


def fuzzer(options, folder):
    """(inputs of all its processes, most edges that one of them covered)."""
    corpus = os.path.join(folder, "corpus")
    os.mkdir(corpus)
    limits = ["-max_len=4096", "-len_control=20", "-rss_limit_mb=8192", "-print_final_stats=1"]
    if options.jobs > 1:    # each job writes a log; libFuzzer prints it at the end
        limits += ["-jobs=%d" % options.jobs, "-workers=%d" % options.jobs]
    out, end = "", time.monotonic() + options.minutes * 60
    # libFuzzer stops by the wall clock, which may be set meanwhile; start it again then.
    while (left := end - time.monotonic()) > 0:
        out += run([CARGO, "+nightly", "fuzz", "run", *FUZZER, corpus, "--", *limits,
                     "-max_total_time=%d" % (left + 1)], HERE,
                    OBMALLOC_BACKGROUND_THREAD="0")
    for path in glob.glob(os.path.join(HERE, "fuzz-*.log")):
        os.remove(path)
    inputs = sum(map(int, re.findall(r"stat::number_of_executed_units:\s*(\d+)", out)))
    return inputs, max(map(int, re.findall(r"cov: (\d+)", out)), default=0)


def record(what, options, ops, minutes, amount, start, result):
    evidence.record(
        what=what, result=result, amount=amount, seconds=time.monotonic() - start,
        command="make fuzz OPS=%s PARANOID_OPS=0 MINUTES=%g JOBS=%d" % (ops, minutes, options.jobs),
        versions="the library's source, Rust", section="Random operations")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ops", default="1e9")
    parser.add_argument("--paranoid-ops", default="1e6")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--jobs", type=int, default=2)
    return parser.parse_args()


def main():
    options = arguments()
    if float(options.ops):
        start = time.monotonic()
        out = model(["--release"], options.ops, options)
        amount = re.search(r"(\S+ operations in \d+ runs) .*, (from seed \d+ on)", out)
        record("model: random operations", options, options.ops, 0,
               "%s, settings drawn for each, %s; memory compared at the end of each run"
               % amount.groups(), start, "no difference from the model")
    if float(options.paranoid_ops):
        model(["--profile", "paranoid"], options.paranoid_ops, options, "--each", "1e5")
    if options.minutes:
        start = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="obmalloc-fuzz-") as folder:
            inputs, edges = fuzzer(options, folder)
        if inputs == 0:
            sys.exit("the fuzzer has run no input")
        record("fuzzing: libFuzzer chooses the operations", options, 0, options.minutes,
               "%d inputs of libFuzzer, starting from an empty corpus; coverage %d edges" % (inputs, edges),
               start, "no finding")


if __name__ == "__main__":
    main()
