#!/usr/bin/env python3
"""Draws the pictures of docs/tutorial-leak.md: flame graphs of examples/leaky_app.

    docs/pictures.py [--seconds 20] [--keep FOLDER]     needs chromium, and `make command`

`make pictures` draws docs/map.png, too.
"""
import argparse
import contextlib
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / 'bench'))
from map_demo import RELEASE, picture   # noqa: E402

COMMAND = RELEASE / 'obmalloc'


def free_port():
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return str(free.getsockname()[1])


@contextlib.contextmanager
def served(python, port, folder):
    """The application; its pid. The pictures have the paths of the interpreter and the folder."""
    app = subprocess.Popen([COMMAND, 'run', '--stats-page', '--', python, '-B', 'app.py', port],
                           cwd=folder, stdout=subprocess.PIPE)
    try:
        app.stdout.readline()
        yield str(app.pid)
    finally:
        app.terminate()
        app.wait()


def profiles(python, folder, seconds):
    """Two profiles of the application, with load before each of them."""
    shutil.copytree(ROOT / 'examples/leaky_app', folder, dirs_exist_ok=True,
                    ignore=shutil.ignore_patterns('__pycache__'))
    port = free_port()
    with served(python, port, folder) as pid:
        # From now on, so that imports are not in the pictures.
        subprocess.run([COMMAND, 'profile', pid, '--start=64K'], check=True)
        for name in 'before', 'after':
            subprocess.run([python, '-B', folder / 'load.py', str(seconds // 2), port], check=True)
            subprocess.run([COMMAND, 'profile', pid, '-o', folder / f'{name}.pb.gz'], check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--python', default=shutil.which('python3', path='/usr/bin')
                        or sys.executable, help="default: the distribution's")
    parser.add_argument('--seconds', type=int, default=20, help='of load')
    parser.add_argument('--keep', type=pathlib.Path, help='folder for the program, profiles and pages')
    parser.add_argument('--to', type=pathlib.Path, default=ROOT / 'docs')
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix='shop-') as temporary:
        folder = (options.keep or pathlib.Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        profiles(options.python, folder, options.seconds)
        before, after = folder / 'before.pb.gz', folder / 'after.pb.gz'
        for words, name in ((['report', after], 'leak-flame'),
                            (['diff', before, after], 'leak-growth')):
            page = folder / f'{name}.html'
            subprocess.run([COMMAND, *words, '--flame', page], check=True)
            picture(page, options.to / f'{name}.png', 1200, 580)
            print(options.to / f'{name}.png')


if __name__ == '__main__':
    main()
