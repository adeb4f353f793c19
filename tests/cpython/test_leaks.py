"""Hunt leaks with CPython's own regrtest -R, with its own obmalloc.o and with ours.

    python3 leaks.py [--pythons LIST] [--modules LIST] [--archive FILE]

Every module is repeated 3 + 3 times in the two relinked interpreters of a version,
and what regrtest reports as leaked must be equal.  A test module that is written
for this, with one test that leaks nothing and two that leak, shows that the hunt
finds leaks at all: it must say the same numbers on both sides.

On a release build regrtest -R judges sys.getallocatedblocks() and the open files;
total references exist only in debug builds (see hunt_leaks.py).
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile

import interpreters as finder
import runner
from sides import TREE, Relinked

HUNT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "hunt_leaks.py")
MODULES = ("test_list", "test_dict", "test_json", "test_set", "test_tuple",
           "test_weakref")
LEAKED = re.compile(r"^\S+ leaked (\[.*?\]) (.*?), sum=", re.MULTILINE)

REPEATED = re.compile(r"^123:?456$", re.MULTILINE)

BLOCKS = 10
LEAKING = """
import ctypes, unittest

KEPT = []

def lose(count, size):
    malloc = ctypes.pythonapi.PyObject_Malloc
    malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    for _ in range(count):
        malloc(size)

def forget(count):
    for _ in range(count):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(object()))

class LeakTests(unittest.TestCase):
    def test_nothing(self):
        self.assertEqual([object() for _ in range(%(blocks)d)][3:2], [])
    def test_references(self):
        forget(%(blocks)d)
    def test_blocks(self):
        lose(%(blocks)d, 64)

if __name__ == "__main__":
    unittest.main()
""" % {"blocks": BLOCKS}

# Each test of the module above, and what must be found, as regrtest words it.
EXPECTED = (
    ("test_nothing", set()),
    ("test_references", {"memory blocks"}),
    ("test_blocks", {"memory blocks"}),
)


def hunt(path, arguments):
    """The set of (numbers, kind) that regrtest reports; a text when it broke off."""
    with tempfile.TemporaryDirectory(prefix="obleak-") as folder:
        environment = dict(runner.clean_environment(), TMPDIR=folder)
        try:
            result = subprocess.run([path, HUNT, "-R", "3:3"] + arguments, cwd=folder,
                                    env=environment, stdin=subprocess.DEVNULL,
                                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                    universal_newlines=True, errors="replace",
                                    timeout=600)
        except subprocess.TimeoutExpired:
            return "no end within 600 s"
    found = set(LEAKED.findall(result.stdout))
    # The hunt numbers its repetitions when it really repeats.
    if not REPEATED.search(result.stdout) or (result.returncode != 0 and not found):
        return "status %d: %s" % (result.returncode,
                                  " / ".join(result.stdout.strip().splitlines()[-3:]))
    return found


def kinds(found):
    """What a module leaks, without the numbers, which vary in a real suite."""
    return found if isinstance(found, str) else {kind for _, kind in found}


def is_all_of_it(found):
    """Every repetition shows all the blocks; some versions find one of their own."""
    return all(BLOCKS <= int(number) <= BLOCKS + 2
               for numbers, _ in found for number in re.findall(r"-?\d+", numbers))


def spell(found):
    if isinstance(found, str):
        return found
    return ", ".join(sorted("%s %s" % one for one in found)) or "no leak"


FAILED = []     # as it was printed


def tell(label, name, right, stock, ours):
    word = "passed" if right else "failed"
    both = ("both sides: %s" % spell(ours) if stock == ours else
            "CPython's own: %s; obmalloc: %s" % (spell(stock), spell(ours)))
    said = "%-8s %-10s %-34s %s" % (word, label, name, both)
    print(said, flush=True)
    if not right:
        FAILED.append(said)
    return word


def hunt_on_purpose(interpreter, name, expected, folder):
    """One test of the leaking module: both sides must find exactly this."""
    arguments = ["--testdir", folder, "-m", name, "test_on_purpose"]
    stock, ours = hunt(interpreter.baseline, arguments), hunt(interpreter.path, arguments)
    right = all(kinds(side) == expected and is_all_of_it(side) for side in (stock, ours))
    return tell(interpreter.label, "leaks on purpose: " + name, right, stock, ours)


def hunt_module(interpreter, module):
    """One module of CPython's suite: neither side may leak what the other does not."""
    stock, ours = hunt(interpreter.baseline, [module]), hunt(interpreter.path, [module])
    right = kinds(stock) == kinds(ours) and not isinstance(stock, str)
    return tell(interpreter.label, module, right, stock, ours)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pythons", metavar="LIST", default="3.8,3.11,3.12")
    parser.add_argument("--modules", metavar="LIST", default=",".join(MODULES))
    parser.add_argument("--archive", metavar="FILE",
                        default=os.path.join(os.environ.get("CARGO_TARGET_DIR") or os.path.join(TREE, "target"),
                                     os.environ.get("CARGO_BUILD_TARGET", ""), "release", "libobmalloc.a"))
    parser.add_argument("--prefixes", metavar="FOLDER")
    options = parser.parse_args()
    options.archive = os.path.abspath(options.archive)
    options.stock_only = options.stored = False
    return options


def main():
    options = parse_arguments()
    modules = options.modules.split(",")
    sides = Relinked(options)
    if sides.missing_file():
        sys.exit("leaks.py: no archive at %s; build it first" % sides.missing_file())
    found, missing = finder.find(options.pythons, modules, runner.clean_environment())
    countless = [one for one in found if one.order[0] == 2]
    found = [one for one in found if one not in countless]
    missing += [(one.label, "has no sys.getallocatedblocks()") for one in countless]
    found, more = sides.prepare(found)
    words = []
    for label, reason in missing + more:
        print("skip     %-10s %s" % (label, reason))
        words.append("skipped")
    with tempfile.TemporaryDirectory(prefix="obleak-") as folder:
        with open(os.path.join(folder, "test_on_purpose.py"), "w") as stream:
            stream.write(LEAKING)
        for interpreter in found:
            if not sides.proof(interpreter):
                FAILED.append("failed   %-10s the library is not active" % interpreter.label)
                print(FAILED[-1])
                words.append("failed")
                continue
            words += [hunt_on_purpose(interpreter, name, expected, folder)
                      for name, expected in EXPECTED]
            words += [hunt_module(interpreter, module) for module in modules
                      if module in interpreter.modules]
    if FAILED:
        print("\n".join(["what failed, again:"] + FAILED))
    print("%d passed, %d failed, %d skipped"
          % tuple(words.count(word) for word in ("passed", "failed", "skipped")))
    return 0 if "passed" in words and "failed" not in words else 1


if __name__ == "__main__":
    sys.exit(main())
