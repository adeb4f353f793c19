"""One run of a program of bench/memory/, with its resident memory sampled meanwhile.

The program tells its own peak (VmHWM), faults and CPU time: what the kernel tells whoever
waits for a process (ru_maxrss) may be the peak of the process that started it, see
forker.py. Samples are pages of /proc/PID/statm, every 20 ms, and end where the program
has taken its figures, before it checks its result.
"""

import json
import os
import subprocess
import time
from dataclasses import dataclass, field

import hosts
import interpreters
import pairs

STEP = 0.02     # seconds
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Run:
    """One run: samples are (seconds since the start, MiB)."""
    samples: list = field(default_factory=list)
    figures: dict = field(default_factory=dict)

    @property
    def area(self):
        """MiB x s."""
        return sum((late - early) * (a + b) / 2
                   for (early, a), (late, b) in zip(self.samples, self.samples[1:]))

    def __getattr__(self, name):
        try:
            return self.figures[name]
        except KeyError:
            raise AttributeError(name)


def resident(pid):
    """MiB of a process, None when it has ended."""
    try:
        with open("/proc/%d/statm" % pid) as stream:
            return int(stream.read().split()[1]) * PAGE / 1048576
    except (OSError, IndexError):
        return None


def run(argv, environment):
    """Runs a program; pairs.Failed if it fails, or the library is not active in it."""
    process = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    began = due = time.monotonic()
    samples = []
    while process.poll() is None:
        size = resident(process.pid)
        if size:
            samples.append((time.monotonic() - began, size))
        due = max(due + STEP, time.monotonic())
        time.sleep(due - time.monotonic() if due > time.monotonic() else STEP)
    out, err = (text.decode("utf-8", "replace") for text in process.communicate())
    lines = err.strip().splitlines()
    if process.returncode != 0:
        raise pairs.Failed("%s: %s" % (process.returncode, (lines or ["nothing on stderr"])[-1]))
    if "LD_PRELOAD" in environment and not any(interpreters.ACTIVE in line for line in lines):
        raise pairs.Failed("the library was not active: %s" % " ".join(lines))
    figures = json.loads(out)
    end = figures["ended"] - began
    return Run([sample for sample in samples if sample[0] <= end], figures)


def sides(host, arguments):
    """{name: (argv, environment)}: stock, us, and us without the helper thread."""
    stock, ours = hosts.sides(host, arguments, PYTHONHASHSEED="0")
    ours[1]["OBMALLOC_VERBOSE"] = "1"
    return {"stock": stock, "us": ours, "thread off": (ours[0], dict(ours[1], OBMALLOC_THREAD="0"))}
