#!/usr/bin/env python3
"""Checks what `make install` and `make deb` leave, as those use it who have nothing else.

    c_tests/packaging/run.py [--only cmake ...]

The driver and what checks need are those of c_tests/preload; the topics are the
test_*.py files beside this one.
"""
import sys
sys.dont_write_bytecode = True      # before the modules beside us are imported

import os

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'preload'))

import run

if __name__ == '__main__':
    sys.exit(run.main(HERE, __doc__.split('\n')[0]))
