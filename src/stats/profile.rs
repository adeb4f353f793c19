//! Profiles for a file and for the stats page (`profile/encode.rs`), with what the heap adds to them:
//! the memory that each sample pins.
//!
//! # Threads
//!
//! Any thread, with no lock held. A file is written with no lock held.

use core::ffi::c_int;

use super::page;
use super::page::writer::Writer;
use crate::arena::page_map::MAP;
use crate::base::layout::MIN_PAGE;
use crate::heap::HEAP;
use crate::os::output::Output;
use crate::os::target::Name;
use crate::profile::encode::{Context, Encoded};
use crate::profile::live::Twin;

/// A page is nearly empty if at most this part of its bytes is in taken blocks.
const NEARLY_EMPTY: usize = MIN_PAGE / 4;

/// Attempts to encode a profile while other threads add samples.
const TRIES: usize = 5;

/// Writes a profile to the file whose path `fill` writes: whole, or not at all. `Err` with an error
/// number; ENODATA if the profiler never ran.
#[cold]
pub(crate) fn write_to(fill: impl FnOnce(&mut Name) -> Result<(), c_int>) -> Result<(), c_int> {
    write_encoded(&encoded()?, fill)
}

/// Encodes a profile. `Err` with ENODATA if the profiler never ran.
#[cold]
pub(crate) fn encoded() -> Result<Encoded, c_int> {
    for _ in 0..TRIES {
        let mut encoded = Encoded::reserve().ok_or(libc::ENODATA)?;
        match encode_into(&mut encoded) {
            // Other threads have added more samples since the memory was reserved than there is room
            // for.
            Err(libc::ENOSPC) => {}
            done => return done.map(|()| encoded),
        }
    }
    Err(libc::ENOSPC)
}

/// Encodes a profile into memory that was reserved.
#[cold]
pub(crate) fn encode_into(encoded: &mut Encoded) -> Result<(), c_int> {
    encoded.fill(&Context {
        host: page::host(),
        pinned: &pinned,
    })
}

/// Writes a profile to a file: see [`write_to`].
#[cold]
pub(crate) fn write_encoded(
    encoded: &Encoded,
    fill: impl FnOnce(&mut Name) -> Result<(), c_int>,
) -> Result<(), c_int> {
    let mut file = Output::create(0o600, fill)?;
    encoded.write(&mut |_, piece| file.append(piece))?;
    file.finish()
}

/// Writes a profile into memory. Returns its bytes.
pub(crate) fn write(encoded: &Encoded, writer: &Writer<'_>) -> Result<u64, c_int> {
    encoded.write(&mut |at, piece| writer.put(at, piece))
}

/// The free bytes of the page of a sample's twin, if it is nearly empty, divided by its taken blocks.
fn pinned(Twin { block, class }: Twin) -> u64 {
    let address = block.addr();
    let Some(pool) = MAP.arena(address).map(|arena| arena.pool(address)) else {
        return 0;
    };
    let shard = pool.shard();
    let _used = HEAP.bin(shard, class);
    if !pool.is_owned_by(shard, class) {
        return 0;
    }
    let page = (address - pool.base()) / MIN_PAGE;
    let (blocks, bytes) = pool.taken_on_page(class.info(), page);
    if blocks == 0 || bytes > NEARLY_EMPTY {
        return 0;
    }
    ((MIN_PAGE - bytes) / blocks) as u64
}
