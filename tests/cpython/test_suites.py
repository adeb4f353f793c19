"""Compare CPython's own test suites without and with the library.

    python3 compare.py [--slice] [--library PATH] [--pythons LIST] [--modules LIST]
    python3 compare.py --relinked [--memory | --all] [--archive PATH] [--reuse-stock]

Every module runs in every interpreter twice, one run right after the other, in
equal environments that differ only in LD_PRELOAD.  The two sets of (test,
outcome) must be equal; a failure that both sides share is no difference.  When
they are not equal, both sides run twice more, and verdict.py decides.

With --relinked the two sides are two interpreters instead, which relink/relink.py
links: one with CPython's own obmalloc.o, one with libobmalloc.a at its place.
Their runs are kept in target/relink/results, and those of the first need not be
made again (--reuse-stock); --stored runs nothing and judges all that is kept there.
--all takes every module that the version's own regrtest would run.

The exit status is 0 only if at least one interpreter was compared and there is no
difference other than the ones listed with their reasons in known.py.
"""

import argparse
import datetime
import os
import shlex
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import interpreters as finder
import modules as selections
import runner
import summary
import table
from sides import Preloaded, Relinked, listed_tests
from verdict import Verdict, judge

TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# Where cargo builds.
RELEASE = os.path.join(os.environ.get("CARGO_TARGET_DIR") or os.path.join(TREE, "target"),
                       os.environ.get("CARGO_BUILD_TARGET", ""), "release")
EXTRA_RUNS = 2
MAX_LEFT_OUT = 4

_print_lock = threading.Lock()


def say(text):
    with _print_lock:
        print(text, flush=True)


class Result:
    """What one module x interpreter pair came to."""

    def __init__(self, label, module, verdict, inactive=False, seconds=0):
        self.label = label
        self.seconds = seconds
        self.module = module
        self.verdict = verdict
        self.inactive = inactive
        self.said = ["failed   %-14s the library is not active" % label] if inactive else []

    def say(self, text):
        """Says it now; what failed is said again at the end."""
        self.said.append(text)
        say(text)

    @property
    def nothing_ran(self):
        """Equal, but only because no test of the module ran on either side."""
        verdict = self.verdict
        return verdict.equal and not (verdict.tests or verdict.known or verdict.flaky
                                      or verdict.sometimes)

    @property
    def word(self):
        if self.inactive or not self.verdict.equal:
            return "failed"
        if not self.nothing_ran:
            return "passed"
        # Without the module's own line not even the reason for it is known.
        return "skipped" if self.verdict.state else "failed"

    def why_nothing_ran(self):
        skipped = self.verdict.skipped
        if skipped and self.verdict.state == "passed":
            return "both sides skip all %d tests" % skipped
        return self.verdict.state or self.verdict.ending


def run_without(interpreter, module, options, left_out):
    """One run without the library, which must reach the module's end.

    A test that crashes or hangs the run by itself would hide all that come after
    it, so it is put into `left_out` (for both sides) and the module starts again.
    """
    while True:
        run = options.sides.without(interpreter, module, left_out)
        if not run.last_test or run.out_of_time or len(left_out) >= MAX_LEFT_OUT:
            return run
        say("         %s %s without the library: %s in %s; it is left out"
            % (interpreter.label, module, run.ending, run.last_test))
        left_out.append(run.last_test)


def run_baseline(interpreter, module, options):
    """Only the side without the library, to be kept for later."""
    baselines, _ = options.sides.stored(interpreter, module)
    if not baselines:
        baselines = [run_without(interpreter, module, options, [])]
        options.sides.keep(interpreter, module, baselines, [])
    run = baselines[0]
    verdict = judge(module, baselines, baselines, options.sides.known)
    result = Result(interpreter.label, module, verdict)
    say("%-8s %-14s %-28s %s, %d fail  (%.1f s)" % (
        "baseline", interpreter.label, module, table.cell(result),
        len(verdict.failing), run.seconds))
    return result


def compare_module(interpreter, module, options):
    """Run both sides, again if they differ, and judge; prints one progress line."""
    sides = options.sides
    baselines, ours = sides.stored(interpreter, module)
    left_out = list(baselines[-1].left_out) if baselines else []
    for count in range(1 + EXTRA_RUNS):
        if len(baselines) <= count and not options.stored:
            baselines.append(run_without(interpreter, module, options, left_out))
        if len(ours) <= count and not options.stored:
            ours.append(sides.with_library(interpreter, module, left_out))
        verdict = judge(module, baselines, ours, sides.known)
        if options.stored or (verdict.equal and count == 0):
            break
    if not options.stored:
        sides.keep(interpreter, module, baselines, ours)
    verdict.differences += sides.check(baselines, ours)
    result = Result(interpreter.label, module, verdict,
                    seconds=sum(run.seconds for run in baselines + ours))
    times = " + ".join("%.1f" % run.seconds for run in baselines + ours)
    result.say("%-8s %-14s %-28s %s  (%s s)" % (result.word, interpreter.label, module,
                                                table.cell(result), times))
    for finding in verdict.differences + verdict.sometimes:
        result.say("         ≠ %s" % finding)
        for run in ours:
            reason = run.reason(finding.test_id)
            if reason:
                result.say("           %s" % reason[:300])
                break
    if result.nothing_ran:
        result.say("         %s" % result.why_nothing_ran())
    for finding in verdict.known + verdict.flaky:
        say("         = %s" % finding)
    for test_id in verdict.stale:
        say("         stale entry: %s no longer differs" % test_id)
    if options.logs and (verdict.differences or verdict.sometimes):
        keep_logs(options.logs, interpreter, module, baselines, ours)
    return result


def keep_logs(folder, interpreter, module, baselines, ours):
    os.makedirs(folder, exist_ok=True)
    for side, runs in (("without", baselines), ("with", ours)):
        for number, run in enumerate(runs, 1):
            name = "%s-%s-%s-%d.log" % (interpreter.version, module, side, number)
            with open(os.path.join(folder, name), "w", encoding="utf-8") as stream:
                stream.write(run.log)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--library",
                        default=os.path.join(RELEASE, "libobmalloc.so"))
    parser.add_argument("--packed", action="store_true",
                        help="the library with OBMALLOC_ALIGN=8")
    parser.add_argument("--pythons", metavar="LIST",
                        help="all, or versions, 'distribution' and paths, with commas")
    parser.add_argument("--modules", metavar="LIST",
                        help="test modules, with commas; a|b is the first that exists")
    parser.add_argument("--slice", action="store_true",
                        help="the short selection of modules and interpreters")
    parser.add_argument("--memory", action="store_true",
                        help="the modules that look at memory")
    parser.add_argument("--all", action="store_true",
                        help="every module that the version's regrtest would run")
    parser.add_argument("--relinked", action="store_true",
                        help="compare relinked interpreters, not preloaded ones")
    parser.add_argument("--archive", metavar="PATH",
                        default=os.path.join(RELEASE, "libobmalloc.a"))
    parser.add_argument("--prefixes", metavar="FOLDER",
                        help="where the interpreters with the library are linked to "
                        "(target/relink)")
    parser.add_argument("--stock-only", action="store_true",
                        help="relinked: run and keep only the side without the library")
    parser.add_argument("--reuse-stock", action="store_true",
                        help="relinked: use the kept runs without the library")
    parser.add_argument("--resume", action="store_true",
                        help="relinked: also use the kept runs with an equal library")
    parser.add_argument("--stored", action="store_true",
                        help="relinked: run nothing, judge what is kept")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=900, metavar="SECONDS",
                        help="limit for one run of one module")
    parser.add_argument("--stall", type=float, default=150, metavar="SECONDS",
                        help="a run in which no test ends for so long has hung")
    parser.add_argument("--table", metavar="FILE", help="write the Markdown table")
    parser.add_argument("--logs", metavar="FOLDER",
                        help="keep the output of the modules that differ")
    options = parser.parse_args()
    options.library = os.path.realpath(options.library)
    options.archive = os.path.realpath(options.archive)
    for name in ("stock_only", "reuse_stock", "resume", "stored", "prefixes"):
        if getattr(options, name) and not options.relinked:
            parser.error("--%s needs --relinked" % name.replace("_", "-"))
    options.sides = (Relinked if options.relinked else Preloaded)(options)
    return options


def relative(path):
    """An absolute path from the tree's root, or its last part outside of the tree."""
    if not os.path.isabs(path):
        return path
    inside = os.path.relpath(path, TREE)
    return os.path.basename(path) if inside.startswith("..") else inside


def command_line():
    """The command as someone would type it in the tree; no path of this machine."""
    words = ["python3", "c_tests/cpython/compare.py"]
    for word in sys.argv[1:]:
        option, equals, value = word.rpartition("=")
        words.append(option + equals + ",".join(map(relative, value.split(","))))
    return " ".join(shlex.quote(word) for word in words)


def describe_tree():
    result = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=TREE,
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                            universal_newlines=True)
    return result.stdout.strip() or "no commit"


def rows_asked_for(options):
    """The module rows that the options select."""
    if options.modules:
        return tuple(filter(None, options.modules.split(",")))
    if options.slice:
        return selections.SLICE
    return selections.MEMORY if options.memory else selections.USUAL


def say_what_is_left_out(options, labels):
    """What the slice does without, and which words run it."""
    whole = selections.MEMORY if options.relinked else selections.USUAL
    rows = [row for row in whole if row not in selections.SLICE]
    words = "test-relinked, make test-relinked-all" if options.relinked else "test-cpython"
    if options.pythons:
        labels = "all interpreters but %s" % options.pythons
    say("left out of the slice: %s; the modules %s: make %s"
        % (labels or "no interpreter", ", ".join(rows), words))


def select(options, environment):
    """The interpreters, the module rows and the visible skips."""
    rows = rows_asked_for(options)
    names = {name for row in rows for name in row.split("|")}
    found, missing = finder.find(options.pythons or "all", names, environment)
    if options.slice:
        everything = found
        if not options.pythons:
            found, more = finder.choose_slice(found)
            missing += [one for one in more if one not in missing]
        say_what_is_left_out(options, ", ".join(
            one.label for one in everything if one not in found))
    found, more = options.sides.prepare(found)
    missing += more
    if options.all or options.stored:
        for one in found:
            one.modules = (options.sides.kept(one) if options.stored
                           else listed_tests(one.baseline or one.path))
        rows = tuple({name: None for one in found for name in one.modules})
    return found, rows, missing


def pairs_of(found, modules, options, results):
    """The (interpreter, module row, module) to run; others get their result here."""
    pairs = []
    for interpreter in found:
        rows = [(row, interpreter.first_of(row)) for row in modules]
        line = options.sides.proof(interpreter)
        say("active   %-14s %s" % (interpreter.label, line) if line else
            "FAILED   %-14s the library is not active" % interpreter.label)
        installed = [(row, name) for row, name in rows if name]
        if not installed:
            say("skip     %-14s has none of the test modules" % interpreter.label)
        for row, name in installed:
            if line:
                pairs.append((interpreter, row, name))
            else:
                results[interpreter.label, row] = Result(interpreter.label, name,
                                                         Verdict(), inactive=True)
        if not line and not installed:
            results[interpreter.label, "no module"] = Result(
                interpreter.label, "no module", Verdict(), inactive=True)
    return pairs


def run_all(pairs, options, results):
    """Fill `results` from the pairs, several at a time."""
    work = run_baseline if options.stock_only else compare_module
    waiting = []
    with ThreadPoolExecutor(max_workers=options.jobs) as pool:
        try:
            waiting = [(interpreter.label, row,
                        pool.submit(work, interpreter, name, options))
                       for interpreter, row, name in pairs]
            for label, row, future in waiting:
                results[label, row] = future.result()
        except BaseException:
            for _, _, future in waiting:
                future.cancel()
            runner.stop()
            raise


def report(options, started, found, modules, results, missing):
    """The Markdown file."""
    took = datetime.datetime.now() - started
    header = [("command", "`%s`" % command_line()),
              ("date", started.strftime("%Y-%m-%d")),
              ("tree", describe_tree()),
              ("interpreters", ", ".join(one.label for one in found)),
              ("time", "%d s, %d at a time" % (took.total_seconds(), options.jobs))]
    labels = [one.label for one in found]
    if options.stored:          # the runs were made before, perhaps in another tree
        header[2:] = header[3:4] + [("time of the kept runs", "%d s" % sum(
            one.seconds for one in results.values()))]
    if options.relinked:
        header.insert(2, ("libobmalloc.a", "sha256 " + " and ".join(
            "%s..." % name for name in options.sides.archives(found))))
        text = summary.markdown(header, labels, results, missing)
    else:
        text = table.markdown(header, labels, modules, results, missing)
    with open(options.table, "w", encoding="utf-8") as stream:
        stream.write(text)


def main():
    options = parse_arguments()
    runner.undo_ignored_signals()
    if options.sides.missing_file():
        sys.exit("compare.py: no library at %s; build it first"
                 % options.sides.missing_file())
    started = datetime.datetime.now()
    found, modules, missing = select(options, runner.clean_environment())
    for label, reason in missing:
        say("skip     %-14s %s" % (label, reason))
    results = {}
    pairs = pairs_of(found, modules, options, results)
    # The rows run in the order of the modules, so that short ones come first; whole
    # suites run one interpreter after the other.
    if not options.all:
        pairs.sort(key=lambda pair: modules.index(pair[1]))
    run_all(pairs, options, results)

    words = [result.word for result in results.values()]
    not_installed = len(found) * len(modules) - len([1 for _, row in results
                                                     if row in modules])
    if options.all or options.stored:
        not_installed = 0       # each version has a list of its own
    took = datetime.datetime.now() - started
    if options.table:
        report(options, started, found, modules, results, missing)
    say("time: %d s; modules that a version does not install count as skipped"
        % took.total_seconds())
    passed, failed = words.count("passed"), words.count("failed")
    if failed:
        say("what failed, again:")
        said = [line for one in results.values() if one.word == "failed" for line in one.said]
        say("\n".join(dict.fromkeys(said)))
    say("%d passed, %d failed, %d skipped" % (
        passed, failed, words.count("skipped") + not_installed))
    return 0 if passed and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
