//! Statistics in CPython's format: `sys._debugmallocstats()`, `PYTHONMALLOCSTATS`,
//! `_PyObject_DebugMallocStats`. Programs parse that format; the values are this heap's.
//!
//! ```text
//!    bytes in allocated blocks       blocks that the program has
//!    bytes in available blocks       free in pools, magazines and depots
//!    unused pools                    empty
//!    lost to pool headers            nothing: descriptors are out of line
//!    lost to quantization            the rest at both ends of a pool
//!    lost to arena alignment         the rest of a program's own arenas
//!    --------------------------
//!    Total                           all arenas
//! ```

use core::fmt::{self, Write};

use crate::arena::page_map::{LEAF_SIZE, leaf_bytes, root_bytes};
use crate::arena::set::Counts;
use crate::base::layout::{ARENA_SIZE, POOL_SIZE};
use crate::base::size_class::SizeClass;
use crate::os::descriptor::write_to_stderr;
use crate::os::text::{Buffer, printable};
use crate::policy::size_policy;
use crate::stats::HeapStats;

/// Widths of a line's label, and of its value with commas.
const LABEL: usize = 35;
const VALUE: usize = 21;

/// Writes the table. `calls` is the count of the debug hooks, where they are active.
pub(crate) fn write(out: &mut dyn Write, calls: Option<usize>) -> fmt::Result {
    let now = HeapStats::now().ok_or(fmt::Error)?;
    let threshold = size_policy::now();
    let classes = SizeClass::of(threshold).map_or(0, |class| class.number() + 1);
    writeln!(
        out,
        "Small block threshold = {threshold}, in {classes} size classes.\n"
    )?;
    out.write_str(
        "class   size   num pools   blocks in use  avail blocks\n\
         -----   ----   ---------   -------------  ------------\n",
    )?;
    let (mut allocated, mut available, mut pools) = (0, 0, 0);
    for class in now.classes() {
        let free = class.free() + class.in_magazines;
        writeln!(
            out,
            "{:5} {:6} {:11} {:15} {:13}",
            class.class.number(),
            class.class.size(),
            class.counts.pools,
            class.live(),
            free
        )?;
        allocated += class.bytes(class.live());
        available += class.bytes(free);
        pools += class.counts.pools;
    }
    out.write_char('\n')?;
    let Counts {
        mapped,
        bytes,
        free_pools,
        mapped_total,
        unmapped_total,
        highwater,
        ..
    } = now.arenas;
    if let Some(calls) = calls {
        line(out, "# times object malloc called", calls)?;
    }
    line(out, "# arenas allocated total", mapped_total)?;
    line(out, "# arenas reclaimed", unmapped_total)?;
    line(out, "# arenas highwater mark", highwater)?;
    line(out, "# arenas allocated current", mapped)?;
    // The mean size: a program's own arenas may have another one.
    let size = bytes.checked_div(mapped).unwrap_or(ARENA_SIZE);
    labelled(
        out,
        format_args!("{mapped} arenas * {size} bytes/arena"),
        bytes,
    )?;
    out.write_char('\n')?;
    let unused = free_pools * POOL_SIZE;
    let quantization = (pools * POOL_SIZE).saturating_sub(allocated + available);
    let alignment = bytes.saturating_sub((pools + free_pools) * POOL_SIZE);
    line(out, "# bytes in allocated blocks", allocated)?;
    line(out, "# bytes in available blocks", available)?;
    labelled(
        out,
        format_args!("{free_pools} unused pools * {POOL_SIZE} bytes"),
        unused,
    )?;
    line(out, "# bytes lost to pool headers", 0)?;
    line(out, "# bytes lost to quantization", quantization)?;
    line(out, "# bytes lost to arena alignment", alignment)?;
    let total = allocated + available + unused + quantization + alignment;
    line(out, "Total", total)?;
    out.write_str("\narena map counts\n")?;
    line(out, "# arena map mid nodes", 0)?;
    line(out, "# arena map bot nodes", leaf_bytes() / LEAF_SIZE)?;
    out.write_char('\n')?;
    line(out, "# bytes lost to arena map root", root_bytes())?;
    line(out, "# bytes lost to arena map mid", 0)?;
    line(out, "# bytes lost to arena map bot", leaf_bytes())?;
    line(out, "# bytes in descriptors", now.records())?;
    line(out, "Total", root_bytes() + leaf_bytes() + now.records())
}

/// The line of one of CPython's free lists: the number of objects, and their bytes.
pub(crate) fn free_list(
    out: &mut dyn Write,
    name: &[u8],
    objects: i32,
    size: usize,
) -> fmt::Result {
    let mut bytes = [0; 128];
    let mut text = Buffer::new(&mut bytes);
    write!(text, "{objects} {}s * {size} bytes each", printable(name))?;
    let len = text.end().min(bytes.len() - 1);
    let value = usize::try_from(objects).unwrap_or(0).wrapping_mul(size);
    labelled(
        out,
        format_args!("{:>48} ", printable(&bytes[..len])),
        value,
    )
}

/// Writes the table to stderr.
pub(crate) fn to_stderr() {
    struct Stderr;
    impl Write for Stderr {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            write_to_stderr(text.as_bytes());
            Ok(())
        }
    }
    let _ = write(&mut Stderr, None);
}

fn line(out: &mut dyn Write, label: &str, value: usize) -> fmt::Result {
    labelled(out, format_args!("{label}"), value)
}

fn labelled(out: &mut dyn Write, label: fmt::Arguments<'_>, value: usize) -> fmt::Result {
    let mut bytes = [0; 128];
    let mut text = Buffer::new(&mut bytes);
    text.write_fmt(label)?;
    let len = text.end().min(bytes.len() - 1);
    let mut digits = [0; VALUE];
    let value = with_commas(value, &mut digits);
    writeln!(out, "{:LABEL$}={value:>VALUE$}", printable(&bytes[..len]))
}

/// The number with a comma before each group of three digits.
fn with_commas(mut value: usize, text: &mut [u8; VALUE]) -> &str {
    let (mut start, mut digits) = (VALUE, 0);
    loop {
        if digits > 0 && digits % 3 == 0 && start > 0 {
            start -= 1;
            text[start] = b',';
        }
        if start == 0 {
            break; // more than fits, as in CPython
        }
        start -= 1;
        text[start] = b'0' + (value % 10) as u8;
        value /= 10;
        digits += 1;
        if value == 0 {
            break;
        }
    }
    printable(&text[start..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;
    use std::string::String;

    #[test]
    fn numbers_have_commas() {
        for (value, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (123_456_789, "123,456,789"),
        ] {
            assert_eq!(with_commas(value, &mut [0; VALUE]), text);
        }
        assert_eq!(with_commas(usize::MAX, &mut [0; VALUE]).len(), VALUE);
    }

    #[test]
    fn lines_have_cpythons_columns() {
        let mut text = String::new();
        line(&mut text, "# arenas reclaimed", 1234).unwrap();
        assert_eq!(
            text,
            format!("{:35}={:>21}\n", "# arenas reclaimed", "1,234")
        );
        text.clear();
        free_list(&mut text, b"PyDictObject", 3, 48).unwrap();
        let label = format!("{:>48} ", "3 PyDictObjects * 48 bytes each");
        assert_eq!(text, format!("{label}={:>21}\n", "144"));
    }
}
