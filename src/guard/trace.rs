//! A stack trace: the thread, its native frames, its Python lines.

use core::fmt::Write;

use super::native;
use crate::inspect::frames::{self, Gil};
use crate::os::sandbox;
use crate::os::text::Buffer;
use crate::os::thread;

/// Maximum native frames; the first few are this library's own.
const FRAMES: usize = 26;
/// Maximum Python frames.
pub(super) const PYTHON_FRAMES: usize = 20;
/// Maximum bytes of Python lines, cut to whole lines.
const TEXT: usize = 1000;

/// A stack trace. Zero is an empty one.
#[repr(C)]
pub(super) struct Trace {
    /// The kernel's id of the thread; 0: empty, or a sandbox forbids the call.
    pub(super) thread: i32,
    frames_len: usize,
    frames: [usize; FRAMES],
    text_len: usize,
    text: [u8; TEXT],
}

/// The kernel's id of the calling thread.
pub(super) fn this_thread() -> i32 {
    thread::number()
}

impl Trace {
    /// Takes the trace of the calling thread; an empty one if a sandbox forbids the call for its id.
    pub(super) fn take(&mut self) {
        if !sandbox::allows() {
            self.thread = 0;
            return;
        }
        self.thread = this_thread();
        self.frames_len = native::unwind(&mut self.frames);
        let mut buffer = Buffer::new(&mut self.text);
        frames::each_line(Gil::Held, PYTHON_FRAMES, |line| {
            let _ = writeln!(buffer, "{line}");
        });
        self.text_len = buffer.end().min(TEXT - 1);
    }

    /// The return addresses, without this library's own.
    pub(super) fn frames(&self) -> &[usize] {
        native::without_ours(&self.frames[..self.frames_len])
    }

    /// The Python lines.
    pub(super) fn lines(&self) -> impl Iterator<Item = &str> {
        let text = &self.text[..self.text_len];
        let whole = text.iter().rposition(|&byte| byte == b'\n');
        let text = &text[..whole.map_or(0, |last| last + 1)];
        core::str::from_utf8(text).unwrap_or_default().lines()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;

    #[test]
    fn a_trace_says_who_took_it() {
        // SAFETY: a trace is numbers, for which zero is valid.
        let mut trace: Box<Trace> = Box::new(unsafe { core::mem::zeroed() });
        assert_eq!((trace.frames().len(), trace.lines().count()), (0, 0));
        trace.take();
        assert_eq!(trace.thread, this_thread());
        let native = trace.frames().len();
        assert!(if cfg!(target_env = "musl") {
            native == 0
        } else {
            native > 3
        });
        assert_eq!(trace.lines().count(), 0);
        trace.text[..12].copy_from_slice(b"one\ntwo\nthre");
        trace.text_len = 12;
        assert_eq!(trace.lines().collect::<Vec<_>>(), ["one", "two"]);
    }
}
