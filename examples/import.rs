//! Bulk loading: the table is made large enough in advance, nothing is synced until the end, and records go in as
//! batches. Each batch is there whole or not at all, so a progress record in the same batch tells where to go on after
//! a crash.
//!
//!     cargo run --release --example import

use std::time::Instant;

use tophash::{Batch, Options, Result, SyncPolicy};

const RECORDS: u64 = 100_000;
const BATCH: u64 = 1000;
/// How many records are in; goes in with the batch that it describes.
const PROGRESS: &str = "import:progress";

fn main() -> Result<()> {
    let path = std::env::temp_dir().join(format!("tophash-example-import-{}", std::process::id()));
    let store = Options::new().capacity(RECORDS + 1).sync(SyncPolicy::Manual).open(&path)?;
    let done = match store.get(PROGRESS)? {
        Some(value) => (*value).try_into().map_or(0, u64::from_le_bytes),
        None => 0,
    };

    let started = Instant::now();
    let mut batch = Batch::new();
    for i in done..RECORDS {
        batch.insert(format!("user:{i}"), format!("visitor number {i}"));
        if (i + 1) % BATCH == 0 || i + 1 == RECORDS {
            batch.insert(PROGRESS, (i + 1).to_le_bytes());
            store.apply(&batch)?;
            batch.clear();
        }
    }
    // From here on a power loss takes nothing.
    store.sync()?;
    println!("{} records in {:.0} ms", store.len(), started.elapsed().as_secs_f64() * 1e3);
    assert_eq!(store.len(), RECORDS + 1);
    store.close()?;

    let store = Options::new().read_only(true).open(&path)?;
    let keys: Vec<String> = (0..RECORDS).step_by(1000).map(|i| format!("user:{i}")).collect();
    let found = store.get_many(&keys)?.iter().filter(|value| value.is_some()).count();
    assert_eq!(found, keys.len());
    println!("read {found} of them back in one call");
    store.close()?;
    // Nobody has it open any more.
    let _ = std::fs::remove_dir_all(&path);
    Ok(())
}
