//! The demonstration's steps: what is done to the store, and the comparison after each.
//!
//! The files on disk are the reference, read again for every comparison. A file may change while the demonstration
//! runs; a hash of what the store was given tells that from a store that returned something else.

use std::collections::HashMap;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::time::{Duration, Instant};

use tophash::{Result, Store};

use super::report::Step;
use super::source::SourceFile;
use crate::format::escape;
use crate::{interrupt, output, progress};

/// Every so many-th file is updated, and every so many-th of the others removed.
const UPDATE_EVERY: usize = 4;
const REMOVE_EVERY: usize = 5;

/// Differences that are described; the rest is counted.
const LISTED_MAX: usize = 10;

/// What the store should hold for a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Its contents.
    Kept,
    /// Its contents, changed by [`updated`].
    Updated,
    /// Nothing any more.
    Removed,
    /// Nothing: it could not be read.
    Unread,
}

struct Tracked {
    file: SourceFile,
    state: State,
    /// Hash of the bytes that the store was given last.
    hash: u64,
}

/// The files, what the store should hold for each, and what was found different.
pub struct Demo {
    files: Vec<Tracked>,
    /// Files that could not be read.
    pub unreadable: u64,
    /// Files that other programs changed during the demonstration.
    pub changed_meanwhile: u64,
    /// Records that are not what they should be.
    pub differences: u64,
    /// The first of them, described.
    pub differences_first: Vec<String>,
}

/// Time inside the store's calls only: reading the files is not what is being shown.
#[derive(Default)]
struct Meter {
    records: u64,
    bytes: u64,
    time: Duration,
}

impl Meter {
    fn time<R>(&mut self, call: impl FnOnce() -> R) -> R {
        let started = Instant::now();
        let result = call();
        self.time += started.elapsed();
        result
    }

    fn count(&mut self, bytes: usize) {
        self.records += 1;
        self.bytes += bytes as u64;
    }

    fn step(self, name: &'static str, checked: String) -> Step {
        Step { name, records: self.records, bytes: self.bytes, seconds: self.time.as_secs_f64(), checked }
    }
}

impl Demo {
    /// Nothing is stored yet.
    pub fn new(files: Vec<SourceFile>) -> Self {
        let files = files.into_iter().map(|file| Tracked { file, state: State::Unread, hash: 0 }).collect();
        Demo { files, unreadable: 0, changed_meanwhile: 0, differences: 0, differences_first: Vec::new() }
    }

    /// Stores every file.
    pub fn fill(&mut self, store: &Store) -> anyhow::Result<Step> {
        let mut meter = Meter::default();
        let bar = progress::records(self.files.len() as u64, "store");
        for i in 0..self.files.len() {
            interrupt::check()?;
            bar.inc(1);
            let Ok(contents) = fs::read(&self.files[i].file.path) else {
                self.unreadable += 1;
                continue;
            };
            let key = &self.files[i].file.key;
            let previous = meter.time(|| store.insert(key, &contents).map(|previous| previous.is_some()))?;
            meter.count(contents.len());
            self.files[i].state = State::Kept;
            self.files[i].hash = hash(&contents);
            if previous {
                self.differs(i, "was in the new store before it was stored");
            }
        }
        let stored = meter.records;
        if store.len() != stored {
            self.different(format!("the store counts {}, stored: {stored}", output::records(store.len())));
        }
        Ok(meter.step("store", "each key is new, the count is right".into()))
    }

    /// Reads every record back and compares it with its file.
    pub fn read_back(&mut self, name: &'static str, store: &Store) -> anyhow::Result<Step> {
        let mut meter = Meter::default();
        let bar = progress::records(self.files.len() as u64, name);
        let (mut present, mut absent) = (0, 0);
        for i in 0..self.files.len() {
            interrupt::check()?;
            bar.inc(1);
            let key = &self.files[i].file.key;
            let value = meter.time(|| store.get(key))?;
            match (self.files[i].state, value) {
                (State::Kept | State::Updated, Some(value)) => {
                    meter.count(value.len());
                    present += 1;
                    self.compare(i, &value);
                }
                (State::Kept | State::Updated, None) => self.differs(i, "is missing"),
                (State::Removed | State::Unread, Some(_)) => self.differs(i, "is there and should not be"),
                (State::Removed | State::Unread, None) => absent += 1,
            }
        }
        Ok(meter.step(name, format!("{present} compared with the files, {absent} absent")))
    }

    /// Gives every fourth record a new value.
    pub fn update(&mut self, store: &Store) -> anyhow::Result<Step> {
        let mut meter = Meter::default();
        for i in (0..self.files.len()).step_by(UPDATE_EVERY) {
            interrupt::check()?;
            if self.files[i].state != State::Kept {
                continue;
            }
            let Ok(contents) = fs::read(&self.files[i].file.path) else {
                self.changed_meanwhile += 1;
                continue;
            };
            let value = updated(&contents);
            let key = &self.files[i].file.key;
            let previous = meter.time(|| store.insert(key, &value))?;
            meter.count(value.len());
            match previous {
                Some(previous) => self.compare(i, &previous),
                None => self.differs(i, "was missing when it was updated"),
            }
            self.files[i].state = State::Updated;
            self.files[i].hash = hash(&value);
        }
        Ok(meter.step("update", "each previous value is right".into()))
    }

    /// Removes every fifth of the records that were not updated: half of them one by one, half in one call.
    pub fn remove(&mut self, store: &Store) -> anyhow::Result<Step> {
        let mut meter = Meter::default();
        let kept = (0..self.files.len()).filter(|&i| self.files[i].state == State::Kept);
        let victims: Vec<_> = kept.step_by(REMOVE_EVERY).collect();
        let (single, many) = victims.split_at(victims.len() / 2);
        for &i in single {
            interrupt::check()?;
            let key = &self.files[i].file.key;
            match meter.time(|| store.remove(key))? {
                Some(previous) => {
                    meter.count(previous.len());
                    self.compare(i, &previous);
                }
                None => self.differs(i, "was missing when it was removed"),
            }
        }
        let keys: Vec<_> = many.iter().map(|&i| &self.files[i].file.key).collect();
        let removed = meter.time(|| store.remove_many(&keys))?;
        meter.records += removed;
        if removed != many.len() as u64 {
            self.different(format!("remove_many removed {removed} of {}", output::records(many.len() as u64)));
        }
        for i in victims {
            self.files[i].state = State::Removed;
        }
        Ok(meter.step("remove", "each was there before".into()))
    }

    /// Walks through the store: every record exactly once, and no other.
    pub fn walk(&mut self, store: &Store) -> anyhow::Result<Step> {
        let mut meter = Meter::default();
        let by_key: HashMap<Vec<u8>, usize> =
            self.files.iter().enumerate().map(|(i, tracked)| (tracked.file.key.clone(), i)).collect();
        let mut seen = vec![0_u32; self.files.len()];
        let mut entries = store.iter();
        while let Some(entry) = meter.time(|| entries.next()) {
            let entry: Result<_> = entry;
            let entry = entry?;
            interrupt::check()?;
            meter.count(entry.value().len());
            match by_key.get(entry.key()) {
                Some(&i) => {
                    seen[i] += 1;
                    if hash(entry.value()) != self.files[i].hash {
                        self.differs(i, "has another value in the iteration");
                    }
                }
                None => self.different(format!("the iteration has an unknown key {}", escape::excerpt(entry.key()))),
            }
        }
        let mut expected = 0;
        for (i, &times) in seen.iter().enumerate() {
            let wanted = u32::from(matches!(self.files[i].state, State::Kept | State::Updated));
            expected += u64::from(wanted);
            if times != wanted {
                self.differs(
                    i,
                    &format!("occurs {} in the iteration, not {wanted}", output::some(times.into(), "time")),
                );
            }
        }
        if store.len() != expected {
            self.different(format!("the store counts {}, there should be {expected}", output::records(store.len())));
        }
        Ok(meter.step("iterate", "every record exactly once, no other".into()))
    }

    /// Compares a value with what the file on disk says it should be.
    fn compare(&mut self, i: usize, value: &[u8]) {
        let tracked = &self.files[i];
        let expected: io::Result<Vec<u8>> = fs::read(&tracked.file.path).map(|contents| match tracked.state {
            State::Updated => updated(&contents),
            State::Kept | State::Removed | State::Unread => contents,
        });
        if expected.is_ok_and(|expected| expected == value) {
            return;
        }
        if hash(value) == tracked.hash {
            self.changed_meanwhile += 1;
        } else {
            self.differs(i, "is not what was stored");
        }
    }

    fn differs(&mut self, i: usize, how: &str) {
        let name = escape::escaped(&self.files[i].file.key);
        self.different(format!("{name} {how}"));
    }

    fn different(&mut self, what: String) {
        self.differences += 1;
        if self.differences_first.len() < LISTED_MAX {
            self.differences_first.push(what);
        }
    }
}

/// The step that `tophash verify` is.
pub fn verified(report: &tophash::verify::Report, time: Duration) -> Step {
    Step {
        name: "verify",
        records: report.records,
        bytes: report.bytes_read,
        seconds: time.as_secs_f64(),
        checked: format!("{} in the files", output::some(report.findings_total, "finding")),
    }
}

/// The new value of an updated file: as long as the old one, and a line more.
fn updated(contents: &[u8]) -> Vec<u8> {
    let mut value = b"updated by tophash demo\n".to_vec();
    value.extend(contents.iter().rev());
    value
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}
