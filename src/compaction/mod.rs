//! Space of the log comes back: online by moving live records, offline by writing the store anew.
//!
//! ```text
//! online    emptying segments while the store is in use
//! ├── state     what is being emptied, and counters
//! ├── victim    which segment is emptied next
//! offline   a closed store written anew
//! ```

pub(crate) mod offline;
pub(crate) mod online;
pub(crate) mod state;
mod victim;
