"""Extension modules of others, on an interpreter linked with us and one linked without.

Their wheels are built against CPython's headers and know nothing of us: what they
allocate, and free, and ask of the executable by name has to work as it did. The
original interpreter makes a virtual environment and fetches the wheels into it; both
relinked interpreters take that for PYTHONPATH and run the same tests, by pytest. The
sets of results have to be equal; a test that fails on both sides is counted, and equal.

numpy and psutil have their suites in the wheel; the others' tests are in packages/.
What cannot be fetched, or imported by the interpreter as it was, is skipped and said.

    c_tests/relinked/extensions.py [VERSION ...] [--only numpy,lxml]
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

import pair

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.join(pair.ROOT, "c_tests", "cpython"))

from runner import clean_environment, describe_exit  # noqa: E402

PYTEST = ["pytest", "hypothesis"]       # the second for numpy's tests
# What pip is asked for, and pytest: modules of the wheel, or files of ours.
PACKAGES = {
    "numpy": ("numpy", ["test_dtype", "test_indexing", "test_item_selection", "test_numeric",
                        "test_records", "test_regression", "test_scalarmath"]),
    "psutil": ("psutil<7", ["psutil.tests.test_" + name for name in
                            ("connections", "contracts", "misc", "posix", "process")]),
    "lxml": ("lxml", []),
    "pydantic": ("pydantic>=2", []),
    "cffi": ("cffi", []),
}
ADDRESS = re.compile(r"0x[0-9a-f]{6,}")


def run(command, folder, timeout, **settings):
    """(exit status, all output) of a command; None for the status when time was up."""
    environment = dict(clean_environment(), PYTHONDONTWRITEBYTECODE="1", **settings)
    try:
        result = subprocess.run(command, env=environment, cwd=folder, timeout=timeout,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, universal_newlines=True,
                                errors="replace")
        return result.returncode, result.stdout
    except subprocess.TimeoutExpired:
        return None, ""


def last_line(text):
    return (text.strip().splitlines() or ["nothing was said"])[-1]


def fetch(python, folder, names):
    """{package: why not} of those that the environment in the folder cannot have."""
    if not os.path.exists(os.path.join(folder, "bin", "python")):
        status, said = run([python, "-m", "venv", folder], None, 300)
        if status != 0:
            return {name: "no virtual environment: " + last_line(said) for name in names}
    pip = [os.path.join(folder, "bin", "python"), "-m", "pip", "install", "--quiet",
           "--disable-pip-version-check", "--only-binary", ":all:"]
    refused = {}
    for name, wishes in [("pytest", PYTEST)] + [(one, [PACKAGES[one][0]]) for one in names]:
        status, said = run(pip + wishes, None, 900)
        if status != 0:
            refused[name] = "pip: " + last_line(said)
    if "pytest" in refused:
        return {name: refused["pytest"] for name in names}
    return refused


def targets(name, python, library, folder):
    """What pytest is to run for a package; raises pair.Missing if it does not import."""
    code = "import %s as it; print(getattr(it, '__version__', '?'))" % name
    if name == "numpy":     # 2.0 gave its core another name
        code += "; print('_core' if it.__version__ >= '2' else 'core')"
    status, said = run([python, "-c", code], folder, 120, PYTHONPATH=library)
    if status != 0:
        raise pair.Missing("the interpreter as it was cannot import it: " + last_line(said))
    version, *core = said.split()
    modules = PACKAGES[name][1]
    if core:
        modules = ["numpy.%s.tests.%s" % (core[0], module) for module in modules]
    return version, ["--pyargs"] + modules if modules else [
        os.path.join(HERE, "packages", "test_%s.py" % name)]


def results(python, what, library, folder, timeout):
    """({test: outcome}, complaint) of one side."""
    report = os.path.join(folder, "report.xml")
    status, said = run([python, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider",
                        "--hypothesis-seed=0", "--junitxml", report] + what,
                       folder, timeout, PYTHONPATH=library, PYTHONHASHSEED="0")
    if status is None:
        return {}, "no end within %d s" % timeout
    if status not in (0, 1) or not os.path.exists(report):
        return {}, "%s: %s" % (describe_exit(status), last_line(said))
    outcomes = {}
    for case in xml.etree.ElementTree.parse(report).iter("testcase"):
        key = ADDRESS.sub("0x", "%s.%s" % (case.get("classname"), case.get("name")))
        found = [part.tag for part in case if part.tag in ("failure", "error", "skipped")]
        outcomes.setdefault(key, []).append(" ".join(found) or "passed")
    os.remove(report)
    return {key: sorted(found) for key, found in outcomes.items()}, ""


def compare(name, two, library, timeout):
    """Runs a package's tests on both sides, prints one line; returns the complaints."""
    with tempfile.TemporaryDirectory(prefix="obmalloc-extensions-") as folder:
        version, what = targets(name, two.original, library, folder)
        sides = [results(python, what, library, folder, timeout)
                 for python in (two.stock, two.ours)]
    label = "%s: %s %s" % (two.version, name, version)
    complaints = ["%s, %s: %s" % (label, side, complaint)
                  for side, (_, complaint) in zip(("stock", "ours"), sides) if complaint]
    stock, ours = (outcomes for outcomes, _ in sides)
    if not complaints:
        complaints = ["%s: %s: stock %s, ours %s" % (label, key, stock.get(key), ours.get(key))
                      for key in sorted(set(stock) | set(ours)) if stock.get(key) != ours.get(key)]
    flat = [outcome for found in ours.values() for outcome in found]
    counts = ", ".join("%d %s" % (flat.count(outcome), outcome) for outcome in
                       ("passed", "skipped", "failure", "error") if outcome in flat)
    print("%s: %s, %s" % (label, counts or "no results",
                          "DIFFERENT" if complaints else "the same on both sides"), flush=True)
    return complaints


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    pair.add_options(parser)
    parser.add_argument("--only", default=",".join(PACKAGES), metavar="LIST",
                        help="of the packages (%(default)s)")
    parser.add_argument("--timeout", type=int, default=1800, help="seconds for a package's "
                        "tests on one side (%(default)s)")
    options = parser.parse_args()
    names = options.only.split(",")
    complaints, compared = [], 0
    for wish in options.versions:
        try:
            two = pair.make(wish, options.archive, options.out)
        except pair.Missing as missing:
            print("skip: %s: %s" % (wish, missing))
            continue
        folder = os.path.join(options.out, "extensions", two.version)
        refused = fetch(two.original, folder, names)
        short = ".".join(two.version.split(".")[:2])
        library = os.path.join(folder, "lib", "python" + short, "site-packages")
        for name in names:
            try:
                if name in refused:
                    raise pair.Missing(refused[name])
                complaints += compare(name, two, library, options.timeout)
                compared += 1
            except pair.Missing as missing:
                print("skip: %s: %s: %s" % (two.version, name, missing), flush=True)
    for complaint in complaints:
        print("failed: " + complaint)
    print("extensions: %d compared, %d differences" % (compared, len(complaints)))
    return min(len(complaints), 1)


if __name__ == "__main__":
    sys.exit(main())
