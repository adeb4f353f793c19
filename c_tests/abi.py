#!/usr/bin/env python3
"""The ABI against that of the releases: what a release has exported and declared stays.

c_tests/symbols/releases/VERSION/ has what a release promised: names.txt, what the shared
library exports, and declarations.txt, what the header declares: a line for each function,
type and constant. No name may be gone, and no declaration be another, while the SONAME is
the same; what is added since the newest release is listed. The C compiler compares
functions (so a parameter may get another name) and constants; types are compared as text.

    abi.py LIBRARY.so include/obmalloc.h    compares; the exit status is 1 if something is lost
    abi.py --keep LIBRARY.so HEADER         writes the lists of the version in Cargo.toml:
                                            once, when it is released
"""
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import symbols

ROOT = Path(__file__).resolve().parent.parent
RELEASES = symbols.LISTS / "releases"


def version():
    return re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.M).group(1)


def number(release):
    return [int(part) for part in release.split(".")]


def releases():
    """The versions that are kept, oldest first."""
    return sorted((path.name for path in RELEASES.iterdir()), key=number)


def names(release):
    return symbols.listed(f"releases/{release}/names.txt")


def kept(release):
    """The declarations of a release, one a line."""
    return [line for line in (RELEASES / release / "declarations.txt").read_text().splitlines()
            if line]


def exported(library):
    """The names that programs may use: not the one that the loader's part of each object
    calls."""
    return set(symbols.nm("-D", "--defined-only", library)) - symbols.SHARED_ONLY


def since(exports):
    """{name: the first release that has it}; None for what is added since the newest."""
    first = dict.fromkeys(exports)
    for release in reversed(releases()):
        first.update((name, release) for name in names(release) & set(exports))
    return first


def declarations(header):
    """What a header declares, each on one line, without comments."""
    text = re.sub(r"/\*.*?\*/", " ", header, flags=re.S)
    text = re.sub(r"//[^\n]*", " ", text)
    text = re.sub(r"#ifdef __cplusplus.*?#endif", " ", text, flags=re.S)
    found = [" ".join(line.split()) for line in re.findall(r"^#define \w+ +[^\s].*$", text, re.M)]
    text = re.sub(r"^#.*$", " ", text, flags=re.M)
    depth, begin = 0, 0
    for at, letter in enumerate(text):
        depth += (letter == "{") - (letter == "}")
        if letter == ";" and depth == 0:
            found.append(" ".join(text[begin:at + 1].split()))
            begin = at + 1
    return found


def of(declaration):
    """Its kind and the name that it declares."""
    for kind, pattern in (("constant", r"#define (\w+) "), ("type", r"typedef.* (\w+);"),
                          ("function", r"[^(]*?(\w+)\(.*\);")):
        found = re.fullmatch(pattern + (".*" if kind == "constant" else ""), declaration)
        if found:
            return kind, found.group(1)
    raise SystemExit(f"abi: not understood: {declaration}")


def conflict(header, declaration):
    """What the compiler says of a function or a constant of a release beside the header
    of today: nothing, if they are the same."""
    kind, name = of(declaration)
    if kind == "constant":
        value = declaration.split(None, 2)[2]
        declaration = f'_Static_assert({name} == ({value}), "was {value}");'
    with tempfile.NamedTemporaryFile("w", suffix=".c") as file:
        file.write(f'#define OBMALLOC_TABLES\n#include "{Path(header).resolve()}"\n{declaration}\n')
        file.flush()
        done = subprocess.run(["gcc", "-std=c11", "-fsyntax-only", file.name],
                              stderr=subprocess.PIPE, universal_newlines=True)
    errors = re.findall(r"error: (.*)", done.stderr)
    return "" if done.returncode == 0 else errors[0] if errors else done.stderr.strip()


def compare(release, exports, header):
    """Sentences, one for each thing of the release that is lost."""
    complaints = [f"{name} is exported no more" for name in sorted(names(release) - exports)]
    today = declarations(Path(header).read_text())
    declared = {name for _, name in map(of, today)}
    for line in kept(release):
        kind, name = of(line)
        if name not in declared:
            complaints.append(f"the {kind} {name} is gone from the header")
        elif line in today:
            continue
        elif kind == "type":
            complaints.append(f"the type {name} is another than: {line}")
        else:
            said = conflict(header, line)
            if said:
                complaints.append(f"the {kind} {name} is another than: {line} ({said})")
    return complaints


def check(library, header):
    exports, known = exported(library), releases()
    wrong = 0
    for release in known:
        complaints = compare(release, exports, header)
        wrong += len(complaints)
        for sentence in complaints:
            print(f"abi: {release}: {sentence}")
    newest = known[-1]
    added = sorted(name for name, first in since(exports).items() if first is None)
    before = {name for release in known for _, name in map(of, kept(release))}
    new = sorted({name for _, name in map(of, declarations(Path(header).read_text()))} - before)
    print(f"abi: added since {newest}: exported: {', '.join(added) or 'nothing'};"
          f" declared: {', '.join(new) or 'nothing'}")
    if added and number(version()) <= number(newest):
        print(f"abi: the next release has to be newer than {version()}, as there are names added")
    print(f"abi: {len(names(newest))} names and {len(kept(newest))} declarations of {newest}, "
          f"{wrong} lost or changed")
    return min(wrong, 1)


def keep(library, header):
    folder = RELEASES / version()
    if folder.exists():
        sys.exit(f"abi: {folder.relative_to(ROOT)} is there: what is released stays")
    folder.mkdir(parents=True)
    (folder / "names.txt").write_text("\n".join(sorted(exported(library))) + "\n")
    (folder / "declarations.txt").write_text(
        "\n".join(declarations(Path(header).read_text())) + "\n")
    print(f"abi: written: {folder.relative_to(ROOT)}")
    return 0


def main():
    words = sys.argv[1:]
    act = keep if "--keep" in words else check
    words = [word for word in words if word != "--keep"]
    if len(words) != 2:
        sys.exit(__doc__.strip())
    return act(*words)


if __name__ == "__main__":
    sys.exit(main())
