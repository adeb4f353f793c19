//! The description of a block under the debug hooks on stderr, in CPython's words, which people and
//! tests read.

use core::fmt::{self, Write};

use super::super::python;
use super::block::{Block, WORD};
use crate::os::descriptor::write_to_stderr;

/// stderr, with a write for each piece: after a fault on corrupted memory the pieces before it are
/// written.
struct Stderr;

impl Write for Stderr {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        write_to_stderr(text.as_bytes());
        Ok(())
    }
}

/// Describes `block`.
pub(crate) fn describe(block: Block) {
    let _ = write(block, &mut Stderr);
    python::dump_traceback(block.data().addr());
}

fn write(block: Block, out: &mut Stderr) -> fmt::Result {
    let data = block.data();
    write!(out, "Debug memory block at address p={data:p}: API '")?;
    // The id is written as a raw byte: it may be no character.
    write_to_stderr(&[block.id(), b'\'', b'\n']);
    let size = block.size();
    writeln!(out, "    {size} bytes originally requested")?;
    // First the bytes before the block: if they are corrupted, the size may be, too.
    let pad = WORD - 1;
    write!(out, "    The {pad} pad bytes at p-{pad} are ")?;
    if block.leading_is_whole() {
        out.write_str(AS_EXPECTED)?;
    } else {
        write_damaged(block, out)?;
        for i in (1..WORD).rev() {
            write!(out, "        at p-{i}: ")?;
            write_byte(block, -(i as isize), out)?;
        }
        out.write_str(
            "    Because memory is corrupted at the start, the count of bytes requested\n       \
             may be bogus, and checking the trailing pad bytes may segfault.\n",
        )?;
    }
    let tail = data.wrapping_add(size);
    write!(out, "    The {WORD} pad bytes at tail={tail:p} are ")?;
    if block.trailing_is_whole() {
        out.write_str(AS_EXPECTED)?;
    } else {
        write_damaged(block, out)?;
        for i in 0..WORD {
            write!(out, "        at tail+{i}: ")?;
            write_byte(block, (size + i) as isize, out)?;
        }
    }
    if block.style().serial {
        let serial = block.serial();
        writeln!(
            out,
            "    The block was made by call #{serial} to debug malloc/realloc."
        )?;
    }
    if size > 0 {
        write_data(block, size, out)?;
    }
    out.write_char('\n')
}

const AS_EXPECTED: &str = "FORBIDDENBYTE, as expected.\n";

fn write_damaged(block: Block, out: &mut Stderr) -> fmt::Result {
    let forbidden = block.style().forbidden;
    writeln!(out, "not all FORBIDDENBYTE (0x{forbidden:02x}):")
}

fn write_byte(block: Block, offset: isize, out: &mut Stderr) -> fmt::Result {
    let byte = block.byte(offset);
    let ouch = if byte == block.style().forbidden {
        ""
    } else {
        " *** OUCH"
    };
    writeln!(out, "0x{byte:02x}{ouch}")
}

/// The first eight bytes and the last eight.
fn write_data(block: Block, size: usize, out: &mut Stderr) -> fmt::Result {
    out.write_str("    Data at p:")?;
    for i in 0..size.min(8) {
        write!(out, " {:02x}", block.byte(i as isize))?;
    }
    if size > 16 {
        out.write_str(" ...")?;
    }
    for i in size.saturating_sub(8).max(8)..size {
        write!(out, " {:02x}", block.byte(i as isize))?;
    }
    out.write_char('\n')
}
