//! Lines of text for people, formatted without allocating and written at once.
//!
//! The library is silent unless a setting wants output or the process must stop. Then it writes one
//! line that begins with `obmalloc: `, in one `write`, so that lines of several processes do not
//! mix. The line goes to the stderr of the program's start, or nowhere.

use core::fmt::{self, Write};

use super::cancel::Uncancelled;
use super::descriptor;
use super::errno;

/// A line under construction. A long line is cut off before its newline.
pub(crate) struct Line {
    bytes: [u8; 512],
    len: usize,
}

impl Line {
    fn new() -> Line {
        Line {
            bytes: [0; 512],
            len: 0,
        }
    }

    fn end(&mut self) -> &[u8] {
        let len = self.len.min(self.bytes.len() - 1);
        self.bytes[len] = b'\n';
        &self.bytes[..=len]
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.len() - self.len;
        let taken = text.len().min(room);
        self.bytes[self.len..self.len + taken].copy_from_slice(&text.as_bytes()[..taken]);
        self.len += taken;
        Ok(())
    }
}

/// A text in the caller's buffer: keeps the bytes that fit, and counts all.
pub(crate) struct Buffer<'a> {
    bytes: &'a mut [u8],
    len: usize,
}

impl<'a> Buffer<'a> {
    /// An empty text in `bytes`.
    pub(crate) fn new(bytes: &'a mut [u8]) -> Buffer<'a> {
        Buffer { bytes, len: 0 }
    }

    /// Ends the text with NUL, unless the buffer is empty. Returns the length of the whole text
    /// without NUL.
    pub(crate) fn end(self) -> usize {
        if let Some(last) = self.bytes.len().checked_sub(1) {
            self.bytes[self.len.min(last)] = 0;
        }
        self.len
    }
}

impl Write for Buffer<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let start = self.len.min(self.bytes.len());
        let room = &mut self.bytes[start..];
        let taken = room.len().min(text.len());
        room[..taken].copy_from_slice(&text.as_bytes()[..taken]);
        self.len += text.len();
        Ok(())
    }
}

/// The program's file of the C library (`FILE *`). A write may flush it, which is a cancellation
/// point, so cancellation is disabled for that.
pub(crate) struct CFile(*mut libc::FILE);

impl CFile {
    /// # Safety
    /// The file is open as long as this is used.
    pub(crate) unsafe fn new(file: *mut libc::FILE) -> CFile {
        CFile(file)
    }
}

impl Write for CFile {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let _guard = Uncancelled::begin();
        let written = errno::kept(|| {
            // SAFETY: a slice is readable over its length; the file is open by the contract of `new`.
            unsafe { libc::fwrite(text.as_ptr().cast(), 1, text.len(), self.0) }
        });
        if written == text.len() {
            Ok(())
        } else {
            Err(fmt::Error)
        }
    }
}

/// Writes one line to the stderr of the start (`descriptor.rs`): `obmalloc: ` and the text.
pub(crate) fn log(text: fmt::Arguments<'_>) {
    let mut line = Line::new();
    let _ = line.write_str("obmalloc: ");
    let _ = line.write_fmt(text);
    descriptor::write_to_stderr(line.end());
}

/// Ends the process with one line that states the reason.
///
/// For corruption only: an invalid pointer, or a broken invariant. To continue would spread it.
#[cold]
#[inline(never)]
pub(crate) fn fatal(text: fmt::Arguments<'_>) -> ! {
    log(text);
    // SAFETY: abort has no conditions.
    unsafe { libc::abort() }
}

/// This process's id.
pub(crate) fn pid() -> i32 {
    // SAFETY: getpid has no preconditions.
    unsafe { libc::getpid() }
}

/// The bytes of a C string as text, cut before the first invalid UTF-8.
pub(crate) fn printable(bytes: &[u8]) -> &str {
    match core::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => core::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_too_long_is_cut_and_still_ends() {
        let mut line = Line::new();
        for _ in 0..100 {
            line.write_str("ten bytes!").unwrap();
        }
        let bytes = line.end();
        assert_eq!(bytes.len(), 512);
        assert_eq!(bytes.last(), Some(&b'\n'));
        assert!(bytes.starts_with(b"ten bytes!ten bytes!"));
    }

    #[test]
    fn a_line_ends_where_its_text_does() {
        let mut line = Line::new();
        write!(line, "arena {}", 7).unwrap();
        assert_eq!(line.end(), b"arena 7\n");
    }

    #[test]
    fn what_is_not_utf_8_ends_the_text() {
        assert_eq!(printable(b"plain"), "plain");
        assert_eq!(printable(b"half\xff rest"), "half");
    }

    #[test]
    fn a_buffer_cuts_ends_and_counts() {
        for size in 0..12 {
            let mut bytes = [b'#'; 16];
            let mut buffer = Buffer::new(&mut bytes[..size]);
            write!(buffer, "eight").unwrap();
            write!(buffer, "{:>3}", 8).unwrap();
            assert_eq!(buffer.end(), 8);
            let kept = size.saturating_sub(1).min(8);
            assert_eq!(bytes[..kept], b"eight  8"[..kept]);
            assert_eq!(bytes.get(kept), Some(if size > 0 { &0 } else { &b'#' }));
            assert!(bytes[size.max(9)..].iter().all(|&byte| byte == b'#'));
        }
    }
}
