//! A run on a small scale: every section is there, the figures are numbers, nothing stays behind.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn run(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tophash-side-by-side"))
        .args(["--records", "5000", "--rounds", "1", "--reads", "2000", "--batch", "100"])
        .args(["--durable-seconds", "0.02", "--checkpoint-bytes", "1048576", "--step-seconds-max", "60", "--dir"])
        .arg(dir)
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn all_sections() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("figures.json");
    let output = run(dir.path(), &["--json", json.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("`tophash-side-by-side --records 5000"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("## ")).count(), 6, "{text}");
    assert!(!text.contains("NaN"), "{text}");

    let figures: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let sections = figures["sections"].as_array().unwrap();
    assert_eq!(sections.len(), 6);
    for row in sections.iter().flat_map(|section| section["rows"].as_array().unwrap()) {
        let measured = row["figures"].as_object().unwrap();
        assert!(!measured.is_empty(), "{row}");
        assert!(measured.values().all(|figure| figure["median"].as_f64().is_some_and(|median| median >= 0.0)), "{row}");
    }

    fs::remove_file(json).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn one_section() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), &["--only", "reads"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.matches("## ").count(), 1, "{text}");
    assert!(text.contains("hits, 1 thread"), "{text}");
}
