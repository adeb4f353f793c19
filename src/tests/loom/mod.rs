//! Models of what threads do at once, run in every order that loom finds, with every
//! value that a load may return. `make loom` runs them.

mod lock;
