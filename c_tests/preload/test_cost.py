"""What being preloaded costs in memory: a program that never frees anything must
not need noticeably more than on stock.  Times are printed, not judged.

The peak is VmHWM, read by the program itself at its end.  ru_maxrss is no use
here: a child begins with the peak of the process that it was forked from.
"""
import statistics
import sys
import time

import support

PEAK = ('\nprint([line.split()[1] for line in open("/proc/self/status")'
        ' if line.startswith("VmHWM")][0])')
KINDS = {
    'dicts': '[{"n": n, "text": None} for n in range(300000)]',
    'tuples': '[(n, None, (n,)) for n in range(300000)]',
    'strings': '["number %d" % n for n in range(300000)]',
}


class Cost(support.PythonCase):

    def medians(self, code, env, runs):
        """Median peak in KiB and median seconds."""
        peaks, times = [], []
        for _ in range(runs):
            start = time.perf_counter()
            done = support.run([self.python.path, '-c', code + PEAK], env)
            times.append(time.perf_counter() - start)
            self.assertRan(done)
            peaks.append(int(done.out))
        return statistics.median(peaks), statistics.median(times)

    def compare(self, what, code, allowed, runs):
        stock_peak, stock_time = self.medians(code, support.clean_environment(), runs)
        peak, seconds = self.medians(code, support.preloaded(), runs)
        # One write, as other checks print at the same time.
        sys.stdout.write('      %-14s cost: %s: peak %d KiB, stock %d, difference %+d (allowed %d); '
                         'time %.3f s, stock %.3f, %+.0f %%\n'
                         % (self.python.label, what, peak, stock_peak, peak - stock_peak, allowed,
                            seconds, stock_time, 100 * (seconds / stock_time - 1)))
        self.assertLessEqual(peak - stock_peak, allowed, 'KiB more than stock for ' + what)

    def test_objects_that_are_kept(self):
        for kind, code in KINDS.items():
            with self.subTest(kind=kind):
                self.compare('300000 ' + kind, 'kept = ' + code, 1024, runs=3)

    def test_nothing_done(self):
        self.compare('pass', 'pass', 300, runs=9)
