//! TODO background.

pub mod at_exit;

pub mod round;

pub mod decay;

pub mod fork;

pub mod init;
