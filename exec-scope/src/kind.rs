//! Whether a file is a program that is linked with a CPython, by its dynamic string table. For a script
//! its interpreter (`#!`) decides.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr;

use crate::environment;
use crate::scratch::{CHUNK, Scratch};

/// Maximum scripts that name scripts.
const DEPTH: u32 = 4;

/// Names that only these programs have: a library that they need, or a function of CPython that they
/// define or call. Each follows a `\0` in the table.
const NAMES: [&[u8]; 4] = [
    b"\0libpython",
    b"\0Py_BytesMain\0",
    b"\0Py_Main\0",
    b"\0Py_Initialize",
];

/// Whether the file at this path is linked with a CPython.
pub(crate) fn is_python(path: &CStr, scratch: &mut Scratch) -> bool {
    is_python_at(path, DEPTH, scratch)
}

/// Whether the program that a name finds in PATH is linked with a CPython.
pub(crate) fn is_python_named(name: &CStr, scratch: &mut Scratch) -> bool {
    is_named(name.to_bytes(), DEPTH, scratch)
}

fn is_python_at(path: &CStr, depth: u32, scratch: &mut Scratch) -> bool {
    is_python_if_open(open(path), depth, scratch)
}

fn open(path: &CStr) -> c_int {
    // SAFETY: a C string.
    unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) }
}

fn is_python_if_open(fd: c_int, depth: u32, scratch: &mut Scratch) -> bool {
    if fd < 0 {
        return false;
    }
    let answer = is_python_open(fd, depth, scratch);
    // SAFETY: a descriptor opened above.
    unsafe { libc::close(fd) };
    answer
}

/// Whether an open file is linked with a CPython.
pub(crate) fn is_python_file(fd: c_int, scratch: &mut Scratch) -> bool {
    is_python_open(fd, DEPTH, scratch)
}

fn is_python_open(fd: c_int, depth: u32, scratch: &mut Scratch) -> bool {
    let mut head = [0; 256];
    let len = read(fd, &mut head, 0);
    match head[..len].strip_prefix(b"#!") {
        Some(line) if depth > 0 => is_python_script(line, depth - 1, scratch),
        Some(_) => false,
        None => {
            len >= 64
                && head.starts_with(b"\x7fELF\x02\x01")
                && has_names(fd, &head, &mut scratch.chunk)
        }
    }
}

fn is_python_script(line: &[u8], depth: u32, scratch: &mut Scratch) -> bool {
    let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let mut words = line
        .split(|byte| b" \t".contains(byte))
        .filter(|word| !word.is_empty());
    let Some(interpreter) = words.next() else {
        return false;
    };
    let is_env = interpreter.rsplit(|&byte| byte == b'/').next() == Some(b"env");
    if !is_env {
        return is_named(interpreter, depth, scratch);
    }
    // env passes the environment on. Its options and variables come first.
    let program = words.find(|word| !word.starts_with(b"-") && !word.contains(&b'='));
    program.is_some_and(|program| is_named(program, depth, scratch))
}

/// A path, or a name in one of PATH's folders: the first that can be executed.
fn is_named(name: &[u8], depth: u32, scratch: &mut Scratch) -> bool {
    if name.contains(&b'/') {
        let fd = join(&mut scratch.path, b"", name).map_or(-1, open);
        return is_python_if_open(fd, depth, scratch);
    }
    // SAFETY: the process's own environment.
    let folders = unsafe { environment::value(environment::own(), b"PATH=") };
    for folder in folders
        .unwrap_or(b"/bin:/usr/bin")
        .split(|&byte| byte == b':')
    {
        let Some(path) = join(&mut scratch.path, folder, name) else {
            continue;
        };
        // SAFETY: a C string.
        if unsafe { libc::access(path.as_ptr(), libc::X_OK) } == 0 {
            let fd = open(path);
            return is_python_if_open(fd, depth, scratch);
        }
    }
    false
}

fn join<'a>(to: &'a mut [u8], folder: &[u8], name: &[u8]) -> Option<&'a CStr> {
    let slash: &[u8] = if folder.is_empty() { b"" } else { b"/" };
    let mut len = 0;
    for part in [folder, slash, name, b"\0"] {
        to.get_mut(len..len + part.len())?.copy_from_slice(part);
        len += part.len();
    }
    CStr::from_bytes_with_nul(&to[..len]).ok()
}

/// Looks through the strings of the dynamic section.
fn has_names(fd: c_int, head: &[u8], chunk: &mut [u8; CHUNK]) -> bool {
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .rev()
            .fold(0, |n, &byte| n << 8 | u64::from(byte))
    };
    let (table, size, count) = (
        number(&head[32..40]),
        number(&head[54..56]),
        number(&head[56..58]),
    );
    // Offset, address and size in the file.
    let segment = |i: u64| {
        let mut entry = [0; 56];
        let at = table.saturating_add(i * size);
        (read(fd, &mut entry, at) == entry.len()).then(|| {
            let kind = number(&entry[..4]) as u32;
            (kind, [8, 16, 32].map(|at| number(&entry[at..at + 8])))
        })
    };
    let segments = || (0..count).map_while(segment);
    let Some((_, [dynamic, _, bytes])) = segments().find(|each| each.0 == libc::PT_DYNAMIC) else {
        return false;
    };
    let (mut strings, mut len) = (0, 0);
    for i in 0..bytes / 16 {
        let mut entry = [0; 16];
        if read(fd, &mut entry, dynamic.saturating_add(i * 16)) < entry.len() {
            break;
        }
        match number(&entry[..8]) {
            0 => break,
            5 => strings = number(&entry[8..]), // DT_STRTAB
            10 => len = number(&entry[8..]),    // DT_STRSZ
            _ => {}
        }
    }
    let holds = |&(kind, [_, address, size]): &(u32, [u64; 3])| {
        kind == libc::PT_LOAD && strings.wrapping_sub(address) < size
    };
    let Some((_, [offset, address, _])) = segments().find(holds) else {
        return false;
    };
    // The table begins with a NUL. Chunks overlap by more than a name's length.
    let (mut at, end) = (strings - address + offset, strings - address + offset + len);
    while at < end {
        let wanted = CHUNK.min((end - at) as usize);
        let got = read(fd, &mut chunk[..wanted], at);
        if NAMES.iter().any(|name| contains(&chunk[..got], name)) {
            return true;
        }
        if got < CHUNK {
            return false;
        }
        at += (CHUNK - 32) as u64;
    }
    false
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    let (start, wanted) = (
        bytes.as_ptr().cast::<c_void>(),
        part.as_ptr().cast::<c_void>(),
    );
    // SAFETY: both slices are readable over their lengths.
    !unsafe { libc::memmem(start, bytes.len(), wanted, part.len()) }.is_null()
}

fn read(fd: c_int, bytes: &mut [u8], at: u64) -> usize {
    let Ok(at) = i64::try_from(at) else {
        return 0;
    };
    // SAFETY: a slice is writable over its length.
    let n = unsafe { libc::pread(fd, bytes.as_mut_ptr().cast::<c_void>(), bytes.len(), at) };
    usize::try_from(n).unwrap_or(0)
}

/// The caller's C string, if it is not NULL.
///
/// # Safety
/// `text` is NULL or a C string that outlives the result.
pub(crate) unsafe fn text<'a>(pointer: *const c_char) -> Option<&'a CStr> {
    // SAFETY: a C string that outlives the result, by the contract above.
    (!ptr::eq(pointer, ptr::null())).then(|| unsafe { CStr::from_ptr(pointer) })
}
