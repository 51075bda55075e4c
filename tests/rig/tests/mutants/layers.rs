//! The layers, as far as they are needed to notice a broken rule.

use std::path::Path;
use std::time::Duration;

use tophash::PartPlan;
use tophash_rig::crash::{self, Depth, Outcome, Settings, caught};
use tophash_rig::random::mix;
use tophash_rig::script::Script;
use tophash_rig::world::Call;
use tophash_rig::{
    awaited, churn, closed, delays, fault_layer, full, held, large, moved, parts, resources, scripts, space, story,
    stress,
};

/// A layer, with the scripts that it runs.
#[derive(Clone, Copy)]
pub enum Layer {
    /// Crashes at every boundary.
    Crash(&'static [&'static str]),
    /// And in every recovery.
    Nested(&'static [&'static str]),
    /// Killed processes, and crashes in what follows.
    Killed(&'static [&'static str]),
    /// Crashes while segments are freed, after which the index is lost.
    Freed,
    /// Calls that fail.
    Fault(&'static [&'static str]),
    /// What a process lacks for a moment.
    Resources(&'static [&'static str]),
    /// A full disk.
    Full,
    /// Histories without crashes.
    Churn,
    /// Long tails, replayed by several threads in chosen orders.
    Parts,
    /// A repair of what is not damaged.
    Repair,
    /// Real threads.
    Stress,
    /// Crashes that were bugs once.
    Story,
    /// A batch of a gigabyte.
    Large,
    /// Directories of the real disk that are removed and moved.
    Moved,
    /// Large values that are held.
    Held,
    /// What nothing needs any more.
    Space,
    /// Closing beside writers.
    Closed,
    /// Futures of changes.
    Awaited,
    /// Threads of the background that are held.
    Delays,
}

/// Every layer that a mutant is given to.
pub fn controls() -> [Layer; 19] {
    let some = &["growth", "compaction", "recoveries"];
    [
        Layer::Crash(some),
        Layer::Nested(some),
        Layer::Killed(some),
        Layer::Freed,
        Layer::Fault(&["always", "growth"]),
        Layer::Resources(some),
        Layer::Full,
        Layer::Churn,
        Layer::Parts,
        Layer::Repair,
        Layer::Stress,
        Layer::Story,
        Layer::Large,
        Layer::Moved,
        Layer::Held,
        Layer::Space,
        Layer::Closed,
        Layer::Awaited,
        Layer::Delays,
    ]
}

fn named(names: &[&str]) -> Vec<Script> {
    let scripts = scripts::fixed();
    names.iter().filter_map(|name| scripts.iter().find(|script| script.name == *name).cloned()).collect()
}

/// The first violation of many tries, and how many tries it took.
fn first<T>(all: impl IntoIterator<Item = T>, mut each: impl FnMut(T) -> Result<u64, String>) -> (Option<String>, u64) {
    let mut done = 0;
    for one in all {
        match caught(|| each(one)) {
            Ok(more) => done += more,
            Err(what) => return (Some(what), done),
        }
    }
    (None, done)
}

impl Layer {
    pub fn name(&self) -> &'static str {
        match self {
            Layer::Crash(_) => "crash",
            Layer::Nested(_) => "nested crash",
            Layer::Killed(_) => "killed",
            Layer::Freed => "freed",
            Layer::Fault(_) => "fault",
            Layer::Resources(_) => "resources",
            Layer::Full => "full disk",
            Layer::Churn => "model",
            Layer::Parts => "parts",
            Layer::Repair => "repair",
            Layer::Stress => "threads",
            Layer::Story => "regression",
            Layer::Large => "large batch",
            Layer::Moved => "moved directories",
            Layer::Held => "held values",
            Layer::Space => "space",
            Layer::Closed => "closed",
            Layer::Awaited => "awaited",
            Layer::Delays => "delays",
        }
    }

    /// Runs it until it finds something. Returns what that is, and what it took. With all patience if a rule is
    /// broken.
    pub fn run(&self, seed: u64, patient: bool) -> (Option<String>, String) {
        let tries = if patient { 8 } else { 1 };
        match self {
            Layer::Crash(names) => crashes(crash::run, names, seed, tries, 64),
            Layer::Nested(names) => crashes(crash::run, names, seed, tries, 2),
            Layer::Killed(names) => crashes(crash::run_killed, names, seed, tries, 1),
            Layer::Freed => {
                let mut repaired = 0;
                let settings = Settings { stop_at_first: true, ..Settings::of_scale(1, seed) };
                let (found, _) = first(scripts::emptied(seed, 4 * tries), |script| {
                    let outcome = crash::run_freed(&script, &settings);
                    repaired += outcome.tally.repaired;
                    outcome.violations.into_iter().next().map_or(Ok(1), Err)
                });
                (found, format!("{repaired} repairs"))
            }
            Layer::Fault(names) => {
                let all = named(names).into_iter().flat_map(|script| {
                    let cases = fault_layer::cases(&script, seed).unwrap_or_default();
                    cases.into_iter().map(move |case| (script.clone(), case))
                });
                let mut all: Vec<_> = all.collect();
                // Syncs first: what rests on them is what rules are about.
                let is_sync = |call| matches!(call, Call::SyncAll | Call::SyncData);
                all.sort_unstable_by_key(|(_, case)| (!is_sync(case.call), mix(seed ^ case.at)));
                if !patient {
                    all.truncate(200);
                }
                let (found, done) = first(all, |(script, case)| fault_layer::run(&script, seed, case).map(|_| 1));
                (found, format!("{done} faults"))
            }
            Layer::Resources(names) => {
                let all = named(names).into_iter().flat_map(|script| {
                    let calls = resources::calls(&script, seed).unwrap_or_default();
                    resources::cases(&calls).into_iter().map(move |case| (script.clone(), case))
                });
                let mut all: Vec<_> = all.collect();
                all.sort_unstable_by_key(|(_, case)| mix(seed ^ case.number()));
                if !patient {
                    all.truncate(200);
                }
                let (found, done) = first(all, |(script, case)| resources::run(&script, seed, case).map(|_| 1));
                (found, format!("{done} faults"))
            }
            Layer::Full => {
                let (found, done) = first(scripts::fixed(), |script| full::check(&script, seed).map(|()| 1));
                (found, format!("{done} stores"))
            }
            Layer::Churn => {
                let mut all = scripts::fixed();
                all.extend(scripts::random(seed, 8 * tries));
                let (found, done) = first(all, |script| churn::run(&script, seed));
                (found, format!("{done} steps"))
            }
            Layer::Parts => {
                let all = parts::Kind::ALL
                    .into_iter()
                    .flat_map(|kind| parts::orders(3).into_iter().map(move |order| (kind, order)));
                let (found, done) = first(all, |(kind, order)| {
                    let left = parts::leave(kind, 600, seed)?;
                    left.recover(PartPlan { parts: 3, order }, true).map(|tally| tally.recoveries)
                });
                (found, format!("{done} recoveries"))
            }
            Layer::Repair => {
                let all = scripts::removals(seed, 8 * tries);
                let (found, done) = first(all, |script| churn::repair(&script, seed));
                (found, format!("{done} steps"))
            }
            Layer::Stress => {
                // In memory, where there is such a place: there a checkpoint is quick, and segments come and go.
                let memory = Path::new("/dev/shm");
                let directory = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
                let directory = directory.expect("a temporary directory");
                let time = Duration::from_secs(if patient { 5 } else { 2 });
                let (found, done) =
                    first(0..tries as u64, |n| stress::run(&directory.path().join(n.to_string()), time, seed ^ n));
                (found, format!("{done} reads"))
            }
            Layer::Story => {
                let stories = [
                    story::journal_of_two_checkpoints,
                    story::a_clear_behind_damage,
                    story::old_blocks_behind_the_end,
                    story::leftovers_beside_damage,
                    story::a_table_in_the_pages_of_a_dropped_one,
                ];
                let (found, done) = first(stories, |story| story().map(|()| 1));
                (found, format!("{done} stories"))
            }
            Layer::Large => {
                let directory = tempfile::tempdir().expect("a temporary directory");
                let (found, done) = first([()], |()| large::check(directory.path()));
                (found, format!("{done} records"))
            }
            Layer::Moved => {
                let directory = tempfile::tempdir().expect("a temporary directory");
                let (found, done) = first([()], |()| moved::check(directory.path()));
                (found, format!("{done} changes"))
            }
            Layer::Held => {
                let (found, done) = first([()], |()| held::check(seed));
                (found, format!("{done} updates"))
            }
            Layer::Space => {
                let checks = [space::replaced, space::removed];
                let (found, done) = first(checks, |check| check(seed));
                (found, format!("{done} bytes"))
            }
            Layer::Closed => {
                let directory = tempfile::tempdir().expect("a temporary directory");
                let (found, done) =
                    first(0..tries as u64, |n| closed::check(&directory.path().join(n.to_string()), seed ^ n));
                (found, format!("{done} inserts"))
            }
            Layer::Delays => {
                let (found, done) = first(0..40 * tries as u64, |n| delays::run(mix(seed ^ n)).map(|tally| tally.held));
                (found, format!("{done} holds"))
            }
            Layer::Awaited => {
                let directory = tempfile::tempdir().expect("a temporary directory");
                let (found, done) =
                    first(0..tries as u64, |n| awaited::check(&directory.path().join(n.to_string()), seed ^ n));
                (found, format!("{done} wake-ups"))
            }
        }
    }
}

/// A layer of crashes, over and over with other seeds.
fn crashes(
    run: fn(&Script, &Settings) -> Outcome,
    names: &[&str],
    seed: u64,
    tries: usize,
    nested_one_in: u64,
) -> (Option<String>, String) {
    let settings = |n: u64| Settings {
        depth: Depth { exhaustive: 5, random: 6, each: 6, torn: 4, tears: 2 },
        nested: Depth { exhaustive: 4, random: 4, each: 4, torn: 2, tears: 2 },
        nested_one_in,
        boundary_one_in: if n == 0 { 2 } else { 1 },
        // A repair takes as long as many recoveries, of which there are far more when many are nested.
        repaired_one_in: if nested_one_in > 8 { 4 } else { 64 },
        killed_one_in: [64, 16, 4][(n as usize).min(2)],
        followed_one_in: 1,
        stop_at_first: true,
        ..Settings::of_scale(1, mix(seed ^ n))
    };
    let mut recoveries = 0;
    let all = (0..tries as u64).flat_map(|n| named(names).into_iter().map(move |script| (n, script)));
    let (found, _) = first(all, |(n, script)| {
        let outcome = run(&script, &settings(n));
        recoveries += outcome.tally.recoveries;
        outcome.violations.into_iter().next().map_or(Ok(1), Err)
    });
    (found, format!("{recoveries} recoveries"))
}
