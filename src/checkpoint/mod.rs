//! Checkpoints: how the changed pages get into the index file, atomically. The protocol itself, step by step,
//! is in `store::checkpoint`, recovery in `store::open`.
//!
//! ```text
//! journal   the images that a checkpoint is about to write in place
//! meta      what the store knows besides its pages: growth word, extents, segments, blobs
//! header    the two header slots of the index file
//! tail      the records after the last checkpoint, and where the log ends
//! ```

pub(crate) mod header;
pub(crate) mod journal;
pub(crate) mod meta;
pub(crate) mod tail;
