//! Tests of the sources as a whole or of several folders at once, and the parts that tests share. The
//! tests of one file are at its end. `model` is the facade for tests outside of the library.

pub mod model;

#[cfg(test)]
mod shared;

#[cfg(test)]
pub(crate) use shared::*;

#[cfg(test)]
mod heap;

#[cfg(all(test, loom))]
mod loom;

#[cfg(test)]
mod object;

#[cfg(test)]
mod order;

#[cfg(all(test, not(any(loom, miri))))]
mod profile;

#[cfg(all(test, not(loom)))]
mod weak;
