//! Statistics at exit, where `OBMALLOC_STATS` asks for them.
//!
//! Only in a process that used the library: the setting is inherited by every
//! `sh` and `git` that a program starts. A process that ends by `_exit`, as
//! children of multiprocessing do, writes none.

use core::ffi::CStr;
use core::fmt::{self, Write};

use crate::config;
use crate::first_use;
use crate::os::quiet;
use crate::os::text::{self, printable};
use crate::stats_json;
use crate::stats_text;

/// Bytes of a file name, with its NUL.
const NAME_MAX: usize = 4096;

/// Writes what `OBMALLOC_STATS` asks for.
pub fn report(host: Option<&str>) {
    let Some(value) = config::stats().filter(|_| first_use::has_happened()) else {
        return;
    };
    if value == b"1" {
        stats_text::say();
        return;
    }
    let mut name = [0; NAME_MAX];
    let file = file_name(value, &mut name).and_then(File::create);
    match file {
        Some(mut file) => {
            let _ = stats_json::write(&mut file, host);
            let _ = file.write_char('\n');
            file.send();
        }
        None => text::say(format_args!(
            "OBMALLOC_STATS={}: cannot write there",
            printable(value)
        )),
    }
}

/// The file's name: the value with the pid in place of each `%p`.
fn file_name<'a>(value: &[u8], name: &'a mut [u8; NAME_MAX]) -> Option<&'a CStr> {
    let mut buffer = text::Buffer::new(name);
    let mut rest = printable(value);
    while let Some((before, after)) = rest.split_once("%p") {
        let _ = write!(buffer, "{before}{}", text::pid());
        rest = after;
    }
    let _ = buffer.write_str(rest);
    (buffer.end() < NAME_MAX).then(|| CStr::from_bytes_until_nul(name).ok())?
}

/// A file being written, through a small buffer.
struct File {
    fd: i32,
    bytes: [u8; 1024],
    len: usize,
}

impl File {
    fn create(name: &CStr) -> Option<File> {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_CLOEXEC;
        // SAFETY: a C string; the mode goes with O_CREAT.
        let fd = unsafe { libc::open(name.as_ptr(), flags, 0o644) };
        (fd >= 0).then_some(File {
            fd,
            bytes: [0; 1024],
            len: 0,
        })
    }

    fn send(&mut self) {
        let _ = quiet::write_all(self.fd, libc::S_IFREG, &self.bytes[..self.len], 0);
        self.len = 0;
    }
}

impl Write for File {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            if self.len == self.bytes.len() {
                self.send();
            }
            self.bytes[self.len] = byte;
            self.len += 1;
        }
        Ok(())
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: opened here, closed once.
        unsafe { libc::close(self.fd) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;

    #[test]
    fn the_pid_stands_in_the_name_wherever_it_is_asked_for() {
        let mut name = [0; NAME_MAX];
        let pid = text::pid();
        let expected = format!("/tmp/{pid}-{pid}.json");
        let made = file_name(b"/tmp/%p-%p.json", &mut name).unwrap();
        assert_eq!(made.to_str().unwrap(), expected);
        assert_eq!(file_name(b"plain", &mut name).unwrap(), c"plain");
        assert_eq!(file_name(&[b'x'; NAME_MAX], &mut name), None);
    }
}
