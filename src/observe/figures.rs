//! Figures for the `metrics` facade: the table of names, and the handles of one store.
//!
//! The handles are registered when the store is opened, with the recorder that is installed then; from there on no
//! name or label is looked at again. Counters are published as differences to the last time, so that a store that is
//! opened again in the same process goes on where it was.

use std::cell::Cell;
use std::fmt;
use std::path::Path;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder, Unit};

use super::{Cause, Timed, tell};
use crate::stats::Stats;
use crate::sync::{AtomicU64, Instant, Mutex, Ordering};

/// How often a store publishes its figures by itself.
const PERIOD_MILLIS: u64 = 1000;
/// One of so many reads is timed, and one of so many changes.
const GETS: u32 = 256;
const CHANGES: u32 = 64;

static METADATA: Metadata<'static> = Metadata::new("tophash", Level::INFO, Some("tophash"));

/// A figure that is read from [`Stats`].
struct Figure<T: 'static> {
    name: &'static str,
    unit: Unit,
    help: &'static str,
    read: fn(&Stats) -> T,
}

macro_rules! figures {
    ($($name:literal $unit:ident $read:expr, $help:literal;)*) => {
        &[$(Figure { name: $name, unit: Unit::$unit, help: $help, read: $read }),*]
    };
}

const COUNTERS: &[Figure<u64>] = figures! {
    "tophash_hits_total" Count |s| s.operations.hits, "Keys that reads found";
    "tophash_misses_total" Count |s| s.operations.misses, "Keys that reads did not find";
    "tophash_inserts_total" Count |s| s.operations.inserts, "Keys that were absent and got a value";
    "tophash_replaced_total" Count |s| s.operations.replaced, "Keys that had a value and got another one";
    "tophash_removes_total" Count |s| s.operations.removes, "Keys that had a value and were removed";
    "tophash_batches_total" Count |s| s.operations.batches, "Batches applied";
    "tophash_growths_total" Count |s| s.index.growths, "Doublings of the table finished";
    "tophash_splits_total" Count |s| s.index.splits, "Index pages split";
    "tophash_shrinks_total" Count |s| s.index.shrinks, "Halvings of the table finished";
    "tophash_merges_total" Count |s| s.index.merges, "Pairs of index pages merged";
    "tophash_rewrites_total" Count |s| s.index.rewrites, "Index pages rewritten to get rid of tombstones";
    "tophash_repairs_total" Count |s| s.index.repairs, "Entries that removals moved towards the front of their path";
    "tophash_inserts_empty_rest_total" Count |s| s.index.inserts_into_empty_rest,
        "Inserts into a slot at which a path ended";
    "tophash_inserts_empty_one_total" Count |s| s.index.inserts_into_empty_one, "Inserts into a tombstone";
    "tophash_inserts_overflow_total" Count |s| s.index.inserts_into_new_overflow,
        "Inserts that took a new overflow page";
    "tophash_compaction_records_total" Count |s| s.compaction.moved_records,
        "Live records that compaction appended again";
    "tophash_compaction_bytes_total" Bytes |s| s.compaction.moved_bytes, "Bytes that compaction appended again";
    "tophash_segments_emptied_total" Count |s| s.compaction.evacuated_segments, "Log segments emptied by compaction";
    "tophash_segments_freed_total" Count |s| s.compaction.freed_segments, "Emptied log segments whose space came back";
    "tophash_compaction_helps_total" Count |s| s.compaction.helps,
        "Times a writer moved a few records because the log was over its bound";
    "tophash_checkpoints_total" Count |s| s.checkpoint.count, "Checkpoints finished";
    "tophash_checkpoint_images_total" Count |s| s.checkpoint.images, "Page images written by checkpoints";
    "tophash_syncs_total" Count |s| s.commit.syncs, "Rounds of fdatasync on the log";
    "tophash_sync_waiters_total" Count |s| s.commit.waiters, "Calls that waited for one of them";
    "tophash_reader_locks_total" Count |s| s.waits.reader_locks,
        "Times a reader took a lock because entries kept moving";
};

const GAUGES: &[Figure<f64>] = figures! {
    "tophash_records" Count |s| s.records as f64, "Records in the store";
    "tophash_tables" Count |s| s.tables as f64, "Tables that have a name";
    "tophash_index_level" Count |s| f64::from(s.index.level), "log2 of the table's primary pages";
    "tophash_index_slots" Count |s| s.index.slots as f64, "Slots in all primary pages";
    "tophash_index_resizing" Count |s| f64::from(s.index.growing) - f64::from(s.index.shrinking),
        "1 while the table doubles, -1 while it halves, else 0";
    "tophash_index_overflow_pages" Count |s| s.index.overflow_pages as f64, "Overflow pages in use";
    "tophash_index_file_bytes" Bytes |s| s.index.file_bytes as f64, "Disk blocks of the index file";
    "tophash_log_segments" Count |s| s.log.segments as f64, "Log segments that hold records";
    "tophash_log_bytes" Bytes |s| s.log.bytes as f64, "Bytes of records in the log, dead ones included";
    "tophash_log_dead_bytes" Bytes |s| s.log.dead_bytes as f64, "Bytes of dead records in the log";
    "tophash_log_file_bytes" Bytes |s| s.log.file_bytes as f64, "Size of all segment files, prepared ones included";
    "tophash_log_undurable_bytes" Bytes |s| undurable(s), "Bytes of the active segment that no sync has covered";
    "tophash_pinned_segments" Count |s| s.log.pinned_segments as f64, "Log segments that a value pins at this moment";
    "tophash_held_bytes" Bytes |s| s.log.held_bytes as f64,
        "Bytes of unlinked files that wait for a value to be dropped";
    "tophash_blobs" Count |s| s.log.blobs as f64, "Blob files";
    "tophash_blob_bytes" Bytes |s| s.log.blob_bytes as f64, "Size of all blob files";
    "tophash_damaged_segments" Count |s| s.compaction.damaged_segments as f64,
        "Log segments that are kept because a record in them cannot be read";
    "tophash_dirty_pages" Count |s| s.checkpoint.dirty_pages as f64, "Index pages changed since the last cut";
    "tophash_private_pages" Count |s| s.checkpoint.private_pages as f64, "Index pages in private memory";
    "tophash_replay_bytes" Bytes |s| s.checkpoint.log_bytes_since as f64,
        "Log bytes that a recovery would replay at this moment";
    "tophash_poisoned" Count |s| f64::from(s.poisoned.is_some()), "1 if the store refuses changes after an error";
};

/// Positions are segment sequence and offset: their difference is bytes only inside one segment.
fn undurable(stats: &Stats) -> f64 {
    const OFFSET_BITS: u32 = 32;
    let (end, durable) = (stats.log.end_lsn, stats.log.durable_lsn);
    let from = if end >> OFFSET_BITS == durable >> OFFSET_BITS { durable } else { end >> OFFSET_BITS << OFFSET_BITS };
    end.saturating_sub(from) as f64
}

const OPEN: &str = "tophash_open";
const OPEN_HELP: &str = "1 while the store is open in this process";
const WAITS: &str = "tophash_wait_seconds";
const WAITS_HELP: &str = "Waits of callers because something had run short, by cause";

/// The histograms without a label of their own, in the order of [`Handles::times`].
const TIMES: [(&str, &str); 6] = [
    ("tophash_get_seconds", "Reads of one key; one of 256 is timed"),
    ("tophash_change_seconds", "Changes of one key; one of 64 is timed"),
    ("tophash_batch_seconds", "Batches and removals of many keys"),
    ("tophash_sync_seconds", "Waits for records to become durable"),
    ("tophash_checkpoint_seconds", "Checkpoints"),
    ("tophash_checkpoint_cut_seconds", "The part of a checkpoint that holds all writers"),
];

const CAUSES: [Cause; 6] =
    [Cause::Journal, Cause::Memory, Cause::IndexSpace, Cause::Segment, Cause::Blobs, Cause::LogBound];

/// What is registered for one store.
pub(crate) struct Observer {
    counters: Vec<Counter>,
    gauges: Vec<Gauge>,
    times: Vec<Histogram>,
    waits: Vec<Histogram>,
    open: Gauge,
    /// The counters as they were published last.
    published: Mutex<Vec<u64>>,
    started: Instant,
    /// Milliseconds after `started` at which the figures are published again.
    due: AtomicU64,
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer").finish_non_exhaustive()
    }
}

impl Observer {
    /// Registers the figures of a store with the recorder of this thread or process.
    pub(crate) fn new(store: &Path) -> Self {
        let label = Label::new("store", store.display().to_string());
        metrics::with_recorder(|recorder| Self::register(recorder, &label))
    }

    fn register(recorder: &dyn Recorder, label: &Label) -> Self {
        let key = |name: &'static str| Key::from_parts(name, vec![label.clone()]);
        let name = KeyName::from_const_str;
        for figure in COUNTERS {
            recorder.describe_counter(name(figure.name), Some(figure.unit), figure.help.into());
        }
        for figure in GAUGES {
            recorder.describe_gauge(name(figure.name), Some(figure.unit), figure.help.into());
        }
        recorder.describe_gauge(name(OPEN), Some(Unit::Count), OPEN_HELP.into());
        for (time, help) in TIMES.into_iter().chain([(WAITS, WAITS_HELP)]) {
            recorder.describe_histogram(name(time), Some(Unit::Seconds), help.into());
        }
        let wait = |cause: Cause| {
            let labels = vec![label.clone(), Label::from_static_parts("cause", cause.name())];
            recorder.register_histogram(&Key::from_parts(WAITS, labels), &METADATA)
        };
        let open = recorder.register_gauge(&key(OPEN), &METADATA);
        open.set(1.0);
        Observer {
            counters: COUNTERS.iter().map(|figure| recorder.register_counter(&key(figure.name), &METADATA)).collect(),
            gauges: GAUGES.iter().map(|figure| recorder.register_gauge(&key(figure.name), &METADATA)).collect(),
            times: TIMES.iter().map(|&(name, _)| recorder.register_histogram(&key(name), &METADATA)).collect(),
            waits: CAUSES.into_iter().map(wait).collect(),
            open,
            published: Mutex::new(vec![0; COUNTERS.len()]),
            started: Instant::now(),
            due: AtomicU64::new(0),
        }
    }

    /// Takes the time of some work: until what is returned is dropped.
    pub(crate) fn time(&self, what: Timed) -> Timer<'_> {
        let histogram = match what {
            Timed::Get => &self.times[0],
            Timed::Change => &self.times[1],
            Timed::Batch => &self.times[2],
            Timed::Sync => &self.times[3],
            Timed::Checkpoint => &self.times[4],
            Timed::Cut => &self.times[5],
            Timed::Wait(cause) => &self.waits[cause as usize],
        };
        Timer(Some((histogram, Instant::now())))
    }

    /// As [`time`](Self::time), for one of many calls of this thread.
    #[inline]
    pub(crate) fn sample(&self, what: Timed) -> Timer<'_> {
        thread_local! {
            /// Calls until the next that is timed: reads, changes.
            static LEFT: [Cell<u32>; 2] = const { [Cell::new(0), Cell::new(0)] };
        }
        let (which, period) = if what == Timed::Get { (0, GETS) } else { (1, CHANGES) };
        let is_timed = LEFT.try_with(|left| match left[which].get() {
            0 => {
                left[which].set(period - 1);
                true
            }
            more => {
                left[which].set(more - 1);
                false
            }
        });
        // A thread that is ending takes no more times.
        if is_timed.unwrap_or(false) { self.time(what) } else { Timer(None) }
    }

    /// True if it is time to publish the figures again.
    pub(crate) fn is_due(&self) -> bool {
        let now = self.started.elapsed().as_millis() as u64;
        let due = now >= self.due.load(Ordering::Relaxed);
        if due {
            self.due.store(now + PERIOD_MILLIS, Ordering::Relaxed);
        }
        due
    }

    /// Publishes the figures of a moment.
    pub(crate) fn publish(&self, stats: &Stats) {
        tell(|| self.set_all(stats));
    }

    fn set_all(&self, stats: &Stats) {
        let mut published = self.published.lock();
        for ((figure, counter), before) in COUNTERS.iter().zip(&self.counters).zip(published.iter_mut()) {
            let now = (figure.read)(stats);
            // Another call may have published later figures meanwhile.
            counter.increment(now.saturating_sub(*before));
            *before = now.max(*before);
        }
        for (figure, gauge) in GAUGES.iter().zip(&self.gauges) {
            gauge.set((figure.read)(stats));
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        tell(|| self.open.set(0.0));
    }
}

/// A time that is being taken, or not.
#[derive(Debug)]
pub(crate) struct Timer<'o>(Option<(&'o Histogram, Instant)>);

impl Timer<'_> {
    /// Ends here.
    pub(crate) fn done(self) {}

    /// There was nothing to take the time of.
    pub(crate) fn cancel(mut self) {
        self.0 = None;
    }
}

impl Drop for Timer<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some((histogram, since)) = self.0.take() {
            tell(|| histogram.record(since.elapsed().as_secs_f64()));
        }
    }
}
