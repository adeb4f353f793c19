"""What the report of a failed check adds: the interpreter, the runs on both sides, and the
command that runs this check alone."""
import shlex
import subprocess

from support import child

MOST_RUNS = 6


def counterpart(run):
    """The last run with the library once more, without it."""
    env = {key: value for key, value in run.env.items()
           if key != 'LD_PRELOAD' and not key.startswith('OBMALLOC_')}
    try:
        return child.run(run.argv, env, timeout=20)
    except (OSError, subprocess.SubprocessError) as problem:
        return problem


def sections(item, runs):
    """(title, text) for each part of the report."""
    python = getattr(item, 'callspec', None) and item.callspec.params.get('python')
    if python:
        yield 'interpreter', f'{python.name}: {python.path} ({python.version}, {python.kind})'
    for run in runs[-MOST_RUNS:]:
        yield 'with the library preloaded' if run.preloaded else 'without a preload', run.report
    ours = [run for run in runs if run.preloaded]
    if ours and len(ours) == len(runs):
        other = counterpart(ours[-1])
        yield 'the last run again, without a preload', getattr(other, 'report', str(other))
    yield 'run it alone', f'tests/run {shlex.quote(item.nodeid)}'
