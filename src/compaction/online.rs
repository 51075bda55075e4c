//! Online compaction: segments with few live records are emptied, so that their space comes back.
//!
//! **Evacuating a segment**, a few records at a time, by the background thread and, when the log is over its
//! bound, by the writers themselves:
//!
//! 1. A victim is chosen (victim.rs). Every stripe is taken once: whoever has appended to the segment has published
//!    by then.
//! 2. Its records are read one after another; each is checked, so that rot is never copied under a fresh
//!    checksum. A segment with a record that cannot be read is kept as it is.
//! 3. A put is live if the key's path has a slot with this very place. A live one is appended again and
//!    published under its key's stripe, as a write is; so log order stays index order. *Crash:* the copy is
//!    replayed, or it is lost with the tail and the original stands.
//! 4. A remove-record is appended again as long as a segment older than the victim holds records, if the key is
//!    absent under its lock: the older segment can hold a put of the key, which a repair would bring back. (A
//!    clear-record cannot be moved behind later puts: its segment waits until it is the oldest.)
//! 5. When all records are dealt with, the segment is *evacuated*; what follows is told in log/space.rs.
//!
//! No step holds a stripe for longer than one record takes.

use std::sync::Arc;
use std::time::Duration;

use super::state::{Compaction, Victim};
use crate::address::Place;
use crate::checkpoint::run::LetGo;
use crate::engine::Engine;
use crate::engine::write::with_encoded;
use crate::error::{Error, Nature, Result};
use crate::log::record::{Encoded, Invalid, Kind, Record};
use crate::log::segment::Segment;
use crate::mutant::{Mutant, broken};
use crate::need::Step;
use crate::observe::{self, Cause};
use crate::progress::{OnProgress, tell};
use crate::stats::CompactionReport;
use crate::sync::{AtomicU64, Instant, Ordering, sleep, yield_now};
use crate::sys::pins::Pinned;
use crate::table::lookup::{Probe, SeenSlot};

/// Records that the background thread deals with at a time.
const STEP_RECORDS: usize = 256;
/// Records that a writer deals with when the log is over its bound: a few microseconds' worth.
const HELP_RECORDS: usize = 16;
/// How long a writer waits at a time when the log is far over its bound.
const THROTTLE: Duration = Duration::from_micros(200);
/// How long the background thread rests between two steps while the log is only just over its bound.
const PACE: Duration = Duration::from_micros(20);
/// Bytes of records that a thread claims at a time: bounds how long others wait for their turn.
const PIECE_BYTES: u64 = 256 << 10;
/// Bytes of freed blobs that are worth a checkpoint in any case; more, if the store holds more.
const FREED_BLOBS_MIN: u64 = 16 << 20;
/// How long nothing is freed after an error of freeing, unless somebody asks for a checkpoint.
const FREEING_PAUSE: Duration = Duration::from_secs(1);
/// So many emptied segments are worth a checkpoint, however small they are.
const WAITING_MAX: usize = 32;

/// A piece of a victim, claimed by one thread.
struct Piece<'s> {
    victim: u64,
    segment: Arc<Segment>,
    /// Pinned, so that the places stand for these records, whatever becomes of the victim meanwhile.
    pinned: Pinned<'s>,
    items: Vec<Item>,
}

/// A record to deal with.
#[derive(Clone, Copy)]
struct Item {
    hash: u64,
    offset: u64,
    kind: Kind,
}

/// What a step of compaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Records were dealt with, or a segment was finished.
    Made,
    /// Others are dealing with what is left of the victim.
    Others,
    /// There is nothing worth doing.
    Nothing,
}

/// How far the log is over its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
enum Pressure {
    None = 0,
    /// Writers help.
    Help = 1,
    /// Writers wait a little: what would free space is the checkpoint that is under way. Moving more records
    /// before it is done would only make the log longer.
    Wait = 2,
    /// The log is at its bound: writers wait for the checkpoint, or for whatever else is missing.
    Full = 3,
}

/// The log's space, measured against its bound.
#[derive(Debug, Clone, Copy)]
struct Look {
    /// There is too much of it.
    due: bool,
    pressure: Pressure,
    /// A checkpoint would free enough to be worth it.
    checkpoint: bool,
    /// What was emptied cannot be freed at this moment.
    stuck: bool,
}

impl Compaction {
    /// Notes what a checkpoint could let go.
    pub(crate) fn note_freeing(&self, let_go: LetGo) {
        self.freed.fetch_add(let_go.segments, Ordering::Relaxed);
        *self.freeing.lock() = (!let_go.all).then(|| Instant::now() + FREEING_PAUSE);
    }

    fn can_free(&self) -> bool {
        self.freeing.lock().is_none_or(|until| Instant::now() >= until)
    }
}

impl Engine {
    /// Compares the log's size with its bound. A quiet store is tidied up further: half-way to no dead bytes.
    fn look_at_space(&self, quiet: bool) -> Look {
        let space = self.log.space();
        let segment = space.active.max(self.log.segment_bytes(0));
        let ratio = if quiet { (1.0 + self.log_ratio) / 2.0 } else { self.log_ratio };
        let bound = (space.live() as f64 * ratio).min(u64::MAX as f64 / 4.0) as u64;
        let goal = bound.saturating_add(segment);
        // What nothing can be done about is no reason to copy the rest over and over.
        let bytes = space.bytes - space.stuck;
        let total = bytes + space.evacuated;
        let far = total > goal.saturating_add(segment * 2);
        // The promise is four segments, of which `goal` has one. Half of one is left for what happens between two looks.
        let pressure = if total > goal.saturating_add(segment * 5 / 2) {
            Pressure::Full
        } else if far && space.evacuated >= segment {
            Pressure::Wait
        } else if far || bytes > goal.saturating_add(segment / 2) {
            Pressure::Help
        } else {
            Pressure::None
        };
        self.compaction.live.store(space.live(), Ordering::Relaxed);
        let can_free = self.compaction.can_free();
        Look {
            due: bytes > goal || space.small > self.small_max(),
            pressure,
            checkpoint: can_free
                && (space.evacuated >= segment
                    || (space.evacuated > 0 && total > goal)
                    || space.waiting >= WAITING_MAX),
            stuck: space.evacuated > 0 && !can_free,
        }
    }

    /// True if a checkpoint would free enough space to be worth it.
    pub(crate) fn frees_space(&self) -> bool {
        self.look_at_space(false).checkpoint || self.frees_blobs()
    }

    /// Bytes of freed blobs that may wait for a checkpoint.
    pub(crate) fn freed_blobs_max(&self) -> u64 {
        let live = self.log.blobs.bytes() + self.compaction.live.load(Ordering::Relaxed);
        // However much dead weight the log may have, these are no more than the rest.
        let share = (self.log_ratio - 1.0).clamp(0.0, 1.0);
        (live as f64 * share).max(FREED_BLOBS_MIN as f64) as u64
    }

    fn frees_blobs(&self) -> bool {
        self.log.blobs.waiting().1 > self.freed_blobs_max() && self.compaction.can_free()
    }

    /// What follows a change that has freed blobs. No lock is held.
    pub(crate) fn mind_freed_blobs(&self) -> Result<()> {
        match (self.frees_blobs(), self.tuning.background) {
            (false, _) => Ok(()),
            (true, true) => {
                self.wake.checkpoint.ring();
                Ok(())
            }
            (true, false) => self.run_checkpoint(false),
        }
    }

    /// What follows a change of many keys, which can have left much that is dead and little that is new. No lock is held.
    pub(crate) fn after_many(&self) -> Result<()> {
        self.mind_freed_blobs()?;
        self.compact_after_look(self.log.total())
    }

    /// Looks at the log's space, and notes what writers have to do and when to look again.
    fn look(&self, total: u64, quiet: bool) -> Look {
        let look = self.look_at_space(quiet);
        self.compaction.pressure.store(look.pressure as u32, Ordering::Relaxed);
        self.compaction.look_at.store(total + self.log.segment_bytes(0) / 8, Ordering::Relaxed);
        if look.checkpoint && self.tuning.background {
            self.wake.checkpoint.ring();
        }
        look
    }

    /// Bytes that others than the compaction have appended since the store was opened.
    pub(crate) fn appended_by_others(&self) -> u64 {
        self.log.total().saturating_sub(self.compaction.moved_bytes.load(Ordering::Relaxed))
    }

    /// True if a quiet store has more than it should: another look may find what this one could not do.
    pub(crate) fn is_worth_a_look(&self) -> bool {
        let look = self.look_at_space(true);
        look.due || look.checkpoint
    }

    /// Compacts until the log is within its bound, there is nothing to gain, or `stop` says so. Called by the
    /// background thread. `quiet`: nobody has written for a while.
    pub(crate) fn compact_in_background(&self, quiet: bool, stop: &dyn Fn() -> bool) {
        loop {
            let look = self.look(self.log.total(), quiet);
            self.log.reclaim();
            if self.log.is_ill_fitting() && self.health.check_writable().is_ok() {
                // If it fails, the segment goes on being used.
                let _ = self.log.replace_active(|| self.table.lock(0));
            }
            if stop() || self.health.check_writable().is_err() {
                return;
            }
            // If it fails, the space stays until the next look.
            let _ = self.log.give_back_ends();
            let far = look.pressure >= Pressure::Wait;
            if far && broken(Mutant::CompactionGivesUp) {
                return;
            }
            if far && look.checkpoint {
                // Moving more records before it is done would only make the log longer. Nobody else runs it for sure:
                // the writers may have nothing to write any more.
                match self.run_checkpoint(false) {
                    Ok(()) => continue,
                    Err(_) => return,
                }
            }
            if !look.due || (far && look.stuck) {
                return;
            }
            for _ in 0..16 {
                // An error is met again by whoever needs the space; a damaged segment is not chosen again.
                match self.compact_step(STEP_RECORDS, None) {
                    Ok(Progress::Made) if look.pressure == Pressure::None => sleep(PACE),
                    Ok(Progress::Made) => {}
                    Ok(Progress::Others) => {
                        sleep(PACE);
                        break;
                    }
                    Ok(Progress::Nothing) | Err(_) => return,
                }
            }
        }
    }

    /// What a writer does after an append: looks at the log's space now and then, and helps if it is over its
    /// bound. No lock is held.
    #[inline]
    pub(crate) fn help_compaction(&self, total: u64) -> Result<()> {
        if total >= self.compaction.look_at.load(Ordering::Relaxed) {
            return self.compact_after_look(total);
        }
        match self.compaction.pressure.load(Ordering::Relaxed) {
            0 => Ok(()),
            pressure => self.compact_under_pressure(pressure),
        }
    }

    #[cold]
    fn compact_after_look(&self, total: u64) -> Result<()> {
        let look = self.look(total, false);
        if self.tuning.background {
            if look.due {
                self.wake.compaction.ring();
            }
            return Ok(());
        }
        let mut look = look;
        loop {
            if look.checkpoint {
                self.run_checkpoint(false)?;
            }
            // The change that led here is made: an error of this is none of its own. It is met again by whoever
            // needs the space. If what is left of the victim is with others, they will finish it.
            if !look.due || !matches!(self.compact_step(STEP_RECORDS, None), Ok(Progress::Made)) {
                return Ok(());
            }
            look = self.look_at_space(false);
        }
    }

    #[cold]
    fn compact_under_pressure(&self, pressure: u32) -> Result<()> {
        if pressure >= Pressure::Wait as u32 {
            let _waiting = self.waits(Cause::LogBound);
            self.compaction.throttles.fetch_add(1, Ordering::Relaxed);
            let full = pressure == Pressure::Full as u32;
            if full && self.look_at_space(false).checkpoint {
                self.run_checkpoint(false)?;
            } else if !full || self.help(STEP_RECORDS) != Progress::Made {
                sleep(THROTTLE);
            }
            self.look(self.log.total(), false);
            return Ok(());
        }
        self.compaction.helps.fetch_add(1, Ordering::Relaxed);
        if self.help(HELP_RECORDS) == Progress::Nothing {
            // Until the next look there is no help; looking at all segments at each write would be dear.
            self.compaction.pressure.store(Pressure::None as u32, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Moves some records, as a part of somebody's write.
    fn help(&self, records: usize) -> Progress {
        if !self.log.has_room_ahead() {
            // A segment is prepared by the background thread, not here: that could take long.
            self.wake.segment.ring();
            return Progress::Others;
        }
        // An error is met again by whoever needs the space.
        self.compact_step(records, None).unwrap_or(Progress::Nothing)
    }

    /// Deals with up to `records` records of the victim, or finishes it. The caller holds no lock. `forced`: a
    /// victim is chosen up to this sequence, whether or not the log is over its bound.
    ///
    /// # Errors
    /// Those of a write (`DiskFull`), and `Corrupt` if a page or record cannot be read. The victim is let go
    /// then; what was moved stays moved.
    pub(crate) fn compact_step(&self, records: usize, forced: Option<u32>) -> Result<Progress> {
        let piece = {
            let mut victim = self.compaction.victim.lock();
            if victim.is_none() {
                *victim = self.choose_victim(forced);
            }
            let Some(current) = victim.as_mut() else { return Ok(Progress::Nothing) };
            if current.at >= current.end {
                if current.in_flight > 0 {
                    return Ok(Progress::Others);
                }
                // Everything that was ever published here is behind the head of the log by now.
                current.segment.set_evacuated(self.log.tail());
                observe::victim_emptied(&current.segment.path);
                self.compaction.evacuated.fetch_add(1, Ordering::Relaxed);
                *victim = None;
                return Ok(Progress::Made);
            }
            match self.claim(current, records) {
                Ok(piece) => piece,
                Err(kept) => {
                    *victim = None;
                    return kept.map_or(Ok(Progress::Made), Err);
                }
            }
        };
        let result = self.evacuate_piece(&piece);
        let mut victim = self.compaction.victim.lock();
        if let Some(current) = victim.as_mut().filter(|current| current.id == piece.victim) {
            current.in_flight -= 1;
            if result.is_err() {
                *victim = None;
            }
        }
        if let Err(error) = &result {
            self.note_damage(&piece.segment, error);
        }
        result.map(|()| Progress::Made)
    }

    /// A segment in which a record is damaged is kept, and not chosen again. One that could not be read at this moment is.
    fn note_damage(&self, segment: &Segment, error: &Error) {
        if error.nature() == Nature::Damage || broken(Mutant::MomentMarksDamage) {
            segment.set_damaged();
            observe::victim_damaged(&segment.path);
        }
    }

    /// Compacts every segment that exists now and has something to gain; see
    /// [`Store::compact_with`](crate::Store::compact_with).
    pub(crate) fn compact_all(&self, progress: &mut OnProgress<'_>) -> Result<CompactionReport> {
        self.health.check_writable()?;
        let _span = observe::compaction(&self.path);
        let started = Instant::now();
        let before = (self.disk_bytes()?, self.log.space());
        let counters = || {
            let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            let own = &self.compaction;
            [get(&own.moved_records), get(&own.moved_bytes), get(&own.evacuated)]
        };
        let counted = counters();
        let mut finished = true;
        // What the active segment holds is compacted too, if that is worth it: before the others, or once they are
        // gone and its removals need not be kept any more.
        for _ in 0..2 {
            self.seal_if_worth_it()?;
            let sealed = |segment: &Arc<Segment>| segment.end().is_some();
            let last = self.log.segments().iter().rev().find(|segment| sealed(segment)).map_or(0, |s| s.sequence);
            finished = finished && self.compact_forced(last, progress, before.1.bytes)?;
        }
        self.run_checkpoint(false)?;
        self.log.give_back_ends()?;
        let counted: Vec<u64> = counters().iter().zip(counted).map(|(now, then)| now - then).collect();
        Ok(CompactionReport {
            finished,
            moved_records: counted[0],
            moved_bytes: counted[1],
            freed_segments: counted[2],
            pinned_bytes: self.log.held_bytes(),
            log_bytes_before: before.1.bytes,
            log_bytes_after: self.log.space().bytes,
            disk_bytes_before: before.0,
            disk_bytes_after: self.disk_bytes()?,
            nanos: started.elapsed().as_nanos() as u64,
        })
    }

    /// Compacts segments up to a sequence until nothing is worth it. Returns false if `progress` has ended it.
    fn compact_forced(&self, last: u32, progress: &mut OnProgress<'_>, all: u64) -> Result<bool> {
        loop {
            let space = self.log.space();
            if tell(progress, space.evacuated, all).is_break() {
                return Ok(false);
            }
            match self.compact_step(STEP_RECORDS, Some(last))? {
                Progress::Made => {}
                Progress::Others => yield_now(),
                Progress::Nothing => return Ok(true),
            }
            // Emptied segments become space for what is still to be moved.
            if space.evacuated > 4 * self.log.segment_bytes(0) {
                self.run_checkpoint(false)?;
            }
        }
    }

    /// Step 2: claims the next records. An error means that the victim is let go, and why: damage, or something of the
    /// moment.
    fn claim(&self, victim: &mut Victim, records: usize) -> std::result::Result<Piece<'_>, Option<Error>> {
        let segment = &victim.segment;
        let failed = |why: Error| {
            self.note_damage(segment, &why);
            Err(Some(why))
        };
        let start = Place::new(segment.slot, 0);
        let Some(pinned) = self.log.pin(start) else {
            return failed(*self.log.invalid_record(start, Invalid::Beyond));
        };
        let mut items = Vec::with_capacity(records);
        // Marks and other records that need nothing done are not counted, but end the piece as well.
        let mut left = 4 * records;
        let stop = victim.at.saturating_add(PIECE_BYTES);
        while victim.at < victim.end.min(stop) && items.len() < records && left > 0 {
            left -= 1;
            let place = Place::new(segment.slot, victim.at);
            let record = match self.log.record(&pinned, place) {
                Ok(record) => record,
                Err(why) => return failed(why),
            };
            let kind = record.header.kind;
            let wanted = match kind {
                Kind::Put | Kind::PutBlob => true,
                Kind::Remove => victim.keep_removals,
                Kind::Clear if victim.keep_removals && !broken(Mutant::ClearsDropped) => {
                    segment.set_clears();
                    return Err(None);
                }
                Kind::Clear | Kind::Frame | Kind::Mark => false,
            };
            if wanted {
                let hash = self.hasher.hash(record.key());
                self.table.prefetch(hash);
                items.push(Item { hash, offset: victim.at, kind });
            }
            victim.at += record.header.total();
        }
        victim.in_flight += 1;
        Ok(Piece { victim: victim.id, segment: Arc::clone(segment), pinned, items })
    }

    /// Steps 3 and 4.
    fn evacuate_piece(&self, piece: &Piece<'_>) -> Result<()> {
        let slot = piece.segment.slot;
        let mut running_low = false;
        for item in &piece.items {
            let place = Place::new(slot, item.offset);
            if item.kind != Kind::Remove && !broken(Mutant::MovedBlindly) && !self.is_live(item.hash, place)? {
                continue;
            }
            let record = self.log.record(&piece.pinned, place)?;
            let low = with_encoded(|encoded| {
                encoded.push(item.kind, record.key(), record.value());
                self.retry(|| match item.kind {
                    Kind::Remove => self.keep_removal(&record, item.hash, encoded),
                    _ => self.move_record(&record, item.hash, place, encoded),
                })
            })?;
            running_low |= low;
        }
        if running_low && self.tuning.background {
            self.wake.segment.ring();
        }
        Ok(())
    }

    /// True if a slot points to the place. Once false, always false.
    fn is_live(&self, hash: u64, place: Place) -> Result<bool> {
        let is_hit = |seen: SeenSlot<'_>| Ok(if seen.slot.place() == place { Probe::Hit } else { Probe::Other });
        Ok(self.table.lookup(hash, is_hit)?)
    }

    /// Appends a live record again. Returns true if the log is running low.
    fn move_record(&self, record: &Record<'_>, hash: u64, place: Place, encoded: &mut Encoded) -> Step<bool> {
        let mut edit = self.table.edit(hash)?;
        // Under the stripe: once poisoned, the index does not say any more what the log says.
        self.health.check_writable()?;
        let sought = if broken(Mutant::MovedBlindly) {
            let mut hit = None;
            edit.find(hash, |slot| self.is_key(record.key(), slot, &mut hit))?
        } else {
            edit.find_place(hash, Some(place))
        };
        let Some(slot) = sought.slot() else { return Ok(false) };
        if slot.is_marked() {
            // Unreadable when its page was split, readable now: which half it belongs to is still not known.
            return Err(self.log.invalid_record(place, Invalid::Header).into());
        }
        let reserved = edit.reserve_put(sought)?;
        let appended = self.log.append(encoded.singles(), 0, false)?;
        edit.publish(reserved, appended.place)?;
        let bytes = record.header.total();
        self.log.add_dead(place, bytes);
        self.compaction.moved_records.fetch_add(1, Ordering::Relaxed);
        self.compaction.moved_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(appended.running_low)
    }

    /// Appends a remove-record again, if its key is absent. Returns true if the log is running low.
    fn keep_removal(&self, record: &Record<'_>, hash: u64, encoded: &mut Encoded) -> Step<bool> {
        let edit = self.table.edit(hash)?;
        self.health.check_writable()?;
        let mut hit = None;
        edit.find(hash, |slot| self.is_key(record.key(), slot, &mut hit))?;
        if hit.is_some() {
            // A later put, which a repair finds as well.
            return Ok(false);
        }
        // Not from the reserve: on a full disk this is tried again and again, and would use it up.
        let appended = self.log.append(encoded.singles(), 1, false)?;
        self.log.add_dead(appended.place, encoded.len());
        self.compaction.moved_bytes.fetch_add(encoded.len(), Ordering::Relaxed);
        Ok(appended.running_low)
    }
}
