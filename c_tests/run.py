#!/usr/bin/env python3
"""What c_tests/Makefile calls: runs the cases of a program, one line for each, and compares facts.

    run.py cases PROGRAM WAY MEASURE (BINARY | --skip REASON)
    run.py header NAME INCLUDE          obmalloc.h beside the Python.h in that folder, or alone
    run.py end                          the failures once more, since a log may be cut, and counts
    run.py interpreters HOST ARCHIVE    the interpreters found, as variables of make
"""

import difflib
import fnmatch
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MOST = 40                       # lines of one failure
SKIPPED = 77                    # exit status, as in harness.h
HEADERS = {"C11": ("CC", "c", "-std=c11"), "C++17": ("CXX", "c++", "-std=c++17")}


def report(name, way, result, details="", took=None, alone=None):
    """Prints one line, below it the details, and keeps both for `end`."""
    lines = [line for line in details.splitlines() if line.strip()]
    if len(lines) > MOST:
        lines[MOST:] = [f"... and {len(lines) - MOST} more lines"]
    if result == "FAILED" and alone:
        lines.append(f"alone: make -C c_tests {alone}")
    text = f"{name:42} {way:8} {result}" + (f"  {took:5.1f} s" if took is not None else "")
    print("\n".join([text, *("    " + line for line in lines)]), flush=True)
    with open(Path(os.environ["RESULTS"], name.replace("/", "-") + "." + way), "w") as file:
        json.dump([result, "\n".join([text, *("    " + line for line in lines)])], file)


def run(command, timeout, env=None, text=None):
    """(status, stdout, stderr); a string as status says why there is none. The command has a
    process group of its own, which ends with it."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL if text is None else subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env,
                               start_new_session=True, cwd=ROOT)
    try:
        out, err = process.communicate(text, timeout=timeout)
        status = process.returncode
        if status < 0:
            status = f"ended by {signal.Signals(-status).name}"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        status = f"no end after {timeout} s"
    return status, out.decode(errors="replace"), err.decode(errors="replace")


def environment(way):
    env = {key: value for key, value in os.environ.items()
           if not key.startswith(("PYTHON", "OBMALLOC_", "LD_", "MAKE", "TEST_"))}
    library = env.pop("SO")
    more = {"so": {"OBMALLOC_SMALL_MAX": "32768"},  # elsewhere it rises with the program
            "pre": {"LD_PRELOAD": library},
            "dl": {"C_TEST_LIBRARY": library},
            "tsan": {"TSAN_OPTIONS": "die_after_fork=0 exitcode=66"},
            "host": {"PYTHONHOME": os.environ.get("HOST_PREFIX", "")}}
    more["in"] = more["host"]
    # Without annotations, which report what some cases do on purpose, valgrind sees the arenas whole.
    more["valgrind"] = {**more["so"], "OBMALLOC_TOOLS": "0"}
    return {**env, **more.get(way, {})}


def run_case(program, case, way, binary, measure):
    """(result, details)"""
    slow = 4 if way in ("tsan", "valgrind") else 1
    tool = ["valgrind", "--error-exitcode=99", "-q"] if way == "valgrind" else []
    status, out, err = run([*tool, binary, case], int(os.environ["TIMEOUT"]) * slow, environment(way))
    if way == "tsan" and "ThreadSanitizer" in err:
        status = "ThreadSanitizer found something"
    if os.environ.get("VERBOSE"):
        print(err, end="", flush=True)
    if status == SKIPPED:
        return "skip: " + err.strip().splitlines()[-1], ""
    if status != 0:
        # Failed checks first, because only the first lines are shown.
        failed = [line for line in out.splitlines() if "FAILED" in line]
        failed += [line for line in err.splitlines() if ": not true: " in line]
        rest = [line for line in err.splitlines() if line not in failed]
        return "FAILED", "\n".join([status if isinstance(status, str) else f"exit status {status}",
                                    *failed, *rest])
    facts = Path(os.environ["RESULTS"], "facts", program, case)
    try:
        expected = facts.read_text()
    except OSError:
        if way == measure:
            facts.parent.mkdir(parents=True, exist_ok=True)
            facts.write_text(out)
        return "ok", ""
    difference = "\n".join(difflib.unified_diff(expected.splitlines(), out.splitlines(), measure, way,
                                                lineterm="", n=0))
    return "FAILED" if difference else "ok", difference


def cases(program, way, measure, binary, reason=None):
    if reason:
        return report(program, way, f"skip: {reason}")
    wanted = os.environ["CASE"].split()
    for case in run([binary, "--list"], 60, environment(way))[1].split():
        name = f"{program}/{case}"
        if wanted and program not in wanted and not any(fnmatch.fnmatch(name, w) for w in wanted):
            continue
        began = time.monotonic()
        result, details = run_case(program, case, way, binary, measure)
        report(name, way, result, details, time.monotonic() - began,
               f"CASE={name} WAYS={shlex.quote(' '.join(sorted({measure, way})))}")


def header(label, include):
    """Python.h is not ours to warn about, so it is a system header."""
    ours, theirs = '#include "obmalloc.h"\n', "#include <Python.h>\n"
    orders = [theirs + ours, ours + theirs] if include else [ours, ours + ours]
    for language, (compiler, suffix, standard) in HEADERS.items():
        command = [os.environ[compiler], "-x", suffix, standard, "-Wall", "-Wextra", "-Wpedantic",
                   "-Werror", "-fsyntax-only", "-I", str(ROOT / "include"),
                   *(["-isystem", include] if include else []), "-"]
        wrong = ""
        for order in orders:
            status, _, err = run(command, 120, text=(order + "extern int not_empty;\n").encode())
            wrong += "" if status == 0 else f"{order}{err}"
        report(f"header/{label}", language, "FAILED" if wrong else "ok", wrong,
               alone=f"CASE=header/{label} WAYS=header")


def interpreters(host, archive):
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "relink")]
    import ask
    import objects
    from support import interpreters as found
    pythons = found.find()
    hosts = [python for python in pythons if python.embeddable and python.matches(host)]
    hosts = (hosts or [python for python in pythons if python.embeddable])[:1]
    if not hosts:
        print("MISSING_host := no shared libpython >= 3.7.4 found\nMISSING_in = $(MISSING_host)")
    for python in hosts:
        print(f"HOST_NAME := {python.name}\nHOST_PREFIX := {python.prefix}")
        print(f"HOST_FLAGS := -DHOST_CPYTHON -isystem {python.include}")
        print(f"LINK_host := -L{python.libdir} -Wl,-rpath,{python.libdir} -lpython{python.ldversion} -lm")
        try:
            build = ask.ask(python.executable)
            ask.check_usable(build)
            rest, _ = objects.split_archive(build.archive, str(ROOT / "target/relink/build" / build.version))
            words = " ".join(build.text(name) for name in ("LIBS", "MODLIBS", "SYSLIBS", "LIBM"))
            print(f"LINK_in := -Wl,-u,PyMem_SetupDebugHooks {archive} -Wl,--whole-archive {rest} "
                  f"-Wl,--no-whole-archive {words} -lutil -Wl,-export-dynamic")
        except ask.Refusal as refusal:
            print("MISSING_in := " + str(refusal).replace("#", "").replace("$", ""))
    for python in pythons:
        if python.headers:
            print(f"HEADERS += {python.name}\nINCLUDE_{python.name} := {python.include}")


def end():
    results = [json.loads(path.read_text()) for path in sorted(Path(os.environ["RESULTS"]).iterdir())
               if path.is_file()]
    failures = [text for result, text in results if result == "FAILED"]
    if failures:
        print("\n".join(["what failed, again:", *failures]))
    if not results:
        print("no such case: " + os.environ["CASE"])
    passed = sum(result == "ok" for result, _ in results)
    print(f"{passed} passed, {len(failures)} failed, {len(results) - passed - len(failures)} skipped")
    sys.exit(1 if failures or not passed else 0)


if __name__ == "__main__":
    arguments = [word for word in sys.argv[2:] if word != "--skip"]
    if "--skip" in sys.argv:
        arguments.insert(-1, None)
    globals()[sys.argv[1]](*arguments)
