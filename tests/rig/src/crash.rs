//! The crash layer: what a power failure can leave at every I/O boundary of a script, recovered and checked.
//!
//! Of each boundary, images are made: every subset of the pending changes where there are few; else none, all,
//! prefixes, each one lost, each one kept, and random subsets; and sectors torn in the middle. Equal images are
//! recovered once, and compared with what each boundary promised.
//!
//! Of each image: the store is opened and its content must be a prefix of the history that holds all that was
//! acknowledged. It is used and synced. Sometimes it is checked by `verify` before and after, closed and opened
//! again. Sometimes the disk is recorded all the while, and the power fails a second time at each boundary: then
//! exactly the same content must be recovered again. Some images are repaired, too: see `repaired.rs`. What happens if
//! first only the process dies is in `killed.rs`; what becomes of the index being lost while segments are freed, in `freed.rs`.

mod choice;
mod freed;
mod killed;
mod repaired;

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tophash::Error;

pub use self::choice::{Depth, Fate, after, choices};
pub use self::freed::run as run_freed;
pub use self::killed::run as run_killed;
use crate::disk::SimDisk;
use crate::image::Image;
use crate::oracle::{Content, History, Recovered, StateHash, content_of, entry_hash};
use crate::random::{Random, mix};
use crate::recorder::{Boundary, Bounds};
use crate::run::{STORE, kill, record};
use crate::script::Script;

/// How thoroughly scripts are checked.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The seed of every random choice.
    pub seed: u64,
    /// Threads at work.
    pub threads: usize,
    /// Of the boundaries of the script.
    pub depth: Depth,
    /// Of the boundaries of recoveries.
    pub nested: Depth,
    /// One recovery in so many is recorded and interrupted in its turn.
    pub nested_one_in: u64,
    /// One in so many is verified, closed and opened again.
    pub thorough_one_in: u64,
    /// One boundary in so many is looked at.
    pub boundary_one_in: u64,
    /// One image in so many is repaired.
    pub repaired_one_in: u64,
    /// At one boundary in so many the process is killed, and what follows is interrupted.
    pub killed_one_in: u64,
    /// One boundary in so many of those that follow is looked at.
    pub followed_one_in: u64,
    /// The first violation ends the run.
    pub stop_at_first: bool,
}

impl Settings {
    /// Settings for a scale: 1 for a debug build's seconds, 10 for a release build's minutes.
    #[must_use]
    pub fn of_scale(scale: usize, seed: u64) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let large = scale >= 10;
        let depth = if large {
            Depth { exhaustive: 12, random: 64 * scale / 10, each: 64, torn: 128, tears: 4 }
        } else {
            Depth { exhaustive: 3, random: 2 * scale, each: 2, torn: 2 * scale, tears: 1 }
        };
        let nested = if large {
            Depth { exhaustive: 6, random: 8, each: 8, torn: 4, tears: 4 }
        } else {
            Depth { exhaustive: 2, random: 1, each: 1, torn: 1, tears: 1 }
        };
        Settings {
            seed,
            threads,
            depth,
            nested,
            nested_one_in: if large { 128 } else { 64 },
            thorough_one_in: 16,
            boundary_one_in: if large { 1 } else { 8 },
            repaired_one_in: if large { 48 } else { 64 },
            killed_one_in: if large { 8 } else { 240 },
            followed_one_in: if large { 1 } else { 6 },
            stop_at_first: false,
        }
    }
}

/// What a run did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// I/O boundaries met in the script.
    pub boundaries: u64,
    /// Those of them at which something differed from the one before, and that were looked at.
    pub examined: u64,
    /// Those of which every subset was made.
    pub exhaustive: u64,
    /// Images made.
    pub images: u64,
    /// Of them with a torn sector.
    pub torn: u64,
    /// Different ones: each was recovered.
    pub distinct: u64,
    /// Recoveries: of the distinct images, and of those of crashes during them.
    pub recoveries: u64,
    /// Of them of crashes during a recovery.
    pub nested: u64,
    /// Processes killed while the machine went on.
    pub killed: u64,
    /// Repairs, each compared with what opening the store yields.
    pub repaired: u64,
    /// Of them those that yielded something else, and said so.
    pub reported: u64,
    /// Checks by `verify`.
    pub verified: u64,
    /// Findings of them that are marked as harmless.
    pub harmless: u64,
}

impl Tally {
    /// Adds another one.
    pub fn add(&mut self, other: &Tally) {
        self.boundaries += other.boundaries;
        self.examined += other.examined;
        self.exhaustive += other.exhaustive;
        self.images += other.images;
        self.torn += other.torn;
        self.distinct += other.distinct;
        self.recoveries += other.recoveries;
        self.nested += other.nested;
        self.killed += other.killed;
        self.repaired += other.repaired;
        self.reported += other.reported;
        self.verified += other.verified;
        self.harmless += other.harmless;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "recoveries: {}, nested: {}, images: {}, torn: {}, distinct: {}, boundaries: {} ({} examined, {} of them \
             with every subset), killed: {}, repaired: {} ({} of them with a reported loss), verified: {}",
            self.recoveries,
            self.nested,
            self.images,
            self.torn,
            self.distinct,
            self.boundaries,
            self.examined,
            self.exhaustive,
            self.killed,
            self.repaired,
            self.reported,
            self.verified
        )
    }
}

/// What a script's run came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What it did.
    pub tally: Tally,
    /// What was wrong, in words.
    pub violations: Vec<String>,
}

/// Violations that are told; more are not looked for.
const VIOLATIONS_MAX: usize = 5;

/// Runs one script through the crash layer.
#[must_use]
pub fn run(script: &Script, settings: &Settings) -> Outcome {
    each_boundary(script, settings, |layer, boundary, number| layer.examine(boundary, number))
}

/// A number of the script's own. Where all scripts chose the same boundaries by their numbers, one seed in thirty chose none
/// of a few hundred, and so none in any script.
fn own_of(script: &Script) -> u64 {
    script.name.bytes().fold(script.ops.len() as u64, |own, byte| mix(own ^ u64::from(byte)))
}

/// Does something at each boundary of a script, in several threads.
fn each_boundary(script: &Script, settings: &Settings, examine: fn(&Layer<'_>, &Boundary, u64)) -> Outcome {
    let (boundaries, met) = record(script, settings.seed);
    let layer = Layer {
        script,
        settings,
        seed: mix(settings.seed ^ own_of(script)),
        history: History::of(script),
        seen: Mutex::new(HashMap::new()),
        repaired_before: Mutex::new(HashSet::new()),
        outcome: Mutex::new(Outcome::default()),
        stop: AtomicBool::new(false),
    };
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..settings.threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(boundary) = boundaries.get(number) else { return };
                    if layer.stop.load(Ordering::Relaxed) {
                        return;
                    }
                    examine(&layer, boundary, number as u64);
                }
            });
        }
    });
    let mut outcome = layer.outcome.into_inner();
    outcome.tally.boundaries = met;
    outcome
}

struct Layer<'s> {
    script: &'s Script,
    settings: &'s Settings,
    /// The seed of this script's choices of boundaries.
    seed: u64,
    history: History,
    /// What was recovered from each image.
    seen: Mutex<HashMap<u64, Recovered>>,
    /// Images of stores that were about to free segments, and whose repair was looked at.
    repaired_before: Mutex<HashSet<u64>>,
    outcome: Mutex<Outcome>,
    stop: AtomicBool,
}

/// Where an image comes from, and what is known about it.
#[derive(Clone, Copy)]
struct Origin<'o> {
    boundary: &'o Boundary,
    fates: &'o [Fate],
    history: &'o History,
    /// The crash during whose recovery this one happened.
    first: Option<&'o Origin<'o>>,
    /// Only the process died: everything that it had done is seen by the next one, and can still be lost.
    killed: bool,
}

impl Origin<'_> {
    /// True if a key can have a value, or none, that no power failure had to keep: of a step that was not acknowledged as
    /// durable, of this run or of the one before.
    fn perhaps(&self, key: &[u8], value: Option<&[u8]>) -> bool {
        let bounds = self.boundary.bounds;
        self.history.had(key, value, bounds.durable, bounds.started)
            || self.first.is_some_and(|first| first.perhaps(key, value))
    }

    /// Nothing was lost, as when only the process dies.
    fn is_whole(&self) -> bool {
        self.fates.iter().all(|&fate| fate == Fate::Kept)
    }

    fn check(&self, recovered: &Recovered, image: &Image) -> Result<(), String> {
        if self.boundary.bounds.exists && image.find(&Path::new(STORE).join("index")).is_none() {
            return Err("the store is gone".into());
        }
        self.history.check(recovered, self.boundary.bounds, self.is_whole())
    }
}

/// What one recovery did besides.
#[derive(Default)]
struct Examined {
    tally: Tally,
    /// What a crash could leave during it.
    nested: Option<Nested>,
    /// What was recovered, if it is to be compared with a repair.
    content: Option<Content>,
}

/// What a crash could leave during a recovery,
struct Nested {
    /// up to the moment at which the store was open,
    opening: Vec<Boundary>,
    /// and after it.
    using: Vec<Boundary>,
    /// The states that it went through once it was open.
    history: History,
}

impl Layer<'_> {
    fn examine(&self, boundary: &Boundary, number: u64) {
        let mut random = Random::new(self.seed ^ mix(number));
        if !random.one_in(self.settings.boundary_one_in) {
            return;
        }
        let mut tally = Tally { examined: 1, ..Tally::default() };
        let depth = self.settings.depth;
        tally.exhaustive += u64::from(boundary.pending.len() <= depth.exhaustive);
        choices(boundary, depth, &mut random, &mut |fates| {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            tally.images += 1;
            tally.torn += u64::from(fates.iter().any(|fate| matches!(fate, Fate::Torn(_))));
            self.image(&Origin { boundary, fates, history: &self.history, first: None, killed: false }, &mut tally);
        });
        self.outcome.lock().tally.add(&tally);
    }

    /// One image: recovered, unless an equal one was.
    fn image(&self, origin: &Origin<'_>, tally: &mut Tally) {
        let image = after(origin.boundary, origin.fates);
        let hash = image.hash();
        let known = self.seen.lock().get(&hash).cloned();
        let result = match known {
            Some(recovered) => origin.check(&recovered, &image),
            None => {
                tally.distinct += u64::from(origin.first.is_none());
                tally.nested += u64::from(origin.first.is_some());
                tally.recoveries += 1;
                self.recover(image, hash, origin, tally)
            }
        };
        if let Err(what) = result {
            self.violation(&what, origin);
        }
    }

    fn violation(&self, what: &str, origin: &Origin<'_>) {
        let mut outcome = self.outcome.lock();
        outcome.violations.push(format!("{}: {what}\n{}", self.script.name, self.describe(origin)));
        if self.settings.stop_at_first || outcome.violations.len() >= VIOLATIONS_MAX {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn recover(&self, image: Image, hash: u64, origin: &Origin<'_>, tally: &mut Tally) -> Result<(), String> {
        let choice = mix(hash ^ self.settings.seed);
        let how = How {
            seed: self.settings.seed ^ hash,
            interrupt: origin.first.is_none() && choice.is_multiple_of(self.settings.nested_one_in),
            thorough: (choice >> 32).is_multiple_of(self.settings.thorough_one_in),
            repaired: (choice >> 16).is_multiple_of(self.settings.repaired_one_in),
            compacted: false,
            bounds: Bounds { exists: origin.boundary.bounds.exists, ..Bounds::default() },
        };
        let mut examined = Examined::default();
        let attempt = caught(|| {
            if how.thorough {
                self.verify(&SimDisk::untracked(image.clone(), how.seed), !how.bounds.exists, &mut examined)?;
            }
            let disk = if how.interrupt { SimDisk::new } else { SimDisk::untracked };
            let recovered = self.open_and_use(&disk(image.clone(), how.seed), how, origin.history, &mut examined)?;
            if let Some(content) = examined.content.take() {
                self.repair(&image, how.seed, &content, origin, &mut examined.tally)?;
            }
            let result = origin.check(&recovered, &image);
            self.seen.lock().insert(hash, recovered);
            result
        });
        tally.add(&examined.tally);
        attempt?;
        if let Some(Nested { opening, using, history }) = examined.nested {
            // What a crash has left is on the disk: it does not change any more until the store is open.
            for boundaries in [&opening, &using] {
                self.interrupt(boundaries, &history, origin, 1, tally);
            }
        }
        Ok(())
    }

    /// The power fails at each boundary of what follows a crash, or at one in so many.
    fn interrupt(
        &self,
        boundaries: &[Boundary],
        history: &History,
        first: &Origin<'_>,
        one_in: u64,
        tally: &mut Tally,
    ) {
        let mut random = Random::new(self.settings.seed ^ boundaries.len() as u64);
        for boundary in boundaries {
            if !random.one_in(one_in) {
                continue;
            }
            choices(boundary, self.settings.nested, &mut random, &mut |fates| {
                if !self.stop.load(Ordering::Relaxed) {
                    self.image(&Origin { boundary, fates, history, first: Some(first), killed: false }, tally);
                }
            });
        }
    }

    /// Opens the store of a disk, reads it, uses it, and lets the process die. Returns what was recovered.
    fn open_and_use(
        &self,
        disk: &SimDisk,
        how: How,
        history: &History,
        examined: &mut Examined,
    ) -> Result<Recovered, String> {
        let How { interrupt, thorough, .. } = how;
        let path = Path::new(STORE);
        if interrupt {
            disk.record();
            disk.progress(|now| *now = how.bounds);
        }
        let options = self.script.options(disk);
        if how.compacted {
            match tophash::compact::compact_disk(
                &options,
                path,
                &tophash::compact::Options::new(),
                tophash::Progress::ignore,
            ) {
                Err(Error::NotFound { .. }) if !how.bounds.exists => {}
                result => _ = result.map_err(|error| format!("offline compaction: {error}"))?,
            }
        }
        let store = options.open(path).map_err(|error| format!("open: {error}"))?;
        let opening = if interrupt { disk.recorded().0 } else { Vec::new() };
        if interrupt {
            disk.record();
            disk.progress(|now| now.exists = true);
        }
        let mut recovered = history.read(&store)?;
        // Equal images of other boundaries are compared with the script's own history.
        self.history.look_closer(&mut recovered, &store)?;
        if how.repaired {
            examined.content = Some(content_of(&store)?);
        }

        // The store must be good for more.
        let (key, value) = (b"after the crash".to_vec(), vec![7; 40]);
        let mut keys = history.keys.clone();
        if keys.last() != Some(&key) {
            keys.push(key.clone());
        }
        let mut later = History::new(recovered.hash, keys);
        let begin = |n: u32| disk.progress(|now| now.started = n);
        let end = |n: u32, durable: bool| {
            disk.progress(|now| {
                now.returned = n;
                if durable {
                    now.durable = n;
                }
            });
            disk.boundary();
        };
        let failed = |error: Error| format!("use after the recovery: {error}");
        let mut state = recovered.hash;
        let always = self.script.sync == tophash::SyncPolicy::Always;

        begin(1);
        let old = store.insert(&key, &value).map_err(failed)?;
        state = state.wrapping_sub(old.map_or(0, |old| entry_hash(&key, &old)));
        state = state.wrapping_add(entry_hash(&key, &value));
        later.push(state);
        end(1, always);
        begin(2);
        let first = store.keys().find(|found| found.as_ref().is_ok_and(|found| **found != key[..]));
        if let Some(first) = first.transpose().map_err(failed)? {
            let old = store.remove(&*first).map_err(failed)?.ok_or("an entry of the iteration cannot be removed")?;
            state = state.wrapping_sub(entry_hash(&first, &old));
        }
        later.push(state);
        end(2, always);
        begin(3);
        store.sync().map_err(failed)?;
        later.push(state);
        end(3, true);
        if thorough {
            begin(4);
            later.push(state);
            store.close().map_err(|error| format!("close after the recovery: {error}"))?;
            end(4, true);
            self.verify(disk, false, examined)?;
            self.closed(disk)?;
            let store = options.open(path).map_err(|error| format!("open after a clean end: {error}"))?;
            expect(&later, &store, state)?;
            kill(disk, store);
        } else {
            expect(&later, &store, state)?;
            kill(disk, store);
        }
        if interrupt {
            examined.nested = Some(Nested { opening, using: disk.recorded().0, history: later });
        }
        Ok(recovered)
    }

    /// The crash, in words: where it happened, and what was lost and torn.
    fn describe(&self, origin: &Origin<'_>) -> String {
        let Origin { boundary, fates, first, .. } = origin;
        let (bounds, call) = (boundary.bounds, boundary.call);
        let mut text = match first {
            Some(first) => self.describe(first) + "  and a crash in what follows",
            None if origin.killed => "  a killed process".to_string(),
            None => "  a crash".to_string(),
        };
        text += &format!(" before {call:?}, {bounds:?}");
        let step = (bounds.started as usize).checked_sub(1).and_then(|i| self.script.ops.get(i));
        if let Some(op) = step.filter(|_| first.is_none()) {
            text += &format!(", in step {op:?}");
        }
        text += ":\n";
        let told = text.len() + 3000;
        for (change, fate) in boundary.pending.iter().zip(*fates) {
            if text.len() > told {
                text += "    ...\n";
                break;
            }
            let name = name_of(boundary, change.node);
            text += &match &change.kind {
                crate::image::ChangeKind::Sector(sector, _) => format!("    {fate:?}: {name}, sector {sector}\n"),
                other => format!("    {fate:?}: {name}, {other:?}\n"),
            };
        }
        text
    }

    /// Checks a disk by `verify`. There may be no store if the power failed during its creation.
    fn verify(&self, disk: &SimDisk, may_be_missing: bool, examined: &mut Examined) -> Result<(), String> {
        examined.tally.verified += 1;
        match tophash::verify::verify_disk(disk, STORE, tophash::Progress::ignore) {
            Ok(report) if report.is_clean() => {
                examined.tally.harmless += report.harmless_total;
                Ok(())
            }
            Ok(report) => {
                let bad: Vec<_> = report.findings.iter().filter(|finding| !finding.harmless).take(3).collect();
                Err(format!("verify: {bad:?}"))
            }
            Err(Error::NotFound { .. }) if may_be_missing => Ok(()),
            Err(error) => Err(format!("verify: {error}")),
        }
    }
}

impl Layer<'_> {
    /// What a store leaves that was closed: no file of a large value but those that records link.
    fn closed(&self, disk: &SimDisk) -> Result<(), String> {
        let report = tophash::verify::verify_disk(disk, STORE, tophash::Progress::ignore);
        no_large_value_is_left(&report.map_err(|error| format!("verify: {error}"))?)
    }
}

/// Of a store that was closed.
///
/// # Errors
/// In words, if there is a file of a large value that no record links, or the store counts others than there are.
pub fn no_large_value_is_left(report: &tophash::verify::Report) -> Result<(), String> {
    let of_blobs: Vec<_> = report.findings.iter().filter(|finding| finding.kind.starts_with("blob-")).take(3).collect();
    if of_blobs.is_empty() && report.leftover_blobs == 0 {
        return Ok(());
    }
    Err(format!("closed, with {} large values that wait to be unlinked, and {of_blobs:?}", report.leftover_blobs))
}

/// How an image is examined.
#[derive(Clone, Copy)]
struct How {
    seed: u64,
    /// Recorded, and interrupted at each boundary.
    interrupt: bool,
    /// Verified, closed, opened again.
    thorough: bool,
    /// Compared with a repair.
    repaired: bool,
    /// Compacted offline before it is opened.
    compacted: bool,
    /// What was promised before.
    bounds: Bounds,
}

fn expect(history: &History, store: &tophash::Store, state: StateHash) -> Result<(), String> {
    let found = history.read(store)?;
    if found.hash == state { Ok(()) } else { Err("after the recovery, what was written is not what is read".into()) }
}

/// The text of a panic.
fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_string())).unwrap_or_else(|| "?".into())
}

/// What the work says; a panic in words.
///
/// # Errors
/// Those of the work, and a panic.
pub fn caught<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(format!("panic: {}", panic_text(&*panic))))
}

fn name_of(boundary: &Boundary, node: u32) -> String {
    let linked = boundary.pending.iter().find_map(|change| match &change.kind {
        crate::image::ChangeKind::Link(name, target) if *target == node => Some(name.to_string()),
        _ => None,
    });
    let dirs = boundary.durable.iter().filter_map(crate::image::Node::as_dir);
    let durable = dirs.flatten().find(|&(_, &target)| target == node).map(|(name, _)| name.to_string());
    durable.or(linked).unwrap_or_else(|| format!("node {node}"))
}
