"""python -m obmalloc run [options] [--] app.py [arguments]: this interpreter, with the
library. Any other subcommand goes to the command `obmalloc` as it is."""
import os
import sys

from obmalloc import _library

# Options of `run` that take a value in a word of its own.
_WITH_VALUE = {'--stats', '--limit', '--limit-hard', '--decay', '--guard', '-s', '--set'}


def _command():
    for folder in (os.path.dirname(sys.executable), os.path.dirname(sys.argv[0])):
        path = os.path.join(folder, 'obmalloc')
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            return path
    # --user and --target put scripts elsewhere: the installer has kept a list.
    try:
        from importlib.metadata import files
    except ImportError:
        return 'obmalloc'           # 3.7: PATH
    for file in files('obmalloc') or ():
        if file.name == 'obmalloc' and os.access(str(file.locate()), os.X_OK):
            return str(file.locate())
    return 'obmalloc'


def _split(words):
    """(options of run, what follows)"""
    at = 0
    while at < len(words) and words[at].startswith('-'):
        if words[at] in ('--', '-c', '-m'):
            break
        at += 2 if words[at] in _WITH_VALUE else 1
    rest = words[at:]
    return words[:at], rest[1:] if rest[:1] == ['--'] else rest


def main():
    words = sys.argv[1:]
    argv = ['obmalloc'] + words
    if words[:1] == ['run']:
        options, program = _split(words[1:])
        if not program and not {'-h', '--help'} & set(options):
            sys.exit('obmalloc: no program to run; name it: python -m obmalloc run app.py')
        argv = ['obmalloc', 'run'] + options + (['--', sys.executable] + program if program else [])
    elif words[:1] == ['doctor'] and not [word for word in words[1:] if not word.startswith('-')]:
        argv = ['obmalloc', 'doctor'] + words[1:] + [sys.executable]
    os.environ.setdefault('OBMALLOC_LIBRARY', _library.PATH)
    try:
        os.execvp(_command(), argv)
    except OSError as error:
        sys.exit('obmalloc: the command cannot be started (%s); reinstall the package'
                 % error.strerror)


if __name__ == '__main__':
    main()
