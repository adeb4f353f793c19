//! The thread that answers requests, and answers by ticks where there is no thread.

use super::mapping::{self, Look, Words};
use crate::os::helper::Helper;
use crate::os::lock::Word;
use crate::os::shared;
use crate::stats::dumps;
use crate::sync::Ordering::{Acquire, Release};

/// Milliseconds after which a snapshot is dropped.
const SNAPSHOT_STAYS: u64 = 10_000;

static SERVER: Helper = Helper::called(c"obmalloc-live", work, kick);

/// Creates the page and starts the thread if they are missing; answers a pending request itself
/// where there can be no thread. With no lock held.
#[cold]
pub(crate) fn heed(may_start: bool) {
    match mapping::look() {
        Look::Good => {}
        Look::Leave => return,
        Look::Missing => SERVER.without(mapping::renew),
    }
    if may_start && mapping::is_there() && SERVER.start() {
        return;
    }
    // Without a thread another tick may replace the page at any moment (PAGE-1).
    mapping::answer_pending();
}

/// The thread's main function.
fn work(helper: &Helper) {
    let Some(words) = Words::now() else {
        helper.leave(|| true);
        return;
    };
    words.has_thread(true);
    while !helper.is_to_stop() {
        let request = words.request().load(Acquire);
        if words.is_asked() {
            mapping::answer(words, request, &|| !helper.is_to_stop());
            continue;
        }
        let stays = words.has_snapshot().then_some(SNAPSHOT_STAYS);
        let limit = stays.into_iter().chain(dumps::patience()).min();
        if !shared::wait(words.request(), request, limit) {
            mapping::drop_snapshot();
        }
        dumps::tick();
    }
    words.has_thread(false);
}

/// Wakes the thread to see that it has to stop.
fn kick() {
    if let Some(words) = Words::now() {
        words.request().fetch_add(1, Release);
        shared::wake(words.request());
    }
}

/// The lock under which the thread starts and stops, for forks.
pub(crate) fn word() -> &'static Word {
    SERVER.word()
}

/// Before a fork that holds the lock: stops the thread. Returns whether a request was pending.
#[cold]
pub(crate) fn stop_for_fork() -> bool {
    // Only under the server's lock the page stays (PAGE-1).
    let words = Words::now().filter(|_| SERVER.is_held_for_fork());
    let was_asked = words.is_some_and(|words| words.is_asked());
    SERVER.stop_for_fork();
    was_asked
}

/// Waits for the end of the thread, for `patience` nanoseconds.
#[cold]
pub(crate) fn wait_until_gone(patience: u64) {
    SERVER.wait_until_gone(patience);
}

/// In a forked child: there is no thread.
#[cold]
pub(crate) fn forked() {
    SERVER.forked();
}

#[cfg(all(test, not(any(miri, loom))))]
mod tests {
    use super::*;
    use crate::sync::{AtomicBool, Ordering::Relaxed};

    /// Threads without a server replace the page, whose descriptor the program closes, while others
    /// look for requests on it.
    #[test]
    fn a_page_is_not_read_while_another_tick_replaces_it() {
        let end = AtomicBool::new(false);
        let ticks = || {
            while !end.load(Relaxed) {
                heed(false);
            }
        };
        std::thread::scope(|scope| {
            (0..12).for_each(|_| drop(scope.spawn(ticks)));
            for _ in 0..1500 {
                mapping::close_file();
                heed(false);
            }
            end.store(true, Relaxed);
        });
        assert!(mapping::is_there());
    }
}
