//! Small files of the kernel, read whole into the caller's buffer. If other threads exist, no
//! descriptor of the program is taken for that (`apart.rs`).

use core::ffi::CStr;

use super::apart;
use super::sandbox;

/// The content of the file at `path`, cut to the buffer and to valid UTF-8; `None` if it cannot be
/// read, or a sandbox forbids the call.
pub(crate) fn read<'a>(path: &CStr, buffer: &'a mut [u8]) -> Option<&'a str> {
    let len = sandbox::allows().then(|| apart::read(path, buffer))??;
    core::str::from_utf8(buffer.get(..len)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::errno;
    use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

    #[test]
    #[cfg_attr(miri, ignore = "Miri makes no system calls")]
    fn files_are_read_as_far_as_there_is_room() {
        let mut buffer = [0; 64];
        errno::set(77);
        assert!(read(c"/proc/self/statm", &mut buffer).is_some_and(|text| text.ends_with('\n')));
        assert!(read(c"/proc/self/statm", &mut buffer[..3]).is_some_and(|text| text.len() == 3));
        assert_eq!(read(c"/proc/self/no such file", &mut buffer), None);
        assert_eq!(read(c"/proc/self/statm", &mut []), Some(""));
        assert_eq!(errno::get(), 77);
        errno::set(0);
    }

    /// The tests run on several threads, so the thread with descriptors of its own reads.
    #[test]
    #[cfg_attr(miri, ignore = "Miri makes no system calls")]
    fn no_descriptor_is_taken_meanwhile() {
        static DONE: AtomicBool = AtomicBool::new(false);
        let reader = std::thread::spawn(|| {
            while !DONE.load(Relaxed) {
                let mut buffer = [0; 64];
                assert!(read(c"/proc/self/statm", &mut buffer).is_some());
            }
        });
        // Other tests may have files open, but not this one.
        let mut seen = 0;
        for _ in 0..2000 {
            for fd in 0..64 {
                let link = std::format!("/proc/self/fd/{fd}");
                let name = std::fs::read_link(link).unwrap_or_default();
                seen += usize::from(name.ends_with("statm"));
            }
        }
        DONE.store(true, Relaxed);
        reader.join().unwrap();
        assert_eq!(seen, 0);
    }
}
