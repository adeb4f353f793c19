//! Address space from the kernel and back to it (layer -1).
//!
//! Sizes are in bytes and multiples of the OS page, which is asked for and not
//! assumed: 4, 16 and 64 KiB all occur. What is mapped is zero and private.
//! Nothing is reserved ahead unless a setting asks (guard/): the library has to
//! work under `ulimit -v`, in small containers and under valgrind.

use core::ffi::{c_int, c_void};
use core::ptr::{self, NonNull};

#[cfg(not(miri))]
use libc::{madvise, mincore, munmap};

use super::errno;
#[cfg(feature = "model")]
use super::faults;
#[cfg(miri)]
use super::interpreted::{madvise, mincore, munmap};
use super::sandbox;
use crate::sync::{AtomicUsize, Ordering::Relaxed};

/// Bytes in an OS page.
pub(crate) fn page_size() -> usize {
    static KNOWN: AtomicUsize = AtomicUsize::new(0);
    match KNOWN.load(Relaxed) {
        0 => {
            // SAFETY: a question without conditions.
            let answer = errno::kept(|| unsafe { libc::sysconf(libc::_SC_PAGESIZE) });
            let size = usize::try_from(answer).ok().filter(|n| n.is_power_of_two());
            let size = size.unwrap_or(4096);
            KNOWN.store(size, Relaxed);
            size
        }
        size => size,
    }
}

/// Maps `size` bytes anywhere. `None` if the kernel has no more to give.
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
        // SAFETY: a fresh private mapping at an address of the kernel's choice
        // touches nothing that exists.
        unsafe { libc::mmap(ptr::null_mut(), size, access, kind, -1, 0) }
    });
    if p == libc::MAP_FAILED {
        None
    } else {
        NonNull::new(p.cast())
    }
}

/// Maps `size` bytes between two pages that nobody can access: what runs beyond the end of a
/// neighbour, on either side, faults before it comes here. For what the library itself keeps; the
/// kernel need not set memory aside for it. To be given back by [`unmap_fenced`].
pub(crate) fn map_fenced(size: usize) -> Option<NonNull<u8>> {
    #[cfg(feature = "model")]
    if faults::MAP.strikes() {
        return None;
    }
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
    // (By `mmap`, since a sandbox may not have `mprotect`.)
    fenced(size, |start| {
        let start = start.as_ptr().cast();
        // SAFETY: in the place of pages that `fenced` has reserved for it.
        errno::kept(|| unsafe { libc::mmap(start, size, access, kind, -1, 0) } != libc::MAP_FAILED)
    })
}

/// Reserves `size` bytes, rounded up to OS pages, between two more, and has `fill` put a mapping in
/// the place of those bytes. `None`, and nothing is mapped, if the kernel refuses either.
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
    // SAFETY: reserved just now; nobody has seen it.
    unsafe { unmap(fence, whole) };
    None
}

/// Under Miri, which knows no pages that cannot be accessed, and in the models, which map anew for
/// every order of events, more than a process may have mappings: without fences.
#[cfg(any(miri, all(test, loom)))]
pub(crate) fn fenced(size: usize, _: impl FnOnce(NonNull<u8>) -> bool) -> Option<NonNull<u8>> {
    anonymous(size, libc::PROT_READ | libc::PROT_WRITE, 0)
}

/// Gives back what [`map_fenced`] or [`fenced`] mapped, with both fences.
///
/// # Safety
/// `size` is the size that was mapped, and nothing points there any more.
pub(crate) unsafe fn unmap_fenced(start: NonNull<u8>, size: usize) {
    let page = page_size();
    if cfg!(any(miri, all(test, loom))) {
        // SAFETY: mapped by `fenced`, and given up by the caller.
        return unsafe { unmap(start, size) };
    }
    // SAFETY: `fenced` reserved a page before `start`.
    let fence = unsafe { start.sub(page) };
    // SAFETY: the reservation as a whole, which the caller has given up.
    unsafe { unmap(fence, size.next_multiple_of(page) + 2 * page) };
}

// Not the symbol of the same name that a program may export.
#[cfg(not(any(test, miri)))]
core::arch::global_asm!(".hidden _end");

/// Where the pages end that hold the library's own data: its statics, and with the archive those of
/// the program it is linked into.
#[cfg(not(any(test, miri)))]
pub(crate) fn end_of_data() -> usize {
    unsafe extern "C" {
        /// The linker's: the first byte behind the data.
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

/// Bytes of addresses that the process may have, if there is a limit to that.
pub(crate) fn address_limit() -> Option<usize> {
    let mut limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    let read = || {
        // SAFETY: a place for the answer.
        unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) }
    };
    let known = sandbox::allows() && errno::kept(read) == 0;
    let limited = known && limit.rlim_cur != libc::RLIM_INFINITY;
    limited.then(|| usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX))
}

/// Takes `size` bytes of addresses that nobody can read or write until they are
/// [`open`]ed. No memory is set aside for them. `None` if the kernel refuses.
pub(crate) fn reserve(size: usize) -> Option<NonNull<u8>> {
    anonymous(size, libc::PROT_NONE, libc::MAP_NORESERVE)
}

/// As [`map_fenced`], for what will mostly never be touched: no huge page backs it.
pub(crate) fn map_sparse(size: usize) -> Option<NonNull<u8>> {
    let base = map_fenced(size)?;
    advise_small_pages(base, size);
    Some(base)
}

/// Lets `size` bytes at `address` be read and written. False if the kernel has no
/// place for one mapping more.
///
/// # Safety
/// Whole OS pages of a private mapping of the caller's.
pub(crate) unsafe fn open(address: usize, size: usize) -> bool {
    // SAFETY: the caller's promise.
    unsafe { protect(address, size, libc::PROT_READ | libc::PROT_WRITE) }
}

/// Lets nobody read or write `size` bytes at `address` any more, and gives their
/// memory back: opened again, they read as zero. False if the kernel has no place
/// for one mapping more; then they stay as they are.
///
/// # Safety
/// As for [`open`], and nothing lives there.
pub(crate) unsafe fn close(address: usize, size: usize) -> bool {
    // SAFETY: the caller's promise.
    let closed = unsafe { protect(address, size, libc::PROT_NONE) };
    if closed {
        // SAFETY: the caller's promise.
        unsafe { purge(address, size) };
    }
    closed
}

/// # Safety
/// As for [`open`].
unsafe fn protect(address: usize, size: usize, access: c_int) -> bool {
    let start = ptr::with_exposed_provenance_mut(address);
    // SAFETY: whole pages of the caller's own mapping, which it vouches for.
    sandbox::allows() && errno::kept(|| unsafe { libc::mprotect(start, size, access) == 0 })
}

/// Maps an OS page that is zero again in each child that gets a copy of the
/// memory, whoever makes it. `None` if there is none, or the kernel has no such
/// (before 4.14).
pub(crate) fn map_wiped_in_children() -> Option<NonNull<u8>> {
    let (size, advice) = (page_size(), libc::MADV_WIPEONFORK);
    let page = if sandbox::allows() {
        map_fenced(size)
    } else {
        None
    }?;
    // SAFETY: a page that nobody has seen.
    if unsafe { advise(page.as_ptr().cast(), size, advice) } {
        return Some(page);
    }
    // SAFETY: nobody has seen it.
    unsafe { unmap_fenced(page, size) };
    None
}

/// Gives `size` bytes at `base` back, addresses and all.
///
/// # Safety
/// They were mapped here, and nothing points into them any more.
pub(crate) unsafe fn unmap(base: NonNull<u8>, size: usize) {
    #[cfg(all(test, loom))]
    crate::sync::execution::forget(base.addr().get(), size);
    #[cfg(feature = "model")]
    if faults::UNMAP.strikes() {
        return;
    }
    // SAFETY: a mapping made here, of which the caller vouches that nothing points into it.
    // Failure (ENOMEM when a mapping would have to be split in too many) leaves it mapped,
    // which harms nobody.
    errno::kept(|| unsafe { munmap(base.as_ptr().cast(), size) });
}

/// Maps `size` bytes at a multiple of `size`, a power of two.
///
/// Neighbouring mappings are mostly laid one below the other, so the plain
/// way is tried first: after one aligned arena the next is aligned too.
pub(crate) fn map_aligned(size: usize) -> Option<NonNull<u8>> {
    let plain = map(size)?;
    if plain.addr().get().is_multiple_of(size) {
        return Some(plain);
    }
    // SAFETY: mapped just now; nobody has seen it.
    unsafe { unmap(plain, size) };
    let wide = map(2 * size)?;
    let before = wide.addr().get().next_multiple_of(size) - wide.addr().get();
    let after = size - before;
    // SAFETY: `before <= size`, so this stays within the mapping.
    let base = unsafe { wide.add(before) };
    if before > 0 {
        // SAFETY: the part below `base`, which nobody has seen.
        unsafe { unmap(wide, before) };
    }
    if after > 0 {
        // SAFETY: the part above `base + size`, still within the mapping.
        let end = unsafe { base.add(size) };
        // SAFETY: as above; nobody has seen it.
        unsafe { unmap(end, after) };
    }
    Some(base)
}

/// False if the kernel refuses, or a sandbox would.
///
/// # Safety
/// As the advice demands.
unsafe fn advise(start: *mut c_void, size: usize, advice: c_int) -> bool {
    #[cfg(feature = "model")]
    if faults::ADVISE.strikes() {
        return false;
    }
    // SAFETY: the caller vouches for what the advice does to these pages.
    sandbox::allows() && errno::kept(|| unsafe { madvise(start, size, advice) == 0 })
}

/// Gives the memory of `size` bytes at `address` back, and keeps the addresses:
/// they read as zero from now on. False if they stay as they are: the kernel refuses what
/// is locked, and a sandbox may not know the call.
///
/// # Safety
/// Whole OS pages of a private mapping, on which nothing lives.
pub(crate) unsafe fn purge(address: usize, size: usize) -> bool {
    let start = ptr::with_exposed_provenance_mut(address);
    // SAFETY: the caller's promise.
    unsafe { advise(start, size, libc::MADV_DONTNEED) }
}

/// Whether nothing is mapped at `address`, as far as the kernel says so, and may be asked.
pub(crate) fn is_unmapped(address: usize) -> bool {
    if !sandbox::allows() {
        return false;
    }
    let page = address & !(page_size() - 1);
    let start = ptr::with_exposed_provenance_mut(page);
    let mut resident = [0];
    errno::kept(|| {
        // SAFETY: a question about one page, and a place for the answer.
        let refused = unsafe { mincore(start, page_size(), resident.as_mut_ptr()) } != 0;
        refused && errno::get() == libc::ENOMEM
    })
}

/// Brings the memory of `size` bytes at `address` in at once, as writing to each page
/// would one by one. False where the kernel cannot (before 5.14, or when memory is
/// short): then writing does it.
pub(crate) fn populate(address: usize, size: usize) -> bool {
    let start = ptr::with_exposed_provenance_mut(address);
    // SAFETY: changes no content, whatever is mapped there.
    unsafe { advise(start, size, libc::MADV_POPULATE_WRITE) }
}

/// Asks the kernel not to back `size` bytes at `base` with huge pages.
///
/// Where huge pages are always on, the first byte touched in an arena would
/// otherwise cost 2 MiB.
pub(crate) fn advise_small_pages(base: NonNull<u8>, size: usize) {
    // SAFETY: advice changes no content, whatever is mapped there. A kernel
    // built without huge pages says EINVAL, which is as good.
    unsafe { advise(base.as_ptr().cast(), size, libc::MADV_NOHUGEPAGE) };
}

/// Asks for huge pages in `size` bytes at `base`, where the system's setting
/// allows that. False if the kernel has none, or may not be asked.
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
                // SAFETY: as above; read, then written.
                assert_eq!(unsafe { byte.read() }, 0);
                // SAFETY: as above.
                unsafe { byte.write(1) };
            }
            // SAFETY: nothing points there any more.
            unsafe { unmap(base, size) };
        }
    }

    #[test]
    fn what_was_closed_is_zero_when_it_is_opened_again() {
        let page = page_size();
        let base = reserve(3 * page).unwrap();
        let address = base.as_ptr().expose_provenance() + page;
        for _ in 0..2 {
            // SAFETY: a page of the mapping, which is of no use to anyone else.
            assert!(unsafe { open(address, page) });
            let byte: *mut u8 = ptr::with_exposed_provenance_mut(address);
            // SAFETY: opened just now.
            assert_eq!(unsafe { byte.read() }, 0);
            // SAFETY: as above.
            unsafe { byte.write(1) };
            // SAFETY: as above.
            assert!(unsafe { close(address, page) });
        }
        // SAFETY: nothing points there any more.
        unsafe { unmap(base, 3 * page) };
        assert!(reserve(usize::MAX & !(page - 1)).is_none());
    }

    #[test]
    fn an_impossible_size_is_refused() {
        assert!(map(usize::MAX & !(page_size() - 1)).is_none());
        assert!(map_aligned(1 << 62).is_none());
    }
}
