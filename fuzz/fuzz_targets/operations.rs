//! The model on libFuzzer's bytes.
#![no_main]

use std::sync::Once;

use libfuzzer_sys::fuzz_target;
use obmalloc_fuzz::engine::{Care, Engine};
use obmalloc_fuzz::rare_ops::FUZZ;
use obmalloc_fuzz::source::Given;
use obmalloc_fuzz::turns;

static START: Once = Once::new();

fuzz_target!(|bytes: &[u8]| {
    START.call_once(obmalloc_fuzz::start);
    let care = match bytes.first() {
        Some(first) if first % 4 == 0 => Care::Paranoid,
        _ => Care::Plain,
    };
    let rest = bytes.get(1..).unwrap_or_default();
    let engine = Engine::new(Given::new(rest), &FUZZ, care, 20_000);
    turns::drive(engine).finish();
});
