//! Where the code of the hit path lies: side by side.
//!
//! ```text
//!    .text.hot.malloc | .text.hot.free | .text.hot.realloc   | .text.hot.rest
//!    one line, or two | two lines      | two lines, or three | refill, flush, large, ...
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
//! (Of the two flavours of malloc and of realloc, plain and packed, the compiler decides
//! which comes first: that one begins on a line.)
//!
//! The order is that in which the assembler first hears of the sections, here.

#[cfg(not(miri))]
core::arch::global_asm!(
    ".pushsection .text.hot.malloc,\"ax\",@progbits",
    ".p2align 6",
    ".popsection",
    ".pushsection .text.hot.free,\"ax\",@progbits",
    ".p2align 6",
    ".popsection",
    ".pushsection .text.hot.realloc,\"ax\",@progbits",
    ".p2align 6",
    ".popsection",
    ".pushsection .text.hot.rest,\"ax\",@progbits",
    ".popsection",
);
