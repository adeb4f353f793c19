//! The interposed functions: each starts a program by the next definition of its name, with the
//! environment for that program.
//!
//! `execl`, `system`, `popen` and others call the C library's own `execve`, not by name: they pass the
//! clean environment, and the programs that they start are not served.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::mem;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use crate::environment::{self, Vector};
use crate::kind;
use crate::scratch::{self, Scratch};

type Exec = unsafe extern "C" fn(*const c_char, Vector, Vector) -> c_int;
type Fexec = unsafe extern "C" fn(c_int, Vector, Vector) -> c_int;
type Spawn = unsafe extern "C" fn(
    *mut libc::pid_t,
    *const c_char,
    *const c_void,
    *const c_void,
    Vector,
    Vector,
) -> c_int;

/// The next definition of a name: the C library's, or that of another library in between. It is looked
/// up when this library is loaded, because a child of `fork` must not wait for the loader's lock.
struct Next {
    name: &'static CStr,
    address: AtomicPtr<c_void>,
}

impl Next {
    const fn new(name: &'static CStr) -> Next {
        Next {
            name,
            address: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// The function, with the type `F`.
    ///
    /// # Safety
    /// The function has the type `F`.
    unsafe fn get<F: Copy>(&self) -> Option<F> {
        const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
        let mut address = self.address.load(Relaxed);
        if address.is_null() {
            // SAFETY: a C string.
            address = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
            self.address.store(address, Relaxed);
        }
        // SAFETY: the function has the type `F`, by the contract above.
        (!address.is_null()).then(|| unsafe { mem::transmute_copy(&address) })
    }
}

static EXECVE: Next = Next::new(c"execve");
static EXECVPE: Next = Next::new(c"execvpe");
static FEXECVE: Next = Next::new(c"fexecve");
static SPAWN: Next = Next::new(c"posix_spawn");
static SPAWNP: Next = Next::new(c"posix_spawnp");

/// Looks all functions up.
pub(crate) fn find_next() {
    for next in [&EXECVE, &EXECVPE, &FEXECVE, &SPAWN, &SPAWNP] {
        // SAFETY: a type for any address.
        unsafe { next.get::<*mut c_void>() };
    }
}

fn not_there() -> c_int {
    // SAFETY: this thread's errno.
    unsafe { *libc::__errno_location() = libc::ENOSYS };
    -1
}

/// Calls `start` with the environment for the program.
///
/// # Safety
/// The contract of `environment::entries` for the environment.
unsafe fn with_environment(
    vector: Vector,
    is_python: impl FnOnce(&mut Scratch) -> bool,
    start: impl FnOnce(Vector) -> c_int,
) -> c_int {
    // SAFETY: NULL or a vector of C strings, by the contract above.
    if !unsafe { environment::is_marked(vector) } {
        return start(vector);
    }
    // SAFETY: this thread's errno, which the search must not change.
    let errno = unsafe { *libc::__errno_location() };
    let mut taken = scratch::take();
    let mut envp = vector;
    if let Some(scratch) = taken.as_mut().map(scratch::Taken::scratch)
        && is_python(scratch)
    {
        // SAFETY: the caller's vector and this call's memory live until the program is started.
        envp = unsafe { scratch.restored(vector) };
    }
    // SAFETY: this thread's errno.
    unsafe { *libc::__errno_location() = errno };
    start(envp)
}

/// `execve`
///
/// # Safety
/// The contract of the C library's function.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn execve(path: *const c_char, argv: Vector, envp: Vector) -> c_int {
    // SAFETY: the C library's function has this type.
    let Some(real) = (unsafe { EXECVE.get::<Exec>() }) else {
        return not_there();
    };
    // SAFETY: the caller's arguments, by the contract above.
    unsafe {
        with_environment(
            envp,
            |scratch| kind::text(path).is_some_and(|path| kind::is_python(path, scratch)),
            |envp| real(path, argv, envp),
        )
    }
}

/// `execv`
///
/// # Safety
/// The contract of the C library's function.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn execv(path: *const c_char, argv: Vector) -> c_int {
    // SAFETY: the caller's arguments, by the contract above.
    unsafe { execve(path, argv, environment::own()) }
}

/// `execvpe`
///
/// # Safety
/// The contract of the C library's function.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn execvpe(file: *const c_char, argv: Vector, envp: Vector) -> c_int {
    // SAFETY: the C library's function has this type.
    let Some(real) = (unsafe { EXECVPE.get::<Exec>() }) else {
        return not_there();
    };
    // SAFETY: the caller's arguments, by the contract above.
    unsafe {
        with_environment(
            envp,
            |scratch| kind::text(file).is_some_and(|file| kind::is_python_named(file, scratch)),
            |envp| real(file, argv, envp),
        )
    }
}

/// `execvp`
///
/// # Safety
/// The contract of the C library's function.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn execvp(file: *const c_char, argv: Vector) -> c_int {
    // SAFETY: the caller's arguments, by the contract above.
    unsafe { execvpe(file, argv, environment::own()) }
}

/// `fexecve`
///
/// # Safety
/// The contract of the C library's function.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn fexecve(fd: c_int, argv: Vector, envp: Vector) -> c_int {
    // SAFETY: the C library's function has this type.
    let Some(real) = (unsafe { FEXECVE.get::<Fexec>() }) else {
        return not_there();
    };
    // SAFETY: the caller's arguments, by the contract above.
    unsafe {
        with_environment(
            envp,
            |scratch| kind::is_python_file(fd, scratch),
            |envp| real(fd, argv, envp),
        )
    }
}

/// `posix_spawn`
///
/// # Safety
/// The contract of the C library's function.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn posix_spawn(
    pid: *mut libc::pid_t,
    path: *const c_char,
    actions: *const c_void,
    attributes: *const c_void,
    argv: Vector,
    envp: Vector,
) -> c_int {
    // SAFETY: the C library's function has this type.
    let Some(real) = (unsafe { SPAWN.get::<Spawn>() }) else {
        return libc::ENOSYS;
    };
    // SAFETY: the caller's arguments, by the contract above.
    unsafe {
        with_environment(
            envp,
            |scratch| kind::text(path).is_some_and(|path| kind::is_python(path, scratch)),
            |envp| real(pid, path, actions, attributes, argv, envp),
        )
    }
}

/// `posix_spawnp`
///
/// # Safety
/// The contract of the C library's function.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn posix_spawnp(
    pid: *mut libc::pid_t,
    file: *const c_char,
    actions: *const c_void,
    attributes: *const c_void,
    argv: Vector,
    envp: Vector,
) -> c_int {
    // SAFETY: the C library's function has this type.
    let Some(real) = (unsafe { SPAWNP.get::<Spawn>() }) else {
        return libc::ENOSYS;
    };
    // SAFETY: the caller's arguments, by the contract above.
    unsafe {
        with_environment(
            envp,
            |scratch| kind::text(file).is_some_and(|file| kind::is_python_named(file, scratch)),
            |envp| real(pid, file, actions, attributes, argv, envp),
        )
    }
}
