//! The order of the hit path's code: side by side, each function on a cache line.
//!
//! ```text
//!    .text.hot.malloc | .text.hot.free | .text.hot.calloc | .text.hot.realloc
//!         one line         two lines        two lines          two lines
//!
//!    .text.hot.packed.malloc | ...         the same for packed domains, without free
//!    .text.hot.rest                        refill, flush, large, ...
//! ```
//!
//! A host's own code is far larger than a processor's first-level cache, so the cache reloads ours
//! again and again: the cost of a call is the number of cache lines (64 bytes) and pages that it
//! touches. The library is built for size, so a function begins at any byte, in the order of the
//! compiler's output. The functions of the hit path, as CPython's tables have them, are in sections
//! of their own that begin on a cache line. Slow paths and other entry points follow.
//!
//! The sections are in the order in which the assembler first sees them, which is here.

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
