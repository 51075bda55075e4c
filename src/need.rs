//! What a step runs short of, and starting again once that is found.

use std::fmt;

use crate::checksum::{SPLIT_MIX_STEP, split_mix};
use crate::error::{Error, Fault};
use crate::sync::{AtomicU64, Ordering};
use crate::table::region::PageId;
use crate::table_id::TableId;

/// Something that must be found before an operation can go on. Nobody waits for it with a lock held: the
/// operation lets go of everything, finds it (or waits), and starts again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Journal blocks for page images.
    Journal {
        /// How many in all, with the pages that are dirty already.
        pages: u64,
        /// How many the operation needs by itself: after a checkpoint, that many must do.
        alone: u64,
    },
    /// A checkpoint, to bound private memory.
    Checkpoint,
    /// Memory for copies of frozen pages.
    Copies,
    /// Disk blocks for the chunk of index pages around this page.
    IndexBlocks(PageId),
    /// This many free overflow pages.
    Overflow {
        /// Of which table.
        table: TableId,
        /// How many.
        pages: u64,
    },
    /// Disk blocks for this many free overflow pages, all at once: a batch begins again for each need.
    OverflowBlocks {
        /// Of which table.
        table: TableId,
        /// How many.
        pages: u64,
    },
    /// A log segment with room for this many bytes.
    Segment {
        /// How many.
        bytes: u64,
    },
    /// Room in the meta pages for another table or extent.
    MetaRoom,
    /// Room in the list of blobs that wait for a checkpoint to be unlinked.
    BlobList,
    /// Nothing: start again.
    Again(Again),
}

/// Why an operation starts again although it lacks nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// The number of stripes changed while they were being locked.
    StripesChanged,
    /// The value to be superseded is a blob, which is checked first.
    BlobUnchecked,
    /// The chain is long: it was to be shortened first.
    LongChain,
    /// The segment that holds the frame is not the next one any more: another call has discarded it.
    FrameOvertaken,
}

impl fmt::Display for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Again::StripesChanged => "the number of stripes changed while they were being locked",
            Again::BlobUnchecked => "the value in a blob file was replaced while it was being checked",
            Again::LongChain => "a chain of overflow pages stayed long",
            Again::FrameOvertaken => "the segment of a batch was discarded before it could be used",
        })
    }
}

/// Why an internal step could not be carried out.
#[derive(Debug)]
pub(crate) enum Shortage {
    /// Something must be found first.
    Need(Need),
    /// It failed.
    Error(Fault),
}

impl From<Need> for Shortage {
    fn from(need: Need) -> Self {
        Shortage::Need(need)
    }
}

impl From<Error> for Shortage {
    fn from(error: Error) -> Self {
        Shortage::Error(error.into())
    }
}

impl From<Fault> for Shortage {
    fn from(fault: Fault) -> Self {
        Shortage::Error(fault)
    }
}

/// Shortages by chance, which tests ask for ([`Tuning::shortages`](crate::tuning::Tuning)): an attempt can then end at each page
/// that it asks for, whatever memory and disk have.
#[derive(Debug)]
pub(crate) struct Chance {
    one_in: u32,
    asked: AtomicU64,
}

impl Chance {
    /// One in so many questions finds nothing; 0: none does.
    pub(crate) fn new(one_in: u32) -> Self {
        Chance { one_in, asked: AtomicU64::new(0) }
    }

    /// Asks once.
    ///
    /// # Errors
    /// [`Need::Checkpoint`].
    #[inline]
    pub(crate) fn ask(&self) -> Result<(), Need> {
        if self.one_in > 0 && self.next().is_multiple_of(self.one_in.into()) { Err(Need::Checkpoint) } else { Ok(()) }
    }

    /// The next number of SplitMix64: of a simpler sequence, runs are never as long as an attempt of many pages needs.
    fn next(&self) -> u64 {
        split_mix(self.asked.fetch_add(SPLIT_MIX_STEP, Ordering::Relaxed))
    }
}

/// The result of an internal step that can run short of something.
pub(crate) type Step<T> = Result<T, Shortage>;
