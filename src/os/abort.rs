//! The end of a panic: one line and abort. Nothing unwinds.
//!
//! A panic is a defect of the library. Only the shipped library has this handler; tests have the
//! standard library's.

use crate::os::text;

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    text::fatal(format_args!("defect: {info} (pid {})", text::pid()))
}

// The precompiled core library refers to the unwinder's entry, which is never called. Weak and hidden,
// so that another Rust library in the same program can have its own.
core::arch::global_asm!(
    ".pushsection .text.rust_eh_personality,\"ax\",@progbits",
    ".weak rust_eh_personality",
    ".hidden rust_eh_personality",
    ".type rust_eh_personality,@function",
    concat!("rust_eh_personality: ", super::arch::trap!()),
    ".popsection",
);
