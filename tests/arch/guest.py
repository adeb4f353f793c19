"""The first process of the emulated machine (virtual_machine.py): mounts what programs need, runs
the jobs of /jobs.json in their order, prints a report of each on the console, and switches off.

A report is a line of JSON after the byte 0x1e. A job is {"name", "kind", ...}, and its kind is a
function of this file.
"""
import base64
import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
import zlib

libc = ctypes.CDLL(None, use_errno=True)
MOUNTS = (('proc', 'proc', '/proc'), ('sysfs', 'sys', '/sys'), ('devtmpfs', 'dev', '/dev'),
          ('tmpfs', 'tmp', '/tmp'), ('tmpfs', 'shm', '/dev/shm'), ('devpts', 'pts', '/dev/pts'))
POWER_OFF = 0x4321fedc
ENVIRONMENT = {'PATH': '/usr/sbin:/usr/bin', 'HOME': '/tmp', 'TMPDIR': '/tmp', 'LANG': 'C.UTF-8',
               'PYTHONDONTWRITEBYTECODE': '1'}
PYTHON = sys.executable


def report(**what):
    line = b'\n\x1e' + json.dumps(what).encode() + b'\n'
    while line:
        line = line[os.write(1, line):]


def packed(path):
    """The bytes of a file, for a report; '' if there is none."""
    if not os.path.exists(path):
        return ''
    with open(path, 'rb') as file:
        return base64.b64encode(zlib.compress(file.read())).decode()


def start(command, env, **options):
    return subprocess.Popen(command, env={**ENVIRONMENT, **env}, stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            errors='replace', start_new_session=True, **options)


def run(command, env=(), timeout=600, **options):
    """{status, out, err, seconds} of a program; without an end in time the status is a text."""
    began = time.monotonic()
    with start(command, dict(env), **options) as process:
        try:
            out, err = process.communicate('', timeout=timeout)
            status = process.returncode
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            status = f'no end after {timeout} s'
    return {'status': status, 'out': out[-200000:], 'err': err[-20000:],
            'seconds': round(time.monotonic() - began, 1)}


# ---- the kinds of jobs ----

def machine(job):
    with open('/proc/meminfo') as file:
        memory = file.readline().split()[1]
    return {'page': os.sysconf('SC_PAGESIZE'), 'uname': list(os.uname()), 'memory': int(memory),
            'processors': os.cpu_count(), 'python': sys.version.split()[0],
            'libc': os.confstr('CS_GNU_LIBC_VERSION')}


def program(job):
    return run(job['command'], job.get('env', {}), job.get('timeout', 600))


def cpython_tests(job):
    """A module of CPython's own tests, as tests/support/outcomes.py runs it."""
    path = f'/tmp/outcomes-{job["name"].replace(" ", "-")}'
    done = run([PYTHON, '-B', job['script'], job['module'], path], job.get('env', {}),
               job['timeout'])
    return {**done, 'outcomes': packed(path), 'log': packed(path + '.log')}


def live(job):
    """A program that waits, and what the command reads of it. {PID} and {FILE} stand for the
    program and the snapshot that it has written."""
    path = '/tmp/heap.map'
    with start([PYTHON, '-c', job['program'], path], job['env']) as process:
        try:
            ready = process.stdout.readline()
            places = {'{PID}': str(process.pid), '{FILE}': path}
            asked = {name: run([places.get(word, word) for word in words])
                     for name, words in job['commands'].items()}
            file = page_file(process.pid)
            out, err = process.communicate('\n', timeout=60)
        finally:
            process.kill()
    return {'ready': ready, 'status': process.returncode, 'out': out, 'err': err, 'file': file,
            'commands': asked, 'snapshot': packed(path)}


def page_file(pid):
    """[bytes, bytes in memory] of the file of a program's statistics page."""
    folder = f'/proc/{pid}/fd'
    for name in os.listdir(folder):
        if 'obmalloc-live' in os.readlink(f'{folder}/{name}'):
            about = os.stat(f'{folder}/{name}')
            return [about.st_size, about.st_blocks * 512]
    return None


def c_tests(job):
    """The cases of a C program in one way, by c_tests/run.py; a report of each when it ends."""
    results = '/tmp/results/' + job['name'].replace(' ', '-')
    os.makedirs(results + '/facts')
    done, ended = [], set()

    def body():
        done.append(run([PYTHON, '-B', job['script'], 'cases', *job['words']],
                        {**job['env'], 'RESULTS': results}, job['timeout']))

    worker = threading.Thread(target=body)
    worker.start()
    while worker.is_alive():
        worker.join(2)
        for name in sorted(set(os.listdir(results)) - ended - {'facts'}):
            with open(f'{results}/{name}') as file, contextlib.suppress(ValueError):
                result, text = json.load(file)      # unless it is just written
                report(name=f'{job["name"]}: {text.split()[0]}', result=result, text=text)
                ended.add(name)
    return {**done[0], 'cases': len(ended)}


# ---- the machine ----

def do(job):
    try:
        said = globals()[job['kind']](job)
    except Exception:
        said = {'error': traceback.format_exc()}
    report(name=job['name'], **said)


def main():
    for kind, source, place in MOUNTS:
        os.makedirs(place, exist_ok=True)
        if libc.mount(source.encode(), place.encode(), kind.encode(), 0, None) != 0:
            sys.stderr.write(f'cannot mount {place}: {os.strerror(ctypes.get_errno())}\n')
    console = os.open('/dev/console', os.O_RDWR)
    for number in 0, 1, 2:
        os.dup2(console, number)
    with open('/jobs.json') as file:
        jobs = json.load(file)
    worker = os.fork()
    if worker == 0:
        os.setsid()
        for job in jobs:
            do(job)
        report(name='end')
        os._exit(0)
    # The first process inherits every orphan.
    while os.wait()[0] != worker:
        pass
    # The emulator takes the last output before it ends.
    time.sleep(0.5)
    libc.reboot(POWER_OFF)


if __name__ == '__main__' and os.getpid() == 1:
    main()
