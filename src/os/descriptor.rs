//! The files of the program's descriptors at its start: only these are written to.
//!
//! A program may close descriptors 0 to 2 and open a database, which gets number 2. So at start,
//! before the program runs, the library notes the identity of its stdout and stderr, and checks it
//! before each line: another file gets nothing. So it does for a descriptor that a setting names,
//! such as `/dev/fd/3`.
//!
//! A program that replaces stderr by a log gets no lines there: the log cannot be told from a
//! database. A replacement between the check and the write goes unnoticed.

use core::ffi::c_int;
use core::mem::MaybeUninit;
use core::sync::atomic::{
    AtomicI32, AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

use super::errno;
use super::quiet;

/// The identity of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Identity {
    /// The device that it is on.
    pub device: u64,
    /// Its inode number.
    pub number: u64,
    /// Its own device number, if it is a device.
    pub special: u64,
    /// Its kind, as in the mode of a file.
    pub kind: u32,
}

/// The file that is open under this descriptor.
pub(crate) fn identity(fd: c_int) -> Option<Identity> {
    about(fd).ok().map(|about| Identity {
        device: about.st_dev,
        number: about.st_ino,
        special: about.st_rdev,
        kind: about.st_mode & libc::S_IFMT,
    })
}

/// The status of the file that is open under this descriptor.
pub(crate) fn about(fd: c_int) -> Result<libc::stat, c_int> {
    let mut about = MaybeUninit::<libc::stat>::uninit();
    let place = about.as_mut_ptr();
    // SAFETY: room for the result in the kernel's own form.
    errno::checked(|| unsafe { libc::syscall(libc::SYS_fstat, fd, place) })?;
    // SAFETY: the call succeeded, so it is filled.
    Ok(unsafe { about.assume_init() })
}

const UNKNOWN: u32 = 0;
const CHANGING: u32 = 1;
const CLOSED: u32 = 2;
const OPEN: u32 = 3;

/// A descriptor and the identity of its file when it was noted.
struct Noted {
    fd: AtomicI32,
    /// Stored with Release, after the identity.
    state: AtomicU32,
    device: AtomicU64,
    number: AtomicU64,
    special: AtomicU64,
    kind: AtomicU32,
}

impl Noted {
    const fn new(fd: c_int) -> Noted {
        Noted {
            fd: AtomicI32::new(fd),
            state: AtomicU32::new(UNKNOWN),
            device: AtomicU64::new(0),
            number: AtomicU64::new(0),
            special: AtomicU64::new(0),
            kind: AtomicU32::new(0),
        }
    }

    /// Notes the identity of the file, unless it is noted.
    fn note(&self) {
        let first = self
            .state
            .compare_exchange(UNKNOWN, CHANGING, AcqRel, Acquire);
        if first.is_err() {
            return;
        }
        let state = match identity(self.fd.load(Relaxed)) {
            Some(file) => {
                self.device.store(file.device, Relaxed);
                self.number.store(file.number, Relaxed);
                self.special.store(file.special, Relaxed);
                self.kind.store(file.kind, Relaxed);
                OPEN
            }
            None => CLOSED,
        };
        self.state.store(state, Release);
    }

    /// The kind of the file, if the descriptor still has the file that was noted.
    fn still(&self) -> Option<u32> {
        self.note();
        if self.state.load(Acquire) != OPEN {
            return None;
        }
        let noted = Identity {
            device: self.device.load(Relaxed),
            number: self.number.load(Relaxed),
            special: self.special.load(Relaxed),
            kind: self.kind.load(Relaxed),
        };
        let same = identity(self.fd.load(Relaxed)) == Some(noted);
        same.then_some(noted.kind)
    }
}

static STDOUT: Noted = Noted::new(libc::STDOUT_FILENO);
static STDERR: Noted = Noted::new(libc::STDERR_FILENO);
/// The descriptor that a setting names.
static NAMED: Noted = Noted::new(-1);

/// Notes the files of stdout and stderr. Called before the program runs; if that is impossible, by
/// the first line that is written.
pub(crate) fn note() {
    STDOUT.note();
    STDERR.note();
}

/// Notes the file of the descriptor that `path` names, if it names one.
pub(crate) fn note_named(path: &[u8]) {
    if let Some(fd) = own_number(path)
        && NAMED.state.load(Acquire) == UNKNOWN
    {
        NAMED.fd.store(fd, Relaxed);
        NAMED.note();
    }
}

/// The kind of the file under descriptor `fd`, if it is noted and still the same.
pub(crate) fn still(fd: c_int) -> Option<u32> {
    match fd {
        libc::STDOUT_FILENO => STDOUT.still(),
        libc::STDERR_FILENO => STDERR.still(),
        _ if fd >= 0 && fd == NAMED.fd.load(Relaxed) => NAMED.still(),
        _ => None,
    }
}

/// The number of the descriptor of this process that a path such as `/dev/fd/3` names.
pub(crate) fn own_number(path: &[u8]) -> Option<c_int> {
    const FOLDERS: [&[u8]; 3] = [b"/dev/fd/", b"/proc/self/fd/", b"/proc/thread-self/fd/"];
    let rest = FOLDERS
        .iter()
        .find_map(|folder| path.strip_prefix(*folder))?;
    let plain = !rest.is_empty() && rest.iter().all(u8::is_ascii_digit);
    core::str::from_utf8(rest)
        .ok()
        .filter(|_| plain)?
        .parse()
        .ok()
}

/// Milliseconds that a write waits for a reader of stderr.
const PATIENCE: u64 = 1000;
/// Whether the last wait ran out: the next write does not wait, until one succeeds.
static STUCK: AtomicU32 = AtomicU32::new(0);

/// Whether stderr is still the file that it was at start.
pub(crate) fn stderr_is_ours() -> bool {
    STDERR.still().is_some()
}

/// Writes `bytes` to the stderr of the start, or nowhere. Raises no signal, and waits at most a
/// second for a reader.
pub(crate) fn write_to_stderr(bytes: &[u8]) {
    let Some(kind) = STDERR.still() else {
        return;
    };
    let patience = if STUCK.load(Relaxed) == 0 {
        PATIENCE
    } else {
        0
    };
    match quiet::write_all(libc::STDERR_FILENO, kind, bytes, patience) {
        Ok(()) => STUCK.store(0, Relaxed),
        Err(libc::ETIMEDOUT) => STUCK.store(1, Relaxed),
        Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_file_under_the_number_is_seen() {
        let open = |path: &core::ffi::CStr| {
            // SAFETY: a C string.
            let fd = unsafe { libc::open(path.as_ptr(), libc::O_WRONLY) };
            assert!(fd >= 0);
            fd
        };
        let (null, full) = (open(c"/dev/null"), open(c"/dev/full"));
        let noted = Noted::new(null);
        assert_eq!(noted.still(), Some(libc::S_IFCHR));
        // SAFETY: the test's own descriptors.
        assert_eq!(unsafe { libc::dup2(full, null) }, null);
        assert_eq!(noted.still(), None, "another device");
        let again = open(c"/dev/null");
        // SAFETY: the test's own descriptors.
        assert_eq!(unsafe { libc::dup2(again, null) }, null);
        assert_eq!(noted.still(), Some(libc::S_IFCHR), "the same once more");
        for fd in [null, full, again] {
            // SAFETY: the test's own descriptors.
            unsafe { libc::close(fd) };
        }
        assert_eq!(Noted::new(-1).still(), None, "closed at start");
    }

    #[test]
    fn paths_of_own_descriptors_are_known() {
        assert_eq!(own_number(b"/dev/fd/3"), Some(3));
        assert_eq!(own_number(b"/proc/self/fd/12"), Some(12));
        for other in [
            "/dev/fd/",
            "/dev/fd/x",
            "/dev/fd/3/x",
            "/dev/fd/99999999999",
            "/dev/null",
        ] {
            assert_eq!(own_number(other.as_bytes()), None, "{other}");
        }
    }
}
