"""The link settings of an interpreter, for relink.py. They come from its own sysconfig, so the
way of its installation does not matter."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests"))
from support import interpreters  # noqa: E402

# Runs in the interpreter asked; valid on 2.7 and 3.x.
PROBE = r"""
import json, os, platform, sys, sysconfig
names = ("LIBPL LIBRARY LIBDIR LINKCC CC PY_CORE_LDFLAGS PY_LDFLAGS LDFLAGS "
         "LINKFORSHARED LIBS SYSLIBS MODLIBS LIBM Py_ENABLE_SHARED "
         "Py_GIL_DISABLED LDLIBRARY INSTSONAME DESTSHARED").split()
print(json.dumps({
    "implementation": platform.python_implementation(),
    "version": "%d.%d.%d" % sys.version_info[:3],
    "executable": os.path.realpath(sys.executable),
    "prefix": sys.prefix,
    "stdlib": [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")],
    "include": sysconfig.get_path("include"),
    "config": dict((name, sysconfig.get_config_var(name)) for name in names),
}))
"""


class Refusal(Exception):
    """This cannot be done; the text says why, and what to do next."""


@dataclass
class Host:
    """An interpreter, and what it said about itself."""
    path: str
    implementation: str
    version: str
    executable: str
    prefix: str
    stdlib: list
    include: str
    config: dict

    @property
    def short(self):
        return ".".join(self.version.split(".")[:2])

    @property
    def order(self):
        return tuple(int(part) for part in self.version.split("."))

    def text(self, name):
        value = self.config.get(name)
        return value if isinstance(value, str) else ""

    def in_config(self, name):
        return os.path.join(self.text("LIBPL"), name)

    @property
    def main_object(self):
        return self.in_config("python.o")

    @property
    def archive(self):
        """libpythonX.Y.a, in the config directory or beside the libraries."""
        for folder in (self.text("LIBPL"), self.text("LIBDIR")):
            path = os.path.join(folder, self.text("LIBRARY"))
            if self.text("LIBRARY") and os.path.isfile(path):
                return path
        return ""

    @property
    def exporter(self):
        """The file whose dynamic symbols extension modules see today."""
        if self.config.get("Py_ENABLE_SHARED"):
            for name in (self.text("INSTSONAME"), self.text("LDLIBRARY")):
                path = os.path.join(self.text("LIBDIR"), name)
                if name and os.path.isfile(path):
                    return path
        return self.executable


def locate(name):
    """The path of an interpreter that is given by path, version, or command."""
    if "/" in name:
        if not os.access(name, os.X_OK) or os.path.isdir(name):
            raise Refusal("no interpreter at %s: give the path of one" % name)
        return os.path.abspath(name)
    fitting = interpreters.select(name.removeprefix("python"))
    if fitting:
        return max(fitting, key=lambda one: (not one.distribution, one.numbers)).path
    path = shutil.which(name)
    if path is None:
        raise Refusal("no interpreter is called %s, neither by version nor on PATH: "
                      "give its path" % name)
    return path


def ask(name):
    """The Host that `name` stands for."""
    path = locate(name)
    environment = {key: value for key, value in os.environ.items()
                   if not key.startswith("PYTHON") and key != "LD_PRELOAD"}
    try:
        result = subprocess.run([path, "-c", PROBE], env=environment, timeout=60,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.DEVNULL, universal_newlines=True)
        return Host(path, **json.loads(result.stdout))
    except (OSError, ValueError, subprocess.TimeoutExpired):
        raise Refusal("%s does not answer as a Python does: give another one" % path)


def check_usable(host):
    """Refuse what cannot be linked again, with the next thing to do."""
    what = "%s %s (%s)" % (host.implementation, host.version, host.executable)
    if host.implementation != "CPython":
        raise Refusal("%s: only CPython has an obmalloc to replace" % what)
    if host.config.get("Py_GIL_DISABLED"):
        raise Refusal("%s: a free-threaded build needs its own mimalloc and cannot "
                      "be linked with another allocator; take the default build"
                      % what)
    if not host.archive:
        raise Refusal("%s: no static archive %s in %s; install it (Debian: "
                      "libpython%s-dev) or take an interpreter that pyenv has built"
                      % (what, host.text("LIBRARY"), host.text("LIBPL"), host.short))
    if not os.path.isfile(host.main_object):
        raise Refusal("%s: no python.o in %s; take an interpreter that was installed "
                      "by its own `make install`" % (what, host.text("LIBPL")))
