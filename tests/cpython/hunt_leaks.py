"""Run the interpreter's own leak hunt (regrtest -R): python hunt_leaks.py ARGUMENTS

The arguments are regrtest's. Its hunt refuses builds without a total reference count, which
are all but debug builds, though it mostly compares sys.getallocatedblocks() between
repetitions. Here the total is constant, so the hunt judges memory blocks and file
descriptors. Only the hunt's own view of `sys` is changed; the tests see a release build.
"""

import sys

del sys.path[0]                 # this folder: its modules are not the interpreter's

from test.libregrtest import refleak
from test.libregrtest.main import main


class Sys(object):
    """The sys module, with a total reference count."""

    def __getattr__(self, name):
        return getattr(sys, name)

    def gettotalrefcount(self):
        return 0


if __name__ == "__main__":
    refleak.sys = Sys()
    main()
