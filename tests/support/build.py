"""Where cargo puts the libraries and the command, and small C programs for the tests."""
import functools
import os
import re
import shutil
from pathlib import Path

import pytest

from support import child

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / os.environ.get('CARGO_TARGET_DIR', 'target')
RELEASE = TARGET / os.environ.get('CARGO_BUILD_TARGET', '') / 'release'
LIBRARY = RELEASE / 'libobmalloc.so'        # the option --library replaces it
ARCHIVE = RELEASE / 'libobmalloc.a'         # with weak names (`make all`)
PYTHONS_ONLY = RELEASE / 'libobmalloc_pythons.so'
COMMAND = RELEASE / 'obmalloc'
HEADER = ROOT / 'include' / 'obmalloc.h'
PROGRAMS = TARGET / 'tests'                 # what `program` compiles

FLAGS = ['-O2', '-g', '-Wall', '-Wextra', '-Werror']


@functools.lru_cache(maxsize=None)
def _compile(output, arguments, folder):
    words = [str(folder / word) if re.fullmatch(r'\w+\.c', word) else word for word in arguments]
    output.parent.mkdir(parents=True, exist_ok=True)
    fresh = output.with_name(f'{output.name}.{os.getpid()}')
    done = child.run([os.environ.get('CC', 'gcc'), *FLAGS, '-o', fresh, *words], timeout=120)
    assert done.status == 0, done.report
    fresh.replace(output)       # another worker may run the old one
    return output


def program(name, *arguments, folder):
    """Compiles `arguments` (sources of `folder` by their bare names, options) to a program or
    library `name` under target/tests, once in a process. Skips without a compiler."""
    if not shutil.which(os.environ.get('CC', 'gcc')):
        pytest.skip('no C compiler')
    return _compile(PROGRAMS / Path(folder).parent.name / name, tuple(map(str, arguments)),
                    Path(folder))
