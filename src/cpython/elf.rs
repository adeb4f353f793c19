//! The loaded objects of this process and their ELF tables: an object's addresses, the symbols that
//! it defines itself, the libraries that it needs.
//!
//! The tables are read in memory. `dlsym` would return another object's symbol if this one has
//! none, would set an error for the program's next `dlerror`, and its handle would keep the object
//! from being unloaded.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr::{self, NonNull};

use crate::os::c_library;
use crate::os::errno;
use crate::os::loader;

/// A loaded object, by its program headers.
#[derive(Clone, Copy)]
pub(crate) struct Loaded {
    /// Its name in the loader's list.
    pub name: *const c_char,
    slide: usize,
    headers: *const libc::Elf64_Phdr,
    count: usize,
}

impl Loaded {
    fn headers(&self) -> &[libc::Elf64_Phdr] {
        // SAFETY: the loader's description of an object that stays loaded while it is read.
        unsafe { core::slice::from_raw_parts(self.headers, self.count) }
    }

    fn segments(&self) -> impl Iterator<Item = (usize, usize)> {
        let segments = self.headers().iter();
        let segments = segments.filter(|header| header.p_type == libc::PT_LOAD);
        segments.map(|segment| {
            let start = self.slide.wrapping_add(segment.p_vaddr as usize);
            (start, segment.p_memsz as usize)
        })
    }

    /// Whether the address is in one of its segments.
    pub(crate) fn contains(&self, address: *const c_void) -> bool {
        self.segments()
            .any(|(start, size)| address.addr().wrapping_sub(start) < size)
    }

    /// Its first address and the first one after its last segment. No other object is in between:
    /// the loader reserves all of it at once.
    pub(crate) fn range(&self) -> (usize, usize) {
        let start = self.segments().map(|(start, _)| start).min();
        let end = self
            .segments()
            .map(|(start, size)| start.wrapping_add(size))
            .max();
        (start.unwrap_or(0), end.unwrap_or(0))
    }

    /// The difference between its addresses in memory and in its file.
    pub(crate) fn slide(&self) -> usize {
        self.slide
    }

    /// The first object, in the loader's order, for which `wanted` is true.
    pub(crate) fn find(mut wanted: impl FnMut(&Loaded) -> bool) -> Option<Loaded> {
        struct Search<'a> {
            wanted: &'a mut dyn FnMut(&Loaded) -> bool,
            found: Option<Loaded>,
        }
        unsafe extern "C" fn visit(
            info: *mut libc::dl_phdr_info,
            _: usize,
            search: *mut c_void,
        ) -> c_int {
            // SAFETY: the loader's description, and the `search` that `find` passed.
            let (info, search) = unsafe { (&*info, &mut *search.cast::<Search<'_>>()) };
            let loaded = Loaded {
                name: info.dlpi_name,
                slide: info.dlpi_addr as usize,
                headers: info.dlpi_phdr,
                count: info.dlpi_phnum.into(),
            };
            if (search.wanted)(&loaded) {
                search.found = Some(loaded);
            }
            search.found.is_some().into()
        }
        let mut search = Search {
            wanted: &mut wanted,
            found: None,
        };
        let search_all = || {
            // SAFETY: `visit` gets `search` back, and only during the call.
            unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut search).cast()) }
        };
        errno::kept(|| loader::with(search_all));
        search.found
    }

    /// The object at this address.
    pub(crate) fn at(address: *const c_void) -> Option<Loaded> {
        Loaded::find(|loaded| loaded.contains(address))
    }

    /// The objects that define a symbol of this name themselves, in the loader's order. (The loader's
    /// list is walked anew for each, so that the caller's work is not done under the loader's lock.)
    pub(crate) fn all_with(name: &CStr) -> impl Iterator<Item = Loaded> {
        let nth = move |n| {
            let mut seen = 0;
            Loaded::find(|loaded| {
                seen += usize::from(loaded.symbol(name).is_some());
                seen > n
            })
        };
        (0..).map_while(nth)
    }

    /// Whether it is the program.
    pub(crate) fn is_program(&self) -> bool {
        c_library::is_program(self.name, self.headers)
    }

    /// Its dynamic section, if it has one.
    pub(crate) fn dynamic(&self) -> Option<Dynamic> {
        let header = self
            .headers()
            .iter()
            .find(|header| header.p_type == libc::PT_DYNAMIC)?;
        let address = self.slide.wrapping_add(header.p_vaddr as usize);
        Some(Dynamic::read(address, self.slide))
    }

    /// The symbol of this name that the object itself defines.
    pub(crate) fn symbol(&self, name: &CStr) -> Option<NonNull<c_void>> {
        let value = self.dynamic()?.defined(name)?;
        let address = ptr::with_exposed_provenance_mut(self.slide.wrapping_add(value));
        NonNull::new(address).filter(|symbol| self.contains(symbol.as_ptr()))
    }

    /// Whether it needs `library`.
    pub(crate) fn needs(&self, library: &CStr) -> bool {
        self.dynamic()
            .is_some_and(|dynamic| dynamic.needed().any(|needed| needed == library))
    }
}

/// An object's dynamic section.
#[derive(Default)]
pub(crate) struct Dynamic {
    section: usize,
    symbols: usize,
    strings: usize,
    hash: usize,
    gnu_hash: usize,
    library: Option<usize>,
    relocations: [(usize, usize); 2],
    unproved: bool,
}

const DT_NEEDED: u64 = 1;
const DT_PLTRELSZ: u64 = 2;
const DT_HASH: u64 = 4;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
const DT_RELA: u64 = 7;
const DT_RELASZ: u64 = 8;
const DT_SONAME: u64 = 14;
const DT_SYMBOLIC: u64 = 16;
const DT_JMPREL: u64 = 23;
const DT_FLAGS: u64 = 30;
const DT_RELR: u64 = 36;
const DT_GNU_HASH: u64 = 0x6fff_fef5;
const DF_SYMBOLIC: u64 = 2;

/// The entries of a dynamic section before the one of zeros that ends it: tag and value.
fn entries(section: usize) -> impl Iterator<Item = (u64, u64)> {
    let section = ptr::with_exposed_provenance::<[u64; 2]>(section);
    (0..).map_while(move |i| {
        // SAFETY: the section ends with an entry of zeros, where the walk ends.
        let [tag, value] = unsafe { section.add(i).read() };
        (tag != 0).then_some((tag, value))
    })
}

impl Dynamic {
    fn read(section: usize, slide: usize) -> Dynamic {
        let mut dynamic = Dynamic {
            section,
            ..Dynamic::default()
        };
        for (tag, value) in entries(section) {
            let value = value as usize;
            // On most architectures the loader has relocated the addresses in it.
            let address = value.wrapping_add(if value < slide { slide } else { 0 });
            match tag {
                DT_SYMTAB => dynamic.symbols = address,
                DT_STRTAB => dynamic.strings = address,
                DT_HASH => dynamic.hash = address,
                DT_GNU_HASH => dynamic.gnu_hash = address,
                DT_SONAME => dynamic.library = Some(value),
                DT_RELA => dynamic.relocations[0].0 = address,
                DT_RELASZ => dynamic.relocations[0].1 = value,
                DT_JMPREL => dynamic.relocations[1].0 = address,
                DT_PLTRELSZ => dynamic.relocations[1].1 = value,
                DT_SYMBOLIC | DT_RELR => dynamic.unproved = true,
                DT_FLAGS => dynamic.unproved |= value as u64 & DF_SYMBOLIC != 0,
                _ => {}
            }
        }
        dynamic.unproved |= dynamic.symbols == 0 || dynamic.strings == 0;
        dynamic
    }

    /// Whether a flag binds names within the object, or a table is of a kind that is not read here.
    pub(crate) fn is_unproved(&self) -> bool {
        self.unproved
    }

    fn string(&self, offset: usize) -> &'static CStr {
        let strings = ptr::with_exposed_provenance::<c_char>(self.strings);
        // SAFETY: an offset from the object's own tables, of a C string in its string table.
        unsafe { CStr::from_ptr(strings.add(offset)) }
    }

    /// The library's SONAME, if it has one.
    pub(crate) fn library(&self) -> Option<&'static CStr> {
        (self.strings != 0).then(|| self.library.map(|offset| self.string(offset)))?
    }

    /// The libraries that it needs.
    fn needed(&self) -> impl Iterator<Item = &'static CStr> {
        let needed = entries(self.section).filter(|&(tag, _)| tag == DT_NEEDED);
        needed
            .filter(|_| self.strings != 0)
            .map(|(_, offset)| self.string(offset as usize))
    }

    fn entry(&self, symbol: usize) -> libc::Elf64_Sym {
        let table = ptr::with_exposed_provenance::<libc::Elf64_Sym>(self.symbols);
        // SAFETY: an index from a relocation or a hash table is in the symbol table.
        unsafe { table.add(symbol).read() }
    }

    /// The name of the symbol with this index.
    pub(crate) fn name(&self, symbol: usize) -> &'static CStr {
        self.string(self.entry(symbol).st_name as usize)
    }

    /// The value of the symbol of this name, if the object defines it.
    fn defined(&self, name: &CStr) -> Option<usize> {
        if self.symbols == 0 || self.strings == 0 {
            return None;
        }
        let is_it = |symbol: &usize| {
            let entry = self.entry(*symbol);
            entry.st_shndx != 0 && self.string(entry.st_name as usize) == name
        };
        let found = if self.gnu_hash != 0 {
            Words(self.gnu_hash).gnu(name).find(is_it)
        } else if self.hash != 0 {
            Words(self.hash).old(name).find(is_it)
        } else {
            None
        };
        found.map(|symbol| self.entry(symbol).st_value as usize)
    }

    /// The relocations: offset, kind, symbol, addend.
    pub(crate) fn relocations(&self) -> impl Iterator<Item = (usize, u64, usize, usize)> {
        self.relocations.into_iter().flat_map(|(start, bytes)| {
            let table = ptr::with_exposed_provenance::<[u64; 3]>(start);
            (0..bytes / size_of::<[u64; 3]>()).map(move |i| {
                // SAFETY: within the table of the section.
                let [offset, info, addend] = unsafe { table.add(i).read() };
                (
                    offset as usize,
                    info & 0xffff_ffff,
                    (info >> 32) as usize,
                    addend as usize,
                )
            })
        })
    }
}

/// A hash table: words of 32 bits from this address on.
#[derive(Clone, Copy)]
struct Words(usize);

impl Words {
    fn get(self, index: usize) -> u32 {
        let words = ptr::with_exposed_provenance::<u32>(self.0);
        // SAFETY: the index follows from the table's layout, so it is within the table.
        unsafe { words.add(index).read() }
    }

    /// The symbols that may have this name, by the table of `--hash-style=gnu`: number of buckets,
    /// first symbol, words of the filter, its shift; the filter; the buckets; the chains.
    fn gnu(self, name: &CStr) -> impl Iterator<Item = usize> {
        let hash = name.to_bytes().iter().fold(5381_u32, |hash, &byte| {
            hash.wrapping_mul(33).wrapping_add(byte.into())
        });
        let [buckets, first, filter, shift] = [0, 1, 2, 3].map(|i| self.get(i) as usize);
        let known = filter == 0 || {
            let word = 4 + 2 * ((hash as usize / 64) % filter);
            let bits = u64::from(self.get(word)) | u64::from(self.get(word + 1)) << 32;
            let both = 1_u64 << (hash % 64) | 1_u64 << ((hash >> (shift % 32)) % 64);
            bits & both == both
        };
        let at = 4 + 2 * filter;
        let begin = if known && buckets != 0 {
            self.get(at + hash as usize % buckets) as usize
        } else {
            0
        };
        let mut next = (begin != 0 && begin >= first).then_some(begin);
        core::iter::from_fn(move || {
            loop {
                let symbol = next?;
                let chain = self.get(at + buckets + symbol - first);
                next = (chain & 1 == 0).then_some(symbol + 1);
                if (chain ^ hash) >> 1 == 0 {
                    return Some(symbol);
                }
            }
        })
    }

    /// The symbols that may have this name, by the table of `--hash-style=sysv`: number of buckets,
    /// number of symbols; the buckets; the chains.
    fn old(self, name: &CStr) -> impl Iterator<Item = usize> {
        let hash = name.to_bytes().iter().fold(0_u32, |hash, &byte| {
            let hash = (hash << 4).wrapping_add(byte.into());
            let high = hash & 0xf000_0000;
            (hash ^ (high >> 24)) & !high
        });
        let buckets = self.get(0) as usize;
        let mut next = if buckets == 0 {
            0
        } else {
            self.get(2 + hash as usize % buckets) as usize
        };
        core::iter::from_fn(move || {
            let symbol = next;
            if symbol == 0 {
                return None;
            }
            next = self.get(2 + buckets + symbol) as usize;
            Some(symbol)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The C library, which every test program has.
    fn libc() -> Loaded {
        Loaded::find(|loaded| loaded.symbol(c"qsort").is_some()).unwrap()
    }

    #[test]
    #[cfg(not(miri))]
    fn symbols_are_those_of_the_object_itself() {
        let libc = libc();
        for name in [c"malloc", c"free", c"puts", c"dl_iterate_phdr", c"write"] {
            let symbol = libc.symbol(name).unwrap();
            assert!(libc.contains(symbol.as_ptr()), "{name:?}");
            // SAFETY: a literal that ends with NUL.
            let bound = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
            assert_eq!(bound, symbol.as_ptr(), "{name:?}");
        }
        assert!(libc.symbol(c"obmalloc_no_such_symbol").is_none());
        assert!(libc.symbol(c"").is_none());
        let (start, end) = libc.range();
        assert!((start..end).contains(&libc.symbol(c"puts").unwrap().addr().get()));
    }

    #[test]
    #[cfg(not(miri))]
    fn libraries_have_names_and_need_others() {
        let name = libc().dynamic().and_then(|dynamic| dynamic.library());
        let program = Loaded::find(Loaded::is_program).unwrap();
        if cfg!(target_env = "musl") {
            assert_eq!(name, None);
            assert!(program.needs(c"libc.so"));
        } else {
            assert_eq!(name, Some(c"libc.so.6"));
            assert!(program.needs(c"libc.so.6"));
        }
        assert!(!program.needs(c"libpython3.11.so.1.0"));
        assert!(Loaded::at(ptr::without_provenance(8)).is_none());
    }
}
