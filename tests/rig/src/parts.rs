//! The parts layer: long tails of the log, replayed by several threads in orders that a busy machine may choose.
//!
//! A store is filled and left as the death of its process leaves it: young tables, which double again and again while
//! their tail is replayed, and older ones with a checkpoint behind them; removals, clears, batches, large values.
//! Then it is opened once for each [`PartOrder`], for writing and for reading only. Each recovery must find exactly
//! what was written, `verify` must find nothing, and the next checkpoint must keep it so.

use std::collections::BTreeMap;

use tophash::{Batch, PartOrder, PartPlan, Store, SyncPolicy, Tuning};

use crate::disk::SimDisk;
use crate::image::Image;
use crate::oracle::Content;
use crate::random::Random;
use crate::run::{STORE, blank};
use crate::script::{Script, Value};
use crate::scripts;

/// What a store is like when its process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing but inserts, and no checkpoint yet.
    Young,
    /// Changes of all kinds, and no checkpoint yet.
    Mixed,
    /// The same behind a checkpoint of a table that has grown.
    Older,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 3] = [Kind::Young, Kind::Mixed, Kind::Older];
}

/// A store that was left behind.
#[derive(Debug, Clone)]
pub struct Left {
    /// What it is like.
    pub kind: Kind,
    /// Records of its tail.
    pub records: u64,
    script: Script,
    image: Image,
    content: Content,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Recoveries.
    pub recoveries: u64,
    /// Of them for reading only.
    pub read_only: u64,
    /// Records that they replayed.
    pub records: u64,
    /// Doublings of the table during them.
    pub doublings: u64,
}

impl Tally {
    /// Adds another one.
    pub fn add(&mut self, other: &Tally) {
        self.recoveries += other.recoveries;
        self.read_only += other.read_only;
        self.records += other.records;
        self.doublings += other.doublings;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Tally { recoveries, read_only, records, doublings } = self;
        write!(f, "recoveries {recoveries}, read-only {read_only}, records {records}, doublings {doublings}")
    }
}

/// The orders in which so many parts are made to begin.
#[must_use]
pub fn orders(parts: usize) -> Vec<PartOrder> {
    use PartOrder::{AtOnce, Early, FirstFirst, LastFirst, Late, NoThreadFor, NoThreads};
    let each = (0..parts).flat_map(|part| [Late(part), Early(part)]);
    let refused = (1..parts).map(NoThreadFor);
    [AtOnce, FirstFirst, LastFirst, NoThreads].into_iter().chain(each).chain(refused).collect()
}

fn key(number: u64) -> Vec<u8> {
    format!("key {number}").into_bytes()
}

/// Fills a store with so many changes, and lets its process die.
///
/// # Errors
/// In words, if a change fails.
pub fn leave(kind: Kind, changes: u64, seed: u64) -> Result<Left, String> {
    let mut random = Random::new(seed);
    // Pages as they are shipped, where there is enough for them to double; or small ones. As many stripes as are shipped.
    let shipped = Tuning { hash_key: Some((11, 13)), background: false, ..Tuning::default() };
    let small = Tuning { stripes_log2_max: shipped.stripes_log2_max, ..scripts::tiny() };
    let tuning = if changes >= 10_000 && random.one_in(2) { shipped } else { small };
    let script = Script {
        name: "a long tail",
        sync: SyncPolicy::Manual,
        tuning: Tuning { blob_bytes_min: 1 << 10, ..tuning },
        segment_bytes: 256 << 10,
        checkpoint_bytes: 1 << 30,
        log_ratio: f64::INFINITY,
        ops: Vec::new(),
    };
    let disk = SimDisk::untracked(blank(), seed);
    let text = |error: tophash::Error| format!("{kind:?}, filling: {error}");
    let store = script.options(&disk).memory_bytes(64 << 20).open(STORE).map_err(text)?;
    let mut content = Content::new();
    for n in 0..changes {
        if kind == Kind::Older && n == changes / 4 {
            store.checkpoint().map_err(text)?;
        }
        match kind {
            Kind::Young => {
                let value = Value { len: 10, tag: n as u32 }.bytes();
                store.insert(key(n), &value).map_err(text)?;
                content.insert(key(n), value);
            }
            Kind::Mixed | Kind::Older => change(&store, &mut content, n, changes, &mut random).map_err(text)?,
        }
    }
    let records = store.len();
    if records != content.len() as u64 {
        return Err(format!("{kind:?}: {records} records of {}", content.len()));
    }
    let image = disk.cached();
    crate::run::kill(&disk, store);
    Ok(Left { kind, records: changes, script, image, content })
}

fn change(store: &Store, content: &mut Content, n: u64, of: u64, random: &mut Random) -> tophash::Result<()> {
    let chosen = key(random.below(of / 2 + 1));
    let len = if random.one_in(500) { 1100 } else { random.below(30) as u32 };
    let value = Value { len, tag: n as u32 }.bytes();
    match random.below(40) {
        // Once in the second third, so that there is much on both sides of it.
        _ if n == of / 2 => {
            store.clear()?;
            content.clear();
        }
        0..10 => {
            store.remove(&chosen)?;
            content.remove(&chosen);
        }
        10 => {
            let mut batch = Batch::new();
            for i in 0..random.below(12) {
                let key = key(random.below(of / 2 + 1));
                if random.one_in(3) {
                    batch.remove(&key);
                    content.remove(&key);
                } else {
                    let value = Value { len: 12, tag: (n ^ i << 20) as u32 }.bytes();
                    batch.insert(&key, &value);
                    content.insert(key, value);
                }
            }
            store.apply(&batch)?;
        }
        _ => {
            store.insert(&chosen, &value)?;
            content.insert(chosen, value);
        }
    }
    Ok(())
}

impl Left {
    /// Recovers the store by so many parts in one order.
    ///
    /// # Errors
    /// In words: what was lost, or came back.
    pub fn recover(&self, plan: PartPlan, read_only: bool) -> Result<Tally, String> {
        self.try_to(plan, read_only).map_err(|what| {
            let how = if read_only { "reading only" } else { "writing" };
            format!("{:?}, {} changes, {plan:?}, for {how}: {what}", self.kind, self.records)
        })
    }

    fn try_to(&self, plan: PartPlan, read_only: bool) -> Result<Tally, String> {
        let disk = SimDisk::untracked(self.image.clone(), 7);
        let script = Script { tuning: Tuning { parts: plan, ..self.script.tuning }, ..self.script.clone() };
        let options = script.options(&disk).memory_bytes(64 << 20);
        let text = |error: tophash::Error| error.to_string();
        let store = options.clone().read_only(read_only).open(STORE).map_err(text)?;
        self.compare(&store)?;
        let stats = store.stats();
        let (records, doublings) = (stats.recovery.replayed_records, stats.index.growths);
        let tally = Tally { recoveries: 1, read_only: u64::from(read_only), records, doublings };
        if read_only {
            return Ok(tally);
        }
        store.close().map_err(text)?;
        let report = tophash::verify::verify_disk(&disk, STORE, tophash::Progress::ignore).map_err(text)?;
        if !report.is_clean() {
            return Err(format!("verify: {:?}", report.findings));
        }
        self.compare(&options.open(STORE).map_err(text)?).map_err(|what| format!("closed and opened: {what}"))?;
        Ok(tally)
    }

    fn compare(&self, store: &Store) -> Result<(), String> {
        let mut lost = 0;
        for (key, value) in &self.content {
            let found = store.get(key).map_err(|error| error.to_string())?;
            lost += u64::from(found.as_deref() != Some(&value[..]));
        }
        let found: BTreeMap<_, _> = crate::oracle::content_of(store)?;
        let back = found.keys().filter(|&key| !self.content.contains_key(key)).count();
        if lost > 0 || back > 0 || found != self.content || store.len() != found.len() as u64 {
            let (len, of) = (store.len(), self.content.len());
            return Err(format!(
                "{lost} of {of} keys are lost or old, {back} have come back, {} by iteration, {len} by len",
                found.len()
            ));
        }
        Ok(())
    }
}
