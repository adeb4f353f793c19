"""From a built tree to an active library, step by step, as somebody does it the first time.

By a wheel: a new virtual environment, pip (which may fetch nothing), `obmalloc doctor`, and
a program started by `obmalloc run`. By `make install` into an empty folder: the same two.
Each route is gone in a folder of its own, with an environment that knows nothing of this
tree; what doctor and the program say must be that the library is active, or it fails.
The packages of `make deb` are installed, used and purged by `make test-packaging`.

    make command && bench/first_minute.py [--python python3] [--record]
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time

import hosts
import pairs
import record

ACTIVE = "obmalloc: active in pid "


class Route:
    """Steps that are done one after the other, and the seconds that each takes."""

    def __init__(self, name, environment):
        self.name, self.environment, self.rows = name, environment, []

    def step(self, title, command, says=""):
        began = time.monotonic()
        done = subprocess.run(command, cwd=pairs.ROOT, env=self.environment, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        seconds = time.monotonic() - began
        if done.returncode != 0 or says not in done.stdout:
            hosts.stop("%s: status %d\n%s" % (title, done.returncode, done.stdout))
        self.rows.append({"route": self.name, "step": title, "seconds": round(seconds, 2)})

    def proved(self, programs, python, shown):
        """The last two steps: it says of itself that it is active, and is."""
        command = os.path.join(programs, "obmalloc")
        self.step("`%sobmalloc doctor`" % shown, [command, "doctor", python],
                  "obmalloc is active in %s\n" % python)
        self.step("`%sobmalloc run -- python -c ...`" % shown,
                  [command, "run", "--verbose", "--", python, "-c", "print(6 * 7)"], ACTIVE)


def by_wheel(folder, python, environment):
    route, venv = Route("wheel", environment), os.path.join(folder, "venv")
    programs = os.path.join(venv, "bin")
    wheels = os.path.join(folder, "wheels")
    route.step("`make wheel`", ["make", "wheel"])
    built = os.path.join(os.environ.get("CARGO_TARGET_DIR") or os.path.join(pairs.ROOT, "target"),
                         "wheels")
    newest = max((entry for entry in os.scandir(built) if entry.name.endswith(".whl")),
                 key=lambda entry: entry.stat().st_mtime)
    os.mkdir(wheels)
    shutil.copy(newest.path, wheels)
    route.step("`python3 -m venv venv`", [python, "-m", "venv", venv])
    route.step("`venv/bin/pip install --no-index obmalloc-*.whl`",
               [os.path.join(programs, "pip"), "install", "--no-index",
                os.path.join(wheels, newest.name)], "Successfully installed")
    route.proved(programs, os.path.join(programs, "python"), "venv/bin/")
    return route.rows


def by_install(folder, python, environment):
    route, prefix = Route("install", environment), os.path.join(folder, "prefix")
    route.step("`make install PREFIX=prefix`", ["make", "install", "PREFIX=" + prefix])
    route.proved(os.path.join(prefix, "bin"), python, "prefix/bin/")
    return route.rows


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default="python3", help="for both routes (%(default)s)")
    parser.add_argument("--record", action="store_true", help="for docs/command.md")
    options = parser.parse_args()
    host = hosts.ask(options.python)
    if host is None:
        hosts.stop("%s is no Python 3" % options.python)
    rows = []
    with tempfile.TemporaryDirectory(prefix="obmalloc-first-minute-") as folder:
        environment = {"HOME": folder, "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
        for name in "CARGO_HOME", "RUSTUP_HOME":    # they are looked for in HOME, too
            environment[name] = os.environ.get(name) or os.path.expanduser(
                "~/." + name.split("_")[0].lower())
        for route in by_wheel, by_install:
            rows += route(folder, host.path, environment)
    pairs.table(["route", "step", "seconds"],
                [[row["route"], row["step"], "%.2f" % row["seconds"]] for row in rows])
    if options.record:
        print(record.write("first_minute", rows, interpreter=host.name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
