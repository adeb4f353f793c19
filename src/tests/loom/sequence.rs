//! The sequence lock of the stats page: a reader never takes a half written page for a whole one.

use crate::sync::execution::{model, spawn};
use crate::sync::{AtomicU32, AtomicU64, Ordering::Relaxed, sequence};
use std::rc::Rc;

#[derive(Default)]
struct Page {
    sequence: AtomicU32,
    words: [AtomicU64; 2],
}

impl Page {
    fn write(&self, value: u64) {
        sequence::write(&self.sequence, || {
            for word in &self.words {
                word.store(value, Relaxed);
            }
        });
    }

    fn read(&self) -> Option<[u64; 2]> {
        sequence::read(&self.sequence, || {
            self.words.each_ref().map(|word| word.load(Relaxed))
        })
    }
}

#[test]
fn a_reader_sees_a_whole_page_or_none() {
    model(None, || {
        let page = Rc::new(Page::default());
        let other = Rc::clone(&page);
        let thread = spawn(move || other.write(1));
        if let Some([first, last]) = page.read() {
            assert_eq!(first, last);
        }
        thread.join().unwrap();
        assert_eq!(page.read(), Some([1, 1]));
    });
}

/// The reader begins while one page is written, and ends while the next one is.
#[test]
fn a_reader_of_two_pages_in_a_row_mixes_none() {
    model(Some(3), || {
        let page = Rc::new(Page::default());
        let other = Rc::clone(&page);
        let thread = spawn(move || (1..3).for_each(|value| other.write(value)));
        if let Some([first, last]) = page.read() {
            assert_eq!(first, last);
        }
        thread.join().unwrap();
    });
}
