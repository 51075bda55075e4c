//! The lock-free read path and the writers against each other: change, rewrite, repair, overflow, batches.

use tophash::Tuning;
use tophash::stats::Stats;

use crate::scenario::Scenario;

/// Keys that share a home bucket, whatever the level; with two home buckets their paths are a whole page.
pub fn one_bucket(hash: u64) -> bool {
    hash >> 61 == 0
}

/// The same in two pages of four.
pub fn two_pages(hash: u64) -> bool {
    one_bucket(hash) && hash & 3 < 2
}

/// Four pages, and no growth before they are full.
pub fn four_pages(tuning: Tuning) -> Tuning {
    Tuning { level_min: 2, grow_permille: 1000, chain_help: 100, ..tuning }
}

pub fn splits(stats: &Stats) -> u64 {
    stats.index.splits
}

#[test]
fn one_key_is_put_replaced_and_removed() {
    Scenario::new("one key")
        .prepare(|t| t.insert(1))
        .task(|t| {
            t.insert(0);
            t.set(0);
            t.delete(0);
            t.insert(0);
        })
        .task(|t| {
            t.remove(0);
            t.exchange(1, true);
            t.insert_if_absent(0);
            t.insert_if_absent(1);
        })
        .task(|t| {
            for _ in 0..3 {
                t.get(0);
                t.get_many([1, 0]);
                t.contains(1);
            }
        })
        .run();
}

#[test]
fn readers_beside_path_repair() {
    Scenario::new("repair")
        .keys(one_bucket)
        .tuning(four_pages)
        .prepare(|t| (0..60).for_each(|key| t.insert(key)))
        .task(|t| (0..4).for_each(|key| t.remove(key)))
        .task(|t| {
            t.remove(20);
            (60..63).for_each(|key| t.insert(key));
        })
        .tasks(2, |t| (0..60).step_by(2).for_each(|key| _ = t.get(key)))
        .shows("repairs", |stats| stats.index.repairs)
        .run();
}

#[test]
fn readers_beside_rewrites() {
    Scenario::new("rewrite")
        .keys(one_bucket)
        .tuning(four_pages)
        .prepare(|t| (0..40).for_each(|key| t.insert(key)))
        .task(|t| t.remove_many(0..30))
        .task(|t| {
            t.insert(3);
            t.remove_many([35]);
            t.insert(40);
        })
        .tasks(2, |t| (0..41).rev().for_each(|key| _ = t.get(key)))
        .shows("rewrites", |stats| stats.index.rewrites)
        .run();
}

#[test]
fn overflow_pages_change_owners() {
    Scenario::new("overflow")
        .keys(two_pages)
        .tuning(four_pages)
        .prepare(|t| (0..50).for_each(|key| t.insert(key)))
        .task(|t| {
            (0..8).for_each(|key| t.remove(key));
            (50..62).for_each(|key| t.insert(key));
        })
        .task(|t| {
            t.remove_many(8..16);
            t.apply(&[62, 63, 64, 65, 66, 67], &[26, 27]);
            (8..16).for_each(|key| t.insert(key));
        })
        .tasks(2, |t| (20..62).for_each(|key| _ = t.get(key)))
        .shows("new overflow pages", |stats| stats.index.inserts_into_new_overflow)
        .run();
}

#[test]
fn updates_lose_nothing() {
    Scenario::new("updates")
        .prepare(|t| (0..19).for_each(|key| t.insert(key)))
        .tasks(2, |t| (0..4).for_each(|_| t.update(0)))
        .task(|t| {
            t.exchange(0, false);
            t.exchange(0, true);
            t.insert_if_absent(0);
            t.update(0);
        })
        .task(|t| (19..24).for_each(|key| t.insert(key)))
        .shows("splits", splits)
        .run();
}

#[test]
fn batches_take_their_stripes_without_deadlock() {
    Scenario::new("batches")
        .prepare(|t| (0..37).for_each(|key| t.insert(key)))
        .task(|t| {
            t.apply(&[0, 1, 2, 3, 40, 41, 42], &[10, 11]);
            t.apply(&[3, 2, 1, 0], &[40, 41]);
        })
        .task(|t| {
            t.apply(&[41, 3, 10, 0], &[2, 1, 36]);
            t.apply(&[43, 44, 45, 46, 47, 48], &[]);
        })
        .task(|t| {
            t.insert(1);
            t.remove_many([0, 1, 2, 3, 10, 11]);
            t.insert(2);
        })
        .task(|t| (0..12).for_each(|key| _ = t.get(key)))
        .shows("splits", splits)
        .run();
}

#[test]
fn clearing_beside_readers_and_writers() {
    Scenario::new("clear")
        .prepare(|t| (0..19).for_each(|key| t.insert(key)))
        .task(|t| {
            t.clear(0..40);
            t.get(3);
            t.clear(0..40);
        })
        .task(|t| {
            (15..24).for_each(|key| t.insert(key));
            t.apply(&[1, 2, 3, 30], &[4, 5]);
        })
        .task(|t| {
            (0..19).for_each(|key| _ = t.get(key));
            t.iterate(0..24);
        })
        .run();
}
