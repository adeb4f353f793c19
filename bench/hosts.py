"""Where the measurements take place: the interpreters, and the library in them.

The interpreters are found the way the comparison of CPython's own test suite finds
them (interpreters.py); here is only the choice among them, what each
one is called in the tables (its version, and whether libpython is a shared library or
inside the executable: the two reach the library by different ways), and the proof that
the library is active before anything is measured. Without that proof a library that
does nothing would come out with a ratio of 1.000.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass

import pairs

HERE = pairs.HERE
ROOT = pairs.ROOT
PROGRAMS = os.path.join(HERE, "programs")
BUILD = os.path.join(ROOT, "target", "bench")
# Where cargo builds.
RELEASE = os.path.join(os.environ.get("CARGO_TARGET_DIR") or os.path.join(ROOT, "target"),
                       os.environ.get("CARGO_BUILD_TARGET", ""), "release")
LIBRARY = os.path.join(RELEASE, "libobmalloc.so")

import interpreters  # noqa: E402


def clean_environment():
    """This process's environment without anything that steers either side."""
    return {name: value for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "OBMALLOC_")) and name != "LD_PRELOAD"}


ASK = """
import json, os, sys
with open("/proc/self/maps") as maps:   # sysconfig says how libpython was built, not this
    shared = "/libpython3." in maps.read()
print(json.dumps({"path": os.path.realpath(sys.executable),
                  "version": "%d.%d.%d" % sys.version_info[:3],
                  "cpython": sys.implementation.name == "cpython",
                  "shared": shared}))
"""


@dataclass
class Host:
    """An interpreter of CPython 3."""
    path: str
    version: str
    cpython: bool
    shared: bool

    @property
    def name(self):
        return "%s %s" % (self.version, "shared" if self.shared else "static")


def stop(message):
    """The one clear line of a failure, and the end."""
    print("failed: %s" % message, flush=True)
    sys.exit(1)


def ask(path):
    """The Host behind a path (which may be a shim of pyenv's), None if there is none."""
    try:
        result = subprocess.run([path, "-c", ASK], env=clean_environment(), timeout=60,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.DEVNULL)
        return Host(**json.loads(result.stdout.decode()))
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


_seen = {}      # {path of a library: its fingerprint when the measurement began}


def fingerprint(path):
    """Changes when the file is written again, be it with the same."""
    with open(path, "rb") as stream:
        about = os.fstat(stream.fileno())
        return about.st_ino, about.st_mtime_ns, hashlib.sha256(stream.read()).hexdigest()


def library(path=None):
    """The library that is measured from now on; the end when it is not built."""
    global LIBRARY
    LIBRARY = os.path.abspath(path or LIBRARY)
    if not os.path.isfile(LIBRARY):
        stop("%s is not there; build it: cargo build --release"
             % os.path.relpath(LIBRARY, ROOT))
    _seen[LIBRARY] = fingerprint(LIBRARY)
    return LIBRARY


def finish(complaints, praise):
    """The last lines, and the exit status.

    A library that was built anew meanwhile is a complaint as well: the numbers are of
    neither the old nor the new one.
    """
    for path, before in _seen.items():
        if not os.path.isfile(path) or fingerprint(path) != before:
            complaints = complaints + ["the library was built anew during the measurement"]
    for complaint in complaints:
        print("failed: " + complaint)
    if not complaints:
        print("ok: " + praise)
    sys.stdout.flush()
    return 1 if complaints else 0


def active(host):
    """The line that the library prints in this interpreter, None if it is not active."""
    return interpreters.proof_of_activity(host, clean_environment(), LIBRARY)


def choose(wishes):
    """The Hosts wished for; says which are missing.

    A wish is a version such as 3.11, "newest" (of all 3.x), "distribution", or a path.
    """
    names = [wish for wish in wishes.split(",") if wish]
    found, _ = interpreters.find("all" if "newest" in names else wishes, [], clean_environment())
    hosts = []
    for name in names:
        host = pick(name, found)
        if host is None:
            print("skip: %s: no such interpreter here" % name)
        elif active(host) is None:
            stop("%s: the library is not active in %s; OBMALLOC_VERBOSE=1 says why"
                 % (name, host.name))
        elif host not in hosts:
            hosts.append(host)
    if not hosts:
        stop("no interpreter found for %s" % wishes)
    return hosts


def pick(name, found):
    """The interpreter of these that a wish means; they come sorted by version."""
    if "/" in name:
        return ask(name)
    own = [one for one in found if "(distribution)" in one.label]
    others = [one for one in found if one not in own and one.order[0] == 3]
    if name == "distribution":
        fitting = own
    elif name == "newest":
        fitting = others
    else:
        fitting = [one for one in others if (one.version + ".").startswith(name + ".")]
    return ask(fitting[-1].path) if fitting else None


def compile_c(name, arguments):
    """Has the C compiler do what the arguments say; the end, with a line about `name`, if it
    cannot. Returns nothing."""
    command = [os.environ.get("CC", "cc")] + arguments
    try:
        result = subprocess.run(command, stderr=subprocess.PIPE, universal_newlines=True)
    except OSError:
        stop("no C compiler: %s" % command[0])
    if result.returncode != 0:
        stop("%s does not build: %s" % (name, (result.stderr.splitlines() or [""])[0]))


def program(name):
    """The path of one of the programs."""
    return os.path.join(PROGRAMS, name + ".py")


def sides(host, arguments, **more):
    """Stock and with the library: what pairs.alternate takes."""
    stock = dict(clean_environment(), **more)
    return [([host.path] + list(arguments), environment)
            for environment in (stock, dict(stock, LD_PRELOAD=LIBRARY))]


def compare(host, arguments, count, **more):
    """Runs of an interpreter in pairs: stock, with the library; same output required."""
    try:
        runs = pairs.alternate(sides(host, arguments, **more), count)
    except pairs.Failed as problem:
        stop("%s: %s" % (host.name, problem))
    return runs


def setting(text):
    """(name, {variable: value}) of a side that --side asks for."""
    name, _, settings = text.partition(":")
    settings = [setting.partition("=") for setting in settings.split(",")]
    if not name or not all(variable and value for variable, _, value in settings):
        stop("a side is NAME:VARIABLE=VALUE,..., not %s" % text)
    return name, {variable: value for variable, _, value in settings}


def parser(text, wishes=None):
    """What the command lines of all these scripts have in common."""
    result = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--library", metavar="PATH", help="another libobmalloc.so, such as a copy "
                        "that no build replaces meanwhile (target/release's)")
    if wishes:
        result.add_argument("--interpreters", default=wishes, metavar="LIST",
                            help="versions, newest, distribution, or paths (%(default)s)")
    return result
