"""A peak of known size, of small objects, large ones, and some that grow."""
import gc


def small_objects():
    return [(n, str(n), [n] * (n % 30)) for n in range(150000)]


def large_objects():
    return [bytes(5000 + n % 3000) for n in range(4000)]


def growing():
    rows = [bytearray() for _ in range(500)]
    for _ in range(40):
        for row in rows:
            row += b'x' * 700
    return rows


kept = small_objects()
kept = [kept[::100], large_objects()]
gc.collect()
kept = [kept[0], growing()]
assert len(kept[0]) == 1500 and len(kept[1][499]) == 28000
print('done')
