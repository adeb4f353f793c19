#!/usr/bin/env python3
"""The long runs about what threads do at once and what the sources may do at all, each with
a record of what it has proved.

    c_tests/concurrency.py loom       the models of src/tests/loom/, all orders
    c_tests/concurrency.py stepper    fork_anywhere.c, a fork at each instruction
    c_tests/concurrency.py tsan       C tests of threads with ThreadSanitizer
    c_tests/concurrency.py miri       tests beside the sources, interpreted (nightly, miri)

`c_tests/proven.py` keeps the records.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import proven

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
# Where cargo builds.
RELEASE = (Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
           / os.environ.get("CARGO_BUILD_TARGET", "") / "release")
# Loom's own build of the library's tests, optimized: in all orders they take long.
LOOM = {"RUSTFLAGS": "--cfg loom", "CARGO_PROFILE_TEST_OPT_LEVEL": "2",
        "CARGO_PROFILE_TEST_DEBUG": "line-tables-only"}


# What Miri can follow in minutes: tests that do not fill whole arenas, nor ask the system for
# what it does not know. Blocks are made of addresses, so provenance may be exposed.
MIRI = ["arena::", "arena::chunk::", "background::at_exit::", "heap::depot::", "base::list::", "base::callback::", "os::lock::",
        "os::once::", "os::thread_word::"]
MIRI_FLAGS = "-Zmiri-permissive-provenance -Zmiri-disable-isolation -Zmiri-ignore-leaks"


def compile_stepper(archive, program):
    """The command that does, from the root of the sources."""
    return [os.environ.get("CC", "cc"), "-std=gnu11", "-g", "-O1", "-I", "include",
            "c_tests/fork_anywhere.c", "-o", program, archive, "-lpthread", "-ldl"]


def run(command, cwd=ROOT, **env):
    """What a command said, which is shown, too. Ends with it if it fails."""
    process = subprocess.Popen([str(part) for part in command], cwd=cwd, text=True,
                               errors="replace", env={**os.environ, **env},
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = []
    for line in process.stdout:
        print(line, end="", flush=True)
        said.append(line)
    if process.wait() != 0:
        sys.exit(f"{command[0]}: exit status {process.returncode}")
    return "".join(said)


def loom():
    said = run([os.environ.get("CARGO", "cargo"), "test", "--lib", "--target-dir", "target/loom",
                "loom::", "--", "--test-threads=1", "--nocapture"], MODELS="long",
               **LOOM)
    orders = [int(n) for n in re.findall(r"(\d+) orders$", said, re.M)]
    version = re.search(r'name = "loom"\nversion = "(.*)"', (ROOT / "Cargo.lock").read_text())
    return f"{sum(orders)} orders of {len(orders)} models", f"loom {version.group(1)}"


def stepper():
    program = ROOT / "target/c_tests/fork_anywhere-stepper"
    program.parent.mkdir(parents=True, exist_ok=True)
    run(compile_stepper(RELEASE / "libobmalloc.a", program))
    said = run([program], STEPS="1")
    counts = re.findall(r"(\d+) instructions, (\d+) forks, (\d+) times", said)
    steps, forks, held = (sum(map(int, column)) for column in zip(*counts))
    return f"{forks} forks at {steps} instructions, {held} of them under a lock", "the archive"


def tsan():
    said = run([sys.executable, "c_tests/run.py", "--ways", "tsan"])
    if " ok " not in said:
        sys.exit("nothing was run")
    passed = re.search(r"(\d+) passed", said).group(1)
    rustc = subprocess.run(["rustc", "+nightly", "--version"], stdout=subprocess.PIPE, text=True)
    return f"{passed} programs of threads", rustc.stdout.strip()


def miri():
    version = subprocess.run(["cargo", "+nightly", "miri", "--version"], stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL, text=True)
    if version.returncode != 0:
        print("skip: no nightly rustc with Miri here (rustup +nightly component add miri)")
        sys.exit(0)
    said = run([os.environ.get("CARGO", "cargo"), "+nightly", "miri", "test", "--lib",
                "--target-dir", "target/miri", "--", *MIRI], MIRIFLAGS=MIRI_FLAGS)
    passed = re.search(r"(\d+) passed", said).group(1)
    return f"{passed} tests of {', '.join(MIRI)}", version.stdout.strip()


def main():
    kinds = {"loom": loom, "stepper": stepper, "tsan": tsan, "miri": miri}
    if len(sys.argv) != 2 or sys.argv[1] not in kinds:
        sys.exit(__doc__)
    name, began = sys.argv[1], time.monotonic()
    amount, versions = kinds[name]()
    seconds = round(time.monotonic() - began)
    print(f"{name}: {amount} in {seconds} s, no finding")
    proven.keep(name, f"make {name}", amount, seconds, versions, "no finding")


if __name__ == "__main__":
    main()
