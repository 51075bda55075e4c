//! Histories in which nothing goes wrong, compared step by step with a map.

use std::path::Path;

use crate::disk::SimDisk;
use crate::oracle::{Content, History, Model, content_of};
use crate::run::{STORE, blank, kill};
use crate::script::{Op, Script};

/// Carries a script out, and reads everything after every few steps. Returns the number of steps.
///
/// # Errors
/// In words: what differed, or what `verify` found in the end.
pub fn run(script: &Script, seed: u64) -> Result<u64, String> {
    let disk = SimDisk::untracked(blank(), seed);
    let options = script.options(&disk);
    let open = || options.open(STORE).map_err(|error| format!("open: {error}"));
    let mut model = Model::new(Content::new(), History::of(script).keys);
    let mut store = open()?;
    for (i, op) in script.ops.iter().enumerate() {
        let failed = |error: tophash::Error| format!("step {i}, {op:?}: {error}");
        match op {
            Op::Reopen => {
                store.close().map_err(failed)?;
                store = open()?;
            }
            Op::Die => {
                kill(&disk, store);
                store = open()?;
            }
            Op::Offline(_, work) => {
                store.close().map_err(failed)?;
                work(Path::new(STORE), &options).map_err(failed)?;
                store = open()?;
            }
            _ => op.carry_out(&store).map_err(failed)?,
        }
        model.step(op);
        if i % 3 == 0 || i + 1 == script.ops.len() {
            let recovered = model.history.read(&store).map_err(|what| format!("step {i}, {op:?}: {what}"))?;
            if recovered.hash != model.history.state(model.position()) {
                return Err(format!("after step {i}, {op:?}: {} entries, and not the right ones", recovered.count));
            }
        }
    }
    store.close().map_err(|error| format!("close: {error}"))?;
    let report = tophash::verify::verify_disk(&disk, STORE, tophash::Progress::ignore)
        .map_err(|error| format!("verify: {error}"))?;
    if !report.is_clean() {
        return Err(format!("verify: {:?}", report.findings));
    }
    crate::crash::no_large_value_is_left(&report)?;
    Ok(script.ops.len() as u64)
}

/// Carries a script out and then repairs the store, which is not damaged: the repair must find in its log exactly what
/// is in the store. Returns the number of steps.
///
/// # Errors
/// In words.
pub fn repair(script: &Script, seed: u64) -> Result<u64, String> {
    let disk = SimDisk::untracked(blank(), seed);
    let options = script.options(&disk);
    let open = || options.open(STORE).map_err(|error| format!("open: {error}"));
    let mut model = Model::new(Content::new(), Vec::new());
    let mut store = open()?;
    for (i, op) in script.ops.iter().enumerate() {
        if matches!(op, Op::Reopen | Op::Die | Op::Offline(..)) {
            store.close().map_err(|error| format!("close: {error}"))?;
            let mended = Path::new(STORE).with_file_name(format!("mended-{i}"));
            tophash::repair::repair_disk(&disk, STORE, &mended, &options, tophash::Progress::ignore)
                .map_err(|error| format!("step {i}, repair: {error}"))?;
            let repaired = options.open(&mended).map_err(|error| format!("open of a repaired store: {error}"))?;
            let found = content_of(&repaired)?;
            if found != model.content {
                let (now, then) = (found.len(), model.content.len());
                return Err(format!("step {i}: a repair makes {now} entries of {then}, or others"));
            }
            store = open()?;
        } else {
            op.carry_out(&store).map_err(|error| format!("step {i}, {op:?}: {error}"))?;
            model.step(op);
        }
    }
    Ok(script.ops.len() as u64)
}
