//! What ships with threads, on the simulated disk: recoveries by several of them in chosen orders.

use std::time::Instant;

use tophash::PartPlan;
use tophash_rig::parts::{Kind, Tally, leave, orders};
use tophash_rig::{scale, seed};

/// **Recovery lost a quarter of acknowledged, synced records.** Each thread of a replay loaded the table's growth word itself
/// and partitioned the tail with it. A thread that began late saw a table that the others had doubled meanwhile: some
/// changes belonged to two threads then, others to none. No layer saw it, because all ran recoveries without
/// threads, and none had a tail of the 10,000 records from which on there are several.
#[test]
fn every_order_of_the_parts_recovers_the_same() {
    let (seed, scale, started) = (seed(), scale() as u64, Instant::now());
    let (mut total, mut violations) = (Tally::default(), Vec::new());
    let large = scale >= 10;
    let sizes: &[u64] = if large { &[300, 3_000, 20_000, 100_000] } else { &[300, 1_500] };
    for (round, &changes) in sizes.iter().enumerate() {
        for (n, kind) in Kind::ALL.into_iter().enumerate() {
            let left = leave(kind, changes, seed ^ (round * 8 + n) as u64).unwrap_or_else(|what| panic!("{what}"));
            for parts in if large { vec![2, 3, 4, 8] } else { vec![2 + round] } {
                for (i, order) in orders(parts).into_iter().enumerate() {
                    for read_only in [false, true] {
                        if !large && read_only != i.is_multiple_of(2) {
                            continue;
                        }
                        match left.recover(PartPlan { parts, order }, read_only) {
                            Ok(tally) => total.add(&tally),
                            Err(what) => violations.push(what),
                        }
                    }
                }
            }
        }
    }
    println!("crash, parts of a replay: {total}, seed: {seed}, scale: {scale} ({:.1?})", started.elapsed());
    violations.truncate(10);
    assert!(violations.is_empty(), "TOPHASH_TEST_SEED={seed}: violations\n{}", violations.join("\n"));
    assert!(total.doublings > 0 && total.read_only > 0, "too little was tested: {total}");
}
