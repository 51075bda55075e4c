//! Space of the log comes back: online by moving live records, offline by writing the store anew.
//!
//! ```text
//! online          emptying segments while the store is in use
//! ├── evacuate    what becomes of each record of a segment
//! ├── guesses     reading the deadlines of segments that an open guesses
//! ├── compactor   what is being emptied, whose turn it is, counters
//! ├── space       how far the log is over its bound; pressure: what writers have to do about it
//! ├── victim      which segment is emptied next
//! ├── large       expired large values, which are freed one by one
//! offline         a closed store written anew
//! ├── options     what a caller may ask of that
//! ├── shape       how large the store is before it, and would be after it
//! ```

pub(crate) mod compactor;
mod evacuate;
mod guesses;
pub(crate) mod large;
pub(crate) mod offline;
pub(crate) mod online;
pub(crate) mod options;
mod pressure;
pub(crate) mod shape;
mod space;
mod victim;
