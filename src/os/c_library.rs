//! The differences between the C libraries: glibc, and musl (Alpine, Void).
//!
//! | | glibc | musl | where |
//! |---|---|---|---|
//! | constructors get | `argc`, `argv` | nothing | [`arguments`] |
//! | the program's name in the loader's list | empty | `argv[0]` | [`is_program`] |
//! | type of a limit's number | unsigned | signed | [`Resource`] |
//! | thread-local storage of a library that is opened late | a reserve for initial-exec | by TLS descriptors only | `thread_word.rs` |
//! | `_init` of a loaded object calls `__gmon_start__` | yes | no | `cpython/dispatch.rs` |
//! | whether there is one thread | `__libc_single_threaded` (newer versions) | by `/proc` | `apart.rs` |
//! | `mallinfo2`, `backtrace`, `__pthread_get_minstack` | newer versions | none | the callers: each is a weak symbol, or looked up |
//!
//! The last row is decided when the process runs, all others when the library is built: a library
//! for one of them cannot be loaded by the other.

use core::ffi::{c_char, c_int};

/// The number of a limit (`RLIMIT_NOFILE`).
#[cfg(not(target_env = "musl"))]
pub(crate) type Resource = libc::__rlimit_resource_t;
#[cfg(target_env = "musl")]
pub(crate) type Resource = c_int;

/// The arguments of `main`, from those that the loader passed to a constructor.
#[cfg(not(target_env = "musl"))]
#[inline(always)]
pub(crate) fn arguments(argc: c_int, argv: *mut *const c_char) -> (c_int, *mut *const c_char) {
    (argc, argv)
}

/// The arguments of `main`, which the loader does not pass to a constructor: the vector is on the
/// stack, above this function's frame, because the process has begun with it there.
///
/// ```text
///    this frame ... main's caller | argc | argv[0] ... argv[argc - 1] | 0 | environment | ...
/// ```
///
/// The vector is found by `argv[0]`, which the C library keeps. (`environ` would lead to it too, but
/// another library's constructor may have replaced it.) None is found if the program was started
/// without a name.
#[cfg(target_env = "musl")]
pub(crate) fn arguments(_: c_int, _: *mut *const c_char) -> (c_int, *mut *const c_char) {
    use core::ptr;
    unsafe extern "C" {
        static program_invocation_name: *const c_char;
    }
    const NONE: (c_int, *mut *const c_char) = (0, ptr::null_mut());
    // SAFETY: the C library's own variable, which it has set before it calls constructors.
    let name = unsafe { program_invocation_name }.expose_provenance();
    // SAFETY: getauxval has no preconditions.
    let end = super::errno::kept(|| unsafe { libc::getauxval(libc::AT_RANDOM) }) as usize;
    let here = (&raw const name).expose_provenance();
    if name == 0 || !(here..here.saturating_add(STACK_MAX)).contains(&end) {
        return NONE; // not the first thread's stack
    }
    let word = |at: usize| {
        // SAFETY: from this frame to the kernel's 16 random bytes, which are above the vector, all
        // is the stack of this thread. It is read as words, at addresses that are aligned to words;
        // volatile, because the compiler need not have written the words of its frames.
        unsafe { ptr::with_exposed_provenance::<usize>(at).read_volatile() }
    };
    const SIZE: usize = size_of::<usize>();
    // The end is not aligned.
    let words = here.next_multiple_of(SIZE)..end & !(SIZE - 1);
    for at in words.clone().step_by(SIZE).skip(1) {
        let count = word(at - SIZE);
        if word(at) == name
            && count <= (words.end - at) / SIZE
            && words.contains(&(at + count * SIZE))
            && word(at + count * SIZE) == 0
            && (1..count).all(|n| word(at + n * SIZE) != 0)
        {
            let count = c_int::try_from(count).unwrap_or(0);
            return (count, ptr::with_exposed_provenance_mut(at));
        }
    }
    NONE
}

/// Maximum bytes between a constructor's frame and the end of the stack: as many as the kernel
/// allows for arguments and environment, and some for the frames.
#[cfg(target_env = "musl")]
const STACK_MAX: usize = 8 << 20;

/// Whether an object with this name in the loader's list is the program.
#[cfg(not(target_env = "musl"))]
#[inline(always)]
pub(crate) fn is_program(name: *const c_char, _: *const libc::Elf64_Phdr) -> bool {
    // SAFETY: NULL or the loader's C string.
    name.is_null() || unsafe { *name } == 0
}

/// Whether an object with these program headers is the program, which is the first in the list.
#[cfg(target_env = "musl")]
pub(crate) fn is_program(_: *const c_char, headers: *const libc::Elf64_Phdr) -> bool {
    use core::{ffi::c_void, ptr};
    unsafe extern "C" fn first(
        info: *mut libc::dl_phdr_info,
        _: usize,
        found: *mut c_void,
    ) -> c_int {
        // SAFETY: the loader's description, and the variable that `is_program` passed.
        unsafe { *found.cast::<*const libc::Elf64_Phdr>() = (*info).dlpi_phdr };
        1
    }
    let mut program = ptr::null::<libc::Elf64_Phdr>();
    let look = || {
        // SAFETY: `first` gets the variable back, and only during the call.
        unsafe { libc::dl_iterate_phdr(Some(first), (&raw mut program).cast()) }
    };
    super::errno::kept(|| super::loader::with(look));
    headers == program
}
