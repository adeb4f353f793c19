//! Client requests to Valgrind's memcheck: words that a program says to the tool it
//! runs under. Without the tool they are five instructions that do nothing.
//!
//! Where this machine's requests are not known, memcheck is not seen.

/// The first of memcheck's own requests: 'M', 'C'.
const MEMCHECK: usize = 0x4d43_0000;
const MAKE_INACCESSIBLE: usize = MEMCHECK;
const MAKE_DEFINED: usize = MEMCHECK + 2;
/// Requests that all of Valgrind's tools know.
const RUNNING_ON_VALGRIND: usize = 0x1001;
const BLOCK_BEGINS: usize = 0x1301;
const BLOCK_ENDS: usize = 0x1302;

/// A request; 0 if nobody answers.
#[cfg(all(target_arch = "x86_64", not(miri)))]
fn request(code: usize, arguments: [usize; 4]) -> usize {
    let [a, b, c, d] = arguments;
    let words = [code, a, b, c, d, 0];
    let mut answer = 0usize;
    // SAFETY: turns a register by 128 bits in all, and changes nothing. A tool reads the
    // words and answers in rdx.
    unsafe {
        core::arch::asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") words.as_ptr(),
            inout("rdx") answer,
            options(nostack)
        );
    }
    answer
}

#[cfg(any(not(target_arch = "x86_64"), miri))]
fn request(_: usize, _: [usize; 4]) -> usize {
    0
}

/// Whether the process runs under memcheck: no other tool answers this one.
pub(crate) fn is_there() -> bool {
    let word = 0usize;
    let address = (&raw const word).addr();
    request(MAKE_DEFINED, [address, size_of_val(&word), 0, 0]) != 0
}

/// Whether the process runs under Valgrind, with whatever tool.
pub(crate) fn is_valgrind() -> bool {
    request(RUNNING_ON_VALGRIND, [0; 4]) != 0
}

/// From now on `n` bytes at `address` are a block, without contents.
pub(crate) fn block_begins(address: usize, n: usize) {
    request(BLOCK_BEGINS, [address, n, 0, 0]);
}

/// The block at `address` is free; memcheck says so if it is none.
pub(crate) fn block_ends(address: usize) {
    request(BLOCK_ENDS, [address, 0, 0, 0]);
}

/// Nobody may read or write these bytes.
pub(crate) fn make_inaccessible(address: usize, n: usize) {
    request(MAKE_INACCESSIBLE, [address, n, 0, 0]);
}

/// These bytes may be read and written, and have contents.
pub(crate) fn make_defined(address: usize, n: usize) {
    request(MAKE_DEFINED, [address, n, 0, 0]);
}
