//! `_Py_DebugOffsets`: from 3.13 on `_PyRuntime` begins with the offsets of fields that debuggers and
//! profilers read.
//!
//! The record itself grows: the groups of its fields begin at a different index in each minor version.
//! A version that is newer than this file is read as the newest known one, and used only if sizes that the record
//! has agree with those of the interpreter's types, which a shifted group does not.

use core::ffi::c_void;
use core::ptr::NonNull;

use super::layout::{Layout, Line, TYPE, Text};
use crate::os::weak::weak_symbol;

const COOKIE: u64 = u64::from_ne_bytes(*b"xdebugpy");
/// Words of the record that are the same in every version.
const VERSION: usize = 1;
const FREE_THREADED: usize = 2;
/// The size of an interpreter's state.
const INTERPRETER: usize = 6;
/// In a type object.
const TP_BASICSIZE: usize = 32;

/// The words of the record at which its groups begin. Within a group, the fields that are read are at
/// the same place in all three versions.
struct Groups {
    thread_state: usize,
    frame: usize,
    code: usize,
    object: usize,
    unicode: usize,
    gc: usize,
    /// The offset of the collector's state in an interpreter's.
    interpreter_gc: usize,
}

impl Groups {
    const V3_13: Groups = Groups {
        thread_state: 19,
        frame: 28,
        code: 34,
        object: 44,
        unicode: 67,
        gc: 71,
        interpreter_gc: 10,
    };
    const V3_14: Groups = Groups {
        thread_state: 22,
        frame: 31,
        code: 39,
        object: 50,
        unicode: 77,
        gc: 81,
        interpreter_gc: 11,
    };
    const V3_15: Groups = Groups {
        thread_state: 22,
        frame: 39,
        code: 47,
        object: 58,
        unicode: 89,
        gc: 94,
        interpreter_gc: 11,
    };

    /// The groups of a version in the form of `PY_VERSION_HEX`.
    fn of(hex: u64) -> &'static Groups {
        match hex >> 16 {
            ..=0x30d => &Groups::V3_13,
            0x30e => &Groups::V3_14,
            _ => &Groups::V3_15,
        }
    }
}

/// Sizes of the interpreter's types, which the record has too.
struct Sizes {
    /// `PyCode_Type.tp_basicsize`: where the instructions begin.
    code: u64,
    /// `PyUnicode_Type.tp_basicsize`
    unicode: u64,
}

/// Where the collector has its lists: offsets in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Collector {
    /// Of its state in that of an interpreter.
    pub(super) state: usize,
    /// In the state: of its generations, and of the permanent one.
    pub(super) generations: usize,
    pub(super) permanent: usize,
}

/// Bytes of a generation: two pointers, two numbers.
const GENERATION: u64 = 24;

/// The record of an interpreter.
pub(crate) struct DebugOffsets(NonNull<u64>);

impl DebugOffsets {
    /// The record at the start of `_PyRuntime`; `None` before 3.13.
    ///
    /// # Safety
    /// `runtime` is the address of a CPython's `_PyRuntime`, which stays loaded.
    pub(crate) unsafe fn at(runtime: NonNull<c_void>) -> Option<DebugOffsets> {
        let record = DebugOffsets(runtime.cast());
        record.0.is_aligned().then_some(())?;
        (record.word(0) == COOKIE).then_some(record)
    }

    fn word(&self, index: usize) -> u64 {
        // SAFETY: `_PyRuntime` of each version, which `at` was given, is larger than the highest word
        // that is read; the record is written before the interpreter starts.
        unsafe { self.0.add(index).read() }
    }

    /// Whether the interpreter is built without a GIL.
    pub(crate) fn is_free_threaded(&self) -> bool {
        self.word(FREE_THREADED) != 0
    }

    fn sizes() -> Option<Sizes> {
        let basicsize = |symbol: NonNull<c_void>| {
            // SAFETY: a type object's field, which is written before the interpreter starts.
            unsafe { symbol.byte_add(TP_BASICSIZE).cast::<u64>().read() }
        };
        Some(Sizes {
            code: basicsize(weak_symbol!("PyCode_Type")?),
            unicode: basicsize(weak_symbol!("PyUnicode_Type")?),
        })
    }

    /// The layout of this interpreter's frames; `None` if the record's fields are not where they are
    /// expected.
    pub(super) fn layout(&self) -> Option<Layout> {
        self.layout_with(&DebugOffsets::sizes()?)
    }

    /// Where this interpreter's collector has its lists; `None` if the record's fields are not where they
    /// are expected.
    pub(super) fn collector(&self) -> Option<Collector> {
        self.layout()?;
        self.collector_with()
    }

    fn collector_with(&self) -> Option<Collector> {
        let groups = Groups::of(self.word(VERSION));
        let [size, collecting, _, _, stats] = [0, 1, 2, 3, 4].map(|i| self.word(groups.gc + i));
        // The statistics are between the permanent generation and the flag of a running collection.
        // Up to 3.14 they are three times three words, then a pointer.
        let statistics = match self.word(VERSION) >> 16 {
            ..=0x30e => 72,
            _ if stats.checked_add(8)? == collecting => 8,
            _ => return None,
        };
        let permanent = collecting.checked_sub(statistics + GENERATION)?;
        // 3.13 has a pointer between the generations.
        let pointer = if groups.gc == Groups::V3_13.gc { 8 } else { 0 };
        let generations = permanent.checked_sub(3 * GENERATION + pointer)?;
        let state = self.word(groups.interpreter_gc);
        let is_inside = collecting < size && state.checked_add(size)? <= self.word(INTERPRETER);
        (is_inside && permanent.is_multiple_of(8) && state.is_multiple_of(8)).then_some(Collector {
            state: usize::try_from(state).ok()?,
            generations: generations as usize,
            permanent: permanent as usize,
        })
    }

    fn layout_with(&self, sizes: &Sizes) -> Option<Layout> {
        let groups = Groups::of(self.word(VERSION));
        let code = |field| self.word(groups.code + field);
        let object = |field| self.word(groups.object + field);
        let unicode = |field| self.word(groups.unicode + field);
        // An offset of a word in a structure of `size` bytes.
        let offset = |group: usize, field: usize, size: u64| {
            let offset = self.word(group + field);
            let is_inside = offset.is_multiple_of(8) && offset < size;
            is_inside.then_some(usize::try_from(offset).ok()?)
        };
        let frame_size = self.word(groups.frame);
        let thread_size = self.word(groups.thread_state);
        let is_as_expected = object(0) == 16
            && object(1) == TYPE as u64
            && code(9) == sizes.code
            && unicode(0) == sizes.unicode
            && self.word(groups.frame + 5) < frame_size
            && unicode(1).is_multiple_of(4)
            && unicode(1) < unicode(3)
            && unicode(3) < unicode(0);
        if self.is_free_threaded() || !is_as_expected {
            return None;
        }
        let ascii = offset(groups.unicode, 3, sizes.unicode)?;
        Some(Layout {
            first: (offset(groups.thread_state, 4, thread_size)?, None),
            back: offset(groups.frame, 1, frame_size)?,
            code: offset(groups.frame, 2, frame_size)?,
            line: Line::Instruction {
                instruction: offset(groups.frame, 3, frame_size)?,
                owner: self.word(groups.frame + 5) as usize,
                instructions: sizes.code as usize,
            },
            filename: offset(groups.code, 1, sizes.code)?,
            name: offset(groups.code, 2, sizes.code)?,
            text: Text::Characters {
                state: unicode(1) as usize,
                length: offset(groups.unicode, 2, sizes.unicode)?,
                ascii,
                // After an ASCII header come the length and the address of the UTF-8 form.
                others: ascii + 16,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes {
        code: 208,
        unicode: 64,
    };

    /// The record of 3.15.2 as far as it is read.
    fn record(version: u64) -> [u64; 111] {
        let mut words = [0; 111];
        let groups = Groups::of(version);
        (words[0], words[VERSION]) = (COOKIE, version);
        (words[groups.thread_state], words[groups.thread_state + 4]) = (368, 72);
        words[groups.frame..][..6].copy_from_slice(&[88, 8, 0, 56, 80, 74]);
        words[groups.code..][..3].copy_from_slice(&[216, 112, 120]);
        words[groups.code + 9] = 208;
        words[groups.object..][..2].copy_from_slice(&[16, 8]);
        words[groups.unicode..][..4].copy_from_slice(&[64, 32, 16, 40]);
        words
    }

    fn layout(words: &[u64; 111]) -> Option<Layout> {
        // SAFETY: as long as the record of any version.
        unsafe { DebugOffsets::at(NonNull::from(words).cast()) }
            .unwrap()
            .layout_with(&SIZES)
    }

    #[test]
    fn known_versions_and_a_later_one_are_read() {
        for version in [0x30d_0000, 0x30e_0af0, 0x30f_02f0, 0x363_00f0] {
            let layout = layout(&record(version)).unwrap();
            assert_eq!((layout.first, layout.back, layout.code), ((72, None), 8, 0));
            assert_eq!((layout.filename, layout.name), (112, 120));
            let Text::Characters { ascii, others, .. } = layout.text else {
                panic!("bytes");
            };
            assert_eq!((ascii, others), (40, 56));
        }
    }

    #[test]
    fn the_lists_of_the_collector_are_found() {
        let collector = |words: &[u64; 111]| {
            // SAFETY: as long as the record of any version.
            unsafe { DebugOffsets::at(NonNull::from(words).cast()) }
                .unwrap()
                .collector_with()
        };
        // Sizes and offsets of 3.13.0, 3.14.10 and 3.15.2, and where the lists are there.
        for (version, state, gc, generations, permanent) in [
            (0x30d_00f0, 7400, [240, 200, 0, 0, 0], 24, 104),
            (0x30e_0af0, 7408, [264, 192, 0, 0, 0], 24, 96),
            (0x30f_02f0, 7400, [176, 112, 120, 1120, 104], 8, 80),
            (0x363_00f0, 7400, [176, 112, 120, 1120, 104], 8, 80),
        ] {
            let mut words = record(version);
            let groups = Groups::of(version);
            words[INTERPRETER] = 200_000;
            words[groups.interpreter_gc] = state;
            words[groups.gc..][..5].copy_from_slice(&gc);
            let expected = Collector {
                state: state as usize,
                generations,
                permanent,
            };
            assert_eq!(collector(&words), Some(expected));
            for (at, value) in [
                (INTERPRETER, 7000),
                (groups.interpreter_gc, 7401),
                (groups.interpreter_gc, u64::MAX),
                (groups.gc, gc[1]),
                (groups.gc + 1, 40),
                (groups.gc + 1, u64::MAX),
            ] {
                let mut words = words;
                words[at] = value;
                assert_eq!(collector(&words), None, "{version:#x} {at} {value}");
            }
        }
    }

    #[test]
    fn a_record_of_another_form_is_not_used() {
        let whole = record(0x363_00f0);
        let is_read = |at: usize, value: u64| {
            let mut words = whole;
            words[at] = value;
            layout(&words).is_some()
        };
        let groups = &Groups::V3_15;
        assert!(!is_read(FREE_THREADED, 1));
        assert!(!is_read(groups.object, 32), "a longer header of objects");
        assert!(
            !is_read(groups.code + 9, 216),
            "another size of code objects"
        );
        assert!(!is_read(groups.unicode, 72), "another size of strings");
        assert!(!is_read(groups.frame + 1, 9), "no offset of a word");
        assert!(!is_read(groups.thread_state + 4, 4000), "outside");
        // One field more in any group moves the rest.
        let mut words = whole;
        words.copy_within(40..110, 41);
        assert!(layout(&words).is_none());
        // SAFETY: as long as the record of any version.
        assert!(unsafe { DebugOffsets::at(NonNull::from(&[0u64; 111]).cast()) }.is_none());
    }
}
