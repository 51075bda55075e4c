//! From files to a store: creating it, opening it, and recovering it after a crash.
//!
//! ```text
//! open         looks at header, journal and tail
//! ├── open_table   the index, from the pages of the last checkpoint
//! ├── create       a new store's files
//! ├── tail         the records after the last checkpoint, and where the log ends
//! ├── mentions     which tables it speaks of
//! ├── tail_reader  its changes, read again
//! ├── replay       the tail into the index
//! ├── leftovers    large values that nothing links, and that no list names
//! └── recover      makes what was found durable before anything is trusted
//! ```

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

pub(crate) mod create;
mod leftovers;
mod mentions;
pub(crate) mod open;
mod open_table;
mod recover;
#[allow(clippy::indexing_slicing)] // It indexes what it has sorted itself, and decodes nothing.
pub(crate) mod replay;
pub(crate) mod tail;
mod tail_reader;
