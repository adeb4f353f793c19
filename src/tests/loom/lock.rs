//! The lock: one owner at a time, no thread sleeps for ever, the forking thread passes, and a borrowed
//! lock is returned to its fork or poisoned in the child.

use crate::os::forker::{self, SLEEPS, Turn};
use crate::os::lock::Lock;
use crate::sync::execution::{model, spawn};
use crate::sync::{Cell, spin_loop};
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

type Pair = [Lock<Cell<u32>>; 2];

/// The steps of `background/fork.rs` around a fork; `copied` runs in place of the copy.
fn fork(locks: &Pair, copied: impl FnOnce()) {
    assert!(matches!(forker::begin(u64::MAX), Turn::Own));
    for lock in locks {
        assert!(lock.word().take_for_fork(u64::MAX));
    }
    copied();
    for lock in locks.iter().rev() {
        lock.word().unlock_after_fork();
    }
    forker::end();
}

/// Two threads fork while a third takes both locks in order: each fork finds both values equal, and
/// its own calls in between pass.
#[test]
fn a_fork_holds_all_locks_and_passes_itself() {
    SLEEPS.set(false);
    model(Some(2), || {
        let locks: Rc<Pair> = Rc::new([Lock::new(Cell::new(0)), Lock::new(Cell::new(0))]);
        locks.iter().for_each(add);
        let fork_and_add = |locks: &Pair| {
            fork(locks, || {
                let seen = locks.each_ref().map(|lock| lock.of_fork().unwrap().get());
                assert_eq!(seen[0], seen[1]);
                locks.iter().for_each(add);
            });
        };
        let other = Rc::clone(&locks);
        let forks = spawn(move || fork_and_add(&other));
        let other = Rc::clone(&locks);
        let works = spawn(move || {
            let first = other[0].lock();
            first.set(first.get() + 1);
            add(&other[1]);
        });
        fork_and_add(&locks);
        forks.join().unwrap();
        works.join().unwrap();
        assert_eq!(locks.each_ref().map(|lock| lock.lock().get()), [4, 4]);
    });
}

/// One of several sleeping threads is woken: if that is the fork, it wakes the next.
#[test]
fn a_fork_that_has_slept_wakes_others() {
    SLEEPS.set(false);
    model(Some(2), || {
        let locks: Rc<Pair> = Rc::new([Lock::new(Cell::new(0)), Lock::new(Cell::new(0))]);
        locks.iter().for_each(add);
        let threads: [_; 2] = core::array::from_fn(|_| {
            let other = Rc::clone(&locks);
            spawn(move || {
                let count = other[0].lock();
                spin_loop(); // the others come to sleep meanwhile
                count.set(count.get() + 1);
            })
        });
        fork(&locks, || ());
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(locks[0].lock().get(), 3);
    });
}

/// A fork whose handlers wait for a thread that needs both locks: the thread borrows and returns them.
#[test]
fn a_fork_may_wait_for_a_thread_that_needs_its_locks() {
    model(Some(2), || {
        SLEEPS.set(true);
        let locks: Rc<Pair> = Rc::new([Lock::new(Cell::new(0)), Lock::new(Cell::new(0))]);
        locks.iter().for_each(add);
        let other = Rc::clone(&locks);
        let on_added = spawn(move || other.iter().for_each(add));
        fork(&locks, || {
            on_added.join().unwrap();
            assert!(locks.iter().all(|lock| lock.of_fork().is_some()));
            locks.iter().for_each(add);
        });
        assert_eq!(locks.each_ref().map(|lock| lock.lock().get()), [3, 3]);
    });
    SLEEPS.set(false);
}

/// Another library's handler allocates twice during the fork, and a thread borrows the lock before, in
/// between or afterwards: never while the handler is in it, and each sees what the others did.
#[test]
fn a_lock_that_its_fork_has_entered_is_not_lent() {
    model(Some(2), || {
        SLEEPS.set(true);
        let locks: Rc<Pair> = Rc::new([Lock::new(Cell::new(0)), Lock::new(Cell::new(0))]);
        locks.iter().for_each(add);
        let other = Rc::clone(&locks);
        let adds = spawn(move || add(&other[0]));
        fork(&locks, || {
            add(&locks[0]);
            add(&locks[0]);
        });
        adds.join().unwrap();
        assert_eq!(locks[0].lock().get(), 4);
    });
    SLEEPS.set(false);
}

/// The fork ends while a thread has borrowed a lock of it.
#[test]
fn a_lock_that_is_lent_beyond_the_fork_is_open_in_the_end() {
    model(Some(3), || {
        SLEEPS.set(true);
        let locks: Rc<Pair> = Rc::new([Lock::new(Cell::new(0)), Lock::new(Cell::new(0))]);
        locks.iter().for_each(add);
        let other = Rc::clone(&locks);
        let adds = spawn(move || other.iter().for_each(add));
        fork(&locks, || ());
        fork(&locks, || ());
        locks.iter().for_each(add);
        adds.join().unwrap();
        for lock in locks.iter() {
            assert_eq!(lock.try_lock().expect("it is open").get(), 3);
        }
    });
    SLEEPS.set(false);
}

/// A fork that interrupted its thread, which held a lock: the fork gets the other lock or gives up, and
/// only the interrupted code opens the held one.
#[test]
fn a_fork_leaves_what_its_thread_holds() {
    model(Some(2), || {
        SLEEPS.set(false);
        let locks: Rc<Pair> = Rc::new([Lock::new(Cell::new(0)), Lock::new(Cell::new(0))]);
        locks.iter().for_each(add);
        let other = Rc::clone(&locks);
        let works = spawn(move || {
            let second = other[1].lock();
            second.set(second.get() + 1);
            // In the opposite order of the fork, which must not wait for ever.
            if let Some(first) = other[0].try_lock() {
                first.set(first.get() + 1);
            }
        });
        let first = locks[0].lock();
        assert!(matches!(forker::begin(u64::MAX), Turn::Own));
        let had = locks.each_ref().map(|lock| lock.word().take_for_fork(0));
        assert!(had[0] && locks[0].of_fork().is_none());
        assert_eq!(had[1], locks[1].of_fork().is_some());
        for lock in locks.iter() {
            lock.word().unlock_after_fork();
        }
        forker::end();
        assert!(locks[0].try_lock().is_none(), "still held");
        drop(first);
        works.join().unwrap();
        assert!(locks.iter().all(|lock| lock.try_lock().is_some()));
    });
}
