//! TODO tcache.

pub mod counters;

pub mod magazine;

pub mod magazines;

pub mod current;

pub mod registry;
