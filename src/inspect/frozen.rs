//! Blocks with objects that `gc.freeze` has moved out of the collector's sight: those on the list of
//! its permanent generation.
//!
//! ```text
//!    the collector's state   ... generations[3]  generation0  permanent generation ...    to 3.13
//!                            ... generations[3]  permanent generation ...                 from 3.14 on
//!    permanent generation    next, prev  <-->  next, prev of an object  <-->  ...  <--> itself
//! ```
//!
//! The state is in `_PyRuntime` in 3.7 and 3.8, in that of the main interpreter from 3.9 on. Up to 3.12
//! it is found by `generation0`, which is the address of `generations` at a known distance before it;
//! from 3.13 on by the interpreter's own record (`debug_offsets`). Frozen objects of sub-interpreters
//! are not found. The lowest two bits of `next` and `prev` are flags.
//!
//! Threads of the interpreter may change the list while it is walked. Each object's `prev` is compared
//! with the object before, and the walk begins anew if they differ.

use core::ffi::c_void;
use core::ptr::NonNull;

use super::debug_offsets::DebugOffsets;
use super::host;
use super::readable;
use crate::base::layout::ADDRESS_BITS;
use crate::os::weak::{function, weak_symbol};
use crate::os::{clock, memory};

/// In the head of a list, and of an object.
const NEXT: usize = 0;
const PREV: usize = 8;
const FLAGS: usize = 3;
/// Generations before the permanent one.
const GENERATIONS: usize = 3;
/// Bytes of a state in which `generation0` is searched: it is in the first 800 in every version.
const SEARCHED: usize = 2048;
/// Walks of a list that changes meanwhile.
const TRIES: usize = 3;
/// Maximum objects of a walk.
const OBJECTS_MAX: usize = 20_000_000;
/// Milliseconds that a walk takes, at most.
const MILLISECONDS_MAX: u64 = 2000;
/// Objects between two looks at the clock and at the list's head.
const BETWEEN: usize = 1024;
/// Bytes of a block before the head of its object: none, or two pointers from 3.11 on.
const BEFORE: [usize; 2] = [0, 16];

/// The list of frozen objects: the address of its head.
pub(crate) struct List(usize);

impl List {
    /// The list of this process; `None` if no object is frozen, or the layout is unknown.
    pub(crate) fn find() -> Option<List> {
        readable::begin();
        let list = (0..TRIES).find_map(|_| List::of_version())?;
        (list.first()? != list.0).then_some(list)
    }

    fn of_version() -> Option<List> {
        let version = host::version()?;
        let runtime = || weak_symbol!("_PyRuntime");
        match version {
            (..3, _) | (3, ..7) => None,
            // The head has the size and alignment of a `long double`, and a third word.
            (3, 7) => List::behind_generation0(runtime()?.addr().get(), 48, 16),
            (3, 8) => List::behind_generation0(runtime()?.addr().get(), 24, 8),
            (3, ..13) => List::behind_generation0(main_interpreter()?, 24, 8),
            _ => {
                // SAFETY: this name is CPython's, which is not unloaded while it is used.
                let collector = unsafe { DebugOffsets::at(runtime()?) }?.collector()?;
                let state = main_interpreter()?.checked_add(collector.state)?;
                let permanent = state.checked_add(collector.permanent)?;
                List::with_generations(state + collector.generations, 24, permanent)
            }
        }
    }

    /// The list in the state that begins at `state` or behind: with generations of `generation` bytes,
    /// `step` bytes behind `generation0`.
    fn behind_generation0(state: usize, generation: usize, step: usize) -> Option<List> {
        for at in (state..state.checked_add(SEARCHED)?).step_by(8) {
            let generations = at.wrapping_sub(GENERATIONS * generation);
            if readable::word(at)? == generations
                && let Some(list) = List::with_generations(generations, generation, at + step)
            {
                return Some(list);
            }
        }
        None
    }

    /// The list whose head is at `permanent`, if that and the generations are heads of lists.
    fn with_generations(generations: usize, size: usize, permanent: usize) -> Option<List> {
        let is_generation = |number| {
            // A collection keeps numbers in the `prev` of objects.
            let head = generations.wrapping_add(number * size);
            let prev = readable::word(head.wrapping_add(PREV));
            prev.and_then(link).is_some_and(|next| next == head)
        };
        let last = readable::word(permanent + PREV)?;
        let is_list = (0..GENERATIONS).all(is_generation)
            && link(last)? == permanent
            && readable::word(link(permanent)?.wrapping_add(PREV))? & !FLAGS == permanent;
        is_list.then_some(List(permanent))
    }

    fn first(&self) -> Option<usize> {
        link(self.0)
    }

    /// Calls `then` with the address of each object's head. False if the list has changed meanwhile.
    fn each(&self, copies: &mut Copies, until: u64, mut then: impl FnMut(usize)) -> bool {
        copies.clear();
        let first = self.first();
        let (mut prev, mut at) = (self.0, first.unwrap_or(self.0));
        for number in 0..OBJECTS_MAX {
            if number % BETWEEN == 0 {
                readable::begin();
                if self.first() != first || clock::now() > until {
                    return false;
                }
            }
            if at == self.0 {
                return true;
            }
            match copies.head(at) {
                Some((next, before)) if before == prev => {
                    then(at);
                    (prev, at) = (at, next);
                }
                _ => return false,
            }
        }
        false
    }
}

/// Bytes of a copy: no OS page is smaller.
const PAGE: usize = 4096;
const WORDS: usize = PAGE / size_of::<usize>();
/// Maximum copies of pages.
const COPIES: usize = 32;

/// Copies of pages, by the lower bits of their number: reading a page itself might fault, because its
/// arena can be unmapped at any time.
struct Copies(NonNull<[Page; COPIES]>);

/// All zero is a copy of nothing.
#[repr(C)]
struct Page {
    /// 0, which cannot be read, for none.
    address: usize,
    words: [usize; WORDS],
}

impl Copies {
    /// `None` without memory.
    fn new() -> Option<Copies> {
        Some(Copies(memory::map(Copies::BYTES)?.cast()))
    }

    const BYTES: usize = size_of::<[Page; COPIES]>();

    fn pages(&mut self) -> &mut [Page; COPIES] {
        // SAFETY: mapped zeroed, which is valid, and owned by this value.
        unsafe { self.0.as_mut() }
    }

    fn clear(&mut self) {
        self.pages().iter_mut().for_each(|page| page.address = 0);
    }

    /// `next` and `prev` of the head at an address, any value, without flags.
    fn head(&mut self, at: usize) -> Option<(usize, usize)> {
        let page = at & !(PAGE - 1);
        let copy = &mut self.pages()[page / PAGE % COPIES];
        if copy.address != page || page == 0 {
            copy.address = 0;
            let mut bytes = [0; PAGE];
            memory::copy_readable(page, &mut bytes).then_some(())?;
            let words = bytes.as_chunks().0;
            for (to, word) in copy.words.iter_mut().zip(words) {
                *to = usize::from_ne_bytes(*word);
            }
            copy.address = page;
        }
        // A head is aligned to two words, so that it is on one page.
        let word = |offset| {
            copy.words
                .get((at + offset - page) / 8)
                .map(|word| word & !FLAGS)
        };
        let is_aligned = at.is_multiple_of(16);
        is_aligned.then_some((word(NEXT)?, word(PREV)?))
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this size; no reference into it is left.
        unsafe { memory::unmap(self.0.cast(), Copies::BYTES) };
    }
}

/// The `next` of the head at an address, any value.
fn link(head: usize) -> Option<usize> {
    Some(readable::word((head & !FLAGS).wrapping_add(NEXT))? & !FLAGS)
}

fn main_interpreter() -> Option<usize> {
    type Main = unsafe extern "C" fn() -> *mut c_void;
    let main = weak_symbol!("PyInterpreterState_Main")?;
    // SAFETY: the function has this type in every version.
    let main = unsafe { function::<Main>(main) };
    // SAFETY: it loads a pointer, and may be called at any time.
    let address = unsafe { main() }.addr();
    (address != 0).then_some(address)
}

/// A set of blocks, and which of them have frozen objects.
pub(crate) struct Blocks {
    /// By hash: addresses, which are even, and in bit 0 whether the object is frozen. 0 is no block.
    slots: &'static mut [usize],
    len: usize,
    /// Milliseconds of the clock when the set was made.
    pub time: u64,
}

impl Blocks {
    /// An empty set for at most `max` blocks. `None` without memory.
    pub(crate) fn with_room(max: usize) -> Option<Blocks> {
        let len = (2 * max.max(1)).next_power_of_two();
        let mapped = memory::map(bytes_of(len))?;
        Some(Blocks {
            // SAFETY: mapped zeroed with this size, and owned by this value.
            slots: unsafe { core::slice::from_raw_parts_mut(mapped.cast().as_ptr(), len) },
            len: 0,
            time: clock::now(),
        })
    }

    /// Adds a block. Without effect if there is no room.
    pub(crate) fn add(&mut self, block: usize) {
        let slot = self.slot(block);
        if self.slots[slot] == 0 && self.len < self.slots.len() / 2 {
            self.slots[slot] = block & !1;
            self.len += 1;
        }
    }

    /// Finds out which of the blocks have objects on the list; none if it changes all the
    /// time, or is too long.
    pub(crate) fn look(&mut self, list: &List) {
        let Some(mut copies) = Copies::new() else {
            return;
        };
        let until = clock::now() + MILLISECONDS_MAX;
        for _ in 0..TRIES {
            if list.each(&mut copies, until, |head| self.mark(head)) {
                return;
            }
            for slot in &mut *self.slots {
                *slot &= !1;
            }
        }
    }

    fn mark(&mut self, head: usize) {
        for before in BEFORE {
            let slot = self.slot(head.wrapping_sub(before));
            if self.slots[slot] != 0 {
                self.slots[slot] |= 1;
            }
        }
    }

    /// Whether the object in a block is frozen.
    pub(crate) fn is_frozen(&self, block: usize) -> bool {
        self.slots[self.slot(block)] & 1 != 0
    }

    /// The slot of a block, or the free one where it would be.
    fn slot(&self, block: usize) -> usize {
        let hash = (block >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - ADDRESS_BITS);
        let mut slot = hash % self.slots.len();
        while self.slots[slot] != 0 && self.slots[slot] & !1 != block & !1 {
            slot = (slot + 1) % self.slots.len();
        }
        slot
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        let memory = NonNull::from(&mut *self.slots).cast();
        // SAFETY: mapped by `with_room` with this size; no reference into it is left.
        unsafe { memory::unmap(memory, bytes_of(self.slots.len())) };
    }
}

fn bytes_of(slots: usize) -> usize {
    (slots * size_of::<usize>()).next_multiple_of(memory::page_size())
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;
    use crate::tests::*;

    const STATE: usize = 10;

    /// Words, more than are searched, with a state to 3.12 at [`STATE`] and `objects` frozen ones.
    struct Made {
        words: Box<[usize]>,
        permanent: usize,
    }

    impl Made {
        fn with(objects: usize, generation: usize, step: usize) -> Made {
            let mut words = vec![0usize; SEARCHED / 8 + 128 + 4 * objects].into_boxed_slice();
            let base = words.as_mut_ptr().expose_provenance();
            let generation0 = STATE + GENERATIONS * generation / 8;
            let permanent = generation0 + step / 8;
            words[generation0] = base + 8 * STATE;
            let mut ring = |heads: &[usize]| {
                for (i, &head) in heads.iter().enumerate() {
                    let next = heads[(i + 1) % heads.len()];
                    words[head] = (base + 8 * next) | (i % 2);
                    words[next + 1] = (base + 8 * head) | (i % 4);
                }
            };
            for number in 0..GENERATIONS {
                ring(&[STATE + number * generation / 8]);
            }
            let objects = (0..objects).map(|i| 64 + 4 * i);
            ring(&[permanent].into_iter().chain(objects).collect::<Vec<_>>());
            Made { words, permanent }
        }

        fn base(&self) -> usize {
            self.words.as_ptr().expose_provenance()
        }

        fn object(&self, number: usize) -> usize {
            self.base() + 8 * (64 + 4 * number)
        }

        fn list(&self) -> List {
            List(self.base() + 8 * self.permanent)
        }

        fn write(&mut self, address: usize, word: usize) {
            let index = (address - self.base()) / 8;
            // Volatile, as the list reads it: by an address.
            // SAFETY: an element of the slice.
            unsafe { (&raw mut self.words[index]).write_volatile(word) };
        }

        fn blocks(&self, blocks: &[usize]) -> Blocks {
            let mut set = Blocks::with_room(blocks.len()).unwrap();
            blocks.iter().for_each(|&block| set.add(block));
            set
        }
    }

    #[test]
    fn the_list_is_found_by_generation0() {
        for (generation, step) in [(24, 8), (48, 16)] {
            let mut made = Made::with(3, generation, step);
            let find = |made: &Made| List::behind_generation0(made.base(), generation, step);
            assert_eq!(find(&made).unwrap().0, made.list().0);
            assert!(List::behind_generation0(made.base() + 500, generation, step).is_none());
            let head = made.list().0;
            made.write(head + PREV, made.base());
            assert!(find(&made).is_none(), "not a ring");
            let mut made = Made::with(3, generation, step);
            made.write(made.base() + 8 * STATE + PREV, 8);
            assert!(find(&made).is_none(), "a generation that is no list");
        }
        assert!(List::behind_generation0(8, 24, 8).is_none());
        assert!(List::find().is_none(), "without CPython");
    }

    #[test]
    fn blocks_of_objects_on_the_list_are_frozen() {
        let made = Made::with(2 * BETWEEN + 7, 24, 8);
        let last = made.object(2 * BETWEEN + 6);
        let (plain, managed, other) = (made.object(1), made.object(5) - 16, made.object(3) + 8);
        let mut set = made.blocks(&[plain, managed, last, other]);
        assert!(![plain, managed, last].iter().any(|&b| set.is_frozen(b)));
        set.look(&made.list());
        assert!([plain, managed, last].iter().all(|&b| set.is_frozen(b)));
        assert!(!set.is_frozen(other), "no object");
        assert!(!set.is_frozen(made.object(2)), "not in the set");
    }

    #[test]
    fn a_damaged_list_freezes_nothing() {
        for (offset, word) in [
            (PREV, 64),
            (NEXT, 64),
            (NEXT, 0),
            (NEXT, usize::MAX),
            (PREV, 0),
        ] {
            let mut made = Made::with(9, 24, 8);
            let blocks: Vec<_> = (0..9).map(|i| made.object(i)).collect();
            let mut set = made.blocks(&blocks);
            made.write(blocks[6] + offset, word);
            set.look(&made.list());
            let frozen = blocks.iter().filter(|&&block| set.is_frozen(block));
            assert_eq!(frozen.count(), 0, "{offset} {word:#x}");
        }
    }

    #[test]
    fn a_set_takes_what_it_has_room_for() {
        let mut set = Blocks::with_room(4).unwrap();
        (1..=100).for_each(|i| set.add(16 * i));
        (1..=100).for_each(|i| set.mark(16 * i));
        assert_eq!((1..=100).filter(|i| set.is_frozen(16 * i)).count(), 4);
        assert!(!set.is_frozen(usize::MAX) && !set.is_frozen(0));
    }
}
