//! The delays layer: a thread that empties segments, frees expired large values or counts deadlines is held in the middle of a
//! record, as a busy machine may hold it. Meanwhile another thread sets the same keys anew, prolongs and removes them, clears
//! the store and runs checkpoints. Then the held thread goes on.
//!
//! A map with deadlines says what must be there: at once, after the death of the process, after a close, and in what a repair
//! makes of the log alone. No file of a large value may be left over, and the bytes that expire are counted exactly.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, SystemTime};

use tophash::{Batch, Hold, Moment, Options, Progress, Store, SyncPolicy, Tuning};

use crate::crash::no_large_value_is_left;
use crate::disk::SimDisk;
use crate::image::Image;
use crate::random::Random;
use crate::run::{STORE, blank, kill};
use crate::script::{NOW, Value, key};
use crate::scripts::tiny;

/// Keys of a run.
const KEYS: u32 = 40;
const MINUTE: u64 = 60_000;
/// The first deadlines, which have passed when a thread is held, and later ones.
const FIRST: u64 = NOW + MINUTE;
const LATER: u64 = NOW + 60 * MINUTE;
/// A condition that does not hold after this time is taken for one that never will.
const PATIENCE: Duration = Duration::from_secs(300);

/// What runs did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Threads that were held.
    pub held: u64,
    /// Steps beside them.
    pub steps: u64,
    /// Runs in which the bytes that expire could be compared exactly.
    pub exact: u64,
}

impl Tally {
    /// Adds another one.
    pub fn add(&mut self, other: &Tally) {
        self.held += other.held;
        self.steps += other.steps;
        self.exact += other.exact;
    }
}

/// The value of each key, and until when it lasts.
type Model = BTreeMap<u32, (Vec<u8>, Option<u64>)>;

struct Run {
    disk: SimDisk,
    options: Options,
    background: bool,
    /// Deadlines are counted, and nothing that has expired is removed: the compaction is ended before.
    counted: bool,
    model: Model,
    random: Random,
    now: u64,
    tag: u32,
}

/// Lets a held thread go, whatever has happened.
struct LetGo(&'static Hold);

impl Drop for LetGo {
    fn drop(&mut self) {
        self.0.let_go();
    }
}

fn text(error: tophash::Error) -> String {
    error.to_string()
}

fn time(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
}

/// One history. Returns what it did.
///
/// # Errors
/// In words: what was lost, came back, or was left over.
pub fn run(seed: u64) -> Result<Tally, String> {
    let mut random = Random::new(seed);
    let moment = [Moment::LargeRead, Moment::RecordRead, Moment::DeadlineRead][random.below(3) as usize];
    // The background empties no segment here, because there is no bound.
    let background = moment == Moment::LargeRead && random.one_in(6);
    let counted = moment == Moment::DeadlineRead && random.one_in(2);
    // As long as its store, whose threads can come to it; a few bytes for each run.
    let hold: &'static Hold = Box::leak(Box::new(Hold::new(moment)));
    let (disk, tuning) = (SimDisk::untracked(blank(), seed), Tuning { background, hold: Some(hold), ..tiny() });
    disk.serve_threads();
    let options = Options::new().sync(SyncPolicy::Manual).tuning(tuning).segment_bytes(4096).memory_bytes(1 << 20);
    // A bound would make the other thread compact, which is held up as well.
    let options = options.checkpoint_bytes(1 << 20).log_ratio(f64::INFINITY).disk(std::sync::Arc::new(disk.clone()));
    let mut run = Run { disk, options, background, counted, model: Model::new(), random, now: NOW, tag: 0 };
    let told = |what: String| format!("seed {seed}, {moment:?}, background {background}: {what}");
    run.try_to(moment, hold).map_err(told)
}

impl Run {
    fn try_to(&mut self, moment: Moment, hold: &'static Hold) -> Result<Tally, String> {
        let mut store = self.options.open(STORE).map_err(text)?;
        self.fill(&store)?;
        if moment == Moment::DeadlineRead || self.random.one_in(2) {
            store.close().map_err(text)?;
            store = self.options.open(STORE).map_err(text)?;
            self.set(&store, 7, 60, None)?;
        }
        let mut tally = Tally::default();
        for _ in 0..2 {
            self.forward(FIRST.max(self.now) + 2_000);
            let (held, steps) = self.beside(&store, hold)?;
            self.compare(&store).map_err(|what| format!("afterwards, {what}"))?;
            tally.exact += self.compare_counted(&store)?;
            (tally.held, tally.steps) = (tally.held + held, tally.steps + steps);
        }
        store.compact().map_err(text)?;
        store.checkpoint().map_err(text)?;
        self.compare(&store).map_err(|what| format!("compacted, {what}"))?;
        tally.exact += self.compare_figures(&store)?;
        let image = self.disk.cached();
        kill(&self.disk, store);
        self.judge(image)?;
        Ok(tally)
    }

    fn forward(&mut self, to: u64) {
        self.now = to;
        self.disk.set_clock(to);
    }

    /// Segments with many dead records, expired and lasting ones, removals and a clear-record.
    fn fill(&mut self, store: &Store) -> Result<(), String> {
        for round in 0..2 {
            for k in 0..KEYS {
                let len = if k % 3 == 0 { 1100 + k } else { 20 + k * 5 };
                let until =
                    [Some(FIRST + u64::from(k) * 10), None, Some(FIRST), Some(LATER)][self.random.below(4) as usize];
                let until = until.filter(|&until| !self.counted || !is_large_len(len) || until == LATER);
                self.set(store, k, len, until)?;
            }
            if round == 0 && self.random.one_in(2) {
                store.clear().map_err(text)?;
                self.model.clear();
            }
            for _ in 0..6 {
                let k = self.random.below(u64::from(KEYS)) as u32;
                store.delete(key(k)).map_err(text)?;
                self.model.remove(&k);
            }
        }
        Ok(())
    }

    /// A thread compacts and is held; this one changes the store; the other one goes on to its end.
    fn beside(&mut self, store: &Store, hold: &'static Hold) -> Result<(u64, u64), String> {
        let background = self.background;
        hold.arm(self.random.below(8));
        let _let_go = LetGo(hold);
        let (mut held, mut steps) = (0, 0);
        std::thread::scope(|scope| {
            let calls = if self.counted { self.random.below(6) } else { u64::MAX };
            let worker = (!background).then(|| scope.spawn(move || compact(store, calls)));
            if background {
                // Nothing else tells the job that the clock has moved.
                self.set(store, 0, 30, None)?;
            }
            let ended = || worker.as_ref().map_or_else(|| self.is_tidy(store), |worker| worker.is_finished());
            let mut result = wait(|| hold.holds() || ended());
            if hold.holds() {
                held = 1;
                steps = 4 + self.random.below(16);
                result = result.and_then(|()| (0..steps).try_for_each(|_| self.step(store)));
            }
            hold.let_go();
            if background {
                result = result.and_then(|()| self.set(store, 1, 30, None));
                result = result.and_then(|()| wait(|| self.is_tidy(store)));
            }
            let done = worker.map_or(Ok(()), |worker| {
                worker.join().map_err(|_| "a panic of the held thread".to_string())?.map_err(text)
            });
            result.and(done)
        })?;
        Ok((held, steps))
    }

    fn set(&mut self, store: &Store, k: u32, len: u32, until: Option<u64>) -> Result<(), String> {
        self.tag += 1;
        let value = Value { len, tag: self.tag }.bytes();
        store.expiring(until.map(time)).set(key(k), &value).map_err(text)?;
        self.model.insert(k, (value, until));
        Ok(())
    }

    fn seen(&self, k: u32) -> Option<&(Vec<u8>, Option<u64>)> {
        self.model.get(&k).filter(|(_, until)| until.is_none_or(|until| until > self.now))
    }

    /// One change or call, whose outcome is compared.
    fn step(&mut self, store: &Store) -> Result<(), String> {
        let k = self.random.below(u64::from(KEYS)) as u32;
        let until = [None, Some(self.now + 1_000), Some(LATER)][self.random.below(3) as usize];
        let len = [20, 300, 1100 + k][self.random.below(3) as usize];
        let was_there = self.seen(k).is_some();
        let agree = |call: &str, found: bool| match found == was_there {
            true => Ok(()),
            false => Err(format!("{call} of key {k} says {found}")),
        };
        match self.random.below(16) {
            0..6 => self.set(store, k, len, until)?,
            6 => {
                agree("delete", store.delete(key(k)).map_err(text)?)?;
                self.model.remove(&k);
            }
            7 => {
                agree("remove", store.remove(key(k)).map_err(text)?.is_some())?;
                self.model.remove(&k);
            }
            8 => {
                agree("expire", store.expire(key(k), until.map(time)).map_err(text)?)?;
                self.model.get_mut(&k).filter(|_| was_there).into_iter().for_each(|(_, of)| *of = until);
            }
            9 => {
                agree("persist", store.persist(key(k)).map_err(text)?)?;
                self.model.get_mut(&k).filter(|_| was_there).into_iter().for_each(|(_, of)| *of = None);
            }
            10 => self.batch(store, k, len)?,
            11 => {
                let keys: Vec<_> = (k..k + 4).map(key).collect();
                store.remove_many(&keys).map_err(text)?;
                (k..k + 4).for_each(|k| _ = self.model.remove(&k));
            }
            12 => store.checkpoint().map_err(text)?,
            13 => store.sync().map_err(text)?,
            14 => {
                let to = self.now + self.random.below(3) * 1_000;
                self.forward(to);
            }
            _ if self.random.one_in(3) => {
                store.clear().map_err(text)?;
                self.model.clear();
            }
            _ => self.compare(store)?,
        }
        Ok(())
    }

    fn batch(&mut self, store: &Store, k: u32, len: u32) -> Result<(), String> {
        let mut batch = Batch::new();
        for k in k..(k + 3).min(KEYS) {
            self.tag += 1;
            let value = Value { len, tag: self.tag }.bytes();
            if self.random.one_in(3) {
                batch.remove(key(k));
                self.model.remove(&k);
            } else {
                batch.insert_expiring(key(k), &value, time(LATER));
                self.model.insert(k, (value, Some(LATER)));
            }
        }
        store.apply(&batch).map_err(text)
    }

    /// Every key, one by one and by iteration.
    fn compare(&self, store: &Store) -> Result<(), String> {
        let mut live = 0;
        for k in 0..KEYS {
            let expected = self.seen(k);
            let found = store.get(key(k)).map_err(text)?;
            if found.as_deref() != expected.map(|(value, _)| &value[..]) {
                let (now, then) = (found.map(|value| value.len()), expected.map(|(value, _)| value.len()));
                return Err(format!("key {k}: {now:?} bytes are there, {then:?} should be"));
            }
            let (found, until) = (store.expires_at(key(k)).map_err(text)?, expected.and_then(|(_, until)| *until));
            if found != until.map(time) {
                return Err(format!("key {k} expires at {found:?}, not at {until:?}"));
            }
            live += usize::from(expected.is_some());
        }
        let found = store.iter().count();
        if found == live { Ok(()) } else { Err(format!("{found} entries by iteration of {live}")) }
    }

    /// How many large values are there.
    fn large(&self) -> usize {
        let live = (0..KEYS).filter_map(|k| self.seen(k));
        live.filter(|(value, _)| is_large(value)).count()
    }

    /// True if no large value that has expired has a file any more. Those that were replaced wait for a checkpoint.
    fn is_tidy(&self, store: &Store) -> bool {
        store.checkpoint().is_ok() && large_files(&self.disk.cached()) == self.large()
    }

    /// After a compaction and a checkpoint, with nobody else at work. Returns 1 if the bytes that expire could be compared.
    fn compare_figures(&self, store: &Store) -> Result<u64, String> {
        let live: Vec<_> = (0..KEYS).filter_map(|k| Some((k, self.seen(k)?))).collect();
        let large = self.large();
        let (files, stats) = (large_files(&self.disk.cached()), store.stats().log);
        if files != large || stats.blobs != large as u64 {
            return Err(format!("{files} files of {large} large values, and {} are counted", stats.blobs));
        }
        // Some that have expired can be left in the last segment.
        if store.len() != live.len() as u64 {
            return Ok(0);
        }
        expiring(&stats, live.into_iter())
    }

    /// As long as no expired record was removed, each record with a deadline counts. Returns 1 if that could be compared.
    fn compare_counted(&self, store: &Store) -> Result<u64, String> {
        let stats = store.stats();
        if stats.compaction.expired_records > 0 || store.len() != self.model.len() as u64 {
            return Ok(0);
        }
        expiring(&stats.log, self.model.iter().map(|(&k, of)| (k, of)))
    }

    /// What the death of the process leaves: opened, closed, verified, and repaired without its index.
    fn judge(&self, image: Image) -> Result<(), String> {
        let on = |image: Image| {
            let disk = SimDisk::untracked(image, 3);
            disk.serve_threads();
            disk.set_clock(self.now);
            let options = self.options.clone().disk(std::sync::Arc::new(disk.clone()));
            (disk, options.tuning(Tuning { background: false, ..tiny() }))
        };
        let (disk, options) = on(image);
        let store = options.open(STORE).map_err(text)?;
        self.compare(&store).map_err(|what| format!("opened again, {what}"))?;
        store.close().map_err(text)?;
        let report = tophash::verify::verify_disk(&disk, STORE, tophash::Progress::ignore).map_err(text)?;
        if !report.is_clean() {
            return Err(format!("verify: {:?}", report.findings));
        }
        no_large_value_is_left(&report)?;
        let without = disk.cached().without(&Path::new(STORE).join("index")).ok_or("no index")?;
        let (disk, options) = on(without);
        let mended = Path::new(STORE).with_file_name("mended");
        tophash::repair::repair_disk(&disk, STORE, &mended, &options, tophash::Progress::ignore).map_err(text)?;
        self.compare(&options.open(&mended).map_err(text)?).map_err(|what| format!("repaired, {what}"))
    }
}

fn is_large(value: &[u8]) -> bool {
    is_large_len(value.len() as u32)
}

fn is_large_len(len: u32) -> bool {
    u64::from(len) > tiny().blob_bytes_min
}

/// Compacts until `calls` calls of its progress have come.
fn compact(store: &Store, mut calls: u64) -> tophash::Result<()> {
    let progress = |_: Progress| {
        let ends = calls == 0;
        calls = calls.saturating_sub(1);
        if ends { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    store.compact_with(progress).map(drop)
}

/// Compares the bytes that expire by the figures with those of records.
fn expiring<'m>(
    stats: &tophash::stats::LogStats,
    records: impl Iterator<Item = (u32, &'m (Vec<u8>, Option<u64>))>,
) -> Result<u64, String> {
    let bytes = records.filter(|(_, (_, until))| until.is_some()).map(|(k, (value, _))| {
        let value = if is_large(value) { 24 } else { value.len() };
        let header = if key(k).len() > 255 { 16 } else { 8 };
        (header + 8 + key(k).len() + value).next_multiple_of(8) as u64
    });
    let expected: u64 = bytes.sum();
    match stats.expiring_bytes == expected {
        true => Ok(1),
        false => Err(format!("{} bytes expire by the figures, {expected} do", stats.expiring_bytes)),
    }
}

/// Waits until a condition holds.
fn wait(mut holds: impl FnMut() -> bool) -> Result<(), String> {
    let started = std::time::Instant::now();
    while !holds() {
        if started.elapsed() > PATIENCE {
            return Err(format!("not within {PATIENCE:?}"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// The number of files of large values.
fn large_files(image: &Image) -> usize {
    let log = image.find(&Path::new(STORE).join("log-1")).and_then(|node| image.nodes[node as usize].as_dir());
    log.map_or(0, |log| log.keys().filter(|name| name.ends_with(".blob")).count())
}
