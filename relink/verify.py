"""Look at a relinked interpreter, and run it: used by relink.py.

Each check returns a list of complaints; none means that all is well.
"""

import glob
import os
import re
import subprocess

import objects

ACTIVE = re.compile(r"obmalloc: active in pid \d+: .*")
MARK = "obmalloc_version"


def run(binary, code, **settings):
    """Run code in the binary, in an environment that steers nothing."""
    environment = {key: value for key, value in os.environ.items()
                   if not key.startswith(("PYTHON", "OBMALLOC_"))
                   and key not in ("LD_PRELOAD", "LD_LIBRARY_PATH")}
    environment.update(settings)
    try:
        return subprocess.run([binary, "-c", code], env=environment, timeout=60,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, universal_newlines=True,
                              errors="replace")
    except (OSError, subprocess.TimeoutExpired) as problem:
        return subprocess.CompletedProcess([], type(problem).__name__, "", "")


def last_line(text):
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "nothing on stderr"


def starts(host, binary, prefix):
    """It starts, is the version it should be, and finds its library from here."""
    result = run(binary, "import sys; sys.stdout.write('%d.%d.%d\\n%s' "
                         "% (sys.version_info[:3] + (sys.prefix,)))")
    if result.returncode != 0:
        return ["does not start (status %s): %s"
                % (result.returncode, last_line(result.stderr))]
    version, _, found = result.stdout.partition("\n")
    if version != host.version:
        return ["is Python %s and should be %s" % (version, host.version)]
    if os.path.realpath(found) != os.path.realpath(prefix):
        return ["takes %s for its prefix and should take %s" % (found, prefix)]
    return []


def uses_modules(binary):
    """Extension modules load, with every name that they ask for."""
    code = ("import _json, math, struct, json, decimal\n"
            "try:\n import _testcapi\nexcept ImportError: pass\n"
            "assert json.loads('[1, 2.5]') == [1, 2.5]\n")
    result = run(binary, code, LD_BIND_NOW="1")
    if result.returncode == 0:
        return []
    return ["extension modules do not load (status %s): %s"
            % (result.returncode, last_line(result.stderr))]


def asked_by_modules(host):
    """The names that the installed extension modules expect from the interpreter."""
    names = set()
    for path in glob.glob(os.path.join(host.text("DESTSHARED"), "*.so")):
        names |= objects.undefined_dynamic(path)
    return names


def names_are_there(host, binary, replaced):
    """Nothing that obmalloc.o gave to extension modules may be missing."""
    exported = objects.defined(binary, dynamic=True)
    public = {name for name in objects.defined(host.exporter, dynamic=True)
              if name.startswith("Py")}
    needed = (asked_by_modules(host) | public) & set(objects.defined(replaced))
    missing = sorted(needed - set(exported))
    return ["does not export what extension modules ask for: " + " ".join(missing)
            ] if missing else []


def carries_mark(binary, wanted):
    """The allocator in the file is the one it was to be linked with."""
    there = MARK in objects.defined(binary, dynamic=True)
    if there == wanted:
        return []
    return ["has %s, so this is not CPython's own allocator" % MARK if there else
            "has no %s, so libobmalloc.a was not linked in" % MARK]


def active_line(binary):
    """The line by which the library says that it serves this process, or ""."""
    result = run(binary, "pass", OBMALLOC_VERBOSE="1")
    for line in result.stderr.splitlines():
        if ACTIVE.match(line):
            return line
    return ""


def is_active(binary):
    """The library really serves the process: it says so itself, on request."""
    if active_line(binary):
        return []
    return ["with OBMALLOC_VERBOSE=1 stderr has no line `obmalloc: active in pid ...`: "
            "the library is linked in and does not serve; see OBMALLOC_VERBOSE in "
            "README.md, and run it by hand"]


def complaints(host, binary, prefix, replaced, stock):
    """All that is wrong with the interpreter linked to `binary`."""
    found = starts(host, binary, prefix)
    if found:
        return found
    found += uses_modules(binary)
    found += names_are_there(host, binary, replaced)
    found += carries_mark(binary, wanted=not stock)
    if not stock:
        found += is_active(binary)
    return found
