"""The library is opened late, and other libraries have used up the static thread-local storage
that the C library reserves: with room for one word it loads; without, dlopen() fails with the
loader's message, and the program continues.
"""
import shutil

import pytest

from support import build, child, status
from support.preload import build_host, interpret

# Loads other libraries, the largest that fit, until 8 bytes do not; unloads one of them or none;
# then loads the library.
EAT = '''
import ctypes, json, threading
import inside
sizes, room = sys.argv[3:], sys.argv[2] == 'room'
ended, meet = [], threading.Barrier(5)
def early():
    meet.wait(); meet.wait()
    ended.append(inside.workload(1))
threads = [threading.Thread(target=early) for _ in range(4)]
for each in threads:
    each.daemon = True          # so that a failure does not hang
    each.start()
meet.wait()
eaten, last = 0, None
for path in sizes:
    size = int(path.split('-')[-1].split('.')[0])
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        assert 'static TLS' in str(error), error
        continue
    eaten, last = eaten + size, library
    assert library.eat() == 1
if room:                        # unloads the smallest that fitted: 8 bytes, mostly
    import _ctypes
    _ctypes.dlclose(last._handle)
try:
    code, said = inside.library(sys.argv[1]).obmalloc_install(), None
except OSError as error:
    code, said = None, str(error)
meet.wait()
for each in threads: each.join()
assert len(set(ended + [inside.workload(1)])) == 1 and len(ended) == 4
kept = [[object()] for _ in range(10000)]
live = inside.live(inside.stats(inside.library(sys.argv[1]))) if code == 0 else 0
print(json.dumps([eaten, code, said, live]))
'''
COPIES = {1024: 8, 256: 4, 64: 4, 8: 40}


def eat(python, folder, room, **env):
    """The run of EAT, with libraries in files of their own: two links to a file are one library."""
    paths = []
    for size, count in COPIES.items():
        library = build_host(f'tls_eater-{size}.so', f'-DSIZE={size}', 'tls_eater.c', '-shared',
                             '-fPIC')
        paths += [shutil.copy(library, folder / f'tls_eater_{n}-{size}.so') for n in range(count)]
    done = interpret(python, EAT, build.LIBRARY, 'room' if room else 'none', *paths,
                     env=child.clean_environment(OBMALLOC_VERBOSE='1', **env))
    assert done.said[0] > 1000, 'the budget of the C library'
    return done


@pytest.mark.only('3.6', '3.11', '3.13', '3.14', '3.15')
def test_room_for_one_word(python, tmp_path):
    done = eat(python, tmp_path, room=True)
    _, code, said, live = done.said
    assert (code, said) == (0, None)
    assert live > 15000
    status.active_at_last(done, python)


@pytest.mark.only('3.6', '3.11', '3.13', '3.14', '3.15')
@pytest.mark.one_python
def test_no_room(python, tmp_path):
    done = eat(python, tmp_path, room=False)
    _, code, said, _ = done.said
    assert code is None
    assert 'cannot allocate memory in static TLS block' in said
    assert 'obmalloc' not in done.err.lower()


@pytest.mark.only('3.11', '3.13', '3.14', '3.15')
def test_larger_budget_of_the_loader(python, tmp_path):
    """glibc's tunable sets the budget."""
    less, more = (eat(python, tmp_path, room=True, GLIBC_TUNABLES=
                      f'glibc.rtld.optional_static_tls={n}').said for n in (512, 4096))
    assert (less[1], more[1]) == (0, 0)
    assert more[0] > less[0] + 2000
