"""The check of the ABI finds what it is there for: on copies of the header, and of the
list of exported names, in which one thing is changed."""
import os
import sys

import installed
import support

sys.path.insert(0, os.path.join(installed.ROOT, 'c_tests'))
import abi      # noqa: E402

HEADER = os.path.join(installed.ROOT, 'include', 'obmalloc.h')


class Abi(support.Case):

    def complaints(self, old='', new='', without=()):
        with open(HEADER) as file:
            text = file.read()
        self.assertIn(old, text)
        path = support.scratch('changed.h')
        with open(path, 'w') as file:
            file.write(text.replace(old, new) if old else text)
        release = abi.releases()[0]
        return abi.compare(release, abi.names(release) - set(without), path)

    def test_what_is_the_same(self):
        self.assertEqual(self.complaints(), [])
        # A parameter's name, and something new, are no change for who is compiled already.
        self.assertEqual(self.complaints('obmalloc_trim(size_t keep)', 'obmalloc_trim(size_t most)'), [])
        self.assertEqual(self.complaints('int obmalloc_install(void);',
                                         'int obmalloc_install(void);\nint obmalloc_more(int n);'), [])

    def test_what_is_lost_or_changed(self):
        for old, new, kind, name in (
                ('size_t obmalloc_trim(size_t keep)', 'int obmalloc_trim(size_t keep)',
                 'function', 'obmalloc_trim is another'),
                ('void *PyMem_Calloc(size_t nelem, size_t elsize)', 'void *PyMem_Calloc(size_t n)',
                 'function', 'PyMem_Calloc is another'),
                ('int obmalloc_install(void);', '', 'function', 'obmalloc_install is gone'),
                ('#define OBMALLOC_NO_GIL 8', '#define OBMALLOC_NO_GIL 9', 'constant',
                 'OBMALLOC_NO_GIL is another'),
                ('#define OBMALLOC_NO_GIL 8', '', 'constant', 'OBMALLOC_NO_GIL is gone'),
                ('  void (*free)(void *ctx, void *ptr, size_t size);', '', 'type',
                 'PyObjectArenaAllocator is another')):
            with self.subTest(name=name):
                found = self.complaints(old, new)
                self.assertEqual(len(found), 1, found)
                self.assertTrue(found[0].startswith('the %s %s' % (kind, name)), found)
        self.assertEqual(self.complaints(without=['PyMem_Free']), ['PyMem_Free is exported no more'])

    def test_since(self):
        """Each name's release is the oldest that has it; what none has is new."""
        oldest = abi.releases()[0]
        found = abi.since({'PyMem_Free', 'obmalloc_not_yet'})
        self.assertEqual(found, {'PyMem_Free': oldest, 'obmalloc_not_yet': None})

    def test_all_lines_of_the_lists_are_understood(self):
        for release in abi.releases():
            kinds = [abi.of(line)[0] for line in abi.kept(release)]
            for kind in 'constant', 'function', 'type':
                self.assertIn(kind, kinds)
            functions = {name for kind, name in map(abi.of, abi.kept(release)) if kind == 'function'}
            self.assertLessEqual(functions, abi.names(release))
