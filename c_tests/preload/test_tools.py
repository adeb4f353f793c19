"""Valgrind's memcheck and AddressSanitizer see our blocks, when the process runs with
one of them; other tools of Valgrind's, and OBMALLOC_TOOLS=0, change nothing."""
import re
import shutil
import subprocess
import unittest

import support
import test_embedding

# The mistake, what memcheck says, and what AddressSanitizer or we ourselves say.
MISTAKES = {
    'write behind': ('0 bytes after a block of size 50', 'use-after-poison'),
    'read before': ('1 bytes before a block of size 50', 'use-after-poison'),
    'read after free': ('3 bytes inside a block of size 50 free', 'use-after-poison'),
    'read after realloc': ('3 bytes inside a block of size 50 free', 'use-after-poison'),
    'free twice': ('Invalid free', 'freed twice'),
    'free within': ('16 bytes inside a block of size 50', 'no block begins there'),
    'use without contents': ('uninitialised', None),
}
WORKLOAD = '''
import json, gc
rows = [{n: str(n) * (n % 50), str(n): [n] * (n % 90)} for n in range(1500)]
text = json.dumps([sorted(map(str, row)) for row in rows])
del rows; gc.collect()
print(len(text))
'''


def mistakes(*flags, name='mistakes'):
    folder = test_embedding.folder_of_the_library()
    return support.build(name, 'mistakes.c', '-g', '-O0', *flags, '-L' + folder, '-lobmalloc',
                         '-Wl,-rpath,' + folder)


def valgrind(*options):
    if not shutil.which('valgrind'):
        raise unittest.SkipTest('no valgrind')
    return ['valgrind', '-q', *options]


def memcheck(*options):
    return valgrind('--error-exitcode=9', *options)


class Memcheck(support.Case):

    def test_mistakes_are_reported(self):
        program = mistakes()
        for mistake, (words, _) in MISTAKES.items():
            with self.subTest(mistake=mistake):
                done = support.run([*memcheck(), program, mistake], support.clean_environment())
                self.assertIn(words, done.err, done.report)

    def test_honest_work_is_not(self):
        done = support.run([*memcheck('--leak-check=full'), mistakes(), 'none'],
                           support.clean_environment())
        self.assertRan(done)
        self.assertEqual((done.out, done.err), ('done\n', ''), done.report)

    def test_switched_off(self):
        done = support.run([*memcheck(), mistakes(), 'write behind'],
                           support.clean_environment(OBMALLOC_TOOLS='0'))
        self.assertRan(done)

    def test_other_tools_count_what_runs_without_them(self):
        """Padding and marks are for memcheck only."""
        done = support.run([*valgrind('--tool=none'), mistakes(), 'write behind'],
                           support.clean_environment(OBMALLOC_STATS='1'))
        self.assertRan(done)
        alone = support.run([mistakes(), 'write behind'],
                            support.clean_environment(OBMALLOC_STATS='1'))
        classes = [re.findall(r'^obmalloc: +\d+ +\d+ .*', each.err, re.M) for each in (done, alone)]
        self.assertEqual(classes[0], classes[1])
        self.assertTrue(classes[0], alone.report)


class MemcheckOnPython(support.PythonCase):

    @support.only('3.11', '3.13')
    def test_honest_program(self):
        """(CPython looks at a digit that is not there: not counted here.)"""
        done = support.run([*memcheck('--undef-value-errors=no'), self.python.path, '-S', '-c',
                            WORKLOAD], support.preloaded(PYTHONHASHSEED='0'), timeout=200)
        self.assertRan(done)
        self.assertEqual(done.err, '', done.report)
        plain = support.run([self.python.path, '-S', '-c', WORKLOAD], support.clean_environment())
        self.assertEqual(done.out, plain.out)


class Sanitizer(support.Case):

    def program(self):
        runtime = subprocess.run(['gcc', '-print-file-name=libasan.so'], capture_output=True,
                                 text=True).stdout.strip()
        if '/' not in runtime:
            self.skipTest('no AddressSanitizer')
        return mistakes('-fsanitize=address', name='mistakes_asan')

    def test_mistakes_are_reported(self):
        program = self.program()
        for mistake, (_, words) in MISTAKES.items():
            if words is None:
                continue
            with self.subTest(mistake=mistake):
                done = support.run([program, mistake], support.clean_environment())
                self.assertNotEqual(done.status, 0, done.report)
                self.assertIn(words, done.err, done.report)

    def test_honest_work_is_not(self):
        done = support.run([self.program(), 'none'], support.clean_environment())
        self.assertRan(done)
        self.assertEqual((done.out, done.err), ('done\n', ''), done.report)
