"""docs/evidence.md: the results of runs that take too long for `make test`.

A long target calls `record` at its end. The row that the page has for the same run is
replaced; a new row is added to the table of its section. Date, commit and machine are added
here. The page is public, so a cell may contain neither an absolute path nor a host name.
"""

import datetime
import os
import platform
import re
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PAGE = os.path.join(ROOT, "docs", "evidence.md")
COLUMNS = ("run", "amount", "result", "time", "tested with", "machine", "commit", "date", "command")
PRIVATE = re.compile(r"(?:^|[\s\"'`=:,;(\[])~?/[\w.+-]+|\w+://|\b[\w-]+\.(?:org|com|net|io|dev)\b")


def record(what, command, result, amount, seconds, versions, section, page=PAGE):
    """Writes the row of a run.

    what      names the run, and is the key of its row: "soak", "numpy"
    command   repeats it: "make soak MINUTES=60"
    result    "no finding"
    amount    how much was run: "63849 orders of 13 models"
    seconds   how long it took
    versions  interpreters, tools and packages that took part
    section   the heading of the page under which the row is
    """
    cells = [what, amount, result, _duration(seconds), versions, machine(), commit(),
             datetime.date.today().isoformat(), "`%s`" % command]
    row = "| %s |\n" % " | ".join(_cell(cell) for cell in cells)
    with open(page, encoding="utf-8") as stream:
        lines = stream.readlines()
    start, end = _table(lines, section)
    same = [at for at in range(start, end) if lines[at].startswith("| %s |" % _cell(what))]
    if same:
        lines[same[0]] = row
    else:
        lines.insert(end, row)
    with open(page, "w", encoding="utf-8") as stream:
        stream.writelines(lines)


def _table(lines, section):
    """The lines of the table's body under a heading: the first one, and the one after it."""
    at = lines.index("## %s\n" % section)
    rule = next(n for n in range(at, len(lines)) if lines[n].startswith("| ---"))
    end = rule + 1
    while end < len(lines) and lines[end].startswith("|"):
        end += 1
    return rule + 1, end


def _cell(text):
    text = " ".join(str(text).split())
    private = PRIVATE.search(text)
    if not text or private:
        raise ValueError("not a cell of docs/evidence.md (%s): %r"
                         % (private.group().strip() if private else "empty", text))
    return text.replace("|", "\\|")


def _duration(seconds):
    if seconds < 120:
        return "%.0f s" % max(seconds, 1)
    return "%.0f min" % (seconds / 60) if seconds < 7200 else "%.1f h" % (seconds / 3600)


def machine():
    """Processor, cores, memory, kernel and C library, without the host's name."""
    kernel = ".".join(platform.release().split("-")[0].split(".")[:2])
    return "%s, %d cores, %.0f GiB, Linux %s, %s" % (
        _field("/proc/cpuinfo", "model name"), os.cpu_count(),
        int(_field("/proc/meminfo", "MemTotal").split()[0]) / 2**20, kernel,
        " ".join(platform.libc_ver()))


def _field(path, name):
    with open(path, encoding="utf-8", errors="replace") as stream:
        match = re.search(r"^%s\s*: *(.+)$" % name, stream.read(), re.M)
    return match.group(1) if match else "0"


def commit():
    """The abbreviated commit; "-dirty" if a file other than those of results differs from it."""
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".",
                   ":!docs/evidence.md", ":!docs/platforms.*")
    return (_git("rev-parse", "--short", "HEAD") or "unknown") + ("-dirty" if changed else "")


def _git(*arguments):
    try:
        return subprocess.run(["git", "-C", ROOT, *arguments], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, universal_newlines=True).stdout.strip()
    except OSError:
        return ""
