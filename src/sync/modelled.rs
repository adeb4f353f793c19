//! Atomics and cells that report each access to loom.
//!
//! They have the layout of the language's own, so that zeroed memory is valid and sizes are as
//! shipped. Loom's objects for them are in `execution.rs`. Outside of a model they are plain memory,
//! for one thread.

use core::cell::UnsafeCell;
use core::sync::atomic::Ordering::{self, Relaxed};

use super::execution::{Known, cell, is_under_way, known};

/// A type that an atomic can hold.
pub(crate) trait Word: Copy + PartialEq {
    fn to(self) -> u64;
    fn from(number: u64) -> Self;
}

macro_rules! numbers {
    ($($number:ty)*) => {
        $(impl Word for $number {
            fn to(self) -> u64 {
                self as u64
            }
            fn from(number: u64) -> Self {
                number as $number
            }
        })*
    };
}
numbers!(u8 u16 u32 u64 usize i32 i64);

impl Word for bool {
    fn to(self) -> u64 {
        self.into()
    }
    fn from(number: u64) -> bool {
        number != 0
    }
}

impl<T> Word for *mut T {
    fn to(self) -> u64 {
        self.expose_provenance() as u64
    }
    fn from(number: u64) -> *mut T {
        core::ptr::with_exposed_provenance_mut(number as usize)
    }
}

/// An atomic, with the functions of the language's own.
#[repr(transparent)]
#[derive(Debug, Default)]
pub(crate) struct Atomic<T>(UnsafeCell<T>);

// SAFETY: all of loom's threads run on one thread.
unsafe impl<T> Sync for Atomic<T> {}
// SAFETY: all of loom's threads run on one thread.
unsafe impl<T> Send for Atomic<T> {}

// The names of the language's own.
pub(crate) type AtomicBool = Atomic<bool>;
pub(crate) type AtomicU8 = Atomic<u8>;
pub(crate) type AtomicU16 = Atomic<u16>;
pub(crate) type AtomicU32 = Atomic<u32>;
pub(crate) type AtomicU64 = Atomic<u64>;
pub(crate) type AtomicUsize = Atomic<usize>;
pub(crate) type AtomicI32 = Atomic<i32>;
pub(crate) type AtomicI64 = Atomic<i64>;
pub(crate) type AtomicPtr<T> = Atomic<*mut T>;

impl<T: Word> Atomic<T> {
    pub(crate) const fn new(value: T) -> Atomic<T> {
        Atomic(UnsafeCell::new(value))
    }

    /// The atomic at `at`.
    ///
    /// # Safety
    /// As for the language's own: it lives for `'a`, and is accessed as an atomic only.
    pub(crate) unsafe fn from_ptr<'a>(at: *mut T) -> &'a Atomic<T> {
        // SAFETY: an atomic has the layout of its value; it lives long enough by the contract above.
        unsafe { &*at.cast() }
    }

    pub(crate) fn as_ptr(&self) -> *mut T {
        self.0.get()
    }

    /// The value in memory: that of the start, or outside of a model the present one.
    fn plain(&self) -> T {
        // SAFETY: one thread.
        unsafe { *self.0.get() }
    }

    fn known(&self) -> Option<Known> {
        known(self.0.get().addr(), self.plain().to())
    }

    #[track_caller]
    pub(crate) fn load(&self, order: Ordering) -> T {
        match self.known() {
            Some(known) => {
                known.take_turn();
                T::from(known.atomic.load(order) ^ known.start)
            }
            None => self.plain(),
        }
    }

    #[track_caller]
    pub(crate) fn store(&self, value: T, order: Ordering) {
        match self.known() {
            Some(Known { atomic, start, .. }) => atomic.store(value.to() ^ start, order),
            // SAFETY: one thread.
            None => unsafe { *self.0.get() = value },
        }
    }

    #[track_caller]
    pub(crate) fn swap(&self, value: T, order: Ordering) -> T {
        match self.known() {
            Some(Known { atomic, start, .. }) => {
                T::from(atomic.swap(value.to() ^ start, order) ^ start)
            }
            // SAFETY: one thread.
            None => unsafe { self.0.get().replace(value) },
        }
    }

    #[track_caller]
    pub(crate) fn compare_exchange(
        &self,
        expected: T,
        value: T,
        success: Ordering,
        failure: Ordering,
    ) -> Result<T, T> {
        let Some(Known { atomic, start, .. }) = self.known() else {
            let is = self.plain();
            if is != expected {
                return Err(is);
            }
            self.store(value, success);
            return Ok(is);
        };
        let (from, to) = (expected.to() ^ start, value.to() ^ start);
        let result = atomic.compare_exchange(from, to, success, failure);
        let value = |number| T::from(number ^ start);
        result.map(value).map_err(value)
    }

    #[track_caller]
    pub(crate) fn fetch_update(
        &self,
        success: Ordering,
        failure: Ordering,
        mut change: impl FnMut(T) -> Option<T>,
    ) -> Result<T, T> {
        let mut value = self.load(failure);
        while let Some(new) = change(value) {
            match self.compare_exchange(value, new, success, failure) {
                Ok(before) => return Ok(before),
                Err(now) => value = now,
            }
        }
        Err(value)
    }

    /// Makes a change, and returns the value before it.
    #[track_caller]
    fn fetch_by(&self, order: Ordering, change: impl Fn(T) -> T) -> T {
        self.fetch_update(order, Relaxed, |value| Some(change(value)))
            .unwrap_or_else(|_| unreachable!())
    }

    #[track_caller]
    fn fetch(&self, order: Ordering, change: impl Fn(u64) -> u64) -> T {
        self.fetch_by(order, |value| T::from(change(value.to())))
    }

    #[track_caller]
    pub(crate) fn fetch_add(&self, n: T, order: Ordering) -> T {
        self.fetch(order, |value| value.wrapping_add(n.to()))
    }

    #[track_caller]
    pub(crate) fn fetch_sub(&self, n: T, order: Ordering) -> T {
        self.fetch(order, |value| value.wrapping_sub(n.to()))
    }

    #[track_caller]
    pub(crate) fn fetch_xor(&self, n: T, order: Ordering) -> T {
        self.fetch(order, |value| value ^ n.to())
    }

    #[track_caller]
    pub(crate) fn fetch_or(&self, n: T, order: Ordering) -> T {
        self.fetch(order, |value| value | n.to())
    }

    #[track_caller]
    pub(crate) fn fetch_max(&self, n: T, order: Ordering) -> T
    where
        T: Ord,
    {
        self.fetch_by(order, |value| value.max(n))
    }
}

/// A fence. Outside of a model there is one thread.
pub(crate) fn fence(order: Ordering) {
    if is_under_way() {
        loom::sync::atomic::fence(order);
    }
}

/// A cell: plain memory that one thread at a time may touch. Loom fails if two do without an
/// ordering between them.
#[repr(transparent)]
#[derive(Default)]
pub(crate) struct Cell<T>(core::cell::Cell<T>);

impl<T> Cell<T> {
    pub(crate) const fn new(value: T) -> Cell<T> {
        Cell(core::cell::Cell::new(value))
    }

    #[track_caller]
    fn is_read(&self) {
        if let Some(cell) = cell(self.0.as_ptr().addr()) {
            cell.with(|_| ());
        }
    }

    #[track_caller]
    fn is_written(&self) {
        if let Some(cell) = cell(self.0.as_ptr().addr()) {
            cell.with_mut(|_| ());
        }
    }

    #[track_caller]
    pub(crate) fn get(&self) -> T
    where
        T: Copy,
    {
        self.is_read();
        self.0.get()
    }

    #[track_caller]
    pub(crate) fn set(&self, value: T) {
        self.is_written();
        self.0.set(value);
    }

    #[track_caller]
    pub(crate) fn replace(&self, value: T) -> T {
        self.is_written();
        self.0.replace(value)
    }

    #[track_caller]
    pub(crate) fn take(&self) -> T
    where
        T: Default,
    {
        self.replace(T::default())
    }
}
