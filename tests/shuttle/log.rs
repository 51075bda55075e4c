//! The log and the checkpoint: group commit, segment switch, blobs, the cut, memory.

use tophash::{SyncPolicy, Tuning};

use crate::scenario::Scenario;

#[test]
fn a_write_that_returns_is_durable() {
    Scenario::new("group commit")
        .options(|options| options.sync(SyncPolicy::Always))
        .tasks(3, |t| (0..3).for_each(|key| t.insert_durably(key)))
        .task(|t| {
            t.insert_durably(7);
            t.sync();
            t.apply(&[8, 9], &[]);
            t.sync();
        })
        .shows("syncs", |stats| stats.commit.syncs)
        .run();
}

#[test]
fn syncs_cover_the_segments_before() {
    // Three records fill a segment.
    Scenario::new("segment switch")
        .options(|options| options.sync(SyncPolicy::Manual))
        .tuning(|tuning| Tuning { blob_bytes_min: 1 << 20, written_bytes_min: 256, ..tuning })
        .value_bytes(900)
        .tasks(2, |t| (0..5).for_each(|key| t.insert(key)))
        .task(|t| {
            (5..8).for_each(|key| t.insert(key));
            t.sync();
            t.insert(8);
            t.sync();
        })
        .task(|t| {
            t.sync();
            (0..9).for_each(|key| _ = t.get(key));
        })
        .shows("switches", |stats| stats.log.segments)
        .run();
}

#[test]
fn the_cut_of_a_checkpoint_beside_changes() {
    Scenario::new("cut")
        .prepare(|t| (0..38).for_each(|key| t.insert(key)))
        .task(|t| {
            t.checkpoint();
            t.checkpoint();
        })
        .task(|t| (30..44).for_each(|key| t.insert(key)))
        .task(|t| {
            (0..6).for_each(|key| t.remove(key));
            t.apply(&[0, 1, 45], &[6, 7]);
        })
        .task(|t| {
            (0..20).for_each(|key| _ = t.get(key));
            t.checkpoint();
        })
        .shows("checkpoints", |stats| stats.checkpoint.count)
        .shows("splits", |stats| stats.index.splits)
        .run();
}

#[test]
fn private_pages_are_dropped_beside_readers_and_writers() {
    // 64 pages may be private; the table has 128.
    Scenario::new("little memory")
        .options(|options| options.memory_bytes(256 << 10))
        .tuning(|tuning| Tuning { level_min: 7, ..tuning })
        .prepare(|t| {
            (0..150).for_each(|key| t.insert(key));
            t.checkpoint();
            (0..75).for_each(|key| t.insert(key));
        })
        .tasks(2, |t| (75..110).for_each(|key| t.insert(key)))
        .task(|t| {
            t.checkpoint();
            t.remove(140);
        })
        .task(|t| (70..150).for_each(|key| _ = t.get(key)))
        .shows("waits for memory", |stats| stats.waits.memory)
        .weight(40)
        .run();
}

#[test]
fn blobs_come_and_go() {
    Scenario::new("blobs")
        .value_bytes(700)
        .prepare(|t| (0..3).for_each(|key| t.insert(key)))
        .task(|t| {
            t.insert(0);
            t.remove(1);
            t.insert(1);
            t.apply(&[0, 2], &[]);
        })
        .task(|t| {
            t.update(0);
            t.exchange(1, true);
            t.insert_if_absent(2);
        })
        .task(|t| {
            t.checkpoint();
            t.hold(0);
            t.checkpoint();
            t.look_at_held();
            t.iterate(0..3);
        })
        .task(|t| (0..6).for_each(|i| t.hold(i % 3)))
        .run();
}

#[test]
fn background_threads_and_backpressure_end_well() {
    Scenario::new("background threads")
        .options(|options| {
            options
                .sync(SyncPolicy::Every(std::time::Duration::from_millis(1)))
                .checkpoint_bytes(8 << 10)
                .log_ratio(1.1)
        })
        .tuning(|tuning| Tuning { background: true, ..tuning })
        .value_bytes(200)
        .prepare(|t| (0..19).for_each(|key| t.insert(key)))
        .tasks(2, |t| {
            for key in 0..12 {
                t.insert(key);
                t.insert(key + 12);
            }
        })
        .task(|t| {
            (0..24).for_each(|key| t.hold(key));
            // What it covers can be superseded by then, and its segment freed.
            t.store.sync().unwrap();
        })
        .shows("checkpoints", |stats| stats.checkpoint.count)
        .shows("segments freed", |stats| stats.compaction.freed_segments)
        .weight(50)
        .run();
}
