//! A disk that becomes full, and has room again.

use tophash::{Error, Store};

use crate::disk::SimDisk;
use crate::faults::FaultPlan;
use crate::oracle::content_of;
use crate::run::{STORE, blank};
use crate::script::{Op, Script, Value, key};

/// Removals that the reserve is good for at least.
const REMOVALS_MIN: u32 = 12;

/// Fills the disk of a store. Reads must go on; removals must, until the reserve is used up; a close and an open must; and when there is room
/// again, so must everything.
///
/// # Errors
/// In words: what did not.
pub fn check(script: &Script, seed: u64) -> Result<(), String> {
    let disk = SimDisk::new(blank(), seed);
    disk.set_faults(Some(FaultPlan::count()));
    let options = script.options(&disk);
    let store = options.open(STORE).map_err(|error| format!("open: {error}"))?;
    let put = |store: &Store, k: u32| Op::Insert(k, Value { len: 90, tag: k }).carry_out(store);
    (1..30).try_for_each(|k| put(&store, k)).map_err(|error| format!("insert: {error}"))?;

    disk.set_faults(Some(FaultPlan::full()));
    let (mut last, mut refused) = (30, None);
    while refused.is_none() {
        match put(&store, last) {
            Ok(()) => last += 1,
            Err(error) => refused = Some(error),
        }
        if last > 500 {
            return Err("the disk is full, and nothing is refused".into());
        }
    }
    if !matches!(refused, Some(Error::DiskFull { .. })) {
        return Err(format!("a full disk is not told as such: {refused:?}"));
    }
    let mut expected: std::collections::BTreeMap<_, _> =
        (1..last).map(|k| (key(k), Value { len: 90, tag: k }.bytes())).collect();
    let same = |store: &Store, expected: &_, when: &str| match content_of(store)? == *expected {
        true => Ok(()),
        false => Err(format!("{when}, the store holds something else")),
    };
    same(&store, &expected, "on a full disk")?;
    let mut removed = 0;
    for k in 1..last {
        match store.remove(key(k)) {
            Ok(_) => removed += 1,
            Err(Error::DiskFull { .. }) => break,
            Err(error) => return Err(format!("remove on a full disk: {error}")),
        }
        expected.remove(&key(k));
    }
    if removed < REMOVALS_MIN {
        return Err(format!("only {removed} removals on a full disk"));
    }
    same(&store, &expected, "after removals on a full disk")?;
    store.sync().map_err(|error| format!("sync on a full disk: {error}"))?;
    store.checkpoint().map_err(|error| format!("checkpoint on a full disk: {error}"))?;
    // A close gives back what nobody needs any more, and the disk is as full as before for the open that follows.
    store.close().map_err(|error| format!("close on a full disk: {error}"))?;
    let store = options.open(STORE).map_err(|error| format!("open on a full disk after a clean close: {error}"))?;
    same(&store, &expected, "opened on a full disk")?;

    disk.set_faults(None);
    let before = store.stats().log.bytes;
    let room = |error: Error| format!("there is room again, but: {error}");
    (1..last).try_for_each(|k| store.remove(key(k)).map(|_| ())).map_err(room)?;
    store.compact().map_err(room)?;
    if store.stats().log.bytes >= before / 2 {
        return Err(format!("the log had {before} bytes and has {} after compaction", store.stats().log.bytes));
    }
    put(&store, 1).map_err(room)?;
    store.close().map_err(room)?;
    let store = options.open(STORE).map_err(|error| format!("open: {error}"))?;
    same(&store, &[(key(1), Value { len: 90, tag: 1 }.bytes())].into(), "at the end")
}
