//! The table of what lies near the first arena: a class for each pool.
//!
//! ```text
//!    +-------+---+---+---+---+---+---+---+-- ... --+---+-------+
//!    | fence | 0 | 0 | 4 | 4 | 0 | 2 |33 |         | 0 | fence |
//!    +-------+---+---+---+---+---+---+---+-- ... --+---+-------+
//!              ^                       ^
//!            start                    (address - start) >> 16
//! ```
//!
//! It is made with the first arena and takes up to 1 MiB of addresses, less where the process's
//! addresses are limited. A page of it answers for 128 MiB, and those that are never looked at or
//! written to are never in memory.
//!
//! # Invariants
//!
//! MAP-1  An entry is 0 or what an [`Entry`] says of a size class, and is not 0 exactly while its pool
//!     belongs to that class.
//! MAP-4  `bytes`, `shift` and `table` are 0 until the first arena comes, then never change. `len` is 0
//!     until they are there. The table stays mapped.
//!
//! # Threads
//!
//! Anyone may look up anything, without a lock. An entry changes under its class's lock, all else
//! under the arenas' lock.

use core::ptr::{self, NonNull};

use crate::base::layout::{POOL_BITS, POOL_SIZE};
use crate::os::memory;
use crate::os::process::name_mapping;
use crate::sync::{
    AtomicPtr, AtomicU16, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

/// Bytes of address space for which the table answers, where the process's addresses are not limited.
const MOST: usize = 32 << 30;
/// With a limit, it answers for so many times the limit: mappings lie close to each other.
const LIMIT_TIMES: usize = 4;
/// So many bytes of these lie above the first arena, or a quarter; below, there is room to grow. (3 GiB,
/// and half of what one page of the table answers for: so the first arenas, which lie one below the
/// other, are in the midst of a page.)
const ABOVE: usize = (3 << 30) + (64 << 20);

/// An entry of the table.
pub(crate) type Entry = u16;
/// Bytes of address space that one byte of the table answers for.
const PER_BYTE: usize = POOL_SIZE / size_of::<Entry>();

/// The table, or none yet. All zero is none.
pub(crate) struct Near {
    /// How many entries it has. Release publishes the fields below; pairs with the Acquire in
    /// `place`, which is a plain load on x86-64 and one instruction on aarch64.
    len: AtomicUsize,
    /// What to add to an address to get its distance from the first byte that the table answers for.
    shift: AtomicUsize,
    table: AtomicPtr<AtomicU16>,
    /// Bytes of the table.
    bytes: AtomicUsize,
}

impl Near {
    /// No table yet.
    pub(crate) const fn new() -> Near {
        Near {
            len: AtomicUsize::new(0),
            shift: AtomicUsize::new(0),
            table: AtomicPtr::new(ptr::null_mut()),
            bytes: AtomicUsize::new(0),
        }
    }

    /// The entry of the pool at `address`, for any value of it; `None` if that is not near.
    #[inline(always)]
    pub(crate) fn get(&'static self, address: usize) -> Option<usize> {
        let (table, pool) = self.place(address)?;
        // SAFETY: `place` gives a place within the table.
        Some(unsafe { read(table, pool) })
    }

    /// Sets the entry of the pool at `address`, in an arena that was added, if that is near.
    pub(crate) fn set(&'static self, address: usize, entry: Entry) {
        if let Some((table, pool)) = self.place(address) {
            // SAFETY: `place` gives a place within the table, which stays mapped (MAP-4).
            unsafe { &*table.add(pool) }.store(entry, Relaxed);
        }
    }

    /// The table, and the index in it of the pool at `address`.
    #[inline(always)]
    fn place(&'static self, address: usize) -> Option<(*const AtomicU16, usize)> {
        let len = self.len.load(Acquire); // before the rest
        let pool = address.wrapping_add(self.shift.load(Relaxed)) >> POOL_BITS;
        if pool >= len {
            return None;
        }
        Some((self.table.load(Relaxed), pool))
    }

    /// Makes the table, if an arena at `base` is the first. False if there is no memory for it.
    pub(crate) fn begin(&'static self, base: usize) -> bool {
        if self.len.load(Acquire) != 0 {
            return true;
        }
        // Two arenas may be the first at once only if they are under different locks (tests do that).
        // Each step is done by whichever thread comes first, and the other takes its result.
        let set = |field: &AtomicUsize, value| {
            let set_before = field.compare_exchange(0, value, AcqRel, Acquire);
            set_before.err().unwrap_or(value)
        };
        let bytes = set(&self.bytes, bytes_for(memory::address_limit()));
        if self.table.load(Acquire).is_null() {
            let Some(table) = memory::map_fenced(bytes) else {
                return false;
            };
            name_mapping(table, bytes, c"obmalloc: address map");
            let (none, made) = (ptr::null_mut(), table.cast().as_ptr());
            let set_now = self.table.compare_exchange(none, made, AcqRel, Acquire);
            if set_now.is_err() {
                // SAFETY: mapped just now, and nobody has seen it.
                unsafe { memory::unmap_fenced(table, bytes) };
            }
        }
        let all = bytes * PER_BYTE;
        let below = all - ABOVE.min(all / 4);
        let start = base.saturating_sub(below).max(POOL_SIZE);
        set(&self.shift, start.wrapping_neg());
        self.len.store(bytes / size_of::<Entry>(), Release);
        true
    }

    /// Where the table lies and its bytes, if it is there.
    pub(crate) fn mapping(&self) -> Option<(NonNull<u8>, usize)> {
        let table = NonNull::new(self.table.load(Acquire))?;
        Some((table.cast(), self.bytes.load(Relaxed)))
    }
}

/// Reads entry `i` of a table. (In one instruction: of an atomic of 16 bits the compiler extends what
/// it has loaded once more.)
///
/// # Safety
/// The table has such an entry.
#[inline(always)]
unsafe fn read(table: *const AtomicU16, i: usize) -> usize {
    #[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
    {
        let entry: usize;
        // SAFETY: loads the entry, which the caller says is there, and nothing else. An aligned load
        // is atomic.
        unsafe {
            core::arch::asm!(
                "movzx {entry:e}, word ptr [{table} + 2 * {i}]",
                entry = lateout(reg) entry,
                table = in(reg) table,
                i = in(reg) i,
                options(pure, readonly, nostack, preserves_flags)
            );
        }
        entry
    }
    #[cfg(not(all(target_arch = "x86_64", not(any(miri, loom)))))]
    {
        // SAFETY: the caller says that the entry is there; the table stays mapped (MAP-4).
        unsafe { &*table.add(i) }.load(Relaxed).into()
    }
}

/// Bytes of the table, if the process's addresses have this limit.
fn bytes_for(limit: Option<usize>) -> usize {
    let most = limit.map_or(MOST, |limit| {
        let wanted = limit
            .saturating_mul(LIMIT_TIMES)
            .checked_next_power_of_two();
        wanted.unwrap_or(MOST).min(MOST)
    });
    let bytes = (most / PER_BYTE).max(1);
    bytes.next_multiple_of(memory::page_size())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_limit_of_addresses_makes_a_small_table() {
        let page = memory::page_size();
        assert_eq!(bytes_for(None), MOST / PER_BYTE);
        assert_eq!(bytes_for(Some(usize::MAX)), MOST / PER_BYTE);
        assert_eq!(bytes_for(Some(22_000_000)), page.max(4096));
        assert_eq!(bytes_for(Some(0)), page);
        assert!(bytes_for(Some(1 << 32)) <= (1 << 32) / 1024);
    }

    #[test]
    fn without_a_table_nothing_is_near() {
        static NEAR: Near = Near::new();
        for address in [0, 1, POOL_SIZE, 1 << 46, usize::MAX] {
            assert_eq!(NEAR.get(address), None);
            NEAR.set(address, 5); // nothing happens
        }
        assert!(NEAR.mapping().is_none());
    }

    #[test]
    fn entries_are_set_and_read_from_end_to_end() {
        static NEAR: Near = Near::new();
        let base = 1 << 46;
        assert!(NEAR.begin(base) && NEAR.begin(base + (1 << 40)));
        let (_, bytes) = NEAR.mapping().unwrap();
        let first = base + ABOVE.min(bytes * PER_BYTE / 4) - bytes * PER_BYTE;
        let last = first + (bytes / size_of::<Entry>() - 1) * POOL_SIZE;
        for address in [first, base, last] {
            assert_eq!(NEAR.get(address), Some(0), "MAP-4");
            NEAR.set(address, 16);
            assert_eq!(NEAR.get(address + POOL_SIZE - 1), Some(16), "MAP-1");
        }
        for address in [first - 1, last + POOL_SIZE, 0, usize::MAX] {
            assert_eq!(NEAR.get(address), None);
        }
    }
}
