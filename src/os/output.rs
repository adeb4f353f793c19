//! Files that the library writes: whole, or not at all.
//!
//! ```text
//!    create      .obmalloc-PID-TIME beside the target: new, of this process alone
//!    append, put
//!    finish      closed, then renamed to the target: a reader sees the old or the new
//!    dropped     removed
//! ```
//!
//! A target that exists and cannot be replaced (its folder is read-only, it is mounted, it has a
//! second name or another owner) is written in place, and left empty if that fails. A FIFO, a
//! terminal or a descriptor gets the bytes in sequence; a FIFO without a reader is an error, and no
//! write waits for a reader longer than a second. `target.rs` resolves paths; `quiet.rs` keeps
//! writes from raising signals.

use core::ffi::{CStr, c_int};
use core::fmt::{self, Write};
use core::ptr::NonNull;

use super::descriptor::{self, about};
use super::target::{self, Name, Target};
use super::{clock, errno, memory, quiet, text};

/// Milliseconds that a write waits for a reader.
const PATIENCE: u64 = 1000;
/// New names that are tried.
const TRIES: u64 = 8;

/// The buffers, in memory of their own: there is no heap, and the stack may be small.
struct Room {
    target: Name,
    beside: Name,
    bytes: [u8; BUFFER],
}

/// Bytes of the buffer.
const BUFFER: usize = 4096;

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// A descriptor of the program.
    Own,
    /// Opened here; written bytes stay.
    Stream,
    /// Opened here, and emptied if it cannot be completed.
    InPlace,
    /// Under another name, which is removed unless it becomes the target's.
    Beside,
}

/// A file that is being written.
pub(crate) struct Output {
    room: NonNull<Room>,
    fd: c_int,
    how: How,
    /// The kind of the file, as in its mode.
    kind: u32,
    /// Bytes in the buffer.
    len: usize,
    /// The first error.
    failed: Option<c_int>,
    /// Whether the file is finished.
    whole: bool,
}

impl Output {
    /// Begins a file at the path that `fill` writes; a new file gets this mode.
    #[cold]
    pub(crate) fn create(
        mode: u32,
        fill: impl FnOnce(&mut Name) -> Result<(), c_int>,
    ) -> Result<Output, c_int> {
        let room = memory::map(room_bytes()).ok_or(libc::ENOMEM)?.cast();
        let mut output = Output {
            room,
            fd: -1,
            how: How::Own,
            kind: 0,
            len: 0,
            failed: None,
            whole: false,
        };
        fill(&mut output.room().target)?;
        output.open(mode)?;
        Ok(output)
    }

    fn room(&mut self) -> &mut Room {
        // SAFETY: `create` has mapped it zero, which is valid bytes; it is unmapped when
        // `self` is dropped, and the borrow of `self` makes this the only reference.
        unsafe { self.room.as_mut() }
    }

    fn open(&mut self, mode: u32) -> Result<(), c_int> {
        let Room { target, beside, .. } = self.room();
        match target::resolve(target, beside)? {
            Target::Own(fd) => {
                self.kind = descriptor::still(fd).ok_or(libc::EBADF)?;
                self.fd = fd;
                Ok(())
            }
            Target::Stream { append } => self.open_stream(append),
            Target::File(None) => self.open_beside(mode),
            Target::File(Some(there)) => match self.replace(&there) {
                Err(libc::EACCES | libc::EPERM | libc::EEXIST | libc::ENAMETOOLONG) => {
                    self.open_in_place()
                }
                done => done,
            },
        }
    }

    fn open_stream(&mut self, append: bool) -> Result<(), c_int> {
        let more = if append {
            libc::O_APPEND
        } else {
            libc::O_NOFOLLOW
        };
        self.fd = open(self.room().target.as_c(), libc::O_WRONLY | more, 0)?;
        self.how = How::Stream;
        self.kind = about(self.fd)?.st_mode & libc::S_IFMT;
        // The FIFO may have been replaced by a file.
        let is_stream = append || matches!(self.kind, libc::S_IFIFO | libc::S_IFCHR);
        if is_stream { Ok(()) } else { Err(libc::EPERM) }
    }

    /// Opens a file that will replace the existing one.
    fn replace(&mut self, there: &libc::stat) -> Result<(), c_int> {
        if !target::is_trusted(there) {
            return Err(libc::EEXIST); // it keeps its owner and its names
        }
        may_write(self.room().target.as_c())?;
        let mode = there.st_mode & 0o777;
        self.open_beside(mode)?;
        let fd = self.fd;
        // SAFETY: a descriptor opened here. (If the mode cannot be set, fewer users have access.)
        let _ = errno::checked(|| unsafe { libc::syscall(libc::SYS_fchmod, fd, mode) });
        Ok(())
    }

    /// Opens a new file in the folder of the target.
    fn open_beside(&mut self, mode: u32) -> Result<(), c_int> {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
        let Room { target, beside, .. } = self.room();
        for n in 0..TRIES {
            let mut end = [0; 48];
            let mut name = text::Buffer::new(&mut end);
            let _ = write!(name, ".obmalloc-{}-{:x}", text::pid(), clock::now() + n);
            let len = name.end();
            beside.set(&[target.folder(), &end[..len]])?;
            match open(beside.as_c(), flags, mode) {
                Ok(fd) => {
                    (self.fd, self.how, self.kind) = (fd, How::Beside, libc::S_IFREG);
                    return Ok(());
                }
                Err(libc::EEXIST) => {}
                Err(error) => return Err(error),
            }
        }
        Err(libc::EEXIST)
    }

    /// Opens the target itself and truncates it.
    fn open_in_place(&mut self) -> Result<(), c_int> {
        self.fd = open(
            self.room().target.as_c(),
            libc::O_WRONLY | libc::O_NOFOLLOW,
            0,
        )?;
        (self.how, self.kind) = (How::Stream, libc::S_IFREG);
        let about = about(self.fd)?;
        let is_file = about.st_mode & libc::S_IFMT == libc::S_IFREG;
        if !is_file || target::is_privileged() && !target::is_trusted(&about) {
            return Err(libc::EPERM);
        }
        self.how = How::InPlace;
        empty(self.fd)
    }

    /// Whether its parts can be written in any order.
    pub(crate) fn has_places(&self) -> bool {
        match self.how {
            How::Own => false,
            How::Stream => self.kind == libc::S_IFCHR,
            How::InPlace | How::Beside => true,
        }
    }

    /// Writes `bytes` behind those before.
    pub(crate) fn append(&mut self, mut bytes: &[u8]) -> Result<(), c_int> {
        while !bytes.is_empty() {
            let len = self.len;
            let room = &mut self.room().bytes[len..];
            let n = bytes.len().min(room.len());
            room[..n].copy_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            self.len += n;
            if self.len == BUFFER {
                self.send()?;
            }
        }
        Ok(())
    }

    /// Writes `bytes` at this offset. Not together with `append`.
    pub(crate) fn put(&self, at: u64, bytes: &[u8]) -> Result<(), c_int> {
        quiet::write_all_at(self.fd, at, bytes)
    }

    /// The first error.
    pub(crate) fn error(&self) -> Option<c_int> {
        self.failed
    }

    /// Writes the buffer.
    fn send(&mut self) -> Result<(), c_int> {
        let (fd, kind, len) = (self.fd, self.kind, core::mem::take(&mut self.len));
        if self.failed.is_none() {
            self.failed = quiet::write_all(fd, kind, &self.room().bytes[..len], PATIENCE).err();
        }
        self.failed.map_or(Ok(()), Err)
    }

    /// Completes the file.
    #[cold]
    pub(crate) fn finish(mut self) -> Result<(), c_int> {
        self.send()?;
        match self.how {
            How::Own => Ok(()),
            How::Stream | How::InPlace => {
                self.whole = true;
                self.close()
            }
            How::Beside => {
                self.close()?;
                let Room { target, beside, .. } = self.room();
                match rename(beside.as_c(), target.as_c()) {
                    // The target is mounted, or its folder is sticky.
                    Err(libc::EBUSY | libc::EPERM | libc::EACCES | libc::EXDEV) => self.copy(),
                    done => {
                        self.whole = done.is_ok();
                        done
                    }
                }
            }
        }
    }

    fn close(&mut self) -> Result<(), c_int> {
        close(core::mem::replace(&mut self.fd, -1))
    }

    /// Copies the temporary file into the target.
    fn copy(&mut self) -> Result<(), c_int> {
        let beside = self.room().beside.as_c();
        let from = open(beside, libc::O_RDONLY | libc::O_NOFOLLOW, 0)?;
        unlink(beside);
        let copied = self.open_in_place().and_then(|()| self.copy_from(from));
        let _ = close(from);
        copied?;
        self.whole = true;
        self.close()
    }

    fn copy_from(&mut self, from: c_int) -> Result<(), c_int> {
        let (fd, bytes) = (self.fd, &mut self.room().bytes);
        let mut at = 0;
        loop {
            let place = bytes.as_mut_ptr();
            // SAFETY: the buffer has room for its own length.
            let call = || unsafe { libc::syscall(libc::SYS_read, from, place, BUFFER) };
            let n = errno::checked(call)?;
            if n == 0 {
                return Ok(());
            }
            quiet::write_all_at(fd, at, &bytes[..n])?;
            at += n as u64;
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.whole {
            match self.how {
                How::Own | How::Stream => {}
                How::InPlace => {
                    let _ = empty(self.fd);
                }
                How::Beside => unlink(self.room().beside.as_c()),
            }
        }
        if self.how != How::Own && self.fd >= 0 {
            let _ = self.close();
        }
        // SAFETY: mapped by `create` with this size; no borrow of it outlives `self`.
        unsafe { memory::unmap(self.room.cast(), room_bytes()) };
    }
}

impl Write for Output {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.append(text.as_bytes()).map_err(|_| fmt::Error)
    }
}

/// Bytes that are mapped for the room.
fn room_bytes() -> usize {
    size_of::<Room>().next_multiple_of(memory::page_size())
}

/// Opens a file without waiting for the other end of a FIFO (NONBLOCK), without a controlling
/// terminal (NOCTTY), closed on exec.
fn open(path: &CStr, flags: c_int, mode: u32) -> Result<c_int, c_int> {
    let flags = flags | libc::O_CLOEXEC | libc::O_NOCTTY | libc::O_NONBLOCK;
    let path = path.as_ptr();
    // SAFETY: a C string; the mode belongs to O_CREAT.
    let call = || unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, flags, mode) };
    errno::checked(call).map(|fd| fd as c_int)
}

fn close(fd: c_int) -> Result<(), c_int> {
    // SAFETY: a descriptor that was opened here and is used no more.
    errno::checked(|| unsafe { libc::syscall(libc::SYS_close, fd) }).map(|_| ())
}

/// Truncates the file.
fn empty(fd: c_int) -> Result<(), c_int> {
    // SAFETY: a descriptor that was opened here.
    errno::checked(|| unsafe { libc::syscall(libc::SYS_ftruncate, fd, 0u64) }).map(|_| ())
}

/// Whether this user may write to the file itself.
fn may_write(path: &CStr) -> Result<(), c_int> {
    let path = path.as_ptr();
    // SAFETY: a `CStr` ends with NUL.
    let call = || unsafe { libc::syscall(libc::SYS_faccessat, libc::AT_FDCWD, path, libc::W_OK) };
    errno::checked(call).map(|_| ())
}

fn rename(from: &CStr, to: &CStr) -> Result<(), c_int> {
    let (here, from, to) = (libc::AT_FDCWD, from.as_ptr(), to.as_ptr());
    // SAFETY: each `CStr` ends with NUL. (`rename` is not a system call on every architecture.)
    let call = || unsafe { libc::syscall(libc::SYS_renameat2, here, from, here, to, 0) };
    errno::checked(call).map(|_| ())
}

fn unlink(path: &CStr) {
    let path = path.as_ptr();
    // SAFETY: a `CStr` ends with NUL.
    let call = || unsafe { libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, path, 0) };
    let _ = errno::checked(call);
}

/// The reason of an error, as text.
pub(crate) fn reason(error: c_int) -> &'static str {
    match error {
        libc::EACCES | libc::EROFS => "permission denied",
        libc::EBADF => "the descriptor is not what it was at start",
        libc::EDQUOT => "the quota is used up",
        libc::EFBIG => "a limit to the size of files",
        libc::EINVAL => "neither a file nor a stream",
        libc::EIO => "input/output error",
        libc::EISDIR => "it is a folder",
        libc::ELOOP => "a symbolic link that may not be followed",
        libc::EMFILE | libc::ENFILE => "no descriptor is left",
        libc::ENAMETOOLONG => "the name is too long",
        libc::ENOENT | libc::ENOTDIR => "there is no such folder",
        libc::ENOMEM => "no memory",
        libc::ENOSPC => "no space is left",
        libc::ENXIO => "it has no reader",
        libc::EPERM => "it is another user's, or has another name",
        libc::EPIPE | libc::ETIMEDOUT => "its reader stopped reading",
        _ => "the system refuses",
    }
}
