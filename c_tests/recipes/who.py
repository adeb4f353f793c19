"""What the library in this very process says of itself, and the proof that it serves: it
counts the objects that are made here."""
import json
import os

from ledger import numbers


def who():
    """{mine, parent: pids by the kernel; pid, host: by the library, None without one;
    counted: how many bytes more it had when 20 000 objects of 64 bytes and more were held}"""
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
