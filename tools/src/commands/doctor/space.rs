//! Where a store's bytes on the disk went.

use tophash::doctor::Diagnosis;

/// One part of the disk space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The name of its colour in the style sheet.
    pub class: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Its bytes on the disk.
    pub bytes: u64,
}

/// Disk blocks that a blob file takes beyond its value, at most: its header, and the rest of the last block.
const BLOB_BLOCKS: u64 = 8192;

/// The parts of a store. Their bytes add up to [`tophash::DiskBytes::all`].
pub fn parts(d: &Diagnosis) -> Vec<Part> {
    let (live, dead) = written(d);
    let expired = expired(d, live);
    let blobs = d.disk.blobs.min(d.blobs.bytes.saturating_add(d.blobs.count.saturating_mul(BLOB_BLOCKS)));
    let unwritten =
        if d.log_is_current() { "log space not written yet" } else { "log written after the checkpoint, or not yet" };
    [
        ("live", "live records", live - expired),
        ("expired", "expired records", expired),
        ("dead", "dead records (replaced or removed)", dead),
        ("blobs", "large values (files of their own)", blobs),
        ("freed", "large values, removed", d.disk.blobs - blobs),
        ("index", "index", d.disk.index),
        ("journal", "journal of the index", d.disk.journal),
        ("unwritten", unwritten, d.disk.log - live - dead),
    ]
    .map(|(class, name, bytes)| Part { class, name, bytes })
    .into()
}

/// Bytes of live and of dead records. On a file system that compresses, records take fewer blocks than they have bytes:
/// both share these blocks by their bytes.
fn written(d: &Diagnosis) -> (u64, u64) {
    let (bytes, dead) = (d.log.bytes, d.log.dead_bytes.min(d.log.bytes));
    if bytes <= d.disk.log {
        return (bytes - dead, dead);
    }
    let share = u128::from(d.disk.log) * u128::from(dead) / u128::from(bytes.max(1));
    let dead = u64::try_from(share).unwrap_or(d.disk.log);
    (d.disk.log - dead, dead)
}

/// Bytes of expired records, which are part of the live ones. They share the blocks as [`written`] says.
fn expired(d: &Diagnosis, live: u64) -> u64 {
    let all = d.log.bytes.saturating_sub(d.log.dead_bytes);
    let share = u128::from(live) * u128::from(d.log.expired_bytes) / u128::from(all.max(1));
    u64::try_from(share).unwrap_or(live).min(live)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(d: &Diagnosis) -> Vec<u64> {
        let parts = parts(d);
        assert_eq!(parts.iter().map(|part| part.bytes).sum::<u64>(), d.disk.all());
        parts.iter().map(|part| part.bytes).collect()
    }

    #[test]
    fn the_parts_are_all_there_is() {
        let mut d = Diagnosis::default();
        assert_eq!(bytes(&d), [0; 8]);
        (d.disk.index, d.disk.journal, d.disk.log, d.disk.blobs) = (40, 30, 100, 20_000);
        (d.log.bytes, d.log.dead_bytes) = (70, 60);
        (d.blobs.count, d.blobs.bytes) = (1, 5000);
        assert_eq!(bytes(&d), [10, 0, 60, 13_192, 6808, 40, 30, 30]);
        // Compressed by the file system.
        (d.log.bytes, d.log.dead_bytes) = (1000, 800);
        assert_eq!(bytes(&d)[..3], [20, 0, 80]);
        d.log.expired_bytes = 50;
        assert_eq!(bytes(&d)[..3], [15, 5, 80]);
        d.log.expired_bytes = u64::MAX;
        assert_eq!(bytes(&d)[..3], [0, 20, 80]);
    }
}
