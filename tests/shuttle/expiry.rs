//! Expiry: expired records are removed from the index while their keys are read, set anew, and get other deadlines. Only the record
//! that has expired may go.

use std::time::{Duration, SystemTime};

use crate::common::calls::Task;
use crate::scenario::Scenario;

const PASSED: SystemTime = SystemTime::UNIX_EPOCH;

fn far() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(10_000_000_000)
}

/// Expired values, over lasting ones and over nothing; beside them some that last.
fn expired(t: &Task<'_>) {
    (0..3).for_each(|key| t.insert(key));
    (0..6).for_each(|key| t.set_until(key, PASSED, true));
    (6..9).for_each(|key| t.set_until(key, far(), false));
}

/// One task removes what has expired, others read and write. `value_bytes`: in files of their own, or in segments.
fn beside_the_removal(name: &'static str, value_bytes: usize) -> Scenario {
    Scenario::new(name)
        .value_bytes(value_bytes)
        .prepare(expired)
        .task(|t| t.compact())
        .task(|t| {
            t.insert(0);
            t.set_until(1, far(), false);
            t.insert_if_absent(2);
            t.prolong(0, far());
            t.prolong(3, far());
            t.set_until(1, PASSED, true);
            t.persist(6);
        })
        .task(|t| {
            t.set(4);
            t.remove(5);
            t.exchange(4, false);
            t.set_until(7, PASSED, true);
            t.set(7);
            t.apply(&[3], &[8]);
        })
        .task(|t| {
            (0..8).for_each(|key| _ = t.get(key));
            t.hold(1);
            t.iterate(0..9);
        })
        .shows("expired records removed", |stats| stats.compaction.expired_records)
        .weight(200)
}

#[test]
fn expired_large_values_go_beside_readers_and_writers() {
    beside_the_removal("expired large values", 700).run();
}

#[test]
fn expired_records_go_with_their_segment_beside_readers_and_writers() {
    beside_the_removal("expired records", 370).run();
}
