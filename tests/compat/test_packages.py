"""Other people's packages: their own tests, without the library and with it preloaded.

For each project of projects.py and each interpreter, pip brings the wheel into an
environment of its own, and the project's tests are run by pytest, in one process, in the
same order, with the same seeds: once as they are, once with the library in LD_PRELOAD, and
where the table says so once more packed (OBMALLOC_ALIGN=8). Each test has to end in the same
way. Where one does not, its file is run three more times on each side, which tells what
is flaky from what is ours; c_tests/cpython/verdict.py judges.

That the library was active is told by the process that ran the tests: it is mapped there,
and its statistics at exit name this process and this CPython, and pools in use. A
side without that proof fails.

What cannot be fetched, or has no wheel, is skipped and said. The runs are kept in
FOLDER/results, with the tracebacks of what failed.

    c_tests/compat/packages.py [--only numpy,lxml] [--pythons 3.11,static] [--record]
"""

import argparse
import dataclasses
import hashlib
import json
import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
for folder in ("preload", "cpython", ""):
    sys.path.append(os.path.join(ROOT, "c_tests", folder))

import fetch  # noqa: E402
import proven  # noqa: E402
import pythons  # noqa: E402
import runner  # noqa: E402
from projects import INTERPRETERS, KNOWN, PROJECTS, QUICK  # noqa: E402
from store import Store  # noqa: E402
from verdict import BAD, judge  # noqa: E402

LIBRARY = os.path.join(os.environ.get("CARGO_TARGET_DIR") or os.path.join(ROOT, "target"),
                       os.environ.get("CARGO_BUILD_TARGET", ""), "release", "libobmalloc.so")
RERUNS = 3
SIDES = {"preloaded": {}, "packed": {"OBMALLOC_ALIGN": "8"}}


class Suite:
    """A project's tests in one environment, and how pytest is told to run them."""

    def __init__(self, project, python, folder):
        self.project, self.python = project, python
        self.inside = fetch.environment(project, python, folder)
        self.places = {"PACKAGES": fetch.site_packages(self.inside)}
        if project.graft:
            fetch.graft(project, self.inside, folder)
        if project.keep:
            self.places["TESTS"] = fetch.tests(project, folder)
        if project.build:
            self.places["BUILD"] = fetch.build(project, python, self.inside, self.places, folder)
        self.places["ROOT"] = self.root = self.at(project.root)
        self.label = "%s %s, %s" % (project.title or project.name, project.version,
                                    python.label)
        self.store = Store(os.path.join(folder, "results", project.label,
                                        python.label.replace(" ", "-")), self.inside)

    def at(self, text):
        """A text of the table, with the names of places replaced."""
        return fetch.at(text, self.places)

    def words(self, part=()):
        """The command; of a part of the suite, if one is named: see `differing`."""
        what = [self.at(word) for word in self.project.what]
        plugin = os.path.join(HERE, "plugin", "obmalloc_unittest.py")
        if self.project.runner == "unittest":
            return [self.inside, plugin, "modules"] + list(part or what)
        if self.project.runner == "script":
            return [self.inside, plugin, "script", os.path.join(self.root, what[0])] + what[1:]
        found = [os.path.join(self.root, name) for name in
                 ("pytest.ini", "pyproject.toml", "setup.cfg")
                 if self.project.root == "{TESTS}"]
        settings = [path for path in found if os.path.exists(path)] + [os.devnull]
        return [self.inside, "-m", "pytest", "-q", "-p", "no:cacheprovider",
                "-p", "obmalloc_record", "-c", settings[0],
                "--rootdir", self.root, "--confcutdir", self.root] + \
            [self.at(word) for word in self.project.options] + \
            [os.path.join(self.root, path) for path in part or what]

    def run(self, side, options, part=()):
        """One run of the whole, or of a part, of one side."""
        def settings(folder):
            tools = os.path.dirname(self.inside)
            chosen = {"PYTHONHASHSEED": "0", "PYTHONPATH": os.path.join(HERE, "plugin"),
                      "PATH": os.pathsep.join((tools, os.environ["PATH"])),
                      "COMPAT_OUTCOMES": os.path.join(folder, "outcomes")}
            for name, value in self.project.settings.items():
                chosen[name] = os.pathsep.join(filter(None, (chosen.get(name), self.at(value))))
            if side != "stock":
                chosen.update(SIDES[side], LD_PRELOAD=options.library,
                              OBMALLOC_STATS=os.path.join(folder, "stats-%p.json"))
            return chosen

        def command(outfile):
            return [word.replace("{WORK}", os.path.join(os.path.dirname(outfile), "t", "work"))
                    for word in self.words(part)]
        run = runner.run_command(command, settings, self.project.minutes * 60, options.stall)
        if run.state and run.ending == "exit status 1":
            run.ending = ""     # some test failed; the run reached its end
        return run

    def whole(self, side, options):
        """The first run of a side; stock's may be one of an earlier comparison."""
        name = side + "-" + hashlib.sha256(" ".join(self.words()).encode()).hexdigest()[:8]
        if side == "stock" and options.reuse:
            kept = self.store.load(name, same_build=True)
            if kept:
                return kept[0]
        run = self.run(side, options)
        self.store.save(name, [run])
        return run


def why_inactive(run, version):
    """What is missing in the proof that the library served this run; "" for nothing."""
    if run.ending:
        return ""               # it left no statistics, and is judged by how it ended
    if os.path.basename(LIBRARY) not in run.mapped:
        return "it is not mapped"
    try:
        stats = json.loads(run.stats)
    except ValueError:
        return "no statistics of the process that ran the tests"
    if stats["host"] != version or stats["pid"] != run.pid:
        return "statistics of another process"
    return "" if stats["pools"]["used"] else "no pool is in use"


def differing(one, other):
    """The files, or modules, with tests that ended differently in two runs: what the
    ids begin with."""
    names = [name for name in set(one.outcomes) | set(other.outcomes)
             if one.outcomes.get(name) != other.outcomes.get(name)]
    files = {name.split("::")[0] for name in names}
    return sorted(files | {run.last_test.split("::")[0] for run in (one, other)
                           if run.last_test} - {""})


def merged(first, again):
    """The whole run as it would have been with what a part of it did another time."""
    run = dataclasses.replace(first, outcomes={**first.outcomes, **again.outcomes},
                              ending=again.ending, last_test=again.last_test)
    return with_state(run)


def with_state(run):
    """The state told by the outcomes, so that runs of parts can be compared."""
    bad = any(BAD & set(found) for found in run.outcomes.values())
    return dataclasses.replace(run, state=run.state and ("failed" if bad else "passed"))


def compare(suite, side, stock, options):
    """(Verdict, what else was wrong, seconds of this side)."""
    ours = suite.whole(side, options)
    base, other = [with_state(stock)], [with_state(ours)]
    inactive = why_inactive(ours, suite.python.version)
    files = differing(stock, ours)
    for _ in range(RERUNS if files and not inactive else 0):
        for runs, name in ((base, "stock"), (other, side)):
            again = suite.run(name, options, files)
            runs.append(merged(runs[0], again))
    if files:
        suite.store.save(side + "-reruns", base[1:] + other[1:])
    verdict = judge(suite.project.name, base, other, KNOWN)
    wrong = ["%s: the library was not active: %s" % (side, inactive)] if inactive else []
    if stock.ending and not verdict.differences:
        wrong.append("it broke off on both sides: %s" % stock.ending)
    elif not verdict.tests:
        wrong.append("no test ran")
    return verdict, wrong, ours.seconds


def show(suite, side, verdict, wrong, seconds):
    """One line, and below it what a reader has to know. Returns the complaints."""
    complaints = wrong + ["%s: %s" % (side, item) for item in verdict.differences]
    word = "DIFFERENT" if complaints else "equal"
    print("%s, %s: %d passed, %d failed on both sides, %d skipped, %.0f s: %s" % (
        suite.label, side, verdict.tests - len(verdict.failing), len(verdict.failing),
        verdict.skipped, seconds, word))
    for title, found in (("known", verdict.known), ("sometimes", verdict.sometimes),
                         ("flaky", verdict.flaky), ("stale in KNOWN", verdict.stale)):
        for item in found:
            print("    %s: %s" % (title, item))
    for complaint in complaints:
        print("    failed: %s" % complaint)
    sys.stdout.flush()
    return complaints


def choose(wishes):
    """(interpreters, sentences about those that are not here)."""
    found, missing = pythons.find()[0], []
    chosen = []
    for minor, build in INTERPRETERS:
        fitting = [one for one in found if one.minor == (minor or one.minor)
                   and one.shared == (build == "shared") and one.numbers >= (3, 11)]
        if not fitting:
            missing.append("no %s CPython here" % " ".join(filter(None, (minor, build))))
        elif not wishes or (minor or build) in wishes:
            chosen.append(fitting[-1])
    return chosen, missing


def keep_record(project, labels, tests, seconds, result):
    """One record of a project."""
    proven.keep("compat-" + named(project),
                "c_tests/compat/packages.py --only " + named(project),
                "%d outcomes compared" % tests, seconds,
                "%s %s; CPython %s" % (project.name, project.version, ", ".join(labels)), result)


def one_project(project, interpreters, options):
    """Compares one project everywhere; returns (comparisons made, complaints)."""
    made, complaints, labels, tests, seconds, skipped = 0, [], [], 0, 0, 0
    for python in interpreters:
        try:
            suite = Suite(project, python, options.out)
        except fetch.Missing as missing:
            print("skip: %s %s, %s: %s" % (project.name, project.version, python.label,
                                           missing), flush=True)
            skipped += 1
            continue
        stock = suite.whole("stock", options)
        for side in ["preloaded"] + ["packed"] * project.packed:
            verdict, wrong, taken = compare(suite, side, stock, options)
            complaints += show(suite, side, verdict, wrong, taken)
            tests += verdict.tests
            seconds += taken
            made += 1
        labels.append(python.label)
    if options.record and made and not skipped:
        result = "%d differences" % len(complaints) if complaints else "equal"
        keep_record(project, labels, tests, seconds, result)
    return made, complaints


def named(project):
    return (project.title or project.name).lower()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="LIST", help="of the projects")
    parser.add_argument("--pythons", default="", metavar="LIST",
                        help="of the interpreters: %s" % ", ".join(
                            minor or build for minor, build in INTERPRETERS))
    parser.add_argument("--quick", action="store_true",
                        help="%s on the first interpreter" % " and ".join(QUICK))
    parser.add_argument("--record", action="store_true", help="write records (proven.py)")
    parser.add_argument("--reuse", action="store_true",
                        help="take stock's runs of an earlier comparison, if they are there")
    parser.add_argument("--stall", type=int, default=300, metavar="SECONDS",
                        help="give a run up when no test has ended for so long (%(default)s)")
    parser.add_argument("--library", default=LIBRARY, type=os.path.abspath)
    parser.add_argument("--out", metavar="FOLDER", type=os.path.abspath,
                        default=os.path.join(ROOT, "target", "compat"),
                        help="where environments and results are kept (target/compat)")
    options = parser.parse_args()
    runner.undo_ignored_signals()
    names = list(filter(None, options.only.lower().split(","))) or \
        (QUICK if options.quick else [])
    chosen = [one for one in PROJECTS if not names or named(one) in names]
    unknown = set(names) - {named(one) for one in chosen}
    if unknown or not chosen:
        parser.error("no such project: %s" % ", ".join(sorted(unknown)))
    interpreters, missing = choose(list(filter(None, options.pythons.split(","))))
    for sentence in missing:
        print("skip: " + sentence)
    if options.quick:
        interpreters = interpreters[:1]
    made, complaints, started = 0, [], time.monotonic()
    for project in chosen:
        count, found = one_project(project, interpreters, options)
        made, complaints = made + count, complaints + found
    print("packages: %d comparisons, %d differences, %.0f s" % (
        made, len(complaints), time.monotonic() - started))
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
