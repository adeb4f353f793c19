//! Client requests to Valgrind's memcheck: instructions that the tool recognises. Without the tool
//! they are five instructions without effect.

#[cfg(not(miri))]
use super::arch;

/// The base of memcheck's own requests: 'M', 'C'.
const MEMCHECK: usize = 0x4d43_0000;
const MAKE_INACCESSIBLE: usize = MEMCHECK;
const MAKE_DEFINED: usize = MEMCHECK + 2;
/// Requests of all Valgrind tools.
const RUNNING_ON_VALGRIND: usize = 0x1001;
const BLOCK_BEGINS: usize = 0x1301;
const BLOCK_ENDS: usize = 0x1302;

/// Makes a request. 0 without the tool.
#[cfg(not(miri))]
fn request(code: usize, arguments: [usize; 4]) -> usize {
    let [a, b, c, d] = arguments;
    arch::tool_request(&[code, a, b, c, d, 0])
}

#[cfg(miri)]
fn request(_: usize, _: [usize; 4]) -> usize {
    0
}

/// Whether the process runs under memcheck: other tools return 0 to this request.
pub(crate) fn is_there() -> bool {
    let word = 0usize;
    let address = (&raw const word).addr();
    request(MAKE_DEFINED, [address, size_of_val(&word), 0, 0]) != 0
}

/// Whether the process runs under any tool of Valgrind.
pub(crate) fn is_valgrind() -> bool {
    request(RUNNING_ON_VALGRIND, [0; 4]) != 0
}

/// Marks `n` bytes at `address` as an allocated block with undefined contents.
pub(crate) fn block_begins(address: usize, n: usize) {
    request(BLOCK_BEGINS, [address, n, 0, 0]);
}

/// Marks the block at `address` as freed; memcheck reports an address that is none.
pub(crate) fn block_ends(address: usize) {
    request(BLOCK_ENDS, [address, 0, 0, 0]);
}

/// Marks these bytes as inaccessible.
pub(crate) fn make_inaccessible(address: usize, n: usize) {
    request(MAKE_INACCESSIBLE, [address, n, 0, 0]);
}

/// Marks these bytes as accessible, with defined contents.
pub(crate) fn make_defined(address: usize, n: usize) {
    request(MAKE_DEFINED, [address, n, 0, 0]);
}
