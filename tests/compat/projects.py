"""The projects: their versions, where their own tests come from, and how these run.

A suite that would take longer than some minutes is cut by folder or file, never by test;
`part` names the part that runs, "" means all of it. The versions have wheels for all
interpreters of INTERPRETERS.
"""

from dataclasses import dataclass, field

# (minor version or None, shared or static)
INTERPRETERS = (("3.11", "shared"), (None, "static"), ("3.13", "shared"))

PYTEST = ["pytest==8.4.2"]


@dataclass(eq=False)
class Project:
    name: str                   # on PyPI
    version: str                # "2.0.1", or a condition: "<7"; "" for any
    what: list                  # the runner's arguments
    runner: str = "pytest"      # of paths; "unittest": of modules; "script": its own runner
    part: str = ""              # which part of the suite that is; "": all of it
    tools: list = field(default_factory=lambda: PYTEST)
    needs: list = field(default_factory=list)       # packages beside it
    unbuilt: list = field(default_factory=list)     # more of them, that have no wheel
    keep: list = field(default_factory=list)        # of the source archive; []: none needed
    graft: dict = field(default_factory=dict)       # folder of it: folder in site-packages
    options: list = field(default_factory=list)     # more words for pytest
    settings: dict = field(default_factory=dict)    # more of the environment
    build: list = field(default_factory=list)       # commands that make test extensions
    root: str = "{PACKAGES}"    # of the paths: {PACKAGES}, {TESTS}, {BUILD}, {EXTENSIONS}
    title: str = ""             # of a package that is listed twice
    packed: bool = False        # run with OBMALLOC_ALIGN=8 as well
    minutes: int = 30           # the longest that one run may take

    @property
    def label(self):
        return "%s-%s" % ((self.title or self.name).lower(), self.version.strip("<=>"))

    @property
    def requirement(self):
        exact = "==" if self.version[:1].isdigit() else ""
        return self.name + exact + self.version

    @property
    def requirements(self):
        return [self.requirement] + self.tools + self.needs + self.unbuilt


HYPOTHESIS = ["--hypothesis-seed=0"]

CYTHON = ["runtests.py", "-vv", "--backends=c", "--no-unit", "--no-doctest", "--no-refnanny",
          "--no-code-style", "--no-examples", "--no-pyregr", "--no-cleanup",
          "--no-cleanup-sharedlibs", "--cython-dir={PACKAGES}", "--work-dir={BUILD}",
          "memoryview[.]", "buffers[.]"]
CMAKE = ["-G", "Ninja", "-B", "{BUILD}", "-DPython_EXECUTABLE={PYTHON}",
         "-DPYTHON_EXECUTABLE={PYTHON}", "-DCMAKE_BUILD_TYPE=Debug",
         "-DCMAKE_CXX_FLAGS_DEBUG=-O0"]
CMAKE_TOOLS = ["cmake==4.4.5", "ninja==1.13.2"]

PROJECTS = [
    Project("greenlet", "3.5.6", ["greenlet/tests"], needs=["objgraph", "psutil==7.2.2"]),
    Project("psutil", "7.2.2", ["tests"], root="{TESTS}",
            part="all but test_sudo.py, which sets the machine's clock",
            options=["--ignore={ROOT}/tests/test_sudo.py"],
            keep=["tests", "pyproject.toml", "scripts", "setup.py"],
            settings={"PYTHONPATH": "{PACKAGES}"},      # its scripts run without the venv
            needs=["setuptools", "wheel"], unbuilt=["psleak==0.1.6"]),
    Project("lxml", "6.1.3", ["lxml.tests", "lxml.html.tests"], runner="unittest",
            keep=["src/lxml/tests", "src/lxml/html/tests", "doc"],
            graft={"src/lxml/tests": "lxml/tests", "src/lxml/html/tests": "lxml/html/tests",
                   "doc": "../doc"},
            needs=["cssselect", "html5lib", "beautifulsoup4"]),
    Project("numpy", "2.4.6", ["numpy/%s/tests" % name for name in
                               ("_core", "lib", "linalg", "random", "ma", "fft", "polynomial")],
            part="_core, lib, linalg, random, ma, fft, polynomial, without those marked slow",
            needs=["hypothesis", "meson==1.9.1", "ninja==1.13.2"],     # it builds a memory policy
            options=["-m", "not slow"] + HYPOTHESIS, packed=True),
    Project("pandas", "3.1.1", ["pandas/tests/" + name for name in
                                ("libs", "internals", "indexing", "reshape", "groupby")],
            part="libs, internals, indexing, reshape, groupby",
            needs=["hypothesis"], options=["-m", "not slow and not network"] + HYPOTHESIS),
    Project("pydantic-core", "2.41.5", ["tests"], part="all but tests/benchmarks", root="{TESTS}",
            keep=["tests", "pyproject.toml"],
            needs=["dirty-equals", "hypothesis", "inline-snapshot", "pytest-benchmark",
                   "pytest-mock", "pytest-run-parallel", "pytest-timeout",
                   "python-dateutil", "typing-inspection", "tzdata"],
            options=["--ignore={ROOT}/tests/benchmarks"] + HYPOTHESIS, packed=True),
    Project("cryptography", "50.0.2", ["tests"], root="{TESTS}", keep=["tests", "pyproject.toml"],
            needs=["cryptography_vectors==50.0.2", "pretend", "certifi", "pytest-benchmark",
                   "pytest-subtests"]),
    Project("SQLAlchemy", "2.0.44", ["test/" + name for name in ("base", "engine", "sql", "ext")],
            part="base, engine, sql, ext, on SQLite in memory", root="{TESTS}",
            keep=["test", "examples", "lib/sqlalchemy/testing/plugin", "setup.cfg",
                  "pyproject.toml"],
            needs=["greenlet==3.5.6", "aiosqlite"],
            options=["-p", "no:xdist", "--nomypy", "--notimingintensive"],
            settings={"PYTHONNOUSERSITE": "1"}),
    Project("uvloop", "0.23.0", ["tests"], part="all but test_sourcecode.py (linters)",
            root="{TESTS}", keep=["tests", "pyproject.toml"],
            needs=["aiohttp", "psutil", "pyOpenSSL~=26.4.0"],
            options=["--ignore={ROOT}/tests/test_sourcecode.py"]),
    Project("Cython", "3.3.1", CYTHON + ["--no-cython", "--no-compile"], runner="script",
            part="tests/memoryview and tests/buffers, compiled to C; run, not compiled, twice",
            root="{TESTS}", keep=["runtests.py", "tests", "Tools"], needs=["setuptools", "numpy==2.4.6"],
            build=[["{PYTHON}", "{TESTS}/" + CYTHON[0]] + CYTHON[1:] + ["--exit-ok"]]),
    Project("Cython", "3.3.1", ["runtests.py", "-vv", "--backends=c", "--no-unit", "--no-doctest",
                                "--no-refnanny", "--no-code-style", "--no-examples",
                                "--no-pyregr", "--cython-dir={PACKAGES}", "--work-dir={WORK}",
                                "errors[.]"],
            title="Cython-compiler", runner="script", part="tests/errors: the compiler itself",
            root="{TESTS}", keep=["runtests.py", "tests", "Tools"], needs=["setuptools"]),
    Project("pybind11", "3.1.0", ["tests"], root="{TESTS}", keep=["tests"],
            part="all but Eigen's, the embedding and the CMake tests",
            options=["--ignore={ROOT}/tests/test_cmake_build", "--ignore={ROOT}/tests/extra_python_package",
                     "--ignore={ROOT}/tests/extra_setuptools", "--ignore={ROOT}/tests/test_with_catch"],
            needs=CMAKE_TOOLS + ["numpy==2.4.6"], settings={"PYTHONPATH": "{BUILD}"},
            build=[["cmake", "-S", "{TESTS}/tests", "-Dpybind11_DIR={PACKAGES}/pybind11/share/cmake/pybind11",
                    "-DPYBIND11_FINDPYTHON=ON"] + CMAKE, ["ninja", "-C", "{BUILD}", "-j2"]]),
    Project("nanobind", "3.1.0", ["."], root="{BUILD}/tests",
            keep=["CMakeLists.txt", "cmake", "ext", "include", "src", "tests", "nanobind-backend",
                  "README.md", "pyproject.toml"],
            needs=CMAKE_TOOLS + ["numpy==2.4.6", "typing-extensions"],
            build=[["cmake", "-S", "{TESTS}", "-DNB_TEST=ON"] + CMAKE,
                   ["ninja", "-C", "{BUILD}", "-j2"]]),
]

# On relinked interpreters; any version, since no version supports all of these interpreters.
EXTENSIONS = [
    Project("numpy", "", ["numpy/{CORE}/tests/test_%s.py" % name for name in
                          ("dtype", "indexing", "item_selection", "numeric", "records",
                           "regression", "scalarmath")],
            tools=["pytest"], needs=["hypothesis"], options=["-m", "not slow"] + HYPOTHESIS),
    Project("psutil", "<7", ["psutil/tests/test_%s.py" % name for name in
                             ("connections", "contracts", "misc", "posix", "process")],
            tools=["pytest"]),
    Project("lxml", "", ["lxml_suite.py"], root="{EXTENSIONS}", tools=["pytest"]),
    Project("pydantic", ">=2", ["pydantic_suite.py"], root="{EXTENSIONS}", tools=["pytest"]),
    Project("cffi", "", ["cffi_suite.py"], root="{EXTENSIONS}", tools=["pytest"]),
]
