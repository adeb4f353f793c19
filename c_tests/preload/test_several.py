"""Programs with several Pythons, as plugins bring them along: each with a libpython of its
own that was opened privately, globally, bound to itself, in a namespace of its own, or as a
copy of another; at once or one after the other; with the library installed in one of them.

Our names are what all of them call. None may reach another one's functions: so what each
prints, and how the program ends, is as without us.
"""
import functools
import os
import re
import shutil

import pythons
import support

LEFT_ALONE = re.compile(r'^obmalloc: CPython (\S+) in pid (\d+) keeps its own allocator: ')


@functools.lru_cache(maxsize=None)
def with_libraries():
    """The interpreters that can be opened."""
    return [python for python in pythons.find()[0] if python.library]


class Several(support.PythonCase):

    def others(self):
        if not self.python.library:
            self.skipTest('no libpython to open')
        others = [python for python in with_libraries() if python.path != self.python.path]
        if not others:
            self.skipTest('one libpython only')
        return others

    def neighbour(self):
        """The next older one, of the oldest the newest, so that few pairs are of many kinds."""
        others = self.others()
        older = sum(python.numbers < self.python.numbers for python in others)
        return others[older - 1]

    def copy(self):
        """The same libpython from a file of its own, which is another object."""
        folder = support.scratch('copy-' + self.python.version)
        os.makedirs(folder, exist_ok=True)
        return self.python._replace(library=shutil.copy(self.python.library, folder))

    def meet(self, when, *hosts, **env):
        """They run as without us. Returns the run with us."""
        program = support.build('several', 'several.c', '-ldl', '-pthread')
        words = [word for mode, python in hosts for word in (mode, python.library, python.prefix)]
        with self.subTest(when=when, hosts=' '.join('%s:%s' % (mode, python.minor)
                                                    for mode, python in hosts)):
            argv = [program, '2', when] + words
            plain = support.run(argv, support.clean_environment())
            if plain.status != 0:
                self.skipTest('cannot run together by themselves: status %s' % plain.status)
            done = support.run(argv, support.preloaded(**env))
            self.assertRan(done)
            self.assertEqual(sorted(done.out.splitlines()), sorted(plain.out.splitlines()),
                             done.report)
            return done

    def meet_in_all_ways(self, other):
        me = self.python
        self.meet('parallel', ('local', me), ('local', other))
        self.meet('serial', ('local', me), ('global', other))
        self.meet('parallel', ('deep', me), ('local', other))
        self.meet('parallel', ('local', me), ('global', other))
        self.meet('parallel', ('local', me), ('own', other))
        self.meet('reopened', ('local', me), ('local', other), ('local', me))
        self.meet('parallel', ('local+install', me), ('local', other))
        self.meet('parallel', ('local', me), ('local+install', other))

    def test_two_at_once(self):
        self.meet('parallel', ('local', self.python), ('local', self.neighbour()))

    def test_one_after_the_other(self):
        me, other = self.python, self.neighbour()
        # A 2.7 beside a global one finds that one's names when it starts.
        scope = 'global' if (2, 7) < min(me.numbers, other.numbers)[:2] else 'local'
        self.meet('serial', ('local', me), (scope, other))
        self.meet('reopened', ('local', me), ('local', other), ('local', me))

    def test_bound_to_itself_and_in_a_namespace_of_its_own(self):
        me, other = self.python, self.neighbour()
        self.meet('parallel', ('deep', me), ('local', other))
        self.meet('parallel', ('local', me), ('own', other))

    def test_two_copies_of_one_version(self):
        self.others()
        self.meet('parallel', ('local+bare', self.python), ('local+bare', self.copy()))

    def test_three_at_once(self):
        others = self.others()
        if len(others) < 2:
            self.skipTest('two libpythons only')
        self.meet('parallel', ('local', self.python), ('local', others[0]), ('local', others[-1]))

    def test_the_program_used_us_before(self):
        """Its own blocks stay its own, whatever is opened."""
        self.meet('parallel+used', ('local', self.python), ('local', self.neighbour()))
        self.meet('serial+used', ('local', self.python))

    @support.since(3, 6)
    def test_installed_in_one(self):
        """The one is served, and the line says so; the other is left alone."""
        me, other = self.python, self.neighbour()
        for hosts in (('local+install', me), ('local', other)), (('local', other),
                                                                 ('local+install', me)):
            done = self.meet('parallel', *hosts, OBMALLOC_VERBOSE='1')
            if done is None:
                continue
            self.assertIn('install=0', done.err, done.report)
            active = done.lines(support.ACTIVE)
            self.assertEqual([line.group(2) for line in active], [me.version], done.report)
            self.assertEqual(len(done.lines(LEFT_ALONE)), 1, done.report)

    @support.since(3, 6)
    def test_installed_in_one_of_them_only(self):
        me, other = self.python, self.others()[-1]
        done = self.meet('serial', ('local+install', me), ('local+install', other),
                         OBMALLOC_VERBOSE='1')
        if done is not None:
            self.assertIn('install=0', done.err, done.report)
            self.assertIn('install=9', done.err, done.report)
            self.assertIn('another CPython of this process is served', done.err, done.report)

    @support.not_in_a_sample
    def test_all_pairs(self):
        for other in self.others():
            self.meet_in_all_ways(other)
