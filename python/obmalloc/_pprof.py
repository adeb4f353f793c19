"""Reads and writes heap profiles: gzipped `profile.proto`, the format of pprof.

    Profile(path)              the tables of a file: functions, files, lines, texts
    Profile.samples()          its samples, one by one, in a second pass
    growth(before, after)      the gzipped profile of the difference

A file is hostile input. Anything that is not in the format raises ProfileError, and memory is
bounded: of the tables by _MOST_TABLES, of what is summed over samples by _MOST_KEYS.
"""
import gzip
import io
import zlib
from collections import namedtuple

_MOST_BYTES = 256 << 20     # of a file without its compression
_MOST_TABLES = 64 << 20     # of all messages but samples
_MOST_MESSAGE = 1 << 20
_MOST_KEYS = 1 << 20        # of sums over samples
_MOST_STACKS = 1 << 14      # that are kept for the next sample
_CHUNK = 1 << 16

# The fields of the message Profile.
_SAMPLE_TYPE, _SAMPLE, _MAPPING, _LOCATION, _FUNCTION, _STRING = range(1, 7)
_TIME, _DURATION, _PERIOD_TYPE, _PERIOD, _COMMENT, _DEFAULT = range(9, 15)
_NUMBER, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5       # wire types

# A frame. `native`: of C; its function is an address if it has no symbol.
Frame = namedtuple('Frame', 'function file line native')
# `stack` begins with the innermost frame. `labels`: of texts a str, of numbers (int, unit).
Sample = namedtuple('Sample', 'stack values labels')
_Function = namedtuple('_Function', 'name file')


class ProfileError(ValueError):
    """The file is not a heap profile, or is too large."""


def _varint(data, at):
    """The number at a position, and the position after it."""
    value = shift = 0
    while True:
        try:
            byte = data[at]
        except IndexError:
            raise ProfileError('a number is cut off') from None
        at += 1
        value |= (byte & 0x7f) << shift
        if byte < 0x80:
            return value & 0xffffffffffffffff, at
        shift += 7
        if shift > 63:
            raise ProfileError('a number has more than 64 bits')


def _signed(value):
    return value - (1 << 64) if value >> 63 else value


def _fields(data):
    """The (number, value) pairs of a message: value is an int, or bytes."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == _NUMBER:
            value, at = _varint(data, at)
        elif kind == _BYTES:
            length, at = _varint(data, at)
            if length > end - at:
                raise ProfileError('a field is cut off')
            value = data[at:at + length]
            at += length
        elif kind in (_FIXED64, _FIXED32):      # no field of the format that is known here
            at += 8 if kind == _FIXED64 else 4
            if at > end:
                raise ProfileError('a field is cut off')
            continue
        else:
            raise ProfileError('a field has the unknown wire type %d' % kind)
        yield tag >> 3, value


def _numbers(value):
    """The numbers of a repeated field: one, or several packed."""
    if isinstance(value, int):
        return [value]
    found, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        found.append(number)
    return found


def _message(data, numbers):
    """The fields of a message without repetition, each 0 if it is absent; the last one counts."""
    found = dict.fromkeys(numbers, 0)
    for number, value in _fields(data):
        if number in found:
            if not isinstance(value, int):
                raise ProfileError('field %d is no number' % number)
            found[number] = value
    return [found[number] for number in numbers]


class _Stream:
    """The fields of the outermost message, from a stream."""

    def __init__(self, file):
        self.file = file
        self.data = b''
        self.at = 0
        self.left = _MOST_BYTES

    def fill(self, least):
        """Has `least` more bytes, or fewer at the end of the file."""
        while len(self.data) - self.at < least:
            chunk = self.file.read(max(_CHUNK, least))
            if not chunk:
                return
            self.left -= len(chunk)
            if self.left < 0:
                raise ProfileError('it has more than %d MiB' % (_MOST_BYTES >> 20))
            self.data = self.data[self.at:] + chunk
            self.at = 0

    def __iter__(self):
        while True:
            self.fill(20)
            if self.at == len(self.data):
                return
            tag, self.at = _varint(self.data, self.at)
            kind = tag & 7
            if kind == _NUMBER:
                value, self.at = _varint(self.data, self.at)
            elif kind == _BYTES:
                length, self.at = _varint(self.data, self.at)
                if length > _MOST_MESSAGE:
                    raise ProfileError('a message has %d bytes' % length)
                self.fill(length)
                value = self.data[self.at:self.at + length]
                if len(value) < length:
                    raise ProfileError('it is cut off')
                self.at += length
            else:
                raise ProfileError('a field has the unknown wire type %d' % kind)
            yield tag >> 3, value


def _stream(path):
    """The fields of a file; an error of its compression is a ProfileError."""
    with open(path, 'rb') as file:
        if file.read(2) != b'\x1f\x8b':
            raise ProfileError('it is not compressed by gzip')
        file.seek(0)
        try:
            with gzip.GzipFile(fileobj=file) as opened:
                yield from _Stream(opened)
        except (EOFError, zlib.error) as error:
            raise ProfileError('its compression is damaged: %s' % error) from error
        except OSError as error:
            if error.errno is not None:
                raise
            raise ProfileError('its compression is damaged: %s' % error) from error


class Profile:
    """The tables of a file. `types`: [(name, unit)] of the values of each sample."""

    def __init__(self, path):
        self.path = path
        self.types = []
        self.comments = []
        self.time = self.duration = self.period = 0
        self.period_type = '', ''
        self.default = ''
        self._strings = []
        self._functions, self._locations, mappings = {}, {}, {}
        types, comments, period_type, default, left = [], [], (0, 0), 0, _MOST_TABLES
        for number, value in _stream(path):
            if number == _SAMPLE:
                continue
            if isinstance(value, bytes):
                left -= len(value) + 64     # and an object
                if left < 0:
                    raise ProfileError('its tables have more than %d MiB' % (_MOST_TABLES >> 20))
            if number == _STRING and isinstance(value, bytes):
                self._strings.append(value.decode('utf-8', 'backslashreplace'))
            elif number == _LOCATION and isinstance(value, bytes):
                self._add_location(value)
            elif number == _FUNCTION and isinstance(value, bytes):
                name, text, _, file = _message(value, (1, 2, 3, 4))
                self._add(self._functions, name, (text, file))
            elif number == _MAPPING and isinstance(value, bytes):
                name, start, file = _message(value, (1, 2, 5))
                self._add(mappings, name, (start, file))
            elif number == _SAMPLE_TYPE and isinstance(value, bytes):
                types.append(_message(value, (1, 2)))
            elif number == _PERIOD_TYPE and isinstance(value, bytes):
                period_type = _message(value, (1, 2))
            elif number == _COMMENT:
                comments += _numbers(value)
                if len(comments) > 1000:
                    raise ProfileError('it has more than 1000 comments')
            elif number in (_TIME, _DURATION, _PERIOD, _DEFAULT) and isinstance(value, int):
                if number == _DEFAULT:
                    default = value
                else:
                    setattr(self, {_TIME: 'time', _DURATION: 'duration',
                                   _PERIOD: 'period'}[number], _signed(value))
            elif number <= _DEFAULT and number not in (7, 8):       # drop_frames, keep_frames
                raise ProfileError('field %d has a value of another type' % number)
        if not self._strings or self._strings[0]:
            raise ProfileError('its first text is not empty')
        if not 0 < len(types) <= 64:
            raise ProfileError('it has %d sample types' % len(types))
        self.types = [(self._text(name), self._text(unit)) for name, unit in types]
        self.period_type = tuple(map(self._text, period_type))
        self.default = self._text(default)
        self.comments = list(map(self._text, comments))
        self._functions = {key: _Function(self._text(name), self._text(file))
                           for key, (name, file) in self._functions.items()}
        self._locations = {key: self._frames(location, mappings)
                           for key, location in self._locations.items()}

    @staticmethod
    def _add(table, key, value):
        if not key or key in table:
            raise ProfileError('a number of an entry is 0, or not its own: %d' % key)
        table[key] = value

    def _text(self, index):
        try:
            return self._strings[index]
        except IndexError:
            raise ProfileError('there is no text %d' % index) from None

    def _add_location(self, data):
        key, mapping, address = _message(data, (1, 2, 3))
        lines = []
        for number, value in _fields(data):
            if number == 4:
                if isinstance(value, int):
                    raise ProfileError('a line is no message')
                lines.append(tuple(_message(value, (1, 2))))
        self._add(self._locations, key, (mapping, address, tuple(lines)))

    def _frames(self, location, mappings):
        mapping, address, lines = location
        if lines:
            try:
                found = [(self._functions[function], line) for function, line in lines]
            except KeyError as error:
                raise ProfileError('there is no function %s' % error) from None
            return tuple(Frame(function.name, function.file, _signed(line), bool(address))
                         for function, line in found)
        if mapping not in mappings:
            return Frame('%#x' % address, '', 0, True),
        start, file = mappings[mapping]
        return Frame('%s+%#x' % (self._text(file).rpartition('/')[2],
                                 (address - start) & 0xffffffffffffffff), '', 0, True),

    def _stack(self, ids):
        try:
            return tuple(frame for each in ids for frame in self._locations[each])
        except KeyError as error:
            raise ProfileError('there is no location %s' % error) from None

    def samples(self):
        """The samples, in the order of the file."""
        stacks = {}         # by their bytes in the file
        for number, data in _stream(self.path):
            if number != _SAMPLE:
                continue
            if isinstance(data, int):
                raise ProfileError('a sample is no message')
            stack, ids, values, labels = (), [], [], {}
            for field, value in _fields(data):
                if field == 1 and isinstance(value, bytes) and not ids:
                    stack = stacks.get(value)
                    if stack is None:
                        stack = self._stack(_numbers(value))
                        if len(stacks) == _MOST_STACKS:
                            stacks.clear()
                        stacks[value] = stack
                elif field == 1:
                    ids += _numbers(value)
                elif field == 2:
                    values += _numbers(value)
                elif field == 3:
                    if isinstance(value, int):
                        raise ProfileError('a label is no message')
                    key, text, amount, unit = _message(value, (1, 2, 3, 4))
                    labels[self._text(key)] = (self._text(text) if text else
                                               (_signed(amount), self._text(unit)))
            if len(values) != len(self.types):
                raise ProfileError('a sample has %d values, not %d'
                                   % (len(values), len(self.types)))
            yield Sample(stack + self._stack(ids), tuple(map(_signed, values)), labels)


class Sums(dict):
    """Lists of values by key, of at most _MOST_KEYS keys."""

    def add(self, key, values, sign=1):
        found = self.get(key)
        if found is None:
            if len(self) == _MOST_KEYS:
                raise ProfileError('it has more than %d different samples' % _MOST_KEYS)
            found = self[key] = [0] * len(values)
        for at, value in enumerate(values):
            found[at] += sign * value


# ---- writing ----

def _put(number, value):
    """A field: a number, or bytes."""
    if isinstance(value, int):
        return _encoded(number << 3) + _encoded(value)
    return _encoded(number << 3 | _BYTES) + _encoded(len(value)) + value


def _encoded(value):
    value &= 0xffffffffffffffff
    found = bytearray()
    while value > 0x7f:
        found.append(value & 0x7f | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _packed(values):
    return b''.join(map(_encoded, values))


class _Table(dict):
    """Numbers of entries, each written when it gets its number."""

    def __init__(self, first, write):
        super().__init__()
        self.first, self.write = first, write

    def __missing__(self, entry):
        number = self[entry] = len(self) + self.first
        self.write(number, entry)
        return number


def growth(before, after):
    """The gzipped profile of what `after` has more, or less, than `before` (Profiles of one
    process). Samples of equal stack and labels, but for the age, are one sample."""
    if before.types != after.types:
        raise ProfileError('the two profiles have other sample types')
    sums = Sums()
    for profile, sign in (before, -1), (after, 1):
        for stack, values, labels in profile.samples():
            labels.pop('age', None)
            sums.add((stack, tuple(sorted(labels.items(), key=lambda pair: pair[0]))), values,
                     sign)
    target = io.BytesIO()
    with gzip.GzipFile(fileobj=target, mode='wb', mtime=0) as file:
        def put(number, value):
            file.write(_put(number, value))

        def put_function(number, function):
            put(_FUNCTION, _put(1, number) + _put(2, texts[function.name])
                + _put(3, texts[function.name]) + _put(4, texts[function.file]))

        def put_location(number, frame):
            line = _put(1, functions[_Function(frame.function, frame.file)]) + _put(2, frame.line)
            # An address marks a native frame: it is the number, as the real one is another
            # process's business.
            put(_LOCATION, _put(1, number) + (_put(3, number) if frame.native else b'')
                + _put(4, line))

        texts = _Table(0, lambda number, text: put(_STRING, text.encode('utf-8', 'replace')))
        functions = _Table(1, put_function)
        locations = _Table(1, put_location)
        texts['']
        for name, unit in after.types:
            put(_SAMPLE_TYPE, _put(1, texts[name]) + _put(2, texts[unit]))
        for (stack, labels), values in sums.items():
            if not any(values):
                continue
            message = _put(1, _packed(locations[frame] for frame in stack))
            message += _put(2, _packed(values))
            for key, value in labels:
                if isinstance(value, str):
                    label = _put(2, texts[value])
                else:
                    label = _put(3, value[0]) + _put(4, texts[value[1]])
                message += _put(3, _put(1, texts[key]) + label)
            put(_SAMPLE, message)
        put(_TIME, after.time)
        put(_DURATION, max(0, after.time - before.time))
        put(_PERIOD_TYPE, b''.join(_put(at + 1, texts[text])
                                   for at, text in enumerate(after.period_type)))
        put(_PERIOD, after.period)
        for comment in after.comments:
            put(_COMMENT, texts[comment])
        put(_DEFAULT, texts[after.default])
    return target.getvalue()
