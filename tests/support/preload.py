"""Code in a preloaded interpreter, and the C programs of tests/preload/hosts."""
from support import build, child

# What runs inside interpreters, 2.7 among them. Their code can import these modules.
PROGRAMS = build.ROOT / 'tests' / 'preload' / 'programs'
HOSTS = build.ROOT / 'tests' / 'preload' / 'hosts'
PRELUDE = f'import sys; sys.path.insert(0, "{PROGRAMS}")\n'


def build_host(name, *arguments):
    """A C program or library from hosts/ (see support.build.program)."""
    return build.program(name, *arguments, folder=HOSTS)


def interpret(python, code, *arguments, options=(), env=None, status=0, timeout=60):
    """python OPTIONS -c CODE ARGUMENTS, preloaded unless `env` says otherwise. (-B: the folder
    of the programs stays clean.)"""
    return child.run([python.path, '-B', *options, '-c', PRELUDE + code, *arguments],
                     child.preloaded() if env is None else env, timeout, status=status)


def run_program(python, name, *arguments, options=(), env=None, status=0, timeout=100):
    """python OPTIONS programs/NAME ARGUMENTS, likewise."""
    return child.run([python.path, '-B', *options, PROGRAMS / name, *arguments],
                     child.preloaded() if env is None else env, timeout, status=status)
