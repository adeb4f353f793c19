//! Linker arguments that the Rust sources cannot give, and the C header, which is made from the
//! sources.
//!
//! The header goes to the build's own folder; `make header` copies it to
//! `include/`, `make check` compares. A build changes no file of the sources.

use std::env;
use std::fs;
use std::path::Path;

/// The comment before the part about tables.
const TABLES: &str = "\
/* Tables of allocators, debug hooks, arenas: CPython's own API. A program that
 * uses Python.h has these types from there; so this part is left out where
 * Python.h was included before, or is on the include path and may be included
 * later, unless OBMALLOC_TABLES is defined. */
#if !defined(Py_PYTHON_H) && !defined(OBMALLOC_HAS_PYTHON_H)
";

/// The text before that comment.
const HAS_PYTHON: &str = "\
#if defined(__has_include) && !defined(OBMALLOC_TABLES)
#if __has_include(<Python.h>)
#define OBMALLOC_HAS_PYTHON_H
#endif
#endif

";

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
 * A request that cannot be served gives NULL: for want of memory, beyond a hard
 * limit, or above PY_SSIZE_T_MAX. In a process without a CPython errno is ENOMEM
 * then, as with malloc. In a process with one it may be so; that CPython's own
 * functions promise nothing about errno, and what was set in their place decides.
 *
 * A block that is given back twice, or at an address where no block begins,
 * ends the process with one line on stderr when the library notices, which is
 * some frees later; with OBMALLOC_ON_ERROR=report it is left out, and the
 * program goes on.
 *
 * In a process with a CPython all these names do what that CPython's own
 * functions of the same name do.
 */";

fn main() {
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libobmalloc.so.0");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    // Each segment begins on a page of its own: two pages less in every process. (GNU's
    // linker does so without being told; zig's, which makes wheels for older systems,
    // refuses the word.)
    println!("cargo:rerun-if-env-changed=RUSTC_LINKER");
    if !env::var("RUSTC_LINKER").is_ok_and(|linker| linker.contains("zigcc")) {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,separate-loadable-segments");
        // rustc names no C library for musl. glibc's loader would load the library then.
        if env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "musl") {
            println!("cargo:rustc-cdylib-link-arg=-Wl,--no-as-needed");
            println!("cargo:rustc-cdylib-link-arg=-lc");
        }
    }
    println!("cargo:rerun-if-changed=src/capi");
    println!("cargo:rerun-if-changed=src/domains/ffi.rs");
    println!("cargo:rerun-if-changed=build.rs");

    let crate_dir = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let out_dir = env::var("OUT_DIR").expect("cargo sets it");
    let src = Path::new(&crate_dir).join("src");
    let make = |config: cbindgen::Config, files: &[&str]| {
        let mut builder = cbindgen::Builder::new().with_config(config);
        for file in files {
            builder = builder.with_src(src.join(file));
        }
        let mut bytes = Vec::new();
        let header = builder.generate().expect("the sources of the C ABI parse");
        header.write(&mut bytes);
        String::from_utf8(bytes).expect("the sources are text")
    };
    let config = cbindgen::Config {
        language: cbindgen::Language::C,
        no_includes: true,
        cpp_compat: true,
        usize_is_size_t: true,
        documentation_style: cbindgen::DocumentationStyle::C,
        ..cbindgen::Config::default()
    };
    let functions = cbindgen::Config {
        header: Some(CONTRACT.into()),
        // No function names it: obmalloc_install returns an int, as it always did.
        export: cbindgen::ExportConfig {
            include: vec!["obmalloc_error".into()],
            ..cbindgen::ExportConfig::default()
        },
        sys_includes: vec!["stddef.h".into()],
        ..config.clone()
    };
    let functions = make(
        functions,
        &[
            "capi/extension.rs",
            "capi/raw.rs",
            "capi/mem.rs",
            "capi/object.rs",
        ],
    );
    let tables = make(config, &["domains/ffi.rs", "capi/tables.rs"]);
    let (contract, functions) = functions.split_at(CONTRACT.len());
    let guard = "OBMALLOC_H";
    let header = format!(
        "{contract}\n\n#ifndef {guard}\n#define {guard}\n{functions}\n\
         {HAS_PYTHON}{TABLES}\n{tables}\n#endif\n\n#endif  /* {guard} */\n"
    );
    fs::write(Path::new(&out_dir).join("obmalloc.h"), header).expect("cargo's folder takes it");
}
