"""Hosts that no machine has at hand, built from hosts/fake_python.c.

They answer Py_GetVersion() with anything, and count what reaches their own
functions: how many calls, how many with a block that is not theirs, how often
somebody wrote their table.  Each host first runs without us, so that the counts
to expect are the host's own.
"""
import re

import support

ORDINARY = '3.11.7 (main, Jan  1 2024, 00:00:00) [GCC 12.2.0]'
OLD = '2.7.18 (default, Jan  1 2024, 00:00:00) \n[GCC 12.2.0]'


def build_host(version, shape, *flags):
    """shape: 'executable' (static Python: all symbols in the program), 'library'
    (shared libpython), 'symbolic' (shared, but bound to itself when linked)."""
    name = re.sub(r'\W+', '_', '-'.join((version[:20], shape) + flags))
    flags = ('-DVERSION="%s"' % version.replace('\n', '\\n'), '-Wno-unused-function') + flags
    others = ()
    if any('TABLE_OF_OTHERS' in flag for flag in flags):
        others = (support.build('libforeign.so', 'foreign.c', '-shared', '-fPIC'),)
    run_path = '-Wl,-rpath,' + support.scratch()
    if shape == 'executable':
        return support.build(name, *flags, '-rdynamic', 'fake_main.c', 'fake_python.c',
                             *others, run_path)
    symbolic = ('-Wl,-Bsymbolic-functions',) if shape == 'symbolic' else ()
    library = support.build('lib%s.so' % name, *flags, *symbolic, '-shared', '-fPIC',
                            '-Wl,-soname,lib%s.so' % name, 'fake_python.c', *others, run_path)
    return support.build(name, *flags, 'fake_main.c', library, *others, run_path)


class FakeHost(support.Case):

    def meet(self, version, shape, *flags):
        """(how it went with us, its counts with us, its counts without)"""
        program = build_host(version, shape, *flags)
        plain = support.run([program])
        self.assertRan(plain)
        counts = support.said(plain)
        self.assertEqual((counts['foreign'], counts['table_writes']), (0, 0), plain.report)
        done = support.run([program], support.preloaded(OBMALLOC_VERBOSE='1'))
        self.assertRan(done)
        return done, support.said(done), counts

    def refuse(self, reason, version, shape, *flags):
        """Aside for this reason, and the host works as without us to the last call."""
        with self.subTest(shape=shape):
            done, counts, plain = self.meet(version, shape, *flags)
            self.assertAside(done, reason)
            self.assertEqual(counts, plain, done.report)

    # First that we do enter an ordinary fake host: otherwise every refusal below
    # could be for a reason of the fake's own.

    def test_ordinary_host_is_entered(self):
        for shape in 'executable', 'library', 'symbolic':
            with self.subTest(shape=shape):
                done, counts, plain = self.meet(ORDINARY, shape)
                self.assertActive(done, '3.11.7')
                self.assertGreater(plain['mallocs'], 5000)
                self.assertEqual((counts['mallocs'], counts['frees'], counts['foreign']), (0, 0, 0),
                                 done.report)
                self.assertEqual(counts['table_writes'], 2, 'MEM and OBJ\n' + done.report)

    def test_free_threaded(self):
        for version in ('3.13.0 experimental free-threading build (main, Oct  7 2024) [GCC 12.2.0]',
                        '3.14.0 free-threading build (main, Oct  7 2025) [GCC 12.2.0]'):
            for shape in 'executable', 'library':
                self.refuse(r'free.?thread', version, shape)

    def test_table_of_four_pointers(self):
        for shape in 'executable', 'library':
            self.refuse(r'3\.4|version|support', '3.4.10 (default, x) [GCC 12.2.0]', shape,
                        '-DFOUR_POINTERS')

    def test_older_and_newer_than_known(self):
        for version in '3.5.3', '3.99.0', '4.0.0', '3.3.7', '2.6.9':
            for shape in 'executable', 'library':
                with self.subTest(version=version):
                    self.refuse(r'%s|version|support' % re.escape(version),
                                version + ' (main, x) [GCC 12.2.0]', shape)

    def test_another_allocator_in_the_table(self):
        for domains in '2', '4', '6':
            for shape in 'executable', 'library':
                with self.subTest(domains=domains):
                    self.refuse('another allocator', ORDINARY, shape, '-DTABLE_OF_OTHERS=' + domains)

    def test_2_7_that_can_be_interposed(self):
        done, counts, plain = self.meet(OLD, 'library', '-DNO_TABLE')
        self.assertActive(done, '2.7.18', 'obj')
        self.assertGreater(plain['mallocs'], 2000)
        self.assertEqual(set(counts.values()), {0}, done.report)

    def test_2_7_that_calls_itself_directly(self):
        """Its own calls never reach our names, those of an extension do; all must
        end in the host's functions, malloc and realloc and free alike."""
        for shape in 'executable', 'symbolic':
            self.refuse('', OLD, shape, '-DNO_TABLE')

    def test_2_7_that_calls_itself_in_part(self):
        """One direct call among the three is enough to make interposing wrong."""
        self.refuse('', OLD, 'library', '-DNO_TABLE', '-DDIRECT_FREE')

    def test_silent_when_not_asked(self):
        for shape in 'executable', 'library':
            done = support.run([build_host('3.99.0', shape)], support.preloaded())
            self.assertRan(done)
            self.assertSaysNothing(done)
