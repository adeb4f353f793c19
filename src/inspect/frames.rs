//! The Python lines of the calling thread: file, line and function of each frame.
//!
//! The frames are read from memory (see `layout` and `debug_offsets`), without a call that could
//! allocate, lock or count references, so that this works within an allocation and in a signal
//! handler. CPython's own `_Py_DumpTraceback` would not: 3.9, 3.10 and 3.13 hide it, and it makes
//! some ten system calls a frame.
//!
//! Frames are consistent whenever the thread allocates: any allocation may start the collector,
//! which runs Python code, which may inspect them. The thread must hold the GIL with its own thread
//! state. Until 3.11 a thread in a sub-interpreter has another state than the GIL's functions
//! report: then there are no Python lines.

use core::ffi::{c_int, c_void};
use core::fmt::{self, Write};
use core::ptr::{self, NonNull};

use super::debug_offsets::DebugOffsets;
use super::host;
use super::layout::{self, Layout, Line};
use super::readable::{self, Memory};
use crate::os::weak::{function, weak_symbol};

/// Maximum frames of a thread.
pub(crate) const FRAMES_MAX: usize = 64;
/// Maximum characters of a string that are read: the last ones.
const CHARACTERS_MAX: usize = 100;

/// Whether the interpreter is initialised; true in a process without CPython. Blocks that it
/// allocates before mostly live for ever.
pub(crate) fn is_ready() -> bool {
    weak_symbol!("Py_IsInitialized").is_none_or(|ask| {
        // SAFETY: `Py_IsInitialized` has this type in every version.
        let ask = unsafe { function::<unsafe extern "C" fn() -> c_int>(ask) };
        // SAFETY: the function may be called at any time.
        unsafe { ask() != 0 }
    })
}

/// Whether the thread must hold the GIL for its frames to be read. It need not in the handler of
/// its own fault, where it runs nothing else.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gil {
    Held,
    Any,
}

/// Where a frame is in its code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// The address of the code object, which lives as long as the frame.
    pub code: usize,
    /// The offset of the instruction in bytes; until 3.10 the line.
    pub position: i32,
}

impl Place {
    pub(crate) const NONE: Place = Place {
        code: 0,
        position: 0,
    };
}

/// The frames of a thread.
pub(crate) struct Frames {
    layout: Layout,
    /// Number of places that were written.
    pub len: usize,
    /// Whether there are more frames than room.
    pub more: bool,
}

/// Writes the places of this thread's frames, innermost first; `None` if the thread runs no Python
/// code or the layout is unknown. Frames of the C stack are left out.
pub(crate) fn capture(gil: Gil, places: &mut [Place]) -> Option<Frames> {
    readable::begin();
    let layout = layout()?;
    let mut frame = readable::word(thread_state(gil)? + layout.first.0)?;
    if let Some(step) = layout.first.1 {
        frame = readable::word(frame.wrapping_add(step))?;
    }
    let mut frames = Frames {
        layout,
        len: 0,
        more: false,
    };
    // A damaged chain may be a ring.
    for _ in 0..4 * FRAMES_MAX {
        if frame == 0 || frames.more {
            break;
        }
        let Some(memory) = Memory::at(frame, layout.frame_bytes()) else {
            break;
        };
        if let Some(place) = frames.place(frame, memory) {
            frames.more = frames.len == places.len();
            if let Some(room) = places.get_mut(frames.len) {
                *room = place;
                frames.len += 1;
            }
        }
        frame = memory.word(layout.back);
    }
    (frames.len > 0).then_some(frames)
}

impl Frames {
    /// The place of the frame at this address, with this content, if it has code of a program.
    fn place(&self, frame: usize, memory: Memory) -> Option<Place> {
        let code = memory.word(self.layout.code) & !layout::TAGS;
        let kind = weak_symbol!("PyCode_Type")?.addr().get();
        if code == 0 || readable::word(code.wrapping_add(layout::TYPE))? != kind {
            return None;
        }
        let position = match self.layout.line {
            Line::Object => {
                let ask = weak_symbol!("PyFrame_GetLineNumber")?;
                // SAFETY: the function has this type in every version.
                let ask = unsafe { function::<unsafe extern "C" fn(usize) -> c_int>(ask) };
                // SAFETY: an object whose code is a code object is a frame; the call only reads the
                // line table.
                unsafe { ask(frame) }
            }
            Line::Instruction {
                instruction,
                owner,
                instructions,
            } => {
                if memory.byte(owner) >= layout::NO_PROGRAM {
                    return None;
                }
                let at = memory.word(instruction).wrapping_sub(code + instructions);
                // Before the first instruction the offset is slightly negative.
                c_int::try_from(at.cast_signed()).unwrap_or(-1)
            }
        };
        Some(Place { code, position })
    }

    /// The line of a place of these frames.
    pub(crate) fn line(&self, place: Place) -> c_int {
        if matches!(self.layout.line, Line::Object) {
            return place.position;
        }
        let Some(ask) = weak_symbol!("PyCode_Addr2Line") else {
            return 0;
        };
        // SAFETY: the function has this type in every version.
        let ask = unsafe { function::<unsafe extern "C" fn(usize, c_int) -> c_int>(ask) };
        // SAFETY: `capture` found a code object there, which its frame keeps alive; the call only reads
        // the line table.
        unsafe { ask(place.code, place.position) }
    }

    /// The first line of a place's code.
    pub(crate) fn first_line(&self, place: Place) -> c_int {
        self.line(Place {
            position: -1,
            ..place
        })
    }

    /// The file of a place's code.
    pub(crate) fn file(&self, place: Place) -> Text {
        self.text(place.code + self.layout.filename)
    }

    /// The function of a place's code.
    pub(crate) fn name(&self, place: Place) -> Text {
        self.text(place.code + self.layout.name)
    }

    /// The string to which the pointer at `address` leads.
    fn text(&self, address: usize) -> Text {
        let read = || {
            let object = readable::word(address).filter(|&object| object != 0)?;
            Text::of(&self.layout, object)
        };
        read().unwrap_or(Text::UNKNOWN)
    }
}

/// A string of the interpreter: its characters, which live as long as their code object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Text {
    /// The address of its first character.
    start: usize,
    /// Its characters, and the bytes of each.
    len: usize,
    kind: usize,
}

impl Text {
    /// A string that cannot be read.
    const UNKNOWN: Text = Text {
        start: 0,
        len: 0,
        kind: 0,
    };

    fn of(layout: &Layout, object: usize) -> Option<Text> {
        let head = Memory::at(object, layout.text.head_bytes())?;
        let (start, len, kind) = match layout.text {
            layout::Text::Bytes { len, bytes } => (object + bytes, head.word(len), 1),
            layout::Text::Characters {
                state,
                length,
                ascii,
                others,
            } => {
                let state = head.word(state) as u32;
                let kind = (state >> layout::KIND_SHIFT & layout::KIND_MASK) as usize;
                if state & layout::COMPACT == 0 || !matches!(kind, 1 | 2 | 4) {
                    return None;
                }
                let is_ascii = state & layout::ASCII != 0;
                let start = if is_ascii { ascii } else { others };
                (object + start, head.word(length), kind)
            }
        };
        let bytes = len.checked_mul(kind)?;
        let text = Text { start, len, kind };
        let first = text.first_read();
        (start.checked_add(bytes)?.checked_sub(first)? > 0
            && readable::can_read(start + first * kind, (len - first) * kind))
        .then_some(text)
    }

    /// The number of the first character that is read.
    fn first_read(&self) -> usize {
        self.len.saturating_sub(CHARACTERS_MAX)
    }

    /// A hash of the characters that are read: another string at the same address has another one.
    pub(crate) fn fingerprint(&self) -> usize {
        let first = self.first_read();
        let (start, bytes) = (
            self.start + first * self.kind,
            (self.len - first) * self.kind,
        );
        let mix = |state: usize, word: usize| {
            (state.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95)
        };
        let word = |at: usize| {
            let at = ptr::with_exposed_provenance::<usize>(start + at);
            // SAFETY: `of` has found these bytes readable, and their code object is alive.
            unsafe { at.read_unaligned() }
        };
        let whole = bytes / size_of::<usize>();
        let state = (0..whole).fold(self.len, |state, i| {
            mix(state, word(i * size_of::<usize>()))
        });
        if whole > 0 {
            // The last word may overlap the one before.
            return mix(state, word(bytes - size_of::<usize>()));
        }
        (first..self.len).fold(state, |state, i| mix(state, self.character(i)))
    }

    /// A character that `of` has found to be readable; 0 beyond the end.
    fn character(&self, i: usize) -> usize {
        if i >= self.len {
            return 0;
        }
        let at = ptr::with_exposed_provenance::<u8>(self.start + i * self.kind);
        // SAFETY: `of` has found these bytes readable, and their code object is alive.
        unsafe {
            match self.kind {
                1 => at.read().into(),
                2 => at.cast::<u16>().read_unaligned().into(),
                _ => at.cast::<u32>().read_unaligned() as usize,
            }
        }
    }

    /// Calls `then` with each character: the last [`CHARACTERS_MAX`], after three dots if there are
    /// more; `???` for a string that cannot be read. Control characters are replaced.
    pub(crate) fn each(&self, mut then: impl FnMut(char)) {
        if self.kind == 0 {
            return "???".chars().for_each(then);
        }
        let first = self.first_read();
        if first > 0 {
            "...".chars().for_each(&mut then);
        }
        for i in first..self.len {
            let c = char::from_u32(self.character(i) as u32).unwrap_or('?');
            then(if c.is_control() { '?' } else { c });
        }
    }
}

impl fmt::Display for Text {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut done = Ok(());
        self.each(|c| done = done.and_then(|()| to.write_char(c)));
        done
    }
}

/// Calls `then` with each of at most `most` frames of this thread, innermost first, as Python prints
/// them; not at all if the thread runs no Python code or the layout is unknown.
pub(crate) fn each_line(gil: Gil, most: usize, mut then: impl FnMut(fmt::Arguments<'_>)) {
    let mut places = [Place::NONE; FRAMES_MAX];
    let most = most.min(FRAMES_MAX);
    let Some(frames) = capture(gil, &mut places[..most]) else {
        return;
    };
    for &place in &places[..frames.len] {
        let (file, line, name) = (frames.file(place), frames.line(place), frames.name(place));
        then(format_args!("File \"{file}\", line {line}, in {name}"));
    }
}

/// The layout of this process's CPython, if it is known.
fn layout() -> Option<Layout> {
    let version = host::version()?;
    if version < (3, 13) {
        return layout::of(version.0, version.1);
    }
    let runtime = weak_symbol!("_PyRuntime")?;
    // SAFETY: this name is CPython's, which is not unloaded while it is used.
    unsafe { DebugOffsets::at(runtime) }?.layout()
}

/// The calling thread's state.
fn thread_state(gil: Gil) -> Option<usize> {
    type Ask = unsafe extern "C" fn() -> *mut c_void;
    let ask = |symbol: NonNull<c_void>| {
        // SAFETY: the type of the functions below, which may be called at any time.
        unsafe { function::<Ask>(symbol)() }.addr()
    };
    let own = || Some(ask(weak_symbol!("PyGILState_GetThisThreadState")?));
    let is_some = |&state: &usize| state != 0;
    // From 3.12 on the state is thread-local (3.13 renamed the function).
    if let Some(current) = weak_symbol!("PyThreadState_GetUnchecked") {
        let current = Some(ask(current)).filter(is_some);
        return if gil == Gil::Any {
            current.or_else(|| own().filter(is_some))
        } else {
            current
        };
    }
    let own = own().filter(is_some)?;
    if gil == Gil::Any {
        return Some(own);
    }
    let current = match weak_symbol!("_PyThreadState_UncheckedGet") {
        Some(current) => ask(current),
        // In 2.7 it is a variable.
        None => readable::word(weak_symbol!("_PyThreadState_Current")?.addr().get())?,
    };
    (own == current).then_some(own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;

    #[test]
    fn without_cpython_there_are_no_frames_and_all_is_ready() {
        assert!(capture(Gil::Held, &mut [Place::NONE]).is_none());
        each_line(Gil::Any, 20, |_| panic!("a frame"));
        assert!(is_ready());
    }

    #[test]
    fn texts_of_all_kinds_are_read() {
        let show = |minor, text: &[u8]| {
            let layout = layout::of(if minor == 7 { 2 } else { 3 }, minor).unwrap();
            let text = Text::of(&layout, text.as_ptr().expose_provenance());
            format!("{}", text.unwrap_or(Text::UNKNOWN))
        };
        let make = |head: usize, kind: u32, ascii: bool, bytes: &[u8]| {
            let mut text = vec![0u8; head];
            text.extend(bytes);
            text[16..24].copy_from_slice(&(bytes.len() / kind as usize).to_le_bytes());
            let flags = layout::COMPACT | if ascii { layout::ASCII } else { 0 };
            let state = flags | kind << layout::KIND_SHIFT;
            text[32..36].copy_from_slice(&state.to_le_bytes());
            text.extend([0; 4]);
            text
        };
        assert_eq!(show(12, &make(40, 1, true, b"a.py")), "a.py");
        assert_eq!(show(10, &make(48, 1, true, b"a.py")), "a.py");
        assert_eq!(show(12, &make(56, 1, false, b"\xe9.py")), "\u{e9}.py");
        assert_eq!(show(10, &make(72, 2, false, b"\x20\x26\n\0")), "\u{2620}?");
        assert_eq!(
            show(12, &make(56, 4, false, b"\x00\xf6\x01\x00")),
            "\u{1f600}"
        );
        let long = show(12, &make(40, 1, true, &[b'x'; 300]));
        assert_eq!(long, format!("...{}", "x".repeat(100)));
        let mut bytes = vec![0u8; 36];
        bytes[16] = 3;
        bytes.extend(b"abc");
        bytes.extend([0; 8]);
        assert_eq!(show(7, &bytes), "abc");
    }

    #[test]
    fn texts_that_differ_in_a_character_have_other_fingerprints() {
        for (len, kind) in [(1, 1), (5, 1), (8, 1), (9, 1), (100, 1), (3, 2), (30, 4)] {
            let mut bytes = vec![b'a'; len * kind];
            let fingerprint = |bytes: &[u8]| {
                let start = bytes.as_ptr().expose_provenance();
                Text { start, len, kind }.fingerprint()
            };
            let before = fingerprint(&bytes);
            assert_eq!(before, fingerprint(&bytes.clone()), "wherever it is");
            for i in 0..bytes.len() {
                bytes[i] = b'b';
                assert_ne!(fingerprint(&bytes), before, "{len} {kind} {i}");
                bytes[i] = b'a';
            }
        }
        assert_eq!(Text::UNKNOWN.fingerprint(), 0);
    }

    #[test]
    fn a_damaged_string_is_not_read() {
        let layout = layout::of(3, 12).unwrap();
        let mut text = [0u8; 64];
        let state = layout::COMPACT | layout::ASCII | 1 << layout::KIND_SHIFT;
        text[32..36].copy_from_slice(&state.to_le_bytes());
        for len in [usize::MAX, usize::MAX / 2, 1 << 45, 1 << 40] {
            text[16..24].copy_from_slice(&len.to_le_bytes());
            let read = Text::of(&layout, text.as_ptr().expose_provenance());
            assert_eq!(read, None, "{len:#x}");
        }
        assert_eq!(Text::of(&layout, 8), None);
        assert_eq!(Text::of(&layout, usize::MAX - 20), None);
        assert_eq!(format!("{}", Text::UNKNOWN), "???");
    }
}
