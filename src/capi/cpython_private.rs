//! The private names that a CPython build needs of its `obmalloc.o`. Only the archive has them.
//!
//! Each is a weak symbol that jumps to a function here. Weak, so that a name which the build defines
//! itself wins; made by the assembler, so that the shared library, which exports Rust's names, does
//! not export it. One archive serves all versions: a name means the same in each version that has
//! it. `tests/abi/needed/` has the names by version.
//!
//! Debug builds need the debug hooks by name. From 3.12 on a version's tables in `_PyRuntime` start
//! with these names and are never read: the library has its own tables (`domains/`).

use core::arch::global_asm;
use core::ffi::{CStr, c_char, c_int, c_void};

use crate::arena::chunk;
use crate::base::vtable;
use crate::cpython::dispatch;
use crate::domains::adapter::{self, Checked, Functions};
use crate::domains::compat;
use crate::domains::debug::hooks::{Freely, WithGil};
use crate::domains::domain::Domain;
use crate::domains::ffi::PyMemAllocatorEx;
use crate::domains::names::{self, Name};
use crate::domains::pymalloc::Pymalloc;
use crate::domains::raw::Malloc;
use crate::os::arch;
use crate::os::text::CFile;
use crate::stats::debug_stats;

/// Defines names that only the archive has, each a jump to a function.
macro_rules! names {
    ($($name:literal => $function:path;)*) => { $(
        global_asm!(
            ".pushsection .text.obmalloc_names, \"ax\", @progbits",
            concat!(".weak ", $name),
            concat!(".type ", $name, ", @function"),
            concat!($name, ": ", arch::jump!(), "{function}"),
            concat!(".size ", $name, ", . - ", $name),
            ".popsection",
            function = sym $function,
        );
    )* };
}

names! {
    "_PyMem_RawStrdup" => raw_strdup;
    "_PyMem_Strdup" => mem_strdup;
    "_PyMem_RawWcsdup" => raw_wcsdup;
    "_PyMem_DefaultRawWcsdup" => default_raw_wcsdup;

    "_PyMem_SetDefaultAllocator" => set_default_allocator;
    "_PyMem_GetAllocatorName" => get_allocator_name;
    "_PyMem_IsFreed" => is_freed;

    "_PyDebugAllocatorStats" => allocator_stats;
    "_Py_GetGlobalAllocatedBlocks" => allocated_blocks;
    "_PyInterpreterState_GetAllocatedBlocks" => blocks_of_interpreter;
    "_PyInterpreterState_FinalizeAllocatedBlocks" => nothing;
    "_Py_FinalizeAllocatedBlocks" => nothing;

    "_PyMem_RawMalloc" => vtable::plain::malloc::<Malloc>;
    "_PyMem_RawCalloc" => vtable::plain::calloc::<Malloc>;
    "_PyMem_RawRealloc" => vtable::plain::realloc::<Malloc>;
    "_PyMem_RawFree" => vtable::plain::free::<Malloc>;
    "_PyMem_DefaultRawMalloc" => adapter::plain::malloc::<Checked<Malloc>>;
    "_PyMem_DefaultRawCalloc" => adapter::plain::calloc::<Checked<Malloc>>;
    "_PyMem_DefaultRawRealloc" => adapter::plain::realloc::<Checked<Malloc>>;
    "_PyMem_DefaultRawFree" => adapter::plain::free::<Malloc>;
    "_PyObject_Malloc" => vtable::hot::malloc::<Pymalloc>;
    "_PyObject_Calloc" => vtable::hot::calloc::<Pymalloc>;
    "_PyObject_Realloc" => vtable::hot::realloc::<Pymalloc>;
    "_PyObject_Free" => vtable::hot::free::<Pymalloc>;

    "_PyMem_DebugRawMalloc" => vtable::plain::malloc::<Freely>;
    "_PyMem_DebugRawCalloc" => vtable::plain::calloc::<Freely>;
    "_PyMem_DebugRawRealloc" => vtable::plain::realloc::<Freely>;
    "_PyMem_DebugRawFree" => vtable::plain::free::<Freely>;
    "_PyMem_DebugMalloc" => vtable::plain::malloc::<WithGil>;
    "_PyMem_DebugCalloc" => vtable::plain::calloc::<WithGil>;
    "_PyMem_DebugRealloc" => vtable::plain::realloc::<WithGil>;
    "_PyMem_DebugFree" => vtable::plain::free::<WithGil>;

    "_PyMem_ArenaAlloc" => chunk::standard_alloc;
    "_PyMem_ArenaFree" => chunk::standard_free;
    "_PyObject_VirtualAlloc" => virtual_alloc;
    "_PyObject_VirtualFree" => virtual_free;

    "_PyMem_init_obmalloc" => no;
    "_PyMem_obmalloc_state_on_heap" => no;
    "_PyMem_AbandonDelayed" => nothing;
    "_PyMem_FiniDelayed" => nothing;
    "_PyMem_ProcessDelayed" => nothing;
    "_PyMem_FreeDelayed" => mem_free;
    "_PyObject_FreeDelayed" => object_free;
}

// The state of tracemalloc in 3.8 to 3.11, which all objects read: `initialized`, `tracing`,
// `max_nframe` = 1, and in 3.8 `use_domain`.
global_asm!(
    ".pushsection .data.obmalloc_names, \"aw\", @progbits",
    ".weak _Py_tracemalloc_config",
    ".type _Py_tracemalloc_config, @object",
    ".balign 16",
    "_Py_tracemalloc_config: .long 0, 0, 1, 0",
    ".size _Py_tracemalloc_config, 16",
    ".popsection",
);

// The library's own `_PyMem_RawStrdup`, for `symbols::is_in_place`.
global_asm!(
    ".weak obmalloc_raw_strdup",
    ".hidden obmalloc_raw_strdup",
    ".set obmalloc_raw_strdup, _PyMem_RawStrdup",
);

fn raw_domain() -> Functions {
    dispatch::current().raw
}

/// Copies `bytes` bytes at `from` to a block of `malloc`.
unsafe fn duplicate(malloc: adapter::Malloc, from: *const c_void, bytes: usize) -> *mut c_void {
    // SAFETY: an exported malloc takes any size.
    let copy = unsafe { malloc(bytes) };
    if !copy.is_null() {
        // SAFETY: the caller's bytes, and a new block with room for them.
        unsafe { copy.copy_from_nonoverlapping(from, bytes) };
    }
    copy
}

unsafe extern "C" fn raw_strdup(text: *const c_char) -> *mut c_char {
    // SAFETY: CPython passes a C string.
    let bytes = unsafe { CStr::from_ptr(text) }.to_bytes_with_nul().len();
    // SAFETY: CPython's string has `bytes` bytes with its end.
    unsafe { duplicate(raw_domain().malloc, text.cast(), bytes).cast() }
}

unsafe extern "C" fn mem_strdup(text: *const c_char) -> *mut c_char {
    // SAFETY: CPython's string has `bytes` bytes with its end.
    let bytes = unsafe { CStr::from_ptr(text) }.to_bytes_with_nul().len();
    // SAFETY: CPython's string has `bytes` bytes with its end.
    unsafe { duplicate(dispatch::current().mem.malloc, text.cast(), bytes).cast() }
}

unsafe extern "C" fn raw_wcsdup(text: *const libc::wchar_t) -> *mut libc::wchar_t {
    // SAFETY: CPython's string has `bytes` bytes with its end.
    unsafe { duplicate(raw_domain().malloc, text.cast(), wide_bytes(text)).cast() }
}

unsafe extern "C" fn default_raw_wcsdup(text: *const libc::wchar_t) -> *mut libc::wchar_t {
    // SAFETY: CPython's string has `bytes` bytes with its end.
    unsafe {
        duplicate(
            adapter::plain::malloc::<Checked<Malloc>>,
            text.cast(),
            wide_bytes(text),
        )
        .cast()
    }
}

unsafe fn wide_bytes(text: *const libc::wchar_t) -> usize {
    // SAFETY: CPython passes a wide string that ends with 0.
    let len = unsafe { libc::wcslen(text) };
    (len + 1).saturating_mul(size_of::<libc::wchar_t>())
}

/// 3.7 to 3.13: sets the default table of a domain, and stores the old one in `old`. (3.14 has other
/// functions for the same purpose.)
unsafe extern "C" fn set_default_allocator(domain: c_int, old: *mut PyMemAllocatorEx) -> c_int {
    let Some(domain) = Domain::with_number(domain) else {
        return -1;
    };
    if !old.is_null() {
        // SAFETY: not NULL: CPython passes room for a table.
        unsafe { *old = domain.get().into() };
    }
    names::install_default(domain);
    dispatch::tables_changed();
    0
}

unsafe extern "C" fn get_allocator_name(text: *const c_char, name: *mut c_int) -> c_int {
    let text = if text.is_null() {
        c""
    } else {
        // SAFETY: CPython passes a C string.
        unsafe { CStr::from_ptr(text) }
    };
    match Name::of(text) {
        Some(known) => {
            // SAFETY: CPython passes room for the number.
            unsafe { *name = known as c_int };
            0
        }
        None => -1,
    }
}

/// 3.6: whether the bytes are those of a block that was freed under the debug hooks.
unsafe extern "C" fn is_freed(p: *const u8, n: usize) -> c_int {
    let dead = compat::debug_style().dead;
    // SAFETY: CPython passes `n` readable bytes.
    let all = (0..n).all(|i| unsafe { p.add(i).read() } == dead);
    all.into()
}

unsafe extern "C" fn allocator_stats(
    out: *mut libc::FILE,
    name: *const c_char,
    objects: c_int,
    size: usize,
) {
    // SAFETY: CPython passes an open file.
    let mut out = unsafe { CFile::new(out) };
    // SAFETY: CPython passes a C string.
    let name = unsafe { CStr::from_ptr(name) }.to_bytes();
    let _ = debug_stats::free_list(&mut out, name, objects, size);
}

unsafe extern "C" fn allocated_blocks() -> isize {
    // SAFETY: no conditions.
    unsafe { (dispatch::current().answers.allocated_blocks)() }
}

/// All interpreters share the heap, so their blocks are not counted apart.
unsafe extern "C" fn blocks_of_interpreter(_: *mut c_void) -> isize {
    0
}

unsafe extern "C" fn nothing() {}

unsafe extern "C" fn no() -> c_int {
    0
}

unsafe extern "C" fn mem_free(p: *mut c_void) {
    // SAFETY: CPython passes NULL or a live block of the domain.
    unsafe { (dispatch::current().mem.free)(p) };
}

unsafe extern "C" fn object_free(p: *mut c_void) {
    // SAFETY: CPython passes NULL or a live block of the domain.
    unsafe { (dispatch::current().object.free)(p) };
}

/// 3.11 and later: memory for the frames of Python functions, from the arena allocator.
unsafe extern "C" fn virtual_alloc(size: usize) -> *mut c_void {
    let arenas = chunk::get();
    // SAFETY: VTABLE-1 holds for the arena allocator.
    unsafe { (arenas.alloc)(arenas.ctx, size) }
}

unsafe extern "C" fn virtual_free(p: *mut c_void, size: usize) {
    let arenas = chunk::get();
    // SAFETY: VTABLE-1 holds for the arena allocator; the memory is the caller's.
    unsafe { (arenas.free)(arenas.ctx, p, size) };
}
