//! A table of fixed capacity with entries by number, found by hash: in memory that is mapped once and
//! touched as it is used.
//!
//! ```text
//!    heads[hash] -> entry -> entry -> 0         free -> entry -> 0
//!    entries     | - | 1 | 2 | 3 | ... never used ... |
//! ```
//!
//! Number 0 is no entry.

use core::ptr::NonNull;
use core::slice;

use crate::sync::{AtomicU32, Ordering::Relaxed};

/// An entry of a table: all zero is a valid one.
///
/// # Safety
/// Zeroed memory is a valid value.
pub(super) unsafe trait Entry: Copy + 'static {
    /// The number of the next entry in its chain or in the list of free ones.
    fn next(&mut self) -> &mut u32;
    /// Its hash.
    fn hash(&self) -> u64;
}

/// The table.
pub(super) struct Table<T: Entry> {
    entries: &'static mut [T],
    heads: &'static [AtomicU32],
    /// The list of entries that were removed.
    free: u32,
    /// Entries that were used at some time, and number 0.
    used: u32,
}

impl<T: Entry> Table<T> {
    /// A table without memory.
    pub(super) const fn empty() -> Table<T> {
        Table {
            entries: &mut [],
            heads: &[],
            free: 0,
            used: 1,
        }
    }

    /// Bytes for `capacity` entries with as many chains times `chains`, both powers of two.
    pub(super) const fn bytes(capacity: usize, chains: usize) -> usize {
        capacity * size_of::<T>() + capacity * chains * size_of::<AtomicU32>()
    }

    /// An empty table.
    ///
    /// # Safety
    /// `memory` is zeroed, aligned to 64 bytes, has [`bytes`](Table::bytes) bytes for the same
    /// arguments, stays mapped for the life of the process and belongs to this table alone.
    pub(super) unsafe fn new(memory: NonNull<u8>, capacity: usize, chains: usize) -> Table<T> {
        const { assert!(align_of::<T>() <= 64 && size_of::<T>().is_multiple_of(4)) };
        debug_assert!((capacity * chains).is_power_of_two());
        // SAFETY: within the memory, by the contract above; zero is a valid `T` and a valid head.
        unsafe {
            let heads = memory.add(capacity * size_of::<T>()).cast();
            Table {
                entries: slice::from_raw_parts_mut(memory.cast().as_ptr(), capacity),
                heads: slice::from_raw_parts(heads.as_ptr(), capacity * chains),
                ..Table::empty()
            }
        }
    }

    /// The heads of all chains, which other threads may read: a chain's is 0 while it has no entry.
    pub(super) fn heads(&self) -> &'static [AtomicU32] {
        self.heads
    }

    fn head(&self, hash: u64) -> &'static AtomicU32 {
        &self.heads[place(hash, self.heads.len())]
    }

    /// The entry with this number.
    pub(super) fn get(&self, number: u32) -> &T {
        &self.entries[number as usize]
    }

    /// The entry with this number. Its hash does not change.
    pub(super) fn get_mut(&mut self, number: u32) -> &mut T {
        &mut self.entries[number as usize]
    }

    /// All numbers that were used at some time, of entries that were removed as well.
    pub(super) fn numbers(&self) -> core::ops::Range<u32> {
        1..self.used
    }

    /// The number of the entry with this hash for which `is_it`.
    pub(super) fn find(&mut self, hash: u64, is_it: impl Fn(&T) -> bool) -> Option<u32> {
        if self.heads.is_empty() {
            return None;
        }
        let mut number = self.head(hash).load(Relaxed);
        while number != 0 {
            let entry = &mut self.entries[number as usize];
            if is_it(entry) {
                return Some(number);
            }
            number = *entry.next();
        }
        None
    }

    /// Adds an entry. `None` if the table is full.
    pub(super) fn insert(&mut self, mut entry: T) -> Option<u32> {
        let number = if self.free != 0 {
            let number = self.free;
            self.free = *self.entries[number as usize].next();
            number
        } else if (self.used as usize) < self.entries.len() {
            self.used += 1;
            self.used - 1
        } else {
            return None;
        };
        let head = self.head(entry.hash());
        *entry.next() = head.load(Relaxed);
        self.entries[number as usize] = entry;
        head.store(number, Relaxed);
        Some(number)
    }

    /// Removes the entry with this number. Returns it.
    pub(super) fn remove(&mut self, number: u32) -> T {
        let mut entry = self.entries[number as usize];
        let (head, next) = (self.head(entry.hash()), *entry.next());
        let mut at = head.load(Relaxed);
        if at == number {
            head.store(next, Relaxed);
        } else {
            while at != 0 {
                let after = self.entries[at as usize].next();
                if *after == number {
                    *after = next;
                    break;
                }
                at = *after;
            }
        }
        let slot = &mut self.entries[number as usize];
        // SAFETY: zero is a valid entry (`Entry`).
        *slot = unsafe { core::mem::zeroed() };
        *slot.next() = self.free;
        self.free = number;
        entry
    }
}

/// The place of a hash among a power of two of heads.
#[inline]
pub(super) fn place(hash: u64, heads: usize) -> usize {
    (hash >> 32) as usize & (heads - 1)
}

/// A hash of some words.
pub(super) fn hash(words: &[u64]) -> u64 {
    let mix = |state: u64, &word: &u64| {
        let mixed = (state.rotate_left(25) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ mixed >> 29
    };
    words.iter().fold(0x2545_f491_4f6c_dd1d, mix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;

    #[derive(Clone, Copy)]
    struct Number {
        value: u64,
        next: u32,
        _spare: u32,
    }

    // SAFETY: integers.
    unsafe impl Entry for Number {
        fn next(&mut self) -> &mut u32 {
            &mut self.next
        }

        fn hash(&self) -> u64 {
            hash(&[self.value % 50])
        }
    }

    #[test]
    fn entries_come_and_go() {
        let capacity = 64;
        let memory = vec![0u64; Table::<Number>::bytes(capacity, 2) / 8 + 8].leak();
        let memory = NonNull::new(memory.as_mut_ptr().cast::<u8>()).unwrap();
        let memory = memory.map_addr(|at| at.checked_add(64 - at.get() % 64).unwrap());
        // SAFETY: leaked, zero, aligned and long enough.
        let mut table: Table<Number> = unsafe { Table::new(memory, capacity, 2) };
        let mut kept = std::collections::BTreeMap::new();
        for turn in 0u64..5000 {
            let value = turn * 7919 % 200;
            let found = table.find(hash(&[value % 50]), |entry| entry.value == value);
            assert_eq!(found, kept.get(&value).copied());
            if let Some(number) = found {
                assert_eq!(table.remove(number).value, value);
                kept.remove(&value);
                continue;
            }
            let entry = Number {
                value,
                next: 0,
                _spare: 0,
            };
            match table.insert(entry) {
                Some(number) => assert_eq!(kept.insert(value, number), None),
                None => assert_eq!(kept.len(), capacity - 1),
            }
            let used = table.numbers().filter(|&n| table.get(n).value != 0);
            assert_eq!(
                used.count(),
                kept.keys().filter(|&&value| value != 0).count()
            );
        }
        for (value, number) in kept {
            assert_eq!(table.get(number).value, value);
            table.remove(number);
        }
        assert!(table.heads().iter().all(|head| head.load(Relaxed) == 0));
    }
}
