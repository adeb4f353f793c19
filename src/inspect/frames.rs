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
use super::layout::{self, Layout, Line, Text};
use crate::os::weak::{function, weak_symbol};

/// Maximum frames of one thread.
const FRAMES_MAX: usize = 20;
/// Maximum characters of a string that are printed: the last ones.
const CHARACTERS_MAX: usize = 100;

/// Whether the interpreter is initialised; true in a process without CPython. Blocks that it
/// allocates before mostly live for ever.
pub(crate) fn is_ready() -> bool {
    weak_symbol!("Py_IsInitialized").is_none_or(|ask| {
        // SAFETY: `Py_GetVersion` has this type in every version.
        let ask = unsafe { function::<unsafe extern "C" fn() -> c_int>(ask) };
        // SAFETY: the function may be called at any time.
        unsafe { ask() != 0 }
    })
}

/// A frame of Python code.
pub(crate) struct Frame {
    layout: Layout,
    code: usize,
    line: c_int,
}

impl fmt::Display for Frame {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("File \"")?;
        // SAFETY: `each_frame` made this from a live code object.
        unsafe { write_text(to, &self.layout, word(self.code, self.layout.filename)) }?;
        write!(to, "\", line {}, in ", self.line)?;
        // SAFETY: `each_frame` made this from a live code object.
        unsafe { write_text(to, &self.layout, word(self.code, self.layout.name)) }
    }
}

/// Whether the thread must hold the GIL for its frames to be read. It need not in the handler of
/// its own fault, where it runs nothing else.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gil {
    Held,
    Any,
}

/// Calls `then` with each frame of this thread, innermost first; not at all if the thread runs no
/// Python code or the layout is unknown.
pub(crate) fn each_frame(gil: Gil, mut then: impl FnMut(&Frame)) {
    let Some(layout) = layout() else { return };
    let Some(state) = thread_state(gil) else {
        return;
    };
    // SAFETY: the state is this thread's, none of whose frames ends during the call; the layout is
    // that of the version.
    unsafe {
        let mut frame = word(state, layout.first.0);
        if let Some(step) = layout.first.1 {
            frame = word(frame, step);
        }
        for _ in 0..FRAMES_MAX {
            if frame == 0 {
                break;
            }
            let code = word(frame, layout.code) & !layout::TAGS;
            if is_code(code) && !is_of_c(&layout, frame) {
                let line = line_of(&layout, frame, code);
                then(&Frame { layout, code, line });
            }
            frame = word(frame, layout.back);
        }
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
        None => {
            // In 2.7 it is a variable.
            let current = weak_symbol!("_PyThreadState_Current")?.addr().get();
            // SAFETY: the variable is a pointer.
            unsafe { word(current, 0) }
        }
    };
    (own == current).then_some(own)
}

/// # Safety
/// A word at `address` is readable.
unsafe fn word(address: usize, offset: usize) -> usize {
    // SAFETY: the address is valid for this read, by the contract above.
    unsafe { ptr::with_exposed_provenance::<usize>(address.wrapping_add(offset)).read_unaligned() }
}

/// # Safety
/// A byte at `address` is readable.
unsafe fn byte(address: usize, offset: usize) -> u8 {
    // SAFETY: the address is valid for this read, by the contract above.
    unsafe { ptr::with_exposed_provenance::<u8>(address.wrapping_add(offset)).read() }
}

/// # Safety
/// `address` is 0 or that of an object.
unsafe fn is_code(object: usize) -> bool {
    let Some(kind) = weak_symbol!("PyCode_Type") else {
        return false;
    };
    // SAFETY: the address is valid for this read, by the contract above.
    object != 0 && unsafe { word(object, layout::TYPE) } == kind.addr().get()
}

/// # Safety
/// `address` is that of a frame with this layout.
unsafe fn is_of_c(layout: &Layout, frame: usize) -> bool {
    match layout.line {
        Line::Object => false,
        // SAFETY: the address is valid for this read, by the contract above.
        Line::Instruction { owner, .. } => unsafe { byte(frame, owner) >= layout::NO_PROGRAM },
    }
}

/// # Safety
/// `frame` and `code` are the addresses of a frame with this layout and of its code object.
unsafe fn line_of(layout: &Layout, frame: usize, code: usize) -> c_int {
    match layout.line {
        Line::Object => {
            let Some(ask) = weak_symbol!("PyFrame_GetLineNumber") else {
                return 0;
            };
            // SAFETY: the function has this type in every version.
            let ask = unsafe { function::<unsafe extern "C" fn(usize) -> c_int>(ask) };
            // SAFETY: a live code object, by the contract above; the call only reads the line table.
            unsafe { ask(frame) }
        }
        Line::Instruction {
            instruction,
            instructions,
            ..
        } => {
            let Some(ask) = weak_symbol!("PyCode_Addr2Line") else {
                return 0;
            };
            // SAFETY: the function has this type in every version.
            let ask = unsafe { function::<unsafe extern "C" fn(usize, c_int) -> c_int>(ask) };
            // SAFETY: the address is valid for this read, by the contract above.
            let at = unsafe { word(frame, instruction) }.wrapping_sub(code + instructions);
            // Before the first instruction the offset is slightly negative.
            let at = c_int::try_from(at.cast_signed()).unwrap_or(-1);
            // SAFETY: a live code object, by the contract above; the call only reads the line table.
            unsafe { ask(code, at) }
        }
    }
}

/// # Safety
/// `address` is 0 or that of a string with this layout.
unsafe fn write_text(to: &mut impl Write, layout: &Layout, text: usize) -> fmt::Result {
    if text == 0 {
        return to.write_str("???");
    }
    let (len, kind, start) = match layout.text {
        // SAFETY: the address is valid for this read, by the contract above.
        Text::Bytes { len, bytes } => (unsafe { word(text, len) }, 1, text + bytes),
        Text::Characters {
            state,
            length,
            ascii,
            others,
        } => {
            // SAFETY: the address is valid for this read, by the contract above.
            let state = unsafe { word(text, state) } as u32;
            if state & layout::COMPACT == 0 {
                return to.write_str("???");
            }
            let kind = (state >> layout::KIND_SHIFT & layout::KIND_MASK) as usize;
            let is_ascii = state & layout::ASCII != 0;
            let start = text + if is_ascii { ascii } else { others };
            // SAFETY: the address is valid for this read, by the contract above.
            (unsafe { word(text, length) }, kind, start)
        }
    };
    let first = len.saturating_sub(CHARACTERS_MAX);
    if first > 0 {
        to.write_str("...")?;
    }
    for i in first..len {
        let mut bytes = [0; 4];
        for (b, to) in bytes.iter_mut().enumerate().take(kind) {
            // SAFETY: within the string.
            *to = unsafe { byte(start, i * kind + b) };
        }
        let c = char::from_u32(u32::from_le_bytes(bytes)).unwrap_or('?');
        to.write_char(if c.is_control() { '?' } else { c })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;
    use std::string::String;

    #[test]
    fn without_cpython_there_are_no_frames_and_all_is_ready() {
        each_frame(Gil::Held, |_| panic!("a frame"));
        each_frame(Gil::Any, |_| panic!("a frame"));
        assert!(is_ready());
    }

    #[test]
    fn texts_of_all_kinds_are_read() {
        let show = |minor, text: &[u8]| {
            let layout = layout::of(if minor == 7 { 2 } else { 3 }, minor).unwrap();
            let mut shown = String::new();
            // SAFETY: a string with this layout.
            unsafe { write_text(&mut shown, &layout, text.as_ptr().expose_provenance()) }.unwrap();
            shown
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
}
