"""Tools that look into a process, or stand between it and the allocator."""
import json
import os
import re
import signal
import subprocess

from base import (PROGRAMS, Running, Skip, active, comes, demand, environment, kinds_of_lines,
                  last_line, need, pythons, ran, same, sides, since, support, virtual)

LOAD, PEAK = (os.path.join(PROGRAMS, name) for name in ('load.py', 'peak.py'))


def ready(program):
    demand(comes(lambda: 'ready' in program.said()[0] or program.child.poll() is not None),
           'it does not start', program.said())
    demand(program.child.poll() is None, 'it has ended', program.said())


def looked_into(python, env, look, seconds):
    """Runs load.py; look(pid) meanwhile; it must go on to its end as if nobody had looked."""
    with Running([python.path, LOAD, str(seconds)], env) as program:
        ready(program)
        found = look(program.pid)
        status, out, err = program.end()
        demand(status == 0, 'exit status', status, err)
        return found, out, err


def both(python, look, seconds=6):
    """What look found with us and without; the programs said the same."""
    ours, stock = (looked_into(python, env, look, seconds) for env in sides(OBMALLOC_VERBOSE='1'))
    demand(len(re.findall('^obmalloc: active', ours[2], re.M)) == 1, 'not active:', ours[2])
    same(ours[1], stock[1], 'output')
    same(kinds_of_lines(ours[2]), kinds_of_lines(stock[2]), 'stderr')
    return ours[0], stock[0]


# ---- gdb ----

def call_into(pid):
    """Whether gdb can call into the process, and what it said last."""
    done = support.run(['gdb', '-batch', '-nx', '-p', str(pid), '-ex', 'call (int)getppid()'],
                       timeout=100)
    return bool(re.search(r'^\$1 = \d+', done.out, re.M)), last_line(done.err)


def cannot_call():
    """Why gdb can call into no process here, '' if it can. (An older gdb cannot restore the
    registers of a newer processor, and leaves the process with wrong ones.)"""
    with subprocess.Popen(['sleep', '100'], stderr=subprocess.DEVNULL) as sleeper:
        can, said = call_into(sleeper.pid)
        sleeper.kill()
    return '' if can else said


@environment('gdb', since(3, 6))
def gdb(python):
    """Attaches, shows all threads, calls into the process, and lets it go."""
    need('gdb')
    cannot = cannot_call()

    def look(pid):
        done = support.run(['gdb', '-batch', '-nx', '-p', str(pid), '-ex',
                            'thread apply all bt 30', '-ex', 'info sharedlibrary'], timeout=100)
        if 'ptrace' in done.err and 'not permitted' in done.err:
            raise Skip('gdb may not attach here')
        ran(done)
        frames = set(re.findall(r'\b(_?PyEval_EvalFrame\w*|Py_RunMain)\b', done.out))
        demand(len(re.findall(r'^Thread \d+', done.out, re.M)) >= 3, 'threads\n' + done.report)
        return frames, 'libobmalloc' in done.out, not cannot and call_into(pid)[0]
    ours, stock = both(python, look)
    same((ours[1], stock[1]), (True, False), 'gdb sees the library')
    demand(cannot or ours[2] and stock[2], 'a call into the process', ours[2], stock[2])
    call = 'no call (into any process here: %s)' % cannot if cannot else 'a call'
    demand('_PyEval_EvalFrameDefault' in ours[0] & stock[0], 'frames:', ours[0], stock[0])
    crash = []
    for env in sides():
        done = ran(support.run(['gdb', '-batch', '-nx', '-ex', 'set startup-with-shell off',
                                '-ex', 'set environment LD_PRELOAD ' + env.get('LD_PRELOAD', ''),
                                '-ex', 'run', '-ex', 'bt', '--args', python.path, LOAD, '0',
                                'crash'],
                               {name: value for name, value in env.items() if name != 'LD_PRELOAD'},
                               timeout=100))
        demand('SIGSEGV' in done.out, done.report)
        crash.append(bool(re.search(r'^#\d+ .*(PyEval|PyObject|_Py)', done.out, re.M)))
    same(crash[0], crash[1], 'a backtrace of a crash')
    demand(crash[0], 'no Python in the backtrace')
    return 'attach, bt of all threads, %s, detach; run until SIGSEGV, bt' % call


@environment('gdb-preloaded')
def gdb_preloaded():
    """gdb is a program with an interpreter in it: preloaded itself, it works."""
    need('gdb')
    code = ('python import json; kept = [{n: str(n)} for n in range(30000)];'
            ' print(len(json.dumps(kept)))')
    ours, stock = (ran(support.run(['gdb', '-batch', '-nx', '-ex', code], env))
                   for env in sides(OBMALLOC_VERBOSE='1'))
    same(ours.out, stock.out, 'output')
    lines = ours.lines(support.ACTIVE) + ours.lines(support.ASIDE)
    demand(len(lines) == 1, 'status lines', ours.report)
    return lines[0].group()[len('obmalloc: '):].replace('in pid %s' % lines[0].group(1), '')


# ---- py-spy ----

@environment('py-spy', lambda python: (3, 6) <= python.numbers < (3, 14))
def py_spy(python):
    home = next((one for one in pythons.find()[0] if one.minor == '3.11'), None)
    if home is None:
        raise Skip('no 3.11 to install it in')
    spy = os.path.join(virtual(home, 'py-spy'), 'py-spy')

    def look(pid):
        found = []
        for more in [], ['--native']:
            done = support.run([spy, 'dump', '--pid', str(pid)] + more, timeout=60)
            if done.status != 0:
                found.append(last_line(done.err))
                continue
            names = re.findall(r'^ +(\w+) \(', done.out, re.M)
            found.append(sorted({'inner_work', 'main'} & set(names)))
        path = support.scratch('spy-%d.txt' % pid)
        done = support.run([spy, 'record', '--pid', str(pid), '-d', '2', '-r', '50', '-f', 'raw',
                            '-o', path], timeout=60)
        if done.status != 0:
            return found + [last_line(done.err)]
        with open(path) as file:
            samples = sum(int(line.split()[-1]) for line in file if 'inner_work' in line)
        return found + ['recorded' if samples > 20 else samples]
    ours, stock = both(python, look)
    same(ours, stock, 'dump, dump --native, record')
    demand(ours[0] == ['inner_work', 'main'] and ours[-1] == 'recorded', ours)
    return 'dump %s, dump --native %s, %s' % tuple(ours)


# ---- memray ----

def traced(memray, env, path, *options):
    """(peak in bytes, allocations, the program's places in the report, the run)."""
    for name in path, path + '.json':
        if os.path.exists(name):
            os.remove(name)
    done = ran(support.run([memray, 'run', '--force', '-q', *options, '-o', path, PEAK], env,
                           timeout=300))
    ran(support.run([memray, 'stats', '--json', '--force', '-o', path + '.json', '-n', '20', path],
                    support.clean_environment(), timeout=300))
    with open(path + '.json') as file:
        numbers = json.load(file)
    peak = numbers['metadata']['peak_memory']
    ours = [each['location'] for each in numbers['top_allocations_by_size']
            if 'peak.py' in each['location']]
    return peak, numbers['total_num_allocations'], ours, done


@environment('memray', lambda python: python.numbers >= (3, 8))
def memray(python):
    """Its own hooks, over malloc and mmap, and around our tables."""
    memray = os.path.join(virtual(python, 'memray'), 'memray')
    words = []
    for options in ([], ['--native'], ['--trace-python-allocators'],
                    ['--trace-python-allocators', '--native', '--follow-fork']):
        name = ' '.join(options) or 'plain'
        ours, stock = (traced(memray, env, support.scratch('memray-%s-%d' % (
            python.label.replace(' ', '-'), n)), *options) for n, env in enumerate(
                sides(OBMALLOC_VERBOSE='1')))
        active(ours[3], python)
        same(ours[3].out, stock[3].out, name + ': output')
        demand(kinds_of_lines(ours[3].err) == kinds_of_lines(stock[3].err), name, ours[3].report)
        ratio = ours[0] / stock[0]
        if '--trace-python-allocators' in options:  # every request, so they have to agree
            demand(abs(ratio - 1) < 0.01, '%s: peak %d, stock %d' % (name, ours[0], stock[0]))
            counts = ours[1] / stock[1]
            demand(abs(counts - 1) < 0.01, '%s: allocations %d, %d' % (name, ours[1], stock[1]))
        else:               # what layer 0 is asked: malloc, and arenas by mmap
            demand(0.8 < ratio < 1.25, '%s: peak %d, stock %d' % (name, ours[0], stock[0]))
        if '--native' not in options:   # with it, the places are those of C functions
            demand(len(ours[2]) > 1 and len(stock[2]) > 1, name, 'places:', ours[2], stock[2])
        words.append('%s: peak %.1f MiB, stock %.1f' % (name, ours[0] / 2**20, stock[0] / 2**20))
    return '; '.join(words)


@environment('memray-attach', lambda python: python.numbers >= (3, 8))
def memray_attach(python):
    """Put into a process that runs, by gdb, which calls into it."""
    need('gdb')
    memray = os.path.join(virtual(python, 'memray'), 'memray')
    inside_of = pythons.probe(os.path.join(os.path.dirname(memray), 'python'))
    cannot = cannot_call()
    if cannot:
        raise Skip('gdb can call into no process here: ' + cannot)

    def look(pid):
        path = support.scratch('attached-%d' % pid)
        done = support.run([memray, 'attach', '--method', 'gdb', '--duration', '2',
                            '--trace-python-allocators', '-o', path, str(pid)], timeout=100)
        if done.status != 0:
            return 'refused: ' + last_line(done.err)
        demand(comes(lambda: os.path.exists(path) and os.path.getsize(path) > 1000, 20),
               'nothing was recorded')
        return path
    ours, stock = both(inside_of, look, 20)     # it takes its time to get in
    if stock.startswith('refused'):
        same(ours, stock, 'attach')
        raise Skip('without us, too: ' + stock)
    sums = []
    for path in ours, stock:
        done = support.run([memray, 'stats', '--json', '--force', '-o', path + '.json', path],
                           timeout=100)
        ran(done)
        with open(path + '.json') as file:
            numbers = json.load(file)
        demand(any('inner_work' in each['location'] for each in numbers['top_allocations_by_size']),
               numbers['top_allocations_by_size'])
        sums.append(numbers['total_num_allocations'])
    demand(min(sums) > 10000, 'allocations', sums)
    return 'allocations in 2 s: %d, stock %d' % tuple(sums)


# ---- CPython's own ----

SNAPSHOT = '''
import tracemalloc, json, gc, sys
import inside
def small(): return [(n, str(n), [n] * (n % 30)) for n in range(20000)]
def large(): return [bytes(9000) for n in range(300)]
found = []
for frames in 1, 10, 1:
    tracemalloc.start(frames)
    gc.collect(); gc.disable()
    before = tracemalloc.take_snapshot()
    kept = [small(), large()]
    after = tracemalloc.take_snapshot()
    top = [(each.traceback[0].lineno, each.size_diff, each.count_diff)
           for each in after.compare_to(before, 'lineno')
           if each.traceback[0].filename == '<string>']
    current, peak = tracemalloc.get_traced_memory()
    found.append([sorted(each for each in top if each[2] > 200), (peak - current) < 2000000])
    gc.enable(); kept = None
    tracemalloc.stop()
    inside.workload(1)
print(json.dumps([found, inside.workload(1)]))
'''


@environment('tracemalloc', since(3, 6))
def tracemalloc(python):
    """Snapshots while it starts and stops: to the byte what stock counts."""
    ours, stock = (ran(support.run([python.path, '-c', SNAPSHOT], env))
                   for env in sides(OBMALLOC_VERBOSE='1'))
    active(ours, python)
    same(ours.out, stock.out, 'snapshots')
    lines = support.said(ours)[0][0][0]
    demand(len(lines) >= 2, lines)
    return '%d lines of source, %d KiB, equal to the byte' % (
        len(lines), sum(each[1] for each in lines) // 1024)


@environment('faulthandler', since(3, 6))
def faulthandler(python):
    """A crash with threads at work: the same traceback, the same signal; one after a
    fork, and one in a stack overflow, where the handler has a stack of its own."""
    words = []
    for code in ('import faulthandler, threading, inside, time; faulthandler.enable()\n'
                 'go = threading.Event()\n'
                 't = threading.Thread(target=go.wait, daemon=True); t.start()\n'
                 'inside.workload(1); faulthandler._sigsegv()',
                 'import faulthandler, os, inside; faulthandler.enable(); inside.workload(1)\n'
                 'pid = os.fork()\n'
                 'if pid == 0: faulthandler._sigsegv()\n'
                 'print(os.waitpid(pid, 0)[1] & 127); faulthandler._sigabrt()',
                 'import faulthandler, inside; faulthandler.enable(); inside.workload(1)\n'
                 'faulthandler._stack_overflow()'):
        ours, stock = (support.run([python.path, '-c', code], env)
                       for env in sides(OBMALLOC_VERBOSE='1'))
        active(ours, python)
        demand(isinstance(ours.status, int) and ours.status < 0, ours.report)
        same((ours.status, ours.out), (stock.status, stock.out), 'end')
        same(kinds_of_lines(ours.err), kinds_of_lines(stock.err), 'traceback')
        demand('most recent call first' in ours.err, ours.report)
        words.append(signal.Signals(-ours.status).name)
    return ', '.join(words)
