//! The Python lines of the calling thread: file, line and function of each frame.
//!
//! The frames are read as they lie in memory (see `layout`), without a call that
//! could allocate, lock or count references, so it can be done within an
//! allocation and in a signal handler. CPython's own `_Py_DumpTraceback` could
//! not: 3.9, 3.10 and 3.13 hide it, and it makes some ten system calls a frame.
//!
//! Frames are whole whenever the thread allocates: any allocation may start the
//! collector, which runs Python code, which may ask for them. The thread must hold
//! the GIL, with a thread state that is this thread's own. Up to 3.11 a thread in a
//! sub-interpreter has another one than the GIL's functions know: then there are no
//! Python lines.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::fmt::{self, Write};
use core::ptr::{self, NonNull};

use super::layout::{self, Layout, Line, Text};
use crate::os::weak::{function, is_debug_build, weak_symbol};
use crate::sync::{AtomicU32, Ordering::Relaxed};

/// Frames of one thread, at the most.
const FRAMES_MAX: usize = 20;
/// Characters of a text that are printed, its last ones.
const CHARACTERS_MAX: usize = 100;

/// Whether an interpreter is ready to run programs; true in a process without
/// CPython. What it allocates before mostly stays for ever.
pub(super) fn is_ready() -> bool {
    weak_symbol!("Py_IsInitialized").is_none_or(|ask| {
        // SAFETY: its type in every version.
        let ask = unsafe { function::<unsafe extern "C" fn() -> c_int>(ask) };
        // SAFETY: may be asked at any time.
        unsafe { ask() != 0 }
    })
}

/// A frame of Python code.
pub(super) struct Frame {
    layout: Layout,
    code: usize,
    line: c_int,
}

impl fmt::Display for Frame {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("File \"")?;
        // SAFETY: `each_frame` has made this of a live code object.
        unsafe { write_text(to, &self.layout, word(self.code, self.layout.filename)) }?;
        write!(to, "\", line {}, in ", self.line)?;
        // SAFETY: as above.
        unsafe { write_text(to, &self.layout, word(self.code, self.layout.name)) }
    }
}

/// Whether the thread has to hold the GIL to be asked for its frames. It need not in
/// the handler of its own fault: it runs nothing else meanwhile.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Gil {
    Held,
    Any,
}

/// Calls `then` with each frame of this thread, the innermost first; with none if
/// the thread runs no Python code, or it is not known where its frames are.
pub(super) fn each_frame(gil: Gil, mut then: impl FnMut(&Frame)) {
    let Some(layout) = layout() else { return };
    let Some(state) = thread_state(gil) else {
        return;
    };
    // SAFETY: the state is this thread's, and no frame of its own goes away
    // meanwhile; the layout is that version's.
    unsafe {
        let mut frame = layout.first.iter().fold(state, |at, &step| word(at, step));
        for _ in 0..FRAMES_MAX {
            if frame == 0 {
                break;
            }
            let code = word(frame, layout.code);
            if is_code(code) && !is_of_c(&layout, frame) {
                let line = line_of(&layout, frame, code);
                then(&Frame { layout, code, line });
            }
            frame = word(frame, layout.back);
        }
    }
}

/// Major and minor of the version in two bytes, or one of these.
static VERSION: AtomicU32 = AtomicU32::new(UNKNOWN);
const UNKNOWN: u32 = 0;
const NONE: u32 = 1;

/// The layout of the CPython that this process has, if it is known.
fn layout() -> Option<Layout> {
    let mut version = VERSION.load(Relaxed);
    if version == UNKNOWN {
        version = ask_version().unwrap_or(NONE);
        VERSION.store(version, Relaxed);
    }
    layout::of(version >> 8, version & 0xff)
}

fn ask_version() -> Option<u32> {
    type GetVersion = unsafe extern "C" fn() -> *const c_char;
    let ask = weak_symbol!("Py_GetVersion")?;
    // SAFETY: its type in every version.
    let ask = unsafe { function::<GetVersion>(ask) };
    // SAFETY: a C string, which stays.
    let text = unsafe { CStr::from_ptr(ask()) }.to_str().ok()?;
    // Objects of such builds have longer heads.
    if is_debug_build() || text.contains("free-threading") {
        return None;
    }
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next()?.parse::<u32>().ok().filter(|&n| n < 256);
    Some(number()? << 8 | number()?)
}

/// This thread's state.
fn thread_state(gil: Gil) -> Option<usize> {
    type Ask = unsafe extern "C" fn() -> *mut c_void;
    let ask = |symbol: NonNull<c_void>| {
        // SAFETY: the type of the functions below, which may be asked at any time.
        unsafe { function::<Ask>(symbol)() }.addr()
    };
    let own = || Some(ask(weak_symbol!("PyGILState_GetThisThreadState")?));
    let is_some = |&state: &usize| state != 0;
    // From 3.12 on each thread has its own answer (3.13 has a new name for it).
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
            // 2.7 has a variable.
            let current = weak_symbol!("_PyThreadState_Current")?.addr().get();
            // SAFETY: a pointer's place.
            unsafe { word(current, 0) }
        }
    };
    (own == current).then_some(own)
}

/// # Safety
/// There is a word to be read.
unsafe fn word(address: usize, offset: usize) -> usize {
    // SAFETY: the caller's promise.
    unsafe { ptr::with_exposed_provenance::<usize>(address.wrapping_add(offset)).read_unaligned() }
}

/// # Safety
/// There is a byte to be read.
unsafe fn byte(address: usize, offset: usize) -> u8 {
    // SAFETY: the caller's promise.
    unsafe { ptr::with_exposed_provenance::<u8>(address.wrapping_add(offset)).read() }
}

/// # Safety
/// 0, or an object is there.
unsafe fn is_code(object: usize) -> bool {
    let Some(kind) = weak_symbol!("PyCode_Type") else {
        return false;
    };
    // SAFETY: the caller's promise.
    object != 0 && unsafe { word(object, layout::TYPE) } == kind.addr().get()
}

/// # Safety
/// A frame of this layout.
unsafe fn is_of_c(layout: &Layout, frame: usize) -> bool {
    match layout.line {
        Line::Object => false,
        // SAFETY: the caller's promise.
        Line::Instruction { owner, .. } => unsafe { byte(frame, owner) == layout::C_STACK },
    }
}

/// # Safety
/// A frame of this layout, with this code.
unsafe fn line_of(layout: &Layout, frame: usize, code: usize) -> c_int {
    match layout.line {
        Line::Object => {
            let Some(ask) = weak_symbol!("PyFrame_GetLineNumber") else {
                return 0;
            };
            // SAFETY: its type in every version.
            let ask = unsafe { function::<unsafe extern "C" fn(usize) -> c_int>(ask) };
            // SAFETY: the caller's promise. It only looks into the line table.
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
            // SAFETY: its type in every version.
            let ask = unsafe { function::<unsafe extern "C" fn(usize, c_int) -> c_int>(ask) };
            // SAFETY: the caller's promise.
            let at = unsafe { word(frame, instruction) }.wrapping_sub(code + instructions);
            // Before the first instruction it is a little below 0.
            let at = c_int::try_from(at.cast_signed()).unwrap_or(-1);
            // SAFETY: as above.
            unsafe { ask(code, at) }
        }
    }
}

/// # Safety
/// 0, or a text of this layout is there.
unsafe fn write_text(to: &mut impl Write, layout: &Layout, text: usize) -> fmt::Result {
    if text == 0 {
        return to.write_str("???");
    }
    let (len, kind, start) = match layout.text {
        // SAFETY: the caller's promise.
        Text::Bytes { len, bytes } => (unsafe { word(text, len) }, 1, text + bytes),
        Text::Characters { ascii, others } => {
            // SAFETY: the caller's promise.
            let state = unsafe { word(text, layout::STATE) } as u32;
            if state & layout::COMPACT == 0 {
                return to.write_str("???");
            }
            let kind = (state >> layout::KIND_SHIFT & layout::KIND_MASK) as usize;
            let is_ascii = state & layout::ASCII != 0;
            let start = text + if is_ascii { ascii } else { others };
            // SAFETY: the caller's promise.
            (unsafe { word(text, layout::LEN) }, kind, start)
        }
    };
    let first = len.saturating_sub(CHARACTERS_MAX);
    if first > 0 {
        to.write_str("...")?;
    }
    for i in first..len {
        let mut bytes = [0; 4];
        for (b, to) in bytes.iter_mut().enumerate().take(kind) {
            // SAFETY: within the text.
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
            // SAFETY: a text of this layout.
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
        assert_eq!(show(13, &make(40, 1, true, b"a.py")), "a.py");
        assert_eq!(show(10, &make(48, 1, true, b"a.py")), "a.py");
        assert_eq!(show(12, &make(56, 1, false, b"\xe9.py")), "\u{e9}.py");
        assert_eq!(show(10, &make(72, 2, false, b"\x20\x26\n\0")), "\u{2620}?");
        assert_eq!(
            show(13, &make(56, 4, false, b"\x00\xf6\x01\x00")),
            "\u{1f600}"
        );
        let long = show(13, &make(40, 1, true, &[b'x'; 300]));
        assert_eq!(long, format!("...{}", "x".repeat(100)));
        let mut bytes = vec![0u8; 36];
        bytes[16] = 3;
        bytes.extend(b"abc");
        bytes.extend([0; 8]);
        assert_eq!(show(7, &bytes), "abc");
    }
}
