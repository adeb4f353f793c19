"""What the library in this very process says of itself, and the proof that it serves: it
counts the objects that are made here."""
import ctypes
import json
import os


def _ask():
    try:
        ask = ctypes.PyDLL(None).obmalloc_stats_json
    except AttributeError:
        return None
    ask.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    room = ctypes.create_string_buffer(1 << 16)
    ask(room, len(room))
    return json.loads(room.value.decode())


def who():
    """{mine, parent: pids by the kernel; pid, host: by the library, None without one;
    counted: how many bytes more it had when 20 000 objects of 64 bytes and more were held}"""
    said = {'mine': os.getpid(), 'parent': os.getppid(), 'pid': None, 'host': None, 'counted': 0}
    before = _ask()
    if before:
        held = [bytes(64) for _ in range(20000)]
        after = _ask()
        said.update(pid=after['pid'], host=after['host'],
                    counted=after['bytes']['live'] - before['bytes']['live'])
        del held
    return said


if __name__ == '__main__':
    print(json.dumps(who()))
