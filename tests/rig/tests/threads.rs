//! What ships with threads, on the simulated disk: recoveries by several of them in chosen orders, histories and crashes
//! beside background threads, and what a process lacks for a moment.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tophash::PartPlan;
use tophash_rig::parts::{Kind, Tally, leave, orders};
use tophash_rig::random::mix;
use tophash_rig::{awaited, churn, closed, crash, delays, resources, scale, scripts, seed};

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

/// Runs work over many threads until there is no more, or too much is wrong.
fn each<T: Sync>(all: &[T], work: impl Fn(&T) -> Result<(), String> + Sync) -> Vec<String> {
    let (next, violations) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, std::num::NonZero::get) {
            scope.spawn(|| {
                while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if violations.lock().len() >= 8 {
                        return;
                    }
                    if let Err(what) = work(one) {
                        violations.lock().push(what);
                    }
                }
            });
        }
    });
    violations.into_inner()
}

/// The crash layer with everything on that ships: checkpoints, compaction, growth, preparation and syncs by threads. The
/// moments at which the power fails come from the disk's own calls, whichever thread makes them, so a run
/// is judged by itself and does not repeat.
#[test]
fn nothing_acknowledged_is_lost_beside_background_threads() {
    let (seed, scale, started) = (seed(), scale(), Instant::now());
    let mut all = scripts::fixed();
    all.extend(scripts::random(seed, if scale >= 10 { scale } else { 1 }));
    let only = std::env::var("TOPHASH_TEST_SCRIPT").ok();
    all.retain(|script| only.as_ref().is_none_or(|only| only == script.name));
    let mut total = crash::Tally::default();
    let mut violations = Vec::new();
    let mut settings = crash::Settings::of_scale(scale, seed);
    // Recoveries that start threads take longer: some of the boundaries.
    settings.boundary_one_in = if scale >= 10 { 4 } else { 120 };
    settings.depth.exhaustive = settings.depth.exhaustive.min(8);
    for script in all {
        let outcome = crash::run(&scripts::with_threads(script), &settings);
        total.add(&outcome.tally);
        violations.extend(outcome.violations);
    }
    println!("crash, with threads: {total}, seed: {seed}, scale: {scale} ({:.1?})", started.elapsed());
    violations.truncate(8);
    assert!(violations.is_empty(), "TOPHASH_TEST_SEED={seed}: violations\n{}", violations.join("\n"));
    assert!(total.recoveries > 0, "too little was tested: {total}");
}

/// Histories without crashes but for deaths of the process, compared step by step, with every background thread on.
#[test]
fn histories_with_background_threads_agree_with_a_map() {
    let (seed, scale, started) = (seed(), scale(), Instant::now());
    let mut all = scripts::fixed();
    all.extend(scripts::random(seed, 4 * scale));
    let all: Vec<_> = all.into_iter().map(scripts::with_threads).collect();
    let steps = AtomicUsize::new(0);
    let violations = each(&all, |script| {
        let done = churn::run(script, seed).map_err(|what| format!("{}: {what}", script.name))?;
        steps.fetch_add(done as usize, Ordering::Relaxed);
        Ok(())
    });
    let steps = steps.into_inner();
    println!(
        "model, with threads on the simulated disk: {} histories, {steps} steps, seed: {seed} ({:.1?})",
        all.len(),
        started.elapsed()
    );
    assert!(violations.is_empty(), "TOPHASH_TEST_SEED={seed}: violations\n{}", violations.join("\n"));
}

/// What a process lacks for a moment, at calls of the scripts that can meet it: once, for some steps, until the end.
/// Nothing of it is permanent.
///
/// **A moment without descriptors, mappings or memory became permanent damage**: a table that grew marked records that it could
/// not read just then as damaged for ever, and a checkpoint that met it while it freed space poisoned the store. No layer
/// had a fault that passes: all were of the device, after which nothing is as before.
#[test]
fn nothing_of_a_moment_is_permanent() {
    let (seed, scale, started) = (seed(), scale(), Instant::now());
    let mut all = scripts::fixed();
    all.extend(scripts::random(seed, 1));
    let only = std::env::var("TOPHASH_TEST_SCRIPT").ok();
    all.retain(|script| only.as_ref().is_none_or(|only| only == script.name));
    let mut cases = Vec::new();
    for script in &all {
        let calls = resources::calls(script, seed).unwrap_or_else(|what| panic!("{}: {what}", script.name));
        cases.extend(resources::cases(&calls).into_iter().map(|case| (script, case)));
    }
    // Some of them, other ones for each seed.
    let (calls, most) = (cases.len(), if scale >= 10 { 1_500 * scale } else { 150 * scale });
    cases.sort_by_cached_key(|(script, case)| mix(seed ^ mix(script.ops.len() as u64) ^ case.number()));
    cases.truncate(most);
    let total = Mutex::new(resources::Tally::default());
    let violations = each(&cases, |(script, case)| {
        let done = resources::run(script, seed, *case)?;
        total.lock().add(&done);
        Ok(())
    });
    let total = total.into_inner();
    println!(
        "faults, of the moment: {} cases of {calls}, {total}, seed: {seed}, scale: {scale} ({:.1?})",
        cases.len(),
        started.elapsed()
    );
    assert!(violations.is_empty(), "TOPHASH_TEST_SEED={seed}: violations\n{}", violations.join("\n"));
    assert!(total.errors > 0 && total.repeated > 0, "too little was tested: {total}");
}

/// The layer that notices a lost wake-up and a future that is ready too early, with no rule broken.
#[test]
fn awaited_changes_are_woken_and_durable() {
    let (seed, directory) = (seed(), tempfile::tempdir().expect("a temporary directory"));
    let check = |n: u64| awaited::check(&directory.path().join(n.to_string()), seed ^ n);
    let woken: u64 = (0..4 * scale() as u64).map(|n| check(n).unwrap_or_else(|what| panic!("{what}"))).sum();
    println!("threads, awaited changes: {woken} woken, seed: {seed}");
    assert!(woken > 0, "too little was tested");
}

/// The layer that notices a store that is closed beside writers, with no rule broken.
#[test]
fn closing_beside_writers_loses_nothing() {
    let (seed, directory) = (seed(), tempfile::tempdir().expect("a temporary directory"));
    let rounds = scale() as u64;
    let check = |n: u64| closed::check(&directory.path().join(n.to_string()), seed ^ n);
    let acknowledged: u64 = (0..rounds).map(|n| check(n).unwrap_or_else(|what| panic!("{what}"))).sum();
    println!("threads, closed beside writers: {acknowledged} inserts acknowledged, seed: {seed}");
    assert!(acknowledged > 0, "too little was tested");
}

/// A thread that compacts, frees expired large values or counts deadlines is held between what it has read and the lock under
/// which it acts. No layer had more than a few microseconds there.
#[test]
fn a_held_thread_undoes_nothing_of_what_others_did() {
    let (seed, scale, started) = (seed(), scale() as u64, Instant::now());
    let runs: Vec<u64> = (0..200 * scale).map(|n| mix(seed ^ n)).collect();
    let total = Mutex::new(delays::Tally::default());
    let violations = each(&runs, |&seed| {
        let done = delays::run(seed)?;
        total.lock().add(&done);
        Ok(())
    });
    let delays::Tally { held, steps, exact } = total.into_inner();
    println!(
        "threads, delays: {} histories, {held} threads held, {steps} steps beside them, {exact} exact figures, seed: {seed} ({:.1?})",
        runs.len(),
        started.elapsed()
    );
    assert!(violations.is_empty(), "TOPHASH_TEST_SEED={seed}: violations\n{}", violations.join("\n"));
    assert!(held > 0 && exact > 0, "too little was tested");
}
