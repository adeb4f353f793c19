"""python -m obmalloc SUBCOMMAND: the command `obmalloc`, with this package's library, and for
this interpreter:

    python -m obmalloc run app.py       Python files, -m and -c run under it
    python -m obmalloc run gunicorn     programs run by their own interpreter
    python -m obmalloc doctor           checks this interpreter, or another one by its path
    python -m obmalloc path             where the library is
"""
import os
import sys

from obmalloc import _library

# Options of `run` that take a value in a word of its own.
_WITH_VALUE = {'--python', '--stats', '--soft-limit', '--hard-limit', '--decay',
               '--guard-sample-rate', '-s', '--set',
               '--limit', '--limit-hard', '--guard'}        # deprecated


def _command():
    for folder in (os.path.dirname(sys.executable), os.path.dirname(sys.argv[0])):
        path = os.path.join(folder, 'obmalloc')
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            return path
    # --user and --target put scripts elsewhere: by the installer's list of files.
    try:
        from importlib.metadata import files
        installed = files('obmalloc') or ()
    except ImportError:             # not in 3.7; or the package is not installed: PATH
        return 'obmalloc'
    for file in installed:
        if file.name == 'obmalloc' and os.access(str(file.locate()), os.X_OK):
            return str(file.locate())
    return 'obmalloc'


def _names_a_program(words):
    """Whether a program follows the options of run."""
    at = 0
    while at < len(words) and words[at].startswith('-'):
        if words[at] in ('--', '-c', '-m'):
            return words[at] != '--' or at + 1 < len(words)
        at += 2 if words[at] in _WITH_VALUE else 1
    return at < len(words)


def main():
    words = sys.argv[1:]
    argv = ['obmalloc'] + words
    if words[:1] == ['run'] and sys.executable:
        if not ({'-h', '--help'} & set(words) or _names_a_program(words[1:])):
            sys.exit('obmalloc: no program to run; name it: python -m obmalloc run app.py')
        argv = ['obmalloc', 'run', '--python', sys.executable] + words[1:]
    elif words[:1] == ['doctor'] and not [word for word in words[1:] if not word.startswith('-')]:
        argv = ['obmalloc', 'doctor'] + words[1:] + [sys.executable]
    if os.path.exists(_library.PATH):
        os.environ.setdefault('OBMALLOC_LIBRARY', _library.PATH)
    try:
        os.execvp(_command(), argv)
    except OSError as error:
        sys.exit('obmalloc: the command cannot be started (%s); reinstall the package'
                 % error.strerror)


if __name__ == '__main__':
    main()
