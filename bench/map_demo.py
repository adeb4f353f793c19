"""Draws docs/map.png: the heap of a program before, at and after a peak of memory.

    bench/map_demo.py --png docs/map.png        needs chromium
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Where cargo builds.
RELEASE = (pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
           / os.environ.get("CARGO_BUILD_TARGET", "") / "release").absolute()
LIBRARY = RELEASE / "libobmalloc.so"

# Parses the standard library, keeps for each function its name, its line and the functions
# that it calls, and drops the trees, as documentation tools and linters do.
PROGRAM = '''
import ast, ctypes, gc, os, sys, sysconfig, time

folder = sys.argv[1]
library = ctypes.CDLL(None)

def snapshot(name):
    path = os.path.join(folder, name + ".map")
    error = library.obmalloc_snapshot(path.encode())
    if error:
        sys.exit("obmalloc_snapshot: " + os.strerror(error))
    return path

def trees(folder):
    for name in sorted(os.listdir(folder)):
        if name.endswith(".py"):
            with open(os.path.join(folder, name), "rb") as file:
                yield name, ast.parse(file.read())

def calls(function):
    names = (getattr(node.func, "id", None) for node in ast.walk(function)
             if isinstance(node, ast.Call))
    return tuple(sorted({name for name in names if name}))

snapshot("1 before")
parsed = list(trees(sysconfig.get_path("stdlib")))
index = {}
for module, tree in parsed:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            index[module, node.name] = node.lineno, calls(node)
snapshot("2 at the peak")
del parsed, tree, node
gc.collect()
time.sleep(3)
snapshot("3 after")
print(len(index), "functions")
'''


def snapshots(folder, python):
    """Runs the program with the library; returns the files of its snapshots."""
    environment = dict(os.environ, LD_PRELOAD=str(LIBRARY), PYTHONHASHSEED="0")
    words = [python, "-c", PROGRAM, str(folder)]
    subprocess.run(words, env=environment, check=True)
    return sorted(folder.glob("*.map"))


def picture(page, png, width, height):
    """A screenshot of the page."""
    png = png.resolve()
    png.parent.mkdir(parents=True, exist_ok=True)
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    if browser is None:
        sys.exit("no chromium here: the page is " + str(page))
    subprocess.run([browser, "--headless", "--no-sandbox", "--disable-gpu",
                    "--hide-scrollbars", "--force-device-scale-factor=2",
                    f"--window-size={width},{height}",
                    "--virtual-time-budget=4000", f"--screenshot={png}",
                    page.as_uri() + "#all"], check=True, stderr=subprocess.DEVNULL)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--command", default=RELEASE / "obmalloc")
    parser.add_argument("--keep", type=pathlib.Path, help="folder for snapshots and page")
    parser.add_argument("--png", type=pathlib.Path)
    parser.add_argument("--size", default="1280x890", help="of the browser's window")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or pathlib.Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        files = snapshots(folder, options.python)
        page = folder.resolve() / "map.html"
        subprocess.run([options.command, "map", *files, "--html", page], check=True)
        if options.png:
            width, height = options.size.split("x")
            picture(page, options.png, width, height)


if __name__ == "__main__":
    main()
