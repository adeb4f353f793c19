"""Builds MIB MiB of small objects of mixed kinds, and compares the sum of the heap profile with the
bytes that the allocator counts: {"counted": ..., "estimated": ..., "samples": ...}.

With PROFILE_START=INTERVAL in the environment the program starts the profiler itself, and prints
instead how many bytes of its tables are resident: pages of the mappings that the start has added.
"""

import ctypes
import json
import os
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "python"))
from obmalloc import _pprof  # noqa: E402

SMALL_MAX = 512
PAGE = os.sysconf("SC_PAGE_SIZE")
LIBRARY = ctypes.PyDLL(None)
LIBRARY.obmalloc_profile_start.argtypes = [ctypes.c_size_t]
LIBRARY.obmalloc_stats_json.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
LIBRARY.obmalloc_stats_json.restype = ctypes.c_size_t
TEXT = ctypes.create_string_buffer(1 << 20)


def counted():
    """The bytes of the live blocks of small classes."""
    LIBRARY.obmalloc_stats_json(TEXT, len(TEXT))
    return sum(each["blocks_live"] * each["size"] for each in json.loads(TEXT.value)["classes"]
               if each["size"] <= SMALL_MAX)


def estimated():
    """(bytes, samples) of these blocks, by a profile. The C library serves larger ones."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "heap.pb.gz")
        if LIBRARY.obmalloc_profile_dump(path.encode()):
            sys.exit("no profile")
        profile = _pprof.Profile(path)
        at = [name for name, _ in profile.types].index("inuse_space")
        found = [sample.values[at] for sample in profile.samples()
                 if sample.labels.get("domain") in ("obj", "mem")
                 and sample.labels["bytes"][0] <= SMALL_MAX]
    return sum(found), len(found)


class Node:
    def __init__(self, number):
        self.number, self.name = number, "name %d" % number


def some(kept, begin, end):
    for number in range(begin, end):
        size = number % 13
        kept.append({number: size, "size": number})
        kept.append((number,) * (size + 1))
        kept.append("%0*d" % (size * 16 + 1, number))
        kept.append([number] * (size + 1))
        kept.append(bytes(number % 400))
        kept.append(Node(number))


def private_anonymous():
    """[(begin, end)] of the private anonymous mappings that can be written."""
    with open("/proc/self/maps") as maps:
        lines = [line.split() for line in maps]
    return [tuple(int(number, 16) for number in line[0].split("-")) for line in lines
            if line[1] == "rw-p" and line[4] == "0" and (len(line) == 5 or line[5][:5] == "[anon")]


def new_pages(before, after):
    """The pages of mappings that were not there before."""
    old = {page for begin, end in before for page in range(begin // PAGE, end // PAGE)}
    return [page for begin, end in after for page in range(begin // PAGE, end // PAGE)
            if page not in old]


def resident(pages):
    with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
        def is_there(page):
            pagemap.seek(page * 8)
            return pagemap.read(8)[7] >> 7
        return sum(map(is_there, pages)) * PAGE


goal, kept, turn, pages = int(sys.argv[-1]) << 20, [], 0, None
if "PROFILE_START" in os.environ:
    kept.append([])     # the mappings that only the start adds
    before = private_anonymous()
    if LIBRARY.obmalloc_profile_start(int(os.environ["PROFILE_START"])):
        sys.exit("the profiler does not start")
    pages = new_pages(before, private_anonymous())
while counted() < goal:
    some(kept, turn * 20000, (turn + 1) * 20000)
    turn += 1
printed = {}
if pages is None:
    printed["counted"] = counted()
    printed["estimated"], printed["samples"] = estimated()
else:
    printed["tables"] = resident(pages)
    printed["mapped"] = len(pages) * PAGE
print(json.dumps(printed), flush=True)
os._exit(0)
