#!/usr/bin/env python3
"""The ABI of each release, and how the tree differs from it.

releases/VERSION/ beside this file has two lists for each release: names.txt, the names that
the shared library exports, and declarations.txt, the functions, types and constants of the
header, one a line. While the SONAME stays, no name may go and no declaration may change; the
tests beside this file check it. gcc compares functions (so that a parameter may be renamed)
and constants; types are compared as text. abidiff would compare DWARF, which has no
constants, and Rust's types in place of the header's.

    abi.py LIBRARY HEADER           prints what is lost or added since the newest release
    abi.py --keep LIBRARY HEADER    writes the lists of the version in Cargo.toml, once, when
                                    it is released
"""
import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
RELEASES = HERE / "releases"
# The one export that is not in the ABI: the loader's part of each object calls it.
LOADERS = {"__gmon_start__"}


def version():
    return re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.M).group(1)


def number(release):
    return [int(part) for part in release.split(".")]


def releases():
    """The versions with lists, oldest first."""
    return sorted((path.name for path in RELEASES.iterdir()), key=number)


def listed(path):
    """The lines of a list beside this file, without comments and blank lines."""
    lines = map(str.strip, (HERE / path).read_text().splitlines())
    return [line for line in lines if line and not re.match("#( |$)", line)]


def names(release):
    return set(listed(f"releases/{release}/names.txt"))


def kept(release):
    """The declarations of a release."""
    return listed(f"releases/{release}/declarations.txt")


def nm(*words):
    """{name: nm's letter for its kind}"""
    rows = subprocess.run(["nm", "--quiet", *words], check=True, capture_output=True,
                          text=True).stdout.splitlines()
    rows = [row.split() for row in rows]
    return {row[-1].split("@")[0]: row[-2] for row in rows if len(row) >= 2}


def exported(library):
    """The exported names that belong to the ABI."""
    return set(nm("-D", "--defined-only", library)) - LOADERS


def since(exports):
    """{name: the first release that has it, or None}"""
    first = dict.fromkeys(exports)
    for release in reversed(releases()):
        first.update((name, release) for name in names(release) & set(exports))
    return first


def declarations(header):
    """The declarations of a header's text, each on one line, without comments."""
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


def declared(declaration):
    """The kind of a declaration, and the name that it declares."""
    for kind, pattern in (("constant", r"#define (\w+) .*"), ("type", r"typedef.* (\w+);"),
                          ("function", r"[^(]*?(\w+)\(.*\);")):
        found = re.fullmatch(pattern, declaration)
        if found:
            return kind, found.group(1)
    raise ValueError(f"not a constant, type or function: {declaration}")


def conflict(header, declaration):
    """gcc's error for a release's function or constant after today's header, "" if none."""
    kind, name = declared(declaration)
    if kind == "constant":
        value = declaration.split(None, 2)[2]
        declaration = f'_Static_assert({name} == ({value}), "was {value}");'
    source = f'#define OBMALLOC_TABLES\n#include "{Path(header).resolve()}"\n{declaration}\n'
    with tempfile.NamedTemporaryFile("w", suffix=".c") as file:
        file.write(source)
        file.flush()
        done = subprocess.run(["gcc", "-std=c11", "-fsyntax-only", file.name],
                              stderr=subprocess.PIPE, text=True)
    errors = re.findall(r"error: (.*)", done.stderr)
    return "" if done.returncode == 0 else errors[0] if errors else done.stderr.strip()


def losses(release, exports, header):
    """A sentence for each promise of a release that is not kept."""
    found = [f"{name} is not exported" for name in sorted(names(release) - exports)]
    today = declarations(Path(header).read_text())
    present = {name for _, name in map(declared, today)}
    for line in kept(release):
        kind, name = declared(line)
        if name not in present:
            found.append(f"the {kind} {name} is not in the header")
        elif line not in today:
            error = "another text" if kind == "type" else conflict(header, line)
            if error:
                found.append(f"the {kind} {name} differs from: {line} ({error})")
    return found


def compare(library, header):
    """Prints the differences from the releases; 1 if something is lost."""
    exports, known = exported(library), releases()
    lost = [f"{release}: {loss}" for release in known for loss in losses(release, exports, header)]
    newest = known[-1]
    added = sorted(name for name, first in since(exports).items() if first is None)
    before = {name for release in known for _, name in map(declared, kept(release))}
    today = {name for _, name in map(declared, declarations(Path(header).read_text()))}
    for loss in lost:
        print(f"abi: {loss}")
    print(f"abi: added since {newest}: exported: {', '.join(added) or 'nothing'};"
          f" declared: {', '.join(sorted(today - before)) or 'nothing'}")
    if added and number(version()) <= number(newest):
        print(f"abi: with these exports the next release has to be newer than {version()}")
    print(f"abi: {len(names(newest))} names and {len(kept(newest))} declarations of {newest}, "
          f"{len(lost)} lost or changed")
    return 1 if lost else 0


def keep(library, header):
    folder = RELEASES / version()
    if folder.exists():
        sys.exit(f"abi: {folder.relative_to(ROOT)} exists; the lists of a release do not change")
    folder.mkdir(parents=True)
    (folder / "names.txt").write_text("\n".join(sorted(exported(library))) + "\n")
    lines = declarations(Path(header).read_text())
    (folder / "declarations.txt").write_text("\n".join(lines) + "\n")
    print(f"abi: written: {folder.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--keep", action="store_true", help="write the lists of this version")
    parser.add_argument("library")
    parser.add_argument("header")
    options = parser.parse_args()
    sys.exit((keep if options.keep else compare)(options.library, options.header))
