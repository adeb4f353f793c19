"""The types of the blocks of a heap, appended to a snapshot for `obmalloc pins`.

    reached = gather()          what Python can reach, before the snapshot is made
    obmalloc_snapshot(path)     arenas, pools, pages: addresses and numbers
    add_types(path, reached)    the types of these objects, and of what they own

All objects that the cyclic collector knows are gathered, and what they refer to (strings
and numbers, which it does not know). Of each, the block begins at id() less what lies
before the object: the collector's head, and two pointers of some classes. Lists, dicts
and sets own a second block, which is found through them. An address counts only if the
snapshot has a pool there in which a block begins, on a page that had taken blocks; so
what is written never names a block that is none. What only C code refers to is not
found. The gathered objects are kept until all is written: none of their blocks was free
when the snapshot was made, and what is younger is not among them.

No code of the program's runs while types are read: of an object only `type(x)` and `id(x)`
are used, of a type only what `type` itself keeps, by `type`'s own descriptors. A class may
lie about its `__class__`, and a metaclass about names, equality and hashes.
"""
import array
import ctypes
import gc
import struct
import sys
import types

_PAGE = 4096
_POOL = 65536
_AT_ONCE = 8192                         # a list of this length is too large for a pool

# Parts of a snapshot, in the form of format/src/layout.rs.
_MAGIC = b"OBMALMAP"
_VERSION = 1
_HEAD = struct.Struct("<8sIIQQQQQQQ")   # ... counts, then where the types are
_ARENA_BYTES = 32
_POOL_ENTRY = struct.Struct("<QQHHIIIII")
_PAGE_ENTRY = struct.Struct("<HH4x")
_PAGE_BYTES = _PAGE_ENTRY.size
_MAPPING_BYTES = 24
_NO_CLASS = 0xFFFF
_TYPES_AT = 56                          # types_offset and types_bytes in the header

_IS_GC = 1 << 14


class _Pools:
    """The pools of a snapshot: a number for each block, 0 where no type is known."""

    def __init__(self, data):
        if len(data) < _HEAD.size:
            raise ValueError("not a snapshot: what is written there cannot be read again")
        (magic, version, header, _, arenas, pools, pages, mappings,
         offset, length) = _HEAD.unpack_from(data)
        if magic != _MAGIC or version != _VERSION:
            raise ValueError("not a snapshot of this version of obmalloc")
        self.end = (header + arenas * _ARENA_BYTES + pools * _POOL_ENTRY.size
                    + pages * _PAGE_BYTES + mappings * _MAPPING_BYTES)
        if len(data) < self.end:
            raise ValueError("the snapshot is cut off")
        self.by_base = {}
        self.data, self.pages = data, {}
        first_page = header + arenas * _ARENA_BYTES + pools * _POOL_ENTRY.size
        at = header + arenas * _ARENA_BYTES
        for _ in range(pools):
            (address, page, kind, _, size, blocks, taken, first,
             _) = _POOL_ENTRY.unpack_from(data, at)
            at += _POOL_ENTRY.size
            if kind != _NO_CLASS and size and taken:
                names = array.array("I", bytes(4 * blocks))
                self.by_base[address // _POOL] = address + first, size, blocks, names
                self.pages[address // _POOL] = first_page + page * _PAGE_BYTES

    def had_blocks(self, address):
        """Whether the page had a taken block at the snapshot; if not, an object there is
        younger."""
        at = self.pages[address // _POOL] + address % _POOL // _PAGE * _PAGE_BYTES
        return _PAGE_ENTRY.unpack_from(self.data, at)[1] > 0

    def begins(self, address):
        """The names of the pool and the block's number, if a block begins there."""
        pool = self.by_base.get(address // _POOL)
        if pool is not None:
            start, size, blocks, names = pool
            number, rest = divmod(address - start, size)
            if rest == 0 and 0 <= number < blocks:
                return names, number
        return None

    def holds(self, address):
        """The entry of the block that contains the address."""
        pool = self.by_base.get(address // _POOL)
        if pool is not None:
            start, size, blocks, names = pool
            number = (address - start) // size
            if 0 <= number < blocks:
                return names, number
        return None


def _heads():
    """Bytes of the collector's head; the flags of types that have two pointers before it."""
    # getsizeof() adds the head to what the list itself says.
    head = sys.getsizeof([]) - [].__sizeof__()
    if sys.version_info >= (3, 12):
        return head, 1 << 3 | 1 << 4    # managed weak references, a managed dict
    if sys.version_info >= (3, 11):
        return head, 1 << 4             # a managed dict
    return head, 0


# Where an object of a type has the address of its second block: it was there in all
# versions from 3.7 to 3.14, on machines of 64 bits. (Each is looked up in the snapshot.)
_SECOND = ((list, 24, "list items"), (dict, 32, "dict keys"), (set, 40, "set table"),
           (frozenset, 40, "set table"), (bytearray, 32, "bytearray buffer"))


# What `type` keeps of each type, read without a look at its metaclass.
_flags = type.__dict__["__flags__"].__get__
_mro = type.__dict__["__mro__"].__get__
_qualname = type.__dict__["__qualname__"].__get__
_module = type.__dict__["__module__"].__get__

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
    name, module = _text(_qualname, kind) or "?", _text(_module, kind)
    if module and module != "builtins":
        name = module + "." + name
    return name if len(name) <= _LONGEST else name[:_LONGEST - 3] + "..."


def gather():
    """What Python can reach in two steps: lists of the objects that the collector knows,
    and of what these refer to. (What is further is reached from these when the types are
    read: only tuples and dicts that the collector has let go of refer to more.)"""
    reached = [gc.get_objects()]
    tracked = reached[0]
    for at in range(0, len(tracked), _AT_ONCE):
        reached.append(gc.get_referents(*tracked[at:at + _AT_ONCE]))
    return reached


class _Walk:
    def __init__(self, pools):
        self.pools = pools
        self.names = {}
        self.layouts = {}               # by id(): a metaclass may forbid to hash its types
        self.head, self.pointers = _heads()
        self.seen = set()
        self.plain = struct.calcsize("P") == 8

    def name(self, text):
        """The number of a name, from 1 on."""
        return self.names.setdefault(text, len(self.names) + 1)

    def layout(self, kind):
        """Of the objects of a type: bytes before them, the name, where their second block
        is and its name, and whether the collector may have let go of them. It is found
        once for each type; the type itself comes last, so that its id() stays its own."""
        flags, before = _flags(kind), 0
        if flags & _IS_GC:
            before = self.head + (16 if flags & self.pointers else 0)
        second = None
        if self.plain:
            for base, offset, text in _SECOND:
                # `in` would call a metaclass's __eq__.
                if any(each is base for each in _mro(kind)):
                    second = offset, self.name(text)
                    break
        found = before, self.name(_name(kind)), second, bool(flags & _IS_GC), kind
        self.layouts[id(kind)] = found
        return found

    def enter(self, thing):
        """Notes the blocks of an object; whether what it refers to may not be gathered."""
        kind = type(thing)
        before, name, second, is_gc, _ = self.layouts.get(id(kind)) or self.layout(kind)
        address = id(thing)
        place = self.pools.begins(address - before)
        if place is not None:
            names, number = place
            if names[number]:
                return False
            names[number] = name
        goes_on = is_gc and not gc.is_tracked(thing)
        if kind is types.CodeType:
            goes_on = True              # the collector does not look into code
        if goes_on and place is None:
            # Not ours: static, large, or from before us.
            goes_on = address not in self.seen
            self.seen.add(address)
        if second is not None:
            offset, name = second
            own = ctypes.c_void_p.from_address(address + offset).value
            place = own and self.pools.holds(own)
            if place and not place[0][place[1]]:
                place[0][place[1]] = name
        return goes_on

    def run(self, reached):
        """Enters the gathered objects, a list that is consumed, and all that they refer to."""
        waiting = []
        while reached:
            waiting += [thing for thing in reached.pop() if self.enter(thing)]
        while waiting:
            some = waiting[-_AT_ONCE:]
            del waiting[-_AT_ONCE:]
            found = gc.get_referents(*some)
            for thing in some:
                if type(thing) is types.CodeType:
                    found += (thing.co_consts, thing.co_names, thing.co_filename,
                              thing.co_name)
            waiting += [thing for thing in found if self.enter(thing)]


def _section(pools, names):
    """The section of types as pieces of bytes (read by cli/src/snapshot.rs), and the number of
    blocks with a type."""
    text = b"".join(name.encode("utf-8", "replace").replace(b"\0", b"?") + b"\0"
                    for name in names)
    text += b"\0" * (-len(text) % 8)
    entries, count, entry = [], 0, struct.Struct("<QII").pack
    for base in sorted(pools.by_base):
        start, size, _, numbers = pools.by_base[base]
        known = [entry(start + n * size, size, number - 1) for n, number in enumerate(numbers)
                 if number and pools.had_blocks(start + n * size)]
        count += len(known)
        entries.append(b"".join(known))
    return [struct.pack("<IIQ", len(names), len(text), count), text] + entries, count


def add_types(path, reached):
    """Appends the types of the gathered objects, a list that is consumed, to the snapshot at
    `path`, which this process has written after the gathering. Returns the number of blocks whose
    type is known."""
    with open(path, "r+b") as file:
        data = file.read()
        pools = _Pools(data)
        walk = _Walk(pools)
        walk.run(reached)
        section, count = _section(pools, list(walk.names))
        file.seek(pools.end)
        file.writelines(section)
        file.truncate()
        file.seek(_TYPES_AT)
        file.write(struct.pack("<QQ", pools.end, sum(map(len, section))))
    return count
