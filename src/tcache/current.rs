//! The magazines of the calling thread: what its word points to.
//!
//! ```text
//!    UNUSED ------------> those in its record ------------> ENDED
//!            first miss                         its end
//! ```
//!
//! The word always points to magazines, so that the hit path asks nothing: at both ends
//! of a thread's life to some without slots, with which it goes the slow way, where
//! `tcache/registry.rs` tells the two apart by their address.

use core::ptr::{self, NonNull};

use crate::os::thread_word;
use crate::tcache::magazines::Magazines;

/// What a thread has before its first miss. Never written (MAGAZINE-3).
static UNUSED: Magazines = Magazines::slotless();

/// What a thread has that is to have no magazines, because it is ending or because
/// there was no memory for them. All zero, so without memory, until [`ended`] is called.
#[unsafe(link_section = ".bss.tables")]
static ENDED: Magazines = Magazines::zero();

thread_word::start_at!(UNUSED);

/// The calling thread's magazines.
#[inline(always)]
pub(crate) fn magazines() -> &'static Magazines {
    // SAFETY: the word starts as UNUSED and is only set by `set`.
    unsafe { thread_word::get().cast::<Magazines>().as_ref() }
}

/// Gives the calling thread these magazines. They must be no other thread's.
pub(crate) fn set(magazines: &'static Magazines) {
    thread_word::set(NonNull::from(magazines).cast());
}

/// What a thread is to get that is to have none. (Each call writes the same again, which
/// those that have it do not notice.)
#[cold]
pub(crate) fn ended() -> &'static Magazines {
    ENDED.make_slotless();
    &ENDED
}

/// Whether these are what a thread has before its first miss.
#[inline]
pub(crate) fn is_unused(magazines: &Magazines) -> bool {
    ptr::eq(magazines, &raw const UNUSED)
}

/// Whether these are what [`ended`] gave.
#[inline]
pub(crate) fn is_ended(magazines: &Magazines) -> bool {
    ptr::eq(magazines, &raw const ENDED)
}
