//! Compaction: records move while they are read, held, replaced and removed; segments are freed and used again.
//! A key must never be lost, come back, or read as absent while it is there.

use tophash::stats::Stats;
use tophash::{Options, Tuning};

use crate::common::calls::Task;
use crate::scenario::Scenario;

/// Ten records of this size fill a segment.
const VALUE_BYTES: usize = 370;

/// Some segments, most of their records dead.
fn overwritten(t: &Task<'_>) {
    for _ in 0..3 {
        (0..14).for_each(|key| t.insert(key));
    }
    (20..24).for_each(|key| t.insert(key));
    t.remove(20);
    t.remove(21);
}

fn compaction(name: &'static str) -> Scenario {
    Scenario::new(name)
        .value_bytes(VALUE_BYTES)
        .prepare(overwritten)
        .shows("records moved", moved)
        .shows("segments freed", |stats| stats.compaction.freed_segments)
}

fn moved(stats: &Stats) -> u64 {
    stats.compaction.moved_records
}

/// Writers compact as well.
fn tight(options: Options) -> Options {
    options.log_ratio(1.1).checkpoint_bytes(16 << 10)
}

#[test]
fn compaction_beside_readers_and_writers() {
    compaction("compaction")
        .task(|t| t.compact())
        .task(|t| {
            (0..5).for_each(|key| t.insert(key));
            t.remove(5);
            t.insert(20);
            t.remove(6);
            t.insert(6);
        })
        .task(|t| {
            t.update(7);
            t.exchange(8, true);
            t.apply(&[8, 9], &[10, 22]);
            t.remove_many([11, 12]);
        })
        .task(|t| (0..24).for_each(|key| _ = t.get(key)))
        .weight(200)
        .run();
}

#[test]
fn several_threads_compact() {
    compaction("several compact")
        .options(tight)
        .tasks(2, |t| t.compact())
        .task(|t| {
            for key in 0..6 {
                t.insert(key);
                t.remove(key + 6);
            }
        })
        .task(|t| {
            (0..12).for_each(|key| t.insert(key));
            t.checkpoint();
        })
        .task(|t| (0..24).rev().for_each(|key| _ = t.get(key)))
        .run();
}

#[test]
fn held_values_stay_while_segments_are_freed_and_used_again() {
    compaction("held values")
        .options(tight)
        .task(|t| {
            t.compact();
            (0..14).for_each(|key| t.insert(key));
            t.compact();
        })
        .task(|t| {
            for round in 0..3 {
                (0..8).for_each(|key| t.hold(key + round));
                t.look_at_held();
                if round == 1 {
                    t.let_go();
                }
            }
        })
        .task(|t| {
            (0..10).for_each(|key| t.hold(key));
            t.look_at_held();
            t.insert(3);
            t.look_at_held();
        })
        .run();
}

#[test]
fn compaction_beside_growth() {
    compaction("compaction and growth")
        .task(|t| t.compact())
        .task(|t| (30..42).for_each(|key| t.insert(key)))
        .task(|t| (0..24).for_each(|key| _ = t.get(key)))
        .task(|t| t.iterate(0..24))
        .shows("splits", |stats| stats.index.splits)
        .run();
}

#[test]
fn compaction_beside_checkpoints_and_clear() {
    compaction("compaction and clear")
        .task(|t| t.compact())
        .task(|t| {
            t.checkpoint();
            t.insert(3);
            t.checkpoint();
        })
        .task(|t| {
            t.insert(1);
            t.clear(0..24);
            t.insert(2);
            t.insert(20);
        })
        .task(|t| (0..24).for_each(|key| _ = t.get(key)))
        .run();
}

#[test]
fn removals_stay_removed() {
    // What is removed has puts in older segments, which a repair would find.
    compaction("removals")
        .task(|t| {
            t.compact();
            t.compact();
        })
        .task(|t| {
            for key in 0..7 {
                t.remove(key);
                t.get(key);
            }
        })
        .task(|t| {
            for key in [3, 4, 20, 21] {
                t.insert(key);
                t.remove(key);
            }
        })
        .run();
}

#[test]
fn a_record_that_is_not_published_yet_is_no_dead_one() {
    // Short, so that many schedules stop a writer between its append and its publishing, while the segment it
    // has appended to is sealed, scanned, freed. Four stripes, lest moving another record waits for that writer.
    Scenario::new("append and publish")
        .tuning(|tuning| Tuning { level_min: 2, ..tuning })
        .value_bytes(VALUE_BYTES)
        .prepare(|t| (0..6).for_each(|key| t.insert(key % 2)))
        .task(|t| t.compact())
        .task(|t| t.insert(2))
        .task(|t| t.insert(3))
        .task(|t| t.insert(4))
        .shows("segments freed", |stats| stats.compaction.freed_segments)
        .weight(400)
        .run();
}

#[test]
fn a_prepared_segment_is_given_back_or_taken() {
    // No record dies, so no segment is unlinked but those that wait. An overflow page for one task finds a full disk, and the
    // segment that another one has prepared is given back, while a third one takes it.
    Scenario::new("prepared segments")
        .tuning(|tuning| Tuning { grow_permille: 4000, chain_help: 100, blob_bytes_min: 1 << 20, ..tuning })
        .value_bytes(900)
        .refuse_blocks(2)
        .prepare(|t| (0..22).for_each(|key| t.insert(key)))
        .tasks(2, |t| (0..7).for_each(|key| _ = t.insert_unless_full(key)))
        .task(|t| (22..28).for_each(|key| _ = t.insert_unless_full(key)))
        .task(|t| {
            (0..6).for_each(|key| _ = t.get(key));
            t.store.sync().unwrap();
        })
        .shows("waits for a segment", |stats| stats.waits.segment)
        .shows("waits for space of the index", |stats| stats.waits.index_space)
        .weight(200)
        .run();
}
