//! The log: every record, in the order in which it was acknowledged.
//!
//! ```text
//! store of segments (segments.rs): which exist, their mappings
//! ├── appender the active segment and its writer
//! ├── append   one record or frame behind the other, under a short lock
//! ├── frame    a segment of its own for a large frame
//! ├── sizes    how large the segments are
//! ├── queue    the segments that wait to become the active one; prepare: how they are made
//! ├── pieces   in which pieces their zeroes are written
//! ├── space    live and dead bytes, cutting segments to their ends, freeing them
//! ├── clears   the last clear-record, and what it makes unneeded
//! ├── commit   group commit: one fdatasync for all who wait
//! ├── sync     what a round of it syncs
//! ├── blob     values too large for a segment; large: what the rest of the store asks about them
//! ├── deadlines    when the records of each segment expire; expiring: what the rest of the store asks about them
//! ├── large_deadlines    when each large value expires
//! ├── stats    figures
//! ├── reader   a segment's records by mapping or by pread
//! ├── segment  one segment file: name, header; segment_slots: which numbers are taken
//! ├── encode   records on their way into the log
//! └── record   one record: header, checksum, limits
//! ```

mod append;
pub(crate) mod appender;
pub(crate) mod blob;
pub(crate) mod blob_header;
mod clears;
mod commit;
pub(crate) mod deadlines;
pub(crate) mod encode;
mod expiring;
pub(crate) mod frame;
pub(crate) mod large;
mod large_deadlines;
pub(crate) mod mapped;
mod pieces;
mod prepare;
mod queue;
pub(crate) mod reader;
pub(crate) mod record;
pub(crate) mod segment;
mod segment_slots;
pub(crate) mod segments;
pub(crate) mod sizes;
pub(crate) mod space;
mod stats;
mod sync;
