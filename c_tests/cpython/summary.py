"""Write what whole suites came to as Markdown: one line of numbers a version.

A table with a row for each of several hundred modules would not be read, so only
the modules that look at memory have one.
"""

import table
from modules import MEMORY
from verdict import MODULE

LEGEND = """\
Both sides are the same interpreter, linked by the same command (`relink/relink.py`):
once with CPython's own `obmalloc.o`, once with `libobmalloc.a` at its place. Every
test of a module must end in the same way on both sides; a test that fails on both
sides is counted among the equal ones, and in a column of its own.
"""

COLUMNS = ("version", "modules", "equal", "different", "nothing ran", "tests equal",
           "of them failing on both sides", "skipped on both sides")


def is_equal(result):
    return result.word != "failed" and not result.nothing_ran


def numbers(label, results):
    """One row of the first table."""
    verdicts = [one.verdict for one in results]
    return (label, len(results), sum(is_equal(one) for one in results),
            sum(one.word == "failed" for one in results),
            sum(one.word == "skipped" for one in results),
            sum(verdict.tests for verdict in verdicts),
            sum(len(verdict.failing) for verdict in verdicts),
            sum(verdict.skipped for verdict in verdicts))


def row(cells):
    return "| %s |" % " | ".join(str(cell) for cell in cells)


def by_version(title, labels, results, pick):
    """A section with one line a version: the modules for which `pick` has a text."""
    lines = []
    for label in labels:
        texts = [pick(one) for one in results if one.label == label]
        texts = [text for text in texts if text]
        if texts:
            lines.append("- %s: %s" % (label, ", ".join(texts)))
    return ["", "## " + title, ""] + (lines or ["None."])


def failing(one):
    count = len(one.verdict.failing)
    return "%s (%d)" % (one.module, count) if count else ""


def broke_off(one):
    verdict = one.verdict
    if verdict.ending and all(item.test_id != MODULE for item in verdict.differences):
        return "%s (%s, after %d equal tests)" % (one.module, verdict.ending,
                                                  verdict.tests)
    return ""


def memory_rows(labels, results):
    """The results of the memory modules by (label, row of MEMORY)."""
    by_name = {(one.label, one.module): one for one in results}
    chosen = {}
    for names in MEMORY:
        for label in labels:
            for name in names.split("|") + ["test.%s.%s" % (names, names)]:
                if (label, name) in by_name:
                    chosen.setdefault((label, names), by_name[label, name])
    return chosen


def markdown(header, labels, results, missing):
    """The whole report.  `results` maps (label, module row) to a result."""
    ordered = sorted(results.values(), key=lambda one: (labels.index(one.label),
                                                        one.module))
    lines = ["# CPython's own tests with its own obmalloc.o and with libobmalloc.a", ""]
    lines += ["- %s: %s" % pair for pair in header]
    lines += ["- not available: %s (%s)" % (label, table.without_folders(reason))
              for label, reason in missing]
    lines += ["", LEGEND, row(COLUMNS), "|---" * len(COLUMNS) + "|"]
    for label in labels:
        own = [one for one in ordered if one.label == label]
        lines.append(row(numbers(label, own)))

    def findings(name):
        return lambda one: ["`%s`" % item for item in getattr(one.verdict, name)]

    active = [one for one in ordered if not one.inactive]
    lines += table.rows_of("Differences", active, findings("differences"))
    lines += table.rows_of("Not compared: the library is not active",
                           [one for one in ordered if one.inactive],
                           lambda one: ["failed"])
    lines += table.rows_of("Seen in the smaller part of the runs with the library only",
                           active, findings("sometimes"))
    lines += table.rows_of("Known differences", active, findings("known"))
    lines += table.rows_of("Flaky with CPython's own too", active, findings("flaky"))
    lines += table.rows_of("Left out: they crash or hang the run with CPython's own",
                           active, findings("left_out"))
    lines += by_version("Broke off on both sides", labels, active, broke_off)
    lines += by_version("Tests that fail on both sides", labels, active, failing)
    lines += by_version("Nothing ran on either side", labels, active,
                        lambda one: one.module if one.nothing_ran else "")
    lines += ["", "## The modules that look at memory", "",
              "Tests with equal outcomes, as `compare.py --memory` selects the modules.",
              ""]
    lines += table.module_table(labels, MEMORY, memory_rows(labels, ordered))
    return "\n".join(lines) + "\n"
