"""Runs a program of this folder, or a benchmark of pyperformance, several times in one process.

    repeated.py TIMES PROGRAM [ARGUMENT ...]            prints what the program prints, once
    repeated.py TIMES pyperformance/NAME [ARGUMENT ...]

The last word that it prints is the peak of the process in KiB, read by the process itself.
"""

import contextlib
import io
import os
import runpy
import sys

times, name, arguments = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
folder, _, part = name.rpartition("/")
if folder:
    import pyperformance
    path = os.path.join(os.path.dirname(pyperformance.__file__), "data-files", "benchmarks",
                        "bm_" + part, "run_benchmark.py")
    sys.path.insert(0, os.path.dirname(path))
    # A worker of pyperf: one value of `times` loops, without warming up.
    arguments += ["--worker", "--loops", str(times), "--values", "1", "--warmups", "0"]
    times = 1
else:
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), part + ".py")
sys.argv = [path] + arguments
printed = set()
for _ in range(times):
    with contextlib.redirect_stdout(io.StringIO()) as text:
        runpy.run_path(path, run_name="__main__")
    printed.add(text.getvalue())
if not folder:      # pyperf prints times
    (answer,) = printed
    print(answer, end="")
with open("/proc/self/status") as status:
    print(name, next(line.split()[1] for line in status if line.startswith("VmHWM:")))
