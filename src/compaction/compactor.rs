//! The owner of compaction's state: the segment that is being emptied, whose turn it is, and counters.
//!
//! ```text
//! ├── space     how far the log is over its bound; pressure: what writers have to do about it
//! └── victim    which segment is emptied next
//! ```

use std::sync::Arc;

use super::pressure::Pressure;
use crate::address::{Address, Lsn};
use crate::checksum::KeyHasher;
use crate::error::{Error, Nature, Result};
use crate::log::record::{Invalid, Kind};
use crate::log::segment::{Segment, Wait};
use crate::log::segments::Log;
use crate::mutant::{Mutant, broken};
use crate::observe;
use crate::stats::CompactionStats;
use crate::sync::{AtomicU32, AtomicU64, Instant, Mutex, Ordering};
use crate::sys::pins::Pinned;
use crate::table::tables::Tables;
use crate::table_id::TableId;

/// Bytes of records that a thread claims at a time: bounds how long others wait for their turn.
const PIECE_BYTES: u64 = 256 << 10;

/// Decides what is compacted and when, and hands out the pieces. The engine moves the records (online.rs).
#[derive(Debug)]
pub(crate) struct Compactor {
    /// The log may take this multiple of the live records' bytes, and a few segments.
    pub(super) ratio: f64,
    pub(super) victim: Mutex<Option<Victim>>,
    /// What writers have to do; see [`Pressure`].
    pub(super) pressure: AtomicU32,
    /// The total of appended bytes at which the log's space is looked at again.
    pub(super) look_at: AtomicU64,
    /// Bytes of live records when the log's space was looked at last.
    pub(super) live: AtomicU64,
    /// What the newest checkpoint could let go.
    pub(super) freeing: Mutex<Freeing>,
    /// Victims chosen so far.
    pub(super) victims: AtomicU64,
    pub(super) counters: Counters,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    moved_records: AtomicU64,
    moved_bytes: AtomicU64,
    expired: AtomicU64,
    evacuated: AtomicU64,
    /// Bytes of records that the evacuated segments held.
    emptied_bytes: AtomicU64,
    pub(super) freed: AtomicU64,
    /// Times a writer helped, and times one waited.
    helps: AtomicU64,
    throttles: AtomicU64,
}

/// What the newest checkpoint could let go.
#[derive(Debug, Default)]
pub(super) struct Freeing {
    /// The checkpoint's serial.
    pub(super) serial: u64,
    /// It could not let go all that it does not need any more: nothing is freed before this time.
    pub(super) pause: Option<Instant>,
    /// Bytes of records that had been moved until then.
    pub(super) moved: u64,
}

/// What compaction has done since the store was opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done {
    pub(crate) moved_records: u64,
    pub(crate) moved_bytes: u64,
    pub(crate) evacuated: u64,
    pub(crate) emptied_bytes: u64,
}

/// A segment that is being evacuated.
#[derive(Debug)]
pub(super) struct Victim {
    /// Tells this evacuation from an earlier one of the same segment.
    pub(super) id: u64,
    pub(super) segment: Arc<Segment>,
    /// Where the next record begins that no thread has claimed.
    pub(super) at: u64,
    pub(super) end: u64,
    /// An older segment holds records: removals must be kept.
    pub(super) keep_removals: bool,
    /// A clear-record stands there, and stays: it hides what removals and clear-records before it do.
    pub(super) cleared: Lsn,
    /// Claimed pieces that are not finished.
    pub(super) in_flight: u32,
}

/// Which segments may be chosen.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Choice {
    /// The one that gains most.
    Best,
    /// Those up to this sequence that gain something, the oldest first.
    UpTo(u32),
    /// This one, whatever it gains.
    Only(u32),
}

/// A piece of a victim, claimed by one thread.
pub(super) struct Piece<'l> {
    victim: u64,
    pub(super) segment: Arc<Segment>,
    /// Pinned, so that the addresses stand for these records, whatever becomes of the victim meanwhile.
    pub(super) pinned: Pinned<'l>,
    pub(super) items: Vec<Item>,
    /// An older segment holds records: removals must be kept.
    pub(super) keep_removals: bool,
    /// The moment at which its records are expired or not.
    pub(super) now: u64,
}

/// A record to deal with.
#[derive(Clone, Copy)]
pub(super) struct Item {
    pub(super) table: TableId,
    pub(super) hash: u64,
    pub(super) offset: u64,
    pub(super) kind: Kind,
}

/// What has ended the evacuation of a victim.
pub(super) struct Stopped {
    error: Box<Error>,
    /// What the victim waits for, if the damage lies elsewhere.
    wait: Option<Wait>,
}

impl Stopped {
    /// `unread`: the record elsewhere that could not be read.
    pub(super) fn new(error: Error, segment: &Segment, item: &Item, unread: Option<Address>) -> Self {
        let elsewhere = match &error {
            Error::Corrupt { location, .. } => location.path != segment.path,
            _ => false,
        };
        let wait = Wait { table: item.table, hash: item.hash, record: unread };
        let wait = (elsewhere && error.nature() == Nature::Damage).then_some(wait);
        Stopped { error: Box::new(error), wait }
    }

    /// True if the record's table is being dropped. When that is done, the record is dead.
    pub(super) fn is_of_dropped_table(&self) -> bool {
        matches!(*self.error, Error::TableDropped { .. })
    }

    /// The error for whoever compacts. A segment that waits for another record is none: who reads that record meets it.
    pub(super) fn told(self) -> Result<()> {
        match self.wait {
            Some(Wait { record: Some(_), .. }) => Ok(()),
            _ => Err(*self.error),
        }
    }
}

/// What there is to do for a thread that asks.
pub(super) enum Task<'l> {
    /// These records.
    Piece(Piece<'l>),
    /// The victim was finished, or let go without an error.
    Finished,
    /// Other threads deal with the rest of the victim.
    Others,
    /// No segment is worth emptying.
    Nothing,
}

impl Compactor {
    pub(crate) fn new(ratio: f64) -> Self {
        Compactor {
            ratio,
            victim: Mutex::new(None),
            pressure: AtomicU32::new(Pressure::None as u32),
            look_at: AtomicU64::new(0),
            live: AtomicU64::new(0),
            freeing: Mutex::default(),
            victims: AtomicU64::new(0),
            counters: Counters::default(),
        }
    }

    /// Claims up to `records` records of the victim, or finishes it. The caller holds no lock. `choice`: which one
    /// becomes the next victim, whether or not the log is over its bound.
    ///
    /// # Errors
    /// `Corrupt` if a record cannot be read, and errors of the moment. The victim is let go then.
    pub(super) fn next_task<'l>(
        &self,
        log: &'l Log,
        tables: &Tables,
        hasher: &KeyHasher,
        records: usize,
        choice: Choice,
    ) -> Result<Task<'l>> {
        let mut victim = self.victim.lock();
        if victim.is_none() {
            *victim = self.choose_victim(log, tables, choice);
        }
        let Some(current) = victim.as_mut() else { return Ok(Task::Nothing) };
        if current.at >= current.end {
            if current.in_flight > 0 {
                return Ok(Task::Others);
            }
            // Everything that was ever published here is behind the head of the log by now.
            current.segment.set_evacuated(log.tail());
            observe::victim_emptied(&current.segment.path);
            self.counters.evacuated.fetch_add(1, Ordering::Relaxed);
            self.counters.emptied_bytes.fetch_add(current.end, Ordering::Relaxed);
            *victim = None;
            return Ok(Task::Finished);
        }
        match claim(current, log, tables, hasher, records) {
            Ok(Some(piece)) => Ok(Task::Piece(piece)),
            Ok(None) => {
                *victim = None;
                Ok(Task::Finished)
            }
            Err(error) => {
                note_damage(&current.segment, &error);
                *victim = None;
                Err(error)
            }
        }
    }

    /// A claimed piece was dealt with, or could not be. In that case the victim is let go.
    pub(super) fn finish(&self, piece: &Piece<'_>, stopped: Option<&Stopped>) {
        let mut victim = self.victim.lock();
        if let Some(current) = victim.as_mut().filter(|current| current.id == piece.victim) {
            current.in_flight -= 1;
            if stopped.is_some() {
                *victim = None;
            }
        }
        match stopped {
            Some(Stopped { wait: Some(wait), .. }) => {
                piece.segment.set_waiting(*wait);
                observe::victim_waits(&piece.segment.path);
            }
            Some(Stopped { error, .. }) => note_damage(&piece.segment, error),
            None => {}
        }
    }

    /// Counts a record that was appended again, and its bytes. A removal that is kept counts with its bytes alone.
    pub(super) fn count_moved(&self, records: u64, bytes: u64) {
        self.counters.moved_records.fetch_add(records, Ordering::Relaxed);
        self.counters.moved_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts an expired record that was removed from the index.
    pub(super) fn count_expired(&self) {
        self.counters.expired.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a writer that helps, or one that waits.
    pub(super) fn count_pressure(&self, pressure: Pressure) {
        let counter = if pressure >= Pressure::Wait { &self.counters.throttles } else { &self.counters.helps };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes that others than the compaction have appended since the store was opened.
    pub(crate) fn appended_by_others(&self, log: &Log) -> u64 {
        log.total().saturating_sub(self.moved_bytes())
    }

    /// Bytes that the compaction has appended since the store was opened.
    pub(super) fn moved_bytes(&self) -> u64 {
        self.counters.moved_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn done(&self) -> Done {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { moved_records, moved_bytes, evacuated, emptied_bytes, .. } = &self.counters;
        Done {
            moved_records: get(moved_records),
            moved_bytes: get(moved_bytes),
            evacuated: get(evacuated),
            emptied_bytes: get(emptied_bytes),
        }
    }

    pub(crate) fn stats(&self, log: &Log) -> CompactionStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Done { moved_records, moved_bytes, evacuated, .. } = self.done();
        CompactionStats {
            moved_records,
            moved_bytes,
            evacuated_segments: evacuated,
            freed_segments: get(&self.counters.freed),
            expired_records: get(&self.counters.expired),
            evacuated_bytes: log.space().evacuated,
            damaged_segments: log.segments().iter().filter(|segment| segment.is_damaged()).count() as u64,
            helps: get(&self.counters.helps),
            throttles: get(&self.counters.throttles),
        }
    }
}

/// Claims the next records of a victim. `None` if the victim must wait until it is the oldest segment, or until the log has a
/// later clear-record.
fn claim<'l>(
    victim: &mut Victim,
    log: &'l Log,
    tables: &Tables,
    hasher: &KeyHasher,
    records: usize,
) -> Result<Option<Piece<'l>>> {
    let segment = &victim.segment;
    let start = Address::new(segment.slot, 0);
    let pinned = log.pin(start).ok_or_else(|| log.invalid_record(start, Invalid::Beyond))?;
    let mut items = Vec::with_capacity(records);
    // Marks and other records that need nothing done are not counted, but end the piece as well.
    let mut left = 4 * records;
    let stop = victim.at.saturating_add(PIECE_BYTES);
    while victim.at < victim.end.min(stop) && items.len() < records && left > 0 {
        left -= 1;
        let record = log.record(&pinned, Address::new(segment.slot, victim.at))?;
        let kind = record.header.kind;
        let lsn = Lsn::new(segment.sequence, victim.at);
        // A clear-record speaks of the main table.
        let hides = victim.keep_removals && (lsn >= victim.cleared || record.table() != TableId::MAIN);
        let wanted = match kind {
            Kind::Put | Kind::PutBlob => true,
            Kind::Remove => hides,
            Kind::Clear if hides && !broken(Mutant::ClearsDropped) => {
                log.note_clear(lsn);
                return Ok(None);
            }
            Kind::Clear | Kind::Frame | Kind::Mark => false,
        };
        if wanted {
            let (hash, table) = (hasher.hash(record.key()), record.table());
            if let Some(table) = tables.get(table) {
                table.prefetch(hash);
            }
            items.push(Item { table, hash, offset: victim.at, kind });
        }
        victim.at += record.header.total();
    }
    victim.in_flight += 1;
    let (segment, keep_removals) = (Arc::clone(segment), victim.keep_removals);
    Ok(Some(Piece { victim: victim.id, segment, pinned, items, keep_removals, now: log.now() }))
}

/// A segment in which a record is damaged is kept, and not chosen again. One that could not be read at this moment is.
fn note_damage(segment: &Segment, error: &Error) {
    if error.nature() == Nature::Damage || broken(Mutant::MomentMarksDamage) {
        segment.set_damaged();
        observe::victim_damaged(&segment.path);
    }
}
