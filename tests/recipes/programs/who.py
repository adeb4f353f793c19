"""The library's statistics of this process, and the proof that it serves: it counts the objects
made here."""
import json
import os

from ledger import numbers


def who():
    """{mine, parent: pids from the kernel; pid, host: from the library, None without it;
    counted: live bytes added by 20 000 objects of at least 64 bytes}"""
    said = {'mine': os.getpid(), 'parent': os.getppid(), 'pid': None, 'host': None, 'counted': 0}
    before = numbers()
    if before:
        held = [bytes(64) for _ in range(20000)]
        after = numbers()
        said.update(pid=after['pid'], host=after['host'],
                    counted=after['bytes']['live'] - before['bytes']['live'])
        del held
    return said


if __name__ == '__main__':
    print(json.dumps(who()))
