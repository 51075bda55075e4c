//! What a running store tells the outside: figures (feature `metrics`) and events (feature `tracing`).
//!
//! Everything that the engine says about itself goes through this module, so that the rest of the code names
//! neither crate. Without the features the functions are empty and the types have no size. What is handed to them is at
//! hand anyway: looking an atomic up for an event would cost a build without events, and change the schedules of tests.
//!
//! What is counted anyway ([`Stats`](crate::stats::Stats)) is not counted a second time: it is published now and then, see
//! [`Observer::publish`]. Only times are taken as they pass, and those of reads and of single changes in samples:
//! reading the clock twice would cost a tenth of such a call.

#![cfg_attr(
    not(feature = "tracing"),
    expect(clippy::if_same_then_else, reason = "events that differ in their text alone are all the same without it")
)]

use std::path::Path;

#[cfg(feature = "metrics")]
mod figures;

#[cfg(feature = "metrics")]
pub(crate) use figures::{Observer, Timer};

/// A kind of work whose time is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timed {
    /// A read of one key; sampled.
    Get,
    /// A change of one key; sampled.
    Change,
    /// A batch, or a removal of many keys.
    Batch,
    /// A wait for records to become durable.
    Sync,
    /// A checkpoint.
    Checkpoint,
    /// The part of it that holds all writers.
    Cut,
    /// A wait because something had run short.
    Wait(Cause),
}

/// What a caller waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Journal blocks for page images.
    Journal,
    /// Memory for changed pages.
    Memory,
    /// Overflow pages or blocks of the index.
    IndexSpace,
    /// A log segment.
    Segment,
    /// Room in the list of blobs.
    Blobs,
    /// The log is over its bound.
    LogBound,
}

impl Cause {
    /// Its name in labels and events.
    #[cfg(any(feature = "metrics", feature = "tracing"))]
    fn name(self) -> &'static str {
        match self {
            Cause::Journal => "journal",
            Cause::Memory => "memory",
            Cause::IndexSpace => "index_space",
            Cause::Segment => "segment",
            Cause::Blobs => "blobs",
            Cause::LogBound => "log_bound",
        }
    }
}

/// Takes times. This one takes none.
#[cfg(not(feature = "metrics"))]
#[derive(Debug)]
pub(crate) struct Observer;

/// A time that is being taken.
#[cfg(not(feature = "metrics"))]
#[derive(Debug)]
pub(crate) struct Timer<'o>(std::marker::PhantomData<&'o Observer>);

#[cfg(not(feature = "metrics"))]
impl Timer<'_> {
    /// Ends here.
    #[inline(always)]
    pub(crate) fn done(self) {}

    /// There was nothing to take the time of.
    #[inline(always)]
    pub(crate) fn cancel(self) {}
}

#[cfg(not(feature = "metrics"))]
impl Observer {
    #[inline(always)]
    pub(crate) fn new(_store: &Path) -> Self {
        Observer
    }

    #[inline(always)]
    pub(crate) fn time(&self, _what: Timed) -> Timer<'_> {
        Timer(std::marker::PhantomData)
    }

    #[inline(always)]
    pub(crate) fn sample(&self, _what: Timed) -> Timer<'_> {
        Timer(std::marker::PhantomData)
    }

    /// True if it is time to publish the figures again.
    #[inline(always)]
    pub(crate) fn is_due(&self) -> bool {
        false
    }

    #[inline(always)]
    pub(crate) fn publish(&self, _stats: &crate::stats::Stats) {}
}

/// Tells the outside, whose code may panic: that is its own affair, of which the panic hook has told. It runs in the middle of
/// protocols and with locks held, so it must not end them.
#[cfg(any(feature = "metrics", feature = "tracing"))]
fn tell(outside: impl FnOnce()) {
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(outside));
}

/// An event, or nothing: without the feature its fields are looked at by nobody.
macro_rules! event {
    ($level:ident, $target:literal, $path:expr, { $($field:ident),* }, $text:literal) => {{
        #[cfg(feature = "tracing")]
        tell(|| {
            tracing::event!(
                target: $target,
                tracing::Level::$level,
                path = %$path.display(),
                $($field,)*
                $text
            );
        });
        #[cfg(not(feature = "tracing"))]
        let _ = ($path, $($field,)*);
    }};
}

/// A span that lasts as long as what is returned; nothing without the feature.
#[cfg(feature = "tracing")]
#[derive(Debug)]
pub(crate) struct Entered(Option<tracing::span::EnteredSpan>);

#[cfg(feature = "tracing")]
impl Entered {
    fn new(span: impl FnOnce() -> tracing::Span) -> Self {
        let mut entered = None;
        tell(|| entered = Some(span().entered()));
        Entered(entered)
    }
}

#[cfg(feature = "tracing")]
impl Drop for Entered {
    fn drop(&mut self) {
        let span = self.0.take();
        tell(|| drop(span));
    }
}

/// A span that lasts as long as what is returned; nothing without the feature.
#[cfg(not(feature = "tracing"))]
#[derive(Debug)]
pub(crate) struct Entered;

/// The store was opened.
#[inline(always)]
pub(crate) fn opened(store: &Path, stats: &crate::stats::RecoveryStats) {
    let (unclean, replayed_records, nanos) = (stats.was_unclean, stats.replayed_records, stats.open_nanos);
    event!(INFO, "tophash::open", store, { unclean, replayed_records, nanos }, "opened");
}

/// The store refuses changes from now on.
#[inline(always)]
pub(crate) fn poisoned(store: &Path, cause: &str) {
    event!(ERROR, "tophash::open", store, { cause }, "poisoned: changes are refused until the store is opened again");
}

/// The table begins to double.
#[inline(always)]
pub(crate) fn growth_begun(index: &Path, level: u8) {
    event!(INFO, "tophash::growth", index, { level }, "growth begun");
}

/// The table begins to halve.
#[inline(always)]
pub(crate) fn shrink_begun(index: &Path, level: u8) {
    event!(INFO, "tophash::shrink", index, { level }, "shrink begun");
}

/// A shrinking table grows again.
#[inline(always)]
pub(crate) fn turned_round(index: &Path, level: u8, cursor: u64) {
    event!(INFO, "tophash::growth", index, { level, cursor }, "shrink turned round");
}

/// A doubling or halving has ended.
#[inline(always)]
pub(crate) fn resized(index: &Path, level: u8, shrunk: bool) {
    if shrunk {
        event!(INFO, "tophash::shrink", index, { level }, "shrink finished");
    } else {
        event!(INFO, "tophash::growth", index, { level }, "growth finished");
    }
}

/// Pages were split, or merged, in one go.
#[inline(always)]
pub(crate) fn evacuated(index: &Path, pages: usize, cursor: u64, shrinking: bool) {
    if shrinking {
        event!(TRACE, "tophash::shrink", index, { pages, cursor }, "pages merged");
    } else {
        event!(TRACE, "tophash::growth", index, { pages, cursor }, "pages split");
    }
}

/// Index pages out of use gave back their disk blocks and memory.
#[inline(always)]
pub(crate) fn pages_given_back(store: &Path, pages: u64) {
    if pages > 0 {
        event!(DEBUG, "tophash::shrink", store, { pages }, "index pages given back");
    }
}

/// A checkpoint runs as long as the span lives.
#[inline(always)]
pub(crate) fn checkpoint(store: &Path) -> Entered {
    #[cfg(feature = "tracing")]
    return Entered::new(|| tracing::info_span!(target: "tophash::checkpoint", "checkpoint", path = %store.display()));
    #[cfg(not(feature = "tracing"))]
    {
        let _ = store;
        Entered
    }
}

/// The cut was made.
#[inline(always)]
pub(crate) fn cut(store: &Path, pages: usize, nanos: u64) {
    event!(DEBUG, "tophash::checkpoint", store, { pages, nanos }, "cut");
}

/// A checkpoint is durable.
#[inline(always)]
pub(crate) fn checkpointed(store: &Path, generation: u64, freed_segments: u64, clean: bool) {
    event!(INFO, "tophash::checkpoint", store, { generation, freed_segments, clean }, "checkpoint durable");
}

/// Forced compaction runs as long as the span lives.
#[inline(always)]
pub(crate) fn compaction(store: &Path) -> Entered {
    #[cfg(feature = "tracing")]
    return Entered::new(|| tracing::info_span!(target: "tophash::compaction", "compaction", path = %store.display()));
    #[cfg(not(feature = "tracing"))]
    {
        let _ = store;
        Entered
    }
}

/// A segment is going to be emptied.
#[inline(always)]
pub(crate) fn victim_chosen(segment: &Path, bytes: u64) {
    event!(DEBUG, "tophash::compaction", segment, { bytes }, "segment chosen");
}

/// A segment was emptied.
#[inline(always)]
pub(crate) fn victim_emptied(segment: &Path) {
    event!(INFO, "tophash::compaction", segment, {}, "segment emptied");
}

/// A checkpoint that followed a change failed, or it is durable and something that it does not need could not be let go.
#[inline(always)]
pub(crate) fn put_off(store: &Path, cause: &str) {
    event!(WARN, "tophash::checkpoint", store, { cause }, "put off: a later checkpoint tries again");
}

/// A segment is kept because of a record that cannot be read.
#[inline(always)]
pub(crate) fn victim_damaged(segment: &Path) {
    event!(ERROR, "tophash::compaction", segment, {}, "segment kept: a record in it cannot be read");
}

/// A segment is not emptied now, because of something elsewhere that cannot be read.
#[inline(always)]
pub(crate) fn victim_waits(segment: &Path) {
    event!(
        WARN,
        "tophash::compaction",
        segment,
        {},
        "segment kept for now: a record elsewhere, or a page of the index, cannot be read"
    );
}

/// A caller waits because something has run short.
#[inline(always)]
pub(crate) fn waiting(store: &Path, cause: Cause) {
    #[cfg(feature = "tracing")]
    let cause = cause.name();
    event!(DEBUG, "tophash::backpressure", store, { cause }, "a caller waits");
}

/// A file, or a part of it, was mapped.
#[inline(always)]
pub(crate) fn mapped(file: &Path, offset: u64, bytes: u64) {
    event!(DEBUG, "tophash::map", file, { offset, bytes }, "mapped");
}

/// A segment's mapping is gone. A `Value` that is still held keeps it until it is dropped: `pinned`.
#[inline(always)]
pub(crate) fn unmapped(file: &Path, bytes: u64, pinned: bool) {
    if pinned {
        event!(DEBUG, "tophash::map", file, { bytes }, "retired; unmapped when the last value is dropped");
    } else {
        event!(DEBUG, "tophash::map", file, { bytes }, "unmapped");
    }
}

/// Mappings that values had kept are gone.
#[inline(always)]
pub(crate) fn unmapped_late(log: &Path, bytes: u64) {
    event!(DEBUG, "tophash::map", log, { bytes }, "unmapped, after the last value was dropped");
}

#[cfg(test)]
mod tests {
    /// Nothing is kept and nothing runs where something would be told.
    #[test]
    #[cfg(not(any(feature = "metrics", feature = "tracing")))]
    fn without_the_features_there_is_nothing() {
        use super::{Entered, Observer, Timer};
        assert_eq!((size_of::<Observer>(), size_of::<Timer<'_>>(), size_of::<Entered>()), (0, 0, 0));
        assert!(!std::mem::needs_drop::<Timer<'_>>() && !std::mem::needs_drop::<Entered>());
    }
}
