//! Switches that each break one rule of a protocol, for tests of the tests: `tests/rig/tests/mutants/` shows that each
//! is noticed, and by which layer.
//!
//! Without `--cfg tophash_mutants`, which only that test's command passes to rustc, `broken` is the constant `false` and
//! nothing of this is in the program. No Cargo feature turns it on, because any crate of a build can turn a feature on.

/// Declares the rules, and the list of all of them.
macro_rules! mutants {
    ($($(#[$rule:meta])* $name:ident,)*) => {
        /// A rule that is broken.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Mutant {
            $($(#[$rule])* $name,)*
        }

        impl Mutant {
            /// All of them.
            #[cfg(tophash_mutants)]
            pub const ALL: &[Mutant] = &[$(Mutant::$name),*];
        }
    };
}

mutants! {
    /// A checkpoint's journal is synced before the pages are written in place.
    JournalNotSynced,
    /// The pages in place are synced before the header is written.
    PagesNotSynced,
    /// The header is synced before the journal is used again, blobs are unlinked, segments freed.
    HeaderNotSynced,
    /// The header follows the pages.
    HeaderBeforePages,
    /// A page is overwritten in place only after its image is in the journal.
    PageOutsideJournal,
    /// Every dirty page belongs to the checkpoint.
    PageLeftOut,
    /// Recovery writes the journal again before it trusts it.
    JournalNotRewritten,
    /// Recovery writes the log's tail again before it trusts it.
    TailNotRewritten,
    /// After an unclean end the log goes on in a fresh segment that names the end of the old one.
    NoFreshSegment,
    /// A segment takes no record before its name is durable.
    SegmentNameNotSynced,
    /// Segments are synced in order, the one before as well.
    OnlyLastSegmentSynced,
    /// A record's checksum covers the segment's salt.
    NoSalt,
    /// A frame is valid as a whole or not at all.
    FrameInParts,
    /// The LSN of a sync mark is durable.
    MarkTooFar,
    /// A blob is durable before its link is in the log.
    BlobNotSynced,
    /// An I/O error poisons the store.
    NotPoisoned,
    /// On a full disk there is a reserve for removals.
    NoReserve,
    /// A removal repairs the paths through its bucket.
    NoPathRepair,
    /// A removal without repair leaves a tombstone where paths go on.
    EmptyRestTooEarly,
    /// A removal in bulk looks again for an entry that the repair of an earlier one has moved.
    MovedEntryForgotten,
    /// Versions are odd while entries move.
    NoVersions,
    /// The cursor moves on before the source is overwritten.
    CursorMovedLate,
    /// A miss counts only if the growth word still leads to the same page.
    MissWithoutGrowth,
    /// A slot is loaded again after its segment was pinned.
    PinnedUnseen,
    /// A moved record is published only if the slot still names it.
    MovedBlindly,
    /// The parts of a replay are told apart by what no part changes.
    PartitionedByTheMoment,
    /// A removal is kept while an older segment holds records.
    RemovalsDropped,
    /// A segment is freed after the checkpoint that does not name it is durable.
    FreedTooEarly,
    /// A clear-record is kept while an older segment holds records.
    ClearsDropped,
    /// A journal that a crash has torn is reset before a header is written.
    JournalNotReset,
    /// An offline compaction syncs the new log before it switches.
    SwitchedBeforeSync,
    /// The header says that the store is in use before the first append.
    AppendedUnmarked,
    /// An open syncs the store's directory before it writes or removes anything.
    EntriesNotSynced,
    /// Every name is resolved in the directory that was opened.
    NamesResolvedLate,
    /// A segment ends where record addresses end.
    SegmentBeyondAddresses,
    /// An open writes the header slot again that it read, then the other one.
    OtherSlotFirst,
    /// Only damage marks a segment as damaged, no error of the moment.
    MomentMarksDamage,
    /// An expired record is removed from the index without a removal in the log, though an older segment can hold a put.
    ExpiredUnrecorded,
    /// What cannot be freed at this moment poisons nothing.
    FreeingPoisons,
    /// A value in a blob pins the segment of the record that links it.
    BlobUnpinned,
    /// The bytes of freed blobs count.
    FreedBlobsUncounted,
    /// The background compacts on when the log is far beyond its bound.
    CompactionGivesUp,
    /// Freed segments are unlinked from the oldest to the newest.
    FreedNewestFirst,
    /// The unlink of a freed segment is durable before the next one.
    FreedNotSynced,
    /// So it is after a process that was killed between the two.
    KilledTrusted,
    /// Upkeep after a published change fails nothing.
    UpkeepFails,
    /// A segment is cut behind its last record.
    SegmentCutShort,
    /// A segment is cut after it is sealed.
    ActiveSegmentCut,
    /// Closing waits for the calls that it finds under way.
    ClosedBesideCalls,
    /// A poll leaves its waker under the lock under which it found no outcome.
    WakerLeftLate,
    /// A wait for a sync ends after that sync.
    AwaitedTooShort,
    /// Without background threads, a change that is awaited is synced in its call.
    AwaitedUnsynced,
    /// That the pages of a dropped table are holes is durable before another extent lies there.
    GapsNotSynced,
    /// The holes that the last process made are durable before an extent lies there.
    HolesTrusted,
    /// The pages of a dropped table stay until a checkpoint that does not name them is durable.
    PagesGoneTooEarly,
    /// An expired record is removed only if a slot names that very record.
    ExpiredBlindly,
    /// A deadline is counted only if a slot names its record.
    DeadlinesBlindly,
    /// A large value whose link is removed because it has expired is freed.
    ExpiredUnfreed,
    /// An open unlinks the large values that a full list had no room for.
    LeftoversKept,
    /// It does so only if it could read every record, and found as many links as are counted.
    LeftoversBlindly,
}

#[cfg(tophash_mutants)]
mod switch {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::Mutant;

    /// Not one of `crate::sync`: to a scheduler of schedules this is no access that others could see.
    static ACTIVE: AtomicU32 = AtomicU32::new(NONE);
    /// No rule is broken.
    const NONE: u32 = u32::MAX;

    /// Breaks a rule, or none, in all stores of this process.
    pub fn activate(mutant: Option<Mutant>) {
        ACTIVE.store(mutant.map_or(NONE, |mutant| mutant as u32), Ordering::SeqCst);
    }

    /// True if the rule is to be broken.
    #[inline]
    pub(crate) fn broken(mutant: Mutant) -> bool {
        ACTIVE.load(Ordering::Relaxed) == mutant as u32
    }

    /// Lets others go on, now and then for long, at the moment that the broken rule is about. Nothing that keeps
    /// the rules minds.
    pub(crate) fn pause_if(mutant: Mutant) {
        static PAUSES: AtomicU32 = AtomicU32::new(0);
        if broken(mutant) {
            if PAUSES.fetch_add(1, Ordering::Relaxed).is_multiple_of(16) {
                crate::sync::sleep(std::time::Duration::from_millis(20));
            } else {
                crate::sync::yield_now();
            }
        }
    }
}

#[cfg(tophash_mutants)]
pub use switch::activate;
#[cfg(tophash_mutants)]
pub(crate) use switch::{broken, pause_if};

/// True if the rule is to be broken: never.
#[cfg(not(tophash_mutants))]
#[inline(always)]
pub(crate) const fn broken(_: Mutant) -> bool {
    false
}

/// Nothing.
#[cfg(not(tophash_mutants))]
#[inline(always)]
pub(crate) const fn pause_if(_: Mutant) {}
