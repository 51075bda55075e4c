//! A batch as large as a segment can be. Its records have the last addresses that there are, so this is a gigabyte on the
//! real disk.

use std::path::Path;

use tophash::verify::verify;
use tophash::{Batch, Options, Store, SyncPolicy};

const VALUE: usize = 256 << 10;
/// Bytes of a segment besides the frame: its header and a mark.
const BESIDES: usize = 128 + 24;
/// Bytes of a frame's header.
const FRAME: usize = 24;
/// Bytes of a record besides the value: header and key.
const RECORD: usize = 16 + 16;
/// How far the batch stays below the limit.
const SLACK: usize = 1024;
/// Records that are written after it.
const LATER: u64 = 100;

fn key(n: u64) -> String {
    format!("key-{n:012}")
}

fn later(n: u64) -> String {
    format!("later {n}")
}

/// Returns the number of records that were written.
///
/// # Errors
/// What is wrong with the store.
pub fn check(directory: &Path) -> Result<u64, String> {
    let path = directory.join("store");
    let options = Options::new().sync(SyncPolicy::Manual);
    let text = |error: tophash::Error| error.to_string();
    let store = options.open(&path).map_err(text)?;
    let (limit, mut used, mut n) = ((1 << 30) - BESIDES, FRAME, 0);
    let mut batch = Batch::new();
    while used + RECORD + VALUE + SLACK < limit {
        batch.insert(key(n), vec![7; VALUE]);
        (used, n) = (used + RECORD + VALUE, n + 1);
    }
    batch.insert(key(n), vec![7; limit - used - RECORD - SLACK]);
    n += 1;
    store.apply(&batch).map_err(|error| format!("a batch below the limit: {error}"))?;
    drop(batch);
    for n in 0..LATER {
        store.insert(later(n), later(n)).map_err(text)?;
    }
    let judge = |store: &Store| {
        for n in 0..LATER {
            match store.get(later(n)) {
                Ok(Some(value)) if *value == *later(n).as_bytes() => {}
                other => return Err(format!("{}: {other:?}", later(n))),
            }
        }
        if store.len() == n + LATER { Ok(()) } else { Err(format!("{} records of {}", store.len(), n + LATER)) }
    };
    judge(&store)?;
    store.close().map_err(text)?;
    let report = verify(&path).map_err(text)?;
    if !report.is_clean() {
        return Err(format!("{:?}", report.findings));
    }
    judge(&options.open(&path).map_err(text)?)?;
    Ok(n + LATER)
}
