//! The state of compaction: the segment that is being emptied, what writers have to do about it, and counters.

use std::sync::Arc;

use crate::log::segment::Segment;
use crate::sync::{AtomicU32, AtomicU64, Instant, Mutex};

/// The state of compaction, and its counters.
#[derive(Debug, Default)]
pub(crate) struct Compaction {
    pub(super) victim: Mutex<Option<Victim>>,
    /// What writers have to do; see [`Pressure`].
    pub(super) pressure: AtomicU32,
    /// The total of appended bytes at which the log's space is looked at again.
    pub(super) look_at: AtomicU64,
    /// Bytes of live records when the log's space was looked at last.
    pub(super) live: AtomicU64,
    /// What a checkpoint does not need any more could not be let go: nothing is freed before this time.
    pub(super) freeing: Mutex<Option<Instant>>,
    /// Victims chosen so far.
    pub(super) victims: AtomicU64,
    pub(crate) moved_records: AtomicU64,
    pub(crate) moved_bytes: AtomicU64,
    pub(crate) evacuated: AtomicU64,
    pub(crate) freed: AtomicU64,
    /// Times a writer helped, and times one waited.
    pub(crate) helps: AtomicU64,
    pub(crate) throttles: AtomicU64,
}

/// A segment that is being evacuated.
#[derive(Debug)]
pub(super) struct Victim {
    /// Tells this evacuation from an earlier one of the same segment.
    pub(super) id: u64,
    pub(super) segment: Arc<Segment>,
    /// Where the next record begins that nobody has claimed.
    pub(super) at: u64,
    pub(super) end: u64,
    /// An older segment holds records: removals must be kept.
    pub(super) keep_removals: bool,
    /// Claimed pieces that are not finished.
    pub(super) in_flight: u32,
}
