"""The projects: which versions, where their own tests come from, and how they are run.

A suite that would take longer than some minutes is cut by folder or file, never by test;
`part` says what was taken, and "" stands for all of it. Versions are those with wheels for
all interpreters of INTERPRETERS.
"""

from dataclasses import dataclass, field

# As c_tests/preload/pythons.py calls them: (minor version or None, shared or static).
INTERPRETERS = (("3.11", "shared"), (None, "static"), ("3.13", "shared"))

PYTEST = ["pytest==8.4.2"]


@dataclass
class Project:
    name: str                   # as pip knows it
    version: str
    what: list                  # what pytest is given: modules, or paths under the tests
    part: str = ""              # which part of the suite that is; "": all of it
    needs: list = field(default_factory=list)       # packages beside it
    keep: list = field(default_factory=list)        # of the source archive; []: none needed
    graft: dict = field(default_factory=dict)       # folder of it: folder in site-packages
    options: list = field(default_factory=list)     # more words for pytest
    settings: dict = field(default_factory=dict)    # more of the environment
    packed: bool = False        # run with OBMALLOC_ALIGN=8 as well
    minutes: int = 30           # the longest that one run may take

    @property
    def label(self):
        return "%s-%s" % (self.name.lower(), self.version)

    @property
    def requirement(self):
        return "%s==%s" % (self.name, self.version)

    @property
    def requirements(self):
        return [self.requirement] + PYTEST + self.needs

    @property
    def in_wheel(self):
        """Whether pytest finds the tests by the names of modules."""
        return not self.keep or bool(self.graft)


HYPOTHESIS = ["--hypothesis-seed=0"]

PROJECTS = [
    Project("greenlet", "3.5.6", ["greenlet.tests"], needs=["objgraph", "psutil==7.2.2"]),
    Project("psutil", "7.2.2", ["tests"], keep=["tests", "pyproject.toml", "scripts"],
            needs=["setuptools", "wheel"]),
    Project("lxml", "6.1.3", ["lxml.tests", "lxml.html.tests"],
            part="all but the doctests in doc/*.txt", keep=["src/lxml/tests", "src/lxml/html/tests"],
            graft={"src/lxml/tests": "lxml/tests", "src/lxml/html/tests": "lxml/html/tests"},
            needs=["cssselect", "html5lib", "beautifulsoup4"]),
    Project("numpy", "2.4.6", ["numpy." + name for name in
                               ("_core.tests", "lib.tests", "linalg.tests", "random.tests",
                                "ma.tests", "fft.tests", "polynomial.tests")],
            part="_core, lib, linalg, random, ma, fft, polynomial, without those marked slow",
            needs=["hypothesis"], options=["-m", "not slow"] + HYPOTHESIS, packed=True),
    Project("pydantic-core", "2.41.5", ["tests"], part="all but tests/benchmarks",
            keep=["tests", "pyproject.toml"],
            needs=["dirty-equals", "hypothesis", "inline-snapshot", "pytest-benchmark",
                   "pytest-mock", "pytest-run-parallel", "pytest-timeout",
                   "python-dateutil", "typing-inspection", "tzdata"],
            options=["--ignore=tests/benchmarks"] + HYPOTHESIS, packed=True),
]

QUICK = ["greenlet"]

# What differs and has to: (project, end of the test's id, reason).
KNOWN = ()
