//! A block under the debug hooks: its layout (see the module's page), and the check of it.

use core::ptr;

use super::super::compat::{self, DebugStyle};

/// Bytes of the size, of the padding after a block, and of the serial number.
pub(crate) const WORD: usize = size_of::<usize>();
/// Bytes before a block.
pub(crate) const BEFORE: usize = 2 * WORD;

/// A block under the debug hooks, by the program's address.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    data: *mut u8,
    style: DebugStyle,
}

/// The corruption of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Corruption {
    /// Another domain, with this id, allocated it.
    OtherId(u8),
    /// The bytes before it were changed.
    Leading,
    /// The bytes after it were changed.
    Trailing,
}

/// All bytes around a block.
pub(crate) fn overhead(style: DebugStyle) -> usize {
    BEFORE + WORD + if style.serial { WORD } else { 0 }
}

impl Block {
    /// The block at the program's address `data`.
    pub(crate) fn at(data: *mut u8) -> Block {
        let style = compat::debug_style();
        Block { data, style }
    }

    /// The block in `raw`, a block of the table under the hooks.
    pub(crate) fn within(raw: *mut u8) -> Block {
        Block::at(raw.wrapping_add(BEFORE))
    }

    /// The program's address.
    pub(crate) fn data(self) -> *mut u8 {
        self.data
    }

    /// The block of the table under the hooks.
    pub(crate) fn raw(self) -> *mut u8 {
        self.data.wrapping_sub(BEFORE)
    }

    pub(crate) fn style(self) -> DebugStyle {
        self.style
    }

    /// The requested size, which is stored before it.
    pub(crate) fn size(self) -> usize {
        // SAFETY: a block under the hooks has its size there. Unaligned, because the pointer may be
        // invalid.
        usize::from_be(unsafe { self.raw().cast::<usize>().read_unaligned() })
    }

    /// The byte at `offset` from it.
    pub(crate) fn byte(self, offset: isize) -> u8 {
        // SAFETY: within the block and its surroundings, by its size.
        unsafe { self.data.offset(offset).read() }
    }

    /// The serial number after it.
    pub(crate) fn serial(self) -> usize {
        let place = self.data.wrapping_add(self.size() + WORD).cast::<usize>();
        // SAFETY: it is stored there, in versions that have it.
        usize::from_be(unsafe { place.read_unaligned() })
    }

    /// The id of the domain that allocated it.
    pub(crate) fn id(self) -> u8 {
        self.byte(-(WORD as isize))
    }

    /// Whether the bytes before it are unchanged.
    pub(crate) fn leading_is_whole(self) -> bool {
        (1..WORD).all(|i| self.byte(-(i as isize)) == self.style.forbidden)
    }

    /// Whether the bytes after it are unchanged.
    pub(crate) fn trailing_is_whole(self) -> bool {
        let n = self.size();
        (n..n + WORD).all(|i| self.byte(i as isize) == self.style.forbidden)
    }

    /// Its corruption, for the domain with this id.
    pub(crate) fn corruption(self, id: u8) -> Option<Corruption> {
        if self.id() != id {
            Some(Corruption::OtherId(self.id()))
        } else if !self.leading_is_whole() {
            Some(Corruption::Leading)
        } else if !self.trailing_is_whole() {
            Some(Corruption::Trailing)
        } else {
            None
        }
    }

    /// Writes its surroundings, for `n` bytes.
    ///
    /// # Safety
    /// There is room for them around it, and only the caller has it.
    pub(crate) unsafe fn surround(self, id: u8, n: usize, serial: usize) {
        // SAFETY: within the surroundings, for which there is room by the contract above.
        unsafe { self.raw().cast::<usize>().write_unaligned(n.to_be()) };
        // SAFETY: within the surroundings, for which there is room by the contract above.
        unsafe { self.data.sub(WORD).write(id) };
        // SAFETY: within the surroundings, for which there is room by the contract above.
        unsafe {
            self.data
                .sub(WORD - 1)
                .write_bytes(self.style.forbidden, WORD - 1);
        };
        // SAFETY: within the surroundings, for which there is room by the contract above.
        unsafe { self.data.add(n).write_bytes(self.style.forbidden, WORD) };
        if self.style.serial {
            let place = self.data.wrapping_add(n + WORD).cast::<usize>();
            // SAFETY: within the surroundings, for which there is room by the contract above.
            unsafe { place.write_unaligned(serial.to_be()) };
        }
    }

    /// Fills its bytes from `start` to `end` with CLEAN.
    ///
    /// # Safety
    /// They are within the block.
    pub(crate) unsafe fn clean(self, start: usize, end: usize) {
        // SAFETY: within the block and its surroundings, by the contract above.
        unsafe {
            self.data
                .add(start)
                .write_bytes(self.style.clean, end - start);
        };
    }

    /// Fills all of it, surroundings too, with DEAD.
    ///
    /// # Safety
    /// It is intact, and the program uses it no more.
    pub(crate) unsafe fn kill(self) {
        let n = self.size() + overhead(self.style);
        // SAFETY: within the block and its surroundings, by the contract above.
        unsafe { self.raw().write_bytes(self.style.dead, n) };
    }
}

/// Bytes at each end of a block that are saved while it is reallocated.
const ENDS: usize = 64;

/// Both ends of a block that is being reallocated. Until then the block has DEAD there, so that a use
/// of it is noticed.
pub(crate) struct Ends {
    bytes: [u8; 2 * ENDS],
    size: usize,
}

impl Ends {
    /// Saves the ends of `block` and fills them with DEAD.
    ///
    /// # Safety
    /// It is intact.
    pub(crate) unsafe fn put_aside(block: Block) -> Ends {
        let size = block.size();
        let mut ends = Ends {
            bytes: [0; 2 * ENDS],
            size,
        };
        let (all, dead) = (overhead(block.style), block.style.dead);
        let start = ends.bytes.as_mut_ptr();
        if size <= 2 * ENDS {
            // SAFETY: all bytes of the block, for which there is room.
            unsafe { ptr::copy_nonoverlapping(block.data, start, size) };
            // SAFETY: the whole block.
            unsafe { block.raw().write_bytes(dead, size + all) };
        } else {
            let last = block.data.wrapping_add(size - ENDS);
            // SAFETY: the first bytes of the block.
            unsafe { ptr::copy_nonoverlapping(block.data, start, ENDS) };
            // SAFETY: the last ones; the second half is room for them.
            unsafe { ptr::copy_nonoverlapping(last, start.add(ENDS), ENDS) };
            // SAFETY: the bytes before the block, and its first ones.
            unsafe { block.raw().write_bytes(dead, BEFORE + ENDS) };
            // SAFETY: its last bytes, and those after it.
            unsafe { last.write_bytes(dead, ENDS + all - BEFORE) };
        }
        ends
    }

    /// Restores them in `block`, which has `n` bytes now.
    ///
    /// # Safety
    /// It has `n` bytes, and only the caller has it.
    pub(crate) unsafe fn put_back(&self, block: Block, n: usize) {
        let start = self.bytes.as_ptr();
        if self.size <= 2 * ENDS {
            // SAFETY: within the block and its surroundings, by the contract above.
            unsafe { ptr::copy_nonoverlapping(start, block.data, n.min(self.size)) };
            return;
        }
        // SAFETY: within the block and its surroundings, by the contract above.
        unsafe { ptr::copy_nonoverlapping(start, block.data, n.min(ENDS)) };
        let last = self.size - ENDS;
        if n > last {
            let to = block.data.wrapping_add(last);
            // SAFETY: `n - last` bytes are left there, by the contract above.
            unsafe { ptr::copy_nonoverlapping(start.add(ENDS), to, ENDS.min(n - last)) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;

    /// A block of `n` bytes that holds `0, 1, 2, ...`.
    fn block(n: usize) -> Block {
        let raw = Box::leak(vec![0u8; n + 4 * WORD].into_boxed_slice());
        let block = Block::within(raw.as_mut_ptr());
        // SAFETY: room for the longest surroundings.
        unsafe { block.surround(b'm', n, 7) };
        for i in 0..n {
            // SAFETY: its own bytes.
            unsafe { block.data().add(i).write(i as u8) };
        }
        block
    }

    #[test]
    fn damage_is_named_wherever_it_is() {
        for n in [0, 1, 16, 1000] {
            let whole = block(n);
            assert_eq!((whole.size(), whole.id()), (n, b'm'));
            assert_eq!(whole.corruption(b'm'), None);
            assert_eq!(whole.corruption(b'o'), Some(Corruption::OtherId(b'm')));
            for i in 0..WORD {
                let behind = block(n);
                // SAFETY: the bytes after it.
                unsafe { behind.data().add(n + i).write(0) };
                assert_eq!(behind.corruption(b'm'), Some(Corruption::Trailing));
            }
            for i in 1..WORD {
                let before = block(n);
                // SAFETY: the bytes before it.
                unsafe { before.data().sub(i).write(0) };
                assert_eq!(before.corruption(b'm'), Some(Corruption::Leading));
            }
        }
    }

    #[test]
    fn ends_survive_a_reallocation() {
        for n in [0, 5, 128, 129, 1000] {
            for now in [0, 1, 64, 100, n] {
                let old = block(n);
                // SAFETY: an intact block.
                let ends = unsafe { Ends::put_aside(old) };
                let dead = old.style().dead;
                assert!(n == 0 || old.byte(0) == dead && old.byte(n as isize - 1) == dead);
                // SAFETY: the block has room for the size that it had.
                unsafe { old.surround(b'm', now.min(n), 8) };
                // SAFETY: the block has room for the size that it had.
                unsafe { ends.put_back(old, now.min(n)) };
                assert_eq!(old.corruption(b'm'), None);
                let kept = (0..now.min(n)).all(|i| old.byte(i as isize) == i as u8);
                assert!(kept, "{n} -> {now}");
            }
        }
    }
}
