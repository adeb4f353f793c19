//! Small files of the kernel's, read whole into a buffer of the caller's.

use core::ffi::CStr;

/// What the file at `path` says, as far as it fits and is text; `None` if it
/// cannot be read.
pub fn read<'a>(path: &CStr, buffer: &'a mut [u8]) -> Option<&'a str> {
    // SAFETY: a C string.
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if fd < 0 {
        return None;
    }
    let mut len = 0;
    while let Some(room) = buffer.get_mut(len..).filter(|room| !room.is_empty()) {
        // SAFETY: a place for so many bytes.
        let n = unsafe { libc::read(fd, room.as_mut_ptr().cast(), room.len()) };
        match usize::try_from(n) {
            Ok(n) if n > 0 => len += n,
            _ => break,
        }
    }
    // SAFETY: opened here.
    unsafe { libc::close(fd) };
    core::str::from_utf8(&buffer[..len]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_far_as_there_is_room() {
        let mut buffer = [0; 64];
        assert!(read(c"/proc/self/statm", &mut buffer).is_some_and(|text| text.ends_with('\n')));
        assert!(read(c"/proc/self/statm", &mut buffer[..3]).is_some_and(|text| text.len() == 3));
        assert_eq!(read(c"/proc/self/no such file", &mut buffer), None);
    }
}
