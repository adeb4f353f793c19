"""`obmalloc bench`: both sides run what was asked, in pairs, and the numbers are of them."""
import json
import os
import pty
import shutil
import statistics
import subprocess
import sys

import command
import support

PEAKS = '''
for turn in range(6):
    kept = [(n,) for n in range(100000)]
    del kept
'''


class Bench(support.Case):

    def bench(self, *words, status=0, env=None):
        done = command.run('bench', *words, env=env, timeout=200)
        self.assertRan(done, status)
        return done

    def test_the_numbers(self):
        """Medians and ratios are recomputed from the single runs; a program that faults
        its arenas in again and again has fewer faults with us."""
        done = self.bench('-n', '3', '--json', '--', sys.executable, '-c', PEAKS)
        said = json.loads(done.out)
        self.assertEqual((said['rounds'], said['command'][-1]), (3, PEAKS))
        quantities = said['quantities']
        self.assertEqual(set(quantities), {'time', 'cpu', 'peak_rss', 'rss_time', 'page_faults'})
        for name, each in quantities.items():
            with self.subTest(quantity=name):
                sides = each['without'], each['with']
                self.assertEqual([len(side) for side in sides], [3, 3])
                for side, median in zip(sides, each['medians']):
                    self.assertAlmostEqual(median, statistics.median(side), 9)
                ratios = [ours / stock for stock, ours in zip(*sides)]
                self.assertAlmostEqual(each['ratio'], statistics.median(ratios), 9)
                self.assertAlmostEqual(each['spread'][0], min(ratios), 9)
                self.assertAlmostEqual(each['spread'][1], max(ratios), 9)
                expected = ('less' if max(ratios) < 1 else 'more' if min(ratios) > 1
                            else 'no difference beyond the spread')
                self.assertEqual(each['outcome'], expected)
        self.assertEqual(quantities['page_faults']['outcome'], 'less', done.out)

    def test_memory_over_time(self):
        """200 MiB for some 0.6 s, whatever else the machine does: by the kernel's word the
        integral is below time by peak, and it is well above the half of it."""
        code = 'import time; block = bytearray(200 << 20); time.sleep(0.6)'
        said = json.loads(self.bench('-n', '1', '--warm-up', '0', '--json', '--',
                                     sys.executable, '-c', code).out)['quantities']
        for side in 'without', 'with':
            time, peak, area = (said[name][side][0] for name in ('time', 'peak_rss', 'rss_time'))
            self.assertGreater(peak, 200)
            self.assertLess(peak, 240)
            self.assertGreater(area, 0.55 * 200)
            self.assertLessEqual(area, time * peak)
        self.assertEqual(said['time']['outcome'], 'one pair: spread unknown')

    def test_children_count(self):
        """The children's memory is part of RSS by time, their faults and time of the rest."""
        code = ('import subprocess, sys; subprocess.check_call([sys.executable, "-c", '
                '"import time; block = bytearray(200 << 20); time.sleep(0.5)"])')
        said = json.loads(self.bench('-n', '1', '--warm-up', '0', '--json', '--',
                                     sys.executable, '-c', code).out)['quantities']
        self.assertGreater(said['rss_time']['without'][0], 0.4 * 200)
        self.assertGreater(said['peak_rss']['without'][0], 200)

    def test_pairs_are_interleaved_and_only_one_side_has_us(self):
        log = support.scratch('bench.log')
        code = ('import os; us = any("libobmalloc" in line for line in open("/proc/self/maps")); '
                'open(%r, "a").write("%%d %%s\\n" %% (us, os.environ.get("OBMALLOC_DECAY_MS")))' % log)
        self.bench('-n', '3', '--warm-up', '2', '--decay', '5', '--', sys.executable, '-c', code,
                   env=support.preloaded())
        with open(log) as file:
            lines = file.read().splitlines()
        stock, ours = '0 None', '1 5'
        self.assertEqual(lines, [stock] * 2 + [stock, ours, ours, stock, stock, ours])

    def test_in_words(self):
        done = self.bench('-n', '2', '--', sys.executable, '-c', 'pass')
        lines = done.out.splitlines()
        self.assertEqual(len(lines), 7, done.report)
        for line, name in zip(lines[1:], ('time, s', 'CPU, s', 'peak RSS, MiB', 'RSS x time, MiB s',
                                          'page faults')):
            self.assertRegex(line, r'^%s +[\d.]+ +[\d.]+ +[\d.]+   [\d.]+ to [\d.]+  '
                             '(less|more|no difference beyond the spread)$' % name)
        self.assertEqual(lines[-1], '2 pairs of: %s -c pass' % sys.executable)
        self.assertEqual(done.err, '', 'progress, though no terminal is there')

    def test_progress_on_a_terminal(self):
        """It is shown, and the line is cleared at the end."""
        reader, terminal = pty.openpty()
        child = subprocess.Popen([command.path(), 'bench', '-n', '1', '--', sys.executable, '-c',
                                  'import time; time.sleep(0.7)'], stderr=terminal,
                                 stdout=subprocess.PIPE, env=support.clean_environment())
        os.close(terminal)
        shown = b''
        try:
            while True:
                shown += os.read(reader, 4096)
        except OSError:             # the terminal's other end is closed
            pass
        os.close(reader)
        self.assertIn(b'one pair', child.communicate(timeout=60)[0])
        self.assertEqual(child.returncode, 0)
        for text in b'warm-up 1', b'pair 1 of 1, without the library', b'with the library: 0.':
            self.assertIn(text, shown)
        self.assertTrue(shown.endswith(b'\r\x1b[K'), shown[-60:])

    def test_a_command_that_fails(self):
        done = self.bench('--', sys.executable, '-c', 'import sys; print("why", file=sys.stderr); sys.exit(5)',
                          status=1)
        self.assertRegex(done.err, r'^obmalloc: the command failed \(warm-up 1\): it ended with '
                                   r'status 5, its last line: why; make it succeed first.*\n$')
        self.assertEqual(done.out, '')
        done = self.bench('-n', '1', '--', sys.executable, '-c', 'import os; os.kill(os.getpid(), 9)',
                          status=1)
        self.assertIn('signal 9 ended it', done.err)

    def test_a_command_that_fails_with_us_only(self):
        code = ('import os, sys; '
                'sys.exit(any("libobmalloc" in line for line in open("/proc/self/maps")))')
        done = self.bench('-n', '1', '--', sys.executable, '-c', code, status=1)
        self.assertRegex(done.err, r'^obmalloc: the command failed \(pair 1 of 1, with the library\)'
                                   r'.*obmalloc run --verbose')

    def test_a_side_without_us_is_no_comparison(self):
        done = self.bench('--', sys.executable, '-c', 'pass', status=1,
                          env=support.clean_environment(PYTHONMALLOC='malloc'))
        self.assertRegex(done.err, r'^obmalloc: no process .* active in it; ask `obmalloc doctor`')
        done = self.bench('--', 'true', status=1)
        self.assertIn('obmalloc doctor', done.err)

    def test_wrong_use(self):
        for words, status, said in [((), 2, 'no command to measure; write it behind'),
                                    (('--', 'obmalloc-no-such-program'), 127, 'cannot start'),
                                    (('-n', '0', 'true'), 2, '')]:
            with self.subTest(words=words):
                done = self.bench(*words, status=status)
                self.assertIn(said, done.err)

    def test_without_a_library(self):
        """Here nothing is left to do, so it does not fail open."""
        program = command.layout('bench-alone', library=None)
        done = support.run([program, 'bench', '--', 'true'])
        self.assertRan(done, 1)
        self.assertRegex(done.err, '^obmalloc: no libobmalloc.so near')
        shutil.rmtree(support.scratch('bench-alone'))
