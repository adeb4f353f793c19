"""What checks of the command need: where it is, and copies of it and the library laid out
as a way to install does it."""
import os
import shutil

import support


def path():
    """The built command. Its library is the one beside it."""
    return os.path.join(os.path.dirname(support.LIBRARY), 'obmalloc')


def run(*words, env=None, timeout=60, cwd=None):
    """obmalloc WORDS, to its end."""
    return support.run([path(), *words], env, timeout, cwd)


def layout(name, command='bin/obmalloc', library='lib/libobmalloc.so'):
    """A folder with copies at these places in it; the command's path. None for library:
    the command alone."""
    root = support.scratch(name)
    places = [(path(), command)] + ([(support.LIBRARY, library)] if library else [])
    for origin, place in places:
        target = os.path.join(root, place)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copy(origin, target)
    return os.path.join(root, command)


def for_another_machine(name, origin=None):
    """A copy of the library, or of another file, whose head says ARM64."""
    copy = support.scratch(name)
    os.makedirs(os.path.dirname(copy), exist_ok=True)
    shutil.copy(origin or support.LIBRARY, copy)
    with open(copy, 'r+b') as file:
        file.seek(18)
        file.write(b'\xb7\0')
    return copy
