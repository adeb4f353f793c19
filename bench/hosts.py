"""The library that is measured, the interpreters, and the proof that it is active in them.

Without that proof, a library that does nothing would be measured as a ratio of 1.000.
"""

import argparse
import hashlib
import os
import shlex
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
PROGRAMS = os.path.join(HERE, "programs")
TARGET = os.path.join(ROOT, os.environ.get("CARGO_TARGET_DIR") or "target")
BUILD = os.path.join(TARGET, "bench")
RELEASE = os.path.join(TARGET, os.environ.get("CARGO_BUILD_TARGET", ""), "release")
LIBRARY = os.path.join(RELEASE, "libobmalloc.so")
ACTIVE = "obmalloc: active in pid"
sys.path.append(os.path.join(ROOT, "tests"))

from support import interpreters  # noqa: E402
from support.child import clean_environment  # noqa: E402, F401

_fingerprints = {}      # {path of a file: its fingerprint when the measurement began}


def stop(message):
    """Prints the reason of a failure and exits."""
    print("failed: %s" % message, flush=True)
    sys.exit(1)


def fingerprint(path):
    """Changes when the file is written again, even with the same content."""
    with open(path, "rb") as stream:
        about = os.fstat(stream.fileno())
        return about.st_ino, about.st_mtime_ns, hashlib.sha256(stream.read()).hexdigest()


def watch(path):
    """`finish` fails if this file is written again before the measurement ends."""
    _fingerprints[path] = fingerprint(path)


def library(path=None):
    """Sets the library that is measured; exits if it is not built."""
    global LIBRARY
    LIBRARY = os.path.abspath(path or LIBRARY)
    if not os.path.isfile(LIBRARY):
        stop("%s does not exist; run make" % os.path.relpath(LIBRARY, ROOT))
    watch(LIBRARY)
    return LIBRARY


def finish(complaints, praise):
    """Prints the last lines and returns the exit status."""
    complaints = complaints + [
        "%s was written during the measurement" % os.path.basename(path)
        for path, before in _fingerprints.items()
        if not os.path.isfile(path) or fingerprint(path) != before]
    print("\n".join("failed: " + text for text in complaints) or "ok: " + praise, flush=True)
    return 1 if complaints else 0


def name(python):
    """As tables and results have it: 3.11.7 shared."""
    return "%s %s" % (python.version, "shared" if python.shared else "static")


def status_line(argv, environment):
    """The line that an active library prints in such a process, None without it."""
    result = subprocess.run(list(argv) + ["-c", "pass"], stdin=subprocess.DEVNULL,
                            env=dict(environment, OBMALLOC_VERBOSE="1"),
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                            universal_newlines=True)
    return next((line for line in result.stderr.splitlines() if line.startswith(ACTIVE)), None)


def has_symbol(path, environment, symbol):
    """Whether a process of an interpreter finds this symbol."""
    code = "import ctypes, sys; getattr(ctypes.CDLL(None), sys.argv[1])"
    return subprocess.run([path, "-c", code, symbol], env=environment, stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def active(python):
    return status_line([python.path], dict(clean_environment(), LD_PRELOAD=LIBRARY))


def choose(wishes):
    """The interpreters of a comma-separated list: versions, `distribution`, paths."""
    chosen = []
    for wish in filter(None, wishes.split(",")):
        found = [one for one in interpreters.select(wish) if one.numbers[0] == 3]
        # A version means a build of python.org's sources where there is one.
        found = [one for one in found if not one.distribution] or found
        if not found:
            print("skip: %s: no such interpreter here" % wish)
        elif active(found[-1]) is None:
            stop("the library is not active in %s; OBMALLOC_VERBOSE=1 prints the reason" % wish)
        elif found[-1] not in chosen:
            chosen.append(found[-1])
    return chosen


def compile_c(title, arguments):
    """Runs the C compiler; exits with its first message if it fails."""
    command = [os.environ.get("CC", "cc")] + arguments
    try:
        result = subprocess.run(command, stderr=subprocess.PIPE, universal_newlines=True)
    except OSError:
        stop("no C compiler: %s" % command[0])
    if result.returncode != 0:
        stop("%s does not build: %s" % (title, (result.stderr.splitlines() or [""])[0]))


def program(name):
    """The path of a program of bench/programs."""
    return os.path.join(PROGRAMS, name + ".py")


def command_line():
    """The running command as it is typed in the root of the sources, without --library."""
    words = sys.argv[1:]
    if "--library" in words:
        at = words.index("--library")
        words = words[:at] + words[at + 2:]
    return shlex.join([os.path.relpath(os.path.realpath(sys.argv[0]), ROOT)] + words)


def parser(text):
    result = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--library", metavar="PATH", help="another libobmalloc.so, for instance a "
                        "copy that builds do not replace (target/release's)")
    return result


def table(heading, rows):
    """Prints columns: the first one to the left, the others to the right."""
    lines = [[str(cell) for cell in row] for row in [heading] + rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heading))]
    for line in lines:
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:])]
        print("  " + "  ".join(cells).rstrip())
    sys.stdout.flush()
