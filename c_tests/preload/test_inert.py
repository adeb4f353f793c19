"""Every program that a preloaded Python starts inherits the preload.  In those
that are no Python we must not be felt: no word, no memory, no thread."""
import collections
import os
import re
import shutil
import tempfile
import unittest

import support

LOUD = dict(OBMALLOC_VERBOSE='1', OBMALLOC_STATS='1', OBMALLOC_X='1', OBMALLOC_SMALL_MAX='banana')

COMMANDS = {
    'sh': ['-c', 'echo one; (exit 3) || echo $?'],
    'bash': ['-c', 'for n in 1 2 3; do echo $n; done | sort -r'],
    'git': ['--version'],
    'gcc': ['--version'],
    'ls': ['/'],
    'cat': [os.path.abspath(__file__)],
    'perl': ['-e', 'print join(",", map { $_ * 2 } 1 .. 1000)'],
}

# What the loader calls to map a library, and how often, depends on the file.
OF_THE_LOADER = {'mmap', 'mprotect', 'openat', 'read', 'pread64', 'fstat', 'newfstatat',
                 'close', 'execve'}


def anonymous(out):
    """Bytes of the mappings that have no file and no name."""
    found = re.findall(r'^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \d+ *$', out, re.M)
    return sum(int(end, 16) - int(start, 16) for start, end in found)


def zeroed_part(library):
    """Bytes that the loader maps without a file for the library's own .bss."""
    done = support.run(['readelf', '-lW', library])
    total = 0
    for words in map(str.split, done.out.splitlines()):
        if words[:1] == ['LOAD']:
            address, in_file, in_memory = (int(words[n], 16) for n in (2, 4, 5))
            total += (-(-(address + in_memory) // 4096) - -(-(address + in_file) // 4096)) * 4096
    return total


class Inert(support.Case):

    def test_same_output_and_status(self):
        for name, arguments in COMMANDS.items():
            with self.subTest(command=name):
                if not shutil.which(name):
                    self.skipTest('no %s here' % name)
                plain = support.run([name] + arguments)
                with_us = support.run([name] + arguments, support.preloaded(**LOUD))
                self.assertEqual(plain.status, 0, plain.report)
                self.assertEqual(with_us[2:], plain[2:])

    def test_no_statistics_file(self):
        folder = support.scratch('inert')
        os.mkdir(folder)
        self.assertRan(support.run(['sh', '-c', 'cat /dev/null; ls / >/dev/null'], support.preloaded(
            OBMALLOC_STATS=os.path.join(folder, '%p.json'))))
        self.assertEqual(os.listdir(folder), [])

    def test_compiling_a_program(self):
        """gcc, cc1, as, collect2 and ld, one starting the other."""
        source = os.path.join(support.HOSTS, 'nothing.c')
        if not shutil.which('gcc'):
            self.skipTest('no gcc here')
        done = support.run(['gcc', '-shared', '-fPIC', source, '-o', support.scratch('inert.so')],
                           support.preloaded(**LOUD))
        self.assertRan(done)
        self.assertEqual((done.out, done.err), ('', ''))

    def test_no_mapping_and_no_thread(self):
        """Compared with an empty library, as the loader keeps a record of each."""
        program = support.build('bystander', 'bystander.c')
        empty = support.build('nothing.so', 'nothing.c', '-shared', '-fPIC')
        plain = support.run([program], support.clean_environment(LD_PRELOAD=empty))
        with_us = support.run([program], support.preloaded(**LOUD))
        self.assertRan(plain)
        self.assertRan(with_us)
        self.assertEqual(with_us.err, '')
        self.assertIn(os.path.basename(support.LIBRARY), with_us.out, 'it is preloaded at all')
        self.assertIn('threads 1\n', with_us.out)
        more = (anonymous(with_us.out) - zeroed_part(support.LIBRARY)
                - anonymous(plain.out) + zeroed_part(empty))
        self.assertLessEqual(more, 4096, 'with the empty library:\n%s\nwith us:\n%s'
                             % (plain.out, with_us.out))

    def system_calls(self, library, command):
        """(calls by name, but those of the loader; anonymous mappings that the
        loader did not place; the files opened)"""
        env = support.clean_environment(**LOUD)
        with tempfile.TemporaryDirectory() as folder:
            # A file for each process: in one file, calls at the same time are cut in two.
            done = support.run(['strace', '-ff', '-o', os.path.join(folder, 'of'),
                                '-E', 'LD_PRELOAD=' + library] + command, env=env)
            if 'ptrace' in done.err:
                self.skipTest('strace may not trace here')
            self.assertRan(done)
            lines = []
            for name in os.listdir(folder):
                with open(os.path.join(folder, name)) as file:
                    lines += file
        names = collections.Counter(line.split('(')[0] for line in lines if '(' in line)
        maps = [line for line in lines
                if line.startswith('mmap(') and 'MAP_ANONYMOUS' in line and 'MAP_FIXED' not in line]
        files = re.findall(r'open(?:at)?\([^"]*"([^"]*)"', ''.join(lines))
        return ({name: count for name, count in names.items() if name not in OF_THE_LOADER},
                len(maps), sorted(name for name in files if name != library))

    @unittest.skipUnless(shutil.which('strace'), 'no strace here')
    def test_same_system_calls_as_an_empty_library(self):
        """Nothing but the loader's own work: no map, no thread, no file, no write."""
        empty = support.build('nothing.so', 'nothing.c', '-shared', '-fPIC')
        for command in (['true'], ['sh', '-c', 'true; ls / >/dev/null; exit 0']):
            with self.subTest(command=command):
                self.assertEqual(self.system_calls(support.LIBRARY, command),
                                 self.system_calls(empty, command))
