#!/usr/bin/env python3
"""Can the tests of concurrency fail? Faults are planted in a copy of the sources, one at a time,
and the test that has to find the fault must fail.

    loom      the models of src/tests/loom/ (`make loom`)
    stepper   the case fork/anywhere of c_tests with STEPS=1 (`make stepper`)
    tsan      C programs with threads under ThreadSanitizer (`make tsan`)

    tests/concurrency/mutants.py [--kinds loom,stepper,tsan] [--only WORD]
    tests/concurrency/mutants.py --check    only whether each fault can be planted

Each fault weakens an ordering, or drops or moves a step, which no tool does by itself; the
rest of the sources is mutated by cargo-mutants (.cargo/mutants.toml). A fault that no test
finds is a failure, and so is one whose place in the sources is gone. A run of all of them
without a failure writes its row of docs/evidence.md.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from run import CARGO, LOOM, STEPPER, TSAN, evidence

ROOT = Path(__file__).resolve().parents[2]
TREE = ROOT / "target/mutants/tree"
TARGET = ROOT / "target/mutants/target"
FENCE = "core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::SeqCst);"


@dataclass
class Mutant:
    """One fault: `old` becomes `new`. White space and comments of the source do not count."""
    kind: str
    test: str       # the model, or the case of c_tests
    what: str
    file: str       # in src/
    old: str
    new: str

    def places(self, text):
        """The ranges of `text` that are `old`."""
        bare = re.sub(r"//[^\n]*", lambda comment: " " * len(comment[0]), text)
        words = re.findall(r"\w+|[^\w\s]", self.old)
        return [match.span() for match in
                re.finditer(r"\s*".join(map(re.escape, words)), bare)]

    def planted(self, text):
        (start, end), = self.places(text)
        return text[:start] + self.new + text[end:]


MUTANTS = [
    Mutant("loom", "loom::lock", "unlocks without Release", "os/lock.rs",
           "self.0.compare_exchange(from, OPEN, Release, Relaxed)",
           "self.0.compare_exchange(from, OPEN, Relaxed, Relaxed)"),
    Mutant("loom", "loom::lock", "locks after a wait without Acquire", "os/lock.rs",
           "compare_exchange(word, next, Acquire, Relaxed)",
           "compare_exchange(word, next, Relaxed, Relaxed)"),
    Mutant("loom", "loom::lock", "a waiter that wakes up forgets that others may wait",
           "os/lock.rs",
           "(me | CONTENDED, NOBODYS)",
           "(me, NOBODYS)"),
    Mutant("loom", "loom::lock", "wakes no waiter", "os/lock.rs",
           "return wait::wake_word(&self.0);",
           "return;"),
    Mutant("loom", "loom::lock", "a fork lends none of its locks", "os/lock.rs",
           "word & (FORK | LENT | ENTERED) == FORK && patience",
           "false && patience"),
    Mutant("loom", "loom::lock", "a lent lock does not return to the fork", "os/lock.rs",
           "lender => lender | word & CONTENDED,",
           "_ => OPEN,"),
    Mutant("loom", "loom::page_map", "enters an arena without Release", "arena/page_map.rs",
           "None => self.word.store(record, Release),",
           "None => self.word.store(record, Relaxed),"),
    Mutant("loom", "loom::page_map", "a second leaf replaces the first one",
           "arena/page_map.rs",
           ".compare_exchange(ptr::null_mut(), leaf, Release, Acquire)",
           ".compare_exchange(entry.load(Acquire), leaf, Release, Acquire)"),
    Mutant("loom", "loom::purge", "does not check the pool's shard again under the lock",
           "heap/mod.rs",
           "!pool.is_owned_by(shard, class)",
           "pool.owner().is_none()"),
    Mutant("loom", "loom::once", "sets DONE without Release", "os/once.rs",
           "self.state.store(DONE, Release); self.done",
           "self.state.store(DONE, Relaxed); self.done"),
    Mutant("loom", "loom::once", "two threads begin the initialization", "os/once.rs",
           "let begun = self.state.compare_exchange(known, me, Acquire, Relaxed);",
           "self.state.store(me, Relaxed); let begun = Ok::<u64, u64>(known);"),
    Mutant("loom", "loom::helper", "starts a thread beside one that has to stop", "os/helper.rs",
           "NONE => {} phase =>",
           "NONE | STOPPING => {} phase =>"),
    Mutant("loom", "loom::helper", "starts a thread beside one that has left", "os/helper.rs",
           "|| self.is_leaving(now)",
           "|| self.is_leaving(now) && false"),
    Mutant("loom", "loom::helper", "the thread ends while others hold the lock", "os/helper.rs",
           "let Some(_state) = self.state.try_lock() else { return false; };",
           "let _state = self.state.try_lock();"),
    Mutant("loom", "loom::lock", "lends a lock that its fork has entered", "os/lock.rs",
           "word & (FORK | LENT | ENTERED) == FORK && patience",
           "word & (FORK | LENT) == FORK && patience"),
    Mutant("loom", "loom::lock", "enters a returned lock without Acquire", "os/lock.rs",
           "self.0.fetch_update(Acquire, Relaxed, enter)",
           "self.0.fetch_update(Relaxed, Relaxed, enter)"),
    Mutant("loom", "loom::purge", "assigns a pool to a shard without Release", "pool/mod.rs",
           "self.owner.store(owner_word(shard, class), Release);",
           "self.owner.store(owner_word(shard, class), Relaxed);"),
    Mutant("loom", "loom::page_map", "enters a part of a granule without Release",
           "arena/page_map.rs",
           "pool.store(word, Release);",
           "pool.store(word, Relaxed);"),
    Mutant("loom", "loom::sequence", "no fence after the odd number", "sync/sequence.rs",
           "fence(Release);", ""),
    Mutant("loom", "loom::sequence", "the even number without Release", "sync/sequence.rs",
           "sequence.store(before.wrapping_add(2), Release);",
           "sequence.store(before.wrapping_add(2), Relaxed);"),
    Mutant("loom", "loom::sequence", "a reader without its fence", "sync/sequence.rs",
           "fence(super::Ordering::Acquire);", ""),
    Mutant("loom", "loom::roster", "no SeqCst fence after a thread has entered", "os/roster.rs",
           "fence(SeqCst);", "fence(core::sync::atomic::Ordering::AcqRel);"),
    Mutant("loom", "loom::callback", "sets a callback without Release", "base/callback.rs",
           "self.function.store(function, Release);",
           "self.function.store(function, crate::sync::Ordering::Relaxed);"),
    Mutant("loom", "loom::depot", "unlocks without Release", "os/lock.rs",
           "self.0.compare_exchange(from, OPEN, Release, Relaxed)",
           "self.0.compare_exchange(from, OPEN, Relaxed, Relaxed)"),
    Mutant("stepper", "", "top includes a slot before it is written", "tcache/magazine.rs",
           "unsafe { *above = block }; compiler_fence(Release); self.top.store(above, Relaxed);",
           f"self.top.store(above, Relaxed); {FENCE} unsafe {{ *above = block }};"),
    Mutant("stepper", "", "top includes the batch that is being moved down", "tcache/magazine.rs",
           "top.store(bottom.as_ptr(), Relaxed); compiler_fence(SeqCst); older",
           "older"),
    Mutant("stepper", "", "top includes a batch before it is refilled", "tcache/magazine.rs",
           "let taken = heap.refill(self.shard(), class, request, slots);",
           f"let above = unsafe {{ bottom.add(batch) }}; "
           f"self.by_class[class.index()].top.store(above.as_ptr(), Relaxed); {FENCE} let taken "
           f"= heap.refill(self.shard(), class, request, slots);"),
    Mutant("tsan", "thread/handover", "unlocks without Release", "os/lock.rs",
           "self.0.compare_exchange(from, OPEN, Release, Relaxed)",
           "self.0.compare_exchange(from, OPEN, Relaxed, Relaxed)"),
    Mutant("tsan", "thread/races*", "reads settings while another thread writes them", "os/once.rs",
           "if known == DONE || known == me {",
           "if known == DONE || known == me || is_there(known) {"),
    Mutant("tsan", "thread/races*", "statistics read a slot that the thread writes", "tcache/magazine.rs",
           "if bottom.is_null() { return 0;",
           "core::hint::black_box(unsafe { *top }); if bottom.is_null() { return 0;"),
]


def run(command, env=None, timeout=1500):
    """(whether the exit status was 0, the output)"""
    process = subprocess.Popen([str(part) for part in command], cwd=TREE,
                               env={**os.environ, "CARGO_TARGET_DIR": str(TARGET), **(env or {})},
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, start_new_session=True)
    try:
        out, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # cargo's own children, too
        process.communicate()
        return False, "no end"
    return process.returncode == 0, out.decode(errors="replace")


def copy():
    """Copies the files that git tracks to TREE."""
    shutil.rmtree(TREE, ignore_errors=True)
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, stdout=subprocess.PIPE,
                           check=True).stdout.decode().split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (TREE / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, TREE / name)


def result_of(mutant):
    """(built, found, output)"""
    if mutant.kind == "loom":
        test = [CARGO, "test", "--quiet", "--lib"]
        built, out = run([*test, "--no-run"], LOOM)
        if not built:
            return False, False, out
        passed, out = run([*test, mutant.test, "--", "--test-threads=1"], LOOM)
        return True, not passed, out
    if mutant.kind == "stepper":
        built, out = run(["make", "all"])
        if not built:
            return False, False, out
        passed, out = run(STEPPER)
        return True, not passed and "FAILED" in out, out
    passed, out = run([*TSAN, "CASE=" + mutant.test])
    return "error: could not compile" not in out, "ThreadSanitizer found" in out, out


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", default="loom,stepper,tsan", help="(%(default)s)")
    parser.add_argument("--only", metavar="WORD", default="", help="mutants with this word")
    parser.add_argument("--check", action="store_true", help="run nothing")
    options = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if mutant.kind in options.kinds.split(",")
              and options.only in f"{mutant.file} {mutant.what}"]
    lost, begin = [], time.monotonic()
    if not options.check:
        copy()
    for mutant in chosen:
        start, path = time.monotonic(), TREE / "src" / mutant.file
        original = ROOT / "src" / mutant.file
        text = original.read_text() if original.is_file() else ""
        count, out = len(mutant.places(text)), ""
        if count != 1:
            result = f"the place occurs {count} times in src/{mutant.file}"
        elif options.check:
            continue
        else:
            path.write_text(mutant.planted(text))
            built, found, out = result_of(mutant)
            path.write_text(text)
            result = "found" if found else "NOT FOUND" if built else "DOES NOT BUILD"
        print(f"{mutant.kind:8} {mutant.file:18} {mutant.what}: {result}"
              f"  {time.monotonic() - start:.0f} s", flush=True)
        if result != "found":
            lost.append(mutant)
            print("\n".join("    " + line for line in out.splitlines()[-25:]))
    print(f"{len(chosen) - len(lost)} of {len(chosen)} mutants "
          + ("can be planted" if options.check else "found"))
    if chosen == MUTANTS and not lost and not options.check:
        evidence.record(what="planted faults of ordering", command="tests/concurrency/mutants.py",
                        result="each found by its test", amount=f"{len(chosen)} faults",
                        seconds=time.monotonic() - begin, section="Threads and forks",
                        versions="loom, the archive, ThreadSanitizer")
    sys.exit(1 if lost or not chosen else 0)


if __name__ == "__main__":
    main()
