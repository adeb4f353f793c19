#!/usr/bin/env python3
"""Runs what docs/recipes.md says, with real servers: the frames of the page are the files
and the command lines that are run, with this machine's paths put in.

    c_tests/recipes.py [--only gunicorn ...] [--python 3.11]

Packages come from PyPI into a virtual environment under target/recipes; what cannot be had
or tried here is skipped, and said. In the process that does the work the library has to
say its own pid and the interpreter's version, and to have counted the objects that were
made there; and the same program without it has to say that there is none. A line for
each recipe; the last words of it are the proof.
"""
import argparse
import json
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
import time
import urllib.request
sys.dont_write_bytecode = True      # before the modules beside us are imported

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, 'packaging'), os.path.join(HERE, 'compat')]

import base
import servers
from base import Fails, Running, Skip, comes, demand, ran, support

ROOT = os.path.dirname(HERE)
PAGE = os.path.join(ROOT, 'docs', 'recipes.md')
PROGRAMS = os.path.join(HERE, 'recipes')
SHARED = [os.path.join(base.PROGRAMS, name) for name in ('ledger.py', 'celery_files.py')]
COMMAND = os.path.join(support.RELEASE, 'obmalloc')
base.FOLDER = os.path.join(ROOT, 'target', 'recipes')
RECIPES = []


def recipe(name):
    def mark(check):
        RECIPES.append((name, check))
        return check
    return mark


# ---- the page ----

def frames(section, language):
    """The frames of this language under that heading of the page."""
    with open(PAGE) as file:
        part = file.read().split('\n## %s\n' % section)[1].split('\n## ')[0]
    found = re.findall(r'```%s\n(.*?)```' % language, part, re.S)
    demand(found, 'no frame of', language, 'under', section)
    return found


class Place:
    """A folder with the programs, and the page's paths as they are on this machine."""

    def __init__(self, python, *packages):
        self.python = python
        self.bin = base.virtual(python, *packages) if packages else os.path.dirname(python.path)
        self.interpreter = os.path.join(self.bin, 'python') if packages else python.path
        self.folder = tempfile.mkdtemp(dir=support.scratch())
        shutil.copytree(PROGRAMS, self.folder, dirs_exist_ok=True)
        for path in SHARED:
            shutil.copy(path, self.folder)
        self.port = servers.free_port()

    def here(self, text):
        for old, new in (('/usr/bin/obmalloc', COMMAND), ('/usr/bin/python3', self.interpreter),
                         ('/srv/app', self.folder), ('libobmalloc.so.0', support.LIBRARY),
                         ('127.0.0.1:8000', '127.0.0.1:%d' % self.port)):
            text = text.replace(old, new)
        return text

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, 'w') as file:
            file.write(self.here(text))
        return path

    def line(self, section):
        """The words of the section's command line."""
        [line] = re.findall(r'^\$ (.*)$', frames(section, 'console')[0], re.M)
        words = shlex.split(self.here(line))
        demand(words[0] == 'obmalloc', line)
        return [COMMAND] + words[1:]

    def environment(self, **more):
        return support.clean_environment(
            PATH=self.bin + os.pathsep + os.environ['PATH'], HOME=self.folder,
            PYTHONDONTWRITEBYTECODE='1', **more)

    def without(self, words):
        """The same words without `obmalloc run --`."""
        demand(words[:3] == [COMMAND, 'run', '--'], words)
        return words[3:]

    def version(self, package):
        return support.run([os.path.join(self.bin, 'python'), '-c',
                            'import importlib.metadata as m, sys; print(m.version(sys.argv[1]))',
                            package]).out.strip()


# ---- what a process says of itself ----

def served(said, python):
    """That the library serves the process that says this."""
    demand(said['pid'] == said['mine'], 'another pid than the process has:', said)
    demand(said['host'] == python.version, 'another host:', said)
    demand(said['counted'] > 20000 * 64, 'the objects were not counted:', said)
    return said


def alone(said):
    demand(said['pid'] is None and said['counted'] == 0, 'the library is there:', said)


def proof(said):
    return 'pid %(pid)d says: pid %(pid)d, CPython %(host)s, %(counted)d bytes for 20000 objects' % said


def web(place, words, env, children=True):
    """Answers of a server's workers: by pid, and the server's pid."""
    answers = {}
    with Running(words, env, place.folder) as server:
        demand(comes(lambda: servers.is_open(place.port) or server.child.poll() is not None)
               and server.child.poll() is None, 'it does not serve:', server.said())

        def another():
            with urllib.request.urlopen('http://127.0.0.1:%d/' % place.port, timeout=60) as link:
                said = json.loads(link.read().decode())
            answers[said['mine']] = said
            return len(answers) >= 2
        comes(another, 20)
        demand(answers and server.pid not in answers, 'no worker has answered:', answers)
        demand({said['parent'] for said in answers.values()} == {server.pid}, 'workers of others')
        # A server ends by its own way of ending.
        server.end(signal.SIGTERM if 'gunicorn' in ' '.join(words) else signal.SIGINT)
        return list(answers.values())


# ---- the recipes ----

@recipe('dockerfile')
def dockerfile(python):
    """The RUN lines and the start, in a copy of this machine in place of the image."""
    import sandbox
    import test_deb
    import unittest
    steps, copied = [], []
    for line in frames('Dockerfile', 'Dockerfile')[0].splitlines():
        word, _, rest = line.partition(' ')
        if word == 'RUN':
            steps.append(rest)
        elif word == 'COPY':
            *sources, target = rest.split()
            copied.append(target)
        elif word == 'WORKDIR':
            steps.append('cd ' + rest)
        elif word == 'ENTRYPOINT':
            start = json.loads(rest)
        elif word == 'CMD':
            start += json.loads(rest)
        else:
            demand(word == 'FROM', 'not understood:', line)
    demand(copied == ['/tmp/', '/srv/app'], copied)
    # The copy's own /tmp has the files; PATH is that of an image, without other Pythons.
    files = [path for path in test_deb.packages() if 'libobmalloc-dev' not in path]
    text = ('export PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin HOME=/\n'
            'mkdir -p /srv/app && mv /tmp/app.py /tmp/who.py /tmp/ledger.py /srv/app/\nexec 3>&1 >/tmp/log\n'
            + '\n'.join(steps) + '\nexec ' + ' '.join(map(shlex.quote, start)) + ' >&3\n')
    try:
        done = ran(sandbox.script(text, *files, SHARED[0], *[
            os.path.join(PROGRAMS, name) for name in ('app.py', 'who.py')]))
    except unittest.SkipTest as reason:
        raise Skip(str(reason))
    [said] = [json.loads(line) for line in done.out.splitlines() if line.startswith('{')]
    version = support.run(['/usr/bin/python3', '-c',
                           'import platform; print(platform.python_version())']).out.strip()
    served(said, python._replace(version=version))
    return 'RUN lines in a copy of this machine, %s' % proof(said)


def web_both_ways(place, words, package, between=lambda: None):
    """Workers of a server with the library, and without; `between` is done in between."""
    answers = web(place, words, place.environment())
    between()
    for said in web(place, place.without(words), place.environment()):
        alone(said)
    for said in answers:
        served(said, place.python)
    return '%s %s, worker %s' % (package, place.version(package), proof(answers[0]))


@recipe('gunicorn')
def gunicorn(python):
    place = Place(python, 'gunicorn')
    place.write('gunicorn.conf.py', frames('gunicorn', 'python')[0])
    words = place.line('gunicorn') + ['-b', '127.0.0.1:%d' % place.port]
    return web_both_ways(place, words, 'gunicorn')


@recipe('uwsgi')
def uwsgi(python):
    place = Place(python, 'uwsgi')
    file = frames('uwsgi', 'ini')[0]
    place.write('uwsgi.ini', file)

    def preload_by_env():
        """What the page says of `env =`."""
        place.write('uwsgi.ini', file + 'env = LD_PRELOAD=libobmalloc.so.0\n')
    return web_both_ways(place, place.line('uwsgi'), 'uwsgi', preload_by_env)


@recipe('celery')
def celery(python):
    place = Place(python, 'celery')

    def work(words, name):
        env = place.environment(TASKS_FOLDER=os.path.join(place.folder, name), C_FORCE_ROOT='1')
        with Running(words, env, place.folder) as worker:
            client = support.run([place.interpreter, 'tasks.py'], env, 240, place.folder)
            if client.status != 0:
                raise Fails(client.report + '\n'.join(worker.said()))
            status, _, err = worker.end(signal.SIGTERM)
            demand(status == 0, 'exit status', status, err[-2000:])
            answers = support.said(client)
            demand({said['parent'] for said in answers} == {worker.pid}, 'children of others')
            return answers
    words = place.line('Celery')
    answers = work(words, 'ours')
    for said in work(place.without(words), 'stock'):
        alone(said)
    for said in answers:
        served(said, python)
    return 'celery %s, child %s' % (place.version('celery'), proof(answers[0]))


def settings(unit, section, name):
    """The values of a name in a section of an ini file."""
    part = re.search(r'^\[%s\]\n(.*?)(?=^\[|\Z)' % section, unit, re.S | re.M).group(1)
    return re.findall(r'^%s=(.*)$' % name, part, re.M)


@recipe('systemd')
def systemd(python):
    """Both files are verified; what they start is started by hand, as no systemd runs here
    in most containers."""
    place = Place(python)
    drop_in, unit = frames('systemd', 'ini')
    folder = os.path.join(place.folder, 'units')
    os.makedirs(folder + '/app.service.d')
    unit_path, drop_path = folder + '/app.service', folder + '/app.service.d/obmalloc.conf'
    for path, text in (unit_path, unit), (drop_path, drop_in):
        with open(path, 'w') as file:
            file.write(place.here(text))
    words = 'started by hand'
    if shutil.which('systemd-analyze'):
        done = ran(support.run(['systemd-analyze', 'verify', unit_path], support.clean_environment(
            SYSTEMD_UNIT_PATH=folder + ':')))
        demand('app.service' not in done.err, done.report)
        with open(drop_path, 'a') as file:      # so it does read the drop-in
            file.write('Enviroment=X=1\n')
        done = support.run(['systemd-analyze', 'verify', unit_path], support.clean_environment(
            SYSTEMD_UNIT_PATH=folder + ':'))
        demand('Enviroment' in done.err, 'a wrong name in the drop-in was not seen', done.report)
        words = 'both files verified, ' + words
    [command] = settings(place.here(unit), 'Service', 'ExecStart')
    said = support.said(ran(support.run(shlex.split(command), place.environment())))
    served(said, python)
    values = dict(value.split('=', 1) for value in
                  settings(place.here(drop_in), 'Service', 'Environment'))
    said = support.said(ran(support.run([place.interpreter, place.folder + '/app.py'],
                                        place.environment(**values))))
    served(said, python)
    return '%s, %s' % (words, proof(said))


@recipe('supervisord')
def supervisord(python):
    place = Place(python, 'supervisor')
    answers = []
    for number, program in enumerate(frames('supervisord', 'ini')):
        out = os.path.join(place.folder, 'out%d' % number)
        config = place.write('supervisord.conf', (
            '[supervisord]\nnodaemon=true\nuser=root\nlogfile=%s/log\npidfile=%s/pid\n'
            % (place.folder, place.folder) if os.geteuid() == 0 else
            '[supervisord]\nnodaemon=true\nlogfile=%s/log\npidfile=%s/pid\n'
            % (place.folder, place.folder)) + program + 'stdout_logfile=%s\n' % out)
        with Running([os.path.join(place.bin, 'supervisord'), '-c', config], place.environment(),
                     place.folder) as manager:
            text = comes(lambda: os.path.exists(out) and open(out).read(), 60)
            demand(text, 'nothing was said:', manager.said())
            said = served(json.loads(text.splitlines()[0]), python)
            demand(said['parent'] == manager.pid, 'the child of another:', said)
            manager.end(signal.SIGTERM)
            demand(not os.path.exists('/proc/%d' % said['pid']), 'the program is still there')
        answers.append(said)
    return 'supervisor %s, both ways, %s' % (place.version('supervisor'), proof(answers[1]))


@recipe('kubernetes')
def kubernetes(python):
    """The file is parsed, and its command is started with its env."""
    place = Place(python, 'pyyaml')
    path = place.write('app.yaml', frames('Kubernetes', 'yaml')[0])
    done = ran(support.run([place.interpreter, '-c',
                            'import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))',
                            path]))
    found = support.said(done)
    demand((found['apiVersion'], found['kind']) == ('apps/v1', 'Deployment'), found)
    template = found['spec']['template']
    demand(found['spec']['selector']['matchLabels'] == template['metadata']['labels'], found)
    [container] = template['spec']['containers']
    env = {each['name']: each['value'] for each in container['env']}
    demand(all(isinstance(value, str) for value in env.values()), 'values are strings in an env', env)
    demand(set(env) == {'LD_PRELOAD', 'OBMALLOC_LIMIT'}, env)
    done = ran(support.run(container['command'], place.environment(OBMALLOC_VERBOSE='1', **env),
                           cwd=place.folder))
    demand('not understood' not in done.err, done.report)
    said = served(support.said(done), python)
    alone(support.said(ran(support.run(container['command'], place.environment(),
                                       cwd=place.folder))))
    return 'parsed by PyYAML %s, its command and env by hand, %s' % (place.version('pyyaml'), proof(said))


def notebook(place, words, env, kernel):
    """What a cell says in a kernel of this name, which a server started by `words` has
    started; and the server's pid."""
    env = dict(env, JUPYTER_RUNTIME_DIR=place.folder + '/runtime', JUPYTER_TOKEN='secret',
               JUPYTER_DATA_DIR=place.folder + '/data', IPYTHONDIR=place.folder + '/ipython',
               JUPYTER_CONFIG_DIR=place.folder + '/config')
    words = words + ['--allow-root', '--ServerApp.ip=127.0.0.1', '--ServerApp.port=%d' % place.port,
                     '--ServerApp.port_retries=0']
    with Running(words, env, place.folder) as server:
        demand(comes(lambda: servers.is_open(place.port) or server.child.poll() is not None, 120)
               and server.child.poll() is None, 'it does not serve:', server.said())
        request = urllib.request.Request(
            'http://127.0.0.1:%d/api/kernels' % place.port, json.dumps({'name': kernel}).encode(),
            {'Authorization': 'token secret', 'Content-Type': 'application/json'})
        with urllib.request.urlopen(request, timeout=120) as link:
            number = json.loads(link.read().decode())['id']
        connection = os.path.join(place.folder, 'runtime', 'kernel-%s.json' % number)
        done = support.run([place.interpreter, 'kernel.py', connection, place.folder], env, 240,
                           place.folder)
        if done.status != 0:
            raise Fails(done.report + '\n'.join(server.said())[-3000:])
        said = support.said(done)
        demand(said['parent'] == server.pid, "not the server's kernel:", said)
        server.end(signal.SIGTERM)
        return said


@recipe('jupyter')
def jupyter(python):
    place = Place(python, 'notebook')
    words = place.line('Jupyter')
    said = served(notebook(place, words, place.environment(), 'python3'), python)
    # The kernel of its own, in a server without the library.
    folder = os.path.join(place.folder, 'data', 'kernels', 'obmalloc')
    os.makedirs(folder)
    text = place.here(frames('Jupyter', 'json')[0])
    with open(folder + '/kernel.json', 'w') as file:
        file.write(text)
    served(notebook(place, place.without(words), place.environment(), 'obmalloc'), python)
    alone(notebook(place, place.without(words), place.environment(), 'python3'))
    return 'notebook %s, both ways, kernel %s' % (place.version('notebook'), proof(said))


@recipe('out')
def out(python):
    """What the page says of taking it out again."""
    place = Place(python)
    program = [place.interpreter, place.folder + '/app.py']
    copy = os.path.join(place.folder, 'libobmalloc.so.0')
    shutil.copy(support.LIBRARY, copy)
    with Running(program + ['60'], place.environment(LD_PRELOAD=copy)) as running:
        text = comes(lambda: running.said()[0])
        served(json.loads(text), python)
        with open('/proc/%d/maps' % running.pid) as file:
            demand('libobmalloc' in file.read(), 'not in the maps')
        os.remove(copy)
        time.sleep(0.2)
        demand(running.child.poll() is None, 'it has ended as the file went')
        done = ran(support.run(program, place.environment(LD_PRELOAD=copy)))
        alone(support.said(done))
        complaints = [line for line in done.err.splitlines() if 'cannot be preloaded' in line]
        demand(len(complaints) == 1 and len(done.err.splitlines()) == 1, done.report)
    alone(support.said(ran(support.run(program, place.environment()))))
    done = ran(support.run(program, place.environment(LD_PRELOAD=support.LIBRARY,
                                                      PYTHONMALLOC='pymalloc', OBMALLOC_VERBOSE='1')))
    demand(support.said(done)['counted'] == 0 and len(done.lines(support.ASIDE)) == 1, done.report)
    return 'a program goes on without its file; the next says: ' + complaints[0].replace(copy, 'libobmalloc.so.0')


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--only', nargs='+', default=[], metavar='NAME',
                        choices=[name for name, _ in RECIPES],
                        help='of: ' + ' '.join(name for name, _ in RECIPES))
    parser.add_argument('--python', default='3.11', help='the interpreter that runs the programs')
    options = parser.parse_args()
    for path in COMMAND, support.LIBRARY:
        if not os.path.exists(path):
            sys.exit('%s is not there: make command' % path)
    support.LIBRARY = os.path.realpath(support.LIBRARY)
    found = [each for each in base.pythons.find()[0] if base.pythons.matches(each, [options.python])]
    # A shared one of pyenv's, whose virtual environments have pip, before the distribution's.
    found.sort(key=lambda python: not python.shared)
    if not found:
        sys.exit('no Python %s here' % options.python)
    verdicts = base.Verdicts()
    for name, check in RECIPES:
        if not options.only or name in options.only:
            verdicts.of('%-12s' % name, check, found[0])
    return verdicts.end()


if __name__ == '__main__':
    sys.exit(main())
