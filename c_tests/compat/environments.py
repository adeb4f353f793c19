#!/usr/bin/env python3
"""Environments that programs run in: servers that fork workers, tools that look into a
process, interpreters beside each other, newer systems. Each is tried with us and
without, and has to do the same; each shows that we are active in the process that
matters, or why not.

    c_tests/compat/environments.py [--only gunicorn ...] [--pythons 3.13 static ...] [--record]

What has to be installed comes from pip and Debian, into target/compat; what cannot be
had is skipped, and said. A line for each: verdict, environment, interpreter, seconds,
what was found. Fails if one fails, or if none was made.
"""
import argparse
import os
import sys
import time
sys.dont_write_bytecode = True      # before the modules beside us are imported

import base
from base import proven, pythons, support

import servers          # noqa: F401  each lists its environments
import tools            # noqa: F401
import interpreters     # noqa: F401
import system           # noqa: F401
import newer            # noqa: F401

# Interpreters by default: the distribution's static one, and two shared ones.
USUAL = ['static', '3.12', '3.13']


def record(name, found, seconds):
    """One line of c_tests/PROVEN.md."""
    proven.keep('env-' + name, 'c_tests/compat/environments.py --only ' + name,
                '; '.join(sorted({words for _, words in found})), seconds,
                ', '.join(label for label, _ in found if label) or 'as said', 'as without us',
                what='environment ' + name)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--only', nargs='+', default=[], metavar='NAME',
                        help='of: ' + ' '.join(each.name for each in base.EVERY))
    parser.add_argument('--pythons', nargs='+', default=USUAL, metavar='WHICH',
                        help="'3.11', '3.11.7', 'static', 'shared' (%s)" % ' '.join(USUAL))
    parser.add_argument('--library', default=support.LIBRARY, help='another libobmalloc.so')
    parser.add_argument('--record', action='store_true', help='keep what passed as proven')
    options = parser.parse_args()
    unknown = set(options.only) - {each.name for each in base.EVERY}
    if unknown:
        parser.error('no such environment: ' + ' '.join(sorted(unknown)))
    support.LIBRARY = os.path.abspath(options.library)
    if not os.path.exists(support.LIBRARY):
        sys.exit('%s is not there: make' % support.LIBRARY)
    os.makedirs(base.FOLDER, exist_ok=True)
    found = [each for each in pythons.find()[0] if pythons.matches(each, options.pythons)]

    verdicts = base.Verdicts()
    for each in base.EVERY:
        if each.name not in options.only:
            if not options.only and each.only_asked:
                print('skip  %-18s it changes a setting of the whole machine: ask for it'
                      ' by --only' % each.name)
            if options.only or each.only_asked:
                continue
        passed, failed, begun = [], verdicts.count['FAIL'], time.time()
        several = [python for python in found if each.applies and each.applies(python)]
        if each.applies and not several:
            print('skip  %-18s no interpreter for it among those chosen' % each.name)
        for python in several if each.applies else [None]:
            label = python.label if python else ''
            verdict, words = verdicts.of('%-18s %-14s' % (each.name, label), each.check,
                                         *[python] if python else [])
            if verdict == 'ok':
                passed.append((label, words))
        if options.record and passed and verdicts.count['FAIL'] == failed:
            record(each.name, passed, time.time() - begun)
    return verdicts.end()


if __name__ == '__main__':
    sys.exit(main())
