//! The simulated disk of tophash's tests, and what runs on it: the oracle, the crash layer, the fault layer.
//!
//! The engine under test is the library as it is shipped, through the traits [`Disk`](tophash::sys::Disk) and
//! [`DiskFile`](tophash::sys::DiskFile).
//!
//! * [`image`], [`world`], [`disk`]: a disk with durable bytes, unsynced sectors and names, and a page cache that
//!   lies after a failed fsync.
//! * [`recorder`]: what a crash can leave at each I/O boundary.
//! * [`script`], [`scripts`]: what is done to a store. A new feature joins by adding a script.
//! * [`oracle`]: what may be in a store afterwards.
//! * [`run`], [`crash`]: carrying scripts out, and interrupting them.
//! * [`faults`], [`fault_layer`], [`full`]: calls that fail, and what must be true then.
//! * [`resources`]: what a process lacks for a moment.
//! * [`held`], [`space`]: what is held stays, and what is not goes away by itself.
//! * [`traced`]: what a disk is asked for, to hold the simulated one against the real one.
//! * [`story`]: crashes that were bugs once.
//! * [`corruption`]: files that were damaged.
//! * [`parts`]: recoveries by several threads, in chosen orders.
//! * [`churn`], [`stress`]: histories without crashes, by one thread and by many.
//! * [`delays`]: threads of the compaction that are held, while others change the same keys.
//! * [`closed`]: one handle closes the store, others write.
//! * [`awaited`]: futures of changes are woken, and ready means durable.

/// Half of the tables in scripts have aligned values.
#[path = "../../common/aligned.rs"]
pub mod aligned;
pub mod awaited;
pub mod churn;
pub mod closed;
pub mod corruption;
/// What `len` says.
#[path = "../../common/counts.rs"]
pub mod counts;
pub mod crash;
pub mod delays;
pub mod disk;
pub mod fault_layer;
pub mod faults;
pub mod full;
pub mod held;
pub mod image;
pub mod large;
pub mod moved;
pub mod oracle;
pub mod parts;
pub mod random;
pub mod recorder;
pub mod resources;
pub mod run;
pub mod script;
pub mod scripts;
pub mod space;
pub mod story;
pub mod stress;
pub mod traced;
pub mod world;

/// `TOPHASH_TEST_SCALE`, 1 if it is not set.
#[must_use]
pub fn scale() -> usize {
    let text = std::env::var("TOPHASH_TEST_SCALE").unwrap_or_default();
    text.parse().ok().filter(|&scale| scale > 0).unwrap_or(1)
}

/// `TOPHASH_TEST_SEED`, or a new seed.
#[must_use]
pub fn seed() -> u64 {
    let given = std::env::var("TOPHASH_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let clock = || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |now| now.as_nanos() as u64)
    };
    given.unwrap_or_else(clock)
}
