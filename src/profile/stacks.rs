//! The stacks of samples, interned: a tree of frames, and the codes and strings that frames share.
//!
//! ```text
//!    strings   "app.py" "handle" "json/decoder.py" ...
//!    codes     (code object, its strings)                       a function
//!    nodes     (parent, code, position) -> line                 a frame below its caller
//!
//!              root <- main <- handle <- decode                 a stack is its innermost node
//! ```
//!
//! The text of a code is read when it is first seen: the code object may be freed before the profile
//! is written. Another code object at the same address has other strings, or begins at another line,
//! which is noticed by a hash of them.
//!
//! When there is no room for a node, nodes without a live sample are removed: their sums move to their
//! callers.

use core::ptr::NonNull;

use super::table::{Entry, Table, hash};
use crate::inspect::frames::{Frames, Place, Text};

/// A prime for hashes of strings: FNV's.
const FACTOR: u64 = 0x100_0000_01b3;

/// The number of the root, which is no node: a stack without frames.
pub(super) const ROOT: u32 = 0;

/// A string.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Interned {
    /// Where its bytes are in the text.
    start: u32,
    len: u32,
    hash: u32,
    next: u32,
}

// SAFETY: integers.
unsafe impl Entry for Interned {
    fn next(&mut self) -> &mut u32 {
        &mut self.next
    }

    fn hash(&self) -> u64 {
        u64::from(self.hash) << 32
    }
}

/// A function: of Python, or an address of C.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Code {
    /// The address of the code object; for C, of the instruction.
    address: u64,
    /// Of the strings; 0 for C.
    fingerprint: u64,
    /// Numbers of strings.
    pub file: u32,
    pub name: u32,
    next: u32,
    /// Whether a node refers to it, while unused codes are looked for.
    marked: u32,
}

// SAFETY: integers.
unsafe impl Entry for Code {
    fn next(&mut self) -> &mut u32 {
        &mut self.next
    }

    fn hash(&self) -> u64 {
        hash(&[self.address, self.fingerprint])
    }
}

/// A frame below its caller.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Node {
    pub parent: u32,
    pub code: u32,
    position: i32,
    pub line: i32,
    next: u32,
    /// Nodes whose parent it is, and live samples whose innermost frame it is.
    uses: u32,
    /// Estimates of the objects and bytes that were allocated here since the profiler started.
    pub objects: f64,
    pub bytes: f64,
}

// SAFETY: numbers, for which zero is valid.
unsafe impl Entry for Node {
    fn next(&mut self) -> &mut u32 {
        &mut self.next
    }

    fn hash(&self) -> u64 {
        let (parent, code) = (u64::from(self.parent), u64::from(self.code));
        hash(&[parent << 32 | code, self.position as u64])
    }
}

/// All stacks.
pub(super) struct Stacks {
    strings: Table<Interned>,
    text: &'static mut [u8],
    text_len: usize,
    codes: Table<Code>,
    nodes: Table<Node>,
    /// Estimates for stacks without frames.
    pub root_objects: f64,
    pub root_bytes: f64,
    /// Stacks that are incomplete because there was no room.
    pub cut: u64,
}

/// The capacities for a number of live samples, a power of two.
struct Sizes {
    strings: usize,
    text: usize,
    codes: usize,
    nodes: usize,
}

impl Sizes {
    const fn of(samples: usize) -> Sizes {
        Sizes {
            strings: samples,
            text: 32 * samples,
            codes: samples,
            nodes: 2 * samples,
        }
    }
}

impl Stacks {
    /// Stacks without memory.
    pub(super) const fn empty() -> Stacks {
        Stacks {
            strings: Table::empty(),
            text: &mut [],
            text_len: 0,
            codes: Table::empty(),
            nodes: Table::empty(),
            root_objects: 0.0,
            root_bytes: 0.0,
            cut: 0,
        }
    }

    /// Bytes for the stacks of a number of live samples, a power of two.
    pub(super) const fn bytes(samples: usize) -> usize {
        let sizes = Sizes::of(samples);
        Table::<Interned>::bytes(sizes.strings, 1)
            + Table::<Code>::bytes(sizes.codes, 1)
            + Table::<Node>::bytes(sizes.nodes, 1)
            + sizes.text
    }

    /// Empty stacks.
    ///
    /// # Safety
    /// `memory` is zeroed, aligned to 64 bytes, has [`bytes`](Stacks::bytes) bytes, stays mapped for the
    /// life of the process and belongs to these stacks alone.
    pub(super) unsafe fn new(memory: NonNull<u8>, samples: usize) -> Stacks {
        let sizes = Sizes::of(samples);
        let mut at = 0;
        let mut piece = |bytes: usize| {
            at += bytes;
            // SAFETY: the sum of the pieces is `bytes(samples)`.
            unsafe { memory.add(at - bytes) }
        };
        let strings = piece(Table::<Interned>::bytes(sizes.strings, 1));
        let codes = piece(Table::<Code>::bytes(sizes.codes, 1));
        let nodes = piece(Table::<Node>::bytes(sizes.nodes, 1));
        let text = piece(sizes.text);
        // SAFETY: pieces of the memory with the tables' bytes, which are multiples of 64 each.
        unsafe {
            Stacks {
                strings: Table::new(strings, sizes.strings, 1),
                codes: Table::new(codes, sizes.codes, 1),
                nodes: Table::new(nodes, sizes.nodes, 1),
                text: core::slice::from_raw_parts_mut(text.as_ptr(), sizes.text),
                ..Stacks::empty()
            }
        }
    }

    /// The string with this number.
    pub(super) fn string(&self, number: u32) -> &[u8] {
        let Interned { start, len, .. } = *self.strings.get(number);
        &self.text[start as usize..][..len as usize]
    }

    /// Numbers of all strings, from 1 on.
    pub(super) fn strings(&self) -> core::ops::Range<u32> {
        self.strings.numbers()
    }

    /// Numbers of all codes that were used at some time.
    pub(super) fn codes(&self) -> core::ops::Range<u32> {
        self.codes.numbers()
    }

    pub(super) fn code(&self, number: u32) -> &Code {
        self.codes.get(number)
    }

    /// Numbers of all nodes that were used at some time.
    pub(super) fn nodes(&self) -> core::ops::Range<u32> {
        self.nodes.numbers()
    }

    pub(super) fn node(&self, number: u32) -> &Node {
        self.nodes.get(number)
    }

    /// The number of a string; 0 if there is no room.
    pub(super) fn intern(&mut self, each: impl FnOnce(&mut dyn FnMut(char))) -> u32 {
        // Written behind the last string, and left there unless it is known.
        let (start, mut end, mut state, mut fits) = (self.text_len, self.text_len, 0u64, true);
        each(&mut |c: char| {
            let mut bytes = [0; 4];
            for &byte in c.encode_utf8(&mut bytes).as_bytes() {
                match self.text.get_mut(end) {
                    Some(room) => *room = byte,
                    None => fits = false,
                }
                end += 1;
                state = (state ^ u64::from(byte)).wrapping_mul(FACTOR);
            }
        });
        if !fits {
            return 0;
        }
        let key = (state >> 32 ^ state) as u32;
        let text = &self.text[start..end];
        let same = |entry: &Interned| {
            let bytes = entry.start as usize..(entry.start + entry.len) as usize;
            &self.text[bytes] == text
        };
        if let Some(number) = self.strings.find(u64::from(key) << 32, same) {
            return number;
        }
        let entry = Interned {
            start: start as u32,
            len: (end - start) as u32,
            hash: key,
            next: 0,
        };
        let number = self.strings.insert(entry).unwrap_or(0);
        if number != 0 {
            self.text_len = end;
        }
        number
    }

    /// The node of a stack, whose frames are `places`, innermost first, below `outermost`. If there is
    /// no room for all of its nodes, the node of its outer frames.
    pub(super) fn stack(&mut self, frames: &Frames, places: &[Place], outermost: u32) -> u32 {
        let mut node = outermost;
        for &place in places.iter().rev() {
            // Room for the code may be made by removing nodes without uses.
            self.hold(node);
            let code = self.python(frames, place);
            let line = || frames.line(place);
            let inner = code.and_then(|code| self.inner(node, code, place.position, line));
            self.release(node);
            let Some(inner) = inner else {
                self.cut += 1;
                break;
            };
            node = inner;
        }
        node
    }

    /// The node for a frame without a place, below `parent`: of C at an address, without a name; or a mark
    /// with a name.
    pub(super) fn plain(&mut self, parent: u32, address: usize, name: &str) -> u32 {
        let found = self.codes.find(hash(&[address as u64, 0]), |code| {
            code.address == address as u64 && code.fingerprint == 0
        });
        self.hold(parent);
        let code = found.or_else(|| {
            let name = match name {
                "" => 0,
                name => self.intern(|then| name.chars().for_each(then)),
            };
            self.insert_code(address as u64, 0, 0, name)
        });
        let node = code.and_then(|code| self.inner(parent, code, 0, || 0));
        self.release(parent);
        self.cut += u64::from(node.is_none());
        node.unwrap_or(parent)
    }

    fn python(&mut self, frames: &Frames, place: Place) -> Option<u32> {
        let (file, name) = (frames.file(place), frames.name(place));
        let what = [
            file.fingerprint() as u64,
            name.fingerprint() as u64,
            frames.first_line(place) as u64,
        ];
        let (address, fingerprint) = (place.code as u64, hash(&what) | 1);
        let found = self.codes.find(hash(&[address, fingerprint]), |code| {
            (code.address, code.fingerprint) == (address, fingerprint)
        });
        found.or_else(|| {
            let mut text = |text: Text| self.intern(|then| text.each(then));
            let (file, name) = (text(file), text(name));
            self.insert_code(address, fingerprint, file, name)
        })
    }

    fn insert_code(&mut self, address: u64, fingerprint: u64, file: u32, name: u32) -> Option<u32> {
        let code = Code {
            address,
            fingerprint,
            file,
            name,
            next: 0,
            marked: 0,
        };
        self.codes.insert(code).or_else(|| {
            self.remove_unused_codes();
            self.codes.insert(code)
        })
    }

    /// The node for a frame below `parent`, whose `line` is looked up if it is new.
    fn inner(
        &mut self,
        parent: u32,
        code: u32,
        position: i32,
        line: impl Fn() -> i32,
    ) -> Option<u32> {
        let mut node = Node {
            parent,
            code,
            position,
            line: 0,
            next: 0,
            uses: 0,
            objects: 0.0,
            bytes: 0.0,
        };
        let is_it =
            |other: &Node| (other.parent, other.code, other.position) == (parent, code, position);
        if let Some(found) = self.nodes.find(node.hash(), is_it) {
            return Some(found);
        }
        node.line = line();
        // The parent must not be removed for its child.
        self.hold(parent);
        let number = self.nodes.insert(node).or_else(|| {
            self.remove_unused_nodes();
            self.nodes.insert(node)
        });
        if number.is_none() {
            self.release(parent);
        }
        number
    }

    /// Counts a use of a node.
    pub(super) fn hold(&mut self, node: u32) {
        if node != ROOT {
            self.nodes.get_mut(node).uses += 1;
        }
    }

    /// Counts a use of a node less.
    pub(super) fn release(&mut self, node: u32) {
        if node != ROOT {
            self.nodes.get_mut(node).uses -= 1;
        }
    }

    /// Adds to the estimates of a stack.
    pub(super) fn count(&mut self, node: u32, objects: f64, bytes: f64) {
        if node == ROOT {
            self.root_objects += objects;
            self.root_bytes += bytes;
        } else {
            let node = self.nodes.get_mut(node);
            node.objects += objects;
            node.bytes += bytes;
        }
    }

    /// Sets all estimates to 0.
    pub(super) fn forget_counts(&mut self) {
        (self.root_objects, self.root_bytes, self.cut) = (0.0, 0.0, 0);
        for number in self.nodes.numbers() {
            let node = self.nodes.get_mut(number);
            (node.objects, node.bytes) = (0.0, 0.0);
        }
    }

    #[cold]
    fn remove_unused_nodes(&mut self) {
        for first in self.nodes.numbers() {
            let mut number = first;
            // A node that was removed has no code.
            while number != ROOT && self.node(number).code != 0 && self.node(number).uses == 0 {
                let Node {
                    parent,
                    objects,
                    bytes,
                    ..
                } = self.nodes.remove(number);
                self.count(parent, objects, bytes);
                self.release(parent);
                number = parent;
            }
        }
    }

    #[cold]
    fn remove_unused_codes(&mut self) {
        self.remove_unused_nodes();
        for number in self.nodes.numbers() {
            let code = self.node(number).code;
            self.codes.get_mut(code).marked = 1;
        }
        for number in self.codes.numbers() {
            let code = self.codes.get_mut(number);
            let was_marked = core::mem::take(&mut code.marked) == 1;
            if !was_marked && code.address != 0 {
                self.codes.remove(number);
            }
        }
    }

    /// The address of a code of C; `None` for one of Python.
    pub(super) fn address(&self, code: u32) -> Option<u64> {
        let code = self.code(code);
        (code.fingerprint == 0).then_some(code.address)
    }
}
