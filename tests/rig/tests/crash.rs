//! The crash layer over all scripts. See `tophash_rig::crash`.

use std::time::Instant;

use tophash_rig::crash::{Outcome, Settings, Tally, run, run_freed, run_killed};
use tophash_rig::script::Script;
use tophash_rig::{scale, scripts, seed};

/// Runs scripts through a layer, and prints a line for each name. `TOPHASH_TEST_SCRIPT` names the only one to run.
fn run_all(layer: &str, run: fn(&Script, &Settings) -> Outcome, scripts: &[Script], seed: u64) -> (Tally, Vec<String>) {
    let settings = Settings::of_scale(scale(), seed);
    let only = std::env::var("TOPHASH_TEST_SCRIPT").ok();
    let (mut total, mut violations) = (Tally::default(), Vec::new());
    let mut names: Vec<&str> = scripts.iter().map(|script| script.name).collect();
    names.sort_unstable();
    names.dedup();
    for name in names.into_iter().filter(|&name| only.as_ref().is_none_or(|only| only == name)) {
        let (began, mut tally) = (Instant::now(), Tally::default());
        let named = scripts.iter().filter(|script| script.name == name);
        let count = named.clone().count();
        for script in named {
            let outcome = run(script, &settings);
            tally.add(&outcome.tally);
            violations.extend(outcome.violations);
        }
        println!("{layer}, {name} x {count}: {tally} ({:.1?})", began.elapsed());
        total.add(&tally);
    }
    (total, violations)
}

#[test]
fn nothing_acknowledged_is_lost_at_any_boundary() {
    let (seed, scale, started) = (seed(), scale(), Instant::now());
    let mut scripts = scripts::fixed();
    scripts.extend(scripts::random(seed, scale));
    let (total, violations) = run_all("crash", run, &scripts, seed);
    println!("crash, total: {total}, seed: {seed}, scale: {scale} ({:.1?})", started.elapsed());
    let told = violations.join("\n");
    assert!(violations.is_empty(), "TOPHASH_TEST_SEED={seed}: {} violations\n{told}", violations.len());
    let one_script = std::env::var_os("TOPHASH_TEST_SCRIPT").is_some();
    let tested = total.recoveries > 0
        && (one_script || total.nested > 0 && total.torn > 0 && total.verified > 0 && total.repaired > 0);
    assert!(tested, "too little was tested: {total}");
}

#[test]
fn nothing_is_lost_if_the_process_is_killed_and_then_the_power_fails() {
    let (seed, scale, started) = (seed(), scale(), Instant::now());
    let mut scripts = scripts::fixed();
    scripts.extend(scripts::random(seed, scale.div_ceil(2)));
    let (total, violations) = run_all("killed", run_killed, &scripts, seed);
    println!("killed, total: {total}, seed: {seed}, scale: {scale} ({:.1?})", started.elapsed());
    let told = violations.join("\n");
    assert!(violations.is_empty(), "TOPHASH_TEST_SEED={seed}: {} violations\n{told}", violations.len());
    let one_script = std::env::var_os("TOPHASH_TEST_SCRIPT").is_some();
    assert!(one_script || total.killed > 0 && total.nested > 0, "too little was tested: {total}");
}

#[test]
fn no_removed_key_comes_back_if_the_power_fails_while_segments_are_freed_and_the_index_is_lost() {
    let (seed, scale, started) = (seed(), scale(), Instant::now());
    let mut scripts = scripts::fixed();
    let many = if scale >= 10 { 20 * scale } else { 2 };
    scripts.extend(scripts::emptied(seed, many));
    scripts.extend(scripts::removals(seed, many));
    scripts.extend(scripts::random(seed, if scale >= 10 { 20 * scale } else { 1 }));
    let (total, violations) = run_all("freed", run_freed, &scripts, seed);
    println!("freed, total: {total}, seed: {seed}, scale: {scale} ({:.1?})", started.elapsed());
    let told = violations.join("\n");
    assert!(violations.is_empty(), "TOPHASH_TEST_SEED={seed}: {} violations\n{told}", violations.len());
    let one_script = std::env::var_os("TOPHASH_TEST_SCRIPT").is_some();
    assert!(one_script || total.repaired > 0 && total.nested > 0, "too little was tested: {total}");
}
