//! Damage at random, judged by what was ever written.

use std::fs;

use crate::stores::*;
use crate::support::*;

/// What must be true of every repair, whatever happened to the store.
#[track_caller]
fn check(history: &History, files: &Files, cut_off: bool, what: &str) -> bool {
    let (report, contents) = repair(&files.path);
    let mut wrong = 0;
    for (key, value) in &contents {
        let ever = history.ever.get(key);
        assert!(ever.is_some_and(|values| values.contains(value)), "{what}: a value that was never there");
        wrong += u64::from(history.contents.get(key) != Some(value));
    }
    // The end of a log that is damaged up to its last sync mark cannot be told from one that was never written.
    let torn = report.torn_bytes > 0 || cut_off;
    assert!(torn || wrong <= report.stale_keys_max, "{what}: {wrong} keys are stale: {report:#?}");
    if report.is_complete() && !torn {
        assert_eq!(contents, history.contents, "{what}: {report:#?}");
    }
    // Where an open works, it shows what was saved.
    if report.is_complete()
        && let Ok(store) = options().open(&files.path)
        && let Ok(shown) = entries(&store)
    {
        assert_eq!(contents, shown, "{what}: {report:#?}");
    }
    // Batches whole or not at all, unless the report says otherwise: of a committed one each whole record counts.
    for i in (0..ROUNDS).step_by(40) {
        let there = (0..6).filter(|j| contents.contains_key(format!("batch {i} {j}").as_bytes())).count();
        let told = report.batches_uncertain > 0 || report.batches_in_part > 0;
        assert!(there == 0 || there == 6 || told, "{what}: {there} of batch {i}");
    }
    report.is_complete()
}

/// What a store shows, unless something in it is damaged.
fn entries(store: &tophash::Store) -> tophash::Result<Contents> {
    store.iter().map(|entry| entry.map(|entry| (entry.key().to_vec(), entry.value().to_vec()))).collect()
}

fn rounds() -> u64 {
    24 * crate::common::scale() as u64
}

#[test]
fn flips_truncations_and_noise_never_bring_a_wrong_value() {
    let mut rng = Rng(crate::common::seed("repairs after random damage") | 1);
    let (mut complete, mut cases) = (0u64, 0u64);
    for round in 0..rounds() {
        let history = if round % 2 == 0 { closed() } else { killed() };
        let (_dir, files) = copy(history);
        let mut all = files.log_files("log");
        all.extend(files.log_files("blob"));
        if round % 3 == 0 {
            fs::remove_file(files.index()).unwrap();
        } else {
            all.push(files.index());
        }
        let mut what = format!("round {round}");
        let mut cut_off = false;
        for _ in 0..1 + rng.below(3) {
            let file = &all[rng.below(all.len() as u64) as usize];
            let len = fs::metadata(file).unwrap().len();
            let at = rng.below(len.max(1));
            what += &match rng.below(8) {
                0 => {
                    cut_off = true;
                    fs::File::options().write(true).open(file).unwrap().set_len(at).unwrap();
                    format!(", {} cut to {at}", file.display())
                }
                1 => {
                    let noise: Vec<u8> = (0..rng.below(3000)).map(|_| rng.next() as u8).collect();
                    files.write(file, at, &noise);
                    format!(", {} bytes of noise at {at} of {}", noise.len(), file.display())
                }
                _ if len > 0 => {
                    let byte = files.read(file, at, 1)[0];
                    files.write(file, at, &[byte ^ 1 << rng.below(8)]);
                    format!(", {} flipped at {at}", file.display())
                }
                _ => String::new(),
            };
        }
        complete += u64::from(check(history, &files, cut_off, &what));
        cases += 1;
    }
    println!("repair: {cases} stores with random damage, {complete} of them saved whole");
    assert!(complete < cases);
}
