"""Programs with a known mix: prints, as JSON, for each of many profiles the estimates by line and
the exact bytes of the blocks.

    profile_mix.py RUNS INTERVAL plain|threads|fork
"""
import collections
import json
import os
import sys
import tempfile
import threading

sys.path.insert(0, os.environ['PACKAGE'])
from obmalloc import _pprof, profile                                            # noqa: E402

RUNS, INTERVAL, HOW = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
HEADER = bytes.__basicsize__        # of an empty one, whose last byte is NUL


def alone(kept):
    for _ in range(1200):
        kept.append(bytes(64))


def among_temporaries(kept):
    for _ in range(600):
        for _ in range(20):
            bytes(60)
        kept.append(bytes(63))


def half_dropped(kept):
    made = [bytes(62) for _ in range(2000)]
    kept.extend(made[::2])


def after_bursts(kept):
    for _ in range(12):
        made = [bytes(61) for _ in range(500)]
        kept.extend(made[:40])


def medium(kept):
    for _ in range(120):
        kept.append(bytes(700))


def large(kept):
    for _ in range(12):
        kept.append(bytes(90_000))


PARTS = [alone, among_temporaries, half_dropped, after_bursts, medium, large]


def everything(kept):
    for part in PARTS:
        part(kept)


def mix():
    """What lives at the end, and how often each part ran."""
    kept = []
    if HOW == 'threads':
        threads = [threading.Thread(target=everything, args=(kept,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return kept, 8
    everything(kept)
    return kept, 1


def block(size):
    """Bytes of the block of a bytes object."""
    n = HEADER + size
    return (n + 15) // 16 * 16 if n <= 512 else n


EXACT = {'alone': [1200, 64], 'among_temporaries': [600, 63], 'half_dropped': [1000, 62],
         'after_bursts': [480, 61], 'medium': [120, 700], 'large': [12, 90_000]}
NAMES = {size: name for name, (_, size) in EXACT.items()}


def measured(path):
    found = collections.Counter()
    for sample in _pprof.Profile(path).samples():
        if sample.labels.get('type') == 'bytes':
            names = [frame.function for frame in sample.stack[:2]]
            name = next((name for name in names if name in EXACT), None)
            if name:
                found[name] += sample.values[3]
    return found


def profiled(path):
    profile.start(INTERVAL)
    kept, times = mix()
    profile.dump(path)
    profile.stop()
    del kept
    return dict(measured(path), times=times)


with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, 'heap.pb.gz')
    runs = []
    for _ in range(RUNS):
        if HOW != 'fork':
            runs.append(profiled(path))
            continue
        # The parent allocates the first half, a child the rest; the child's profile has both. (A block
        # from before the start would give its place in a magazine to one that is not sampled.)
        kept = []
        profile.start(INTERVAL)
        for part in PARTS[:3]:
            part(kept)
        pid = os.fork()
        if pid == 0:
            for part in PARTS[3:]:
                part(kept)
            profile.dump(path)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        profile.stop()
        runs.append(dict(measured(path), times=1))
print(json.dumps([{name: [count, block(size)] for name, (count, size) in EXACT.items()}, runs]))
