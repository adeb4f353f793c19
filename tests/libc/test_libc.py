#!/usr/bin/env python3
"""Runs the malloc tests of glibc and of musl's libc-test on this library's functions.

Their calls of malloc, calloc, realloc and free are redirected, by redirect.h, to PyMem_*,
PyObject_* and PyMem_Raw*. The same programs run on the C library's own functions first, and
the results must be equal but for DIFFERENCES, each of which the header states.

    c_tests/libc/run.py [--glibc DIR] [--libc-test DIR] [--only NAME]...

Without --glibc the source package of this Debian's glibc is downloaded to target/libc. Without
--libc-test (a checkout of musl's libc-test) its tests are skipped.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

GLIBC = ["tst-calloc", "tst-free-errno", "tst-malloc", "tst-malloc-backtrace",
         "tst-malloc-fork-deadlock", "tst-malloc-tcache-leak",
         "tst-malloc-thread-exit", "tst-malloc-thread-fail", "tst-malloc-too-large",
         "tst-mallocalign1", "tst-mallocfork", "tst-mallocfork2", "tst-mallocfork3",
         "tst-realloc", "tst-tcfree1", "tst-tcfree2", "tst-tcfree3", "tst-trim1"]
LIBC_TEST = ["malloc-0", "malloc-brk-fail", "malloc-oom"]
DOMAINS = ["PyMem_", "PyObject_", "PyMem_Raw"]

DOUBLE = "a double free is found when the block goes back to its pool", "FAIL: tcache double free.*"
NOTHING = "realloc(p, 0) returns a block, as CPython's does", r".*realloc \(p, 0\).*"
# (test, domain or None for all) -> why the result differs, and what each line it says must be.
DIFFERENCES = {
    ("tst-malloc", None): NOTHING,
    ("tst-realloc", None): NOTHING,
    ("tst-tcfree1", "PyMem_"): DOUBLE,
    ("tst-tcfree1", "PyObject_"): DOUBLE,
    ("tst-tcfree2", "PyMem_"): DOUBLE,
    ("tst-tcfree2", "PyObject_"): DOUBLE,
    ("tst-malloc-tcache-leak", "PyMem_"): (
        "mallinfo does not count blocks of pools", ".*info_before.uordblks != 0.*"),
    ("tst-malloc-tcache-leak", "PyObject_"): (
        "mallinfo does not count blocks of pools", ".*info_before.uordblks != 0.*"),
}


def run(command, timeout=None, **options):
    """(status, output); a status that is a text says what happened. The command has a process
    group of its own, which ends with it: some tests leave children behind."""
    process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               start_new_session=True, **options)
    try:
        said, _ = process.communicate(timeout=timeout)
        status = process.returncode
        status = f"signal {-status}" if status < 0 else status
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        status, said = f"no end after {timeout} s", process.communicate()[0]
    return status, said.decode(errors="replace")


def download(build):
    """The malloc folder of this system's glibc, from its source package; None if it is not
    to be had."""
    found = next(build.glob("glibc-*/malloc"), None)
    if found or not shutil.which("apt-get"):
        return found
    lists = build / "lists"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    sources = build / "sources.list"
    mirrors = [line for path in [Path("/etc/apt/sources.list"),
                                 *Path("/etc/apt/sources.list.d").glob("*")]
               if path.is_file() for line in path.read_text().splitlines()]
    uri = next((m.group(1) for line in mirrors
                if (m := re.match(r"(?:URIs:|deb(?: \[.*\])?)\s+(\S+/debian/?)(?:\s|$)", line))), None)
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines()
                   if "=" in line).get("VERSION_CODENAME")
    if not uri or not release:
        return None
    sources.write_text(f"deb-src {uri} {release} main\n")
    apt = ["apt-get", "-qq", "-o", f"Dir::Etc::SourceList={sources}",
           "-o", "Dir::Etc::SourceParts=/nonexistent", "-o", f"Dir::State::Lists={lists}"]
    for words in (["update"], ["source", "--download-only", "glibc"]):
        status, said = run([*apt, *words], timeout=300, cwd=build)
        if status != 0:
            print(f"apt-get {' '.join(words)}: {status}\n{said}")
            return None
    for archive in build.glob("glibc_*.orig.tar.*"):
        with tarfile.open(archive) as tar:
            wanted = [m for m in tar if re.match(r"glibc-[\d.]+/malloc/tst-[^/]*\.[ch]$", m.name)]
            tar.extractall(build, members=wanted)
    return next(build.glob("glibc-*/malloc"), None)


class Suite:
    """Tests of one C library: their sources and how they are compiled."""

    def __init__(self, name, folder, flags, more=()):
        self.name, self.folder, self.flags, self.more = name, folder, flags, list(more)

    def build(self, options, test, domain):
        """The program, or what the compiler said."""
        program = options.build / f"{test}-{domain or 'plain'}"
        redirect = ["-include", HERE / "redirect.h", f"-DDOMAIN={domain}"] if domain else []
        link = [f"-L{options.library_dir}", "-l:libobmalloc.so",
                f"-Wl,-rpath,{options.build}/lib"] if domain else []
        command = [options.cc, "-std=gnu11", "-O1", "-g", "-w", "-fno-builtin", "-D_GNU_SOURCE",
                   *self.flags, *redirect, self.folder / f"{test}.c", *self.more,
                   "-o", program, *link, "-lpthread"]
        status, said = run(command, timeout=120)
        return (program, None) if status == 0 else (None, said)

    def result(self, options, test, domain):
        program, complaint = self.build(options, test, domain)
        if complaint:
            return "not built", complaint
        return run([program], options.timeout, cwd=options.build)


def compare(options, suite, test):
    """Lines to print, and how many results passed and failed."""
    measure, said = suite.result(options, test, None)
    lines, passed, failed = [f"{suite.name} {test}: C library: {measure}"], 0, 0
    if measure == "not built":
        return lines + [said], 0, 1
    for domain in DOMAINS:
        status, said = suite.result(options, test, domain)
        differs, pattern = (DIFFERENCES.get((test, domain)) or DIFFERENCES.get((test, None))
                            or (None, None))
        lines_said = [line for line in said.splitlines() if line.strip()]
        good = (status != measure and all(re.fullmatch(pattern, line) for line in lines_said)
                if differs else status == measure)
        passed, failed = passed + good, failed + (not good)
        lines.append(f"    {domain:10} {status} {'ok' if good else 'FAILED'}"
                     + (f" (differs: {differs})" if differs else ""))
        if not good:
            lines += ["        " + line for line in said.splitlines()[-20:]]
    return lines, passed, failed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--glibc", type=Path, help="glibc's source tree")
    parser.add_argument("--libc-test", type=Path, help="a checkout of musl's libc-test")
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--library-dir", type=Path, default=ROOT / "target/release")
    parser.add_argument("--build", type=Path, default=ROOT / "target/libc")
    parser.add_argument("--timeout", type=int, default=150)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--cc", default="cc")
    options = parser.parse_args()
    for name in ("library_dir", "build"):
        setattr(options, name, getattr(options, name).resolve())
    (options.build / "lib").mkdir(parents=True, exist_ok=True)
    link = options.build / "lib/libobmalloc.so.0"
    link.unlink(missing_ok=True)
    link.symlink_to(options.library_dir / "libobmalloc.so")

    work, skipped = [], 0
    malloc = options.glibc / "malloc" if options.glibc else download(options.build)
    if malloc and malloc.is_dir():
        suite = Suite("glibc", malloc, ["-I", HERE / "shim", "-iquote", HERE / "shim/support"])
        work += [(suite, test) for test in GLIBC if (malloc / f"{test}.c").exists()]
    else:
        print("skip: no source of glibc (--glibc DIR)")
        skipped += 1
    regression = options.libc_test and options.libc_test / "src/regression"
    if regression and regression.is_dir():
        common = options.libc_test / "src/common"
        more = [common / f"{name}.c" for name in ("print", "vmfill", "memfill", "setrlim")]
        suite = Suite("libc-test", regression, ["-I", common], more)
        work += [(suite, test) for test in LIBC_TEST if (regression / f"{test}.c").exists()]
    else:
        print("skip: no checkout of musl's libc-test (--libc-test DIR)")
        skipped += 1
    work = [(suite, test) for suite, test in work if not options.only or test in options.only]
    passed = failed = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for lines, good, bad in pool.map(lambda item: compare(options, *item), work):
            print("\n".join(lines), flush=True)
            passed, failed = passed + good, failed + bad
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
