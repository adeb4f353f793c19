"""The names of the types in a snapshot.

The library writes the types of a heap's blocks with their names in C, which for the type of a class
statement have neither module nor outer class. `name_types` replaces them by the names in Python.

No code of the program's runs while types are read: of a type only what `type` itself keeps is used,
by `type`'s own descriptors. A metaclass may lie about names, equality and hashes.
"""
import struct

# Parts of a snapshot, in the form of format/src/layout.rs.
_MAGIC = b'OBMALMAP'
_VERSION = 2
_HEAD = struct.Struct('<8sI44xQQ')      # magic, version, ..., offset and bytes of the types
_TYPES_AT = 56
_TYPES = struct.Struct('<IIQQ')         # types, bytes of the names; offset and number of the blocks

# What `type` keeps of each type, read without a look at its metaclass.
_qualname = type.__dict__['__qualname__'].__get__
_module = type.__dict__['__module__'].__get__
_subclasses = type.__dict__['__subclasses__']

_LONGEST = 200                          # characters of a name


def _text(get, kind):
    """A name of a type as a plain string, or None: a class may have any object there."""
    try:
        found = get(kind)
        # An instance of a class derived from str has methods of its own: copy the text.
        return found if type(found) is str else str.__str__(found)
    except Exception:
        return None


def _name(kind):
    """The name of a type: its module and its qualified name."""
    name, module = _text(_qualname, kind) or '?', _text(_module, kind)
    if module and module != 'builtins':
        name = module + '.' + name
    return name if len(name) <= _LONGEST else name[:_LONGEST - 3] + '...'


def _names(addresses):
    """The names of the types at these addresses, as far as they still are."""
    wanted, names = set(addresses), {}
    seen, waiting = {id(object)}, [object]
    while waiting:
        kind = waiting.pop()
        if id(kind) in wanted:
            names[id(kind)] = _name(kind)
        for each in _subclasses(kind):
            if id(each) not in seen:
                seen.add(id(each))
                waiting.append(each)
    return names


def name_types(path):
    """Replaces the names of the types in the snapshot at `path`, which this process has written.
    Returns the number of blocks whose type is known."""
    with open(path, 'r+b') as file:
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            raise ValueError('not a snapshot: what is written there cannot be read again')
        magic, version, offset, length = _HEAD.unpack(head)
        if (magic, version) != (_MAGIC, _VERSION):
            raise ValueError('not a snapshot of this version of obmalloc')
        if not length:
            return 0
        file.seek(offset)
        count, text_bytes, blocks_at, blocks = _TYPES.unpack(file.read(_TYPES.size))
        addresses = struct.unpack('<%dQ' % count, file.read(8 * count))
        old = file.read(text_bytes).split(b'\0')
        found = _names(addresses)
        new = [found[address].encode('utf-8', 'replace').replace(b'\0', b'?')
               if address in found else name for address, name in zip(addresses, old)]
        text = b''.join(name + b'\0' for name in new)
        file.seek(offset + _TYPES.size + 8 * count)
        file.write(text)
        file.truncate()
        file.seek(offset)
        file.write(_TYPES.pack(count, len(text), blocks_at, blocks))
        file.seek(_TYPES_AT)
        file.write(struct.pack('<QQ', offset, _TYPES.size + 8 * count + len(text)))
    return blocks
