//! The crash layer: what a power failure can leave at every I/O boundary of a script, recovered and checked.
//!
//! Of each boundary, images are made: every subset of the pending changes where there are few; else none, all,
//! prefixes, each one lost, each one kept, and random subsets; and sectors torn in the middle. Equal images are
//! recovered once, and compared with what each boundary promised.
//!
//! Of each image: the store is opened and its content must be a prefix of the history that holds all that was
//! acknowledged. It is used and synced. Sometimes it is checked by `verify` before and after, closed and opened
//! again. Sometimes the disk is recorded all the while, and the power fails a second time at each boundary: then
//! exactly the same content must be recovered again.

mod choice;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tophash::Error;

pub use self::choice::{Depth, Fate, choices};
use crate::disk::SimDisk;
use crate::image::Image;
use crate::oracle::{History, Recovered, StateHash, entry_hash};
use crate::random::{Random, mix};
use crate::recorder::Boundary;
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
            Depth { exhaustive: 12, random: 64 * scale / 10, each: 64, torn: 128 }
        } else {
            Depth { exhaustive: 3, random: 2 * scale, each: 2, torn: 2 * scale }
        };
        let nested = if large {
            Depth { exhaustive: 6, random: 8, each: 8, torn: 4 }
        } else {
            Depth { exhaustive: 2, random: 1, each: 1, torn: 1 }
        };
        Settings {
            seed,
            threads,
            depth,
            nested,
            nested_one_in: if large { 128 } else { 64 },
            thorough_one_in: 16,
            boundary_one_in: if large { 1 } else { 4 },
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
        self.verified += other.verified;
        self.harmless += other.harmless;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "recoveries: {}, nested: {}, images: {}, torn: {}, distinct: {}, boundaries: {} ({} examined, {} of them \
             with every subset), verified: {}",
            self.recoveries,
            self.nested,
            self.images,
            self.torn,
            self.distinct,
            self.boundaries,
            self.examined,
            self.exhaustive,
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
    let (boundaries, met) = record(script, settings.seed);
    let layer = Layer {
        script,
        settings,
        history: History::of(script),
        seen: Mutex::new(HashMap::new()),
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
                    layer.examine(boundary, number as u64);
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
    history: History,
    /// What was recovered from each image.
    seen: Mutex<HashMap<u64, Recovered>>,
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
}

impl Origin<'_> {
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
    /// What a crash could leave during it, and the states that it went through.
    nested: Option<(Vec<Boundary>, History)>,
}

impl Layer<'_> {
    fn examine(&self, boundary: &Boundary, number: u64) {
        let mut random = Random::new(self.settings.seed ^ mix(number));
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
            self.image(&Origin { boundary, fates, history: &self.history, first: None }, &mut tally);
        });
        self.outcome.lock().tally.add(&tally);
    }

    /// One image: recovered, unless an equal one was.
    fn image(&self, origin: &Origin<'_>, tally: &mut Tally) {
        let pending = origin.boundary.pending.iter();
        let kept = pending.zip(origin.fates).filter_map(|(change, fate)| match fate {
            Fate::Lost => None,
            Fate::Kept => Some((change, None)),
            Fate::Torn(half) => Some((change, Some(*half))),
        });
        let image = Image::after_crash(&origin.boundary.durable, kept);
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
            let mut outcome = self.outcome.lock();
            outcome.violations.push(format!("{}: {what}\n{}", self.script.name, self.describe(origin)));
            if self.settings.stop_at_first || outcome.violations.len() >= VIOLATIONS_MAX {
                self.stop.store(true, Ordering::Relaxed);
            }
        }
    }

    fn recover(&self, image: Image, hash: u64, origin: &Origin<'_>, tally: &mut Tally) -> Result<(), String> {
        let choice = mix(hash ^ self.settings.seed);
        let how = How {
            seed: self.settings.seed ^ hash,
            interrupt: origin.first.is_none() && choice.is_multiple_of(self.settings.nested_one_in),
            thorough: (choice >> 32).is_multiple_of(self.settings.thorough_one_in),
            exists: origin.boundary.bounds.exists,
        };
        let mut examined = Examined::default();
        let attempt = catch_unwind(AssertUnwindSafe(|| {
            let recovered = self.open_and_use(image.clone(), how, origin.history, &mut examined)?;
            let result = origin.check(&recovered, &image);
            self.seen.lock().insert(hash, recovered);
            result
        }));
        tally.add(&examined.tally);
        attempt.unwrap_or_else(|panic| Err(format!("panic: {}", panic_text(&*panic))))?;
        if let Some((boundaries, history)) = examined.nested {
            let mut random = Random::new(how.seed);
            for boundary in &boundaries {
                choices(boundary, self.settings.nested, &mut random, &mut |fates| {
                    if !self.stop.load(Ordering::Relaxed) {
                        self.image(&Origin { boundary, fates, history: &history, first: Some(origin) }, tally);
                    }
                });
            }
        }
        Ok(())
    }

    /// Opens the store of an image, reads it, uses it, and lets the process die. Returns what was recovered.
    fn open_and_use(
        &self,
        image: Image,
        how: How,
        history: &History,
        examined: &mut Examined,
    ) -> Result<Recovered, String> {
        let How { seed, interrupt, thorough, exists } = how;
        let path = Path::new(STORE);
        if thorough {
            self.verify(&SimDisk::untracked(image.clone(), seed), !exists, examined)?;
        }
        let disk = if interrupt { SimDisk::new(image, seed) } else { SimDisk::untracked(image, seed) };
        if interrupt {
            disk.record();
            disk.progress(|now| now.exists = exists);
        }
        let options = self.script.options(&disk);
        let store = options.open(path).map_err(|error| format!("open: {error}"))?;
        disk.progress(|now| now.exists = true);
        let mut recovered = history.read(&store)?;
        // Equal images of other boundaries are compared with the script's own history.
        self.history.look_closer(&mut recovered, &store)?;

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
            self.verify(&disk, false, examined)?;
            let store = options.open(path).map_err(|error| format!("open after a clean end: {error}"))?;
            expect(&later, &store, state)?;
            kill(&disk, store);
        } else {
            expect(&later, &store, state)?;
            kill(&disk, store);
        }
        if interrupt {
            examined.nested = Some((disk.recorded().0, later));
        }
        Ok(recovered)
    }

    /// The crash, in words: where it happened, and what was lost and torn.
    fn describe(&self, origin: &Origin<'_>) -> String {
        let Origin { boundary, fates, first, .. } = origin;
        let (bounds, call) = (boundary.bounds, boundary.call);
        let mut text = match first {
            Some(first) => self.describe(first) + "  and a crash during its recovery",
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
        match tophash::verify_disk(disk, STORE, &mut |_, _| true) {
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

/// How an image is examined.
#[derive(Clone, Copy)]
struct How {
    seed: u64,
    /// Recorded, and interrupted at each boundary.
    interrupt: bool,
    /// Verified, closed, opened again.
    thorough: bool,
    /// There must be a store.
    exists: bool,
}

fn expect(history: &History, store: &tophash::Store, state: StateHash) -> Result<(), String> {
    let found = history.read(store)?;
    if found.hash == state { Ok(()) } else { Err("after the recovery, what was written is not what is read".into()) }
}

/// The text of a panic.
#[must_use]
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_string())).unwrap_or_else(|| "?".into())
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
