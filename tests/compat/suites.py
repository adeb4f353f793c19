"""Bring a project here: an environment with its wheel, and its tests.

Each project has a virtual environment of its own with each interpreter, since they do not
agree on what they need. pip runs in the interpreter that runs this file, and installs into
the other (`pip --python`), so an interpreter without ensurepip will do. Tests that are not
in the wheel come from the source archive of the same version, of which nothing is built,
and nothing kept but what the tests need: the sources of the package beside them would be
imported in place of the wheel.

Where all of it lies: FOLDER/env/PROJECT-VERSION/PYTHON, FOLDER/tests/PROJECT-VERSION. It
is made once, and made again when what was asked for is another thing now.
"""

import glob
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.join(HERE, "..", "cpython"))

from runner import clean_environment  # noqa: E402


# What an archive may not do, where tarfile knows the word.
SAFELY = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


class Missing(Exception):
    """It cannot be had here; the text says why."""


def last_line(text):
    return (text.strip().splitlines() or ["nothing was said"])[-1]


def run(command, what, timeout=900, cwd=None, **settings):
    """The output of a command that has to succeed; raises Missing with its last words."""
    try:
        done = subprocess.run(command, env=dict(clean_environment(), **settings), cwd=cwd,
                              timeout=timeout, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              universal_newlines=True, errors="replace")
    except subprocess.TimeoutExpired:
        raise Missing("%s: no end within %d s" % (what, timeout))
    if done.returncode != 0:
        raise Missing("%s: %s" % (what, last_line(done.stdout)))
    return done.stdout


def pip(words, what, **settings):
    if importlib.util.find_spec("pip") is None:
        raise Missing("%s has no pip" % os.path.basename(sys.executable))
    return run([sys.executable, "-m", "pip", "--disable-pip-version-check"] + words, what,
               **settings)


def made(folder, wish):
    """Whether the folder has been made to its end, of the same wish."""
    try:
        with open(os.path.join(folder, "made.json"), encoding="utf-8") as stream:
            return json.load(stream) == wish
    except (OSError, ValueError):
        return False


def mark(folder, wish):
    with open(os.path.join(folder, "made.json"), "w", encoding="utf-8") as stream:
        json.dump(wish, stream)


def environment(project, python, folder):
    """The python of a virtual environment with the project's wheel and its tools."""
    place = os.path.join(folder, "env", project.label, python.label.replace(" ", "-"))
    inside = os.path.join(place, "bin", "python")
    wish = [os.path.realpath(python.path), project.requirements]
    if not made(place, wish):
        shutil.rmtree(place, ignore_errors=True)
        run([python.path, "-m", "venv", "--without-pip", place], "venv")
        built = ["--no-binary", ",".join(re.split("[<>=~]", one)[0] for one in project.unbuilt)]
        pip(["--python", inside, "install", "--quiet", "--only-binary", ":all:"]
            + built * bool(project.unbuilt) + project.requirements, "pip install")
        mark(place, wish)
    return inside


def site_packages(inside):
    """Where the environment's packages lie."""
    return run([inside, "-c", "import sysconfig; print(sysconfig.get_path('platlib'))"],
               "site-packages").strip()


def unpack(archive, keep, place):
    """Of a source archive, the files under the paths in `keep`."""
    with tarfile.open(archive) as stream:
        for member in stream.getmembers():
            parts = member.name.split("/", 1)
            if len(parts) < 2 or not any(parts[1] == path or parts[1].startswith(path + "/")
                                         for path in keep):
                continue
            member.name = parts[1]
            stream.extract(member, place, **SAFELY)


def tests(project, folder):
    """The folder with what the project's source archive has for its tests."""
    place = os.path.join(folder, "tests", project.label)
    wish = [project.requirement, sorted(project.keep)]
    if not made(place, wish):
        shutil.rmtree(place, ignore_errors=True)
        os.makedirs(place)
        with tempfile.TemporaryDirectory(prefix="obmalloc-compat-") as scratch:
            pip(["download", "--quiet", "--no-deps", "--no-binary", ":all:", "--use-pep517",
                 "--no-build-isolation", "--dest", scratch, project.requirement],
                "pip download", PYTHONPATH=os.path.join(HERE, "backends"))
            [archive] = glob.glob(os.path.join(scratch, "*.tar.gz"))
            unpack(archive, project.keep, place)
        mark(place, wish)
    return place


def graft(project, inside, folder):
    """Puts tests that import their package relatively where the package is."""
    packages = site_packages(inside)
    for source, target in project.graft.items():
        path = os.path.join(packages, target)
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(os.path.join(tests(project, folder), source), path)


def at(text, places):
    """The text, in which the names of places are replaced by their paths."""
    for name, path in places.items():
        text = text.replace("{%s}" % name, path)
    return text


def build(project, python, inside, places, folder):
    """The folder in which the project's test extensions are built for this interpreter.

    The tools come with the environment: cmake and ninja as wheels; the compiler is the
    system's. Optimised code would take longer to make than to run.
    """
    place = os.path.join(folder, "build", project.label, python.label.replace(" ", "-"))
    wish = [os.path.realpath(python.path), project.requirements, project.build]
    names = dict(places, BUILD=place, PYTHON=inside)
    if made(place, wish):
        return place
    if shutil.which("g++") is None:
        raise Missing("no g++ here")
    shutil.rmtree(place, ignore_errors=True)
    os.makedirs(place)
    tools = os.path.dirname(inside)
    for command in project.build:
        words = [at(word, names) for word in command]
        run(words, "building: " + words[0], timeout=3600, cwd=place,
            PATH=tools + os.pathsep + os.environ["PATH"], VIRTUAL_ENV=os.path.dirname(tools))
    mark(place, wish)
    return place
