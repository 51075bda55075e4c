//! Names of rows that more than one place speaks of.

pub const HITS: &str = "random hits, 1 thread";
pub const MANY: &str = "random hits, 32 in a call";
pub const ABSENT: &str = "absent keys, 1 thread";
pub const BULK: &str = "bulk load, one durable batch";
pub const DURABLE: &str = "single durable writes";
pub const DURABLE_BATCHES: &str = "durable batches of 1,000 (records)";
pub const NOSYNC: &str = "single nosync writes";
pub const REMOVE: &str = "remove half, one durable batch";
pub const COMPACTED: &str = "... compacted / live bytes";
pub const INSERTS: &str = "inserts, one by one";
pub const INSERT_LATENCY: &str = "insert";
pub const BEYOND_INDEX: &str = "anonymous memory beyond the index";
pub const CHURN: &str = "steps, all windows";
pub const CHURN_SIZE: &str = "largest size / live bytes";
pub const OPEN_WARM: &str = "clean open and first get, warm";
pub const OPEN_KILLED: &str = "open and first get after kill -9";
pub const OPEN_KILLED_LATE: &str = "... killed just before a checkpoint";
pub const LOST: &str = "acknowledged writes lost";
pub const THREADS_1: &str = "durable writes, 1 thread";
pub const THREADS_8: &str = "durable writes, 8 threads";
