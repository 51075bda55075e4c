//! Replays the corpus.

use std::path::Path;

fn replay(target: &str, run: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut names: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert!(!names.is_empty(), "{} is empty", dir.display());
    for name in &names {
        // Printed if it fails.
        println!("{}", name.display());
        run(&std::fs::read(name).unwrap());
    }
    println!("fuzz: {} inputs of {target} replayed", names.len());
}

#[test]
fn files() {
    replay("files", tophash_fuzz::files);
}

#[test]
fn log() {
    replay("log", tophash_fuzz::log);
}

#[test]
fn operations() {
    replay("operations", tophash_fuzz::operations);
}

#[test]
fn formats() {
    replay("formats", tophash_fuzz::formats);
}
