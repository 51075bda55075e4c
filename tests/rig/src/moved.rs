//! A handle touches its own store only: the store's directory is moved away while it is open, another store takes its
//! place, then the directory is removed. The simulated disk has one path to everything, so this is on the real one.

use std::fs;
use std::path::Path;

use tophash::verify::verify;
use tophash::{Options, Store, SyncPolicy, Tuning};

const KEYS: u32 = 4000;

fn put_all(store: &Store, byte: u8) -> Result<u64, String> {
    for key in 0..KEYS {
        store.insert(key.to_le_bytes(), [byte; 64]).map_err(|error| format!("key {key}: {error}"))?;
    }
    Ok(KEYS.into())
}

/// Returns the number of changes that were made.
pub fn check(directory: &Path) -> Result<u64, String> {
    let (path, away) = (directory.join("store"), directory.join("away"));
    let tuning = Tuning { background: false, ..Tuning::default() };
    let options = Options::new().tuning(tuning).segment_bytes(64 << 10).sync(SyncPolicy::Manual);
    let text = |error: tophash::Error| error.to_string();
    let old = options.open(&path).map_err(text)?;
    let mut done = put_all(&old, 1)?;
    fs::rename(&path, &away).map_err(|error| error.to_string())?;
    let new = options.open(&path).map_err(text)?;
    done += put_all(&new, 2)?;
    new.sync().map_err(text)?;
    done += put_all(&old, 3).map_err(|what| format!("a moved store: {what}"))?;
    old.compact().map_err(text)?;
    old.checkpoint().map_err(text)?;
    fs::remove_dir_all(&away).map_err(|error| error.to_string())?;
    if (0..8).all(|_| put_all(&old, 4).is_ok()) {
        return Err("a store whose directory was removed takes everything".into());
    }
    let _ = old.close();
    new.close().map_err(text)?;
    let report = verify(&path).map_err(text)?;
    if !report.findings.is_empty() {
        return Err(format!("the store at the old path: {:?}", report.findings));
    }
    let new = options.open(&path).map_err(text)?;
    for key in 0..KEYS {
        let value = new.get(key.to_le_bytes()).map_err(text)?;
        if value.as_deref() != Some(&[2; 64][..]) {
            return Err(format!("the store at the old path, key {key}: {:?}", value.as_deref()));
        }
    }
    Ok(done)
}
