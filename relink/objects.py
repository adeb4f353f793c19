"""Archives, objects and their symbols, by binutils: used by relink.py."""

import os
import re
import shutil
import subprocess

from ask import Refusal

OURS = re.compile(r"_?Py|obmalloc_")


def run(command):
    """A command's output as text, messages in English; raises OSError if missing."""
    return subprocess.run(command, env=dict(os.environ, LC_ALL="C"),
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, universal_newlines=True,
                          errors="replace")


def must(command):
    result = run(command)
    if result.returncode != 0:
        raise Refusal("`%s` failed: %s"
                      % (" ".join(command), result.stderr.strip()[:500]))
    return result.stdout


def defined(path, dynamic=False):
    """{name: letter of nm} of the global symbols that a file defines."""
    output = must(["nm", "--defined-only", "-g"] + ["-D"] * dynamic + [path])
    found = {}
    for line in output.splitlines():
        words = line.split()
        if len(words) == 3:
            found[words[2].partition("@")[0]] = words[1]
    return found


def undefined_dynamic(path):
    """The names a shared object expects from others."""
    output = run(["nm", "-D", "--undefined-only", path]).stdout
    return {line.split()[-1].partition("@")[0] for line in output.splitlines() if line}


def members_with_our_names(archive):
    """{member: a name it defines} for the members that hold names of CPython or ours."""
    chosen = {}
    for line in must(["nm", "-A", "--defined-only", "-g", archive]).splitlines():
        place, _, symbol = line.rpartition(" ")
        if OURS.match(symbol) and " " in place:
            chosen.setdefault(place.split(":")[1], symbol)
    return chosen


def split_archive(archive, folder):
    """Cut CPython's archive in two: (all members but obmalloc.o, obmalloc.o).

    The cut parts are kept in `folder` until the archive is newer.
    """
    rest = os.path.join(folder, "rest.a")
    single = os.path.join(folder, "obmalloc.o")
    if all(os.path.exists(part) and os.path.getmtime(part) > os.path.getmtime(archive)
           for part in (rest, single)):
        return rest, single
    os.makedirs(folder, exist_ok=True)
    members = must(["ar", "t", archive]).split()
    if members.count("obmalloc.o") != 1:
        raise Refusal("%s has %d members called obmalloc.o, not one: it was not built "
                      "by CPython's own Makefile" % (archive, members.count("obmalloc.o")))
    new = ".%d" % os.getpid()   # another relink.py may be at work here
    with open(single + new, "wb") as stream:
        subprocess.run(["ar", "p", archive, "obmalloc.o"], stdout=stream, check=True)
    try:
        check_object(archive, single + new)
    except Refusal:
        os.remove(single + new)
        raise
    shutil.copyfile(archive, rest + new)
    must(["ar", "d", rest + new, "obmalloc.o"])
    for part in (rest, single):
        os.replace(part + new, part)
    return rest, single


def check_object(archive, path):
    """Only machine code can be linked with other machine code.

    readelf shows what the file has; nm would let a compiler's plugin add names to it.
    """
    symbols = run(["readelf", "-sW", path]).stdout
    if not re.search(r" FUNC +GLOBAL .* PyObject_Malloc$", symbols, re.MULTILINE):
        raise Refusal("%s holds no machine code of its own, only a compiler's notes for "
                      "link-time optimisation: rebuild this Python without --with-lto, "
                      "or with -ffat-lto-objects" % archive)
