//! Damage at random: single bits, and files that end too early. A sample on real files; the corruption layer
//! (tests/rig) goes through all of them on a simulated disk.

use crate::damage::base;
use crate::support::*;
use std::collections::BTreeMap;
use std::fs;

/// How many bits are flipped in the index and in the log.
fn rounds() -> u64 {
    crate::common::share(400)
}

/// Why a flipped bit of the index file changes nothing that is stored; `None` if it does.
fn harmless_in_index(files: &Files, at: u64) -> Option<&'static str> {
    let (page, byte) = (at / PAGE as u64, at as usize % PAGE);
    match page {
        // The crc, serial, generation, cut and flags of a header slot: the other slot and the journal explain
        // what looks like a write that was interrupted.
        0 | 1 if matches!(byte, 16..20 | 56..80 | 88..96) => Some("header slot that can be torn (counted)"),
        0 | 1 => None,
        2 => None,
        page if page < files.first_page() => Some("meta page beyond the stream"),
        page => {
            let meta = files.meta();
            let extent = meta.overflow.iter().filter(|&&first| first <= page).max()?;
            let primary = meta.primary.iter().filter(|&&first| first <= page).max();
            if primary > Some(extent) || page == *extent {
                return None;
            }
            let bit = (page - extent - 1) as usize;
            let bitmap = files.page(*extent);
            (bitmap[64 + bit / 8] >> (bit % 8) & 1 == 0).then_some("overflow page not in use")
        }
    }
}

#[test]
fn every_flipped_bit_is_found_or_harmless() {
    let dir = crate::common::scratch();
    let path = dir.path().join("s");
    copy_store(base(), &path);
    let files = Files::new(&path);
    let mut rng = Rng(77);
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut flip = |file: &std::path::Path, at: u64, harmless: Option<&'static str>, rng: &mut Rng| {
        let byte = files.read(file, at, 1)[0];
        files.write(file, at, &[byte ^ 1 << rng.below(8)]);
        let found = tophash::verify::verify(&path).map(|report| report.findings_total > 0 || !report.is_clean());
        files.write(file, at, &[byte]);
        match (found, harmless) {
            (Ok(false), Some(why)) => *counts.entry(why.to_string()).or_default() += 1,
            (Ok(false), None) => panic!("byte {at} of {}: not found", file.display()),
            (Ok(true), _) => *counts.entry("found".into()).or_default() += 1,
            (Err(error), _) => *counts.entry(format!("refused: {error}")).or_default() += 1,
        }
    };

    let index = files.index();
    let len = fs::metadata(&index).unwrap().len();
    let first = files.first_page() * PAGE as u64;
    for round in 0..rounds() {
        // Half of them where the headers and the bucket pages are: much of the file is unused meta pages.
        let at = match round % 8 {
            0 => rng.below(2 * PAGE as u64),
            1 => 2 * PAGE as u64 + rng.below(PAGE as u64),
            2 => rng.below(len),
            _ => first + rng.below(len - first),
        };
        flip(&index, at, harmless_in_index(&files, at), &mut rng);
    }
    let meta = files.meta();
    let padding: Vec<(std::path::PathBuf, u64, u64)> = files
        .all_records()
        .into_iter()
        .map(|r| (r.file, r.at + r.len as u64, (r.at + r.len as u64).next_multiple_of(8)))
        .collect();
    for _ in 0..rounds() {
        let entry = &meta.segments[rng.below(meta.segments.len() as u64) as usize];
        let file = files.segment(entry.sequence);
        let at = rng.below(entry.end);
        let pads = padding.iter().any(|(f, from, to)| *f == file && (*from..*to).contains(&at));
        flip(&file, at, pads.then_some("padding behind a record"), &mut rng);
    }
    verify_clean(&path);
    println!("verify, flipped bits: {counts:?}");
    assert!(counts["found"] > rounds() / 2);
}

#[test]
fn files_that_end_too_early_are_told() {
    let files: Vec<_> = {
        let files = Files::new(base());
        let mut all = vec![files.index(), files.path.join("journal")];
        all.extend(files.log_files("log"));
        all.extend(files.log_files("blob").into_iter().take(2));
        all.into_iter().map(|path| path.strip_prefix(base()).unwrap().to_path_buf()).collect()
    };
    let mut rng = Rng(5);
    let mut counts = BTreeMap::<&str, u64>::new();
    for name in files {
        let len = fs::metadata(base().join(&name)).unwrap().len();
        let mut lengths: Vec<u64> = vec![0, 1, 64, 127, 128, 4095, 4096, 8192, len / 4096 * 4096, len - 1];
        lengths.extend((0..2).map(|_| rng.below(len)));
        for length in lengths.into_iter().filter(|&length| length < len) {
            let dir = crate::common::scratch();
            let path = dir.path().join("s");
            copy_store(base(), &path);
            fs::File::options().write(true).open(path.join(&name)).unwrap().set_len(length).unwrap();
            let outcome = match tophash::verify::verify(&path) {
                Err(_) => "refused",
                Ok(report) if report.is_clean() => {
                    // What is cut off must have been unused.
                    let unused = match name.extension().and_then(|e| e.to_str()) {
                        Some("log") => {
                            let files = Files::new(base());
                            let meta = files.meta();
                            let entry = meta.segments.iter().find(|e| files.segment(e.sequence) == base().join(&name));
                            entry.is_some_and(|entry| length >= entry.end)
                        }
                        // The checkpoint in it has been carried to its end; its head has 64 bytes that are not zero.
                        None => name.ends_with("journal") && length >= 64,
                        _ => false,
                    };
                    assert!(unused, "{} cut to {length}: nothing found", name.display());
                    "unused"
                }
                Ok(_) => "found",
            };
            *counts.entry(outcome).or_default() += 1;
        }
    }
    println!("verify, files cut off: {counts:?}");
    assert!(counts["found"] > 30);
}
