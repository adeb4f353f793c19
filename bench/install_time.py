"""The benchmark `install_time`: from a built tree to an active library, step by step.

By a wheel: a new virtual environment, pip (without a network), `obmalloc doctor`, and a program
started by `obmalloc run`. By `make install` into an empty folder: the same last two steps. Each
route has a folder and an environment of its own, without variables of this tree. Doctor and
the program must report that the library is active. (The packages of `make deb` are installed,
used and purged by tests/packaging.)
"""

import os
import shutil
import subprocess
import tempfile
import time

import hosts
import measure
import places
from results import Row


class Route:
    """Steps that are done one after the other, and the seconds that each takes."""

    def __init__(self, environment):
        self.environment, self.rows = environment, {}

    def step(self, title, command, expected=""):
        start = time.monotonic()
        done = subprocess.run(command, cwd=hosts.ROOT, env=self.environment, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        seconds = time.monotonic() - start
        if done.returncode != 0 or expected not in done.stdout:
            raise measure.Failed("%s: exit status %d\n%s" % (title, done.returncode, done.stdout))
        self.rows[title] = Row("second", [round(seconds, 2)])

    def active(self, programs, python, shown):
        """The last two steps: doctor and a program report that the library is active."""
        command = os.path.join(programs, "obmalloc")
        self.step("`%sobmalloc doctor`" % shown, [command, "doctor", python],
                  "obmalloc is active in %s\n" % python)
        self.step("`%sobmalloc run -- python -c ...`" % shown,
                  [command, "run", "--verbose", "--", python, "-c", "print(6 * 7)"],
                  hosts.ACTIVE)


def by_wheel(route, folder, python):
    venv, wheels = os.path.join(folder, "venv"), os.path.join(folder, "wheels")
    programs = os.path.join(venv, "bin")
    route.step("`make wheel`", ["make", "wheel"])
    newest = max((entry for entry in os.scandir(os.path.join(hosts.TARGET, "wheels"))
                  if entry.name.endswith(".whl")), key=lambda entry: entry.stat().st_mtime)
    os.mkdir(wheels)
    shutil.copy(newest.path, wheels)
    route.step("`python3 -m venv venv`", [python, "-m", "venv", venv])
    route.step("`venv/bin/pip install --no-index obmalloc-*.whl`",
               [os.path.join(programs, "pip"), "install", "--no-index",
                os.path.join(wheels, newest.name)], "Successfully installed")
    route.active(programs, os.path.join(programs, "python"), "venv/bin/")


def by_install(route, folder, python):
    prefix = os.path.join(folder, "prefix")
    route.step("`make install PREFIX=prefix`", ["make", "install", "PREFIX=" + prefix])
    route.active(os.path.join(prefix, "bin"), python, "prefix/bin/")


def measured(benchmark, options):
    for place in places.places(benchmark, options):
        sides = {}
        for name, steps in ("wheel", by_wheel), ("install", by_install):
            with tempfile.TemporaryDirectory(prefix="obmalloc-install-") as folder:
                environment = {"HOME": folder, "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
                for home in "CARGO_HOME", "RUSTUP_HOME":    # else cargo looks for them in HOME
                    environment[home] = os.environ.get(home) or os.path.expanduser(
                        "~/." + home.split("_")[0].lower())
                route = Route(environment)
                steps(route, folder, place.python.path)
                sides[name] = route.rows
        yield place.name, sides, []
