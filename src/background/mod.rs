//! What happens beside requests: free memory is returned after a while (`decay`, `round`), forks
//! find the heap whole (`fork`), the first block sets things up (`init`), and statistics are
//! written at exit (`at_exit`).

pub mod at_exit;

pub mod round;

pub mod decay;

pub mod fork;

pub mod init;
