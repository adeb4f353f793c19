//! Environments: this process's own, cleaned at start, and those of started programs, with the preload
//! restored.

use core::ffi::{CStr, c_char};
use core::ptr;

use crate::scratch::{ENTRIES, Scratch, TEXT};

/// A vector of C strings that ends with NULL.
pub(crate) type Vector = *const *const c_char;

const PRELOAD: &[u8] = b"LD_PRELOAD=";
/// The preload to restore.
const PYTHONS: &[u8] = b"LIBOBMALLOC_PYTHONS=";

unsafe extern "C" {
    static mut environ: *mut *mut c_char;
}

/// This process's environment.
pub(crate) fn own() -> Vector {
    // SAFETY: reads the C library's variable.
    unsafe { environ }.cast_const().cast()
}

/// The entries of an environment.
///
/// # Safety
/// `environment` is NULL, or a vector of C strings that ends with NULL and outlives the result.
pub(crate) unsafe fn entries<'a>(vector: Vector) -> impl Iterator<Item = &'a CStr> {
    let mut at = vector;
    core::iter::from_fn(move || {
        if at.is_null() {
            return None;
        }
        // SAFETY: within the vector, at most at its NULL.
        let entry = unsafe { *at };
        if entry.is_null() {
            return None;
        }
        // SAFETY: before the NULL of the vector; each entry is a C string.
        unsafe {
            at = at.add(1);
            Some(CStr::from_ptr(entry))
        }
    })
}

/// The value of a variable, named with its `=`.
///
/// # Safety
/// The contract of `entries`.
pub(crate) unsafe fn value<'a>(vector: Vector, name: &[u8]) -> Option<&'a [u8]> {
    // SAFETY: the contract of `entries`, by the contract above.
    unsafe { entries(vector) }.find_map(|entry| entry.to_bytes().strip_prefix(name))
}

fn words(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let words = value.split(|byte| b" :".contains(byte));
    words.filter(|word| !word.is_empty())
}

fn is_ours(word: &[u8], ours: &[u8]) -> bool {
    words(ours).any(|own| own == word)
}

/// Whether a word means the runtime of a sanitizer, which has to come first (as in
/// `cli/src/preload.rs`).
fn is_sanitizer(word: &[u8]) -> bool {
    const NAMES: [&[u8]; 11] = [
        b"libasan.so",
        b"liblsan.so",
        b"libtsan.so",
        b"libubsan.so",
        b"libhwasan.so",
        b"libclang_rt.asan",
        b"libclang_rt.lsan",
        b"libclang_rt.tsan",
        b"libclang_rt.ubsan",
        b"libclang_rt.hwasan",
        b"libclang_rt.memprof",
    ];
    let name = word.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    NAMES.iter().any(|start| name.starts_with(start))
}

/// Removes this library's words from LD_PRELOAD in this process's environment. The entry is overwritten
/// in place: it only becomes shorter.
pub(crate) fn clean_own() {
    // SAFETY: the loader's environment, before the program has any thread.
    let Some(ours) = (unsafe { value(own(), PYTHONS) }) else {
        return;
    };
    // SAFETY: the loader's environment, before the program has any thread.
    let count = unsafe { entries(own()) }.count();
    // SAFETY: the loader's vector has this many entries and NULL.
    let vector = unsafe { core::slice::from_raw_parts_mut(environ, count + 1) };
    let is_preload = |entry: &*mut c_char| {
        // SAFETY: an entry that is not NULL is a C string.
        !entry.is_null()
            && unsafe { CStr::from_ptr(*entry) }
                .to_bytes()
                .starts_with(PRELOAD)
    };
    let Some(place) = vector.iter().position(is_preload) else {
        return;
    };
    // SAFETY: a writable C string, which ends at its NUL.
    let text = unsafe {
        let len = CStr::from_ptr(vector[place]).count_bytes();
        core::slice::from_raw_parts_mut(vector[place].cast::<u8>(), len + 1)
    };
    let (mut to, mut from) = (PRELOAD.len(), PRELOAD.len());
    let end = text.len() - 1;
    while from < end {
        let rest = &text[from..end];
        let len = rest
            .iter()
            .position(|byte| b" :".contains(byte))
            .unwrap_or(rest.len());
        if len > 0 && !is_ours(&rest[..len], ours) {
            if to > PRELOAD.len() {
                text[to] = b':';
                to += 1;
            }
            text.copy_within(from..from + len, to);
            to += len;
        }
        from += len + 1;
    }
    text[to] = 0;
    if to == PRELOAD.len() {
        vector.copy_within(place + 1.., place);
    }
}

impl Scratch {
    /// The environment of a program that is linked with a CPython: with the preload restored. One that
    /// exceeds the room is unchanged, and its program is not served.
    ///
    /// # Safety
    /// The contract of `entries`. The result is valid while `self` and the vector live.
    pub(crate) unsafe fn restored(&mut self, vector: Vector) -> Vector {
        // SAFETY: the contract of `entries`, by the contract above.
        let Some(ours) = (unsafe { value(vector, PYTHONS) }) else {
            return vector;
        };
        // SAFETY: the contract of `entries`, by the contract above.
        let theirs = unsafe { value(vector, PRELOAD) }.unwrap_or_default();
        let theirs = || words(theirs).filter(|word| !is_ours(word, ours));
        let first = theirs().filter(|word| is_sanitizer(word));
        let last = theirs().filter(|word| !is_sanitizer(word));
        let all = first.chain([ours]).chain(last);
        let mut len = 0;
        for (i, part) in [PRELOAD].into_iter().chain(all).enumerate() {
            let colon = usize::from(i > 1);
            if len + colon + part.len() + 1 > TEXT {
                return vector;
            }
            self.text[len..len + colon].fill(b':');
            self.text[len + colon..len + colon + part.len()].copy_from_slice(part);
            len += colon + part.len();
        }
        self.text[len] = 0;
        let mut count = 0;
        // SAFETY: the contract of `entries`, by the contract above.
        for entry in unsafe { entries(vector) } {
            if entry.to_bytes().starts_with(PRELOAD) {
                continue;
            }
            if count + 2 >= ENTRIES {
                return vector;
            }
            self.entries[count] = entry.as_ptr();
            count += 1;
        }
        self.entries[count] = self.text.as_ptr().cast();
        self.entries[count + 1] = ptr::null();
        self.entries.as_ptr()
    }
}

/// Whether the program that gets this environment may be served.
///
/// # Safety
/// The contract of `entries`.
pub(crate) unsafe fn is_marked(vector: Vector) -> bool {
    // SAFETY: the contract of `entries`, by the contract above.
    unsafe { value(vector, PYTHONS) }.is_some()
}
