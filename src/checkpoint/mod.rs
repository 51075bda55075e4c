//! Checkpoints: how the changed pages get into the index file, atomically.
//!
//! ```text
//! checkpointer  when one is due, room for it on the disk, what is known of the last one
//! run           the protocol, step by step
//! journal       the images that a checkpoint is about to write in place
//! meta          what the store knows besides its pages: growth word, extents, segments, blobs
//! header        the two header slots of the index file
//! ```

pub(crate) mod checkpointer;
pub(crate) mod header;
pub(crate) mod journal;
pub(crate) mod meta;
pub(crate) mod run;
