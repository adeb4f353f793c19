#!/usr/bin/env python3
"""What c_tests/Makefile calls: runs the cases of a program, one line for each, and compares facts.

    run.py cases PROGRAM WAY BINARY [REASON]    REASON: the program cannot run in this way
    run.py header NAME INCLUDE                  obmalloc.h beside INCLUDE/Python.h, or alone
    run.py end                                  the failures again, as a log may be cut, and counts
"""

import contextlib
import difflib
import fnmatch
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = os.environ["RESULTS"]
MOST = 40                       # lines of one failure
SKIPPED = 77                    # exit status, as in harness.h
RUNNER = os.environ.get("RUNNER", "").split()   # the words before a program of another machine
HEADERS = {"C11": ("CC", "c", "-std=c11"), "C++17": ("CXX", "c++", "-std=c++17")}


def report(name, way, result, details="", took=None, alone=None):
    """Prints one line, below it the details, and keeps both for `end`."""
    lines = [line for line in details.splitlines() if line.strip()]
    lines[MOST:] = [f"... and {len(lines) - MOST} more lines"] if len(lines) > MOST else []
    if result == "FAILED":
        lines.append(f"alone: make -C c_tests {alone}")
    text = f"{name:42} {way:8} {result}" + (f"  {took:5.1f} s" if took is not None else "")
    text = "\n    ".join([text, *lines])
    print(text, flush=True)
    Path(RESULTS, name.replace("/", "-") + "." + way).write_text(json.dumps([result, text]))


def run(command, timeout, env=None, text=None):
    """(exit status or the reason why there is none, stdout, stderr) of a new process group."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE if text else subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env,
                               start_new_session=True, cwd=ROOT)
    try:
        out, err = process.communicate(text, timeout=timeout)
        status = process.returncode
        status = status if status >= 0 else f"ended by {signal.Signals(-status).name}"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        status = f"no end after {timeout} s"
    return status, out.decode(errors="replace"), err.decode(errors="replace")


def environment(way):
    env = {key: value for key, value in os.environ.items()
           if not key.startswith(("PYTHON", "OBMALLOC_", "LD_", "MAKE", "TEST_"))}
    library, home = env.pop("SO"), {"PYTHONHOME": env.get("HOST_PREFIX", "")}
    if RUNNER:
        env["TEST_RUNNER"] = " ".join(RUNNER)
    env["TEST_SLOWNESS"] = env.get("SLOWNESS") or "1"
    if env.get("PROFILE"):
        env["OBMALLOC_PROFILE"] = env["PROFILE"]
    all_pools = {"OBMALLOC_POOL_MAX": "32768"}     # elsewhere the limit rises with the program
    return {**env, **{"so": all_pools,
                      "pre": {"LD_PRELOAD": library},
                      "dl": {"C_TEST_LIBRARY": library},
                      "tsan": {"TSAN_OPTIONS": "die_after_fork=0 exitcode=66"},
                      # Annotations would report the mistakes that some cases make on purpose.
                      "valgrind": {**all_pools, "OBMALLOC_TOOL_ANNOTATIONS": "0"},
                      "host": home, "in": home}.get(way, {})}


def run_case(program, case, way, binary):
    """(result, details, the way whose facts differ)"""
    if os.environ.get("EMULATED") and (reason := emulated(f"{program}/{case}", way)):
        return f"skip: emulated: {reason}", "", way
    valgrind = ["valgrind", "--error-exitcode=99", "-q"] if way == "valgrind" else []
    timeout = int(os.environ["TIMEOUT"]) * (4 if way in ("tsan", "valgrind") else 1)
    status, out, err = run([*valgrind, *RUNNER, binary, case], timeout, environment(way))
    if way == "tsan" and "ThreadSanitizer" in err:
        status = "ThreadSanitizer found something"
    if os.environ.get("VERBOSE"):
        print(err, end="", flush=True)
    if status == SKIPPED:
        return "skip: " + err.strip().splitlines()[-1], "", way
    if status != 0:
        # Failed checks first, because only the first lines are shown.
        lines = [line for line in out.splitlines() if "FAILED" in line] + err.splitlines()
        lines.sort(key=lambda line: "FAILED" not in line and ": not true: " not in line)
        status = status if isinstance(status, str) else f"exit status {status}"
        return "FAILED", "\n".join([status, *lines]), way
    measure, expected = first_facts(Path(RESULTS, "facts", program, case), way, out)
    both = expected.splitlines(), out.splitlines()
    difference = difflib.unified_diff(*both, measure, way, lineterm="", n=0)
    return "ok" if out == expected else "FAILED", "\n".join(difference), measure


def first_facts(path, way, out):
    """(way, facts) of the way that has run first, which is this one if there is no such file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    own = path.with_name(f"{path.name}.{way}")
    own.write_text(f"{way}\n{out}")
    with contextlib.suppress(FileExistsError):
        os.link(own, path)
    return path.read_text().split("\n", 1)


def emulated(name, way):
    """Why a case cannot pass under qemu's emulation of a process, or None."""
    for line in Path(__file__).with_name("emulated.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern, ways, reason = line.split(None, 2)
            if fnmatch.fnmatch(name, pattern) and (ways == "all" or way in ways.split(",")):
                return reason
    return None


def cases(program, way, binary, reason=None):
    if reason:
        return report(program, way, f"skip: {reason}")
    status, names, err = run([*RUNNER, binary, "--list"], 60, environment(way))
    if status != 0 or not names:
        return report(program, way, "FAILED", f"--list: {status}\n{err}", 0, f"CASE={program}")
    wanted = os.environ["CASE"].split()
    for case in names.split():
        name = f"{program}/{case}"
        if not wanted or program in wanted or any(fnmatch.fnmatch(name, w) for w in wanted):
            began = time.monotonic()
            result, details, measure = run_case(program, case, way, binary)
            ways = shlex.quote(" ".join(sorted({measure, way})))
            report(name, way, result, details, time.monotonic() - began, f"CASE={name} WAYS={ways}")


def header(label, include):
    """Compiles both orders. Python.h is a system header, because its warnings do not matter."""
    ours, theirs = '#include "obmalloc.h"\n', "#include <Python.h>\n"
    orders = [theirs + ours, ours + theirs] if include else [ours, ours + ours]
    for language, (compiler, suffix, standard) in HEADERS.items():
        if not shutil.which(os.environ[compiler].split()[0]):
            report(f"header/{label}", language, f"skip: no {os.environ[compiler]}")
            continue
        command = [*os.environ[compiler].split(), "-x", suffix, standard, "-Wall", "-Wextra",
                   "-Wpedantic", "-Werror", "-fsyntax-only", "-I", str(ROOT / "include"),
                   *(["-isystem", include] if include else []), "-"]
        wrong = ""
        for order in orders:
            status, _, err = run(command, 120, text=(order + "extern int not_empty;\n").encode())
            wrong += "" if status == 0 else f"{order}{err}"
        report(f"header/{label}", language, "FAILED" if wrong else "ok", wrong,
               alone=f"CASE=header/{label} WAYS=header")


def end():
    results = [json.loads(path.read_text()) for path in sorted(Path(RESULTS).glob("*.*"))]
    failures = [text for result, text in results if result == "FAILED"]
    passed = sum(result == "ok" for result, _ in results)
    skipped = len(results) - passed - len(failures)
    if failures:
        print("\n".join(["what failed, again:", *failures]))
    if not results:
        print("no such case: " + os.environ["CASE"])
    print(f"{passed} passed, {len(failures)} failed, {skipped} skipped")
    sys.exit(1 if failures or not passed else 0)


if __name__ == "__main__":
    {"cases": cases, "header": header, "end": end}[sys.argv[1]](*sys.argv[2:])
