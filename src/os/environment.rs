//! The environment and the command line, as the loader left them.

use core::ffi::{CStr, c_char, c_int};
use core::ptr;
use core::sync::atomic::{AtomicI32, AtomicPtr, Ordering::Relaxed};

use super::c_library;
use super::errno;

static ARGC: AtomicI32 = AtomicI32::new(0);
static ARGV: AtomicPtr<*const c_char> = AtomicPtr::new(ptr::null_mut());

unsafe extern "C" {
    static environ: *const *const c_char;
}

/// Keeps the program's arguments, by those of a constructor.
pub(crate) fn keep_arguments(argc: c_int, argv: *mut *const c_char) {
    let (argc, argv) = c_library::arguments(argc, argv);
    ARGC.store(argc, Relaxed);
    ARGV.store(argv, Relaxed);
}

/// The program's arguments, its name first; none if they are unknown.
pub(crate) fn arguments() -> impl Iterator<Item = &'static [u8]> {
    let argv = ARGV.load(Relaxed);
    let count = if argv.is_null() {
        0
    } else {
        usize::try_from(ARGC.load(Relaxed)).unwrap_or(0)
    };
    (0..count).map_while(move |i| {
        // SAFETY: the loader's vector has `argc` entries.
        let entry = unsafe { *argv.add(i) };
        // SAFETY: each is a C string, or NULL at the end.
        (!entry.is_null()).then(|| unsafe { CStr::from_ptr(entry) }.to_bytes())
    })
}

/// The value of an environment variable, if it is set.
pub(crate) fn variable(name: &CStr) -> Option<&'static [u8]> {
    // SAFETY: a C string; the result is NULL or a C string.
    let value = unsafe { libc::getenv(name.as_ptr()) };
    // SAFETY: a C string that lives until the program changes the variable; the library reads its
    // own variables once, at start.
    (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) }.to_bytes())
}

/// Every `NAME=value` of the environment.
pub(crate) fn variables() -> impl Iterator<Item = &'static [u8]> {
    // SAFETY: the C library's own variable.
    let mut entry = unsafe { environ };
    core::iter::from_fn(move || {
        if entry.is_null() {
            return None;
        }
        // SAFETY: the vector ends with NULL, where the walk ends.
        let string = unsafe { *entry };
        if string.is_null() {
            return None;
        }
        // SAFETY: at most at the NULL that ends it.
        entry = unsafe { entry.add(1) };
        // SAFETY: each entry is a C string.
        Some(unsafe { CStr::from_ptr(string) }.to_bytes())
    })
}

/// Whether the program runs with more rights than its user (setuid, file capabilities): then the
/// environment is not trusted.
pub(crate) fn privileged() -> bool {
    // SAFETY: getauxval has no preconditions.
    errno::kept(|| unsafe { libc::getauxval(libc::AT_SECURE) != 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;

    #[test]
    fn the_environment_is_read_to_its_end() {
        let path = variable(c"PATH").expect("PATH is set");
        assert!(variables().any(|entry| entry.strip_prefix(b"PATH=") == Some(path)));
        assert_eq!(variable(c"OBMALLOC_NO_SUCH_VARIABLE"), None);
        assert!(!privileged());
    }

    #[test]
    fn arguments_are_those_that_were_kept() {
        static VECTOR: [usize; 3] = [0; 3];
        assert_eq!(VECTOR.len(), 3);
        let strings = [c"python".as_ptr(), c"-c".as_ptr(), ptr::null()];
        let vector = Box::leak(Box::new(strings));
        keep_arguments(2, vector.as_mut_ptr());
        if cfg!(target_env = "musl") {
            // They are looked for on the stack, which is another one in a test's thread.
            assert_eq!(arguments().count(), 0);
        } else {
            assert_eq!(arguments().collect::<Vec<_>>(), [&b"python"[..], b"-c"]);
        }
        keep_arguments(0, ptr::null_mut());
        assert_eq!(arguments().count(), 0);
    }
}
