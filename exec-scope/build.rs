//! The library is never unloaded: functions of the C library are bound to it.

use std::env;

fn main() {
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo:rerun-if-changed=build.rs");
    // rustc names no C library for musl. glibc's loader would load the library then.
    println!("cargo:rerun-if-env-changed=RUSTC_LINKER");
    let is_zig = env::var("RUSTC_LINKER").is_ok_and(|linker| linker.contains("zigcc"));
    if !is_zig && env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "musl") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,--no-as-needed");
        println!("cargo:rustc-cdylib-link-arg=-lc");
    }
}
