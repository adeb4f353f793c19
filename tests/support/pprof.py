"""Heap profiles for tests, written field by field: gzipped profile.proto. The package reads them."""
import gzip
import re
import sys

from support import build

sys.path.insert(0, str(build.ROOT / 'python'))
from obmalloc._pprof import Profile     # noqa: E402, F401

TYPES = [('alloc_objects', 'count'), ('alloc_space', 'bytes'), ('inuse_objects', 'count'),
         ('inuse_space', 'bytes'), ('pinned_space', 'bytes')]


def varint(value):
    value %= 1 << 64
    found = []
    while value >= 0x80:
        found.append(value % 0x80 + 0x80)
        value //= 0x80
    return bytes(found + [value])


def field(number, value):
    if isinstance(value, bytes):
        return varint(number * 8 + 2) + varint(len(value)) + value
    return varint(number * 8) + varint(value)


def message(*pairs):
    return b''.join(field(number, value) for number, value in pairs)


def constant(name):
    """A name of format/src/profile.rs."""
    text = (build.ROOT / 'format/src/profile.rs').read_text()
    return re.search(rf'const {name}: &str = "(.*)";', text)[1]


class Writer:
    """Collects samples: `add` takes frames (function, file, line), the innermost first, values in
    the order of TYPES, and labels, each a text or (number, unit). A frame without a file is
    native."""

    def __init__(self, types=TYPES, period=4096, time=0):
        self.texts = ['']
        self.places = {}
        self.body = b''.join(field(1, message((1, self.text(name)), (2, self.text(unit))))
                             for name, unit in types)
        self.tail = message((9, time), (11, message((1, self.text('space')),
                                                    (2, self.text('bytes')))),
                            (12, period), (14, self.text('inuse_space')))

    def text(self, text):
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text)

    def add(self, frames, values, packed=True, **labels):
        ids = [self.places.setdefault(frame, len(self.places) + 1) for frame in frames]
        if packed:
            found = (field(1, b''.join(map(varint, ids))) if ids else b'') + \
                field(2, b''.join(map(varint, values)))
        else:
            found = message(*((1, each) for each in ids), *((2, each) for each in values))
        for key, value in labels.items():
            rest = ((2, self.text(value)),) if isinstance(value, str) else \
                ((3, value[0]), (4, self.text(value[1])))
            found += field(3, message((1, self.text(key)), *rest))
        self.body += field(2, found)
        return self

    def raw(self):
        """The message without compression."""
        tables = b''
        for (function, file, line), number in self.places.items():
            tables += field(5, message((1, number), (2, self.text(function)),
                                       (4, self.text(file))))
            tables += field(4, message((1, number), *(() if file else ((3, 0x1000 + number),)),
                                       (4, message((1, number), (2, line)))))
        return self.body + tables + message(*((6, text.encode()) for text in self.texts)) \
            + self.tail

    def write(self, path):
        path.write_bytes(gzip.compress(self.raw()))
        return path
