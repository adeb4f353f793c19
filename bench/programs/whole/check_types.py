"""Checks the types of some modules of the standard library, by mypy without a cache.

    bench/programs/whole/check_types.py [SHARE]

They are copied to a temporary folder under other names, because mypy has stubs for the originals.
The answer is a checksum of mypy's output.
"""

import os
import shutil
import sys
import tempfile
import zlib

import mypy.api

SHARE = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
MODULES = ("difflib", "mailbox", "optparse", "smtplib", "tarfile")

modules = MODULES[:max(1, round(len(MODULES) * SHARE))]
with tempfile.TemporaryDirectory(prefix="obmalloc-bench-") as folder:
    os.chdir(folder)
    for module in modules:
        shutil.copy(os.path.join(os.path.dirname(os.__file__), module + ".py"),
                    "checked_%s.py" % module)
    names = sorted(os.listdir("."))
    output, problem, status = mypy.api.run(["--cache-dir=" + os.devnull, "--check-untyped-defs",
                                          "--no-error-summary"] + names)
    os.chdir(os.sep)
print("status %d, %d lines, checksum %08x"
      % (status, len(output.splitlines()), zlib.crc32(output.encode())))
if problem or status > 1:
    sys.exit("mypy failed: %s" % (problem or output))
