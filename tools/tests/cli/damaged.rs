//! Stores of which a record or a page is damaged: export, scan and compact stop there, or leave it out and say so.
//! Before, they stopped, and no option helped: a single bit kept the rest of a store from being read.

use std::fs;

use crate::support::Desk;

/// A value that occurs nowhere else in a store's files.
const NEEDLE: &[u8] = b"the needle in the haystack, 40 bytes long";

fn store() -> Desk {
    let desk = Desk::new();
    let lines: String = (0..3000).map(|i| format!("key{i}\t{}\n", "v".repeat(100))).collect();
    desk.run_with(&["import", "s", "--format", "tsv"], lines.as_bytes()).ok();
    desk.run_with(&["set", "s", "needle"], NEEDLE).ok();
    let gone: String = (0..3000).filter(|i| i % 3 != 0).map(|i| format!("key{i}\n")).collect();
    desk.run_with(&["del", "s", "--from", "-"], gone.as_bytes()).ok();
    let mut damaged = 0;
    for entry in fs::read_dir(desk.path("s/log-1")).expect("list the segments") {
        let segment = entry.expect("an entry").path();
        let mut bytes = fs::read(&segment).expect("read the segment");
        for at in 0..bytes.len().saturating_sub(NEEDLE.len()) {
            if bytes[at..].starts_with(NEEDLE) {
                bytes[at + 7] ^= 4;
                damaged += 1;
            }
        }
        fs::write(segment, bytes).expect("damage the segment");
    }
    assert!(damaged > 0);
    desk
}

/// Keys of lines of text, sorted.
fn keys(text: &str) -> Vec<&str> {
    let mut keys: Vec<_> = text.lines().map(|line| line.split('\t').next().expect("a key")).collect();
    keys.sort_unstable();
    keys
}

fn expected() -> Vec<String> {
    let mut keys: Vec<_> = (0..3000).step_by(3).map(|i| format!("key{i}")).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn export_stops_or_leaves_the_damaged_record_out() {
    let desk = store();
    desk.run(&["export", "s", "out.tsv", "--format", "tsv"]).fails(2, &["--skip-damaged", ".log"]);
    assert!(!desk.path("out.tsv").exists());
    let ran = desk.run(&["export", "s", "out.tsv", "--format", "tsv", "--skip-damaged"]);
    assert_eq!(ran.code, Some(1));
    for part in ["skipped: ", ".log at byte", "key \"needle\"", "1 damaged place skipped, 1,000 records written"] {
        assert!(ran.stderr.contains(part), "`{part}` is missing in {}", ran.stderr);
    }
    let text = String::from_utf8(desk.read("out.tsv")).expect("text");
    assert_eq!(keys(&text), expected());
}

#[test]
fn scan_stops_or_passes_over_the_damaged_record() {
    let desk = store();
    let ran = desk.run(&["scan", "s"]);
    ran.fails(2, &["--skip-damaged passes over what is damaged"]);
    let ran = desk.run(&["scan", "s", "--skip-damaged"]);
    assert_eq!((ran.code, keys(&ran.text())), (Some(1), expected().iter().map(String::as_str).collect()));
    assert!(ran.stderr.contains("key \"needle\"") && ran.stderr.contains("1 damaged place skipped"), "{}", ran.stderr);
    // The same a few records at a time.
    let (mut cursor, mut seen, mut skipped) = (Some("0".to_string()), Vec::new(), 0);
    while let Some(at) = cursor {
        let ran =
            desk.run(&["scan", "s", "--json", "--keys-only", "--limit", "300", "--skip-damaged", "--cursor", &at]);
        let page = ran.json();
        let entries = page["entries"].as_array().expect("entries").iter();
        seen.extend(entries.map(|entry| entry["key"].as_str().expect("a key").to_string()));
        skipped += page["skipped"].as_u64().expect("a number");
        cursor = page["next_cursor"].as_str().map(ToString::to_string);
    }
    seen.sort_unstable();
    assert_eq!((seen, skipped), (expected(), 1));
}

#[test]
fn compact_stops_or_leaves_the_damaged_record_out() {
    let desk = store();
    desk.run(&["compact", "s"]).fails(2, &["damaged"]);
    let ran = desk.run(&["compact", "s", "--skip-damaged", "--dry-run"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.text().contains("would be left out: 1 record"), "{}", ran.text());
    let ran = desk.run(&["compact", "s", "--skip-damaged"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.text().contains("were left out: 1 record"), "{}", ran.text());
    assert!(ran.stderr.contains("key \"needle\""), "{}", ran.stderr);
    desk.run(&["verify", "s"]).ok();
    let ran = desk.run(&["scan", "s"]);
    assert_eq!(keys(&ran.text()), expected());
}

#[test]
fn compact_does_not_pass_over_a_damaged_index() {
    let desk = store();
    let mut index = fs::read(desk.path("s/index")).expect("read the index");
    let page = index.chunks(4096).rposition(|page| page[4..8] == *b"BKT1").expect("a page");
    index[page * 4096 + 100] ^= 4;
    fs::write(desk.path("s/index"), index).expect("damage the index");
    desk.run(&["compact", "s", "--skip-damaged"]).fails(2, &["tophash repair"]);
    // The records are whole, and a repair does not need the index.
    let ran = desk.run(&["repair", "s", "new"]);
    assert!(ran.text().contains("saved 1,000 keys"), "{}", ran.text());
}
