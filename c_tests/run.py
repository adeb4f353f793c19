#!/usr/bin/env python3
"""Builds and runs the C tests, each program in several ways.

    so      linked against libobmalloc.so
    a       linked against libobmalloc.a
    pre     linked against nothing, with LD_PRELOAD=libobmalloc.so
    host    without our library: on the functions of a real CPython
    in      the same CPython, linked with libobmalloc.a in place of its obmalloc.o
    dl      linked against nothing, opens the library itself
    header  include/obmalloc.h compiles, alone and beside every Python.h found
    tsan    with ThreadSanitizer in the library and in the program (only if asked for:
            `--ways tsan` builds a library of its own, for which it takes a nightly rustc)

A program prints facts on stdout; those of its ways must be the same, line by
line, and the host's are the measure. A first comment line `/* ways: so a pre`
in a C file names its ways; without it they are so, a, pre and host. Where there
is host, there is in.

    c_tests/run.py [--only NAME]... [--ways so,host] [--valgrind] ...
"""

import argparse
import difflib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
# Where cargo builds.
RELEASE = (Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
           / os.environ.get("CARGO_BUILD_TARGET", "") / "release")
sys.path.insert(0, str(ROOT / "relink"))
import ask
import objects

WAYS = ("so", "a", "pre", "host", "in", "dl", "header")
DEFAULT_WAYS = ["so", "a", "pre", "host"]
FLAGS = ["-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Werror"]
LIBRARIES = ["-lpthread", "-ldl"]
SONAME = "libobmalloc.so.0"

# Single-threaded and quick even twenty times slower. Left out on purpose:
# limits on memory, threads, faults and aborts, and megabytes of patterns.
VALGRIND = ["alignment_and_zero", "constructor", "debug_layout", "debug_stats", "domains",
            "foreign", "foreign_raw", "install", "overflow", "realloc_chains", "stats_json",
            "tables", "tables_early", "tables_flow"]

# Threads that ThreadSanitizer can follow. Left out: threads that allocate when the
# sanitizer's own end of the thread has come (thread_exit, thread_leftovers), threads
# in the child of a threaded process (fork_threads, fork_leftovers), and what measures
# memory, of which the sanitizer takes more (trim, decay, forty_threads).
TSAN = ["fork_handlers", "fork_storm", "lanes", "races", "tables_threads", "thread_churn",
        "threads_handover"]
TSAN_TARGET = "x86_64-unknown-linux-gnu"
TSAN_FLAGS = "-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer"

HEADER_CHECKS = {  # name: (compiler, suffix, standard)
    "C11": ("cc", "c", "-std=c11"),
    "C++17": ("c++", "cpp", "-std=c++17"),
}


class Report:
    """One line for each program and way; complaints below it. What failed is said again
    at the end, since a log may be cut at its beginning."""

    most = 25  # lines of complaints for one failure

    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.lock = threading.Lock()
        self.failures = []  # as they were printed

    def line(self, name, way, result, details="", seconds=None):
        with self.lock:
            if result == "ok":
                self.passed += 1
            elif result == "FAILED":
                self.failed += 1
            else:
                self.skipped += 1
            took = f"  {seconds:5.1f} s" if seconds is not None else ""
            lines = [line for line in details.splitlines() if line.strip()]
            said = [f"{name:28} {way:9} {result}{took}"]
            said += [f"    {text}" for text in lines[:self.most]]
            if len(lines) > self.most:
                said.append(f"    ... and {len(lines) - self.most} lines more")
            print("\n".join(said), flush=True)
            if result == "FAILED":
                self.failures.append("\n".join(said))

    def end(self):
        """The failures once more, and the counts."""
        if self.failures:
            print("\n".join(["what failed, again:"] + self.failures))
        print(f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped")


def run(command, timeout=60, env=None):
    """(status, stdout, stderr); a status that is a string says what happened.

    The command gets a process group of its own, so that children it left
    behind end with it.
    """
    process = subprocess.Popen(
        [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env=env, start_new_session=True, cwd=str(ROOT))
    try:
        out, err = process.communicate(timeout=timeout)
        status = process.returncode
        if status < 0:
            status = f"ended by {signal.Signals(-status).name}"
    except subprocess.TimeoutExpired:
        status = f"no end after {timeout} s"
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
    return status, out.decode(errors="replace"), err.decode(errors="replace")


# ---- the Pythons of this machine ----

def describe(python):
    """What sysconfig of an interpreter says, None if it cannot be asked."""
    code = ("import sys, sysconfig, json; v = sysconfig.get_config_var; print(json.dumps(dict("
            "version=list(sys.version_info[:3]), prefix=sys.prefix, executable=sys.executable, "
            "include=sysconfig.get_paths()['include'], libdir=v('LIBDIR'), "
            "shared=bool(v('Py_ENABLE_SHARED')), ldversion=v('LDVERSION') or v('VERSION'), "
            "free_threaded=bool(v('Py_GIL_DISABLED')))))")
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    try:
        status, out, _ = run([python, "-c", code], env=env)
    except OSError:
        return None
    return json.loads(out) if status == 0 else None


def find_pythons():
    """All of pyenv's, 3.11 first, then the distribution's."""
    found = []
    if shutil.which("pyenv"):
        for name in run(["pyenv", "versions", "--bare"])[1].split():
            prefix = run(["pyenv", "prefix", name])[1].strip()
            found.append((name, f"{prefix}/bin/python"))
    found.sort(key=lambda item: not item[0].startswith("3.11"))
    found.append(("/usr", "/usr/bin/python3"))
    pythons = [(name, describe(path)) for name, path in found]
    return [(name, python) for name, python in pythons if python]


def can_host(python):
    """RAW functions and blocks aligned to 16 came with 3.7.4."""
    library = Path(python["libdir"] or "/", f"libpython{python['ldversion']}.so")
    return (tuple(python["version"]) >= (3, 7, 4) and python["shared"] and library.exists()
            and not python["free_threaded"] and Path(python["include"], "Python.h").exists())


def host_flags(python):
    compile_flags = ["-DHOST_CPYTHON", "-isystem", python["include"]]
    link_flags = [f"-L{python['libdir']}", f"-Wl,-rpath,{python['libdir']}",
                  f"-lpython{python['ldversion']}", "-lm"]
    return compile_flags, link_flags


def in_flags(python, archive):
    """To link a program with that CPython's objects, and ours for one of them.
    Raises Refusal where that cannot be done."""
    if python is None:
        raise ask.Refusal("no host")
    host = ask.ask(python["executable"])
    ask.check_usable(host)
    rest, _ = objects.split_archive(host.archive, str(ROOT / "target/relink/build" / host.version))
    libraries = [word for name in ("LIBS", "MODLIBS", "SYSLIBS", "LIBM")
                 for word in host.text(name).split()]
    compile_flags, _ = host_flags(python)
    link_flags = ["-Wl,-u,PyMem_SetupDebugHooks", archive, "-Wl,--whole-archive", rest,
                  "-Wl,--no-whole-archive", *libraries, "-lutil", "-Wl,-export-dynamic"]
    return compile_flags, link_flags


# ---- ThreadSanitizer ----

def tsan_archive():
    return ROOT / "target/tsan" / TSAN_TARGET / "release/libobmalloc.a"


def prepare_tsan(options):
    """Builds the library for it; why that cannot be, None if it is there."""
    cargo = os.environ.get("CARGO", "cargo")
    try:
        if run([cargo, "+nightly", "--version"])[0] != 0:
            return "no nightly rustc"
    except OSError:
        return f"no {cargo}"
    empty = options.build_dir / "tsan-empty.c"
    empty.write_text("int main(void) { return 0; }\n")
    command = [options.cc, "-fsanitize=thread", empty, "-o", options.build_dir / "tsan-empty"]
    if run(command)[0] != 0:
        return f"{options.cc} has no ThreadSanitizer"
    status, out, err = run([options.build_dir / "tsan-empty"])
    if status != 0:
        return f"ThreadSanitizer does not run here: {err.strip().splitlines()[:1]}"
    status, out, err = run(
        [cargo, "+nightly", "build", "--quiet", "--release", "--lib", "--target", TSAN_TARGET,
         "--target-dir", ROOT / "target/tsan"], 900, {**os.environ, "RUSTFLAGS": TSAN_FLAGS})
    if status != 0:
        sys.exit(f"the library does not build with ThreadSanitizer:\n{out}{err}")
    return None


# ---- one program ----

class Program:
    def __init__(self, source, options, host, report):
        self.source, self.options, self.host, self.report = source, options, host, report
        self.name = source.stem
        first_line = source.read_text().splitlines()[0]
        ways = re.match(r"/\* ways:([\w ]+)", first_line)
        self.ways = ways.group(1).split() if ways else DEFAULT_WAYS
        if "host" in self.ways:
            self.ways = [*self.ways, "in"]
        self.ways = [way for way in self.ways if way != "tsan"]
        if self.name in TSAN:
            self.ways = [*self.ways, "tsan"]

    def shared(self):
        return self.options.library_dir / "libobmalloc.so"

    def missing(self, way):
        """Why this way cannot be run, None if it can."""
        if way == "host":
            return None if self.host else "no shared libpython >= 3.7.4 found"
        if way == "in" and isinstance(self.options.in_flags, ask.Refusal):
            return self.options.in_flags
        if way == "tsan":
            return self.options.tsan_missing
        library = "libobmalloc.a" if way in ("a", "in") else "libobmalloc.so"
        path = self.options.library_dir / library
        return None if path.exists() else f"no {path}"

    def build(self, way):
        """The program for one way, or what the compiler said."""
        directory = self.options.library_dir
        rpath = f"-Wl,-rpath,{directory}:{self.options.build_dir}/lib"
        compile_flags, link_flags = {
            "so": ([], [f"-L{directory}", rpath, "-l:libobmalloc.so"]),
            "a": ([], [directory / "libobmalloc.a"]),
            # -rdynamic, or ld resolves the unknown names to 0 once and for all
            "pre": ([], ["-rdynamic", "-Wl,--unresolved-symbols=ignore-all"]),
            "dl": ([], []),
            "host": host_flags(self.host) if way == "host" else None,
            "in": self.options.in_flags,
            "tsan": (["-fsanitize=thread", HERE / "tsan/calls.c"], [tsan_archive()]),
        }[way]
        program = self.options.build_dir / f"{self.name}-{way}"
        command = [self.options.cc, *FLAGS, "-I", self.options.include_dir, *compile_flags,
                   self.source, "-o", program, *link_flags, *LIBRARIES]
        status, out, err = run(command, timeout=120)
        return (program, None) if status == 0 else (None, out + err)

    def environment(self, way):
        env = {key: value for key, value in os.environ.items()
               if not key.startswith(("PYTHON", "OBMALLOC_", "LD_"))}
        env["C_TEST_LIBRARY"] = str(self.shared())
        if way != "dl":
            del env["C_TEST_LIBRARY"]
        if way == "so":  # the other ways keep the default, which rises with the program
            env["OBMALLOC_SMALL_MAX"] = "32768"
        if way == "pre":
            env["LD_PRELOAD"] = str(self.shared())
        if way == "tsan":  # children go on, and any report is a failure
            env["TSAN_OPTIONS"] = "die_after_fork=0 exitcode=66"
        if way in ("host", "in"):
            env["PYTHONHOME"] = self.host["prefix"]
        return env

    def try_way(self, way):
        """(what was printed, complaint); nothing printed if it cannot run."""
        program, complaint = self.build(way)
        if complaint:
            return None, complaint
        timeout = self.options.timeout * (4 if way == "tsan" else 1)
        status, out, err = run([program], timeout, self.environment(way))
        if way == "tsan" and "ThreadSanitizer" in err:
            status = "ThreadSanitizer has something to say"
        if status == 0:
            return out, None
        said = f"exit status {status}" if isinstance(status, int) else status
        # What failed comes first: only the first lines are shown.
        failed = [line for line in out.splitlines() if "FAILED" in line]
        failed += [line for line in err.splitlines() if ": not true: " in line]
        return None, "\n".join([said] + failed + [line for line in err.splitlines()
                                                  if line not in failed])

    def run_all(self):
        """Every way, then the comparison; the host goes first and is the measure."""
        measure = None
        for way in sorted(self.ways, key=lambda way: way != "host"):
            if way not in self.options.ways:
                continue
            reason = self.missing(way)
            if reason:
                self.report.line(self.name, way, f"skip: {reason}")
                continue
            began = time.monotonic()
            out, complaint = self.try_way(way)
            seconds = time.monotonic() - began
            if out is None:
                self.report.line(self.name, way, "FAILED", complaint, seconds)
            elif measure and measure[1] != out:
                difference = difflib.unified_diff(measure[1].splitlines(), out.splitlines(),
                                                  measure[0], way, lineterm="", n=0)
                self.report.line(self.name, way, "FAILED", "\n".join(difference), seconds)
            else:
                measure = measure or (way, out)
                self.report.line(self.name, way, "ok", "", seconds)

    def run_under_valgrind(self):
        reason = None if shutil.which("valgrind") else "no valgrind"
        reason = reason or self.missing("so")
        if reason:
            self.report.line(self.name, "valgrind", f"skip: {reason}")
            return
        program, complaint = self.build("so")
        if not complaint:
            status, _, complaint = run(["valgrind", "--error-exitcode=99", "-q", program],
                                       self.options.timeout * 4, self.environment("so"))
            complaint = None if status == 0 else f"exit status {status}\n{complaint}"
        self.report.line(self.name, "valgrind", "FAILED" if complaint else "ok", complaint or "")


# ---- the header ----

def check_header(options, report, label, includes, python=None):
    """The header beside Python.h, which is not ours to warn about."""
    for language, (compiler, suffix, standard) in HEADER_CHECKS.items():
        compiler = options.cc if suffix == "c" else options.cxx
        flags = [standard, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"]
        flags += ["-I", options.include_dir]
        flags += ["-isystem", python["include"]] if python else []
        complaints = ""
        for number, order in enumerate(includes):
            source = options.build_dir / f"header-{label}-{number}.{suffix}"
            source.write_text("".join(f"#include {name}\n" for name in order) +
                              "extern int not_empty;\n")
            status, _, err = run([compiler, *flags, source])
            complaints += "" if status == 0 else f"{' '.join(order)}:\n{err}"
        report.line(f"header {label}", language, "FAILED" if complaints else "ok", complaints)


def header_jobs(options, report, pythons):
    if not (options.include_dir / "obmalloc.h").exists():
        report.line("header", "header", f"skip: no {options.include_dir / 'obmalloc.h'}")
        return
    ours, theirs = '"obmalloc.h"', "<Python.h>"
    yield lambda: check_header(options, report, "alone", [[ours], [ours, ours]])
    for name, python in pythons:
        if not Path(python["include"], "Python.h").exists():
            report.line(f"header {name}", "header", "skip: no Python.h")
            continue
        label = ".".join(map(str, python["version"])) + ("-distribution" if name == "/usr" else "")
        yield lambda label=label, python=python: check_header(
            options, report, label, [[theirs, ours], [ours, theirs]], python)


# ---- all together ----

def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", metavar="NAME", help="this program (repeatable)")
    parser.add_argument("--ways", default=",".join(WAYS), help="comma-separated (%(default)s)")
    parser.add_argument("--library-dir", type=Path, default=RELEASE)
    parser.add_argument("--include-dir", type=Path, default=ROOT / "include")
    parser.add_argument("--build-dir", type=Path, default=ROOT / "target/c_tests")
    parser.add_argument("--host", metavar="VERSION", help="the CPython of the host way (3.11)")
    parser.add_argument("--valgrind", action="store_true", help="the quick ones under valgrind")
    parser.add_argument("--timeout", type=int, default=60, metavar="SECONDS")
    parser.add_argument("--jobs", type=int, default=3)   # many of them sleep most of the time
    parser.add_argument("--cc", default=os.environ.get("CC", "cc"))
    parser.add_argument("--cxx", default=os.environ.get("CXX", "c++"))
    options = parser.parse_args()
    for name in ("library_dir", "include_dir", "build_dir"):
        setattr(options, name, getattr(options, name).resolve())
    options.ways = re.split(r"[,\s]+", options.ways)
    unknown = set(options.ways) - {*WAYS, "tsan"}
    if unknown:
        parser.error(f"no such way: {', '.join(unknown)}")
    return options


def prepare(options):
    """The build directory, and the library under its SONAME as installed."""
    link = options.build_dir / "lib" / SONAME
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink():
        link.unlink()
    link.symlink_to(options.library_dir / "libobmalloc.so")


def main():
    options, report = arguments(), Report()
    prepare(options)
    sources = sorted(HERE.glob("*.c"))
    names = options.only or [source.stem for source in sources] + ["header"]
    unknown = set(names) - {source.stem for source in sources} - {"header"}
    if unknown:
        sys.exit(f"no such test: {', '.join(unknown)}")

    options.tsan_missing = prepare_tsan(options) if "tsan" in options.ways else "not asked for"
    pythons = find_pythons() if {"host", "header"} & set(options.ways) else []
    hosts = [(name, python) for name, python in pythons
             if can_host(python) and name.startswith(options.host or "")]
    if "host" in options.ways and not options.valgrind:
        print(f"host: CPython {hosts[0][0]}" if hosts else "host: none", flush=True)
    try:
        options.in_flags = in_flags(hosts[0][1] if hosts else None,
                                    options.library_dir / "libobmalloc.a")
    except ask.Refusal as refusal:
        options.in_flags = refusal
    programs = [Program(source, options, hosts[0][1] if hosts else None, report)
                for source in sources if source.stem in names]
    if options.valgrind:
        jobs = [program.run_under_valgrind for program in programs if program.name in VALGRIND]
    else:
        jobs = [program.run_all for program in programs]
        if "header" in names and "header" in options.ways:
            jobs += header_jobs(options, report, pythons)
    with ThreadPoolExecutor(options.jobs) as pool:
        for result in [pool.submit(job) for job in jobs]:
            result.result()
    report.end()
    sys.exit(1 if report.failed or report.passed == 0 else 0)


if __name__ == "__main__":
    main()
