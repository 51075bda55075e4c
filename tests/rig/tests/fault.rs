//! The fault layer over all scripts. See `tophash_rig::fault_layer`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tophash_rig::fault_layer::{Case, Tally, cases, run};
use tophash_rig::random::{Random, mix};
use tophash_rig::script::Script;
use tophash_rig::{full, scale, scripts, seed};

/// Faults tried at scale 1: a sample of all.
const SAMPLE: u64 = 350;
/// Violations that are told.
const VIOLATIONS_MAX: usize = 5;

#[test]
fn nothing_is_lost_whatever_call_fails() {
    let (seed, scale, started) = (seed(), scale(), Instant::now());
    let only = std::env::var("TOPHASH_TEST_SCRIPT").ok();
    let mut scripts = scripts::fixed();
    scripts.extend(scripts::random(seed, 1));
    scripts.retain(|script| only.as_ref().is_none_or(|only| only == script.name));
    let mut total = Tally::default();
    let mut all: Vec<(&Script, Case)> = Vec::new();
    for script in &scripts {
        let cases = cases(script, seed).unwrap_or_else(|what| panic!("{}: {what}", script.name));
        total.calls += cases.last().map_or(0, |case| case.at + 1);
        all.extend(cases.into_iter().map(|case| (script, case)));
    }
    if scale < 10 {
        let wanted = SAMPLE * scale as u64;
        let mut random = Random::new(seed);
        let of = all.len() as u64;
        all.retain(|_| random.below(of) < wanted);
    }
    // The cheap ones and the dear ones are spread over the threads.
    all.sort_unstable_by_key(|(_, case)| mix(case.at));

    let (next, total, violations) = (AtomicUsize::new(0), Mutex::new(total), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, std::num::NonZero::get) {
            scope.spawn(|| {
                while let Some((script, case)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if violations.lock().len() >= VIOLATIONS_MAX {
                        return;
                    }
                    match run(script, seed, *case) {
                        Ok(tally) => total.lock().add(&tally),
                        Err(what) => violations.lock().push(what),
                    }
                }
            });
        }
    });
    let (total, violations) = (total.into_inner(), violations.into_inner());
    println!("faults: {total}, seed: {seed}, scale: {scale} ({:.1?})", started.elapsed());
    assert!(violations.is_empty(), "TOPHASH_TEST_SEED={seed}: violations\n{}", violations.join("\n"));
    if only.is_none() {
        let tested = [total.faults, total.reopened, total.poisoned, total.errors, total.removals];
        assert!(tested.iter().all(|&n| n > 0), "too little was tested: {total}");
    }
}

#[test]
fn a_full_disk_is_not_the_end() {
    let seed = seed();
    // Stores of several shapes: with blobs or without, with tables that grow or do not.
    for script in scripts::fixed() {
        full::check(&script, seed)
            .unwrap_or_else(|what| panic!("TOPHASH_TEST_SEED={seed}, as in {}: {what}", script.name));
    }
}
