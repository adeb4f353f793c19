//! The numbers: how an address divides into region, arena, pool and offset.
//!
//! ```text
//!   63        47 46          32 31                     16 15             0
//!   +-----------+--------------+-------------------------+---------------+
//!   |  must be  |    region    |          pool           |    offset     |
//!   |     0     | 32768 x 4GiB |      65536 x 64 KiB     |  in the pool  |
//!   +-----------+--------------+-------------------------+---------------+
//! ```
//!
//! A region is only a unit of the address map; a pool is what belongs to one
//! size class. Arenas, what is asked of the kernel, are runs of up to 32 pools.
//!
//! # Why
//!
//! Pools of 64 KiB: the cyclic collector walks 600 000 dicts in 0.15 s when
//! they lie in pools of 64 KiB, in 0.19 s with 16 KiB, in 0.28 s with 4 KiB
//! (prototype on CPython 3.11). Arenas of 2 MiB, aligned to their size, so that
//! the kernel can back one with a huge page.
#![forbid(unsafe_code)]

/// Every block's address is a multiple of this, in bytes, but for those of domains
/// that are packed.
pub const ALIGNMENT: usize = 16;
/// Every block's address is a multiple of this, in bytes.
pub const PACKED_ALIGNMENT: usize = 8;

/// log2 of [`POOL_SIZE`].
pub const POOL_BITS: u32 = 16;
/// Bytes in a pool; a pool's address is a multiple of it.
pub const POOL_SIZE: usize = 1 << POOL_BITS;

/// Bytes in the smallest OS page there is.
pub const PIECE: usize = 4096;

/// Bytes in an arena from the kernel; its address is a multiple of it.
pub const ARENA_SIZE: usize = 2 << 20;
/// Pools in an arena, at the most.
pub const POOLS_PER_ARENA: usize = ARENA_SIZE / POOL_SIZE;

/// log2 of [`REGION_SIZE`].
pub const REGION_BITS: u32 = 32;
/// Bytes that one leaf of the address map answers for.
pub const REGION_SIZE: usize = 1 << REGION_BITS;
/// Pools in a region.
pub const POOLS_PER_REGION: usize = REGION_SIZE / POOL_SIZE;

/// Bits of an address that the kernel gives to programs. (With five-level
/// page tables it gives more, but only to who asks for an address up there.)
pub const ADDRESS_BITS: u32 = 47;
/// Regions that an address can name.
pub const REGIONS: usize = 1 << (ADDRESS_BITS - REGION_BITS);

/// Offset of the first block in a pool of small blocks.
///
/// 48 modulo 64, as behind obmalloc's pool header, although there is no header
/// here: the collector's header takes the first 16 bytes of a container, so
/// with blocks of 64 bytes it lies at the end of one cache line and the object
/// it belongs to at the start of the next, which the collector reads anyway.
/// With offset 0 the collector is a fifth slower (prototype, CPython 3.11).
pub const FIRST_SMALL_BLOCK: usize = 48;

/// The largest request that can ever be served: `PY_SSIZE_T_MAX`.
pub const REQUEST_MAX: usize = isize::MAX as usize;

/// Where the pool of an address begins.
#[inline(always)]
pub const fn pool_base(address: usize) -> usize {
    address & !(POOL_SIZE - 1)
}

/// Index of an address's pool in its region.
#[inline(always)]
pub const fn pool_in_region(address: usize) -> usize {
    (address >> POOL_BITS) % POOLS_PER_REGION
}

/// Number of an address's region; not below [`REGIONS`] if it has none.
#[inline(always)]
pub const fn region(address: usize) -> usize {
    address >> REGION_BITS
}

const _: () = assert!(ALIGNMENT == 2 * PACKED_ALIGNMENT);
const _: () = assert!(FIRST_SMALL_BLOCK.is_multiple_of(ALIGNMENT));
