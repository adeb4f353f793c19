//! The types of the objects in blocks, read from memory: for each block of a heap, without the
//! interpreter's help and without its lock.
//!
//! ```text
//!    block +0   count, type                  an object that the collector does not track
//!          +16  count, type                  behind the collector's head
//!          +32  count, type                  behind two pointers and the head (3.11 and later), or
//!                                            behind the head of 3.7 and earlier
//! ```
//!
//! A block has an object if it has a plausible reference count and the address of a type at one of
//! these places, and if the type agrees with the place about the collector. An address is that of a
//! type if the memory there, which may be any, has the form of one, up to a type of types. A freed
//! object has the count 0, so blocks in magazines have no type.
//!
//! Some objects own further blocks: the items of a list, the keys and values of a dict, the values
//! of an instance's attributes (3.11 and 3.12; later they are inside the instance).
//!
//! Known from 2.7 on: offsets of a type's fields. Not read are debug builds and free-threaded builds.

use core::ptr::{self, NonNull};

use super::host;
use crate::arena::page_map::MAP;
use crate::base::layout::{ADDRESS_BITS, POOL_SIZE};
use crate::os::memory;
use crate::os::weak::weak_symbol;

/// Offsets in a type object.
const TP_NAME: usize = 24;
const TP_FLAGS: usize = 168;
/// Bytes of a type object that are read.
const TYPE_READ: usize = TP_FLAGS + 8;
/// The smallest block that a type can be in.
const TYPE_MIN: usize = 400;
/// Flags of a type.
const MANAGED_DICT: u64 = 1 << 4;
const READY: u64 = 1 << 12;
const HAS_GC: u64 = 1 << 14;
const IS_LIST: u64 = 1 << 25;
const IS_DICT: u64 = 1 << 29;
const IS_TYPE: u64 = 1 << 31;
/// Every version has its flags below bit 32; an address has bits above.
const FLAGS_END: u64 = 1 << 40;

/// Bytes before an object with which its type agrees.
const PLACES: [(usize, bool); 3] = [(16, true), (32, true), (0, false)];

/// A block that another block's object owns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    ListItems,
    DictKeys,
    DictValues,
    SetTable,
    BytearrayBuffer,
}

impl Part {
    /// All of them, in the order of their numbers.
    pub(crate) const ALL: [Part; 5] = [
        Part::ListItems,
        Part::DictKeys,
        Part::DictValues,
        Part::SetTable,
        Part::BytearrayBuffer,
    ];

    /// Its name in a snapshot.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Part::ListItems => "list items",
            Part::DictKeys => "dict keys",
            Part::DictValues => "dict values",
            Part::SetTable => "set table",
            Part::BytearrayBuffer => "bytearray buffer",
        }
    }
}

/// The blocks that objects of a type own: offsets of the pointers to them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Owns {
    Nothing,
    List,
    Dict,
    Set,
    Bytearray,
}

impl Owns {
    fn parts(self) -> &'static [(usize, Part)] {
        match self {
            Owns::Nothing => &[],
            Owns::List => &[(24, Part::ListItems)],
            Owns::Dict => &[(32, Part::DictKeys), (40, Part::DictValues)],
            Owns::Set => &[(40, Part::SetTable)],
            Owns::Bytearray => &[(32, Part::BytearrayBuffer)],
        }
    }
}

/// Where an object has the values of its attributes until something needs a dict of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Values {
    /// Nowhere, or inside the object.
    None,
    /// 3.11: a pointer, four words before the object.
    Pointer,
    /// 3.12: a pointer less one byte, or one to a dict, three words before the object.
    Tagged,
}

impl Values {
    /// Of the types with these flags.
    fn of(flags: u64, version: Option<(u32, u32)>) -> Values {
        match version {
            Some((3, 11)) if flags & MANAGED_DICT != 0 => Values::Pointer,
            Some((3, 12)) if flags & MANAGED_DICT != 0 => Values::Tagged,
            _ => Values::None,
        }
    }

    /// The address of the values of the object at `object`, in a block that begins at `block`.
    ///
    /// # Safety
    /// The block can be read up to the object.
    unsafe fn at(self, block: usize, object: usize) -> Option<usize> {
        let words = match self {
            Values::None => return None,
            Values::Pointer => 4,
            Values::Tagged => 3,
        };
        let place = object.checked_sub(words * 8).filter(|&at| at >= block)?;
        // SAFETY: between the begin of the block and the object, by the contract above.
        let value = unsafe { word(place) };
        match self {
            Values::Tagged => (value % 2 == 1).then(|| value.wrapping_add(1)),
            _ => Some(value),
        }
    }
}

/// A type that was found. Zero is an empty entry.
#[derive(Clone, Copy)]
#[repr(C)]
struct Known {
    address: usize,
    number: u32,
    has_gc: bool,
    owns: Owns,
    values: Values,
}

/// Maximum types; objects of further ones count as unknown.
pub(crate) const TYPES_MAX: usize = 8192;
/// Twice as many, so that a search ends.
const ENTRIES: usize = 2 * TYPES_MAX;
/// Addresses that were found to be no type's, by hash: a new one replaces an old one.
const MISSES: usize = 4096;

/// All zero is an empty one.
#[repr(C)]
struct Tables {
    known: [Known; ENTRIES],
    /// Addresses by number.
    types: [usize; TYPES_MAX],
    misses: [usize; MISSES],
}

/// The types that were found so far, numbered from 0 on.
pub(crate) struct Types {
    tables: NonNull<Tables>,
    len: usize,
}

/// A block with an object: the number of its type.
pub(crate) struct Object {
    pub number: u32,
    address: usize,
    owns: Owns,
    values: Values,
}

impl Types {
    /// No types; `None` without a CPython whose objects can be read, or without memory.
    pub(crate) fn new() -> Option<Types> {
        host::version()?;
        let readable = [1u8];
        memory::copy_readable(readable.as_ptr().addr(), &mut [0]).then_some(())?;
        let tables = memory::map(size_of::<Tables>())?.cast();
        Some(Types { tables, len: 0 })
    }

    fn tables(&mut self) -> &mut Tables {
        // SAFETY: mapped zeroed, which is a valid `Tables`, and owned by this value.
        unsafe { self.tables.as_mut() }
    }

    /// Addresses of the types, by number.
    pub(crate) fn addresses(&self) -> &[usize] {
        // SAFETY: mapped and owned by this value; `len` types were entered.
        unsafe { &self.tables.as_ref().types[..self.len] }
    }

    /// The object in a block of `size` bytes.
    ///
    /// # Safety
    /// The block can be read.
    pub(crate) unsafe fn object(&mut self, block: usize, size: usize) -> Option<Object> {
        for (before, has_gc) in PLACES {
            if before + 16 > size {
                continue;
            }
            let address = block + before;
            // SAFETY: two words inside the block, by the contract above.
            let (count, kind) = unsafe { (word(address), word(address + 8)) };
            if !is_count(count) {
                continue;
            }
            if let Some(known) = self.known(kind)
                && known.has_gc == has_gc
            {
                return Some(Object {
                    number: known.number,
                    address,
                    owns: known.owns,
                    values: known.values,
                });
            }
        }
        None
    }

    /// The type at an address, any value.
    fn known(&mut self, address: usize) -> Option<Known> {
        let is_possible = address.is_multiple_of(8)
            && (1 << 16..1 << ADDRESS_BITS).contains(&address)
            && !(1..TYPE_MIN).contains(&MAP.find(address).size());
        if !is_possible {
            return None;
        }
        let hash = (address >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let tables = self.tables();
        let mut at = hash % ENTRIES;
        while tables.known[at].address != 0 {
            if tables.known[at].address == address {
                return Some(tables.known[at]);
            }
            at = (at + 1) % ENTRIES;
        }
        let miss = hash % MISSES;
        if tables.misses[miss] == address {
            return None;
        }
        let Some(flags) = flags_of_type(address).filter(|_| self.len < TYPES_MAX) else {
            self.tables().misses[miss] = address;
            return None;
        };
        let known = Known {
            address,
            number: self.len as u32,
            has_gc: flags & HAS_GC != 0,
            owns: owns(address, flags),
            values: Values::of(flags, host::version()),
        };
        self.len += 1;
        let tables = self.tables();
        tables.known[at] = known;
        tables.types[known.number as usize] = address;
        Some(known)
    }

    /// Copies the name that a type has in C, at most as long as `buffer`: without its module if the
    /// type was made by a class statement. Empty if it cannot be read.
    pub(crate) fn name(address: usize, buffer: &mut [u8]) -> usize {
        let mut pointer = [0; 8];
        if !memory::copy_readable(address + TP_NAME, &mut pointer) {
            return 0;
        }
        let (start, mut len) = (usize::from_ne_bytes(pointer), 0);
        // In pieces that do not cross pages: the next page may be missing.
        while len < buffer.len() {
            let Some(from) = start.checked_add(len) else {
                break;
            };
            let bytes = 64 - from % 64;
            let end = (len + bytes).min(buffer.len());
            if !memory::copy_readable(from, &mut buffer[len..end]) {
                break;
            }
            if let Some(nul) = buffer[len..end].iter().position(|&byte| byte == 0) {
                return len + nul;
            }
            len = end;
        }
        len
    }
}

impl Drop for Types {
    fn drop(&mut self) {
        // SAFETY: `new` mapped it; no reference into it is left.
        unsafe { memory::unmap(self.tables.cast(), size_of::<Tables>()) };
    }
}

impl Object {
    /// The blocks that the object in the block at `block` owns: addresses, sizes, parts.
    ///
    /// # Safety
    /// The block, of `size` bytes, can be read.
    pub(crate) unsafe fn parts(
        &self,
        block: usize,
        size: usize,
    ) -> impl Iterator<Item = (usize, usize, Part)> {
        let address = self.address;
        let pointers = self.owns.parts().iter().filter_map(move |&(offset, part)| {
            let is_inside = address + offset + 8 <= block + size;
            // SAFETY: a word inside the block, by the contract above.
            is_inside.then(|| (unsafe { word(address + offset) }, part))
        });
        // SAFETY: the object is in the block, by the contract above.
        let values = unsafe { self.values.at(block, address) };
        let values = values.map(|values| (values, Part::DictValues));
        pointers.chain(values).filter_map(move |(pointer, part)| {
            let (start, bytes) = block_with(pointer)?;
            (start != block).then_some((start, bytes, part))
        })
    }
}

/// The block of a pool with this address, any value: its address and size.
fn block_with(address: usize) -> Option<(usize, usize)> {
    let class = MAP.find(address).class()?;
    let info = class.info();
    let base = address & !(POOL_SIZE - 1);
    let behind = (address - base).checked_sub(info.offset(0))?;
    let number = behind / class.size();
    (number < info.blocks as usize).then(|| (base + info.offset(number), class.size()))
}

/// # Safety
/// A word at `address` is readable.
unsafe fn word(address: usize) -> usize {
    // SAFETY: readable, by the contract above. Other threads may write it: any value is valid.
    unsafe { ptr::with_exposed_provenance::<usize>(address).read_volatile() }
}

/// Whether a word can be the reference count of a live object: not 0, not an address. (From 3.14 on
/// the upper 16 bits are flags.)
fn is_count(word: usize) -> bool {
    let (low, middle) = (word as u32, (word >> 32) as u16);
    low != 0 && middle == 0
}

/// The flags of the type at an address, any value, if there is one.
fn flags_of_type(address: usize) -> Option<u64> {
    let mut bytes = [0; TYPE_READ];
    let mut flags = |address| {
        let is_read = memory::copy_readable(address, &mut bytes);
        let word = |at: usize| {
            let word = bytes[at..].first_chunk();
            usize::from_ne_bytes(*word.unwrap_or(&[0; 8]))
        };
        let flags = word(TP_FLAGS) as u64;
        let are_flags = flags & READY != 0 && flags < FLAGS_END;
        (is_read && is_count(word(0)) && are_flags).then_some((flags, word(8)))
    };
    let (own, meta) = flags(address)?;
    // A type of types is a type, too, and is or inherits from `type`.
    let (metas, _) = flags(meta)?;
    (metas & IS_TYPE != 0).then_some(own)
}

/// The blocks that objects of the type own.
fn owns(address: usize, flags: u64) -> Owns {
    let is = |symbol: Option<NonNull<core::ffi::c_void>>| {
        symbol.is_some_and(|symbol| symbol.addr().get() == address)
    };
    if host::version().is_none_or(|version| version < (3, 6)) {
        Owns::Nothing // other offsets
    } else if flags & IS_LIST != 0 {
        Owns::List
    } else if flags & IS_DICT != 0 {
        Owns::Dict
    } else if is(weak_symbol!("PySet_Type")) || is(weak_symbol!("PyFrozenSet_Type")) {
        Owns::Set
    } else if is(weak_symbol!("PyByteArray_Type")) {
        Owns::Bytearray
    } else {
        Owns::Nothing
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;
    use crate::tests::*;

    /// A type object as far as it is read, of a type of types.
    fn type_object(meta: usize, flags: u64, name: &'static core::ffi::CStr) -> Box<[usize; 22]> {
        let mut words = Box::new([0; 22]);
        (words[0], words[1]) = (3, meta);
        words[TP_NAME / 8] = name.as_ptr().addr();
        words[TP_FLAGS / 8] = flags as usize;
        words
    }

    fn empty() -> Types {
        let tables = memory::map(size_of::<Tables>()).unwrap().cast();
        Types { tables, len: 0 }
    }

    fn address<T>(of: &T) -> usize {
        ptr::from_ref(of).expose_provenance()
    }

    #[test]
    fn without_cpython_there_are_no_types() {
        assert!(Types::new().is_none());
    }

    #[test]
    fn an_object_is_where_its_type_says() {
        let mut meta = type_object(0, READY | HAS_GC | IS_TYPE, c"type");
        meta[1] = address(&*meta);
        let plain = type_object(address(&*meta), READY, c"int");
        let tracked = type_object(address(&*meta), READY | HAS_GC, c"Session");
        let mut types = empty();
        let mut look = |block: &[usize]| {
            // SAFETY: the slice is the block.
            let object = unsafe { types.object(address(&block[0]), size_of_val(block)) };
            object.map(|object| object.number)
        };
        let (plain, tracked) = (address(&*plain), address(&*tracked));
        assert_eq!(look(&[1, plain, 7, 0]), Some(0));
        assert_eq!(look(&[0x7fff_0000_1000, 0, 2, tracked]), Some(1));
        assert_eq!(look(&[0, 0, 0x7fff_0000_1000, 0, 1, tracked]), Some(1));
        assert_eq!(look(&[5, plain]), Some(0), "the same type again");
        for (block, why) in [
            ([0, plain, 0, 0], "a freed object"),
            ([0x7fff_0000_1000, plain, 0, 0], "two pointers"),
            ([1, tracked, 0, 0], "no head"),
            ([0, 0, 1, plain], "a head that the type does not have"),
            ([1, plain + 8, 0, 0], "no type"),
            ([1, usize::MAX - 7, 0, 0], "no address"),
            ([1, 8, 0, 0], "nothing is there"),
        ] {
            assert_eq!(look(&block), None, "{why}");
        }
        assert_eq!(types.addresses(), [plain, tracked]);
        let mut name = [0; 200];
        let len = Types::name(tracked, &mut name);
        assert_eq!(&name[..len], b"Session");
        assert_eq!(Types::name(tracked, &mut name[..3]), 3);
        assert_eq!(Types::name(8, &mut name), 0);
    }

    #[test]
    fn values_are_before_the_object() {
        let flags = MANAGED_DICT | HAS_GC;
        let of = |version| Values::of(flags, Some(version));
        assert_eq!((of((3, 10)), of((3, 13))), (Values::None, Values::None));
        assert_eq!(Values::of(HAS_GC, Some((3, 12))), Values::None);
        let mut block = [4096usize, 8191, 0, 0, 1, 0];
        let at = |of: Values, block: &[usize; 6], words: usize| {
            let start = address(&block[0]);
            // SAFETY: the array is the block.
            unsafe { of.at(start, start + words * 8) }
        };
        assert_eq!(at(of((3, 11)), &block, 4), Some(4096));
        assert_eq!(at(of((3, 12)), &block, 4), Some(8192));
        block[1] = 8192;
        assert_eq!(
            at(of((3, 12)), &block, 4),
            None,
            "a dict, which is an object"
        );
        assert_eq!(at(of((3, 11)), &block, 2), None, "no place for it");
    }

    #[test]
    fn what_has_no_type_of_types_is_none() {
        let mut meta = type_object(0, READY | HAS_GC, c"not type");
        meta[1] = address(&*meta);
        let kind = type_object(address(&*meta), READY, c"int");
        assert_eq!(flags_of_type(address(&*kind)), None);
        meta[TP_FLAGS / 8] |= IS_TYPE as usize;
        assert_eq!(flags_of_type(address(&*kind)), Some(READY));
        for flags in [0, READY | 0x7fff_0000_0000] {
            let other = type_object(address(&*meta), flags, c"int");
            assert_eq!(flags_of_type(address(&*other)), None, "{flags:x}");
        }
    }

    #[test]
    fn no_more_types_are_kept_than_there_is_room_for() {
        let mut meta = type_object(0, READY | HAS_GC | IS_TYPE, c"type");
        meta[1] = address(&*meta);
        let kinds: Vec<_> = (0..TYPES_MAX + 10)
            .map(|_| type_object(address(&*meta), READY, c"int"))
            .collect();
        let mut types = empty();
        let known = kinds
            .iter()
            .filter(|kind| types.known(address(&***kind)).is_some());
        assert_eq!(known.count(), TYPES_MAX);
        assert_eq!(types.addresses().len(), TYPES_MAX);
        assert!(types.known(address(&*kinds[5])).is_some());
    }
}
