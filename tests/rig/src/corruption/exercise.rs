//! What is done with a damaged store, and how it is judged.

use std::collections::{BTreeMap, BTreeSet};

use tophash::{Batch, Store};

use super::Licence;
use super::anatomy::STORE;
use super::base::{Base, Contents, options};
use crate::disk::SimDisk;
use crate::image::Image;

/// What came of a case.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outcome {
    /// A writable open worked.
    pub opened: bool,
    /// Everything was as it was, and verify found nothing.
    pub harmless: bool,
}

/// How much is done with a case.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// The store is opened for writing, and changed in every way.
    pub change: bool,
    /// The store is repaired.
    pub repair: bool,
    /// What was written into the damaged store is read again after another open.
    pub reopen: bool,
}

/// What reads have said: by key, its value or its absence. Errors are no answer.
type Answers = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

struct Judge<'c> {
    base: &'c Base,
    licence: &'c Licence,
    /// What was written after the damage; such keys have these values or are an error.
    written: BTreeMap<Vec<u8>, Vec<Option<Vec<u8>>>>,
}

/// Does everything with a damaged store.
///
/// # Errors
/// What must not be.
pub fn exercise(base: &Base, image: &Image, licence: &Licence, effort: Effort) -> Result<Outcome, String> {
    let mut judge = Judge { base, licence, written: BTreeMap::new() };
    let mut outcome = Outcome::default();

    let disk = SimDisk::untracked(image.clone(), 1);
    let mut silent = None;
    let reader = options(&disk).read_only(true).open(STORE);
    let refusal = reader.as_ref().err().map(ToString::to_string);
    if let Ok(store) = reader {
        let (answers, complete) = judge.read(&store).map_err(|error| format!("read-only: {error}"))?;
        silent =
            Some(complete && base.present().iter().all(|(key, value)| answers.get(key) == Some(&Some(value.clone()))));
    }
    let report = tophash::verify_disk(&disk, STORE, &mut |_, _| true);
    let is_clean = report.as_ref().is_ok_and(tophash::Report::is_clean);
    outcome.harmless = silent == Some(true) && is_clean;
    if silent == Some(false) && is_clean && !licence.stale && !licence.shorter && licence.absent {
        return Err("verify finds nothing, and yet not everything is there".into());
    }

    if let Some(refusal) = refusal.filter(|_| is_clean) {
        return Err(format!("verify finds nothing in a store that cannot be opened: {refusal}"));
    }
    let before = disk.cached().hash();
    if before != image.hash() {
        return Err("a read-only open, or verify, has changed something".into());
    }
    match options(&disk).open(STORE) {
        Ok(store) if !effort.change => {
            outcome.opened = true;
            drop(store);
        }
        Ok(store) => {
            outcome.opened = true;
            if silent != Some(true) {
                judge.read(&store).map_err(|error| format!("opened: {error}"))?;
            }
            judge.change(&store);
            judge.read(&store).map_err(|error| format!("changed: {error}"))?;
            drop(store);
            if effort.reopen
                && let Ok(store) = options(&disk).open(STORE)
            {
                judge.read(&store).map_err(|error| format!("opened again: {error}"))?;
            }
        }
        Err(_) if disk.cached().find(std::path::Path::new(STORE)).is_none() => return Err("the store is gone".into()),
        Err(_) => {}
    }
    if effort.repair {
        let disk = SimDisk::untracked(image.clone(), 2);
        let report = tophash::repair_disk(&disk, STORE, "/new", &options(&disk), &mut |_, _| true);
        if let Ok(report) = report {
            let store = options(&disk).open("/new").map_err(|error| format!("a repaired store: {error}"))?;
            let entries: Result<Vec<_>, _> =
                store.iter().map(|e| e.map(|e| (e.key().to_vec(), e.value().to_vec()))).collect();
            let entries = entries.map_err(|error| format!("a repaired store: {error}"))?;
            let contents: Contents = entries.into_iter().collect();
            let is_complete = report.is_complete() && report.torn_bytes == 0;
            judge.repaired(&contents, is_complete).map_err(|error| format!("repaired: {error}: {report:#?}"))?;
        }
    }
    Ok(outcome)
}

impl Judge<'_> {
    /// Reads all that ever was in the store, in every way. Says whether there was no error.
    fn read(&self, store: &Store) -> Result<(Answers, bool), String> {
        let (mut answers, mut complete) = (Answers::new(), true);
        for key in self.base.ever.keys().chain(self.licence.made.keys()).chain(self.written.keys()) {
            match store.get(key) {
                Ok(value) => _ = answers.insert(key.clone(), value.map(|value| value.to_vec())),
                Err(_) => complete = false,
            }
        }
        if let Ok(Some(value)) = store.get("never there") {
            return Err(format!("a key that was never there has the value {:?}", &value[..]));
        }
        let (mut seen, mut whole) = (BTreeSet::new(), true);
        // A damaged chain can end a page's turn with an error; the next page goes on.
        for (n, entry) in store.iter().enumerate() {
            if n > 100_000 {
                return Err("an iteration without end".into());
            }
            let Ok(entry) = entry else {
                (whole, complete) = (false, false);
                continue;
            };
            let (key, value) = (entry.key().to_vec(), entry.value().to_vec());
            match answers.get(&key) {
                Some(Some(known)) if *known == value => {}
                // Which of two it finds can differ where a key is there twice.
                Some(Some(_) | None) if self.licence.absent || self.licence.stale => self.known(&key, &value)?,
                Some(other) => return Err(format!("{key:?} is {value:?} in an iteration, {other:?} in a read")),
                None => self.known(&key, &value)?,
            }
            seen.insert(key);
        }
        if whole && !self.licence.absent && !self.licence.stale {
            for (key, value) in &answers {
                if value.is_some() && !seen.contains(key) {
                    return Err(format!("{key:?} is not in an iteration"));
                }
            }
        }
        self.judge(&answers)?;
        Ok((answers, complete))
    }

    /// The value is one that the key ever had.
    fn known(&self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let ever = self.base.ever.get(key).is_some_and(|values| values.contains(value));
        let made = self.licence.made.get(key).is_some_and(|values| values.iter().any(|made| made == value));
        let written = self.written.get(key).is_some_and(|values| values.iter().flatten().any(|known| known == value));
        if ever || made || written {
            return Ok(());
        }
        Err(format!("{key:?} has a value that it never had: {value:?}"))
    }

    fn judge(&self, answers: &Answers) -> Result<(), String> {
        let from = if self.licence.shorter { 0 } else { self.base.sure };
        // What a torn end of the log can leave: one of the states behind the last claim.
        let mut states: Vec<&Contents> = self.base.states[from..].iter().collect();
        for (key, answer) in answers {
            if let Some(written) = self.written.get(key) {
                let lenient = self.licence.absent || self.licence.stale;
                if !written.contains(answer) && !lenient {
                    return Err(format!("{key:?} is {answer:?} after it was set to {written:?}"));
                }
                continue;
            }
            let made = self.licence.made.contains_key(key);
            match answer {
                Some(value) if made => self.known(key, value)?,
                Some(value) if self.licence.stale => self.known(key, value)?,
                None if made || self.licence.absent || self.licence.stale => {}
                _ if self.licence.absent => {
                    let value = answer.as_deref().unwrap_or_default();
                    self.known(key, value)?;
                    let possible = self.base.states[from..].iter().any(|state| state.get(key) == answer.as_ref());
                    if !possible {
                        return Err(format!("{key:?} has an earlier value: {value:?}"));
                    }
                }
                _ => {
                    states.retain(|state| state.get(key) == answer.as_ref());
                    if states.is_empty() {
                        let present = self.base.present().get(key);
                        return Err(format!("{key:?} is {answer:?}, expected {present:?}"));
                    }
                }
            }
        }
        Ok(())
    }

    /// Changes the store in every way. Whatever fails, fails.
    fn change(&mut self, store: &Store) {
        let keys: Vec<Vec<u8>> = self.base.present().keys().step_by(11).cloned().collect();
        for (n, key) in keys.iter().enumerate() {
            let value = format!("new {n}").into_bytes();
            let (done, new) = if n % 3 == 2 {
                (store.remove(key).map(drop), None)
            } else {
                (store.insert(key, &value).map(drop), Some(value))
            };
            self.wrote(store, key, new, done.is_ok());
        }
        for n in 0..6 {
            let (key, value) = (format!("added {n}").into_bytes(), vec![b'n'; if n == 5 { 420 } else { 30 }]);
            let done = store.insert(&key, &value);
            let done = done.is_ok();
            self.wrote(store, &key, Some(value), done);
        }
        let mut batch = Batch::new();
        batch.insert("batch 1", "one").insert("batch 2", "two").remove(&keys[0]);
        let done = store.apply(&batch).is_ok();
        self.wrote(store, b"batch 1", Some(b"one".to_vec()), done);
        self.wrote(store, b"batch 2", Some(b"two".to_vec()), done);
        self.wrote(store, &keys[0].clone(), None, done);
        let _ = (store.sync(), store.stats(), store.scan(1 << 60, 10).map(|_| ()));
        let _ = store.checkpoint();
        let _ = store.compact();
        let _ = store.shrink_to_fit();
        let _ = store.checkpoint();
    }

    /// Notes what a change should have left. After an error it may have been carried out or not.
    fn wrote(&mut self, _store: &Store, key: &[u8], value: Option<Vec<u8>>, done: bool) {
        let known = self.written.entry(key.to_vec());
        if done {
            let values = known.or_default();
            values.clear();
            values.push(value);
        } else {
            let before: Vec<_> =
                self.base.states[self.base.sure..].iter().map(|state| state.get(key).cloned()).collect();
            let values = known.or_insert(before);
            values.push(value);
        }
    }

    /// A repaired store has nothing that never was; if the report says that nothing is lost, it has everything.
    fn repaired(&self, contents: &Contents, is_complete: bool) -> Result<(), String> {
        for (key, value) in contents {
            let ever = self.base.ever.get(key).is_some_and(|values| values.contains(value));
            let made = self.licence.made.get(key).is_some_and(|values| values.iter().any(|made| made == value));
            if !ever && !made {
                return Err(format!("{key:?} has a value that it never had: {value:?}"));
            }
        }
        let Licence { absent, stale, shorter, .. } = *self.licence;
        if is_complete && !(absent || stale || shorter) {
            let from = self.base.sure;
            if !self.base.states[from..].contains(contents) {
                let wrong = self.base.present().iter().find(|(key, value)| contents.get(*key) != Some(value));
                return Err(format!("said to be complete, and {wrong:?} is missing"));
            }
        }
        Ok(())
    }
}
