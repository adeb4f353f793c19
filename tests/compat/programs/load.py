"""The program that tools inspect: holds memory, works for a while, prints a checksum.
load.py SECONDS [crash]"""
import sys
import threading
import time

import inside


def inner_work(until):
    rounds = 0
    while time.time() < until or rounds == 0:
        rows = [{str(n): [n] * (n % 60), n: bytes(n % 700)} for n in range(2000)]
        assert sum(len(row) for row in rows) == 4000
        rounds += 1
    return rounds


def hold():
    return [(n, str(n), [n] * (n % 20)) for n in range(100000)]


def main():
    kept = hold()
    until = time.time() + float(sys.argv[1])
    threads = [threading.Thread(target=inner_work, args=(until,)) for _ in range(2)]
    for each in threads:
        each.start()
    print('ready', flush=True)
    inner_work(until)
    for each in threads:
        each.join()
    assert all(each == (n, str(n), [n] * (n % 20)) for n, each in enumerate(kept))
    if sys.argv[2:] == ['crash']:
        import faulthandler
        faulthandler.enable()
        faulthandler._sigsegv()
    print(inside.workload(2))


if __name__ == '__main__':
    main()
