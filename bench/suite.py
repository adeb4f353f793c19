"""The benchmark `suite`: pyperformance's benchmarks, by pyperformance itself.

pyperformance calibrates, warms up and runs its workers, side after side, with the loops of the
first side. Which benchmarks: those that allocate, and five controls that hardly do, whose ratio
shows the noise of the machine. Each worker with the library writes its statistics at exit,
which proves that the library was active in it.
"""

import os
import subprocess
import sys
import tempfile

import hosts
import measure
import places
import results

VERSION = "pyperformance==1.14.0"
CONTROLS = ("nbody", "richards", "float", "raytrace", "deltablue")
# The tag asyncio without servers; eager trees come with 3.12.
ASYNC_TREE = ("asyncio", "-asyncio_tcp", "-asyncio_tcp_ssl", "-asyncio_websockets",
              "-async_generators")
OTHERS = ("deepcopy", "xml_etree", "gc_collect", "gc_traversal", "json_loads", "json_dumps",
          "unpickle", "unpickle_list", "unpickle_pure_python", "pickle", "pickle_pure_python",
          "pprint", "comprehensions", "generators", "coroutines", "regex_compile", "sqlglot_v2",
          "sqlglot_v2_parse", "sqlglot_v2_transpile", "sqlglot_v2_optimize", "html5lib",
          "django_template")
QUICK = ("json_loads",)
FOLDER = os.path.join(hosts.BUILD, "suite")
PYTHON = os.path.join(FOLDER, "tools", "bin", "python")


def group(name):
    """The group of a result: the tables of docs/figures.md have a mean of each."""
    return ("async_tree" if name.startswith("async_tree") else
            "controls" if name in CONTROLS else "others that allocate")


def installed():
    """Installs pyperformance in an environment of its own; returns whether that was possible."""
    commands = [[PYTHON, "-m", "pip", "install", "--quiet", VERSION]]
    if not os.path.exists(PYTHON):
        commands.insert(0, [sys.executable, "-m", "venv", os.path.join(FOLDER, "tools")])
    for command in commands:
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                text=True)
        if result.returncode != 0:
            print("skip: %s" % (result.stdout.strip().splitlines() or ["pip"])[-1])
            return False
    return True


def run_side(path, environment, preloaded, names, out, loops, quick):
    """Runs pyperformance once; returns {name: Row}."""
    with tempfile.TemporaryDirectory(prefix="obmalloc-bench-") as stats:
        if preloaded:
            environment = dict(environment, OBMALLOC_STATS=os.path.join(stats, "%p.json"))
        inherited = [name for name in environment
                     if name.startswith(("OBMALLOC_", "PYTHON", "LD_"))]
        if os.path.exists(out):
            os.unlink(out)
        # The library is for the workers only, so the variables reach them by --inherit-environ.
        result = subprocess.run(
            [PYTHON, "-m", "pyperformance", "run", "--python", path, "--output", out,
             "--benchmarks", ",".join(names)]
            + (["--inherit-environ", ",".join(inherited)] if inherited else [])
            + (["--same-loops", loops] if loops else [])
            + (["--debug-single-value"] if quick else []),
            cwd=FOLDER, env=environment, stdin=subprocess.DEVNULL)
        if result.returncode != 0 or not os.path.exists(out):
            raise measure.Failed("pyperformance: exit status %d" % result.returncode)
        _, rows = results.load(out)
        if preloaded and len(os.listdir(stats)) < len(rows) / 2:    # a row of time, one of memory
            raise measure.Failed("the library was not active in the workers")
    return rows


def measured(benchmark, options):
    os.makedirs(FOLDER, exist_ok=True)
    if not installed():
        return
    names = (QUICK if options.quick else options.only.split(",") if options.only
             else ASYNC_TREE + OTHERS + CONTROLS)
    for place in places.places(benchmark, options):
        sides, loops = {}, None
        for side, (path, environment) in place.sides.items():
            out = os.path.join(FOLDER, "%s-%s.json" % (place.name.replace(" ", "-"), side.name))
            sides[side.name] = run_side(path, environment, side.preloaded, names, out, loops,
                                        options.quick)
            loops = loops or out
        yield place.name, sides, []
