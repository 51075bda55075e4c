//! The engines' names, versions and settings.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineName {
    /// This project
    Tophash,
    /// This project with its default, a sync every 100 ms in the background; measured in growth only
    #[value(name = "tophash-100ms")]
    #[serde(rename = "tophash-100ms")]
    TophashEvery,
    /// LMDB through heed
    Heed,
    /// redb
    Redb,
    /// fjall
    Fjall,
    /// candystore
    Candystore,
    /// candystore without checkpoints in the background
    CandystoreNc,
    /// sled
    Sled,
    /// RocksDB
    #[cfg(feature = "rocksdb")]
    Rocksdb,
    /// hashbrown with boxed keys and values: in memory only
    Hashbrown,
}

/// sled keeps growing in memory, whatever its cache's limit: 10 M records of 16 bytes took 24 GB.
const SLED_RECORDS_MAX: u64 = 2_000_000;

impl EngineName {
    /// All that were built, in the order of the tables.
    pub fn all() -> &'static [EngineName] {
        EngineName::value_variants()
    }

    /// For command lines and tables.
    pub fn name(self) -> &'static str {
        match self {
            EngineName::Tophash => "tophash",
            EngineName::TophashEvery => "tophash-100ms",
            EngineName::Heed => "heed",
            EngineName::Redb => "redb",
            EngineName::Fjall => "fjall",
            EngineName::Candystore => "candystore",
            EngineName::CandystoreNc => "candystore-nc",
            EngineName::Sled => "sled",
            #[cfg(feature = "rocksdb")]
            EngineName::Rocksdb => "rocksdb",
            EngineName::Hashbrown => "hashbrown",
        }
    }

    /// True if there is something on disk.
    pub fn is_persistent(self) -> bool {
        self != EngineName::Hashbrown
    }

    /// True if it is this project.
    pub fn is_tophash(self) -> bool {
        matches!(self, EngineName::Tophash | EngineName::TophashEvery)
    }

    /// True if it is a persistent engine to be compared with.
    pub fn is_peer(self) -> bool {
        self.is_persistent() && !self.is_tophash()
    }

    /// False if what it calls durable is not: sled's flush ends in `sync_file_range` on Linux, which neither empties the
    /// disk's own cache nor writes the file's metadata. It is not the best peer in a row of durable writes.
    pub fn is_durable(self) -> bool {
        !matches!(self, EngineName::Sled | EngineName::Hashbrown)
    }

    /// More records than this are too many for it.
    pub fn records_max(self) -> u64 {
        if self == EngineName::Sled { SLED_RECORDS_MAX } else { u64::MAX }
    }

    /// The version that was built, from Cargo.lock.
    pub fn version(self) -> String {
        match self {
            EngineName::Tophash | EngineName::TophashEvery => env!("VERSION_TOPHASH").to_string(),
            EngineName::Heed => {
                let lmdb = heed::lmdb_version();
                format!("{} (LMDB {}.{}.{})", env!("VERSION_HEED"), lmdb.major, lmdb.minor, lmdb.patch)
            }
            EngineName::Redb => env!("VERSION_REDB").to_string(),
            EngineName::Fjall => env!("VERSION_FJALL").to_string(),
            EngineName::Candystore | EngineName::CandystoreNc => env!("VERSION_CANDYSTORE").to_string(),
            EngineName::Sled => env!("VERSION_SLED").to_string(),
            #[cfg(feature = "rocksdb")]
            EngineName::Rocksdb => format!("{} ({})", env!("VERSION_ROCKSDB"), env!("VERSION_LIBROCKSDB_SYS")),
            EngineName::Hashbrown => format!("{} (foldhash {})", env!("VERSION_HASHBROWN"), env!("VERSION_FOLDHASH")),
        }
    }

    /// How it is set up, for the report.
    pub fn settings(self, cache_bytes: u64, is_write_map: bool) -> String {
        let cache = format!("{:.1} GiB", cache_bytes as f64 / (1u64 << 30) as f64);
        match self {
            EngineName::Tophash => {
                "defaults (reads verify checksums); durable: SyncPolicy::Always, changed by a close \
                                    and an open; buffered: SyncPolicy::Manual; batches: Batch and apply, at most \
                                    512 MiB each; compaction: offline, tophash::compact"
                    .to_string()
            }
            EngineName::TophashEvery => "all defaults: SyncPolicy::Every(100 ms)".to_string(),
            EngineName::Heed => format!(
                "map size far above the data, {}, otherwise defaults (thread-local readers); one transaction per \
                 single operation; buffered: MDB_NOSYNC; compaction: a compacting copy takes the file's place",
                if is_write_map { "MDB_WRITEMAP" } else { "no MDB_WRITEMAP" }
            ),
            EngineName::Redb => format!(
                "cache {cache}; one transaction per single operation; durable: Durability::Immediate; buffered: \
                 Durability::None (a kill takes what no later durable commit made safe)"
            ),
            EngineName::Fjall => format!(
                "block cache {cache}, otherwise defaults; batches of at most 100,000; durable: \
                 persist(PersistMode::SyncData); buffered: the default (journal handed to the OS at each write); \
                 compaction: major_compact"
            ),
            EngineName::Candystore => "defaults (background checkpoint every 5 s or 128 KiB, background compaction at \
                                       4 MiB/s); no batches: single calls; durable: flush() after them; compaction: \
                                       shrink_to_fit_blocking (of data files: in the background only)"
                .to_string(),
            EngineName::CandystoreNc => "as candystore, without checkpoints in the background".to_string(),
            EngineName::Sled => format!(
                "cache {cache}, Mode::HighThroughput, flush every 500 ms in the background (default); batches of at \
                 most 10,000; durable: flush(), \
                 which on Linux is sync_file_range and promises less than an fsync, so that sled is never called the \
                 best in rows of durable writes; at most {SLED_RECORDS_MAX} records, beyond which it takes all memory"
            ),
            #[cfg(feature = "rocksdb")]
            EngineName::Rocksdb => format!(
                "as in redb's benchmark: LRU cache {cache}, write buffers of half of it, 10-bit bloom filters, index \
                 and filter blocks in the cache, parallelism = cores; batches of at most 100,000; durable: \
                 WriteOptions::set_sync; buffered: log written without fsync"
            ),
            EngineName::Hashbrown => "HashTable<(Box<[u8]>, Box<[u8]>)> (what its HashMap is made of), foldhash, 64 \
                                      shards, each in a std RwLock; grown from empty; nothing is kept"
                .to_string(),
        }
    }
}

impl fmt::Display for EngineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_uses_the_same_names() {
        for engine in EngineName::all() {
            assert_eq!(EngineName::from_str(engine.name(), false), Ok(*engine));
            assert_eq!(serde_json::to_value(engine).unwrap(), engine.name());
            assert!(!engine.version().is_empty() && !engine.settings(1 << 30, false).is_empty());
        }
    }
}
