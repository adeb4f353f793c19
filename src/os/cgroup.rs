//! The memory limit of the process's cgroup, and the memory in use. Both versions of cgroups, at
//! the usual mount points.
//!
//! ```text
//!    /proc/self/cgroup      0::/a/b                 5:cpu,memory:/a/b
//!    read, from the root    /sys/fs/cgroup          /sys/fs/cgroup/memory
//!      down                 .../a, .../a/b          .../a, .../a/b
//!    limit                  memory.high, .max       memory.limit_in_bytes
//!    in use                 memory.current          memory.usage_in_bytes
//!      less pages of files that the kernel can drop (memory.stat)
//! ```
//!
//! The group with the smallest limit counts. In a container the path may be visible from outside
//! only; then the root, which is the container's own group, is the only one.
//!
//! # Threads
//!
//! `find` is called at start; `in_use` by any thread.

use core::ffi::CStr;
use core::fmt::Write;

use super::file::read;
use super::memory;
use super::text::Buffer;

const PATH_MAX: usize = 512;
/// Bytes of the longest file that is read: memory.stat has some 1500. They are mapped for the
/// reading, because a thread may have a stack of 16 KiB with the caller's frames on it.
const FILE_MAX: usize = 8 * 1024;
/// Bytes of a file that holds one number.
const NUMBER_MAX: usize = 32;

/// A group in one of the two hierarchies.
#[derive(Clone, Copy)]
pub(crate) struct Group {
    files: &'static Files,
    path: [u8; PATH_MAX],
}

/// The names of the files of a hierarchy.
struct Files {
    root: &'static str,
    high: Option<&'static str>,
    max: &'static str,
    usage: &'static str,
    /// The line of `memory.stat` with the pages that can be dropped.
    files: [&'static str; 2],
}

static UNIFIED: Files = Files {
    root: "/sys/fs/cgroup",
    high: Some("memory.high"),
    max: "memory.max",
    usage: "memory.current",
    files: ["active_file ", "inactive_file "],
};

static SPLIT: Files = Files {
    root: "/sys/fs/cgroup/memory",
    high: None,
    max: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    files: ["total_active_file ", "total_inactive_file "],
};

/// The limits of a group, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Above it the kernel reclaims and throttles.
    pub high: usize,
    /// Above it the kernel kills.
    pub max: usize,
}

/// The process's group with the smallest limit, if one has a limit.
pub(crate) fn find() -> Option<(Group, Limits)> {
    with_long_file(c"/proc/self/cgroup", |lines| {
        find_in(lines, &SPLIT, "").or_else(|| find_in(lines, &UNIFIED, ""))
    })?
}

/// The result of `then` with the content of the file at `path`; `None` if it cannot be read.
fn with_long_file<T>(path: &CStr, then: impl FnOnce(&str) -> T) -> Option<T> {
    let size = FILE_MAX.next_multiple_of(memory::page_size());
    let place = memory::map(size)?;
    // SAFETY: a new mapping, zero, which only this call uses until it unmaps it.
    let buffer = unsafe { core::slice::from_raw_parts_mut(place.as_ptr(), size) };
    let result = read(path, buffer).map(then);
    // SAFETY: mapped above; `buffer` is used no more, and `result` does not borrow it.
    unsafe { memory::unmap(place, size) };
    result
}

/// The group in the hierarchy of `files`, whose root is in `prefix`, for a process with these
/// `lines` in `/proc/self/cgroup`.
fn find_in(lines: &str, files: &'static Files, prefix: &str) -> Option<(Group, Limits)> {
    let path = lines.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let is_it = match files.high {
            Some(_) => controllers.is_empty(),
            None => controllers.split(',').any(|name| name == "memory"),
        };
        is_it.then_some(path)
    })?;
    // The root, and each group from there down to the process's own.
    let ends = path.char_indices().filter(|&(at, c)| at > 0 && c == '/');
    let ends = [0].into_iter().chain(ends.map(|(at, _)| at));
    let whole = (path.len() > 1).then_some(path.len());
    let mut found: Option<(Group, Limits)> = None;
    for end in ends.chain(whole) {
        let Some(group) = Group::at(files, prefix, &path[..end]) else {
            continue;
        };
        let limits = group.limits();
        let smallest = found.map_or(usize::MAX, |(_, limits)| limits.high.min(limits.max));
        if limits.high.min(limits.max) < smallest {
            found = Some((group, limits));
        }
    }
    found
}

impl Group {
    fn at(files: &'static Files, prefix: &str, path: &str) -> Option<Group> {
        let mut bytes = [0; PATH_MAX];
        let mut text = Buffer::new(&mut bytes);
        write!(text, "{prefix}{}{path}", files.root).ok()?;
        let len = text.end();
        (len < PATH_MAX).then_some(Group { files, path: bytes })
    }

    fn limits(&self) -> Limits {
        // "max", or in version 1 a number close to 2^63, is no limit.
        let number = |name| self.number(name).filter(|&n| n < usize::MAX / 4);
        Limits {
            high: self.files.high.and_then(number).unwrap_or(usize::MAX),
            max: number(self.files.max).unwrap_or(usize::MAX),
        }
    }

    /// Bytes in use that the kernel cannot drop; `None` if the file cannot be read.
    pub(crate) fn in_use(&self) -> Option<usize> {
        let usage = self.number(self.files.usage)?;
        let droppable = self.with_path("memory.stat", |path| {
            with_long_file(path, |text| {
                text.lines().map(|line| self.droppable(line)).sum()
            })
        });
        Some(usage.saturating_sub(droppable.unwrap_or(0)))
    }

    /// Bytes that can be dropped, by a line of `memory.stat`.
    fn droppable(&self, line: &str) -> usize {
        let number = self.files.files.iter().find_map(|name| {
            let rest = line.strip_prefix(name)?;
            rest.trim().parse().ok()
        });
        number.unwrap_or(0)
    }

    fn number(&self, name: &str) -> Option<usize> {
        self.with_path(name, |path| {
            let mut buffer = [0; NUMBER_MAX];
            read(path, &mut buffer)?.trim().parse().ok()
        })
    }

    /// The result of `then` with the path of this file of the group.
    fn with_path<T>(&self, name: &str, then: impl FnOnce(&CStr) -> Option<T>) -> Option<T> {
        let mut path = [0; PATH_MAX + 32];
        let mut text = Buffer::new(&mut path);
        let end = self.path.iter().position(|&byte| byte == 0).unwrap_or(0);
        let group = core::str::from_utf8(&self.path[..end]).unwrap_or_default();
        if write!(text, "{group}/{name}").is_err() || text.end() > PATH_MAX {
            return None;
        }
        then(CStr::from_bytes_until_nul(&path).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;
    use std::fs;
    use std::path::PathBuf;

    /// A tree of files in a directory of its own.
    fn tree(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let root = std::env::temp_dir().join(format!("obmalloc-{name}-{}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_smallest_limit_on_the_way_counts() {
        let root = tree(
            "v2",
            &[
                ("sys/fs/cgroup/a/memory.max", "1000000\n"),
                ("sys/fs/cgroup/a/memory.high", "max\n"),
                ("sys/fs/cgroup/a/memory.current", "900000\n"),
                (
                    "sys/fs/cgroup/a/memory.stat",
                    "anon 1\ninactive_file 200000\nactive_file 100000\n",
                ),
                ("sys/fs/cgroup/a/b/memory.max", "max\n"),
                ("sys/fs/cgroup/a/b/memory.high", "2000000\n"),
            ],
        );
        let (group, limits) = find_in("0::/a/b\n", &UNIFIED, root.to_str().unwrap()).unwrap();
        assert_eq!(
            limits,
            Limits {
                high: usize::MAX,
                max: 1_000_000
            }
        );
        assert_eq!(group.in_use(), Some(600_000));
        assert!(find_in("0::/\n", &UNIFIED, root.to_str().unwrap()).is_none());
        assert!(find_in("5:cpu:/a/b\n", &UNIFIED, root.to_str().unwrap()).is_none());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_path_from_outside_of_the_container_leads_to_its_root() {
        let dir = "sys/fs/cgroup/memory/";
        let root = tree(
            "v1",
            &[
                (&format!("{dir}memory.limit_in_bytes"), "5000000\n"),
                (&format!("{dir}memory.usage_in_bytes"), "300\n"),
                (
                    &format!("{dir}memory.stat"),
                    "inactive_file 7\ntotal_inactive_file 100\n",
                ),
            ],
        );
        let lines = "3:cpu,memory:/docker/0123\n0::/x\n";
        let (group, limits) = find_in(lines, &SPLIT, root.to_str().unwrap()).unwrap();
        assert_eq!(limits.max, 5_000_000);
        assert_eq!(group.in_use(), Some(200));
        fs::write(
            root.join(dir).join("memory.limit_in_bytes"),
            "9223372036854771712",
        )
        .unwrap();
        assert!(find_in(lines, &SPLIT, root.to_str().unwrap()).is_none());
        fs::remove_dir_all(root).unwrap();
    }
}
