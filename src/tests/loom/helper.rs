//! The helper thread: at most one, and ended when a fork has stopped it.

use crate::os::forker::{self, Turn};
use crate::os::helper::Helper;
use crate::sync::execution::{model, spawn};
use crate::sync::threads::{forget_all, running};
use std::boxed::Box;

/// Like `decay::work`: some rounds, then it leaves.
fn work(helper: &Helper) {
    if helper.sleep(1) {
        helper.leave(|| true);
    }
}

fn helper() -> &'static Helper {
    forget_all();
    Box::leak(Box::new(Helper::new(work)))
}

fn fork(helper: &Helper) {
    assert!(matches!(forker::begin(u64::MAX), Turn::Own));
    assert!(helper.word().take_for_fork(u64::MAX));
    helper.stop_for_fork();
    assert!(helper.wait_until_gone(u64::MAX));
    assert_eq!(running(), 0, "it is gone, and nobody starts another");
    helper.word().unlock_after_fork();
    forker::end();
}

#[test]
fn a_fork_finds_no_thread() {
    model(Some(2), || {
        let helper = helper();
        assert!(helper.start());
        let forks = spawn(move || fork(helper));
        helper.start(); // not beside one that has left and still returns
        assert!(running() <= 1, "at most one");
        forks.join().unwrap();
        fork(helper);
    });
}

#[test]
fn two_forks_at_once_stop_it_once() {
    model(Some(2), || {
        let helper = helper();
        assert!(helper.start());
        let forks = spawn(move || fork(helper));
        fork(helper);
        forks.join().unwrap();
        assert!(!helper.is_there());
    });
}

#[test]
fn a_fork_does_not_wait_without_end_and_the_next_start_does_not_make_two() {
    model(Some(2), || {
        let helper = helper();
        assert!(helper.start());
        assert!(matches!(forker::begin(u64::MAX), Turn::Own));
        assert!(helper.word().take_for_fork(u64::MAX));
        helper.stop_for_fork();
        helper.word().unlock_after_fork();
        forker::end();
        helper.start();
        assert!(running() <= 1, "none beside the one that ends");
        fork(helper);
    });
}
