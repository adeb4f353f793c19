#!/usr/bin/env python3
"""The model at length: random operations, then what a fuzzer finds; leaves records.

    fuzz/run.py [--ops 1e9] [--paranoid-ops 1e6] [--minutes 30] [--jobs 2]

First so many operations at the library's own pace, then so many with all invariants
looked at after each, then so many minutes of libFuzzer, for which it takes a nightly
toolchain and `cargo install cargo-fuzz`. 0 leaves a part out. Whatever differs from the
model ends it with a status other than 0 and prints what repeats it. The first part and
the last write a record each (c_tests/proven.py).
"""

import argparse
import glob
import os
import re
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "c_tests"))

import proven  # noqa: E402
from concurrency import run  # noqa: E402

CARGO = os.environ.get("CARGO", "cargo")
MODEL = [CARGO, "run", "--quiet", "--manifest-path", os.path.join(HERE, "Cargo.toml"),
         "--bin", "model"]
FUZZER = ["--fuzz-dir", ".", "--sanitizer", "none", "--features", "libfuzzer", "operations"]


def model(profile, operations, options, *more):
    return run(MODEL + profile + ["--", "--runs", "--ops", operations, "--jobs",
                                  str(options.jobs), *more])


def fuzzer(options, folder):
    """(inputs, edges covered): of all its processes, and of the one that knows most."""
    corpus = os.path.join(folder, "corpus")
    os.mkdir(corpus)
    limits = ["-max_len=4096", "-len_control=20", "-rss_limit_mb=8192", "-print_final_stats=1"]
    if options.jobs > 1:    # each leaves a log, too, and at its end that is printed
        limits += ["-jobs=%d" % options.jobs, "-workers=%d" % options.jobs]
    said, end = "", time.monotonic() + options.minutes * 60
    # It goes by the wall clock, which somebody may set meanwhile: then it goes on.
    while (left := end - time.monotonic()) > 0:
        said += run([CARGO, "+nightly", "fuzz", "run", *FUZZER, corpus, "--", *limits,
                     "-max_total_time=%d" % (left + 1)], HERE,
                    OBMALLOC_THREAD="0")
    for path in glob.glob(os.path.join(HERE, "fuzz-*.log")):
        os.remove(path)
    inputs = sum(map(int, re.findall(r"stat::number_of_executed_units:\s*(\d+)", said)))
    return inputs, max(map(int, re.findall(r"cov: (\d+)", said)), default=0)


def record(name, options, ops, minutes, amount, began, result):
    command = "make fuzz OPS=%s PARANOID_OPS=0 MINUTES=%g JOBS=%d" % (ops, minutes, options.jobs)
    proven.keep(name, command, amount, time.monotonic() - began, "Rust, the library's sources",
                result)


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
        began = time.monotonic()
        said = model(["--release"], options.ops, options)
        amount = re.search(r"(\S+ operations in \d+ runs) .*, (from seed \d+ on)", said)
        record("model", options, options.ops, 0,
               "%s, settings drawn for each, %s; memory looked over at each run's end"
               % amount.groups(), began, "no difference from the model")
    if float(options.paranoid_ops):
        model(["--profile", "paranoid"], options.paranoid_ops, options, "--each", "1e5")
    if options.minutes:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="obmalloc-fuzz-") as folder:
            inputs, edges = fuzzer(options, folder)
        if inputs == 0:
            sys.exit("the fuzzer has tried nothing")
        record("fuzz", options, 0, options.minutes,
               "%d inputs of libFuzzer, from none; coverage %d edges" % (inputs, edges),
               began, "no finding")


if __name__ == "__main__":
    main()
