//! Running a checkpoint.
//!
//! 0. The log is synced, if much of it is not: step 2 will be short, and with it the time in which writers copy pages.
//!    Memory for the images is found. *Error:* nothing has happened; the next call begins anew.
//! 1. **Cut.** All stripes are held for an instant, so that exactly the records below the cut are in the
//!    index. The dirty set is frozen; from here a writer copies a frozen page aside before it changes it. Growth
//!    word, extents, segments, blobs and counts are noted with it. Then the first pages are copied, as many as may be in
//!    memory at a time. *Crash:* nothing has been written.
//! 2. The log is synced up to the cut. *Crash:* as before the checkpoint.
//! 3. The images of the frozen pages go into the journal; fsync. *Crash before it is complete:* the old
//!    generation stands, replay starts at the old cut. *After:* recovery does 4 and 5 again.
//! 4. The same images are written in place, in ascending order; fsync. *Crash:* recovery does it again.
//! 5. The other header slot gets generation and cut; fsync. *Crash:* the new generation stands.
//! 6. What the old generation needed is let go: blobs are unlinked, evacuated segments that the new one does
//!    not name are freed (log/space.rs), so are the pages of dropped tables, clean private pages are dropped if memory is short. *Crash:* the
//!    checkpoint names the blobs that are still to be unlinked; segments that it does not name are unlinked.
//!
//! An I/O error in steps 2 to 5 poisons the store: what is on disk is unknown, recovery sorts it out. Step 6 comes after
//! everything is durable. An error there poisons nothing and fails nothing: what could not be let go is known on, and a
//! later checkpoint tries again (`Stats` counts such errors).

use std::path::Path;
use std::sync::Arc;

use crate::address::Lsn;
use crate::checkpoint::checkpointer::{Checkpointer, Files, Written};
use crate::checkpoint::header::IndexHeader;
use crate::checkpoint::journal::{Buffer, Journal, JournalHead};
use crate::checkpoint::meta::{ExpiringEntry, Meta, SegmentEntry};
use crate::error::{Error, IoContext, Result};
use crate::health::Health;
use crate::layout::COMPACTING;
use crate::log::deadlines::Expiring;
use crate::log::segment::Segment;
use crate::log::segments::Log;
use crate::mutant::{Mutant, broken};
use crate::observe::{self, Observer, Timed};
use crate::sync::{Instant, Ordering};
use crate::sys::{DiskFile, PAGE_BYTES, Paced, PageBuffer, write_all_at};
use crate::table::Table;
use crate::table::cut::{Frozen, HeldTables, IndexCut};
use crate::table::page::{PageImage, image};
use crate::table::tables::Tables;

/// Images written in place by one system call. Larger pieces would be kept as larger pieces by the page
/// cache, and changing one page of them later would cost more.
const RUN_PAGES: usize = 4;

/// With more bytes of log than that to sync, the log is synced before the cut as well.
const LATE_SYNC_BYTES: u64 = 1 << 20;

/// What the cut froze.
struct Cut<'t> {
    lsn: Lsn,
    total: u64,
    frozen: Frozen<'t>,
    meta: Meta,
    /// Sequences of the segments that this checkpoint names no more.
    excluded: Vec<u32>,
}

/// The parts of a store that a checkpoint works on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope<'s> {
    pub(crate) path: &'s Path,
    pub(crate) tables: &'s Tables,
    pub(crate) log: &'s Log,
    pub(crate) health: &'s Health,
    pub(crate) observer: &'s Observer,
}

/// What a checkpoint could let go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LetGo {
    /// Counts the checkpoints, so that the newest one is known.
    pub(crate) serial: u64,
    /// Freed segments.
    pub(crate) segments: u64,
    /// Nothing failed: what is left waits for readers alone.
    pub(crate) all: bool,
}

impl Checkpointer {
    /// Runs a checkpoint, unless nothing has changed since the last one. `clean` marks the store as closed. `None` if there
    /// was nothing to do.
    ///
    /// # Errors
    /// `ReadOnly`, `Poisoned`, `Forked`; `Io` for memory or in steps 0 to 5.
    pub(crate) fn run(&self, scope: Scope<'_>, clean: bool) -> Result<Option<LetGo>> {
        let Some(files) = &self.files else { return Ok(None) };
        let before = self.counters.checkpoints.load(Ordering::Relaxed);
        let mut state = self.state.lock();
        scope.health.check_writable()?;
        // A caller whose wait covered a whole checkpoint is done. One that was under way may have been cut before.
        if !clean && self.counters.checkpoints.load(Ordering::Relaxed) > before + 1 {
            return Ok(None);
        }
        let _span = observe::checkpoint(scope.path);
        let timer = scope.observer.time(Timed::Checkpoint);
        let run = Run { scope, own: self, files };
        run.sync_early()?;
        // On a full disk fewer freed blobs are unlinked at a time.
        let _ = self.provide_meta_room(scope.tables.index(), scope.log);
        let images = scope.tables.index().memory_for_images()?;
        let mut buffer = Buffer::new().context("reserve memory for a part of", &files.journal.path)?;
        // Its drop comes before that of `state`: no other checkpoint begins on what a panic has left.
        let unfinished = scope.health.begin("a checkpoint");
        let result = run.steps(&mut state, images, &mut buffer, clean);
        drop(unfinished);
        // Of whatever nature: the dirty set was frozen, and what is in the journal and in the index is unknown.
        let Some(done) = result.inspect_err(|error| scope.health.poison(error))? else {
            timer.cancel();
            return Ok(None);
        };
        // Still as the one checkpoint: a page that another one has captured and not yet written in place is
        // clean by its flags, and the file does not hold its bytes.
        let let_go = run.let_go(&state.header, done);
        timer.done();
        observe::checkpointed(scope.path, state.header.generation, let_go.segments, clean);
        Ok(Some(let_go))
    }
}

/// What a checkpoint has done when its header is durable.
struct Done {
    /// Sequences of the segments that it does not name any more.
    excluded: Vec<u32>,
    /// Dropped tables that it does not name any more.
    retired: Vec<Arc<Table>>,
    /// Pages that it wrote.
    images: u64,
}

/// A checkpoint that is under way.
struct Run<'r> {
    scope: Scope<'r>,
    own: &'r Checkpointer,
    files: &'r Files,
}

impl<'r> Run<'r> {
    /// True in the offline compaction that a test has broken.
    fn is_switched_unsynced(&self) -> bool {
        broken(Mutant::SwitchedBeforeSync) && self.scope.path.ends_with(COMPACTING)
    }

    /// Step 0.
    fn sync_early(&self) -> Result<()> {
        let Scope { log, health, observer, .. } = self.scope;
        if self.is_switched_unsynced() || log.unsynced_bytes() <= LATE_SYNC_BYTES {
            return Ok(());
        }
        let _timer = observer.time(Timed::Sync);
        log.sync_to(log.tail()).inspect_err(|error| health.poison_if_unknown(error))
    }

    /// Step 6.
    fn let_go(&self, header: &IndexHeader, done: Done) -> LetGo {
        let Scope { log, health, .. } = self.scope;
        let blobs = log.unlink_dying_blobs();
        let (freed, segments) = log.free(&done.excluded);
        let tables = self.scope.tables.give_back_retired(done.retired, done.images > 0);
        self.scope.tables.drop_clean_pages();
        // The next checkpoint will write about as much as this one, unless the store is closed now.
        let pages = self.give_back_space(if header.clean { 0 } else { done.images });
        let errors = [blobs, segments, tables, pages].into_iter().filter_map(Result::err);
        let note = |error: &Error| {
            self.own.put_off(error);
            if broken(Mutant::FreeingPoisons) {
                health.poison(error);
            }
        };
        let put_off = errors.inspect(note).count() as u64;
        LetGo { serial: header.serial, segments: freed, all: put_off == 0 }
    }

    /// Gives back the space of index pages that are no longer in use, and of a journal that is longer than `images` and the
    /// dirty pages need.
    fn give_back_space(&self, images: u64) -> Result<()> {
        let (Scope { tables, .. }, files) = (self.scope, self.files);
        tables.all().iter().try_for_each(|table| table.give_back_unused().map(|_| ()))?;
        let index = tables.index();
        self.own.shorten_journal(files, index, images.max(index.dirty_pages()))
    }

    /// Steps 1 to 5. Returns `None` if there was nothing to write.
    fn steps(&self, state: &mut Written, images: PageBuffer, buffer: &mut Buffer, clean: bool) -> Result<Option<Done>> {
        let (Scope { tables, log, .. }, own, files) = (self.scope, self.own, self.files);
        let cuts = tables.put_off_cuts();
        let mut list = tables.hold_list();
        let (all, retired) = (list.all(), list.take_retired());
        let mut cut = self.cut(&all, images, || {
            drop(list);
            drop(cuts);
        });
        own.cut_at(tables, cut.total);
        let nothing_new = cut.frozen.is_empty()
            && cut.lsn == state.header.cut
            && cut.meta.tables == state.tables
            && cut.meta.blobs.dying.is_empty()
            && cut.excluded.is_empty()
            && retired.is_empty();
        if nothing_new && !clean {
            return Ok(None);
        }
        if !self.is_switched_unsynced() {
            log.sync_to(cut.lsn)?;
        }
        if broken(Mutant::FreedTooEarly) {
            log.free(&cut.excluded).1?;
        }
        let mut header = IndexHeader { serial: state.header.serial + 1, clean, ..state.header };
        let mut written = 0;
        if !nothing_new {
            header.generation += 1;
            header.cut = cut.lsn;
            let head = self.write_journal(state, &mut cut, header.generation, buffer)?;
            if broken(Mutant::HeaderBeforePages) {
                header.write(&*files.index, &files.index_path)?;
            }
            apply_journal(&files.journal, &*files.index, &files.index_path, head, buffer)?;
            own.counters.images.fetch_add(head.images, Ordering::Relaxed);
            written = head.images;
        }
        header.write(&*files.index, &files.index_path)?;
        state.header = header;
        state.tables = cut.meta.tables;
        own.done(header.generation, cut.total);
        Ok(Some(Done { excluded: cut.excluded, retired, images: written }))
    }

    /// Step 1. The caller holds the list of tables until it is called.
    fn cut<'t>(&'t self, all: &'t [Arc<Table>], images: PageBuffer, done: impl FnOnce()) -> Cut<'t> {
        let Scope { path, tables, log, observer, .. } = self.scope;
        let meta_room = self.files.meta_room.load(Ordering::Acquire);
        let held = HeldTables::hold(tables.index(), all);
        let started = Instant::now();
        let timer = observer.time(Timed::Cut);
        let (index_cut, (lsn, total, excluded, (segments, expiring, swept), next_sequence, blobs)) = held.cut(|| {
            let (lsn, total) = log.end();
            let excluded = log.excluded(lsn);
            let (mut segments, mut expiring) = (Vec::new(), Vec::new());
            let next_sequence = log.name_segments(&excluded, |segment| {
                segments.push(segment_entry(log, segment, lsn));
                expiring.extend(expiring_entry(log, segment));
            });
            // The log stands still while all stripes are held: replay begins at the cut, and finds what is behind it.
            debug_assert!(segments.last().is_none_or(|last: &SegmentEntry| last.sequence == lsn.sequence()));
            (
                lsn,
                total,
                excluded,
                (segments, expiring, log.swept()),
                next_sequence,
                log.freeze_blobs(Meta::freed_for(meta_room, log.slots_used(), tables.index().listed().with_slack())),
            )
        });
        done();
        timer.done();
        let IndexCut { tables: states, end_page, pages } = index_cut;
        let nanos = started.elapsed().as_nanos() as u64;
        observe::cut(path, pages.len(), nanos);
        self.own.counters.cut_nanos_max.fetch_max(nanos, Ordering::Relaxed);
        let meta = Meta {
            tables: states,
            next_table: tables.next_id(),
            end_page,
            next_sequence,
            segments,
            expiring,
            swept,
            blobs,
        };
        Cut { lsn, total, frozen: pages.capture(images), meta, excluded }
    }

    /// Step 3.
    fn write_journal(
        &self,
        state: &mut Written,
        cut: &mut Cut<'_>,
        generation: u64,
        buffer: &mut Buffer,
    ) -> Result<JournalHead> {
        let files = self.files;
        let mut writer = files.journal.begin(generation, buffer);
        // The meta pages come first in the file. Only those that say something new are written.
        let mut meta_pages = cut.meta.pages();
        for (i, page) in meta_pages.iter_mut().enumerate() {
            let known = state.meta_pages.get(i).is_some_and(|known| same_content(known, page));
            if !known {
                writer.push(page)?;
            }
        }
        state.meta_pages = meta_pages;
        loop {
            let is_last = cut.frozen.is_last();
            let Some(bytes) = cut.frozen.next() else { break };
            if is_last && broken(Mutant::PageLeftOut) {
                continue;
            }
            if is_last && broken(Mutant::PageOutsideJournal) {
                image::seal(bytes, state.header.uuid, generation);
                write_images(&*files.index, &[*bytes]).context("write pages of", &files.index_path)?;
                continue;
            }
            writer.push(bytes)?;
        }
        let (images, growth) = (writer.images(), cut.meta.main().growth.word());
        writer.finish(cut.lsn, growth)?;
        Ok(JournalHead { generation, cut: cut.lsn, images, growth })
    }
}

fn segment_entry(log: &Log, segment: &Segment, cut: Lsn) -> SegmentEntry {
    SegmentEntry {
        sequence: segment.sequence,
        slot: segment.slot,
        salt: segment.salt,
        capacity: segment.capacity(),
        end: segment.end().unwrap_or(cut.offset()),
        dead: log.dead(segment.slot),
        removals: segment.removals(),
    }
}

fn expiring_entry(log: &Log, segment: &Segment) -> Option<ExpiringEntry> {
    let Expiring { first, last, bytes } = log.kept_deadlines(segment.slot)?;
    Some(ExpiringEntry { sequence: segment.sequence.into(), first, last, bytes })
}

/// True if two meta pages say the same, whichever checkpoint wrote them.
fn same_content(a: &PageImage, b: &PageImage) -> bool {
    a[4..48] == b[4..48] && a[56..] == b[56..]
}

/// Step 4: writes the images of a complete journal in place.
pub(crate) fn apply_journal(
    journal: &Journal,
    index: &dyn DiskFile,
    path: &Path,
    head: JournalHead,
    buffer: &mut Buffer,
) -> Result<()> {
    let mut paced = Paced::new(index);
    journal.for_each_run_in(buffer, head, |images| {
        write_images(index, images).context("write pages of", path)?;
        paced.wrote(images.as_flattened().len() as u64).context("sync", path)?;
        Ok(true)
    })?;
    if broken(Mutant::PagesNotSynced) {
        return Ok(());
    }
    index.sync_all().context("sync", path)
}

fn write_images(index: &dyn DiskFile, images: &[[u8; PAGE_BYTES]]) -> std::io::Result<()> {
    let adjacent = |a: &[u8; PAGE_BYTES], b: &[u8; PAGE_BYTES]| image::number(a) + 1 == image::number(b);
    for run in images.chunk_by(adjacent) {
        for piece in run.chunks(RUN_PAGES) {
            write_all_at(index, piece.as_flattened(), image::number(&piece[0]) * PAGE_BYTES as u64)?;
        }
    }
    Ok(())
}
