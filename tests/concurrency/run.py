#!/usr/bin/env python3
"""Long runs about concurrency and undefined behaviour. Each writes its row of docs/evidence.md.

    tests/concurrency/run.py loom       the models of src/tests/loom/, all interleavings
    tests/concurrency/run.py stepper    the C test fork/anywhere, a fork at each instruction
    tests/concurrency/run.py tsan       C programs with threads under ThreadSanitizer
    tests/concurrency/run.py miri       unit tests, interpreted (nightly with miri)
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from support import evidence  # noqa: E402

CARGO = os.environ.get("CARGO", "cargo")
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
# Loom needs a build of its own. It is optimized, because all interleavings take long.
LOOM = {"RUSTFLAGS": "--cfg loom", "CARGO_PROFILE_TEST_OPT_LEVEL": "2",
        "CARGO_PROFILE_TEST_DEBUG": "line-tables-only"}

# A fork at each instruction of malloc, free, trim and a thread's end, linked with the archive.
STEPPER = ["env", "STEPS=1", "VERBOSE=1", "make", "--no-print-directory", "-C", "c_tests",
           "CASE=fork/anywhere", "WAYS=a", "TIMEOUT=1400"]
TSAN = ["make", "--no-print-directory", "-C", "c_tests", "WAYS=tsan"]
# The tests that Miri finishes within minutes: those that neither fill whole arenas nor make
# system calls that Miri lacks. Blocks are computed from addresses, hence the permissive
# provenance.
MIRI = ["arena::", "arena::chunk::", "background::at_exit::", "heap::depot::", "base::list::",
        "base::callback::", "os::lock::", "os::once::", "os::thread_word::"]
MIRI_FLAGS = "-Zmiri-permissive-provenance -Zmiri-disable-isolation -Zmiri-ignore-leaks"
# Those between threads (src/tests/weak.rs), with several seeds: each chooses other threads to go on
# and other old values for loads. Miri interprets any target, of which only the code differs.
MIRI_WEAK = "tests::weak::"
MIRI_SEEDS = range(8)
MIRI_TARGETS = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"]


def run(command, cwd=ROOT, **env):
    """Prints the output of a command while it runs, and returns it; exits if it fails."""
    process = subprocess.Popen([str(part) for part in command], cwd=cwd, text=True,
                               errors="replace", env={**os.environ, **env},
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    lines = []
    for line in process.stdout:
        print(line, end="", flush=True)
        lines.append(line)
    if process.wait() != 0:
        sys.exit(f"{command[0]}: exit status {process.returncode}")
    return "".join(lines)


def loom():
    out = run([CARGO, "test", "--lib", "--target-dir", TARGET / "loom", "loom::", "--",
               "--test-threads=1", "--nocapture"], MODELS="long", **LOOM)
    orders = [int(n) for n in re.findall(r"(\d+) orders$", out, re.M)]
    version = re.search(r'name = "loom"\nversion = "(.*)"', (ROOT / "Cargo.lock").read_text())
    return f"{sum(orders)} orders of {len(orders)} models", f"loom {version.group(1)}"


def stepper():
    out = run(STEPPER)
    counts = re.findall(r"(\d+) instructions, (\d+) forks, (\d+) times", out)
    steps, forks, held = (sum(map(int, column)) for column in zip(*counts))
    return (f"{forks} forks at {steps} instructions, {held} of them while a lock was held",
            "the archive")


def tsan():
    out = run(TSAN)
    passed = int(re.search(r"(\d+) passed", out).group(1))
    if passed == 0:
        sys.exit("no case was run")
    rustc = subprocess.run(["rustc", "+nightly", "--version"], stdout=subprocess.PIPE, text=True)
    return f"{passed} cases with threads", rustc.stdout.strip()


def miri():
    version = subprocess.run([CARGO, "+nightly", "miri", "--version"], stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL, text=True)
    if version.returncode != 0:
        print("skip: no nightly rustc with Miri here (rustup +nightly component add miri)")
        sys.exit(0)
    def test(names, *flags, **env):
        command = [CARGO, "+nightly", "miri", "test", "--lib", "--target-dir", TARGET / "miri", *flags]
        out = run([*command, "--", *names], **env)
        passed = int(re.search(r"(\d+) passed", out).group(1))
        if passed == 0:
            sys.exit("no test was run")
        return passed

    passed = test(MIRI, MIRIFLAGS=MIRI_FLAGS)
    for target in MIRI_TARGETS:
        for seed in MIRI_SEEDS:
            weak = test([MIRI_WEAK], "--target", target, MIRIFLAGS=f"{MIRI_FLAGS} -Zmiri-seed={seed}")
    return (f"{passed} tests of {', '.join(MIRI)}; {weak} of {MIRI_WEAK} with {len(MIRI_SEEDS)} seeds "
            f"for each of {', '.join(MIRI_TARGETS)}", version.stdout.strip())


RUNS = {"loom": (loom, "loom: all interleavings of small thread models"),
        "stepper": (stepper, "stepper: a fork at each instruction of another thread"),
        "tsan": (tsan, "ThreadSanitizer: C programs with threads"),
        "miri": (miri, "Miri: unit tests")}


def main():
    if len(sys.argv) != 2 or sys.argv[1] not in RUNS:
        sys.exit(__doc__)
    name, start = sys.argv[1], time.monotonic()
    function, what = RUNS[name]
    amount, versions = function()
    seconds = time.monotonic() - start
    print(f"{name}: {amount} in {seconds:.0f} s, no finding")
    evidence.record(what=what, command=f"make {name}", result="no finding", amount=amount,
                    seconds=seconds, versions=versions, section="Threads and forks")


if __name__ == "__main__":
    main()
