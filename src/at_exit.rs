//! Statistics at exit, where `OBMALLOC_STATS` asks for them.
//!
//! Only in a process that used the library: the setting is inherited by every
//! `sh` and `git` that a program starts. A process that ends by `_exit`, as
//! children of multiprocessing do, writes none.

use core::ffi::c_int;
use core::fmt::Write;

use crate::config;
use crate::first_use;
use crate::os::output::{self, Output};
use crate::os::text::{self, printable};
use crate::stats_json;
use crate::stats_text;

/// Bytes of a file name: of a value, with some pids in it.
const NAME_MAX: usize = 2048;

/// Writes what `OBMALLOC_STATS` asks for.
pub fn report(host: Option<&str>) {
    let Some(value) = config::stats().filter(|_| first_use::has_happened()) else {
        return;
    };
    if value == b"1" {
        stats_text::say();
        return;
    }
    if let Err(error) = write(value, host) {
        text::say(format_args!(
            "no statistics, {}: OBMALLOC_STATS={}",
            output::reason(error),
            printable(value)
        ));
    }
}

/// Writes them as JSON; the error number if that cannot be.
fn write(value: &[u8], host: Option<&str>) -> Result<(), c_int> {
    let mut name = [0; NAME_MAX];
    let mut file = Output::create(file_name(value, &mut name)?, 0o644)?;
    let _ = stats_json::write(&mut file, host); // `finish` tells of an error
    let _ = file.write_char('\n');
    file.finish()
}

/// The file's name: the value with the pid in place of each `%p`.
fn file_name<'a>(value: &[u8], name: &'a mut [u8; NAME_MAX]) -> Result<&'a [u8], c_int> {
    let (mut len, mut rest) = (0, value);
    let mut pid = [0; 12];
    let mut number = text::Buffer::new(&mut pid);
    let _ = write!(number, "{}", text::pid());
    let pid_len = number.end();
    while !rest.is_empty() {
        let (part, eaten) = match rest {
            [b'%', b'p', ..] => (&pid[..pid_len], 2),
            _ => (&rest[..1], 1),
        };
        let place = name.get_mut(len..len + part.len());
        place.ok_or(libc::ENAMETOOLONG)?.copy_from_slice(part);
        (len, rest) = (len + part.len(), &rest[eaten..]);
    }
    Ok(&name[..len])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;

    #[test]
    fn the_pid_stands_in_the_name_wherever_it_is_asked_for() {
        let mut name = [0; NAME_MAX];
        let pid = text::pid();
        let expected = format!("/tmp/{pid}-{pid}.json");
        let made = file_name(b"/tmp/%p-%p.json", &mut name);
        assert_eq!(made, Ok(expected.as_bytes()));
        assert_eq!(file_name(b"pl\xffain%", &mut name), Ok(&b"pl\xffain%"[..]));
        let too_long = file_name(&[b'x'; NAME_MAX + 1], &mut name);
        assert_eq!(too_long, Err(libc::ENAMETOOLONG));
    }
}
