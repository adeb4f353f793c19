"""Runs of commands: time, peak memory, page faults, memory over time; and callgrind's counts."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field

import hosts

STEP = 0.02     # seconds between two samples
PAGE = os.sysconf("SC_PAGE_SIZE")
COLLECTED = re.compile(r"^==\d+== Collected : (\d+)", re.M)
FUNCTION = re.compile(r"^fn=\((\d+)\)(?: (.*))?$")


class Failed(Exception):
    """A command failed, or its figures cannot be used."""


@dataclass
class Run:
    """One run of a command."""
    wall: float         # seconds
    cpu: float          # seconds, user and system
    peak: int           # bytes
    faults: int
    out: str
    samples: list = field(default_factory=list)     # (time.monotonic(), resident bytes)


def own_peak():
    """The peak of this process in bytes.

    Linux passes the peak of the process that forks on to the child, so a lower peak of a child
    is not visible. Programs that stay below it read VmHWM themselves.
    """
    with open("/proc/self/status") as stream:
        return next(int(line.split()[1]) for line in stream if line.startswith("VmHWM:")) * 1024


def resident(pid):
    """Resident bytes of a process, 0 when it has ended."""
    try:
        with open("/proc/%d/statm" % pid) as stream:
            return int(stream.read().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def run(argv, environment, sample=False):
    """Runs a command to its end; raises Failed unless its exit status is 0."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = due = time.monotonic()
        process = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL,
                                   stdout=out, stderr=err)
        samples, ended = [], 0
        while not ended:
            if sample:
                samples.append((time.monotonic(), resident(process.pid)))
                due += STEP
                time.sleep(max(0, due - time.monotonic()))
            ended, status, usage = os.wait4(process.pid, os.WNOHANG if sample else 0)
        wall = time.monotonic() - start
        process.returncode = status
        texts = []
        for stream in out, err:
            stream.seek(0)
            texts.append(stream.read().decode("utf-8", "replace"))
    if status != 0:
        how = ("ended by %s" % signal.Signals(os.WTERMSIG(status)).name
               if os.WIFSIGNALED(status) else "exit status %d" % os.WEXITSTATUS(status))
        last = texts[1].strip().splitlines()[-1:] or ["nothing on stderr"]
        raise Failed("%s: %s: %s" % (os.path.basename(argv[-1]), how, last[0]))
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, usage.ru_minflt,
               texts[0], samples)


# ---- callgrind ----

def has_valgrind():
    if shutil.which("valgrind") is None:
        print("skip: no valgrind on PATH")
    return bool(shutil.which("valgrind"))


def callgrind(command, out=os.devnull, options=(), **more):
    """(instructions, stdout, stderr) of a command.

    Neither PATH nor another variable of the caller takes part: their lengths shift the stack,
    and the counts a little.
    """
    environment = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0",
                   "PYTHONDONTWRITEBYTECODE": "1"}
    environment.update(more)
    valgrind = [shutil.which("valgrind") or "valgrind", "--tool=callgrind",
                "--callgrind-out-file=" + out]
    result = subprocess.run(valgrind + list(options) + command, env=environment, cwd=hosts.ROOT,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, universal_newlines=True)
    collected = COLLECTED.search(result.stderr)
    if result.returncode != 0 or not collected:
        last = (result.stderr.strip().splitlines() or [""])[-1]
        raise Failed("%s under valgrind: %s" % (os.path.basename(command[-1]), last))
    return int(collected.group(1)), result.stdout, result.stderr


def self_costs(path):
    """{function: instructions executed in itself} of a file that callgrind wrote."""
    names, costs, current, skip = {}, {}, None, False
    with open(path, encoding="utf-8", errors="replace") as stream:
        for line in stream:
            heading = FUNCTION.match(line)
            if heading:
                number, name = heading.groups()
                current = names.setdefault(number, name)
            elif line.startswith("cfn="):
                called = FUNCTION.match(line[1:])
                if called and called.group(2):
                    names.setdefault(*called.groups())
            elif line.startswith("calls="):
                skip = True     # the next line is the cost of the called function
            elif re.match(r"^[0-9+*-]", line):
                if not skip and current is not None:
                    costs[current] = costs.get(current, 0) + int(line.split()[1])
                skip = False
    return costs
