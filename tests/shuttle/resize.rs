//! Growth and shrinking beside readers, writers and iterations. A reader may sleep through all of a split, a
//! merge, or both, and must not take a key for absent that was there throughout.

use tophash::stats::Stats;
use tophash::{PartOrder, PartPlan, Tuning};

use crate::common::calls::Task;
use crate::index::{four_pages, one_bucket, splits, two_pages};
use crate::scenario::Scenario;

#[test]
fn readers_beside_splits() {
    Scenario::new("split")
        .prepare(|t| (0..19).for_each(|key| t.insert(key)))
        .task(|t| (19..26).for_each(|key| t.insert(key)))
        .tasks(2, |t| {
            (0..19).for_each(|key| _ = t.get(key));
            t.get_many(15..24);
        })
        .shows("splits", splits)
        .weight(200)
        .run();
}

#[test]
fn readers_and_writers_beside_several_doublings() {
    Scenario::new("doublings")
        .prepare(|t| (0..39).for_each(|key| t.insert(key)))
        .task(|t| t.store.reserve(100).unwrap())
        .task(|t| (39..46).for_each(|key| t.insert(key)))
        .task(|t| {
            for key in 0..8 {
                t.remove(key * 3);
                t.update(key * 4);
            }
        })
        .task(|t| (0..46).for_each(|key| _ = t.get(key)))
        .shows("doublings", |stats| stats.index.growths)
        .run();
}

#[test]
fn readers_beside_splits_that_refill_hash_bits() {
    // After eight doublings the bits that a page was filled with have run out. Pages never used are skipped.
    Scenario::new("refill")
        .prepare(|t| {
            (0..10).for_each(|key| t.insert(key));
            t.store.reserve(256 * 19).unwrap();
        })
        .task(|t| t.store.reserve(512 * 19).unwrap())
        .task(|t| (0..10).for_each(|key| _ = t.get(key)))
        .task(|t| (0..5).for_each(|key| t.insert(key)))
        .shows("refills", |stats| stats.index.refills)
        .weight(50)
        .run();
}

#[test]
fn a_long_chain_makes_its_insert_help() {
    Scenario::new("long chain")
        .keys(two_pages)
        .tuning(|tuning| Tuning { chain_help: 1, ..four_pages(tuning) })
        .prepare(|t| (0..88).for_each(|key| t.insert(key)))
        .tasks(2, |t| (88..104).for_each(|key| t.insert_if_absent(key)))
        .task(|t| (40..88).for_each(|key| _ = t.get(key)))
        .shows("splits", splits)
        .weight(50)
        .run();
}

#[test]
fn each_key_comes_once_in_an_iteration() {
    Scenario::new("iteration")
        .prepare(|t| (0..38).for_each(|key| t.insert(key)))
        .tasks(2, |t| t.iterate(0..38))
        .task(|t| (38..48).for_each(|key| t.insert(key)))
        .task(|t| {
            t.remove(5);
            t.insert(6);
            t.apply(&[5], &[7]);
        })
        .shows("splits", splits)
        .run();
}

/// Eight pages' worth of entries came, and most have gone.
fn sparse(t: &Task<'_>) {
    (0..80).for_each(|key| t.insert(key));
    t.remove_many(14..80);
}

fn merges(stats: &Stats) -> u64 {
    stats.index.merges
}

#[test]
fn readers_beside_merges() {
    Scenario::new("shrink")
        .prepare(sparse)
        .task(|t| (80..86).for_each(|key| t.insert(key)))
        .task(|t| (0..6).for_each(|key| t.remove(key)))
        .tasks(2, |t| {
            (0..14).for_each(|key| _ = t.get(key));
            t.get_many(10..18);
        })
        .shows("merges", merges)
        .weight(200)
        .run();
}

#[test]
fn readers_beside_merges_that_pack() {
    // What is left lies far along its path, and a merge brings it nearer.
    Scenario::new("packing merge")
        .keys(one_bucket)
        .tuning(|tuning| Tuning { rewrite_permille: 1000, ..tuning })
        .prepare(|t| {
            (0..76).for_each(|key| t.insert(key));
            t.remove_many(0..62);
        })
        .task(|t| (62..65).for_each(|key| t.insert(key)))
        .task(|t| t.update(65))
        .tasks(2, |t| (62..76).for_each(|key| _ = t.get(key)))
        .shows("merges", merges)
        .weight(200)
        .run();
}

#[test]
fn shrinking_turns_round() {
    Scenario::new("shrink and grow")
        .prepare(sparse)
        .task(|t| t.apply(&(20..90).collect::<Vec<_>>(), &[1, 2]))
        .task(|t| {
            (0..4).for_each(|key| t.remove(key));
            t.remove_many(20..60);
            (60..66).for_each(|key| t.insert(key));
        })
        .task(|t| (3..14).for_each(|key| _ = t.get(key)))
        .task(|t| t.iterate(3..14))
        .shows("merges", merges)
        .shows("splits", splits)
        .run();
}

#[test]
fn the_space_of_merged_pages_is_given_back() {
    Scenario::new("giving back")
        .prepare(sparse)
        .task(|t| (80..90).for_each(|key| t.insert(key)))
        .tasks(2, |t| {
            t.checkpoint();
            t.update(4);
            t.checkpoint();
        })
        .task(|t| (0..14).for_each(|key| _ = t.get(key)))
        .task(|t| {
            t.iterate(0..14);
            t.store.reserve(90).unwrap();
            t.get_many(0..14);
        })
        .shows("merges", merges)
        .shows("pages given back", |stats| stats.index.pages_given_back)
        .run();
}

#[test]
fn compaction_shrinks_beside_readers_and_writers() {
    Scenario::new("shrink by compaction")
        .prepare(sparse)
        .task(|t| t.compact())
        .task(|t| (0..7).for_each(|key| t.insert(key)))
        .task(|t| (0..14).for_each(|key| _ = t.get(key)))
        .task(|t| t.iterate(0..14))
        .shows("merges", merges)
        .run();
}

/// What is opened after the tasks is a young store with nothing but a tail: three tasks replay it.
#[test]
fn a_tail_is_replayed_by_several_tasks() {
    for order in [PartOrder::AtOnce, PartOrder::LastFirst, PartOrder::NoThreadFor(1)] {
        Scenario::new("parts of a replay")
            .tuning(|tuning| Tuning { parts: PartPlan { parts: 3, order }, ..tuning })
            .prepare(|t| (0..30).for_each(|key| t.insert(key)))
            .task(|t| {
                (30..60).for_each(|key| t.insert(key));
                t.remove_many(20..35);
            })
            .task(|t| {
                (0..10).for_each(|key| t.remove(key));
                t.apply(&[3, 61, 62], &[40, 41]);
            })
            .shows("splits", splits)
            .weight(50)
            .run();
    }
}
