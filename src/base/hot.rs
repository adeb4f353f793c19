//! Where the code of the hit path lies: side by side.
//!
//! ```text
//!    .text.hot.malloc | .text.hot.free | .text.hot.calloc | .text.hot.realloc
//!         one line         two lines        two lines          two lines
//!
//!    .text.hot.packed.malloc | ...         the same of packed domains, but for free
//!    .text.hot.rest                        refill, flush, large, ...
//! ```
//!
//! A host's own code is far larger than a processor's first cache, which so loads ours
//! again and again: what counts is how many lines of cache (64 bytes) and pages a call
//! touches. The library is built for size, which has a function begin at any byte, in
//! the order in which the compiler comes to them. The functions of the hit path, as
//! CPython's tables have them, stand in sections of their own that begin on a line;
//! behind them stands what is called once in many times, and the functions that other
//! ways into the library take.
//!
//! The order is that in which the assembler first hears of the sections, here.

#[cfg(not(miri))]
core::arch::global_asm!(
    ".irp name, malloc, free, calloc, realloc, packed.malloc, packed.calloc, packed.realloc",
    ".pushsection .text.hot.\\name,\"ax\",@progbits",
    ".p2align 6",
    ".popsection",
    ".endr",
    ".pushsection .text.hot.rest,\"ax\",@progbits",
    ".popsection",
);
