"""The two interpreters that are compared: the same objects, linked with two allocators.

relink/relink.py makes both, or sees that they are there and up to date, and proves what
is in them: the library active in one, CPython's own obmalloc.o in the other.
"""

import os
import subprocess
import sys
from dataclasses import dataclass

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RELINK = os.path.join(ROOT, "relink")
sys.path.append(RELINK)

from ask import Refusal, ask, check_usable  # noqa: E402


class Missing(Exception):
    """This pair cannot be had; the text says why."""


@dataclass
class Pair:
    """Three paths of one version: as installed, relinked with its own, with ours."""
    version: str
    original: str
    stock: str
    ours: str


def link(original, archive, folder, *more):
    """Lets relink.py make one side."""
    result = subprocess.run([sys.executable, os.path.join(RELINK, "relink.py"), original,
                             "--archive", archive, "--out", folder] + list(more),
                            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE, universal_newlines=True)
    if result.returncode != 0:
        raise Missing(result.stderr.strip() or "relink.py failed")


def make(wish, archive, folder):
    """The Pair for a version that pyenv knows, a command or a path."""
    try:
        host = ask(wish)
        check_usable(host)
    except Refusal as refusal:
        raise Missing(str(refusal))
    link(host.path, archive, folder, "--stock")
    link(host.path, archive, folder)
    stock, ours = (os.path.join(folder, host.version + suffix, "bin", "python" + host.short)
                   for suffix in ("-stock", ""))
    return Pair(host.version, host.executable, stock, ours)


def add_options(parser):
    """What the command lines of all comparisons of pairs have in common."""
    parser.add_argument("versions", nargs="*", default=["3.11"], metavar="VERSION",
                        help="a version that pyenv knows, a command or a path (3.11)")
    parser.add_argument("--archive", metavar="FILE", type=os.path.abspath,
                        default=os.path.join(os.environ.get("CARGO_TARGET_DIR") or os.path.join(ROOT, "target"),
                                     os.environ.get("CARGO_BUILD_TARGET", ""), "release", "libobmalloc.a"))
    parser.add_argument("--out", metavar="FOLDER", type=os.path.abspath, help="where "
                        "relink.py keeps the interpreters (target/relink)",
                        default=os.path.join(ROOT, "target", "relink"))
