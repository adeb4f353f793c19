//! Work outside of requests: free memory is returned after a while (`decay`, `round`), forks
//! find the heap whole (`fork`), the first block sets things up (`init`), and statistics are
//! written at exit (`at_exit`).

pub(crate) mod at_exit;

pub(crate) mod round;

pub(crate) mod decay;

pub(crate) mod fork;

pub(crate) mod init;
