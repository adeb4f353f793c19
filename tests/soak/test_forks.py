#!/usr/bin/env python3
"""Many forks under load (c_tests/fork_storm.c), counted and recorded.

    c_tests/soak/forks.py [--forks 20000] [--ways so,a,pre]

So many in each of six settings and in each way of linking; those that children make
are not counted.
"""

import argparse
import os
import re
import subprocess
import sys
import time

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, TESTS)
import proven  # noqa: E402

SETTINGS = 6        # parts of fork_storm.c


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--forks", type=int, default=20000)
    parser.add_argument("--ways", default="so,a,pre")
    options = parser.parse_args()
    began, passed = time.monotonic(), 0
    process = subprocess.Popen(
        [sys.executable, os.path.join(TESTS, "run.py"), "--only", "fork_storm", "--timeout",
         "18000", "--ways", options.ways], stdout=subprocess.PIPE, universal_newlines=True,
        env=dict(os.environ, FORK_STORM=str(options.forks)))
    for line in process.stdout:
        print(line, end="", flush=True)
        passed += bool(re.match(r"fork_storm +\w+ +ok", line))
    if process.wait() != 0 or passed != len(options.ways.split(",")):
        return 1
    proven.keep("forks", "make forks FORKS=%d WAYS=%s" % (options.forks, options.ways),
                "%d forks while four threads work: %d in each of %d settings, linked as %s" % (
                    passed * SETTINGS * options.forks, options.forks, SETTINGS, options.ways),
                time.monotonic() - began, "C", "no child hung or failed; nothing live at the end")
    return 0


if __name__ == "__main__":
    sys.exit(main())
