"""Compiles the standard library into a temporary folder, as an installer does.

    bench/programs/whole/compile_stdlib.py [SHARE]

The answer is the number of files and the size of the compiled ones.
"""

import compileall
import os
import re
import sys
import tempfile

SHARE = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
ELSEWHERE = re.compile(r"/(test|tests|idlelib|lib2to3|site-packages|dist-packages|turtledemo)/")


def sizes(folder):
    for place, _, names in os.walk(folder):
        for name in names:
            yield os.path.getsize(os.path.join(place, name))


folder = os.path.dirname(os.__file__)
if SHARE < 1:
    folder = os.path.join(folder, "json")
with tempfile.TemporaryDirectory(prefix="obmalloc-bench-") as out:
    sys.pycache_prefix = out
    right = compileall.compile_dir(folder, quiet=1, force=True, rx=ELSEWHERE)
    found = list(sizes(out))
print("%d files, %d bytes" % (len(found), sum(found)))
if not right or not found:
    sys.exit("not everything was compiled")
