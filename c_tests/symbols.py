"""The symbols of the built libraries, against the lists in c_tests/symbols/.

What the shared library takes from outside is what it can call: the C library,
no cancellation point, and nothing that could call back into an allocator on the hit path.
What it exports is its ABI; the archive has in addition what a CPython build needs of its
obmalloc.o. All are lists that people read, so a change is a decision.

usage: symbols.py LIBRARY.so LIBRARY.a
"""

import re
import subprocess
import sys
from pathlib import Path

LISTS = Path(__file__).parent / "symbols"
# Hidden names by which parts of the library find each other.
INTERNAL = ("thread_word", "obmalloc_raw_strdup")
# Cancellation points that the library imports all the same, and why no thread is cancelled
# in one of its functions.
CANCELLABLE = {
    "dlopen": "only with RTLD_NOLOAD, and while an Uncancelled lives (src/os/cancel.rs)",
    "fwrite": "to a FILE of the host's (_PyObject_DebugMallocStats), while an Uncancelled lives",
}
# What the shared library exports for the loader, and the archive keeps to itself.
SHARED_ONLY = {"__gmon_start__"}


def nm(*arguments):
    output = subprocess.run(["nm", *arguments], check=True, capture_output=True, text=True).stdout
    rows = [line.split() for line in output.splitlines()]
    return {row[-1].split("@")[0]: row[-2] for row in rows if len(row) >= 2}


def listed(name):
    lines = (LISTS / name).read_text().splitlines()
    return {line.strip() for line in lines if line.strip() and not line.startswith("#")}


def compare(what, found, expected, may_be_missing=False):
    """Prints each difference; returns how many there are."""
    surplus = sorted(set(found) - expected)
    missing = [] if may_be_missing else sorted(expected - set(found))
    for name in surplus:
        print(f"{what}: {name} is not in the list")
    for name in missing:
        print(f"{what}: {name} is in the list, but not in the library")
    return len(surplus) + len(missing)


def cancellation_points(imports):
    """malloc may not be one, so the library calls none: POSIX lists them. `syscall` is none."""
    found = set(imports) & listed("cancellation_points.txt")
    for name in sorted(found - set(CANCELLABLE)):
        print(f"imported: {name} is a cancellation point")
    for name in sorted(set(CANCELLABLE) - found):
        print(f"CANCELLABLE: {name} is not imported any more")
    return len(found ^ set(CANCELLABLE))


def in_a_build():
    """What the rest of some CPython build, or a module of it, needs by name."""
    files = [*LISTS.glob("needed/*.txt"), LISTS / "extensions.txt", LISTS / "debug.txt",
             LISTS / "archive.txt"]
    return set().union(*(listed(file) for file in files))


def main():
    shared, archive = sys.argv[1:]
    exports = listed("exports.txt")
    wrong = compare("exported", nm("-D", "--defined-only", shared), exports)
    imports = nm("-D", "--undefined-only", shared)
    wrong += compare("imported", imports, listed("imports.txt"))
    wrong += cancellation_points(imports)

    dynamic = subprocess.run(["readelf", "-dlW", shared], check=True, capture_output=True, text=True).stdout
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic)
    if needed != ["libc.so.6"]:
        print(f"needed libraries: {needed}, not libc.so.6 alone")
        wrong += 1
    for wanted in (r"soname: \[libobmalloc.so.0\]", r"Flags:.*NODELETE", r"FLAGS\).*STATIC_TLS"):
        if not re.search(wanted, dynamic):
            print(f"the shared library's header lacks: {wanted}")
            wrong += 1
    tls = re.search(r"^\s*TLS\s+\S+\s+\S+\s+\S+\s+\S+\s+(\S+)", dynamic, re.M)
    if tls is None or int(tls.group(1), 16) != 8:
        print(f"thread-local storage is not 8 bytes: {tls and tls.group(1)}")
        wrong += 1

    in_archive = nm("--defined-only", "--extern-only", archive)
    names = {name: kind for name, kind in in_archive.items() if re.match(r"_?Py|obmalloc_", name)}
    ours = {name for name in names if not name.endswith(INTERNAL)}
    wrong += compare("in the archive", ours, exports - SHARED_ONLY | in_a_build())
    for name in sorted(SHARED_ONLY & set(in_archive)):
        print(f"in the archive: {name} is not local")
        wrong += 1
    for name in sorted(ours):
        if name.startswith(("Py", "_Py")) and names[name] not in "WV":
            print(f"in the archive: {name} is not weak")
            wrong += 1
    print(f"symbols: {len(exports)} exported, {wrong} wrong")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
