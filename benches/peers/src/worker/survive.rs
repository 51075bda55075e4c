//! Inserts until the process is killed, and what is there afterwards.
//!
//! The process notes in a file how many records a sync has acknowledged, by one `pwrite` after each sync: what it noted has
//! survived it in any case, as the page cache outlives a process.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::engine::{Engine, Reader};
use crate::population::Population;
use crate::protocol::{Find, Found, Progress, WriteUntilKilled};

/// Inserts between two looks at the log.
const LOOK_EVERY: u64 = 256;

/// Inserts new records, one by one. Returns only with an error.
pub fn write<E: Engine>(engine: &E, population: Population, request: &WriteUntilKilled) -> anyhow::Result<Value> {
    let file = File::create(&request.progress)?;
    let note = |synced: u64, is_done: u64| -> std::io::Result<()> {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&synced.to_le_bytes());
        bytes[8..].copy_from_slice(&is_done.to_le_bytes());
        file.write_all_at(&bytes, 0)
    };
    let (mut key, mut value) = (population.key_buffer(), population.value_buffer());
    for written in 1_u64.. {
        population.key(request.first + written - 1, &mut key);
        population.value(request.first + written - 1, 0, &mut value);
        engine.insert(&key, &value)?;
        if written.is_multiple_of(request.sync_every) {
            engine.sync()?;
            note(written, 0)?;
        }
        if let Some(bytes) = request.stop_bytes
            && written.is_multiple_of(LOOK_EVERY)
            && engine.bytes_since_checkpoint().is_some_and(|since| since >= bytes)
        {
            engine.sync()?;
            note(written, 1)?;
            loop {
                thread::sleep(Duration::from_secs(60));
            }
        }
    }
    Ok(Value::Null)
}

/// Reads what the process has noted; nothing if it has not come that far.
pub fn read_progress(path: &Path) -> anyhow::Result<Progress> {
    let number = |bytes: Option<&[u8; 8]>| bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes));
    match fs::read(path) {
        Ok(bytes) => Ok(Progress {
            synced: number(bytes.first_chunk()),
            is_done: number(bytes.get(8..).and_then(|bytes| bytes.first_chunk())),
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Progress::default()),
        Err(error) => Err(error.into()),
    }
}

/// Counts the records that are there with their whole values.
pub fn find<E: Engine>(engine: &E, population: Population, request: Find) -> anyhow::Result<Found> {
    let mut reader = engine.reader()?;
    let mut key = population.key_buffer();
    let mut found = 0;
    for counter in request.first..request.first + request.records {
        population.key(counter, &mut key);
        let check = |value: Option<&[u8]>| value.is_some_and(|value| population.is_value(counter, value));
        found += u64::from(reader.get(&key, check)?);
    }
    Ok(Found { found })
}
