//! Statistics at exit, if `OBMALLOC_STATS` is set.
//!
//! Only a process that used the library writes them: every `sh` and `git` that a program starts
//! inherits the setting. A process that ends by `_exit`, as children of multiprocessing do, writes
//! none.

use core::ffi::c_int;
use core::fmt::Write;

use crate::background::init;
use crate::os::output::{self, Output};
use crate::os::target::Name;
use crate::os::text::{self, printable};
use crate::stats::json;
use crate::stats::report;

/// Writes the statistics in the form and to the place that `OBMALLOC_STATS` names.
pub(crate) fn report(host: Option<&str>, wanted: Option<&[u8]>) {
    let Some(value) = wanted.filter(|_| init::has_happened()) else {
        return;
    };
    if value == b"1" {
        report::log();
        return;
    }
    if let Err(error) = write(value, host) {
        text::log(format_args!(
            "no statistics, {}: OBMALLOC_STATS={}",
            output::reason(error),
            printable(value)
        ));
    }
}

/// Writes the statistics as JSON. Returns the error number if that fails.
fn write(value: &[u8], host: Option<&str>) -> Result<(), c_int> {
    let mut file = Output::create(0o644, |name| fill_name(value, name))?;
    let written = json::write(&mut file, host).and_then(|()| file.write_char('\n'));
    if written.is_err() {
        return Err(file.error().unwrap_or(libc::ENOMEM));
    }
    file.finish()
}

/// The file's name: the value with the pid in place of each `%p`.
fn fill_name(value: &[u8], name: &mut Name) -> Result<(), c_int> {
    let mut bytes = [0; 12];
    let mut pid = text::Buffer::new(&mut bytes);
    let _ = write!(pid, "{}", text::pid());
    let pid_len = pid.end();
    let mut rest = value;
    while let Some(at) = rest.windows(2).position(|two| two == b"%p") {
        name.push(&rest[..at])?;
        name.push(&bytes[..pid_len])?;
        rest = &rest[at + 2..];
    }
    name.push(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;

    #[test]
    fn every_percent_p_in_the_name_becomes_the_pid() {
        let pid = text::pid();
        let made = |value: &[u8]| {
            let mut name = Name::empty();
            fill_name(value, &mut name).map(|()| name.bytes().to_vec())
        };
        let expected = format!("/tmp/{pid}-{pid}.json");
        assert_eq!(made(b"/tmp/%p-%p.json"), Ok(expected.into_bytes()));
        assert_eq!(made(b"pl\xffain%"), Ok(b"pl\xffain%".to_vec()));
        assert_eq!(made(&[b'x'; 4096]), Err(libc::ENAMETOOLONG));
    }
}
