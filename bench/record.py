"""Dated records of measurements: what was measured, where, on what, with which commit.

A measurement ends with `write`; the tables of docs/figures.md are made from the newest record of
each topic (bench/figures.py). A record is one JSON file, bench/records/DATE-TOPIC.json: a
second one on the same day takes the first one's place.
"""

import datetime
import glob
import json
import os
import platform
import re
import shlex
import subprocess
import sys

import pairs

FOLDER = os.path.join(pairs.HERE, "records")


def said(*command):
    """The first line that a command prints; empty if there is no such command."""
    try:
        result = subprocess.run(command, cwd=pairs.ROOT, stdout=subprocess.PIPE,
                                stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    except OSError:
        return ""
    return (result.stdout.decode("utf-8", "replace").splitlines() or [""])[0].strip()


def found(path, pattern):
    """What a pattern's group matches in a file; empty if there is no such thing."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            match = re.search(pattern, stream.read(), re.M)
    except OSError:
        return ""
    return match.group(1).strip() if match else ""


def machine():
    return {"cpu": found("/proc/cpuinfo", r"^model name\s*: (.*)$"),
            "cores": os.cpu_count(),
            "memory_kib": int(found("/proc/meminfo", r"^MemTotal:\s*(\d+)") or 0),
            "kernel": platform.release(),
            "huge_pages": found("/sys/kernel/mm/transparent_hugepage/enabled", r"\[(\w+)\]")}


def versions():
    return {"rustc": said("rustc", "--version"), "cc": said("cc", "--version"),
            "libc": " ".join(platform.libc_ver()), "valgrind": said("valgrind", "--version")}


def without_library(arguments):
    """The arguments without `--library PATH`: a copy of what was built says nothing here."""
    if "--library" not in arguments:
        return arguments
    at = arguments.index("--library")
    return arguments[:at] + arguments[at + 2:]


def write(topic, rows, **more):
    """Writes a record: `rows` are dicts of plain values. Returns its path from the root."""
    about = {"topic": topic, "date": datetime.date.today().isoformat(),
             "commit": said("git", "describe", "--always", "--dirty"),
             "command": shlex.join(["python3", os.path.relpath(sys.argv[0], pairs.ROOT)]
                                   + without_library(sys.argv[1:])),
             "machine": machine(), "versions": versions()}
    path = os.path.join(FOLDER, "%s-%s.json" % (about["date"], topic))
    os.makedirs(FOLDER, exist_ok=True)
    head = ",\n".join(" %s: %s" % (json.dumps(key), json.dumps(value))
                      for key, value in dict(about, **more).items())
    body = ",\n".join("  " + json.dumps(row) for row in rows)
    with open(path, "w", encoding="utf-8") as stream:
        stream.write('{\n%s,\n "rows": [\n%s\n ]\n}\n' % (head, body))
    return os.path.relpath(path, pairs.ROOT)


def newest(topic):
    """The newest record of a topic, None if there is none."""
    paths = sorted(glob.glob(os.path.join(FOLDER, "????-??-??-%s.json" % topic)))
    if not paths:
        return None
    with open(paths[-1], encoding="utf-8") as stream:
        return json.load(stream)
