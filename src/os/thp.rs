//! The system's setting of transparent huge pages: whether the kernel uses them for memory without
//! a mark.
//!
//! ```text
//!    /sys/kernel/mm/transparent_hugepage/enabled              always [madvise] never
//!    .../hugepages-64kB/enabled   (from 6.8 on, per size)     always inherit madvise [never]
//! ```

use core::ffi::CStr;

use super::file;

const FOLDER: &str = "/sys/kernel/mm/transparent_hugepage/";
/// Sizes in KiB that fit in an arena. A kernel may have any of them.
const SIZES: [&str; 9] = ["8", "16", "32", "64", "128", "256", "512", "1024", "2048"];

/// Whether the kernel may use huge pages for memory without a mark; true if unknown. Opens files:
/// for the start only, while the process has one thread.
#[cold]
pub(crate) fn come_unasked() -> bool {
    let of_size = |size| is_always(&["hugepages-", size, "kB/enabled"]);
    let [sizes @ .., largest] = SIZES;
    if is_always(&["enabled"]) != Some(false) {
        return true;
    }
    // A kernel without a setting for the largest size has none for the others.
    of_size(largest).is_some_and(|so| so || sizes.iter().any(|size| of_size(size) == Some(true)))
}

/// Whether the file with this name has `[always]`; `None` if it cannot be read.
fn is_always(parts: &[&str]) -> Option<bool> {
    let mut name = [0; 80];
    let mut len = 0;
    for part in [FOLDER].iter().chain(parts) {
        name.get_mut(len..len + part.len())?
            .copy_from_slice(part.as_bytes());
        len += part.len();
    }
    let name = CStr::from_bytes_until_nul(&name).ok()?;
    let mut buffer = [0; 64];
    chosen(file::read(name, &mut buffer)?).map(|word| word == "always")
}

/// The word in brackets.
fn chosen(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('[')?;
    rest.split_once(']').map(|(word, _)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_in_brackets_is_chosen() {
        assert_eq!(chosen("always [madvise] never\n"), Some("madvise"));
        assert_eq!(chosen("[always] inherit madvise never\n"), Some("always"));
        assert_eq!(chosen("always madvise [nev"), None);
        assert_eq!(chosen(""), None);
        assert_eq!(is_always(&["no such file"]), None);
        assert_eq!(
            is_always(&["a name that is longer than the place that there is for it"]),
            None
        );
    }
}
