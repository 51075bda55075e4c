//! What is done with a damaged store.

use tophash::{Batch, Store, Table};

use super::Licence;
use super::anatomy::STORE;
use super::base::{Base, Contents, options, table_of};
use super::judge::Judge;
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

/// Does everything with a damaged store.
///
/// # Errors
/// What must not be.
pub fn exercise(base: &Base, image: &Image, licence: &Licence, effort: Effort) -> Result<Outcome, String> {
    let mut judge = Judge::new(base, licence);
    let mut outcome = Outcome::default();

    let disk = SimDisk::untracked(image.clone(), 1);
    let mut silent = None;
    let reader = options(&disk).read_only(true).open(STORE);
    let refusal = reader.as_ref().err().map(ToString::to_string);
    if let Ok(store) = reader {
        silent = Some(judge.read(&store).map_err(|error| format!("read-only: {error}"))?.whole);
    }
    let report = tophash::verify::verify_disk(&disk, STORE, tophash::Progress::ignore);
    let is_clean = report.as_ref().is_ok_and(tophash::verify::Report::is_clean);
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
            change(&mut judge, &store);
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
        let report = tophash::repair::repair_disk(&disk, STORE, "/new", &options(&disk), tophash::Progress::ignore);
        if let Ok(report) = report {
            let store = options(&disk).open("/new").map_err(|error| format!("a repaired store: {error}"))?;
            let names = store.tables().map_err(|error| format!("a repaired store: {error}"))?;
            let tables = names.iter().map(|name| store.existing_table(name));
            let tables: Result<Vec<_>, _> = std::iter::once(Ok(Table::clone(&store))).chain(tables).collect();
            let tables = tables.map_err(|error| format!("a repaired store: {error}"))?;
            let entries = tables.iter().flat_map(Table::iter);
            let entries: Result<Vec<_>, _> =
                entries.map(|e| e.map(|e| (e.key().to_vec(), e.value().to_vec()))).collect();
            let entries = entries.map_err(|error| format!("a repaired store: {error}"))?;
            let contents: Contents = entries.into_iter().collect();
            let is_complete = report.is_complete() && report.torn_bytes == 0;
            // The damaged store as it was, without the changes above.
            Judge::new(base, licence)
                .repaired(&contents, is_complete)
                .map_err(|error| format!("repaired: {error}: {report:#?}"))?;
        }
    }
    Ok(outcome)
}

/// Changes the store in every way. Whatever fails, fails.
fn change(judge: &mut Judge<'_>, store: &Store) {
    let keys: Vec<Vec<u8>> = judge.base.present().keys().step_by(11).cloned().collect();
    for (n, key) in keys.iter().enumerate() {
        let value = format!("new {n}").into_bytes();
        let table = match table_of(key) {
            Some(name) => store.table(name),
            None => Ok(Table::clone(store)),
        };
        let (done, new) = if n % 3 == 2 {
            (table.and_then(|table| table.remove(key).map(drop)), None)
        } else {
            (table.and_then(|table| table.insert(key, &value).map(drop)), Some(value))
        };
        judge.wrote(key, new, done.is_ok());
    }
    for n in 0..6 {
        let (key, value) = (format!("added {n}").into_bytes(), vec![b'n'; if n == 5 { 420 } else { 30 }]);
        let done = store.insert(&key, &value);
        let done = done.is_ok();
        judge.wrote(&key, Some(value), done);
    }
    let added = store.table("added").and_then(|table| table.insert("added/1", "one").map(drop)).is_ok();
    judge.wrote(b"added/1", Some(b"one".to_vec()), added);
    let mut batch = Batch::new();
    let of_main = keys.iter().find(|key| table_of(key).is_none()).cloned().unwrap_or_default();
    batch.insert("batch 1", "one").insert("batch 2", "two").remove(&of_main);
    let done = store.apply(&batch).is_ok();
    judge.wrote(b"batch 1", Some(b"one".to_vec()), done);
    judge.wrote(b"batch 2", Some(b"two".to_vec()), done);
    judge.wrote(&of_main, None, done);
    let _ = (store.sync(), store.stats(), store.scan(tophash::Cursor::from(1 << 60), 10).map(|_| ()));
    let _ = store.checkpoint();
    let _ = store.compact();
    let _ = store.shrink_to_fit();
    let _ = store.checkpoint();
}
