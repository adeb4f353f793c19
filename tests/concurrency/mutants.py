#!/usr/bin/env python3
"""Whether the tests of what threads do at once can fail: faults are planted, one at a time,
in a copy of the sources, and the test that is to find it must.

    loom      the models of src/tests/loom/ (`make loom`)
    rust      tests beside the sources, of forked children and threads that are gone
    stepper   c_tests/fork/anywhere.c with STEPS=1 (`make stepper`)
    tsan      c_tests/thread/races.c and others with ThreadSanitizer (`make tsan`)

    tests/concurrency/mutants.py [--kinds loom,rust,stepper,tsan] [--only WORD]

An ordering is weakened, or a step dropped or moved. A fault that nobody finds is a failure,
and so is a place in the sources that is not there any more.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from run import C_TESTS, LOOM, STEPPER

ROOT = Path(__file__).resolve().parents[2]
TREE = ROOT / "target/mutants/tree"
TARGET = ROOT / "target/mutants/target"
FENCE = "core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::SeqCst);"

# (kind, test, what is wrong, file, what stands there, what stands there then)
MUTANTS = [
    ("loom", "loom::lock", "opened without Release", "os/lock.rs",
     "self.0.compare_exchange(from, OPEN, Release, Relaxed)",
     "self.0.compare_exchange(from, OPEN, Relaxed, Relaxed)"),
    ("loom", "loom::lock", "opened without Release where somebody waits", "os/lock.rs",
     "self.0.compare_exchange(word, new, Release, Relaxed)",
     "self.0.compare_exchange(word, new, Relaxed, Relaxed)"),
    ("loom", "loom::lock", "taken without Acquire", "os/lock.rs",
     "compare_exchange(OPEN, this_thread(), Acquire, Relaxed)",
     "compare_exchange(OPEN, this_thread(), Relaxed, Relaxed)"),
    ("loom", "loom::lock", "taken after a wait without Acquire", "os/lock.rs",
     "compare_exchange(word, next, Acquire, Relaxed)",
     "compare_exchange(word, next, Relaxed, Relaxed)"),
    ("loom", "loom::lock", "taken for a fork without Acquire", "os/lock.rs",
     "compare_exchange(OPEN, me | flags, Acquire, Relaxed)",
     "compare_exchange(OPEN, me | flags, Relaxed, Relaxed)"),
    ("loom", "loom::lock", "a thread that has slept does not say that others may", "os/lock.rs",
     "(me | CONTENDED, NOBODYS)", "(me, NOBODYS)"),
    ("loom", "loom::lock", "a fork that has slept does not say that others may", "os/lock.rs",
     "if looks == 0 { FORK } else { FORK | CONTENDED }", "FORK"),
    ("loom", "loom::lock", "nobody is woken", "os/lock.rs",
     "return wait::wake_word(&self.0);", "return;"),
    ("loom", "loom::lock", "the thread that forks is let through only if nobody waits",
     "os/lock.rs", "self.0.load(Relaxed) & !CONTENDED == this_thread() | FORK",
     "self.0.load(Relaxed) == this_thread() | FORK"),
    ("loom", "loom::lock", "a fork takes what its thread holds for its own", "os/lock.rs",
     "owner(word) == me || word & POISONED != 0 {\n",
     "owner(word) == me || word & POISONED != 0 {\n"
     "                self.0.store(me | FORK, Relaxed);\n"),
    ("loom", "loom::lock", "no lock of a fork is lent", "os/lock.rs",
     "word & (FORK | LENT) == FORK && patience", "false && patience"),
    ("loom", "loom::lock", "a lock that was lent does not come back to the fork", "os/lock.rs",
     "lender => lender | word & CONTENDED,", "_ => OPEN,"),
    ("loom", "loom::lock", "it comes back to a fork that is over", "os/lock.rs",
     "            _ if word & FORK == 0 => OPEN, // the fork is over\n", ""),
    ("loom", "loom::lock", "a fork that is over opens what it has lent", "os/lock.rs",
     "both if both == FORK | LENT => Some(word & !FORK),",
     "both if both == FORK | LENT => Some(OPEN),"),
    ("rust", "os::lock", "a child finds open what another thread held", "os/lock.rs",
     "owner if owner != this_thread() => POISONED,", "owner if owner != this_thread() => OPEN,"),
    ("rust", "os::lock", "a child waits for who borrowed the lock", "os/lock.rs",
     "owner if owner != this_thread() => POISONED,",
     "owner if owner != this_thread() && word & LENT == 0 => POISONED,"),
    ("rust", "os::lock", "a child gives back to a fork that is not there", "os/lock.rs",
     "            owner if word & LENT != 0 => owner,\n", ""),
    ("loom", "loom::address_map", "an arena entered without Release", "arena/granule.rs",
     "None => self.word.store(record, Release),", "None => self.word.store(record, Relaxed),"),
    ("loom", "loom::address_map", "an arena found without Acquire", "arena/granule.rs",
     "let word = self.word.load(Acquire);", "let word = self.word.load(Relaxed);"),
    ("loom", "loom::address_map", "the second leaf takes the place of the first",
     "arena/page_map.rs", ".compare_exchange(ptr::null_mut(), leaf, Release, Acquire)",
     ".compare_exchange(entry.load(Acquire), leaf, Release, Acquire)"),
    ("loom", "loom::purge", "a pool's home is not looked at again", "heap/mod.rs",
     "!pool.is_at(shard, class)", "pool.home().is_none()"),
    ("loom", "loom::purge", "only its class is looked at again", "heap/mod.rs",
     "!pool.is_at(shard, class)", "!pool.is_of(class)"),
    ("loom", "loom::once", "done without Release", "os/once.rs",
     "self.state.store(DONE, Release);", "self.state.store(DONE, Relaxed);"),
    ("loom", "loom::once", "seen done without Acquire after a wait", "os/once.rs",
     "let known = self.state.load(Acquire);", "let known = self.state.load(Relaxed);"),
    ("loom", "loom::once", "who finds it begun goes on", "os/once.rs",
     "if known == DONE || known == me {", "if known == DONE || known == me || is_there(known) {"),
    ("loom", "loom::once", "two begin it", "os/once.rs",
     "let begun = self.state.compare_exchange(known, me, Acquire, Relaxed);",
     "self.state.store(me, Relaxed);\n            let begun = Ok::<u64, u64>(known);"),
    ("rust", "os::once", "a thread of the parent process is waited for", "os/once.rs",
     "name >> 32 == u64::from(text::pid().cast_unsigned()) && is_there(name as i32)",
     "name != NOT_YET"),
    ("rust", "os::once", "a thread that is gone is waited for", "os/once.rs",
     "&& is_there(name as i32)", "&& name as i32 != 0"),
    ("rust", "os::once", "who comes again in the midst waits for itself", "os/once.rs",
     "if known == DONE || known == me {", "if known == DONE {"),
    ("loom", "loom::helper", "it is started beside one that is to stop", "os/helper.rs",
     "            NONE => {}\n            phase =>",
     "            NONE | STOPPING => {}\n            phase =>"),
    ("loom", "loom::helper", "it leaves while others hold the lock", "os/helper.rs",
     "let Some(_state) = self.state.try_lock() else {\n            return false;\n        };",
     "let _state = self.state.try_lock();"),
    ("loom", "loom::helper", "a fork does not wait for one that has not begun", "os/helper.rs",
     "0 => is_stopping, // and has not begun yet",
     "0 => false,"),
    ("loom", "loom::helper", "who left by itself is not waited for", "os/helper.rs",
     "self.left.store(self.id.swap(0, Relaxed), Relaxed);", "self.id.store(0, Relaxed);"),
    ("loom", "loom::helper", "who was told to stop and says so late is not waited for",
     "os/helper.rs", "            self.left.store(number, Relaxed);\n", ""),
    ("rust", "metadata::", "two threads get the same piece", "arena/metadata.rs",
     "let at = header.next.fetch_update(Relaxed, Relaxed, after).ok()?;",
     "let at = header.next.load(Relaxed);\n        header.next.store(after(at)?, Relaxed);"),
    ("rust", "metadata::", "a chunk is listed though another thread was faster", "arena/metadata.rs",
     "if listed.is_err() {",
     "if listed.is_err() {\n            NEWEST.store(chunk.as_ptr(), Release);\n"
     "        }\n        if false {"),
    ("stepper", "", "top counts a slot before it is filled", "tcache/magazine.rs",
     "        unsafe { *above = block };\n"
     "        // Release: the compiler must keep the order, for MAGAZINE-4.\n"
     "        self.top.store(above, Release);\n",
     f"        self.top.store(above, Release);\n        {FENCE}\n"
     "        unsafe { *above = block };\n"),
    ("stepper", "", "the newer run moves down and is counted", "tcache/magazines.rs",
     "        top.store(bottom.as_ptr(), Relaxed);\n"
     "        compiler_fence(SeqCst);\n        older", "        older"),
    ("stepper", "", "the newer run is counted twice while the older one goes", "tcache/magazines.rs",
     "        top.store(unsafe { bottom.add(run) }.as_ptr(), Release);\n"
     "        heap.flush(class, away);\n",
     "        top.store(unsafe { bottom.add(2 * run) }.as_ptr(), Release);\n"
     f"        {FENCE}\n        heap.flush(class, away);\n        {FENCE}\n"
     "        top.store(unsafe { bottom.add(run) }.as_ptr(), Release);\n"),
    ("stepper", "", "all is given back and counted", "tcache/magazines.rs",
     "            top.store(bottom.as_ptr(), Relaxed);\n            compiler_fence(SeqCst);\n",
     ""),
    ("stepper", "", "a run is counted before it has come", "tcache/magazines.rs",
     "        let taken = heap.refill(self.shard(), class, request, slots);\n",
     "        let above = unsafe { bottom.add(run) };\n"
     "        self.table[class.index()].top.store(above.as_ptr(), Relaxed);\n"
     f"        {FENCE}\n"
     "        let taken = heap.refill(self.shard(), class, request, slots);\n"),
    ("tsan", "thread/handover", "locks opened without Release", "os/lock.rs",
     "self.0.compare_exchange(from, OPEN, Release, Relaxed)",
     "self.0.compare_exchange(from, OPEN, Relaxed, Relaxed)"),
    ("tsan", "thread/races*", "settings read while others go on", "os/once.rs",
     "if known == DONE || known == me {", "if known == DONE || known == me || is_there(known) {"),
    ("tsan", "thread/races*", "statistics read what the thread writes", "tcache/magazines.rs",
     "        if bottom.is_null() {\n            return 0;\n",
     "        core::hint::black_box(unsafe { *top });\n"
     "        if bottom.is_null() {\n            return 0;\n"),
]


def run(command, env=None, timeout=1500):
    """(whether it went well, what was said)"""
    process = subprocess.Popen([str(part) for part in command], cwd=TREE,
                               env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               start_new_session=True)
    try:
        said, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # cargo's own children, too
        process.communicate()
        return False, "no end"
    return process.returncode == 0, said.decode(errors="replace")


def copy():
    TREE.mkdir(parents=True, exist_ok=True)
    for name in ("Cargo.toml", "Cargo.lock", "build.rs"):
        shutil.copy2(ROOT / name, TREE / name)
    for name in ("src", "format", "cli", "exec-scope", "include", "c_tests", "relink"):
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
    if kind == "rust":
        built, said = run([cargo, "test", "--quiet", "--lib", "--no-run"], env)
        if not built:
            return False, False, said
        # Some of these mistakes are threads that wait for ever.
        went_well, said = run([cargo, "test", "--quiet", "--lib", test], env, timeout=60)
        return True, not went_well, said
    if kind == "stepper":
        built, said = run([cargo, "build", "--quiet", "--release", "--lib"], env)
        if not built:
            return False, False, said
        went_well, said = run(STEPPER, {**env, "STEPS": "1"})
        return " passed, " in said, "FAILED" in said, said
    went_well, said = run([*C_TESTS, "WAYS=tsan", f"CASE={test}"])
    return " passed, " in said, "FAILED" in said and "ThreadSanitizer" in said, said


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", default="loom,rust,stepper,tsan", help="(%(default)s)")
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
