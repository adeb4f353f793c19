//! The layout: how an address divides into region, arena, pool and offset.
//!
//! ```text
//!   63        47 46          34 33          21 20       16 15             0
//!   +-----------+--------------+--------------+-----------+---------------+
//!   |  must be  |    region    |   granule    |   pool    |    offset     |
//!   |     0     | 8192 x 16GiB | 8192 x 2 MiB | 32 x 64KiB|  in the pool  |
//!   +-----------+--------------+--------------+-----------+---------------+
//! ```
//!
//! A region is only a unit of the page map. A pool belongs to one size class. An arena from the
//! kernel is a granule; a custom one is a run of up to 32 pools that may begin at any pool of one.
//!
//! # Why
//!
//! Pools of 64 KiB: the cyclic collector walks 600 000 dicts in 0.15 s when they are in pools of
//! 64 KiB, in 0.19 s with 16 KiB, in 0.28 s with 4 KiB (prototype on CPython 3.11). Arenas of 2 MiB,
//! aligned to their size, so that the kernel can back one with a huge page.
#![forbid(unsafe_code)]

/// Every block's address is a multiple of this, in bytes, except in packed domains.
pub(crate) const ALIGNMENT: usize = 16;
/// Every block's address is a multiple of this, in bytes, in packed domains too.
pub(crate) const PACKED_ALIGNMENT: usize = 8;

/// log2 of [`POOL_SIZE`].
pub(crate) const POOL_BITS: u32 = 16;
/// Bytes in a pool; a pool's address is a multiple of it.
pub(crate) const POOL_SIZE: usize = 1 << POOL_BITS;

/// Bytes in the smallest OS page of any kernel.
pub(crate) const MIN_PAGE: usize = 4096;

/// Bytes in an arena from the kernel; its address is a multiple of it.
pub(crate) const ARENA_SIZE: usize = 2 << 20;
/// Bound on pools in an arena.
pub(crate) const POOLS_PER_ARENA: usize = ARENA_SIZE / POOL_SIZE;

/// log2 of the bytes that one leaf of the page map covers.
pub(crate) const REGION_BITS: u32 = 34;
/// Granules in a region, each as large as an arena from the kernel.
pub(crate) const GRANULES: usize = (1 << REGION_BITS) / ARENA_SIZE;

/// Bits of an address in user space. (With larger page tables, five levels on x86-64 and 52 bits on
/// aarch64, there are more, but only for mappings whose address hint is above this range.)
pub(crate) const ADDRESS_BITS: u32 = if cfg!(target_arch = "aarch64") {
    48
} else {
    47
};
/// Regions in that range.
pub(crate) const REGIONS: usize = 1 << (ADDRESS_BITS - REGION_BITS);

/// Offset of the first block in a pool of small blocks.
///
/// 48 modulo 64, as behind obmalloc's pool header, although there is no header here: the collector's
/// header takes the first 16 bytes of a container, so with blocks of 64 bytes it is at the end of
/// one cache line and its object at the start of the next, which the collector reads anyway. With
/// offset 0 the collector is a fifth slower (prototype, CPython 3.11).
pub(crate) const FIRST_SMALL_BLOCK: usize = 48;

/// The largest valid request: `PY_SSIZE_T_MAX`.
pub(crate) const REQUEST_MAX: usize = isize::MAX as usize;

/// The address of the pool that an address is in.
#[inline(always)]
pub(crate) const fn pool_base(address: usize) -> usize {
    address & !(POOL_SIZE - 1)
}

/// Index of an address's granule in its region.
#[inline(always)]
pub(crate) const fn granule(address: usize) -> usize {
    address / ARENA_SIZE % GRANULES
}

/// Index of an address's pool in its granule.
#[inline(always)]
pub(crate) const fn pool_in_granule(address: usize) -> usize {
    (address >> POOL_BITS) % POOLS_PER_ARENA
}

/// Index of an address's region; at least [`REGIONS`] if it has none.
#[inline(always)]
pub(crate) const fn region(address: usize) -> usize {
    address >> REGION_BITS
}

const _: () = assert!(ALIGNMENT == 2 * PACKED_ALIGNMENT);
const _: () = assert!(FIRST_SMALL_BLOCK.is_multiple_of(ALIGNMENT));
