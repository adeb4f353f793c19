"""Other libraries that replace malloc."""
import glob

import pytest

NAMES = {'jemalloc': 'libjemalloc.so.2', 'mimalloc': 'libmimalloc.so.2',
         'tcmalloc': 'libtcmalloc_minimal.so.4'}


def find(kind):
    """The library's path; skips the check if it is not installed."""
    return next((path for folder in ('/usr/lib/*', '/usr/lib', '/usr/lib64', '/usr/local/lib')
                 for path in glob.glob(f'{folder}/{NAMES[kind]}')),
                None) or pytest.skip(f'no {NAMES[kind]}')
