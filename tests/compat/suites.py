"""A project's own tests: the environment with its wheel, its test files, and runs of them.

Each project has a virtual environment of its own with each interpreter, since their
requirements conflict. pip runs in the interpreter that runs this file and installs into the
other (`pip --python`), so an interpreter without ensurepip will do. Tests that are not in the
wheel come from the source archive of the same version, of which nothing is built and only the
tests are kept: the package's sources beside them would be imported in place of the wheel.

All of it is under target/compat: env/PROJECT-VERSION/PYTHON, tests/PROJECT-VERSION,
build/PROJECT-VERSION/PYTHON. It is made once, and again if the request has changed.
"""
import contextlib
import dataclasses
import glob
import json
import os
import re
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest
from compat.environment import FOLDER, HERE, last_line

from support import build, child, outcomes, verdict

RERUNS = 3
# tarfile extracts nothing outside of the folder, where it has this option.
SAFELY = {'filter': 'data'} if hasattr(tarfile, 'data_filter') else {}


def run(command, what, timeout=900, cwd=None, **settings):
    """The output of a command; skips the check if it fails, with its last line."""
    done = child.run(command, child.clean_environment(**settings), timeout, cwd)
    if done.status != 0:
        pytest.skip(f'{what}: {done.status}: {last_line(done.out + done.err)}')
    return done.out


def pip(words, what, **settings):
    run([sys.executable, '-m', 'pip', '--disable-pip-version-check', *words], what, **settings)


@contextlib.contextmanager
def made(folder, wish):
    """Yields whether the folder must be made; it is empty then, and one worker makes it. At the
    end it is marked as made of this wish."""
    mark, wish = folder / 'made.json', json.dumps(wish)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with build.locked(str(folder.relative_to(FOLDER)).replace('/', '-')):
        if mark.exists() and mark.read_text() == wish:
            yield False
            return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        yield True
        mark.write_text(wish)


def environment(project, python):
    """The python of a virtual environment with the project's wheel and its tools."""
    folder = FOLDER / 'env' / project.label / python.name
    inside = folder / 'bin/python'
    with made(folder, [python.executable, project.requirements]) as missing:
        if missing:
            run([python.path, '-m', 'venv', '--without-pip', folder], 'venv')
            names = ','.join(re.split('[<>=~]', one)[0] for one in project.unbuilt)
            pip(['--python', inside, 'install', '--quiet', '--only-binary', ':all:',
                 *(['--no-binary', names] if names else []), *project.requirements],
                'pip install')
    return inside


def unpack(archive, keep, folder):
    """Extracts the files of a source archive under the paths in `keep`."""
    with tarfile.open(archive) as stream:
        for member in stream.getmembers():
            member.name = member.name.partition('/')[2]
            if any(f'{member.name}/'.startswith(f'{path}/') for path in keep):
                stream.extract(member, folder, **SAFELY)


def tests(project):
    """The folder with the tests of the project's source archive."""
    folder = FOLDER / 'tests' / project.label
    with made(folder, [project.requirement, sorted(project.keep)]) as missing, \
            tempfile.TemporaryDirectory() as scratch:
        if missing:
            pip(['download', '--quiet', '--no-deps', '--no-binary', ':all:', '--use-pep517',
                 '--no-build-isolation', '--dest', scratch, project.requirement],
                'pip download', PYTHONPATH=str(HERE / 'backends'))
            [archive] = glob.glob(f'{scratch}/*.tar.gz')
            unpack(archive, project.keep, folder)
    return folder


class Suite:
    """A project's tests in one environment."""

    def __init__(self, project, python):
        self.project, self.version = project, python.version
        self.inside = environment(project, python)
        packages = run([self.inside, '-c', 'import sysconfig; print(sysconfig.get_path("platlib"))'],
                       'site-packages').strip()
        core = '_core' if os.path.isdir(f'{packages}/numpy/_core/tests') else 'core'
        self.places = dict(PACKAGES=packages, PYTHON=self.inside, CORE=core,
                           EXTENSIONS=HERE / 'extensions')
        if project.keep:
            self.places['TESTS'] = tests(project)
        for source, target in project.graft.items():
            # Tests that import their package relatively must be beside it.
            path = Path(packages, target)
            shutil.rmtree(path, ignore_errors=True)
            shutil.copytree(self.places['TESTS'] / source, path)
        if project.build:
            self.places['BUILD'] = self.build(python)
        self.places['ROOT'] = self.root = self.at(project.root)

    def at(self, text):
        """The text with the names of places replaced by their paths."""
        for name, path in self.places.items():
            text = text.replace('{%s}' % name, str(path))
        return text

    def build(self, python):
        """The folder in which the project's test extensions are built for this interpreter:
        cmake and ninja come as wheels, the compiler is the system's."""
        folder = FOLDER / 'build' / self.project.label / python.name
        self.places['BUILD'] = folder
        if not shutil.which('g++'):
            pytest.skip('no g++')
        tools = self.inside.parent
        with made(folder, [python.executable, self.project.requirements,
                           self.project.build]) as missing:
            for command in self.project.build if missing else ():
                run([self.at(word) for word in command], f'building: {command[0]}', 3600, folder,
                    PATH=f'{tools}{os.pathsep}{os.environ["PATH"]}', VIRTUAL_ENV=str(tools.parent))
        return folder

    def words(self, path, part):
        """The command with an interpreter; of the whole suite, or of some files or modules."""
        what = [self.at(word) for word in self.project.what]
        script = [path, outcomes.INSIDE / 'obmalloc_unittest.py']
        if self.project.runner == 'unittest':
            return [*script, 'modules', *(part or what)]
        if self.project.runner == 'script':
            return [*script, 'script', os.path.join(self.root, what[0]), *what[1:]]
        settings = [file for file in (os.path.join(self.root, name) for name in
                                      ('pytest.ini', 'pyproject.toml', 'setup.cfg'))
                    if self.project.root == '{TESTS}' and os.path.exists(file)]
        return [path, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-p', 'obmalloc_pytest',
                '-c', (settings + [os.devnull])[0], '--rootdir', self.root, '--confcutdir',
                self.root, *map(self.at, self.project.options),
                *(os.path.join(self.root, file) for file in part or what)]

    def run(self, side, part=()):
        """One run of the whole, or of a part; a side is (interpreter, settings)."""
        path, more = side

        def settings(folder):
            chosen = dict(PYTHONHASHSEED='0', PYTHONPATH=str(outcomes.INSIDE),
                          PATH=f'{self.inside.parent}{os.pathsep}{os.environ["PATH"]}',
                          RECORD_OUTCOMES=str(folder / 'outcomes'))
            for name, value in self.project.settings.items():
                chosen[name] = os.pathsep.join(filter(None, (chosen.get(name), self.at(value))))
            if 'LD_PRELOAD' in more:
                chosen['OBMALLOC_STATS'] = str(folder / 'stats-%p.json')
            return chosen | more

        def command(outfile):
            work = str(outfile.parent / 't/work')
            return [str(word).replace('{WORK}', work) for word in self.words(path, part)]
        done = outcomes.run(command, settings, self.project.minutes * 60, stall=300)
        if done.state and done.ending == 'exit status 1':
            done.ending = ''        # a test failed; the run reached its end
        return done

    def compare(self, stock_side, stock, side, known=()):
        """(Verdict, runs with the library) of a side and a run without the library. Files whose
        outcomes differ run three more times on each side."""
        ours = self.run(side)
        base, other = [with_state(stock)], [with_state(ours)]
        part = differing(stock, ours)
        for _ in range(RERUNS if part else 0):
            base.append(merged(base[0], self.run(stock_side, part)))
            other.append(merged(other[0], self.run(side, part)))
        judged = verdict.judge(self.project.name, base, other, known)
        assert not stock.ending or judged.differences, \
            f'broke off on both sides: {stock.ending}\n{stock.log[-1500:]}'
        return judged, other


def why_inactive(run, version):
    """Why the run does not prove that the library served it; '' if it does."""
    if run.ending:
        return ''               # without statistics; the way it ended is judged
    if 'libobmalloc.so' not in run.mapped:
        return 'the library is not mapped'
    try:
        stats = json.loads(run.stats)
    except ValueError:
        return 'no statistics of the process that ran the tests'
    if stats['host'] != version or stats['pid'] != run.pid:
        return 'statistics of another process'
    return '' if stats['pools']['used'] else 'no pool is in use'


def differing(one, other):
    """The files, or modules, whose tests ended differently in two runs."""
    names = [name for name in {*one.outcomes, *other.outcomes}
             if one.outcomes.get(name) != other.outcomes.get(name)]
    names += [run.last_test for run in (one, other) if run.last_test]
    return sorted({name.split('::')[0] for name in names})


def merged(first, again):
    """The whole run with the outcomes of a part that ran again."""
    return with_state(dataclasses.replace(
        first, outcomes={**first.outcomes, **again.outcomes}, ending=again.ending,
        last_test=again.last_test))


def with_state(run):
    """The state that follows from the outcomes, so that runs of parts can be compared."""
    bad = any(verdict.BAD & set(found) for found in run.outcomes.values())
    return dataclasses.replace(run, state=run.state and ('failed' if bad else 'passed'))
