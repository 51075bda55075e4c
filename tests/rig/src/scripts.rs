//! The scripts. All layers run all of them: a new feature joins by adding one here.
//!
//! Stores are tiny, so that in a few dozen steps everything happens: pages of 24 slots, segments of 4 KiB, values
//! of more than 1 KiB in files of their own.

use tophash::{PartPlan, SyncPolicy, Tuning};

use crate::random::{Random, mix};
use crate::script::{Op, Script, Value};

/// Small in every way.
#[must_use]
pub fn tiny() -> Tuning {
    Tuning {
        level_min: 1,
        home_buckets: 2,
        stash_buckets: 1,
        grow_permille: 820,
        tiny_pages: 4,
        shrink_permille: 410,
        overflow_log2_min: 1,
        chain_help: 2,
        large_part_permille: 125,
        rewrite_permille: 0,
        blob_bytes_min: 1 << 10,
        listed_blobs_max: 8192,
        expired_large_bytes: 1 << 10,
        written_bytes_min: 256,
        background: false,
        stripes_log2_max: 2,
        reserve_bytes: 512,
        journal_step: 12,
        hash_key: Some((11, 13)),
        shortages: 0,
        parts: PartPlan::default(),
        hold: None,
    }
}

fn script(name: &'static str, sync: SyncPolicy, ops: Vec<Op>) -> Script {
    Script { name, sync, tuning: tiny(), segment_bytes: 4096, checkpoint_bytes: 1 << 20, log_ratio: 1.5, ops }
}

fn value(len: u32, tag: u32) -> Value {
    Value { len, tag }
}

fn inserts(keys: std::ops::Range<u32>, len: u32) -> Vec<Op> {
    keys.map(|k| Op::Insert(k, value(len, k))).collect()
}

fn batch(keys: std::ops::Range<u32>, len: u32, tag: u32) -> Op {
    Op::Apply(keys.map(|k| (k, Some(value(len, tag + k)))).collect())
}

/// The scripts that were written by hand: always the same.
#[must_use]
pub fn fixed() -> Vec<Script> {
    vec![
        creation(),
        always(),
        growth(),
        overflow(),
        shortages(),
        rewrite(),
        repairs(),
        segments(),
        batches(),
        ends(),
        blobs(),
        leftovers(),
        budget(),
        clear(),
        recoveries(),
        reopened(),
        reserve(),
        compaction(),
        churn(),
        expiry(),
        expiring_large(),
        shrink(),
        offline_compaction(),
        offline_compaction_of_tables(),
        awaited(),
        tables(),
    ]
}

/// Tables come and go: made, filled until they grow, cleared, dropped, made again; batches across them; the main table cleared
/// beside them; compacted, closed, killed.
fn tables() -> Script {
    let inside = |table: u32, op: Op| Op::InTable(table, Box::new(op));
    let fill = |table: u32, keys: std::ops::Range<u32>, len: u32| {
        keys.map(move |k| inside(table, Op::Insert(k, value(len, table * 1000 + k))))
    };
    let across = |keys: std::ops::Range<u32>, tag: u32| {
        let change = |k: u32| (k % 3, k, (!k.is_multiple_of(7)).then(|| value(30 + k % 5, tag + k)));
        Op::ApplyAcross(keys.map(change).collect())
    };
    let mut ops = inserts(0..20, 20);
    ops.push(Op::MakeTable(1));
    ops.push(inside(1, Op::Reserve(150)));
    ops.extend(fill(1, 0..40, 25));
    ops.push(Op::MakeTable(2));
    ops.push(Op::Sync);
    ops.push(across(0..20, 100));
    ops.push(inside(2, Op::Insert(40, value(2000, 7))));
    ops.push(Op::Checkpoint);
    ops.extend(fill(2, 50..90, 15));
    ops.push(inside(1, Op::RemoveMany((0..25).collect())));
    ops.push(inside(2, Op::Expired(51, value(9, 1))));
    ops.push(Op::DropTable(1));
    // Its pages are given back. Another extent may lie there when a further checkpoint has synced the file, and not before.
    for synced in [false, true] {
        ops.push(Op::Checkpoint);
        if synced {
            ops.push(Op::Insert(1, value(21, 1)));
            ops.push(Op::Checkpoint);
        }
        ops.push(Op::MakeTable(1));
        // Pages that are not in use, where pages of the other one were.
        ops.push(inside(1, Op::Reserve(150)));
        ops.extend(fill(1, 5..12, 40));
        ops.push(Op::Checkpoint);
        ops.extend((!synced).then_some(Op::DropTable(1)));
    }
    ops.push(Op::Die);
    ops.push(across(0..15, 200));
    ops.push(inside(2, Op::Clear));
    ops.extend(fill(2, 3..9, 60));
    ops.push(Op::Maintain("compact", false, |store| store.compact().map(|_| ())));
    ops.push(Op::Clear);
    ops.extend(inserts(30..36, 10));
    ops.push(Op::Checkpoint);
    ops.push(inside(2, Op::Insert(41, value(1500, 8))));
    ops.push(Op::DropTable(2));
    ops.push(Op::MakeTable(3));
    ops.extend(fill(3, 0..30, 25));
    ops.push(Op::Reopen);
    ops.push(inside(3, Op::Clear));
    ops.push(Op::DropTable(3));
    ops.push(inside(1, Op::Update(6, value(12, 9))));
    ops.push(Op::Reopen);
    script("tables", SyncPolicy::Manual, ops)
}

/// A script with the background threads on. They sync, run checkpoints, compact, grow and prepare while the steps go on.
#[must_use]
pub fn with_threads(mut script: Script) -> Script {
    script.tuning.background = true;
    // Two thirds keep their policy; the others are synced by a thread.
    if script.sync == SyncPolicy::Manual && script.ops.len().is_multiple_of(3) {
        script.sync = SyncPolicy::Every(std::time::Duration::from_millis(1));
    }
    script.checkpoint_bytes = script.checkpoint_bytes.min(4000);
    script
}

/// Histories made at random, so many of each family.
#[must_use]
pub fn random(seed: u64, each: usize) -> Vec<Script> {
    let seeds = (0..each as u64).map(|n| mix(seed ^ mix(n)));
    seeds
        .flat_map(|seed| {
            [
                at_random("random, manual", SyncPolicy::Manual, seed),
                at_random("random, always", SyncPolicy::Always, seed ^ 1),
                bursts(seed ^ 2),
            ]
        })
        .collect()
}

/// Histories of removals whose puts lie in segments that stay, compacted and closed again and again: what a repair
/// finds in the log must be what is in the store.
#[must_use]
pub fn removals(seed: u64, count: usize) -> Vec<Script> {
    let one = |seed: u64| {
        let mut random = Random::new(seed);
        let mut ops = Vec::new();
        for round in 0..8 {
            // A segment with little that is dead, which stays while those behind it go.
            let small = round * 8..round * 8 + 1 + random.below(4) as u32;
            ops.extend(small.clone().map(|k| Op::Insert(k, value(8, round))));
            ops.extend((0..9).map(|i| Op::Insert(100 + round * 9 + i, value(400, round))));
            // Removed, or expired, which is a removal once the record is compacted away.
            let expires = random.one_in(2);
            let gone = |k| if expires { Op::Expired(k, value(8, round)) } else { Op::Remove(k) };
            ops.extend(small.filter(|_| !random.one_in(4)).map(gone));
            ops.extend((0..6 + random.below(12) as u32).map(|i| Op::Insert(90 + i % 2, value(300, round * 100 + i))));
            if random.one_in(2) {
                ops.push(Op::Insert(round * 8, value(9, round)));
            }
            ops.push(Op::Maintain("compact", false, |store| store.compact().map(|_| ())));
            ops.push(if random.one_in(2) { Op::Checkpoint } else { Op::Reopen });
        }
        ops.push(Op::Reopen);
        script("removals", SyncPolicy::Manual, ops)
    };
    (0..count as u64).map(|n| one(mix(seed ^ mix(n)))).collect()
}

/// Histories of keys that are put, removed some segments later, and compacted away: puts and removals go with the same
/// checkpoint, in segments that follow each other.
#[must_use]
pub fn emptied(seed: u64, count: usize) -> Vec<Script> {
    let one = |seed: u64| {
        let mut random = Random::new(seed);
        let mut ops = Vec::new();
        for round in 0..5 {
            let keys = round * 12..round * 12 + 3 + random.below(9) as u32;
            let mut churn =
                |tag: u32| (0..random.below(14) as u32).map(|i| Op::Insert(90 + i % 3, value(300, tag + i))).collect();
            let parts: [Vec<Op>; 3] = [1, 2, 3].map(|part| churn(round * 1000 + part * 100));
            let [before, between, behind] = parts;
            ops.extend(before);
            ops.extend(keys.clone().map(|k| Op::Insert(k, value(200, round))));
            ops.extend(between);
            ops.extend(keys.filter(|_| !random.one_in(5)).map(Op::Remove));
            ops.extend(behind);
            if random.one_in(3) {
                ops.push(Op::Die);
            }
            ops.push(Op::Maintain("compact", false, |store| store.compact().map(|_| ())));
            ops.push(if random.one_in(2) { Op::Checkpoint } else { Op::Reopen });
        }
        script("emptied", SyncPolicy::Manual, ops)
    };
    (0..count as u64).map(|n| one(mix(seed ^ mix(n)))).collect()
}

/// A new store, hardly used.
fn creation() -> Script {
    script("creation", SyncPolicy::Manual, vec![Op::Insert(1, value(20, 1)), Op::Sync, Op::Insert(2, value(20, 2))])
}

/// Each write is durable when it returns.
fn always() -> Script {
    let mut ops = inserts(0..12, 30);
    ops.extend([Op::Remove(3), Op::Remove(77), Op::Update(4, value(50, 9)), Op::Insert(5, value(0, 0))]);
    ops.push(Op::Apply(vec![(1, None), (2, Some(value(9, 9))), (40, Some(value(90, 1)))]));
    ops.push(Op::Checkpoint);
    ops.extend(inserts(12..20, 200));
    ops.push(Op::RemoveMany(vec![6, 7, 8, 50]));
    ops.extend([Op::Reopen, Op::Insert(60, value(10, 1)), Op::Clear, Op::Insert(61, value(10, 1))]);
    // Of more than a segment, then more in the next one.
    ops.extend([batch(62..76, 500, 2), Op::Insert(80, value(10, 1))]);
    script("always", SyncPolicy::Always, ops)
}

/// Several doublings, with checkpoints in the middle of them.
fn growth() -> Script {
    let mut ops = Vec::new();
    for round in 0..8 {
        ops.extend(inserts(round * 16..round * 16 + 16, 12));
        ops.push(match round {
            1 | 4 | 6 => Op::Checkpoint,
            2 => Op::Die,
            _ => Op::Sync,
        });
    }
    ops.extend((0..10).map(Op::Remove));
    ops.push(Op::Reopen);
    ops.extend(inserts(200..206, 12));
    script("growth", SyncPolicy::Manual, ops)
}

/// Attempts that end at pages they ask for, with a checkpoint before the next one: growth, chains, batches, removals, shrinking.
fn shortages() -> Script {
    let mut ops = inserts(0..40, 8);
    ops.push(batch(40..60, 8, 1));
    ops.push(Op::RemoveMany((0..30).collect()));
    ops.push(Op::Die);
    ops.extend((30..55).map(Op::Remove));
    ops.push(Op::Maintain("shrink", false, |store| store.shrink_to_fit()));
    ops.extend([Op::Clear, Op::Insert(1, value(8, 2)), Op::Reopen]);
    let mut script = script("shortages", SyncPolicy::Manual, ops);
    script.tuning.shortages = 5;
    script
}

/// Chains of overflow pages, which removals trim again.
fn overflow() -> Script {
    let mut ops = inserts(0..70, 8);
    ops.extend([Op::Checkpoint, Op::Sync]);
    ops.extend((0..60).step_by(3).map(Op::Remove));
    ops.push(Op::Checkpoint);
    ops.extend((1..60).step_by(3).map(Op::Remove));
    ops.push(Op::Sync);
    ops.extend(inserts(100..130, 8));
    ops.push(Op::Checkpoint);
    ops.push(batch(130..150, 8, 0));
    let mut script = script("overflow", SyncPolicy::Manual, ops);
    script.tuning.grow_permille = 4000;
    script.tuning.chain_help = 8;
    script
}

/// Removals in bulk, and pages that are rewritten for them.
fn rewrite() -> Script {
    let mut ops = inserts(0..40, 8);
    ops.extend([Op::Checkpoint, Op::RemoveMany((0..30).collect()), Op::Sync]);
    ops.extend(inserts(40..60, 8));
    ops.extend([Op::RemoveMany((35..55).collect()), Op::Checkpoint, Op::RemoveMany((55..60).collect())]);
    ops.extend(inserts(0..10, 8));
    let mut script = script("rewrite", SyncPolicy::Manual, ops);
    script.tuning.grow_permille = 2000;
    script
}

/// A few removals of each full page at once: the repair of one moves the entry that the next one removes.
fn repairs() -> Script {
    let mut ops = vec![batch(0..66, 8, 0), Op::Checkpoint];
    for round in 0..8u32 {
        let some: Vec<u32> = (0..8).map(|i| (round * 5 + i * 8) % 66).collect();
        ops.push(Op::RemoveMany(some.clone()));
        if round % 3 == 1 {
            ops.push(Op::Sync);
        }
        ops.push(Op::Apply(some.into_iter().map(|k| (k, Some(value(8, round)))).collect()));
    }
    let mut script = script("repairs", SyncPolicy::Manual, ops);
    script.tuning.grow_permille = 1300;
    script
}

/// One segment after the other, with and without a sync between.
fn segments() -> Script {
    let mut ops = Vec::new();
    for round in 0..6u32 {
        ops.extend((0..7).map(|i| Op::Insert(i * 5 + round, value(700, round * 10 + i))));
        match round {
            0 | 3 => ops.push(Op::Sync),
            2 => ops.extend([Op::Checkpoint, Op::Remove(2)]),
            4 => ops.push(Op::Die),
            _ => {}
        }
    }
    ops.extend([Op::Sync, Op::Reopen, Op::Insert(1, value(900, 1))]);
    script("segments", SyncPolicy::Manual, ops)
}

/// Batches: small, of more than a segment, of removals, with large values.
fn batches() -> Script {
    let mut ops = vec![batch(0..5, 20, 0), Op::Sync, batch(3..20, 600, 100), batch(0..3, 20, 200)];
    ops.push(Op::Apply((0..10).map(|k| (k, None)).collect()));
    ops.extend([Op::Checkpoint, batch(0..12, 300, 300), Op::Insert(50, value(40, 1)), batch(10..14, 1500, 400)]);
    ops.extend([Op::Die, batch(20..60, 8, 500), Op::Sync]);
    ops.push(Op::Apply(vec![(1, Some(value(2000, 1))), (2, None), (3, Some(value(10, 1)))]));
    script("batches", SyncPolicy::Manual, ops)
}

/// Batches that do not fit behind each other: each leaves some pages of its segment unwritten, which are cut off. The active
/// segment is not, whatever gives space back meanwhile.
fn ends() -> Script {
    let mut ops = vec![batch(0..9, 1000, 0), batch(4..13, 1000, 100), Op::Sync, batch(0..10, 1000, 200)];
    ops.extend([Op::Checkpoint, batch(2..11, 1000, 300), Op::Insert(40, value(900, 1)), batch(0..9, 1000, 400)]);
    ops.extend([Op::Die, batch(20..29, 1000, 500), batch(20..29, 990, 600), Op::Sync, Op::Reopen]);
    ops.extend([
        batch(0..5, 2000, 700),
        Op::Remove(3),
        batch(30..35, 2000, 800),
        Op::Checkpoint,
        batch(1..6, 2000, 900),
        Op::Maintain("compact", false, |store| store.compact().map(|_| ())),
    ]);
    ops.extend(inserts(50..58, 900));
    let mut script = script("ends", SyncPolicy::Manual, ops);
    script.segment_bytes = 16 << 10;
    script
}

/// Values in files of their own: written, replaced, removed, cleared.
fn blobs() -> Script {
    let mut ops = vec![Op::Insert(1, value(1500, 1)), Op::Insert(2, value(5000, 2)), Op::Insert(1, value(1100, 3))];
    ops.extend([Op::Checkpoint, Op::Insert(2, value(10, 4)), Op::Remove(1), Op::Insert(3, value(1025, 5))]);
    ops.extend([Op::Checkpoint, Op::Update(3, value(1300, 6)), Op::Die, Op::Insert(4, value(1200, 7)), Op::Sync]);
    ops.extend([Op::Clear, Op::Insert(5, value(1200, 8)), Op::Checkpoint, Op::Insert(5, value(1400, 9)), Op::Reopen]);
    script("blobs", SyncPolicy::Manual, ops)
}

/// More large values are freed at once than a checkpoint lists, and the process dies before the next one.
fn leftovers() -> Script {
    let large = |keys: std::ops::Range<u32>, tag: u32| keys.map(move |k| Op::Insert(k, value(1100 + k, tag)));
    let mut ops: Vec<Op> = large(0..7, 1).collect();
    ops.extend([Op::Checkpoint, Op::Clear]);
    ops.extend(large(10..13, 2));
    ops.extend([Op::Checkpoint, Op::Insert(11, value(1300, 3)), Op::Die, Op::Insert(14, value(1200, 4)), Op::Sync]);
    ops.extend(large(20..25, 5));
    ops.extend([Op::RemoveMany((10..25).collect()), Op::Insert(1, value(1500, 6)), Op::Checkpoint, Op::Die]);
    ops.extend(large(30..34, 7));
    ops.extend([Op::Clear, Op::Die, Op::Insert(2, value(1100, 8)), Op::Checkpoint, Op::Die, Op::Reopen]);
    let mut script = script("leftovers", SyncPolicy::Manual, ops);
    script.tuning.listed_blobs_max = 2;
    script
}

/// Checkpoints by budget, in the middle of everything.
fn budget() -> Script {
    let mut ops = inserts(0..50, 60);
    ops.push(Op::Sync);
    ops.extend((0..50).step_by(2).map(Op::Remove));
    ops.extend(inserts(30..60, 100));
    ops.push(batch(0..30, 100, 1000));
    let mut script = script("budget", SyncPolicy::Manual, ops);
    script.checkpoint_bytes = 1500;
    script
}

/// Everything is removed: before and after a checkpoint, during growth, twice.
fn clear() -> Script {
    let mut ops = inserts(0..20, 20);
    ops.extend([Op::Sync, Op::Clear, Op::Insert(1, value(5, 1)), Op::Checkpoint]);
    ops.extend(inserts(0..42, 20));
    ops.extend([Op::Clear, Op::Clear, Op::Sync, Op::Insert(2, value(1200, 1)), Op::Die, Op::Insert(3, value(5, 5))]);
    ops.extend([Op::Checkpoint, Op::Clear, Op::Checkpoint, Op::Insert(4, value(5, 5)), Op::Reopen, Op::Clear]);
    script("clear", SyncPolicy::Manual, ops)
}

/// One recovery after the other: with nothing done between, with a little, with unsynced writes.
fn recoveries() -> Script {
    let mut ops = vec![Op::Die, Op::Insert(1, value(9, 1)), Op::Die, Op::Die, Op::Insert(2, value(9, 1)), Op::Sync];
    ops.extend([Op::Die, Op::Insert(3, value(9, 1)), Op::Remove(1), Op::Die, Op::Checkpoint, Op::Die]);
    ops.extend([Op::Insert(4, value(3000, 1)), Op::Insert(5, value(600, 1)), Op::Die, Op::Sync, Op::Reopen, Op::Die]);
    ops.extend([Op::Insert(6, value(9, 1)), Op::Die, Op::Insert(7, value(9, 1))]);
    script("recoveries", SyncPolicy::Manual, ops)
}

/// Closed and opened again and again, and then a few writes that nobody syncs, at all places of a sector: records of the
/// length that the layer writes after a recovery, behind which one of before the crash must not count again.
fn reopened() -> Script {
    let mut ops = Vec::new();
    for round in 0..20 {
        ops.extend([Op::Insert(1 + round % 5, value(24 + round * 37 % 300, round)), Op::Reopen]);
        ops.extend((0..3).map(|i| Op::Insert(101 + (round * 3 + i) % 11, value(48, round * 10 + i))));
    }
    script("reopened", SyncPolicy::Manual, ops)
}

/// Room made ahead.
fn reserve() -> Script {
    let mut ops = inserts(0..5, 20);
    ops.extend([Op::Reserve(60), Op::Sync, batch(5..40, 20, 0), Op::Checkpoint, Op::Reserve(150)]);
    ops.extend(inserts(40..46, 20));
    ops.extend([Op::Die, Op::Insert(50, value(20, 1)), Op::Sync]);
    script("reserve", SyncPolicy::Manual, ops)
}

/// Compaction on demand: of puts, removals, a clear and links to large values; after a checkpoint and before one.
fn compaction() -> Script {
    let compact = || Op::Maintain("compact", false, |store| store.compact().map(|_| ()));
    let mut ops = Vec::new();
    for round in 0..4u32 {
        ops.extend((0..8).map(|i| Op::Insert(i * 3 + round, value(400, round * 10 + i))));
        ops.extend([Op::Remove(round * 2), Op::Insert(40 + round % 2, value(1200, round))]);
        if round == 1 {
            ops.push(Op::Sync);
        }
    }
    ops.extend([compact(), Op::Insert(1, value(400, 99)), compact(), Op::Die]);
    ops.extend((0..16).map(|i| Op::Insert(i, value(300, 500 + i))));
    ops.extend([compact(), Op::Remove(5), Op::Checkpoint, Op::Clear]);
    ops.extend((0..12).map(|i| Op::Insert(i, value(500, 600 + i))));
    ops.extend([compact(), Op::Reopen, compact(), Op::Insert(2, value(10, 1)), Op::Sync]);
    script("compaction", SyncPolicy::Manual, ops)
}

/// The same keys again and again: the log stays in its bounds only because segments are emptied and used again.
fn churn() -> Script {
    let mut ops = Vec::new();
    for round in 0..7u32 {
        ops.extend((0..9).map(|i| Op::Insert(i, value(600, round * 10 + i))));
        ops.extend([Op::Remove(round), if round % 3 == 2 { Op::Die } else { Op::Sync }]);
    }
    let mut script = script("churn", SyncPolicy::Manual, ops);
    script.log_ratio = 1.1;
    script.checkpoint_bytes = 5000;
    script
}

/// Expired records over and among others, which compaction removes from the index by the way, with and without older
/// segments; and records that expire far in the future, which it moves.
fn expiry() -> Script {
    let mut ops = Vec::new();
    for round in 0..6u32 {
        ops.extend((0..4).map(|i| Op::Insert(i + round, value(500, round * 20 + i))));
        ops.extend((2..9).map(|i| Op::Expired(i + round, value(if i == 8 { 1200 } else { 500 }, round * 20 + i))));
        ops.extend(
            (12..15).map(|i| Op::Lasting(i + round % 2, value(if i == 14 { 1100 } else { 60 }, round * 20 + i))),
        );
        ops.push(match round {
            1 => Op::Die,
            2 => Op::Maintain("compact", false, |store| store.compact().map(|_| ())),
            3 => Op::Checkpoint,
            4 => Op::Reopen,
            _ => Op::Sync,
        });
    }
    let mut script = script("expiry", SyncPolicy::Manual, ops);
    script.log_ratio = 1.1;
    script.checkpoint_bytes = 5000;
    script
}

/// Large values that expire while the store is used: they are freed by writers, by `compact`, and where there are threads
/// by nobody's call. Some are over values without a deadline, some are set anew before they expire or after.
fn expiring_large() -> Script {
    // Where there are threads, until they have removed all that has expired. A deadline to come keeps them from resting.
    let freed = || {
        Op::Maintain("wait for the background", false, |store| {
            let expired = || {
                let mut entries = store.iter();
                entries.by_ref().for_each(drop);
                entries.expired()
            };
            let started = std::time::Instant::now();
            while !store.rest().1 && expired() > 0 {
                assert!(started.elapsed().as_secs() < 600, "what has expired stays");
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            Ok(())
        })
    };
    let mut ops = Vec::new();
    for round in 0..4u32 {
        let tag = round * 20;
        ops.extend((0..5).map(|k| Op::Insert(k + round, value(if k % 2 == 0 { 1200 } else { 60 }, tag + k))));
        ops.extend((2..9).map(|k| Op::Brief(k + round, value(1100 + k, tag + k), round)));
        ops.extend([Op::Lasting(20 + round, value(1300, tag)), Op::Insert(30 + round % 2, value(1500, tag))]);
        ops.extend([Op::Insert(3 + round, value(1400, tag)), Op::Brief(40, value(1100, tag), round + 1)]);
        ops.extend([Op::Sync, Op::Checkpoint, Op::Reopen, Op::Die].get(round as usize).cloned());
        ops.extend([Op::Pass(round), Op::Insert(5 + round, value(1250, tag + 9)), freed()]);
        ops.extend((0..6).map(|i| Op::Insert(50 + i, value(300, tag + i))));
        ops.push(Op::Maintain("compact", false, |store| store.compact().map(|_| ())));
        ops.extend([Op::Remove(6 + round), if round % 2 == 0 { Op::Die } else { Op::Checkpoint }]);
    }
    let mut script = script("expiring large", SyncPolicy::Manual, ops);
    script.checkpoint_bytes = 5000;
    script.tuning.listed_blobs_max = 5;
    script
}

/// The table grows, shrinks, and grows again.
fn shrink() -> Script {
    let mut ops = inserts(0..110, 10);
    ops.extend([Op::Checkpoint, Op::RemoveMany((20..110).collect()), Op::Sync]);
    ops.extend((10..20).map(Op::Remove));
    ops.extend([Op::Checkpoint, Op::Insert(200, value(10, 1)), Op::Remove(200), Op::Checkpoint, Op::Remove(1)]);
    ops.extend(inserts(100..150, 10));
    let fit = || Op::Maintain("shrink to fit", false, |store| store.shrink_to_fit());
    ops.extend([Op::RemoveMany((100..150).collect()), fit(), Op::Insert(7, value(10, 7)), Op::Checkpoint]);
    ops.extend([Op::Reserve(80), Op::Sync, fit(), Op::Die, fit()]);
    ops.extend([Op::Clear, Op::Checkpoint, Op::Insert(1, value(10, 2)), Op::Checkpoint, Op::Reopen]);
    ops.extend(inserts(300..330, 10));
    script("shrink", SyncPolicy::Manual, ops)
}

fn compact_offline() -> Op {
    Op::Offline("offline compaction", |path, options| {
        tophash::compact::compact_disk(options, path, &tophash::compact::Options::new(), tophash::Progress::ignore)
            .map(|_| ())
    })
}

/// Several tables written anew: one empty, one dropped, one cleared, with large values and records that have expired.
fn offline_compaction_of_tables() -> Script {
    let inside = |table: u32, op: Op| Op::InTable(table, Box::new(op));
    let fill = |table: u32, keys: std::ops::Range<u32>, len: u32| {
        keys.map(move |k| inside(table, Op::Insert(k, value(len, table * 1000 + k))))
    };
    let mut ops = inserts(0..10, 60);
    ops.extend([1, 2, 3].map(Op::MakeTable));
    ops.extend(fill(1, 0..25, 40));
    ops.extend(fill(2, 5..15, 40));
    ops.extend([inside(1, Op::Insert(30, value(1500, 1))), inside(1, Op::Expired(3, value(9, 1))), Op::Remove(2)]);
    ops.extend([inside(1, Op::RemoveMany((5..15).collect())), Op::DropTable(2), compact_offline()]);
    ops.extend([inside(3, Op::Insert(1, value(20, 2))), Op::Die, inside(1, Op::Remove(30)), Op::MakeTable(2)]);
    ops.extend([inside(1, Op::Clear), Op::Sync, compact_offline(), inside(2, Op::Insert(1, value(20, 3))), Op::Sync]);
    script("offline compaction of tables", SyncPolicy::Manual, ops)
}

/// The store written anew beside itself: after a clean end, twice, and with large values.
fn offline_compaction() -> Script {
    let compact = compact_offline;
    let mut ops = inserts(0..30, 100);
    ops.extend((0..20).step_by(2).map(Op::Remove));
    ops.extend([Op::Insert(1, value(1500, 1)), compact(), Op::Insert(2, value(1200, 2)), Op::Die]);
    ops.extend([Op::Remove(1), Op::Insert(50, value(30, 5)), compact(), compact(), Op::Clear, Op::Sync, compact()]);
    ops.extend([Op::Insert(3, value(30, 5)), Op::Sync]);
    script("offline compaction", SyncPolicy::Manual, ops)
}

/// Much at once: growth, overflow and checkpoints of many pages, with few syncs.
fn bursts(seed: u64) -> Script {
    let mut random = Random::new(seed);
    let mut ops = Vec::new();
    for tag in 0..36 {
        let key = random.below(100) as u32;
        let len = 4 + random.below(60) as u32;
        match random.below(16) {
            0..6 => ops.push(batch(key..key + 12 + random.below(16) as u32, len, tag * 1000)),
            6..9 => ops.extend((key..key + 6).map(|k| Op::Insert(k, value(len, tag)))),
            9 | 10 => ops.extend((key..key + 6).map(Op::Remove)),
            11 => ops.push(Op::RemoveMany((key..key + 30).collect())),
            12 | 13 => ops.push(Op::Checkpoint),
            14 => ops.push(Op::Die),
            _ if random.one_in(4) => ops.push(Op::Clear),
            _ => ops.push(Op::Sync),
        }
    }
    let mut script = script("random, bursts", SyncPolicy::Manual, ops);
    script.tuning.grow_permille = [600, 820, 1200, 3000][random.below(4) as usize];
    script.tuning.home_buckets = [2, 3, 5][random.below(3) as usize];
    script.tuning.level_min = random.below(3) as u8;
    script.checkpoint_bytes = [3000, 1 << 20][random.below(2) as usize];
    script.segment_bytes = [4096, 8192, 16384][random.below(3) as usize];
    leave_tombstones(&mut script, &mut random);
    script
}

/// A history that is different for each seed.
/// Futures of every kind, waited for: across segments, beside blobs, before deaths.
fn awaited() -> Script {
    let awaited = |op: Op| Op::Awaited(Box::new(op));
    let mut ops: Vec<Op> = inserts(0..6, 60);
    ops.extend(inserts(0..4, 90).into_iter().map(awaited));
    ops.extend([Op::Insert(7, value(700, 1)), awaited(Op::Insert(8, value(900, 2))), awaited(Op::Remove(7))]);
    ops.extend([Op::Insert(9, value(1500, 3)), awaited(batch(10..16, 300, 100)), Op::Die, awaited(Op::Remove(9))]);
    ops.extend([
        awaited(Op::Remove(77)),
        Op::Remove(2),
        awaited(Op::Update(3, value(80, 9))),
        awaited(Op::Sync),
        awaited(Op::Insert(5, value(1200, 4))),
    ]);
    ops.extend([awaited(batch(20..40, 300, 200)), Op::Insert(41, value(20, 5)), awaited(Op::Sync), Op::Reopen]);
    ops.extend([awaited(Op::Insert(42, value(20, 6))), Op::Insert(43, value(20, 7))]);
    script("awaited", SyncPolicy::Manual, ops)
}

fn at_random(name: &'static str, sync: SyncPolicy, seed: u64) -> Script {
    let mut random = Random::new(seed);
    let always = sync == SyncPolicy::Always;
    let mut ops = Vec::new();
    for tag in 0..if always { 40 } else { 90 } {
        let key = random.below(48) as u32;
        let len = match random.below(12) {
            0 => 1100,
            1..4 => 300,
            _ => 20,
        };
        ops.push(match random.below(24) {
            0..11 => Op::Insert(key, value(len, tag)),
            11 | 12 => Op::Update(key, value(len, tag)),
            13..16 => Op::Remove(key),
            16 if random.one_in(2) => Op::Expired(key, value(len, tag)),
            16 => Op::Lasting(key, value(len, tag)),
            17 => Op::RemoveMany((key..key + 12).collect()),
            18 => batch(key..key + 1 + random.below(10) as u32, len, tag * 100),
            19 if random.one_in(2) => Op::Maintain("compact", false, |store| store.compact().map(|_| ())),
            19 => Op::Checkpoint,
            20 => Op::Die,
            21 if random.one_in(4) => Op::Clear,
            22 if random.one_in(2) => Op::Reopen,
            _ => Op::Sync,
        });
    }
    // Some of those that can be awaited are.
    for op in &mut ops {
        if matches!(op, Op::Insert(..) | Op::Update(..) | Op::Remove(_) | Op::Apply(_) | Op::Sync) && random.one_in(6) {
            *op = Op::Awaited(Box::new(op.clone()));
        }
    }
    let mut script = script(name, sync, ops);
    script.tuning.grow_permille = [500, 820, 1500][random.below(3) as usize];
    script.checkpoint_bytes = [2000, 8000, 1 << 20][random.below(3) as usize];
    script.segment_bytes = [4096, 4096, 8192][random.below(3) as usize];
    script.tuning.listed_blobs_max = [1, 3, 8192][random.below(3) as usize];
    leave_tombstones(&mut script, &mut random);
    script
}

/// One script in two: `remove_many` leaves tombstones however few keys a page loses, and only an eighth of them is
/// rewritten.
fn leave_tombstones(script: &mut Script, random: &mut Random) {
    if random.one_in(2) {
        (script.tuning.large_part_permille, script.tuning.rewrite_permille) = (0, 125);
    }
}
