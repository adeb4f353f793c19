//! The functions that the loader calls: the constructor before `main`, and the destructor at exit. A
//! call is right without either: see `dispatch.rs`.

use core::ffi::{c_char, c_int};

use crate::background::at_exit;
use crate::background::fork;
use crate::config;
use crate::cpython::state::host_version;
use crate::cpython::{attach, dispatch};
#[cfg(not(test))]
use crate::os::arch::pass_return_address;
use crate::os::{descriptor, environment};
use crate::stats::dumps;

/// Called by the `_init` of each object that is loaded, also before the library's constructor: see
/// `dispatch.rs`. (A program that is linked for gprof has its own function of this name; then a second
/// CPython goes unnoticed.) In the archive it is local.
#[cfg(not(test))]
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn __gmon_start__() {
    pass_return_address!(object_loaded)
}

#[cfg(not(test))]
extern "C" fn object_loaded(address: usize) {
    dispatch::object_loaded(address);
}

/// glibc passes constructors the arguments of `main`, musl nothing (`os/c_library.rs`).
unsafe extern "C" fn constructor(argc: c_int, argv: *mut *const c_char) {
    descriptor::note();
    environment::keep_arguments(argc, argv);
    // Before those of other libraries: then no lock is held when their prepare handlers run.
    fork::register_at_start();
    dispatch::start();
}

/// Unmaps and resets nothing: daemon threads and the host's own exit continue.
unsafe extern "C" fn destructor() {
    attach::at_exit();
    at_exit::report(host_version(), config::stats());
    dumps::exit();
}

#[cfg(not(test))]
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: unsafe extern "C" fn(c_int, *mut *const c_char) = constructor;

#[cfg(not(test))]
#[used]
#[unsafe(link_section = ".fini_array")]
static DESTRUCTOR: unsafe extern "C" fn() = destructor;

#[cfg(test)]
const _: (
    unsafe extern "C" fn(c_int, *mut *const c_char),
    unsafe extern "C" fn(),
) = (constructor, destructor);
