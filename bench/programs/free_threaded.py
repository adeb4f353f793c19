"""Memory of a program with four threads, each of which builds 60 000 dicts and drops them.

    python3.13t free_threaded.py 0        all are dropped
    python3.13t free_threaded.py 1000     all but 1 of 1000

Prints the peak, the memory 3 s after the drop, and the processor time. docs/free-threading.md has
the figures.
"""
import gc
import os
import sys
import threading
import time

THREADS, DICTS = 4, 60000


def idle_mib():
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 2**20


def peak_mib():
    with open('/proc/self/status') as file:
        return int(next(line for line in file if line.startswith('VmHWM')).split()[1]) / 1024


def main(step):
    built, kept = threading.Barrier(THREADS), []

    def work():
        things = [{'id': i, 'name': 'n%d' % i, 'tags': [i, i + 1]} for i in range(DICTS)]
        built.wait()            # so that the peak is the same in each run
        if step:
            kept.extend(things[::step])

    begin = time.process_time()
    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    spent = time.process_time() - begin
    time.sleep(3)
    print('peak %.0f, idle %.0f MiB, %.2f s' % (peak_mib(), idle_mib(), spent))


main(int(sys.argv[1]))
