//! Something that is done once in a process, before any thread goes on that wants it
//! done: without a lock, which the child of another thread's fork would find closed for
//! ever.
//!
//! ```text
//!    0  --- the first one begins --->  its process's number  --- it is done --->  DONE
//!                                      ^
//!                 in a forked child: of another process; so whoever comes does it anew
//! ```

use crate::os::{text, wait};
use crate::sync::{
    AtomicI32,
    Ordering::{Acquire, Relaxed, Release},
};

/// Release says that it is done; pairs with the Acquire of who goes on.
pub struct Once(AtomicI32);

const DONE: i32 = -1;

impl Once {
    /// Not done yet.
    #[expect(
        clippy::new_without_default,
        reason = "made in constants, where Default cannot be"
    )]
    pub const fn new() -> Once {
        Once(AtomicI32::new(0))
    }

    /// Has `work` done, if it is not; it is when this returns, whoever did it.
    #[inline]
    pub fn call(&self, work: impl FnOnce()) {
        if self.0.load(Acquire) != DONE && self.begin() {
            work();
            self.0.store(DONE, Release);
        }
    }

    /// Whether this thread is to do it. False when another one has.
    #[cold]
    fn begin(&self) -> bool {
        let me = text::pid();
        let mut known = self.0.load(Acquire);
        while known != DONE {
            if known == me {
                wait::give_way(); // another thread is at it
                known = self.0.load(Acquire);
                continue;
            }
            match self.0.compare_exchange(known, me, Acquire, Acquire) {
                Ok(_) => return true,
                Err(now) => known = now,
            }
        }
        false
    }

    /// Says that it is done, in a forked child that has it from its parent.
    pub fn is_done(&self) {
        self.0.store(DONE, Relaxed);
    }

    /// As a forked child has it whose parent was at it, for tests.
    #[cfg(test)]
    pub fn of_another_process() -> Once {
        Once(AtomicI32::new(text::pid() + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_done_once_and_in_a_forked_child_anew() {
        for once in [Once::new(), Once::of_another_process()] {
            let mut times = 0;
            once.call(|| times += 1);
            once.call(|| times += 1);
            assert_eq!(times, 1);
        }
        let once = Once::new();
        once.is_done();
        once.call(|| unreachable!());
    }
}
