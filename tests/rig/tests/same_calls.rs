//! The simulated disk is given what the real one is given: the same script makes the same calls on both, in the same order, and
//! files that are synced hold the same bytes. So what the crash and fault layers show on the one holds for the other.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tophash::Store;
use tophash::sys::{Disk, RealDisk};
use tophash_rig::disk::SimDisk;
use tophash_rig::run::{STORE, blank};
use tophash_rig::script::{Op, Script};
use tophash_rig::traced::TracedDisk;
use tophash_rig::{scripts, seed};

/// Carries a script out. The calls are grouped by the step that made them.
fn calls(script: &Script, inner: Arc<dyn Disk>, path: &Path, seed: u64) -> Vec<(String, Vec<String>)> {
    let disk = TracedDisk::new(inner, path.parent().expect("a parent"), seed);
    let options = script.options_on(Arc::new(disk.clone()));
    let open = || options.open(path).unwrap_or_else(|error| panic!("{}: open: {error}", script.name));
    let mut store: Store = open();
    let mut steps = vec![("the first open".to_string(), disk.take())];
    for (i, op) in script.ops.iter().enumerate() {
        let failed = |error: tophash::Error| panic!("{}: step {i}, {op:?}: {error}", script.name);
        match op {
            Op::Reopen => {
                store.close().unwrap_or_else(failed);
                store = open();
            }
            Op::Die => {
                disk.set_dead(true);
                drop(store);
                disk.set_dead(false);
                store = open();
            }
            Op::Offline(_, work) => {
                store.close().unwrap_or_else(failed);
                work(path, &options).unwrap_or_else(failed);
                store = open();
            }
            _ => op.carry_out(&store).unwrap_or_else(failed),
        }
        steps.push((format!("step {i}, {op:?}"), disk.take()));
    }
    store.close().unwrap_or_else(|error| panic!("{}: close: {error}", script.name));
    steps.push(("the last close".to_string(), disk.take()));
    steps
}

/// Compares step by step, so that a failure shows the first call that differs and what led to it.
fn same(script: &Script, kind: &str, real: &[(String, Vec<String>)], simulated: &[(String, Vec<String>)]) {
    for ((step, real), (_, simulated)) in real.iter().zip(simulated) {
        let first = real.iter().zip(simulated).position(|(real, simulated)| real != simulated);
        if let Some(at) = first.or((real.len() != simulated.len()).then_some(real.len().min(simulated.len()))) {
            let around = |calls: &[String]| {
                calls[at.saturating_sub(5).min(calls.len())..(at + 3).min(calls.len())].join("\n    ")
            };
            panic!(
                "{}, {step}: call {at} differs\n  {kind}:\n    {}\n  simulated:\n    {}",
                script.name,
                around(real),
                around(simulated)
            );
        }
    }
    assert_eq!(real.len(), simulated.len());
}

#[test]
fn the_real_and_the_simulated_disk_are_given_the_same_calls() {
    let seed = seed();
    println!("TOPHASH_TEST_SEED={seed}");
    let mut all = scripts::fixed();
    all.extend(scripts::random(seed, 1));
    let (mut total, mut names) = (0, BTreeMap::<String, usize>::new());
    let shared = Path::new("/dev/shm");
    for (i, script) in all.iter().enumerate() {
        let simulated = calls(script, Arc::new(SimDisk::untracked(blank(), seed)), Path::new(STORE), seed);
        // The one where reading a hole takes a block, and the one where it does not.
        let dirs = [
            ("ext4 or what there is", tempfile::tempdir()),
            ("tmpfs", if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() }),
        ];
        // Syncs cost something on a disk: every third script goes there.
        for (kind, dir) in dirs.into_iter().skip(usize::from(i % 3 != 0)) {
            let dir = dir.expect("a directory to work in");
            let real = calls(script, Arc::new(RealDisk), &dir.path().join("store"), seed);
            same(script, kind, &real, &simulated);
        }
        for call in simulated.iter().flat_map(|(_, calls)| calls) {
            *names.entry(call.split(' ').next().unwrap_or_default().to_string()).or_default() += 1;
            total += 1;
        }
    }
    for needed in [
        "open",
        "create_dir",
        "write_at",
        "set_len",
        "allocate",
        "punch_hole",
        "sync_data",
        "sync_all",
        "rename",
        "unlink",
        "sync_dir",
        "map_log",
    ] {
        assert!(names.contains_key(needed), "no script calls {needed}: {names:?}");
    }
    println!("same calls: {} scripts, {total} calls on the real and the simulated disk alike: {names:?}", all.len());
}
