"""The two ways to compare: preloaded without and with, relinked without and with.

Both give compare.py the same: the interpreters, how a module runs on either side,
and how to see that each side ran with the allocator it should have.
"""

import os
import subprocess
import sys

import interpreters as finder
import known
import runner
from store import Store
from verdict import Finding

TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RELINK = os.path.join(TREE, "relink", "relink.py")

# Lists what this version's regrtest runs when it is given no module.
LIST_TESTS_2 = "from test import regrtest; print('\\n'.join(regrtest.findtests()))"


def which_allocator(runs, marks):
    """One word a run: what the marks that the run recorded say about it."""
    return ["obmalloc" if marks(run) else "CPython's own" for run in runs]


def check_marks(baselines, ours, marks):
    """The library must have been there in each run with it, and in no other."""
    found = [which_allocator(runs, marks) for runs in (baselines, ours)]
    if set(found[0]) == {"CPython's own"} and set(found[1]) == {"obmalloc"}:
        return []
    return [Finding("(library)", *found)]


class Preloaded:
    """The interpreter as it is, without and with the library in LD_PRELOAD."""
    known = known.PRELOADED

    def __init__(self, options):
        self.options = options
        self.library = options.library

    def missing_file(self):
        return None if os.path.exists(self.library) else self.library

    def prepare(self, found):
        """(those of the interpreters that can be compared, [(label, reason)])."""
        return found, []

    def proof(self, interpreter):
        return finder.proof_of_activity(interpreter, runner.clean_environment(),
                                        self.library)

    def without(self, interpreter, module, left_out):
        return runner.run_once(interpreter.path, module, None, self.options, left_out)

    def with_library(self, interpreter, module, left_out):
        return runner.run_once(interpreter.path, module, self.library, self.options,
                               left_out)

    def stored(self, interpreter, module):
        return [], []

    def keep(self, interpreter, module, baselines, ours):
        pass

    def check(self, baselines, ours):
        name = os.path.basename(self.library)
        return check_marks(baselines, ours, lambda run: name in run.mapped)


class Relinked:
    """The interpreter linked anew with its own obmalloc.o, and with libobmalloc.a."""
    known = known.RELINKED

    def __init__(self, options):
        self.options = options
        self.stock = os.path.join(TREE, "target", "relink")
        self.ours = os.path.abspath(options.prefixes or self.stock)
        self.results = os.path.join(self.stock, "results")

    def missing_file(self):
        archive = self.options.archive
        unused = self.options.stock_only or self.options.stored
        return None if unused or os.path.exists(archive) else archive

    def link(self, interpreter, folder, *more):
        """Let relink.py make or check one prefix: (path of the result, complaint)."""
        result = subprocess.run([sys.executable, RELINK, interpreter.path, "--out",
                                 folder, "--archive", self.options.archive, *more],
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, universal_newlines=True)
        name = interpreter.version + ("-stock" if more else "")
        short = ".".join(interpreter.version.split(".")[:2])
        path = os.path.join(folder, name, "bin", "python" + short)
        return path, result.stderr.strip() if result.returncode else ""

    def prepare(self, found):
        if self.options.stored:
            return [one for one in found if self.kept(one)], []
        usable, missing = [], []
        for interpreter in found:
            baseline, complaint = self.link(interpreter, self.stock, "--stock")
            if complaint:
                missing.append((interpreter.label, complaint.splitlines()[0]))
                continue
            interpreter.baseline = baseline
            if not self.options.stock_only:
                interpreter.path, interpreter.problem = self.link(interpreter, self.ours)
            usable.append(interpreter)
        return usable, missing

    def proof(self, interpreter):
        """relink.py has looked at it; here it is only asked for its line."""
        if self.options.stored or self.options.stock_only:
            return "not looked at now: no run with the library"
        if interpreter.problem:
            print(interpreter.problem, flush=True)
            return None
        return finder.proof_of_activity(interpreter, runner.clean_environment())

    def stores(self, interpreter):
        return (Store(os.path.join(self.results, interpreter.version + "-stock"),
                      interpreter.baseline),
                Store(os.path.join(self.results, interpreter.version),
                      interpreter.path, self.options.archive))

    def archives(self, found):
        """The digests of the libraries in the kept runs of these interpreters."""
        return sorted(set().union(*(self.stores(one)[1].archives() for one in found)))

    def without(self, interpreter, module, left_out):
        return runner.run_once(interpreter.baseline, module, None, self.options,
                               left_out)

    def with_library(self, interpreter, module, left_out):
        return runner.run_once(interpreter.path, module, None, self.options, left_out)

    def stored(self, interpreter, module):
        """The runs of earlier comparisons that the options allow to be used."""
        stock, ours = self.stores(interpreter)
        everything = self.options.stored
        return (stock.load(module) if everything or self.options.reuse_stock else [],
                ours.load(module, same_build=not everything)
                if everything or self.options.resume else [])

    def kept(self, interpreter):
        """The modules that have kept runs of both sides."""
        stock, ours = (store.modules() for store in self.stores(interpreter))
        return [name for name in stock if name in ours]

    def keep(self, interpreter, module, baselines, ours):
        for store, runs in zip(self.stores(interpreter), (baselines, ours)):
            if runs:
                store.save(module, runs)

    def check(self, baselines, ours):
        return check_marks(baselines, ours, lambda run: run.linked == "yes")


def listed_tests(path):
    """What this interpreter's regrtest runs by itself, in its order."""
    command = [path, "-c", LIST_TESTS_2]
    if os.path.basename(path).startswith("python3"):
        command = [path, "-m", "test", "--list-tests"]
    result = subprocess.run(command, env=runner.clean_environment(), timeout=120,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL, universal_newlines=True)
    names = [line.strip() for line in result.stdout.splitlines()]
    return [name for name in names if name.startswith("test")]
