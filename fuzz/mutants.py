#!/usr/bin/env python3
"""Breaks the library on purpose, one thing at a time, and asks whether the model's short
form (`make test-model`) notices. A mutant that lives is a hole in the tests.

    fuzz/mutants.py             all of them
    fuzz/mutants.py NAME ...    those whose names have one of these words in them
    fuzz/mutants.py --check     only whether what is to be broken still stands there
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Name, file in src/, what stands there, what stands there instead.
MUTANTS = [
    ("give clears the neighbour's bit", "pool/mod.rs",
     "word &= !1u64.wrapping_shl(bit);", "word &= !1u64.wrapping_shl(bit ^ 1);"),
    ("take leaves a bit clear", "pool/mod.rs",
     "self.words[n].set(before | taken);", "self.words[n].set(before | taken & (taken - 1));"),
    ("a page is not noted as touched", "pool/mod.rs",
     "self.resident.set(resident | touched);", "let _ = resident | touched;"),
    ("17 bytes get 16", "tcache/magazines.rs",
     "(n + (ALIGN - 1)) & !(ALIGN - 1)", "(n + (ALIGN - 2)) & !(ALIGN - 1)"),
    ("medium sizes get one class less", "base/size_class.rs",
     "SMALL_CLASSES + 1 + doubling * STEPS_PER_DOUBLING + step,",
     "SMALL_CLASSES + doubling * STEPS_PER_DOUBLING + step,"),
    ("realloc copies one byte less", "object/realloc.rs",
     "copy_from_nonoverlapping(p, n.min(size))",
     "copy_from_nonoverlapping(p, n.min(size).saturating_sub(1))"),
    ("realloc keeps a block that is too small", "object/realloc.rs",
     "n <= size && 4 * n > 3 * size", "n <= size + 1 && 4 * n > 3 * size"),
    ("a realloc that fails frees", "object/realloc.rs",
     "return if n <= size { p } else { ptr::null_mut() }; // OBJECT-2",
     "free(); return ptr::null_mut();"),
    ("a realloc that shrinks may fail", "object/realloc.rs",
     "return if n <= size { p } else { ptr::null_mut() }; // OBJECT-2", "return ptr::null_mut();"),
    ("calloc clears one byte less", "object/mod.rs",
     "unsafe { p.write_bytes(0, n) };", "unsafe { p.write_bytes(0, n - 1) };"),
    ("locks do not wait", "os/lock.rs",
     "            self.word.wait()\n        };\n", "            NOBODYS\n        };\n"),
    ("a fork takes no locks of the heap", "background/fork.rs",
     "    HEAP.each_lock(see);\n", ""),
    ("one alone leaves the neighbour's bit clear", "pool/mod.rs",
     "self.words[n].set(word & !bit);", "self.words[n].set(word & !(bit | bit << 1));"),
    ("a run that goes back stays at hand", "tcache/magazines.rs",
     "older.copy_from_slice(newer);", ""),
    ("a short refill is not moved down", "tcache/magazines.rs",
     "slots.copy_within(run - taken.., 0);", ""),
    ("the limit is one slot too far", "tcache/magazine.rs",
     "if above > self.limit.get() {", "if above > self.limit.get().wrapping_add(1) {"),
    ("the depot gives and keeps", "heap/depot.rs",
     "        self.set_len(row, rest);\n        if rest == 0", "        if rest == 0"),
    ("the depot forgets its oldest run", "heap/depot.rs",
     "left = Left::Oldest(len);", "left = Left::Nothing;"),
    ("a thread ends with full magazines", "tcache/registry.rs",
     "record.magazines.empty(&HEAP);", "0;"),
    ("blocks go back to another lane", "heap/mod.rs",
     "pool.is_at(shard, class)", "pool.is_of(class)"),
    ("an empty pool keeps its class in the map", "heap/mod.rs",
     "        MAP.set_class(pool.base(), None);\n", ""),
    ("an arena that went stays in the map", "arena/set.rs",
     "        MAP.remove_arena(arena);\n", ""),
    ("an arena that drains stays where it is listed", "arena/set.rs",
     "        self.unlist(arena);\n        arena.give_pool(pool);",
     "        arena.give_pool(pool);"),
    ("a claim outlives its arena's pools", "arena/mod.rs",
     "        if free == bit {\n            self.affinity.set(None); // AFFINITY-1\n        }\n", ""),
    ("pages go back with blocks on them", "pool/mod.rs",
     "let free = (self.free_pages() & self.resident.get()).whole(page);",
     "let free = self.resident.get().whole(page);"),
    ("a page goes back although it was used in between", "pool/mod.rs",
     "self.idle.set(idle & !touched);", "let _ = idle;"),
    ("what goes below is not counted back", "object/fallback.rs",
     "    count(Event::Freed);\n", ""),
    ("the depot's blocks are counted as live", "stats/mod.rs",
     "self.threads.in_magazines[class.index()] + counts.in_depot",
     "self.threads.in_magazines[class.index()]"),
    ("the ledger forgets empty pools", "stats/mod.rs",
     "ours: in_pools + empty_pools + metadata,", "ours: in_pools + metadata,"),
    ("sizes beyond PY_SSIZE_T_MAX go below", "object/mod.rs",
     "        if n > REQUEST_MAX {\n            return errno::no_memory();\n        }\n"
     "        // SAFETY: VTABLE-1.\n        return fallback::make(n, || unsafe { (below.malloc)",
     "        // SAFETY: VTABLE-1.\n        return fallback::make(n, || unsafe { (below.malloc)"),
    ("calloc's product may overflow", "object/mod.rs",
     "let Some(n @ ..=SMALL_MAX) = nelem.checked_mul(elsize) else",
     "let Some(n @ ..=SMALL_MAX) = Some(nelem.wrapping_mul(elsize)) else"),
    ("land goes back twice", "heap/mod.rs",
     "Some(chunk) => chunk.give_back(),\n                None => return released,",
     "Some(chunk) => { chunk.give_back(); chunk.give_back() }\n                None => return released,"),
]

SHORT = [
    ["--pace", "paranoid", "--ops", "33e3", "--each", "3e3"],
    ["--pace", "plain", "--ops", "5.5e6", "--each", "5e5"],
]


def copy(to):
    ignored = shutil.ignore_patterns("target", "corpus", "artifacts", "mutants.py")
    for name in ("src", "format", "cli", "exec-scope", "fuzz"):
        shutil.copytree(ROOT / name, to / name, ignore=ignored)
    for name in ("Cargo.toml", "Cargo.lock", "build.rs"):
        shutil.copy2(ROOT / name, to / name)


def said(text):
    """The line that says what was noticed."""
    for pattern in (r"panicked at [^\n]*\n([^\n]+)", r"(obmalloc: [^\n]+)", r"(signal \d+)",
                    r"FAILED \(([^)]*)\)"):
        found = re.search(pattern, text)
        if found:
            return found.group(1).strip()[:90]
    return text.strip().splitlines()[-1][:90] if text.strip() else "?"


def stale(mutant):
    """What is wrong with the mutant itself, if anything is."""
    _, file, old, _ = mutant
    if old not in (ROOT / "src" / file).read_text():
        return f"`{old.strip()}` is not in {file} any more"
    return None


def try_one(folder, mutant):
    name, file, old, new = mutant
    path = folder / "src" / file
    before = path.read_text()
    if old not in before:
        return f"{name}: {stale(mutant)}", False
    path.write_text(before.replace(old, new))
    try:
        build = ["cargo", "build", "--quiet", "--profile", "paranoid", "--bin", "model",
                 "--manifest-path", str(folder / "fuzz/Cargo.toml"),
                 "--target-dir", str(folder / "fuzz/target")]
        built = subprocess.run(build, capture_output=True, text=True)
        if built.returncode:
            return f"{name}: does not build\n{built.stderr}", False
        for arguments in SHORT:
            model = [str(folder / "fuzz/target/paranoid/model"), "--runs", *arguments]
            try:
                run = subprocess.run(model, capture_output=True, text=True, timeout=600)
            except subprocess.TimeoutExpired:
                return f"{name}: caught ({arguments[1]}): it comes to a halt", True
            if run.returncode:
                how = said(run.stderr + run.stdout)
                return f"{name}: caught ({arguments[1]}): {how}", True
        return f"{name}: LIVES", False
    finally:
        path.write_text(before)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    words = options.words
    chosen = [m for m in MUTANTS if not words or any(word in m[0] for word in words)]
    if options.check:
        wrong = [f"{mutant[0]}: {stale(mutant)}" for mutant in chosen if stale(mutant)]
        print("\n".join(wrong) or f"{len(chosen)} mutants can be made")
        return bool(wrong)
    lives = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy(folder)
        for mutant in chosen:
            begun = time.monotonic()
            line, is_caught = try_one(folder, mutant)
            print(f"{line}  [{time.monotonic() - begun:.0f} s]", flush=True)
            lives += not is_caught
    print(f"{len(chosen) - lives} of {len(chosen)} mutants are caught")
    return lives > 0


if __name__ == "__main__":
    sys.exit(main())
