//! The target of a file that the library writes: what its path leads to, and whether a privileged
//! process may write there.
//!
//! ```text
//!    path --> symbolic links, one by one --> /dev/fd/N         the descriptor itself
//!                                            another /proc/    opened, appended to
//!                                            FIFO, terminal    opened, written to
//!                                            file, or nothing  written beside, renamed
//! ```
//!
//! # What a privileged process does not do
//!
//! A process of user 0, or with capabilities, follows no symbolic link in the last component of a
//! path, unless the link is root's or its own and is in a folder that only these can write to
//! (`/dev/stdout`); and it writes to no FIFO and over no file that is another user's or has a second
//! name: another user may have put it there.

use core::ffi::{CStr, c_int};
use core::fmt::Write;
use core::mem::MaybeUninit;

use super::descriptor::own_number;
use super::errno;
use super::text;

/// Bytes of a path, with its NUL.
pub(crate) const PATH_MAX: usize = 4096;
/// Maximum symbolic links that are followed, as in the kernel.
const LINKS_MAX: usize = 40;

/// A path that ends with NUL; empty if all is zero.
pub(crate) struct Name {
    bytes: [u8; PATH_MAX],
}

impl Name {
    /// An empty one, for tests: it is large for a stack.
    #[cfg(test)]
    pub(crate) fn empty() -> Name {
        Name {
            bytes: [0; PATH_MAX],
        }
    }

    /// Its bytes without the NUL.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.as_c().to_bytes()
    }

    pub(crate) fn as_c(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }

    /// Sets it to the concatenation of these parts.
    pub(crate) fn set(&mut self, parts: &[&[u8]]) -> Result<(), c_int> {
        self.bytes[0] = 0;
        parts.iter().try_for_each(|part| self.push(part))
    }

    /// Appends a part.
    pub(crate) fn push(&mut self, part: &[u8]) -> Result<(), c_int> {
        let len = self.bytes().len();
        let end = len + part.len();
        if end >= PATH_MAX {
            return Err(libc::ENAMETOOLONG);
        }
        self.bytes[len..end].copy_from_slice(part);
        self.bytes[end] = 0;
        Ok(())
    }

    /// Sets it to `template` with the pid in place of each `%p`, and in place of each `%n` the `number`, if
    /// there is one.
    pub(crate) fn fill(&mut self, template: &[u8], number: Option<u64>) -> Result<(), c_int> {
        let mut rest = template;
        while let Some(at) = rest.iter().position(|&byte| byte == b'%') {
            let value = match (rest.get(at + 1), number) {
                (Some(b'p'), _) => Some(u64::from(text::pid().cast_unsigned())),
                (Some(b'n'), number) => number,
                _ => None,
            };
            self.push(&rest[..at])?;
            let Some(value) = value else {
                self.push(b"%")?;
                rest = &rest[at + 1..];
                continue;
            };
            let mut bytes = [0; 24];
            let mut digits = text::Buffer::new(&mut bytes);
            let _ = write!(digits, "{value}");
            let len = digits.end();
            self.push(&bytes[..len])?;
            rest = &rest[at + 2..];
        }
        self.push(rest)
    }

    /// The folder with its slash; empty for a name without a folder.
    pub(crate) fn folder(&self) -> &[u8] {
        let bytes = self.bytes();
        let end = bytes.iter().rposition(|&byte| byte == b'/');
        &bytes[..end.map_or(0, |at| at + 1)]
    }
}

/// The object that a path leads to.
pub(crate) enum Target {
    /// A descriptor of this process.
    Own(c_int),
    /// A stream.
    Stream {
        /// Whether it may be a file, to which bytes are appended.
        append: bool,
    },
    /// A file with its status, or nothing.
    File(Option<libc::stat>),
}

/// Follows the links of `path`, which is replaced by their target; `spare` is a buffer.
pub(crate) fn resolve(path: &mut Name, spare: &mut Name) -> Result<Target, c_int> {
    let privileged = is_privileged();
    if path.bytes().is_empty() {
        return Err(libc::ENOENT);
    }
    for _ in 0..LINKS_MAX {
        if let Some(fd) = own_descriptor(path.bytes()) {
            return Ok(Target::Own(fd));
        }
        if path.bytes().starts_with(b"/proc/") {
            return Ok(Target::Stream { append: true });
        }
        let about = match status(path.as_c(), libc::AT_SYMLINK_NOFOLLOW) {
            Ok(about) => about,
            Err(libc::ENOENT) => return Ok(Target::File(None)),
            Err(error) => return Err(error),
        };
        let refused = privileged && !is_trusted(&about);
        match about.st_mode & libc::S_IFMT {
            libc::S_IFLNK => {
                if privileged && !(is_root_or_self(about.st_uid) && folder_is_safe(path, spare)?) {
                    return Err(libc::ELOOP);
                }
                follow(path, spare)?;
            }
            libc::S_IFREG | libc::S_IFIFO if refused => return Err(libc::EPERM),
            libc::S_IFREG => return Ok(Target::File(Some(about))),
            libc::S_IFIFO | libc::S_IFCHR => return Ok(Target::Stream { append: false }),
            libc::S_IFDIR => return Err(libc::EISDIR),
            libc::S_IFSOCK => return Err(libc::ENXIO),
            _ => return Err(libc::EINVAL), // a disk
        }
    }
    Err(libc::ELOOP)
}

/// Whether a privileged process may write to it: its own file, with one name.
pub(crate) fn is_trusted(about: &libc::stat) -> bool {
    about.st_uid == user() && about.st_nlink == 1
}

/// The descriptor of this process that `path` names, also by the process id.
fn own_descriptor(path: &[u8]) -> Option<c_int> {
    let by_number = || {
        let rest = path.strip_prefix(b"/proc/")?;
        let len = rest.iter().position(|&byte| byte == b'/')?;
        let pid = core::str::from_utf8(&rest[..len])
            .ok()?
            .parse::<c_int>()
            .ok()?;
        let number = rest[len..]
            .strip_prefix(b"/fd/")
            .filter(|_| pid == text::pid())?;
        core::str::from_utf8(number).ok()?.parse().ok()
    };
    own_number(path).or_else(by_number)
}

/// Replaces a link by its target.
fn follow(path: &mut Name, spare: &mut Name) -> Result<(), c_int> {
    let (from, to) = (path.as_c().as_ptr(), spare.bytes.as_mut_ptr());
    // SAFETY: a C string, and room for one byte less than the buffer has.
    let len = errno::checked(|| unsafe {
        libc::syscall(libc::SYS_readlinkat, libc::AT_FDCWD, from, to, PATH_MAX - 1)
    })?;
    if len >= PATH_MAX - 1 {
        return Err(libc::ENAMETOOLONG);
    }
    spare.bytes[len] = 0;
    if !spare.bytes().starts_with(b"/") {
        // Relative to the folder of the link.
        let folder = path.folder().len();
        if folder + len >= PATH_MAX {
            return Err(libc::ENAMETOOLONG);
        }
        spare.bytes.copy_within(..=len, folder);
        spare.bytes[..folder].copy_from_slice(&path.bytes[..folder]);
    }
    core::mem::swap(path, spare);
    Ok(())
}

/// Whether only root and this user can create files in the folder of `path`.
fn folder_is_safe(path: &Name, spare: &mut Name) -> Result<bool, c_int> {
    match path.folder() {
        b"" => spare.set(&[b"."])?,
        folder => spare.set(&[folder])?,
    }
    let about = status(spare.as_c(), 0)?;
    Ok(is_root_or_self(about.st_uid) && about.st_mode & 0o022 == 0)
}

fn is_root_or_self(owner: u32) -> bool {
    owner == 0 || owner == user()
}

/// The user that this process acts as.
fn user() -> u32 {
    // SAFETY: geteuid has no preconditions.
    unsafe { libc::geteuid() }
}

/// Whether this process has user id 0 or capabilities.
pub(crate) fn is_privileged() -> bool {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0]; // of this thread
    // Two halves, each with the effective, permitted and inheritable set.
    let mut sets = [0u32; 6];
    let (header, place) = (header.as_ptr(), sets.as_mut_ptr());
    // SAFETY: a header of the version with two triples of sets.
    let known = errno::checked(|| unsafe { libc::syscall(libc::SYS_capget, header, place) });
    user() == 0 || known.is_ok() && (sets[0] | sets[3]) != 0
}

/// The status of the file at `path`.
fn status(path: &CStr, flags: c_int) -> Result<libc::stat, c_int> {
    let mut about = MaybeUninit::<libc::stat>::uninit();
    let (path, place) = (path.as_ptr(), about.as_mut_ptr());
    // SAFETY: a C string, and room for the result in the kernel's own form.
    errno::checked(|| unsafe {
        libc::syscall(libc::SYS_newfstatat, libc::AT_FDCWD, path, place, flags)
    })?;
    // SAFETY: the call succeeded, so it is filled.
    Ok(unsafe { about.assume_init() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;

    #[test]
    fn pid_and_number_are_filled_in() {
        let pid = text::pid();
        let made = |template: &[u8], number| {
            let mut name = Name::empty();
            name.fill(template, number).map(|()| name.bytes().to_vec())
        };
        let expected = format!("/tmp/{pid}-{pid}.json");
        assert_eq!(made(b"/tmp/%p-%p.json", None), Ok(expected.into_bytes()));
        assert_eq!(made(b"pl\xffain%", None), Ok(b"pl\xffain%".to_vec()));
        assert_eq!(made(b"%n-%%n%x", None), Ok(b"%n-%%n%x".to_vec()));
        assert_eq!(made(b"%n-%%n%x", Some(12)), Ok(b"12-%12%x".to_vec()));
        assert_eq!(made(&[b'x'; 4096], None), Err(libc::ENAMETOOLONG));
    }
}
