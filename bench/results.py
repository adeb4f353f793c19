"""Results as files in pyperf's format: bench/results/BENCHMARK/PLACE/SIDE.json.

A file has the rows of one side: one pyperf benchmark for each row, one run for each process.
Rows are seconds, bytes or counts; pyperf has all three units. The metadata name the commit,
the command, the machine and the versions, so a file can be read without its neighbours, and
`python3 -m pyperf compare_to` takes any two of them. A new result replaces the old one, which
the history of the repository keeps.
"""

import datetime
import glob
import json
import os
import platform
import re
import subprocess
from dataclasses import dataclass, field

import hosts

FOLDER = os.path.join(hosts.HERE, "results")
SCRATCH = os.path.join(hosts.BUILD, "results")      # without --record


@dataclass
class Row:
    """One figure of one side, with a value for each round."""
    unit: str                                   # second, byte, integer
    values: list = field(default_factory=list)


def first_line(*command):
    """The first line that a command prints; empty if there is no such command."""
    try:
        result = subprocess.run(command, cwd=hosts.ROOT, stdout=subprocess.PIPE,
                                stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    except OSError:
        return ""
    return (result.stdout.decode("utf-8", "replace").splitlines() or [""])[0].strip()


def matched(path, pattern):
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            match = re.search(pattern, stream.read(), re.M)
    except OSError:
        return ""
    return match.group(1).strip() if match else ""


def about():
    """The metadata of a result, but for the benchmark's own."""
    known = {"date": datetime.date.today().isoformat() + " 00:00:00",
             "commit": first_line("git", "describe", "--always", "--dirty"),
             "command": hosts.command_line(),
             "cpu_model_name": matched("/proc/cpuinfo", r"^model name\s*: (.*)$"),
             "cpu_count": os.cpu_count(),
             "memory_kib": int(matched("/proc/meminfo", r"^MemTotal:\s*(\d+)") or 0),
             "kernel": platform.release(),
             "huge_pages": matched("/sys/kernel/mm/transparent_hugepage/enabled", r"\[(\w+)\]"),
             "libc": " ".join(platform.libc_ver()), "rustc": first_line("rustc", "--version"),
             "cc": first_line("cc", "--version"), "valgrind": first_line("valgrind", "--version")}
    return {key: value for key, value in known.items() if value}


def path_of(benchmark, place, side, record):
    return os.path.join(FOLDER if record else SCRATCH, benchmark, place.replace(" ", "-"),
                        side.replace(" ", "-") + ".json")


def store(benchmark, place, sides, record, **more):
    """Writes {side: {name: Row}}; returns the paths. pyperf has no values of 0: they are left
    out."""
    import pyperf
    paths, common = [], dict(about(), place=place, **more)
    for side, rows in sides.items():
        made = []
        for name, row in rows.items():
            metadata = dict(common, name=name, unit=row.unit, side=side)
            runs = [pyperf.Run([value], metadata=metadata, collect_metadata=False)
                    for value in row.values if value > 0]
            made += [pyperf.Benchmark(runs)] if runs else []
        paths.append(path_of(benchmark, place, side, record))
        os.makedirs(os.path.dirname(paths[-1]), exist_ok=True)
        pyperf.BenchmarkSuite(made).dump(paths[-1], replace=True)
    return paths


def load(path):
    """(metadata, {name: Row}) of a file, without pyperf. A name's order is the file's."""
    with open(path, encoding="utf-8") as stream:
        suite = json.load(stream)
    rows = {}
    for benchmark in suite["benchmarks"]:
        metadata = dict(suite.get("metadata", {}), **benchmark.get("metadata", {}))
        row = rows.setdefault(metadata["name"], Row(metadata.get("unit", "second")))
        peak = rows.setdefault(metadata["name"] + ", peak", Row("byte"))
        for run in benchmark["runs"]:
            row.values += run.get("values", [])
            peak.values += [value for key, value in run.get("metadata", {}).items()
                            if key in ("mem_max_rss", "command_max_rss")]
    head = dict(suite["benchmarks"][0].get("metadata", {}), **suite.get("metadata", {}))
    return head, {name: row for name, row in rows.items() if row.values}


def newest(benchmark):
    """(metadata, {place: {side: {name: Row}}}) of the committed result; None without one."""
    places, head = {}, {}
    for path in sorted(glob.glob(os.path.join(FOLDER, benchmark, "*", "*.json"))):
        head, rows = load(path)
        places.setdefault(head["place"], {})[head["side"]] = rows
    return (head, places) if places else None
