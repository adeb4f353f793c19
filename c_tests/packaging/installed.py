"""Installed trees, and tools that are needed to use them."""
import os
import shutil
import subprocess
import sys
import threading
import unittest

import support

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
TOOLS = os.path.join(ROOT, 'target', 'tools')
_once = threading.Lock()


def make(*words):
    """make WORDS in the tree, whose own library is the one that is checked."""
    for tool in 'make', 'cargo':
        if not shutil.which(tool):
            raise unittest.SkipTest('no %s here' % tool)
    own = os.path.join(support.RELEASE, 'libobmalloc.so')
    if os.path.abspath(support.LIBRARY) != os.path.abspath(own):
        raise unittest.SkipTest("another library than the tree's own is checked")
    with _once:
        done = support.run(['make', '-s', '-C', ROOT, *words],
                           support.clean_environment(MAKEFLAGS=''), timeout=900)
    if done.status != 0:
        raise AssertionError(done.report)
    return done


def files(folder):
    """All that lies in a folder: files and links, not folders."""
    return sorted(os.path.relpath(os.path.join(place, name), folder)
                  for place, folders, names in os.walk(folder)
                  for name in names + [each for each in folders
                                       if os.path.islink(os.path.join(place, each))])


def from_pypi(program, *packages):
    """The path of a program: the machine's, else one of a virtual environment under
    target/tools, which stays there."""
    found = shutil.which(program)
    if found:
        return found
    folder = os.path.join(TOOLS, program)
    path = os.path.join(folder, 'bin', program)
    with _once:
        if not os.path.exists(path):
            for words in ([sys.executable, '-m', 'venv', folder],
                          [folder + '/bin/python', '-m', 'pip', '--disable-pip-version-check',
                           '-q', 'install', *packages]):
                try:
                    subprocess.run(words, check=True, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, timeout=600)
                except (OSError, subprocess.SubprocessError) as error:
                    raise unittest.SkipTest('no %s here, and none from PyPI: %s' % (program, error))
    return path
