#!/usr/bin/env python3
"""Whether the tests of what threads do at once can fail: faults are planted, one at a time,
in a copy of the sources, and the test that is to find it must.

    loom      the models of src/tests/loom/ (`make loom`)
    stepper   c_tests/fork_anywhere.c with STEPS=1 (`make stepper`)
    tsan      c_tests/races.c and others with ThreadSanitizer (`make tsan`)

    c_tests/mutants.py [--kinds loom,stepper,tsan] [--only WORD]

An ordering is weakened, or a step dropped or moved. A fault that nobody finds is a failure,
and so is a place in the sources that is not there any more.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from concurrency import LOOM, compile_stepper

ROOT = Path(__file__).resolve().parent.parent
TREE = ROOT / "target/mutants/tree"
TARGET = ROOT / "target/mutants/target"
FENCE = "core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::SeqCst);"

# (kind, test, what is wrong, file, what stands there, what stands there then)
MUTANTS = [
    ("loom", "loom::lock", "opened without Release", "os/lock.rs",
     "self.state.swap(OPEN, Release)", "self.state.swap(OPEN, Relaxed)"),
    ("loom", "loom::lock", "taken without Acquire", "os/lock.rs",
     "compare_exchange(OPEN, HELD, Acquire, Relaxed)",
     "compare_exchange(OPEN, HELD, Relaxed, Relaxed)"),
    ("loom", "loom::lock", "taken after a wait without Acquire", "os/lock.rs",
     "self.state.swap(WAITED_FOR, Acquire)", "self.state.swap(WAITED_FOR, Relaxed)"),
    ("loom", "loom::lock", "who waits does not say so", "os/lock.rs",
     "self.state.swap(WAITED_FOR, Acquire)", "self.state.swap(HELD, Acquire)"),
    ("loom", "loom::lock", "nobody is woken", "os/lock.rs",
     "            wait::wake(&self.state);\n", ""),
    ("loom", "loom::lock", "the thread that forks is not let through", "os/lock.rs",
     "let taken = !this_thread_forks();", "let taken = true;"),
    ("loom", "loom::address_map", "an arena entered without Release", "granule.rs",
     "None => self.word.store(record, Release),", "None => self.word.store(record, Relaxed),"),
    ("loom", "loom::address_map", "an arena found without Acquire", "granule.rs",
     "let word = self.word.load(Acquire);", "let word = self.word.load(Relaxed);"),
    ("loom", "loom::address_map", "the second leaf takes the place of the first",
     "address_map.rs", ".compare_exchange(ptr::null_mut(), leaf, Release, Acquire)",
     ".compare_exchange(entry.load(Acquire), leaf, Release, Acquire)"),
    ("loom", "loom::purge", "a pool's home is not looked at again", "purge.rs",
     "!pool.is_at(lane, class)", "pool.home().is_none()"),
    ("loom", "loom::purge", "only its class is looked at again", "purge.rs",
     "!pool.is_at(lane, class)", "!pool.is_of(class)"),
    ("loom", "loom::once", "done without Release", "os/once.rs",
     "self.0.store(DONE, Release);", "self.0.store(DONE, Relaxed);"),
    ("loom", "loom::once", "who finds it begun goes on", "os/once.rs",
     "            if known == me {\n", "            if known == me {\n                break;\n"),
    ("loom", "loom::helper", "nobody notes that somebody stops it", "os/helper.rs",
     "state.stopping.replace(true)", "state.stopping.get()"),
    ("loom", "loom::helper", "it leaves though somebody stops it", "os/helper.rs",
     "if state.stopping.get() || !done()", "if !done()"),
    ("loom", "loom::helper", "who left by itself is not waited for", "os/helper.rs",
     "        self.left.store(self.id.load(Relaxed), Release);\n", ""),
    ("stepper", "", "top counts a slot before it is filled", "magazine.rs",
     "        unsafe { *above = block };\n"
     "        // Release: the compiler must keep the order, for M4.\n"
     "        self.top.store(above, Release);\n",
     f"        self.top.store(above, Release);\n        {FENCE}\n"
     "        unsafe { *above = block };\n"),
    ("stepper", "", "the newer run moves down and is counted", "magazines.rs",
     "        top.store(bottom.as_ptr(), Relaxed);\n"
     "        compiler_fence(SeqCst);\n        older", "        older"),
    ("stepper", "", "the newer run is counted twice while the older one goes", "magazines.rs",
     "        top.store(unsafe { bottom.add(run) }.as_ptr(), Release);\n"
     "        heap.flush(class, away);\n",
     "        top.store(unsafe { bottom.add(2 * run) }.as_ptr(), Release);\n"
     f"        {FENCE}\n        heap.flush(class, away);\n        {FENCE}\n"
     "        top.store(unsafe { bottom.add(run) }.as_ptr(), Release);\n"),
    ("stepper", "", "all is given back and counted", "magazines.rs",
     "            top.store(bottom.as_ptr(), Relaxed);\n            compiler_fence(SeqCst);\n",
     ""),
    ("stepper", "", "a run is counted before it has come", "magazines.rs",
     "        let taken = heap.refill(self.lane(), class, request, slots);\n",
     "        let above = unsafe { bottom.add(run) };\n"
     "        self.table[class.index()].top.store(above.as_ptr(), Relaxed);\n"
     f"        {FENCE}\n"
     "        let taken = heap.refill(self.lane(), class, request, slots);\n"),
    ("tsan", "threads_handover", "locks opened without Release", "os/lock.rs",
     "self.state.swap(OPEN, Release)", "self.state.swap(OPEN, Relaxed)"),
    ("tsan", "races", "settings read while others go on", "os/once.rs",
     "            if known == me {\n", "            if known == me {\n                break;\n"),
    ("tsan", "races", "statistics read what the thread writes", "magazines.rs",
     "        if bottom.is_null() {\n            return 0;\n",
     "        core::hint::black_box(unsafe { *top });\n"
     "        if bottom.is_null() {\n            return 0;\n"),
]


def run(command, env=None, timeout=1500):
    """(whether it went well, what was said)"""
    try:
        result = subprocess.run([str(part) for part in command], cwd=TREE, timeout=timeout,
                                env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except subprocess.TimeoutExpired:
        return False, "no end"
    return result.returncode == 0, result.stdout.decode(errors="replace")


def copy():
    TREE.mkdir(parents=True, exist_ok=True)
    for name in ("Cargo.toml", "Cargo.lock", "build.rs"):
        shutil.copy2(ROOT / name, TREE / name)
    for name in ("src", "include", "c_tests", "relink"):
        shutil.rmtree(TREE / name, ignore_errors=True)
        shutil.copytree(ROOT / name, TREE / name)


def result_of(kind, test):
    """(built, found, what was said)"""
    cargo = os.environ.get("CARGO", "cargo")
    env = {"CARGO_TARGET_DIR": str(TARGET)}
    if kind == "loom":
        env.update(LOOM)
        built, said = run([cargo, "test", "--quiet", "--lib", "--no-run"], env)
        if not built:
            return False, False, said
        went_well, said = run([cargo, "test", "--quiet", "--lib", test, "--",
                               "--test-threads=1"], env)
        return True, not went_well, said
    if kind == "stepper":
        built, said = run([cargo, "build", "--quiet", "--release", "--lib"], env)
        program = TARGET / "fork_anywhere"
        if built:
            built, said = run(compile_stepper(TARGET / "release/libobmalloc.a", program))
        if not built:
            return False, False, said
        went_well, said = run([program], {"STEPS": "1"})
        return True, not went_well, said
    went_well, said = run([sys.executable, "c_tests/run.py", "--ways", "tsan", "--only", test])
    return "does not build" not in said, "FAILED" in said and "ThreadSanitizer" in said, said


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", default="loom,stepper,tsan", help="(%(default)s)")
    parser.add_argument("--only", metavar="WORD", help="mutants with this word")
    parser.add_argument("--check", action="store_true",
                        help="only whether what is to be broken still stands there")
    options = parser.parse_args()
    lost = tried = 0
    if not options.check:
        copy()
    for kind, test, what, file, old, new in MUTANTS:
        if kind not in options.kinds.split(",") or (options.only or "") not in f"{file} {what}":
            continue
        tried += 1
        began, path = time.monotonic(), TREE / "src" / file
        text = (ROOT / "src" / file).read_text()
        if text.count(old) != 1:
            print(f"{kind:8} {file:16} {what}: stands {text.count(old)} times there", flush=True)
            lost += 1
            continue
        if options.check:
            continue
        path.write_text(text.replace(old, new))
        built, found, said = result_of(kind, test)
        path.write_text(text)
        result = "found" if found else "NOT FOUND" if built else "DOES NOT BUILD"
        print(f"{kind:8} {file:16} {what}: {result}  {time.monotonic() - began:.0f} s", flush=True)
        if not found:
            lost += 1
            print("\n".join("    " + line for line in said.splitlines()[-25:]))
    print(f"{tried - lost} of {tried} {'can be made' if options.check else 'found'}")
    sys.exit(1 if lost or not tried else 0)


if __name__ == "__main__":
    main()
