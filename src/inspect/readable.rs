//! Reads of memory at addresses that come from the interpreter's structures, which an extension may
//! have damaged: an address that cannot be read has no value, and the process does not fault.
//!
//! The kernel checks an address, which takes a system call. So a page that could be read counts as
//! readable for 2^[`STAYS_BITS`] milliseconds.

use core::ptr;

use crate::os::{clock, memory};
use crate::sync::{AtomicU8, AtomicUsize, Ordering::Relaxed};

/// log2 of the bytes that one check covers: no OS page is smaller.
const PAGE_BITS: u32 = 12;
/// log2 of the milliseconds for which a page counts as readable.
const STAYS_BITS: u32 = 7;
/// Pages that are remembered, by the lower bits of their number.
const PAGES: usize = 512;

/// A page's number, and in its lowest bits the time of the check; 0 in a slot that was not used.
static READABLE: [AtomicUsize; PAGES] = [const { AtomicUsize::new(0) }; PAGES];

/// The time that counts for checks, in units of 2^[`STAYS_BITS`] ms. It is never 0, so that page 0 does
/// not look like a slot that was not used.
static NOW: AtomicUsize = AtomicUsize::new(1);

/// Whether the kernel checks addresses: [`UNKNOWN`], [`YES`] or [`NO`].
static CHECKS: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
const YES: u8 = 1;
const NO: u8 = 2;

/// Sets the time that counts for checks. Called before memory is read.
pub(crate) fn begin() {
    let units = (clock::now() >> STAYS_BITS) as usize;
    NOW.store(units % ((1 << PAGE_BITS) - 1) + 1, Relaxed);
}

/// The word at an address, any value.
pub(super) fn word(address: usize) -> Option<usize> {
    Some(Memory::at(address, size_of::<usize>())?.word(0))
}

/// Memory that can be read.
#[derive(Clone, Copy)]
pub(super) struct Memory {
    address: usize,
    len: usize,
}

impl Memory {
    /// `len` bytes at an address, any value, if they can be read.
    #[inline]
    pub(super) fn at(address: usize, len: usize) -> Option<Memory> {
        can_read(address, len).then_some(Memory { address, len })
    }

    /// The word at an offset; 0 beyond the end.
    #[inline]
    pub(super) fn word(self, offset: usize) -> usize {
        if offset + size_of::<usize>() > self.len {
            return 0;
        }
        let at = ptr::with_exposed_provenance::<usize>(self.address + offset);
        // SAFETY: the word was readable within the last 2^`STAYS_BITS` ms. Any value is valid.
        unsafe { at.read_unaligned() }
    }

    /// The byte at an offset; 0 beyond the end.
    #[inline]
    pub(super) fn byte(self, offset: usize) -> u8 {
        if offset >= self.len {
            return 0;
        }
        let at = ptr::with_exposed_provenance::<u8>(self.address + offset);
        // SAFETY: the byte was readable within the last 2^`STAYS_BITS` ms. Any value is valid.
        unsafe { at.read() }
    }
}

/// Whether `len` bytes at an address, any value, can be read. True where the kernel does not check
/// addresses, as in some sandboxes.
pub(crate) fn can_read(address: usize, len: usize) -> bool {
    let Some(last) = address.checked_add(len.max(1) - 1) else {
        return false;
    };
    let (first, last) = (address >> PAGE_BITS, last >> PAGE_BITS);
    is_readable(first) && (first == last || (first + 1..=last).all(is_readable))
}

#[inline]
fn is_readable(page: usize) -> bool {
    let (slot, seen) = (
        &READABLE[page % PAGES],
        page << PAGE_BITS | NOW.load(Relaxed),
    );
    slot.load(Relaxed) == seen || check(page, slot, seen)
}

#[cold]
#[inline(never)]
fn check(page: usize, slot: &AtomicUsize, seen: usize) -> bool {
    let is_readable = match CHECKS.load(Relaxed) {
        YES => can_copy(page << PAGE_BITS),
        NO => page != 0,
        _ => {
            let own = can_copy((&raw const CHECKS).addr());
            CHECKS.store(if own { YES } else { NO }, Relaxed);
            return check(page, slot, seen);
        }
    };
    if is_readable {
        slot.store(seen, Relaxed);
    }
    is_readable
}

fn can_copy(address: usize) -> bool {
    memory::copy_readable(address, &mut [0])
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_has_no_value() {
        let words = [7usize, 8];
        let address = words.as_ptr().expose_provenance();
        assert_eq!(word(address), Some(7));
        assert_eq!(word(address + 8), Some(8));
        let memory = Memory::at(address, 16).unwrap();
        assert_eq!((memory.word(8), memory.byte(8), memory.byte(15)), (8, 8, 0));
        assert_eq!((memory.word(9), memory.byte(16)), (0, 0), "beyond the end");
        for address in [0, 8, 1 << 46, usize::MAX, usize::MAX - 7] {
            assert_eq!(word(address), None, "{address:#x}");
        }
        let mapped = memory::map_fenced(memory::page_size()).unwrap();
        let end = mapped.addr().get() + memory::page_size();
        assert_eq!(word(end - 8), Some(0));
        assert_eq!(word(end - 4), None, "half of it is on the next page");
        assert!(!can_read(end - 100, 200));
        // SAFETY: mapped above with this size.
        unsafe { memory::unmap_fenced(mapped, memory::page_size()) };
    }
}
