//! The numbers that the library says of itself, against each other and against what
//! must be.

use core::ffi::c_char;
use std::time::{Duration, Instant};

use obmalloc::capi::{introspection, extension};
use obmalloc::model;

/// What `_Py_GetAllocatedBlocks` says.
pub fn blocks() -> isize {
    // SAFETY: no conditions.
    unsafe { introspection::_Py_GetAllocatedBlocks() }
}

/// Asserts that `says` comes to say so; where the helper thread is at work it may take a
/// while, for it carries blocks from one place to the next.
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
    // SAFETY: the buffer and its size.
    let len = unsafe { extension::obmalloc_stats_json(bytes.as_mut_ptr().cast::<c_char>(), bytes.len()) };
    assert!(len < bytes.len(), "the buffer is large enough");
    assert_eq!(bytes[len], 0);
    bytes.truncate(len);
    String::from_utf8(bytes).expect("JSON is text")
}

/// The number behind `key` in `text`.
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

/// The object behind `key` in `text`.
fn object<'a>(text: &'a str, key: &str) -> &'a str {
    let at = text
        .find(&format!("\"{key}\":{{"))
        .unwrap_or_else(|| panic!("{key} is in {text}"));
    &text[at..at + text[at..].find('}').expect("it ends")]
}

/// Asserts that what the JSON says adds up.
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

/// Arenas from the kernel that are there, and pools in use.
pub fn in_use() -> (usize, usize) {
    model::arenas_and_pools()
}
