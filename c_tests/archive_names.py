"""The archive defines every name that a CPython linked without obmalloc.o asks for.

c_tests/symbols/ has the lists: needed/VERSION.txt is what libpython's own members
ask for, extensions.txt what extension modules and embedding programs ask for,
debug.txt what debug builds add. Each name has to be there, and weak: 2.7 defines
PyMem_* itself, and a host's own definition wins.

usage: archive_names.py target/release/libobmalloc.a
"""

import subprocess
import sys
from pathlib import Path

LISTS = Path(__file__).resolve().parent / "symbols"


def lists():
    """{path: names} of all lists, the versions in their order."""
    needed = sorted((LISTS / "needed").glob("*.txt"),
                    key=lambda path: [int(part) for part in path.stem.split(".")])
    paths = needed + [LISTS / "extensions.txt", LISTS / "debug.txt"]
    return {path: {line for line in path.read_text().split("\n") if line and line[0] != "#"}
            for path in paths}


def defined(archive):
    """{name: letter of nm} of what the archive's members define for others."""
    rows = subprocess.run(["nm", "--quiet", "--defined-only", "--extern-only", archive], check=True,
                          stdout=subprocess.PIPE, universal_newlines=True).stdout.split("\n")
    return {row.split()[2]: row.split()[1] for row in rows if len(row.split()) == 3}


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.strip().split("\n")[-1])
    letters = defined(sys.argv[1])
    asked, wrong = set(), 0
    for path, names in lists().items():
        missing = sorted(names - set(letters))
        print("%-16s %2d of %2d%s" % (path.relative_to(LISTS).with_suffix(""),
                                      len(names) - len(missing), len(names),
                                      ", not: " + " ".join(missing) if missing else ""))
        asked |= names
        wrong += len(missing)
    for name in sorted(asked & set(letters)):
        if letters[name] not in "WV":
            print("%s is there, but not weak" % name)
            wrong += 1
    print("archive: %d of %d names" % (len(asked & set(letters)), len(asked)))
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
