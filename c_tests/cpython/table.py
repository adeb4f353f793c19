"""Write the results as a Markdown table: one row a module, one column an interpreter."""

import re

from verdict import MODULE

LEGEND = """\
Each cell says how a module's results without the library compare with its results
with it: `123 =` means that 123 tests ran and ended in the same way on both sides
(tests which both sides skip are not counted), `123 ≠ 2` that 123 did and 2 did not.
`known n`: n differences that are expected, listed below with their reasons.
`flaky n`: n tests vary without the library too. `sometimes n`: n tests differed in
the smaller part of the repeated runs. `left out n`: n tests hang or crash the run
without the library too, so neither side runs them. `skipped`: both sides skip every
test, or cannot import the module. `broke off`: both sides crash or hang at the same
place; the count is of the tests before it. `-`: this version does not install the
module. `inactive`: the library did not become active in this interpreter, so nothing
was compared, which counts as failed.
"""


def cell(result):
    """The text of one module x interpreter result."""
    if result is None:
        return "-"
    if result.inactive:
        return "inactive"
    verdict = result.verdict
    if result.nothing_ran:
        return "skipped" if verdict.state else "no result"
    parts = ["%d =" % verdict.tests if verdict.equal
             else "%d ≠ %d" % (verdict.tests, len(verdict.differences))]
    for name in ("known", "flaky", "sometimes"):
        findings = getattr(verdict, name)
        if findings:
            parts.append("%s %d" % (name, len(findings)))
    if verdict.left_out:
        parts.append("left out %d" % len(verdict.left_out))
    if verdict.ending and verdict.equal:
        parts.append("broke off")
    return ", ".join(parts)


def without_folders(text):
    """The text with absolute paths cut to their last part."""
    return re.sub(r"(?<![\w.])(?:/[\w.+@-]+)+/(?=[\w.+@-])", "", text)


def rows_of(title, results, pick):
    """A section that lists something of every result; empty when there is nothing."""
    lines = []
    for result in results:
        for item in pick(result):
            lines.append("- %s, %s: %s" % (result.label, result.module,
                                              without_folders(item)))
    return ["", "## " + title, ""] + (lines or ["None."])


def sections(results):
    """The lists below the table, as Markdown lines."""
    compared = [one for one in results if not one.inactive]
    inactive = [one for one in results if one.inactive]

    def findings(name):
        return lambda one: ["`%s`" % item for item in getattr(one.verdict, name)]

    lines = rows_of("Differences", compared, findings("differences"))
    lines += rows_of("Not compared: the library is not active", inactive,
                     lambda one: ["failed"])
    lines += rows_of("Seen in the smaller part of the runs with the library only",
                     compared, findings("sometimes"))
    lines += rows_of("Known differences", compared, findings("known"))
    lines += rows_of("Known entries that no longer differ (stale)", compared,
                     lambda one: ["`%s`" % test_id for test_id in one.verdict.stale])
    lines += rows_of("Flaky without the library too", compared, findings("flaky"))
    lines += rows_of("Left out: they crash or hang the run without the library",
                     compared, findings("left_out"))
    lines += rows_of("Broke off on both sides", compared, lambda one:
                     [one.verdict.ending] if one.verdict.ending
                     and all(item.test_id != MODULE
                             for item in one.verdict.differences) else [])
    lines += rows_of("Nothing ran on either side", compared, lambda one:
                     [one.why_nothing_ran()] if one.nothing_ran else [])
    return lines


def module_table(labels, modules, results):
    """One row a module, one column an interpreter, as Markdown lines."""
    lines = ["| module | " + " | ".join(labels) + " |",
             "|---" * (len(labels) + 1) + "|"]
    for module in modules:
        cells = [cell(results.get((label, module))) for label in labels]
        lines.append("| %s | %s |" % (module.replace("|", " or "), " | ".join(cells)))
    return lines


def markdown(header, labels, modules, results, missing):
    """The whole report.  `results` maps (label, module row) to a result or None."""
    lines = ["# CPython's own tests without and with the library", ""]
    lines += ["- %s: %s" % (name, value) for name, value in header]
    lines += ["- not available: %s (%s)" % (label, reason) for label, reason in missing]
    lines += ["", LEGEND] + module_table(labels, modules, results)
    in_order = sorted(results.values(), key=lambda one: labels.index(one.label))
    lines += sections(in_order)
    return "\n".join(lines) + "\n"
