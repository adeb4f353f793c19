//! Statistics at exit, if `OBMALLOC_STATS` is set.
//!
//! Only a process that used the library writes them: every `sh` and `git` that a program starts
//! inherits the setting. A process that ends by `_exit`, as children of multiprocessing do, writes
//! none.

use core::ffi::c_int;
use core::fmt::Write;

use crate::background::init;
use crate::os::output::{self, Output};
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
    let mut file = Output::create(0o644, |name| name.fill(value, None))?;
    let written = json::write(&mut file, host).and_then(|()| file.write_char('\n'));
    if written.is_err() {
        return Err(file.error().unwrap_or(libc::ENOMEM));
    }
    file.finish()
}
