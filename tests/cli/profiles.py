"""Files with heap profiles, written here field by field: gzipped profile.proto."""
import gzip

TYPES = [('alloc_objects', 'count'), ('alloc_space', 'bytes'), ('inuse_objects', 'count'),
         ('inuse_space', 'bytes'), ('pinned_space', 'bytes')]


def varint(number):
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number, value):
    """A field: an integer, bytes, or a list of integers, packed."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, list):
        value = b''.join(map(varint, value))
    return varint(number << 3 | 2) + varint(len(value)) + value


class Profile:
    """A profile; `sample` appends to it, `file` has its bytes."""

    def __init__(self, **comments):
        self.strings, self.samples, self.frames = {b'': 0}, [], {}
        self.types = b''.join(field(1, field(1, self.text(kind)) + field(2, self.text(unit)))
                              for kind, unit in TYPES)
        comments = dict({'obmalloc': '0.1.0', 'pid': '4711', 'python': '3.13.5'}, **comments)
        self.comments = field(13, [self.text(f'{key}={value}') for key, value in comments.items()])

    def text(self, text):
        data = text.encode() if isinstance(text, str) else text
        return self.strings.setdefault(data, len(self.strings))

    def sample(self, stack, values, **labels):
        """A sample: its stack is of (function, file, line), the innermost first."""
        ids = [self.frames.setdefault((self.text(function), self.text(file), line),
                                      len(self.frames) + 1) for function, file, line in stack]
        out = field(1, ids) + field(2, list(values))
        for key, value in labels.items():
            number = isinstance(value, int)
            content = field(3, value) if number else field(2, self.text(value))
            out += field(3, field(1, self.text(key)) + content)
        self.samples.append(out)
        return self

    def message(self):
        functions = b''.join(field(5, field(1, number) + field(2, function) + field(4, file))
                             for (function, file, _), number in self.frames.items())
        locations = b''.join(field(4, field(1, number) + field(4, field(1, number) + field(2, line)))
                             for (_, _, line), number in self.frames.items())
        samples = b''.join(field(2, sample) for sample in self.samples)
        default = field(14, self.text('inuse_space'))
        strings = b''.join(field(6, text) for text in self.strings)
        return (self.types + samples + locations + functions + self.comments + default
                + field(12, 524288) + field(9, 1700000000 * 10**9) + strings)

    def file(self):
        return gzip.compress(self.message(), 1)


MAIN = ('<module>', '/srv/app/main.py', 3)
REMEMBER = ('remember', '/srv/app/sessions.py', 41)
PARSE = ('parse', '/usr/lib/python3.13/json/decoder.py', 350)


def example(sessions=1000, parsed=500):
    """A program whose sessions hold dicts, and whose parser holds lists."""
    return (Profile()
            .sample([REMEMBER, MAIN], [0, 0, sessions, 64 * sessions, 8 * sessions], type='dict',
                    domain='obj', bytes=64, thread='worker', tid=7, age=120000)
            .sample([PARSE, MAIN], [0, 0, parsed, 48 * parsed, 0], type='list', domain='obj',
                    bytes=48, thread='main', tid=4711, age=5)
            .sample([], [500, 90000, 0, 0, 0]))
