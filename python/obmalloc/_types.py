"""Which types the blocks of a heap are of: written behind a snapshot for `obmalloc pins`.

    obmalloc_snapshot(path)     arenas, pools, pages: addresses and numbers
    add_types(path)             the objects that Python can reach, and what they own

All objects that the cyclic collector knows are walked, and what they refer to (strings
and numbers, which it does not know). Of each, the block begins at id() less what lies
before the object: the collector's head, and two pointers of some classes. Lists, dicts
and sets own a second block, which is found through them. An address counts only if the
snapshot has a pool there in which a block begins, on a page that had taken blocks; so
what is written never names a block that is none. What only C code refers to is not
found. What was made while this runs may be.
"""
import array
import ctypes
import gc
import itertools
import struct
import sys
import types

_PAGE = 4096
_POOL = 65536
_AT_ONCE = 512

# Parts of a snapshot, in the form of src/live/layout.rs.
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
        """Whether some block was taken on the page when the snapshot was made; else an
        object there is younger."""
        at = self.pages[address // _POOL] + address % _POOL // _PAGE * _PAGE_BYTES
        return _PAGE_ENTRY.unpack_from(self.data, at)[1] > 0

    def begins(self, address):
        """The pool's numbers and the block's, if a block begins there."""
        pool = self.by_base.get(address // _POOL)
        if pool is not None:
            start, size, blocks, names = pool
            number, rest = divmod(address - start, size)
            if rest == 0 and 0 <= number < blocks:
                return names, number
        return None

    def holds(self, address):
        """The same for the block that the address lies in."""
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


class _Walk:
    def __init__(self, pools):
        self.pools = pools
        self.names = {}
        self.layouts = {}
        self.head, self.pointers = _heads()
        self.elsewhere = set()
        self.plain = struct.calcsize("P") == 8

    def name(self, text):
        """The number of a name, from 1 on."""
        return self.names.setdefault(text, len(self.names) + 1)

    def layout(self, kind):
        """Of the objects of a type: bytes before them, the name, where their second block
        is and its name. It is found once for each type."""
        flags, before = kind.__flags__, 0
        if flags & _IS_GC:
            before = self.head + (16 if flags & self.pointers else 0)
        module = getattr(kind, "__module__", None)
        name = kind.__qualname__
        if isinstance(module, str) and module != "builtins":
            name = module + "." + name
        second = None
        if self.plain:
            for base, offset, text in _SECOND:
                if base in kind.__mro__:
                    second = offset, self.name(text)
                    break
        found = before, self.name(name), second
        self.layouts[kind] = found
        return found

    def enter(self, thing):
        """Notes the blocks of an object; whether it was seen for the first time."""
        kind = type(thing)
        before, name, second = self.layouts.get(kind) or self.layout(kind)
        address = id(thing)
        place = self.pools.begins(address - before)
        if place is None:
            # Not ours: static, large, or from before us.
            if address in self.elsewhere:
                return False
            self.elsewhere.add(address)
        else:
            names, number = place
            if names[number]:
                return False
            names[number] = name
        if second is not None:
            offset, name = second
            own = ctypes.c_void_p.from_address(address + offset).value
            place = own and self.pools.holds(own)
            if place and not place[0][place[1]]:
                place[0][place[1]] = name
        return True

    def run(self, own):
        """Walks everything but what is its own."""
        tracked = gc.get_objects()
        own = {id(thing) for thing in own} | {id(tracked), id(self), id(self.__dict__)}
        own |= {id(names) for _, _, _, names in self.pools.by_base.values()}
        own |= {id(pool) for pool in self.pools.by_base.values()}
        waiting = [thing for thing in tracked if id(thing) not in own and self.enter(thing)]
        del tracked
        while waiting:
            some = waiting[-_AT_ONCE:]
            del waiting[-_AT_ONCE:]
            found = gc.get_referents(*some)
            for thing in some:
                if isinstance(thing, types.CodeType):
                    # The collector does not look into code.
                    found += (thing.co_consts, thing.co_names, thing.co_filename,
                              thing.co_name)
            for thing in found:
                # What is tracked is in `waiting` already, or was.
                if id(thing) not in own and self.enter(thing):
                    waiting.append(thing)


def _section(pools, names):
    """The bytes of the types: the form stands in src/bin/obmalloc/snapshot.rs."""
    text = b"".join(name.encode("utf-8", "replace").replace(b"\0", b"?") + b"\0"
                    for name in names)
    text += b"\0" * (-len(text) % 8)
    entries, count = [], 0
    for base in sorted(pools.by_base):
        start, size, blocks, numbers = pools.by_base[base]
        known = [n for n, number in enumerate(numbers)
                 if number and pools.had_blocks(start + n * size)]
        count += len(known)
        entry = struct.Struct("<QII").pack
        entries.append(b"".join(entry(start + n * size, size, numbers[n] - 1)
                                for n in known))
    head = struct.pack("<IIQ", len(names), len(text), count)
    return b"".join(itertools.chain((head, text), entries)), count


def add_types(path):
    """Appends the types to the snapshot at `path`, which this process has just written.
    Returns of how many blocks the type is known."""
    with open(path, "r+b") as file:
        data = file.read()
        pools = _Pools(data)
        walk = _Walk(pools)
        walk.run((pools, pools.by_base, pools.pages, walk.names, walk.layouts, walk.elsewhere, data))
        section, count = _section(pools, list(walk.names))
        file.seek(pools.end)
        file.write(section)
        file.truncate()
        file.seek(_TYPES_AT)
        file.write(struct.pack("<QQ", pools.end, len(section)))
    return count
