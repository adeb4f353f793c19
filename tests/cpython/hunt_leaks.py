"""Run the interpreter's own leak hunt (regrtest -R): python hunt_leaks.py ARGUMENTS

The arguments are regrtest's.  Its hunt refuses builds without a total reference
count, which are all but debug builds, though most of what it does is to compare
sys.getallocatedblocks() between repetitions.  Here it is told that the total of the
references never changes, so memory blocks and file descriptors are what it judges.
Only the hunt's own view of `sys` is changed; the tests see a release build.
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
