#!/usr/bin/env python3
"""Hours compressed into minutes: a C program and a Python program side by side, each
doing everything at once, in cycles after which nothing may be left and nothing grown.

    c_tests/soak/run.py [--minutes 60 | --seconds 20] [--seed N] [--only c|python] [--record]

The C program (soak.c) is linked with the library, the Python program (soak.py) runs
with the library preloaded in several interpreters in turn. Each start of a process,
a life, draws settings of the library from the seed. A life has some cycles, each of
which ends with a line of figures. The programs themselves check that no block was
changed, that what is live is what they hold, and that no thread or child is left.
Here is checked that no figure grows: a line is fitted to its values of the cycles but
the first third, and what it rises from the first of them to the last must stay below
a bound (BOUNDS). Of a Python's address space the highest step is taken out before: a
peak above all others may leave arenas in which something lies (ADDRESS_SPACE); memory
gets no such leave. `--seed N --minutes M` repeats a run's draws.
"""

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(HERE)
ROOT = os.path.dirname(TESTS)
sys.path[:0] = [os.path.join(TESTS, "preload"), TESTS]
import proven
import pythons
from support import clean_environment

LIBRARY = os.path.join(os.environ.get("CARGO_TARGET_DIR") or os.path.join(ROOT, "target"),
                       os.environ.get("CARGO_BUILD_TARGET", ""), "release", "libobmalloc.so")
FLAGS = ["-std=gnu11", "-D_GNU_SOURCE", "-g", "-O2", "-Wall", "-Wextra", "-Werror"]
# What the C library keeps for later would hide what we keep: stacks, and heaps for threads.
QUIET_LIBC = "glibc.pthread.stack_cache_size=1:glibc.malloc.arena_max=2"
VERSIONS = ["3.13", "3.11", "static", "2.7"]    # of the Python program, in turn
FEW = ["3.13", "2.7"]       # where there is less than a minute

SETTINGS = {    # None: not set
    "OBMALLOC_ALIGN": (None, "16", "8", "obj:8", "mem:8"),
    "OBMALLOC_DECAY_MS": (None, "0", "1", "20", "100", "1000", "-1"),
    "OBMALLOC_FORK": (None, "auto", "share", "seal"),
    "OBMALLOC_SMALL_MAX": (None, "512", "4096", "8192", "32K"),
    "OBMALLOC_THREAD": (None, "0", "1"),
}
SHORT = {"OBMALLOC_DECAY_MS": ("0", "1", "20", "100", "-1")}    # so that waiting is short

MIB, KIB = 1 << 20, 1 << 10
BOUNDS = {      # what a figure may rise by, from the first fitted cycle to the last
    "c": {"rss": 2 * MIB, "rss_idle": 6 * MIB, "ours": 256 * KIB, "metadata": 256 * KIB,
          "from_os": 3 * MIB, "arenas": 1, "magazines": 0, "live": 0, "unexplained": 512 * KIB},
    "python": {"rss": 3 * MIB, "rss_idle": 7 * MIB, "ours": 2 * MIB, "metadata": 256 * KIB,
               "from_os": 5 * MIB, "arenas": 2, "magazines": 128 * KIB, "live": 300,
               "live_bytes": 64 * KIB, "objects": 100},
}
# Of a Python, what may rise once: what it never frees (a 2.7 keeps the memory of its
# numbers) lies where the peak was, and each arena of a peak may have got some of it.
ADDRESS_SPACE = {"c": (), "python": ("from_os", "arenas")}
# What CPython leaves of an interpreter lies among what is freed, and pins pages of 4 KiB:
# so many times its size more than itself. (Arenas that it pins are address space, but
# for their records.)
PINNED = 3
ARENA_RECORD = 11 * KIB
# The slots of depots (src/heap/depot.rs) are taken when enough runs have come, by each class of each
# lane, and stay: 198 KiB for all classes, in 16 lanes. Most are there after so many cycles.
DEPOTS, SETTLED = 16 * 198 * KIB, 30
# What a 2.7 says when an object's end meets a refusal of memory, which children ask for.
IGNORED = re.compile(r"Exception (?:<unknown>)?(MemoryError\b|<exception repr\(\) failed>).* ignored$")
IN_BYTES = ("rss", "rss_idle", "ours", "metadata", "from_os", "magazines", "live_bytes",
            "unexplained")
COUNTED = ("operations", "bytes_looked_at", "refused", "trees", "threads", "forks", "execs",
           "processes", "interpreters", "limits", "memory_errors", "trims")

_print = threading.Lock()


def say(text):
    with _print:
        print(text, flush=True)


# ---- a life: one process from its start to its end ----

class Life:
    def __init__(self, kind, name, command, rng, cycles, seconds, leaves=0):
        self.kind, self.name, self.command = kind, name, command
        self.cycles, self.seconds, self.leaves = cycles, seconds, leaves
        self.number = rng.randrange(1 << 30)
        choices = dict(SETTINGS, **(SHORT if seconds < 10 else {}))
        drawn = {key: rng.choice(values) for key, values in sorted(choices.items())}
        self.settings = {key: value for key, value in drawn.items() if value is not None}
        self.lines, self.wrong, self.err = [], [], ""

    def environment(self):
        env = clean_environment(GLIBC_TUNABLES=QUIET_LIBC, **self.settings)
        if self.kind == "python":
            env["LD_PRELOAD"] = LIBRARY
        return env

    @property
    def deadline(self):
        return 120 + 4 * self.cycles * (self.seconds + 4)

    def run(self):
        said = " ".join("%s=%s" % (key[9:], value) for key, value in self.settings.items())
        say("%-13s %d cycles of %.1f s, number %d  %s"
            % (self.name, self.cycles, self.seconds, self.number, said))
        began = time.monotonic()
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                self.command + [str(self.number), str(self.cycles), "%.3f" % self.seconds],
                env=self.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=errors, start_new_session=True)
            timer = threading.Timer(self.deadline, self.end_of_patience, [process])
            timer.start()
            for line in process.stdout:
                if line.startswith(b"{"):
                    self.lines.append(json.loads(line.decode()))
            status = process.wait()
            timer.cancel()
            errors.seek(0)
            said = errors.read().decode("utf-8", "replace").strip().splitlines()
            self.err = "\n".join(line for line in said if not IGNORED.match(line))
        if status != 0:
            self.wrong.append("exit status %d" % status)
        if len(self.lines) != self.cycles:
            self.wrong.append("%d of %d cycles" % (len(self.lines), self.cycles))
        if self.err:
            self.wrong.append("said: " + self.err[:4000])
        if not self.wrong:
            self.judge()
        say("%-13s %.0f s" % (self.name, time.monotonic() - began))
        for text in self.wrong:
            say("%-13s FAILED: %s" % (self.name, text.replace("\n", "\n    ")))
        return not self.wrong

    def end_of_patience(self, process):
        self.wrong.append("no end after %d s" % self.deadline)
        os.killpg(process.pid, 9)

    def judge(self):
        kept = self.lines[len(self.lines) // 3:]
        done = self.take_out_what_interpreters_leave(kept) if self.leaves else 0
        bounds = dict(BOUNDS[self.kind])
        if len(self.lines) < SETTLED:
            for key in ("metadata", "ours"):
                bounds[key] += DEPOTS
        if not self.gets_smaller():
            del bounds["rss_idle"]
        if done:
            for key in bounds.keys() & {"rss", "rss_idle", "ours"}:
                bounds[key] += PINNED * self.leaves * done
            arenas = kept[-1]["highwater"] - kept[0]["highwater"]
            bounds["metadata"] += ARENA_RECORD * arenas
            del bounds["from_os"], bounds["arenas"]
        for key, bound in bounds.items():
            values = [line[key] for line in kept]
            if key in ADDRESS_SPACE[self.kind]:
                values = without_highest_step(values)
            rise = slope(values) * (len(values) - 1)
            unit = MIB if key in IN_BYTES else 1
            shown = " ".join(("%.2f" if unit > 1 else "%d") % (line[key] / unit)
                             for line in self.lines)
            text = "%-10s %s%s; rises by %.2f of %.2f" % (
                key, shown, " MiB" if unit > 1 else "", rise / unit, bound / unit)
            say("%-13s %s" % (self.name, text))
            if rise > bound:
                self.wrong.append("grows: " + text)

    def gets_smaller(self):
        """Whether an idle program gives pages back by itself."""
        return (int(self.settings.get("OBMALLOC_DECAY_MS", 1000)) >= 0
                and self.settings.get("OBMALLOC_THREAD") != "0")

    def take_out_what_interpreters_leave(self, kept):
        """CPython frees not all of a sub-interpreter. How much it leaves without us was
        measured; with us it may be no more, and only that is no growth of ours. Returns
        the number of interpreters in the fitted cycles."""
        done = kept[-1]["interpreters"] - kept[0]["interpreters"]
        if done == 0:
            return 0
        each = (kept[-1]["live_bytes"] - kept[0]["live_bytes"]) / done
        say("%-13s an interpreter leaves %.0f bytes, without us %d" % (self.name, each,
                                                                       self.leaves))
        if each > self.leaves:
            self.wrong.append("an interpreter leaves more: %.0f bytes" % each)
        blocks = (kept[-1]["live"] - kept[0]["live"]) / done
        first = self.lines[0]["interpreters"]
        for line in self.lines:
            count = line["interpreters"] - first
            for key in ("rss", "rss_idle", "ours", "live_bytes"):
                line[key] -= count * each
            line["live"] -= count * blocks
        return done


def without_highest_step(values):
    """The same, but that what comes after its highest rise begins where that began."""
    steps = [after - before for before, after in zip(values, values[1:])]
    highest = max(steps + [0])
    if highest == 0:
        return values
    at = steps.index(highest) + 1
    return values[:at] + [value - highest for value in values[at:]]


def slope(values):
    """Of the line with the least squares, in units for each cycle."""
    n = len(values)
    middle, mean = (n - 1) / 2, sum(values) / n
    across = sum((i - middle) ** 2 for i in range(n))
    return sum((i - middle) * (value - mean) for i, value in enumerate(values)) / (across or 1)


# ---- which lives ----

def build(folder):
    program = os.path.join(folder, "soak")
    for name in ("libobmalloc.so", "libobmalloc.so.0"):     # by its SONAME, as installed
        os.symlink(LIBRARY, os.path.join(folder, name))
    subprocess.run([os.environ.get("CC", "cc"), *FLAGS, "-I", os.path.join(ROOT, "include"),
                    "-I", TESTS, os.path.join(HERE, "soak.c"), "-o", program, "-L", folder,
                    "-Wl,-rpath," + folder, "-l:libobmalloc.so", "-lpthread"], check=True)
    return program


def left_by_interpreters(python):
    """Bytes that one sub-interpreter leaves in that CPython, without us."""
    if python.numbers < (3, 12):
        return 0
    said = subprocess.run([python.path, "-B", os.path.join(HERE, "soak.py"), "interpreters", "8"],
                          env=clean_environment(PYTHONMALLOC="malloc"), stdout=subprocess.PIPE,
                          check=True)
    return int(said.stdout)


def shape(total):
    """(cycles, seconds of one) of a life that is to last so long."""
    cycles = 12 if total >= 120 else 6
    return cycles, max(0.4, total / cycles - (1 if total >= 120 else 0.6))


def lives_of_c(program, total, rng):
    number = max(1, round(total / 720))
    return [Life("c", "C", [program], rng, *shape(total / number)) for _ in range(number)]


def lives_of_python(found, total, rng):
    lives = []
    for python in found:
        command = [python.path, "-B", os.path.join(HERE, "soak.py")]
        if python.numbers >= (3, 12):   # of threads at a fork
            command[1:1] = ["-W", "ignore::DeprecationWarning"]
        lives.append(Life("python", python.label, command, rng, *shape(total / len(found)),
                          leaves=left_by_interpreters(python)))
    return lives


def choose(words):
    found, _ = pythons.find()
    chosen = []
    for word in words:
        those = [python for python in found if pythons.matches(python, [word])]
        if not those:
            say("skip: no Python %s here" % word)
        chosen += those[-1:]
    return chosen


def arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    parser.add_argument("--only", choices=("c", "python"))
    parser.add_argument("--pythons", nargs="+", metavar="WHICH",
                        help="of the Python program (%s)" % " ".join(VERSIONS))
    parser.add_argument("--library", default=LIBRARY, help="another libobmalloc.so")
    parser.add_argument("--record", action="store_true", help="for c_tests/PROVEN.md")
    return parser.parse_args()


def main():
    global LIBRARY
    options = arguments()
    LIBRARY = os.path.abspath(options.library)
    total = options.seconds or options.minutes * 60
    again = "c_tests/soak/run.py --seed %d --seconds %g" % (options.seed, total)
    say("seed %d; again: %s" % (options.seed, again))
    folder = tempfile.mkdtemp(prefix="obmalloc-soak-")
    began, passed = time.monotonic(), []
    versions = options.pythons or (VERSIONS if total >= 60 else FEW)
    left_out = [word for word in VERSIONS if word not in versions]
    if left_out and not options.pythons:
        say("left out in less than a minute: Pythons %s (make soak)" % ", ".join(left_out))
    found = choose(versions) if options.only != "c" else []
    lanes = []
    if options.only != "python":
        lanes.append(lives_of_c(build(folder), total, random.Random(options.seed)))
    if found:
        lanes.append(lives_of_python(found, total, random.Random(options.seed + 1)))
    threads = [threading.Thread(target=lambda lane=lane: passed.extend(
        life for life in lane if life.run())) for lane in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shutil.rmtree(folder)
    took = time.monotonic() - began
    lives = [life for lane in lanes for life in lane]
    amount = {key: sum(life.lines[-1].get(key, 0) for life in lives if life.lines)
              for key in COUNTED}
    cycles = sum(len(life.lines) for life in lives)
    say(", ".join("%d %s" % (n, key.replace("_", " ")) for key, n in amount.items()))
    failed = ["%-13s FAILED: %s" % (life.name, text.replace("\n", "\n    "))
              for life in lives for text in life.wrong]
    if failed:
        say("\n".join(["what failed, again:"] + failed))
    say("%d lives, %d cycles, %.0f s: %d passed, %d failed, seed %d"
        % (len(lives), cycles, took, len(passed), len(lives) - len(passed), options.seed))
    good = len(passed) == len(lives) > 0
    if options.record and good:
        record(options, amount, cycles, took, found)
    return 0 if good else 1


def record(options, amount, cycles, took, found):
    name = "SECONDS=%g" % options.seconds if options.seconds else "MINUTES=%g" % options.minutes
    text = ("%d cycles: %.2g operations in C, %.2g bytes looked at, %d object trees; %d threads, "
            "%d forks, %d execs, %d sub-interpreters, %d trims, %d requests refused" % (
                cycles, amount["operations"], amount["bytes_looked_at"], amount["trees"],
                amount["threads"], amount["forks"] + amount["processes"], amount["execs"],
                amount["interpreters"], amount["trims"], amount["refused"]))
    versions = ", ".join(["C"] + ["CPython " + python.label for python in found])
    proven.keep("soak", "make soak %s SEED=%d" % (name, options.seed), text, took, versions,
                "no block changed or lost; nothing grew")


if __name__ == "__main__":
    sys.exit(main())
