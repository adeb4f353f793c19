#!/usr/bin/env python3
"""Records of long runs, and the table made from them.

A run that takes half an hour or a night is not part of `make test`; what it found is
kept here: one file for each kind of run, c_tests/proven/NAME.json, the newest run in the
place of the one before, and c_tests/PROVEN.md, a table of all of them.

    proven.keep(NAME, command="make fuzz", amount="1.3e9 operations", seconds=1800,
                versions="...", result="no finding")    in the program that ran it
    c_tests/proven.py record NAME --command "make fuzz" ...     by hand, in the same words
    c_tests/proven.py            writes the table (after a merge, for one)
    c_tests/proven.py --check    fails if the table is not what the records say

Date, commit and machine are added to a record. A record has no path and no host name of
one machine or service in it, since it is to be repeated on another.
"""

import argparse
import datetime
import json
import math
import os
import platform
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
RECORDS = os.path.join(HERE, "proven")
TABLE = os.path.join(HERE, "PROVEN.md")

# What a run of a name is, in the order of the table. Other names come after these.
KINDS = {
    "model": "random operations against a model",
    "fuzz": "operations found by a fuzzer",
    "loom": "all interleavings of small thread models",
    "stepper": "a fork at each instruction of another thread",
    "tsan": "threads under ThreadSanitizer",
    "miri": "the sources' tests under Miri",
    "forks": "forks under load",
    "soak": "everything at once, for long",
}
COMPAT = re.compile(r"compat-(.+)")     # the packages, last

NAME = re.compile(r"[a-z0-9][a-z0-9_.+-]*")
TEXTS = ("name", "command", "amount", "versions", "result", "date", "commit", "machine")
ABSOLUTE = re.compile(r"(?:^|[\s\"'`=:,;(\[])(~?/[\w.+-]+/?)")
HOST = re.compile(r"\w+://|\b[\w-]+\.(?:org|com|net|io|dev)\b", re.I)

HEAD = """\
# Long runs

What was run beyond `make test`: how much, for how long, on what, and what came of it.
The last column repeats it. Written from the records in [`proven/`](proven) by
`make proven`; a run writes its record itself, and a newer one takes its place.
"""


# ---- what a record says ----

def said(*command):
    """The first line that a command prints; empty if there is no such command."""
    try:
        out = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL).stdout.decode("utf-8", "replace")
    except OSError:
        return ""
    return (out.splitlines() or [""])[0].strip()


def found(path, pattern):
    with open(path, encoding="utf-8", errors="replace") as stream:
        match = re.search(pattern, stream.read(), re.M)
    return match.group(1).strip() if match else "?"


def machine():
    """'AMD EPYC, 2 cores, 24 GiB, Linux 6.1, glibc 2.36': the kind, not the name."""
    kernel = ".".join(platform.release().split("-")[0].split(".")[:2])
    return "%s, %d cores, %.0f GiB, Linux %s, %s" % (
        found("/proc/cpuinfo", r"^model name\s*: (.*)$"), os.cpu_count(),
        int(found("/proc/meminfo", r"^MemTotal:\s*(\d+)")) / 2**20, kernel,
        " ".join(platform.libc_ver()))


def commit():
    """Of HEAD; "-dirty" if anything but the records differs from it."""
    changed = said("git", "status", "--porcelain", "--untracked-files=no", "--", ".",
                   ":!c_tests/proven", ":!c_tests/PROVEN.md")
    return said("git", "rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")


def complaint(record, name):
    """Why a record cannot stand, None if it can."""
    if not isinstance(record, dict):
        return "no JSON object"
    for key in TEXTS + (("what",) if "what" in record else ()):
        text = record.get(key)
        if not isinstance(text, str) or not text.strip() or "\n" in text:
            return "%s is not a line of text" % key
        path, host = ABSOLUTE.search(text), HOST.search(text)
        if path:
            return "%s names a path of one machine: %s" % (key, path.group(1))
        if host:
            return "%s names a host: %s" % (key, host.group())
    if record["name"] != name or not NAME.fullmatch(name):
        return "the name is %r" % record["name"]
    seconds = record.get("seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or seconds <= 0:
        return "seconds are not a number above 0"
    unknown = set(record) - set(TEXTS) - {"seconds", "what"}
    return "unknown: %s" % ", ".join(sorted(unknown)) if unknown else None


def load():
    """All records, in the table's order; ends the program if one is no record."""
    records = []
    for entry in sorted(os.listdir(RECORDS)) if os.path.isdir(RECORDS) else []:
        stem, suffix = os.path.splitext(entry)
        if suffix != ".json":
            continue
        with open(os.path.join(RECORDS, entry), encoding="utf-8") as stream:
            try:
                record = json.load(stream)
            except ValueError as error:
                sys.exit("c_tests/proven/%s: %s" % (entry, error))
        wrong = complaint(record, stem)
        if wrong:
            sys.exit("c_tests/proven/%s: %s" % (entry, wrong))
        records.append(record)
    kinds = list(KINDS)

    def place(record):
        name = record["name"]
        return (kinds.index(name) if name in kinds else len(kinds), bool(COMPAT.match(name)), name)

    return sorted(records, key=place)


# ---- the table ----

def what(record):
    package = COMPAT.fullmatch(record["name"])
    return (record.get("what") or KINDS.get(record["name"])
            or ("the tests of %s" % package.group(1) if package else record["name"]))


def duration(seconds):
    if seconds < 120:
        return "%.0f s" % seconds
    return "%.0f min" % (seconds / 60) if seconds < 7200 else "%.1f h" % (seconds / 3600)


def made():
    """What PROVEN.md is to be."""
    rows = [("what", "how much", "time", "on", "result", "commit", "date", "again")]
    rows.append(("---", "---", "---:", "---", "---", "---", "---", "---"))
    records = load()
    for record in records:
        rows.append((what(record), record["amount"], duration(record["seconds"]),
                     "%s; %s" % (record["versions"], record["machine"]), record["result"],
                     record["commit"], record["date"], "`%s`" % record["command"]))
    lines = ["| %s |" % " | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    return HEAD + "\n" + "\n".join(lines if records else ["No records yet."]) + "\n"


def write_table():
    with open(TABLE, "w", encoding="utf-8") as stream:
        stream.write(made())


def check():
    try:
        with open(TABLE, encoding="utf-8") as stream:
            there = stream.read()
    except OSError:
        sys.exit("c_tests/PROVEN.md is not there (make proven)")
    if there != made():
        sys.exit("c_tests/PROVEN.md is not what its records say (make proven)")
    print("ok: %d long runs, as their records say" % len(load()))


def keep(name, command, amount, seconds, versions, result, what=None):
    """Keeps a run, and writes the table; ends the program if that is no record."""
    record = {"name": name, "command": command, "amount": amount, "seconds": math.ceil(seconds),
              "versions": versions, "result": result,
              "date": datetime.date.today().isoformat(), "commit": commit(), "machine": machine()}
    if what:
        record["what"] = what
    wrong = complaint(record, name)
    if wrong:
        sys.exit("no record of %s: %s" % (name, wrong))
    os.makedirs(RECORDS, exist_ok=True)
    with open(os.path.join(RECORDS, name + ".json"), "w", encoding="utf-8") as stream:
        stream.write(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    write_table()


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    words = parser.add_subparsers(dest="word")
    record = words.add_parser("record", help="keep a run, and write the table")
    record.add_argument("name")
    record.add_argument("--command", required=True, help="what repeats it")
    record.add_argument("--amount", required=True, help="how much was run")
    record.add_argument("--seconds", required=True, type=float)
    record.add_argument("--versions", required=True, help="of interpreters, tools, packages")
    record.add_argument("--result", required=True)
    record.add_argument("--what", help="what it is, for a name that is not a known one")
    options = parser.parse_args()
    if options.check:
        check()
    elif options.word == "record":
        keep(**{key: value for key, value in vars(options).items()
                if key not in ("check", "word")})
    else:
        write_table()


if __name__ == "__main__":
    main()
