#!/usr/bin/env python3
"""The interpreters of this machine, as variables for c_tests/Makefile: the one whose functions
the ways `host` and `in` use (HOST, or else 3.11, or else any that can be linked), and all headers.

    interpreters.py HOST ARCHIVE
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "relink")]
import ask  # noqa: E402
import objects  # noqa: E402
from support import interpreters  # noqa: E402


def main(host, archive):
    pythons = interpreters.find()
    hosts = [python for python in pythons
             if python.embeddable and python.matches(host or python.path)]
    hosts.sort(key=lambda python: python.minor != "3.11")
    if not hosts:
        print(f"MISSING_host := no shared libpython {host or '>= 3.7.4'}")
        print("MISSING_in = $(MISSING_host)")
    for python in hosts[:1]:
        print(f"HOST_NAME := {python.name}\nHOST_PREFIX := {python.prefix}")
        print(f"HOST_FLAGS := -DHOST_CPYTHON -isystem {python.include}")
        print(f"LINK_host := -L{python.libdir} -Wl,-rpath,{python.libdir} "
              f"-lpython{python.ldversion} -lm")
        try:
            build = ask.ask(python.executable)
            ask.check_usable(build)
            folder = ROOT / "target/relink/build" / build.version
            rest, _ = objects.split_archive(build.archive, str(folder))
            words = " ".join(build.text(name) for name in ("LIBS", "MODLIBS", "SYSLIBS", "LIBM"))
            print(f"LINK_in := -Wl,-u,PyMem_SetupDebugHooks {archive} -Wl,--whole-archive {rest} "
                  f"-Wl,--no-whole-archive {words} -lutil -Wl,-export-dynamic")
        except ask.Refusal as refusal:
            print("MISSING_in := " + str(refusal).replace("#", "").replace("$", ""))
    for python in pythons:
        if python.headers:
            print(f"HEADERS += {python.name}\nINCLUDE_{python.name} := {python.include}")


if __name__ == "__main__":
    main(*sys.argv[1:])
