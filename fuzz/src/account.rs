//! The library's own numbers, against each other and against the model's.

use core::ffi::c_char;
use std::time::{Duration, Instant};

use obmalloc::capi::{extension, introspection};
use obmalloc::tests::model;

/// The result of `_Py_GetAllocatedBlocks`.
pub fn blocks() -> isize {
    // SAFETY: no preconditions.
    unsafe { introspection::_Py_GetAllocatedBlocks() }
}

/// Asserts that `says` returns the expected value; if a helper thread moves blocks, after some tries.
pub fn settles<T: PartialEq + std::fmt::Debug>(
    helper: bool,
    expected: &T,
    what: &str,
    says: impl Fn() -> T,
) {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let said = says();
        if said == *expected {
            return;
        }
        let is_over = !helper || Instant::now() > end;
        assert!(!is_over, "{what}: {said:?} instead of {expected:?}");
        std::thread::yield_now();
    }
}

/// The statistics as JSON.
pub fn json() -> String {
    let mut bytes = vec![0u8; 1 << 16];
    // SAFETY: a buffer and its size.
    let len =
        unsafe { extension::obmalloc_stats_json(bytes.as_mut_ptr().cast::<c_char>(), bytes.len()) };
    assert!(len < bytes.len(), "the buffer is large enough");
    assert_eq!(bytes[len], 0);
    bytes.truncate(len);
    String::from_utf8(bytes).expect("JSON is text")
}

/// The number after `key` in `text`.
fn number(text: &str, key: &str) -> i64 {
    let at = text
        .find(&format!("\"{key}\":"))
        .unwrap_or_else(|| panic!("{key} is in {text}"));
    let rest = &text[at + key.len() + 3..];
    let end = rest
        .find(|c: char| c != '-' && !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest[..end]
        .parse()
        .unwrap_or_else(|_| panic!("{key}: {rest}"))
}

/// The object after `key` in `text`.
fn object<'a>(text: &'a str, key: &str) -> &'a str {
    let at = text
        .find(&format!("\"{key}\":{{"))
        .unwrap_or_else(|| panic!("{key} is in {text}"));
    &text[at..at + text[at..].find('}').expect("it ends")]
}

/// Asserts that the numbers of the JSON add up.
fn adds_up() -> Result<(), String> {
    let text = json();
    let expect = |what: &str, sum: i64, said: i64| {
        if sum == said {
            Ok(())
        } else {
            Err(format!("{what}: {sum} instead of {said} in {text}"))
        }
    };
    let (arenas, pools) = (object(&text, "arenas"), object(&text, "pools"));
    let (bytes, resident) = (object(&text, "bytes"), object(&text, "resident"));
    let mapped = number(arenas, "mapped_total") - number(arenas, "unmapped_total");
    let there = number(arenas, "in_use") + number(arenas, "empty");
    expect("arenas", there, mapped)?;
    let classes = &text[text.find("\"classes\":").expect("classes")..];
    let (mut live, mut in_magazines, mut free, mut of_classes) = (0, 0, 0, 0);
    for class in classes.split('{').skip(1) {
        let size = number(class, "size");
        live += size * number(class, "blocks_live");
        in_magazines += size * number(class, "blocks_in_magazines");
        free += size * number(class, "blocks_free");
        of_classes += number(class, "pools");
    }
    expect(
        "pools",
        number(pools, "used") + number(pools, "full"),
        of_classes,
    )?;
    expect("live", live, number(bytes, "live"))?;
    expect("in magazines", in_magazines, number(bytes, "in_magazines"))?;
    expect("free", free, number(bytes, "free_in_pools"))?;
    let parts = [
        "live",
        "in_magazines",
        "free_in_pools",
        "empty_pools",
        "metadata",
    ];
    let sum = parts.iter().map(|part| number(resident, part)).sum();
    expect("resident", sum, number(resident, "total"))?;
    if number(bytes, "live_requested_estimate") > live {
        return Err(format!("more was requested than is live: {text}"));
    }
    Ok(())
}

/// Asserts that the ledger and the JSON add up.
pub fn check(helper: bool) {
    settles(helper, &Ok(()), "statistics", adds_up);
    settles(helper, &Ok(()), "ledger", model::check_statistics);
}

/// Arenas that are mapped, and pools in use.
pub fn in_use() -> (usize, usize) {
    model::arenas_and_pools()
}
