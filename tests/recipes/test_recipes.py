"""docs/recipes.md with real servers: the blocks of the page are the files and command lines of
each run, with this machine's paths put in.

Packages come from PyPI. The process that does the work must get its own pid, the interpreter's
version and the count of its objects from the library; the same program without `obmalloc run`
must find no library.
"""
import json
import os
import re
import shlex
import shutil
import signal
import time
import urllib.request
from pathlib import Path

import pytest

from compat.environment import PROGRAMS as SHARED
from compat.environment import virtual
from support import build, child, debian, interpreters, sandbox, status
from support.running import Running, eventually, free_port, is_open

pytestmark = [pytest.mark.slow, pytest.mark.network]
PROGRAMS = Path(__file__).parent / 'programs'
FILES = [*PROGRAMS.glob('*.py'), SHARED / 'ledger.py', SHARED / 'celery_files.py']


# ---- the page ----

def blocks(section, language):
    """The blocks of this language under that heading."""
    page = (build.ROOT / 'docs' / 'recipes.md').read_text()
    part = page.split(f'\n## {section}\n')[1].split('\n## ')[0]
    found = re.findall(rf'```{language}\n(.*?)```', part, re.S)
    assert found, f'no block of {language} under {section}'
    return found


class Place:
    """A folder with the programs, an interpreter, and the page's paths on this machine."""

    def __init__(self, python, folder):
        self.version, self.folder = python.version, folder
        self.use(python, Path(python.path).parent)
        for path in FILES:
            shutil.copy(path, folder)
        self.port = free_port()

    def use(self, python, programs):
        self.python, self.bin, self.interpreter = python, programs, programs / 'python'

    def has(self, *packages):
        """Changes to a virtual environment with these packages; prints their versions."""
        self.use(self.python, virtual(self.python, *packages))
        print(child.run([self.interpreter, '-m', 'pip', 'freeze'], status=0).out)

    def here(self, text):
        for old, new in (('/usr/bin/obmalloc', build.COMMAND),
                         ('/usr/bin/python3', self.interpreter),
                         ('/srv/app', self.folder), ('libobmalloc.so.0', build.LIBRARY),
                         ('127.0.0.1:8000', f'127.0.0.1:{self.port}')):
            text = text.replace(old, str(new))
        return text

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.here(text))
        return path

    def line(self, section):
        """The words of the section's command line."""
        [line] = re.findall(r'^\$ (.*)$', blocks(section, 'console')[0], re.M)
        words = shlex.split(self.here(line))
        assert words[0] == 'obmalloc', line
        return [str(build.COMMAND), *words[1:]]

    def environment(self, **more):
        return child.clean_environment(PATH=f'{self.bin}{os.pathsep}{os.environ["PATH"]}',
                                       HOME=str(self.folder), PYTHONDONTWRITEBYTECODE='1', **more)

    def run(self, words, **settings):
        return child.run(words, self.environment(**settings), 240, self.folder, status=0)

    def app(self, **settings):
        """What the program says of itself when it is started by hand."""
        return self.run([self.interpreter, 'app.py'], **settings)

    def served(self, said):
        """The library serves the process that said this."""
        assert said['pid'] == said['mine']
        assert said['host'] == self.version
        assert said['counted'] > 20000 * 64, 'the objects were not counted'


def alone(said):
    assert (said['pid'], said['counted']) == (None, 0), 'the library is loaded'


def without(words):
    """The words after `obmalloc run --`."""
    assert words[:3] == [str(build.COMMAND), 'run', '--']
    return words[3:]


@pytest.fixture
def place(request, tmp_path):
    """With a shared 3.11 (or --pythons): its virtual environments have pip."""
    found = interpreters.select(request.config.option.pythons or '3.11')
    found = sorted((python for python in found if python.numbers >= (3, 8)),
                   key=lambda python: not python.shared)
    if not found:
        pytest.skip('no Python 3.11')
    return Place(found[0], tmp_path)


# ---- servers ----

def web(place, words):
    """The answers of a server's workers."""
    answers = {}

    def answered():
        with urllib.request.urlopen(f'http://127.0.0.1:{place.port}/', timeout=60) as link:
            said = json.loads(link.read().decode())
        answers[said['mine']] = said
        return len(answers) >= 2

    with Running(words, place.environment(), place.folder, place.folder) as server:
        server.wait_until(lambda: is_open(place.port))
        eventually(answered, 20)
        assert {said['parent'] for said in answers.values()} == {server.pid}, 'workers of others'
        server.end(signal.SIGTERM if 'gunicorn' in ' '.join(words) else signal.SIGINT)
    return answers.values()


def test_gunicorn(place):
    place.has('gunicorn')
    place.write('gunicorn.conf.py', blocks('gunicorn', 'python')[0])
    words = [*place.line('gunicorn'), '-b', f'127.0.0.1:{place.port}']
    for said in web(place, words):
        place.served(said)
    for said in web(place, without(words)):
        alone(said)


def test_uwsgi(place):
    place.has('uwsgi')
    [file] = blocks('uwsgi', 'ini')
    place.write('uwsgi.ini', file)
    words = place.line('uwsgi')
    for said in web(place, words):
        place.served(said)
    # The page says that `env =` comes too late.
    place.write('uwsgi.ini', file + 'env = LD_PRELOAD=libobmalloc.so.0\n')
    for said in web(place, without(words)):
        alone(said)


def test_celery(place):
    place.has('celery')

    def work(words, name):
        settings = {'TASKS_FOLDER': str(place.folder / name), 'C_FORCE_ROOT': '1'}
        with Running(words, place.environment(**settings), place.folder, place.folder) as worker:
            answers = place.run([place.interpreter, 'tasks.py'], **settings).said
            worker.end(signal.SIGTERM)
            assert {said['parent'] for said in answers} == {worker.pid}, 'children of others'
            return answers
    words = place.line('Celery')
    for said in work(words, 'ours'):
        place.served(said)
    for said in work(without(words), 'stock'):
        alone(said)


def notebook(place, words, kernel):
    """What a cell says in a kernel of this name that a Jupyter server has started."""
    settings = {f'JUPYTER_{name.upper()}_DIR': str(place.folder / name)
                for name in ('runtime', 'data', 'config')}
    settings.update(IPYTHONDIR=str(place.folder / 'ipython'), JUPYTER_TOKEN='secret')
    words = [*words, '--allow-root', '--ServerApp.ip=127.0.0.1',
             f'--ServerApp.port={place.port}', '--ServerApp.port_retries=0']
    with Running(words, place.environment(**settings), place.folder, place.folder) as server:
        server.wait_until(lambda: is_open(place.port))
        request = urllib.request.Request(
            f'http://127.0.0.1:{place.port}/api/kernels', json.dumps({'name': kernel}).encode(),
            {'Authorization': 'token secret', 'Content-Type': 'application/json'})
        with urllib.request.urlopen(request, timeout=120) as link:
            number = json.loads(link.read().decode())['id']
        connection = place.folder / 'runtime' / f'kernel-{number}.json'
        said = place.run([place.interpreter, 'kernel.py', connection, place.folder],
                         **settings).said
        assert said['parent'] == server.pid, "not the server's kernel"
        server.end(signal.SIGTERM)
        return said


def test_jupyter(place):
    place.has('notebook')
    words = place.line('Jupyter')
    place.served(notebook(place, words, 'python3'))
    # The page's kernel, in a server without the library; and the stock kernel there.
    place.write('data/kernels/obmalloc/kernel.json', blocks('Jupyter', 'json')[0])
    place.served(notebook(place, without(words), 'obmalloc'))
    alone(notebook(place, without(words), 'python3'))


# ---- service managers and containers ----

def test_dockerfile(place):
    """The RUN lines and the start, in a copy of this machine in place of the image."""
    steps, copied, start = [], [], []
    for line in blocks('Dockerfile', 'Dockerfile')[0].splitlines():
        word, _, rest = line.partition(' ')
        if word == 'RUN':
            steps.append(rest)
        elif word == 'COPY':
            copied.append(rest.split()[-1])
        elif word == 'WORKDIR':
            steps.append('cd ' + rest)
        elif word in ('ENTRYPOINT', 'CMD'):
            start += json.loads(rest)
        else:
            assert word == 'FROM', line
    assert copied == ['/tmp/', '/srv/app']
    # The files are in the copy's /tmp; PATH is that of an image, without other Pythons.
    programs = [place.folder / name for name in ('app.py', 'who.py', 'ledger.py')]
    text = '\n'.join([
        'export PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin HOME=/',
        'mkdir -p /srv/app && mv /tmp/app.py /tmp/who.py /tmp/ledger.py /srv/app/',
        'exec 3>&1 >/tmp/log', *steps, f'exec {shlex.join(start)} >&3', ''])
    packages = [path for path in debian.packages() if 'libobmalloc-dev' not in path.name]
    done = sandbox.script(text, *packages, *programs)
    [said] = [json.loads(line) for line in done.out.splitlines() if line.startswith('{')]
    code = 'import platform; print(platform.python_version())'
    place.version = child.run(['/usr/bin/python3', '-c', code], status=0).out.strip()
    place.served(said)


def settings(unit, section, name):
    """The values of a name in a section of an ini file."""
    part = re.search(rf'^\[{section}\]\n(.*?)(?=^\[|\Z)', unit, re.S | re.M).group(1)
    return re.findall(rf'^{name}=(.*)$', part, re.M)


def test_systemd_verifies_the_units(place):
    if not shutil.which('systemd-analyze'):
        pytest.skip('no systemd-analyze')
    drop_in, unit = blocks('systemd', 'ini')
    place.write('units/app.service', unit)
    path = place.write('units/app.service.d/obmalloc.conf', drop_in)

    def verified():
        return child.run(['systemd-analyze', 'verify', place.folder / 'units/app.service'],
                         child.clean_environment(SYSTEMD_UNIT_PATH=f'{place.folder}/units:'))
    done = verified()
    assert done.status == 0 and 'app.service' not in done.err, done.report
    path.write_text(path.read_text() + 'Enviroment=X=1\n')
    assert 'Enviroment' in verified().err, 'the drop-in is not read'


def test_systemd(place):
    """The commands and variables of both files, started by hand: most containers run no systemd."""
    drop_in, unit = map(place.here, blocks('systemd', 'ini'))
    [command] = settings(unit, 'Service', 'ExecStart')
    place.served(place.run(shlex.split(command)).said)
    values = dict(value.split('=', 1) for value in settings(drop_in, 'Service', 'Environment'))
    place.served(place.app(**values).said)


@pytest.mark.parametrize('way', [0, 1])
def test_supervisord(place, way):
    place.has('supervisor')
    out = place.folder / 'out'
    config = place.write('supervisord.conf', '\n'.join([
        '[supervisord]', 'nodaemon=true', f'logfile={place.folder}/log',
        f'pidfile={place.folder}/pid',
        'user=root' if os.geteuid() == 0 else '',
        blocks('supervisord', 'ini')[way] + f'stdout_logfile={out}', '']))
    words = [place.bin / 'supervisord', '-c', config]
    with Running(words, place.environment(), place.folder) as manager:
        text = eventually(lambda: out.exists() and out.read_text())
        assert text, manager.output()
        said = json.loads(text.splitlines()[0])
        place.served(said)
        assert said['parent'] == manager.pid, 'the child of another'
        manager.end(signal.SIGTERM)
        assert not os.path.exists(f'/proc/{said["pid"]}'), 'the program still runs'


def test_kubernetes(place):
    """The file is parsed, and its command is started with its variables."""
    place.has('pyyaml')
    path = place.write('app.yaml', blocks('Kubernetes', 'yaml')[0])
    found = place.run([place.interpreter, '-c', 'import json, sys, yaml; '
                       'print(json.dumps(yaml.safe_load(open(sys.argv[1]))))', path]).said
    assert (found['apiVersion'], found['kind']) == ('apps/v1', 'Deployment')
    template = found['spec']['template']
    assert found['spec']['selector']['matchLabels'] == template['metadata']['labels']
    [container] = template['spec']['containers']
    env = {each['name']: each['value'] for each in container['env']}
    assert all(isinstance(value, str) for value in env.values())
    assert set(env) == {'LD_PRELOAD', 'OBMALLOC_SOFT_LIMIT'}
    done = place.run(container['command'], OBMALLOC_VERBOSE='1', **env)
    assert 'not understood' not in done.err
    place.served(done.said)
    alone(place.run(container['command']).said)


# ---- removing it again ----

def test_a_program_runs_on_without_the_file(place):
    """And the next one starts without the library; the loader says so in one line."""
    copy = place.folder / 'libobmalloc.so.0'
    shutil.copy(build.LIBRARY, copy)
    env = place.environment(LD_PRELOAD=str(copy))
    with Running([place.interpreter, 'app.py', '60'], env, place.folder, place.folder) as running:
        place.served(json.loads(eventually(lambda: running.output()[0])))
        assert 'libobmalloc' in Path(f'/proc/{running.pid}/maps').read_text()
        copy.unlink()
        time.sleep(0.2)
        assert running.child.poll() is None, 'it has ended with its file'
        done = place.app(LD_PRELOAD=str(copy))
    alone(done.said)
    [warning] = done.err.splitlines()
    assert 'cannot be preloaded' in warning


def test_ways_to_do_without(place):
    alone(place.app().said)
    done = place.app(LD_PRELOAD=str(build.LIBRARY), PYTHONMALLOC='pymalloc', OBMALLOC_VERBOSE='1')
    assert done.said['counted'] == 0
    assert len(done.lines(status.ASIDE)) == 1
