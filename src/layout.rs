//! The names of a store's files.
//!
//! ```text
//! STORE/
//! ├── LOCK         locked while the store is open
//! ├── index        headers, meta pages, bucket pages
//! ├── index.new    an index that is being made
//! ├── journal      the images of the checkpoint under way
//! ├── log-N/       NNNNNNNN.log: a segment, by its sequence; a 16-digit id with .blob: a large value
//! └── compact.tmp/ the index and the journal of an offline compaction
//! ```

use std::path::{Path, PathBuf};

pub(crate) const LOCK: &str = "LOCK";
pub(crate) const INDEX: &str = "index";
pub(crate) const JOURNAL: &str = "journal";
/// The index while it is being made.
pub(crate) const TEMPORARY: &str = "index.new";
/// The directory in which an offline compaction makes the new index and journal.
pub(crate) const COMPACTING: &str = "compact.tmp";

pub(crate) fn lock_path(store: &Path) -> PathBuf {
    store.join(LOCK)
}

pub(crate) fn index_path(store: &Path) -> PathBuf {
    store.join(INDEX)
}

pub(crate) fn journal_path(store: &Path) -> PathBuf {
    store.join(JOURNAL)
}

/// A log directory. An offline compaction makes the next one.
pub(crate) fn log_path(store: &Path, id: u64) -> PathBuf {
    store.join(format!("log-{id}"))
}

/// The id in a log directory's name.
pub(crate) fn parse_log_name(name: &str) -> Option<u64> {
    let id = name.strip_prefix("log-")?.parse().ok()?;
    (name == format!("log-{id}")).then_some(id)
}

/// The file of a segment.
pub(crate) fn segment_path(dir: &Path, sequence: u32) -> PathBuf {
    dir.join(format!("{sequence:08}.log"))
}

/// The sequence in a segment's file name.
pub(crate) fn parse_segment_name(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".log")?;
    (digits.len() >= 8 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// The file of a blob.
pub(crate) fn blob_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016x}.blob"))
}

/// Blob ids are below this. The counter that gives them out never comes near it, so a greater number in a file or in a
/// name is none of ours.
pub(crate) const BLOB_IDS: u64 = 1 << 62;

/// The id in a blob's file name.
pub(crate) fn parse_blob_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".blob")?;
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let id = (digits.len() == 16 && digits.bytes().all(hex)).then(|| u64::from_str_radix(digits, 16).ok())?;
    id.filter(|&id| id < BLOB_IDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_made() {
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_string();
        let dir = Path::new("log-1");
        for number in [0, 1, 42, 99_999_999, u32::MAX] {
            assert_eq!(parse_segment_name(&name(segment_path(dir, number))), Some(number));
            assert_eq!(parse_blob_name(&name(blob_path(dir, number.into()))), Some(number.into()));
            assert_eq!(parse_log_name(&name(log_path(dir, number.into()))), Some(number.into()));
        }
        for other in [
            "42.log",
            "0000004x.log",
            "99999999999.log",
            ".log",
            "abc.blob",
            "0000000000000ABC.blob",
            "4000000000000000.blob",
            "log-01",
            "log-",
            "log-x",
        ] {
            assert!(parse_segment_name(other).is_none() && parse_blob_name(other).is_none(), "{other}");
            assert!(parse_log_name(other).is_none(), "{other}");
        }
        assert_eq!(segment_path(dir, 42), Path::new("log-1/00000042.log"));
        assert_eq!(blob_path(dir, 0xabc), Path::new("log-1/0000000000000abc.blob"));
    }
}
