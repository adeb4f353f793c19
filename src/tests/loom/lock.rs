//! The lock: one thread at a time, nobody sleeps for ever, and the thread that forks is
//! let through.

use crate::os::lock::{Lock, fork_begins, fork_ends};
use crate::sync::Cell;
use crate::sync::execution::{model, spawn};
use std::rc::Rc;

fn add(lock: &Lock<Cell<u32>>) {
    let count = lock.lock();
    count.set(count.get() + 1);
}

#[test]
fn one_thread_at_a_time_and_none_sleeps_for_ever() {
    model(None, || {
        let lock = Rc::new(Lock::new(Cell::new(0)));
        add(&lock);
        let other = Rc::clone(&lock);
        let thread = spawn(move || add(&other));
        add(&lock);
        thread.join().unwrap();
        assert_eq!(lock.lock().get(), 3);
    });
}

#[test]
fn three_threads_wake_each_other() {
    model(Some(2), || {
        let lock = Rc::new(Lock::new(Cell::new(0)));
        add(&lock);
        let threads: [_; 2] = core::array::from_fn(|_| {
            let other = Rc::clone(&lock);
            spawn(move || add(&other))
        });
        add(&lock);
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(lock.lock().get(), 4);
    });
}

#[test]
fn who_only_tries_takes_it_alone_or_not_at_all() {
    model(None, || {
        let lock = Rc::new(Lock::new(Cell::new(0)));
        add(&lock);
        let other = Rc::clone(&lock);
        let tries = spawn(move || match other.try_lock() {
            Some(count) => count.set(count.get() + 1),
            None => add(&other),
        });
        add(&lock);
        tries.join().unwrap();
        assert_eq!(lock.lock().get(), 3);
    });
}

/// Two threads fork, a third takes both locks in their order: each fork finds both
/// values equal, and its own calls in between are let through.
#[test]
fn a_fork_holds_all_locks_and_passes_itself() {
    model(Some(2), || {
        let locks = Rc::new([Lock::new(Cell::new(0)), Lock::new(Cell::new(0))]);
        locks.iter().for_each(add);
        let fork = |locks: &[Lock<Cell<u32>>; 2]| {
            locks.iter().for_each(Lock::hold_for_fork);
            fork_begins();
            // SAFETY: held.
            let seen = locks.each_ref().map(|lock| unsafe { lock.held() }.get());
            assert_eq!(seen[0], seen[1]);
            locks.iter().for_each(add);
            fork_ends();
            locks.iter().rev().for_each(Lock::open_after_fork);
        };
        let other = Rc::clone(&locks);
        let forks = spawn(move || fork(&other));
        let other = Rc::clone(&locks);
        let works = spawn(move || {
            let first = other[0].lock();
            first.set(first.get() + 1);
            add(&other[1]);
        });
        fork(&locks);
        forks.join().unwrap();
        works.join().unwrap();
        assert_eq!(locks.each_ref().map(|lock| lock.lock().get()), [4, 4]);
    });
}
