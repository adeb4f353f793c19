"""Runs of the command, and copies of it laid out as an installation has them."""
import shutil
from pathlib import Path

from support import build, child

PROGRAMS = Path(__file__).parent / 'programs'


def run(*words, env=None, timeout=60, cwd=None, status=0):
    """`obmalloc WORDS`, to its end; None for any status."""
    return child.run([build.COMMAND, *words], env, timeout, cwd, status)


def layout(root, library='lib/libobmalloc.so'):
    """root/bin/obmalloc, and the library (if any) at its place in root; the command's path."""
    program = root / 'bin' / 'obmalloc'
    for origin, path in (build.COMMAND, program), (build.LIBRARY, library and root / library):
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(origin, path)
    return program


def for_another_machine(path, origin=None):
    """A copy of the library, or of another ELF file, with ARM64 in its header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(origin or build.LIBRARY, path)
    with path.open('r+b') as file:
        file.seek(18)
        file.write(b'\xb7\0')
    return path


def script(path, text, mode=0o755):
    """An executable file with this text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding='utf-8')
    path.chmod(mode)
    return path
