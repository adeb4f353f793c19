//! Address space from the kernel (layer -1): mapped, purged, unmapped.
//!
//! Sizes are in bytes and multiples of the OS page, whose size is read from the kernel: 4, 16 and
//! 64 KiB all occur. Mappings are zero and private. Nothing is reserved ahead unless a setting
//! requires it (guard/): the library works under `ulimit -v`, in small containers and under
//! valgrind.

use core::ffi::{c_int, c_void};
use core::ptr::{self, NonNull};

#[cfg(not(miri))]
use libc::{getrlimit, madvise, mincore, munmap};

use super::errno;
#[cfg(feature = "model")]
use super::faults;
#[cfg(miri)]
use super::interpreted::{getrlimit, madvise, mincore, munmap};
use super::sandbox;
use crate::sync::{AtomicUsize, Ordering::Relaxed};

/// Bytes in an OS page.
pub(crate) fn page_size() -> usize {
    static KNOWN: AtomicUsize = AtomicUsize::new(0);
    match KNOWN.load(Relaxed) {
        0 => {
            // SAFETY: sysconf has no preconditions.
            let answer = errno::kept(|| unsafe { libc::sysconf(libc::_SC_PAGESIZE) });
            let size = usize::try_from(answer).ok().filter(|n| n.is_power_of_two());
            let size = size.unwrap_or(4096);
            KNOWN.store(size, Relaxed);
            size
        }
        size => size,
    }
}

/// Copies memory at an address, any value, if all of it can be read.
pub(crate) fn copy_readable(address: usize, to: &mut [u8]) -> bool {
    if !sandbox::allows() {
        return false;
    }
    let local = libc::iovec {
        iov_base: to.as_mut_ptr().cast(),
        iov_len: to.len(),
    };
    let remote = libc::iovec {
        iov_base: ptr::with_exposed_provenance_mut(address),
        iov_len: to.len(),
    };
    // SAFETY: writes to `to` only, at most its length. The kernel checks the other address.
    let copied = errno::kept(|| unsafe {
        libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0)
    });
    usize::try_from(copied) == Ok(to.len())
}

/// Maps `size` bytes anywhere. `None` if the kernel refuses.
pub(crate) fn map(size: usize) -> Option<NonNull<u8>> {
    #[cfg(feature = "model")]
    if faults::MAP.strikes() {
        return None;
    }
    anonymous(size, libc::PROT_READ | libc::PROT_WRITE, 0)
}

fn anonymous(size: usize, access: c_int, more: c_int) -> Option<NonNull<u8>> {
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | more;
    let p = errno::kept(|| {
        // SAFETY: a new private mapping at an address of the kernel's choice replaces nothing.
        unsafe { libc::mmap(ptr::null_mut(), size, access, kind, -1, 0) }
    });
    if p == libc::MAP_FAILED {
        None
    } else {
        NonNull::new(p.cast())
    }
}

/// Maps `size` bytes between two inaccessible pages: an overflow of a neighbour on either side
/// faults before it reaches these bytes. For the library's own data, without reserving memory for
/// it (NORESERVE). Unmapped by [`unmap_fenced`].
pub(crate) fn map_fenced(size: usize) -> Option<NonNull<u8>> {
    #[cfg(feature = "model")]
    if faults::MAP.strikes() {
        return None;
    }
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
    // (By `mmap`, since a sandbox may forbid `mprotect`.)
    fenced(size, |start| {
        let start = start.as_ptr().cast();
        // SAFETY: replaces pages that `fenced` has reserved for this mapping.
        errno::kept(|| unsafe { libc::mmap(start, size, access, kind, -1, 0) } != libc::MAP_FAILED)
    })
}

/// Reserves `size` bytes, rounded up to OS pages, between two inaccessible pages, and calls `fill`,
/// which maps them. `None` if the kernel refuses one of the two; then nothing is mapped.
#[cfg(not(any(miri, all(test, loom))))]
pub(crate) fn fenced(size: usize, fill: impl FnOnce(NonNull<u8>) -> bool) -> Option<NonNull<u8>> {
    let page = page_size();
    let whole = size.checked_next_multiple_of(page)?.checked_add(2 * page)?;
    let fence = errno::kept(|| reserve(whole))?;
    fence.as_ptr().expose_provenance();
    // SAFETY: within the reservation, which is larger than a page.
    let start = unsafe { fence.add(page) };
    if fill(start) {
        return Some(start);
    }
    // SAFETY: the new reservation, to which no pointer exists.
    unsafe { unmap(fence, whole) };
    None
}

/// Without fences: under Miri, which has no inaccessible pages, and in the models, which map anew
/// for every order of events, more often than a process may have mappings.
#[cfg(any(miri, all(test, loom)))]
pub(crate) fn fenced(size: usize, _: impl FnOnce(NonNull<u8>) -> bool) -> Option<NonNull<u8>> {
    anonymous(size, libc::PROT_READ | libc::PROT_WRITE, 0)
}

/// Unmaps a mapping of [`map_fenced`] or [`fenced`], with both fences.
///
/// # Safety
/// `size` is the size that was mapped, and no pointer into the mapping is used any more.
pub(crate) unsafe fn unmap_fenced(start: NonNull<u8>, size: usize) {
    let page = page_size();
    if cfg!(any(miri, all(test, loom))) {
        // SAFETY: mapped by `fenced`; by the contract above it is used no more.
        return unsafe { unmap(start, size) };
    }
    // SAFETY: `fenced` reserved a page before `start`.
    let fence = unsafe { start.sub(page) };
    // SAFETY: the whole reservation; by the contract above it is used no more.
    unsafe { unmap(fence, size.next_multiple_of(page) + 2 * page) };
}

// Hidden, because a program may export a symbol of this name.
#[cfg(not(any(test, miri)))]
core::arch::global_asm!(".hidden _end");

/// The end of the pages of the library's own data: its statics, and with the archive those of the
/// program that it is linked into.
#[cfg(not(any(test, miri)))]
pub(crate) fn end_of_data() -> usize {
    unsafe extern "C" {
        /// Set by the linker: the first byte after the data.
        static _end: u8;
    }
    let end = (&raw const _end).addr();
    end.next_multiple_of(page_size())
}

/// In tests: nowhere.
#[cfg(any(test, miri))]
pub(crate) fn end_of_data() -> usize {
    0
}

/// The limit of the process's address space in bytes (RLIMIT_AS), if there is one.
pub(crate) fn address_limit() -> Option<usize> {
    let mut limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    let read = || {
        // SAFETY: `limit` has room for the result.
        unsafe { getrlimit(libc::RLIMIT_AS, &raw mut limit) }
    };
    let known = sandbox::allows() && errno::kept(read) == 0;
    let limited = known && limit.rlim_cur != libc::RLIM_INFINITY;
    limited.then(|| usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX))
}

/// Reserves `size` bytes of address space, inaccessible until they are [`open`]ed, without
/// memory. `None` if the kernel refuses.
pub(crate) fn reserve(size: usize) -> Option<NonNull<u8>> {
    anonymous(size, libc::PROT_NONE, libc::MAP_NORESERVE)
}

/// As [`map_fenced`], for data that is mostly never touched: no huge page backs it.
pub(crate) fn map_sparse(size: usize) -> Option<NonNull<u8>> {
    let base = map_fenced(size)?;
    advise_small_pages(base, size);
    Some(base)
}

/// Makes `size` bytes at `address` readable and writable. False if the process has its maximum of
/// mappings.
///
/// # Safety
/// The bytes are whole OS pages of a private mapping of the caller.
pub(crate) unsafe fn open(address: usize, size: usize) -> bool {
    // SAFETY: whole pages of the caller's own mapping, by the contract above.
    unsafe { protect(address, size, libc::PROT_READ | libc::PROT_WRITE) }
}

/// Makes `size` bytes at `address` inaccessible and returns their memory: opened again, they read
/// as zero. False if the process has its maximum of mappings; then they stay as they are.
///
/// # Safety
/// The bytes are whole OS pages of a private mapping of the caller, with no live data.
pub(crate) unsafe fn close(address: usize, size: usize) -> bool {
    // SAFETY: whole pages of the caller's own mapping, by the contract above.
    let closed = unsafe { protect(address, size, libc::PROT_NONE) };
    if closed {
        // SAFETY: whole pages of the caller's own mapping, by the contract above.
        unsafe { purge(address, size) };
    }
    closed
}

/// # Safety
/// The bytes are whole OS pages of a private mapping of the caller.
unsafe fn protect(address: usize, size: usize, access: c_int) -> bool {
    let start = ptr::with_exposed_provenance_mut(address);
    // SAFETY: whole pages of the caller's own mapping, by the contract above.
    sandbox::allows() && errno::kept(|| unsafe { libc::mprotect(start, size, access) == 0 })
}

/// Maps an OS page that the kernel wipes in each child with a copy of the memory, even without fork
/// handlers (MADV_WIPEONFORK). `None` if the kernel refuses or does not support it (before 4.14).
pub(crate) fn map_wiped_in_children() -> Option<NonNull<u8>> {
    let (size, advice) = (page_size(), libc::MADV_WIPEONFORK);
    let page = if sandbox::allows() {
        map_fenced(size)
    } else {
        None
    }?;
    // SAFETY: a new page, to which no pointer exists.
    if unsafe { advise(page.as_ptr().cast(), size, advice) } {
        return Some(page);
    }
    // SAFETY: a new page, to which no pointer exists.
    unsafe { unmap_fenced(page, size) };
    None
}

/// Unmaps `size` bytes at `base`.
///
/// # Safety
/// They were mapped by this module, and no pointer into them is used any more.
pub(crate) unsafe fn unmap(base: NonNull<u8>, size: usize) {
    #[cfg(all(test, loom))]
    crate::sync::execution::forget(base.addr().get(), size);
    #[cfg(feature = "model")]
    if faults::UNMAP.strikes() {
        return;
    }
    // SAFETY: a mapping of this module, by the contract above used no more. On failure (ENOMEM if
    // the split of a mapping would exceed the maximum) it stays mapped, which does no harm.
    errno::kept(|| unsafe { munmap(base.as_ptr().cast(), size) });
}

/// Maps `size` bytes at a multiple of `size`, a power of two.
///
/// The kernel mostly puts a mapping right below the last one, so a plain mapping is tried first:
/// after one aligned arena the next is aligned, too.
pub(crate) fn map_aligned(size: usize) -> Option<NonNull<u8>> {
    let plain = map(size)?;
    if plain.addr().get().is_multiple_of(size) {
        return Some(plain);
    }
    // SAFETY: a new mapping, to which no pointer exists.
    unsafe { unmap(plain, size) };
    let wide = map(2 * size)?;
    let before = wide.addr().get().next_multiple_of(size) - wide.addr().get();
    let after = size - before;
    // SAFETY: `before <= size`, so this stays within the mapping.
    let base = unsafe { wide.add(before) };
    if before > 0 {
        // SAFETY: the part of the new mapping before `base`, to which no pointer exists.
        unsafe { unmap(wide, before) };
    }
    if after > 0 {
        // SAFETY: the part above `base + size`, still within the mapping.
        let end = unsafe { base.add(size) };
        // SAFETY: a part of the new mapping, to which no pointer exists.
        unsafe { unmap(end, after) };
    }
    Some(base)
}

/// False if the kernel refuses, or a sandbox forbids the call.
///
/// # Safety
/// The effect of the advice on these pages is sound.
unsafe fn advise(start: *mut c_void, size: usize, advice: c_int) -> bool {
    #[cfg(feature = "model")]
    if faults::ADVISE.strikes() {
        return false;
    }
    // SAFETY: the effect of the advice is sound by the contract above.
    sandbox::allows() && errno::kept(|| unsafe { madvise(start, size, advice) == 0 })
}

/// Purges `size` bytes at `address`: their memory is returned to the OS, the addresses stay and
/// read as zero. False if nothing changed: the kernel refuses locked pages, and a sandbox may
/// forbid the call.
///
/// # Safety
/// The bytes are whole OS pages of a private mapping, with no live data.
pub(crate) unsafe fn purge(address: usize, size: usize) -> bool {
    let start = ptr::with_exposed_provenance_mut(address);
    // SAFETY: whole pages of the caller's own mapping, by the contract above.
    unsafe { advise(start, size, libc::MADV_DONTNEED) }
}

/// Whether nothing is mapped at `address`. False if that is unknown, because a sandbox may forbid
/// the call.
pub(crate) fn is_unmapped(address: usize) -> bool {
    if !sandbox::allows() {
        return false;
    }
    let page = address & !(page_size() - 1);
    let start = ptr::with_exposed_provenance_mut(page);
    let mut resident = [0];
    errno::kept(|| {
        // SAFETY: a query of one page, with room for the result.
        let refused = unsafe { mincore(start, page_size(), resident.as_mut_ptr()) } != 0;
        refused && errno::get() == libc::ENOMEM
    })
}

/// Prefaults `size` bytes at `address`, as a write to each page would. False if the kernel cannot
/// (before 5.14, or when memory is short): then the writes fault the pages in.
pub(crate) fn populate(address: usize, size: usize) -> bool {
    let start = ptr::with_exposed_provenance_mut(address);
    // SAFETY: changes no content, whatever is mapped there.
    unsafe { advise(start, size, libc::MADV_POPULATE_WRITE) }
}

/// Marks `size` bytes at `base` NOHUGEPAGE. Where huge pages are always on, the first byte touched
/// in an arena would otherwise cost 2 MiB.
pub(crate) fn advise_small_pages(base: NonNull<u8>, size: usize) {
    // SAFETY: the advice changes no content, whatever is mapped there. A kernel without huge pages
    // returns EINVAL, which has the same effect.
    unsafe { advise(base.as_ptr().cast(), size, libc::MADV_NOHUGEPAGE) };
}

/// Marks `size` bytes at `base` HUGEPAGE. False if the kernel has no huge pages, or a sandbox
/// forbids the call.
pub(crate) fn advise_huge_pages(base: NonNull<u8>, size: usize) -> bool {
    // SAFETY: advice changes no content, whatever is mapped there.
    unsafe { advise(base.as_ptr().cast(), size, libc::MADV_HUGEPAGE) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;

    #[test]
    fn the_page_size_is_a_power_of_two() {
        assert!(page_size().is_power_of_two());
        assert!(page_size() >= 4096);
    }

    #[test]
    fn aligned_mappings_are_aligned_zero_and_writable() {
        let size = 1 << 21;
        let maps: Vec<_> = (0..5).map(|_| map_aligned(size).unwrap()).collect();
        for base in maps {
            assert_eq!(base.addr().get() % size, 0);
            for offset in [0, size / 2, size - 1] {
                // SAFETY: within the mapping.
                let byte = unsafe { base.add(offset) };
                // SAFETY: within the mapping; read, then written.
                assert_eq!(unsafe { byte.read() }, 0);
                // SAFETY: within the mapping.
                unsafe { byte.write(1) };
            }
            // SAFETY: no pointer into the mapping is used any more.
            unsafe { unmap(base, size) };
        }
    }

    #[test]
    fn what_was_closed_is_zero_when_it_is_opened_again() {
        let page = page_size();
        let base = reserve(3 * page).unwrap();
        let address = base.as_ptr().expose_provenance() + page;
        for _ in 0..2 {
            // SAFETY: a page of the test's own mapping.
            assert!(unsafe { open(address, page) });
            let byte: *mut u8 = ptr::with_exposed_provenance_mut(address);
            // SAFETY: the page is open.
            assert_eq!(unsafe { byte.read() }, 0);
            // SAFETY: a page of the test's own mapping.
            unsafe { byte.write(1) };
            // SAFETY: the page is open.
            assert!(unsafe { close(address, page) });
        }
        // SAFETY: no pointer into the mapping is used any more.
        unsafe { unmap(base, 3 * page) };
        assert!(reserve(usize::MAX & !(page - 1)).is_none());
    }

    #[test]
    fn an_impossible_size_is_refused() {
        assert!(map(usize::MAX & !(page_size() - 1)).is_none());
        assert!(map_aligned(1 << 62).is_none());
    }
}
