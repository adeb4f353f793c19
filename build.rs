//! What the linker needs beyond the Rust sources, and the C header, which is
//! made from them.
//!
//! The header goes to the build's own folder; `make header` copies it to
//! `include/`, `make check` compares. A build changes no file of the sources.

use std::env;
use std::path::Path;

/// The head of the header: what holds for all of its functions.
const CONTRACT: &str = "\
/* obmalloc: an allocator that takes the place of CPython's.
 *
 * Made from the sources by cbindgen; do not edit (`make header`).
 *
 * C1  A pointer given back to a function is NULL or came from a function of
 *     the same domain, and was not given back before. The domains MEM
 *     (PyMem_*) and OBJ (PyObject_*) are one allocator: each takes the other's
 *     blocks, and takes blocks of the C library's malloc, which it hands on to
 *     the C library.
 * C2  A block is not used after it was given back, nor beyond the size asked.
 *     What is written into a free block damages no structure of the library.
 * C3  In a process with a CPython, MEM and OBJ are called as that CPython
 *     demands (with the GIL); in a process without, from any thread. The
 *     domain RAW (PyMem_Raw*) is called from any thread in both.
 * C4  A block may be given back by another thread than the one that got it,
 *     while threads end, in fork handlers, and in a forked child.
 *
 * A block that is given back twice, or at an address where no block begins,
 * ends the process with one line on stderr when the library notices, which is
 * some frees later.
 *
 * In a process with a CPython all these names do what that CPython's own
 * functions of the same name do.
 */";

fn main() {
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libobmalloc.so.0");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo:rerun-if-changed=src/capi");
    println!("cargo:rerun-if-changed=build.rs");

    let crate_dir = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let out_dir = env::var("OUT_DIR").expect("cargo sets it");
    let mut config = cbindgen::Config {
        language: cbindgen::Language::C,
        header: Some(CONTRACT.into()),
        include_guard: Some("OBMALLOC_H".into()),
        no_includes: true,
        sys_includes: vec!["stddef.h".into()],
        cpp_compat: true,
        usize_is_size_t: true,
        documentation_style: cbindgen::DocumentationStyle::C,
        ..cbindgen::Config::default()
    };
    // Declared by some versions of Python.h, each time in another way.
    config.export.exclude.push("_PyMem_SetupAllocators".into());
    let mut builder = cbindgen::Builder::new().with_config(config);
    for file in ["own", "raw", "mem", "object"] {
        builder = builder.with_src(Path::new(&crate_dir).join(format!("src/capi/{file}.rs")));
    }
    let header = builder.generate().expect("the sources of the C ABI parse");
    header.write_to_file(Path::new(&out_dir).join("obmalloc.h"));
}
