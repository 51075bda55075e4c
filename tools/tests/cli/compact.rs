//! compact: a store as small as its content.

use std::fs;

use crate::support::{Desk, contents};

fn store() -> Desk {
    let desk = Desk::new();
    let lines: String = (0..5000).map(|i| format!("key{i}\t{}\n", "v".repeat(100))).collect();
    desk.run_with(&["import", "s", "--format", "tsv"], lines.as_bytes()).ok();
    let gone: String = (0..5000).filter(|i| i % 10 != 0).map(|i| format!("key{i}\n")).collect();
    desk.run_with(&["del", "s", "--from", "-"], gone.as_bytes()).ok();
    desk
}

#[test]
fn a_dry_run_tells_and_a_compaction_does() {
    let desk = store();
    let before = contents(&desk.path("s"));
    let ran = desk.run(&["compact", "s", "--dry-run"]);
    assert!(ran.text().contains("after (estimated)") && ran.text().contains("nothing was changed"), "{}", ran.text());
    ran.ok();
    assert!(desk.path("s/log-1").exists());
    let ran = desk.run(&["compact", "s"]);
    assert!(ran.text().contains("| records") && ran.text().contains("came back"), "{}", ran.text());
    ran.ok();
    assert!(!desk.path("s/log-1").exists());
    assert_eq!(contents(&desk.path("s")), before);
    desk.run(&["verify", "s"]).ok();
}

#[test]
fn the_json_has_both_shapes() {
    let desk = store();
    let ran = desk.run(&["compact", "s", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&ran.text()).expect("JSON");
    assert_eq!((&report["before"]["records"], &report["after"]["records"]), (&500.into(), &500.into()));
    assert_eq!(report["after"]["dead_bytes"], 0);
    assert!(report["after"]["disk_bytes"].as_u64() < report["before"]["disk_bytes"].as_u64());
}

#[test]
fn what_is_damaged_or_no_store_is_refused() {
    let desk = store();
    desk.run(&["compact", "none"]).fails(2, &["none"]);
    for entry in fs::read_dir(desk.path("s/log-1")).expect("list the segments") {
        let segment = entry.expect("an entry").path();
        let mut bytes = fs::read(&segment).expect("read the segment");
        bytes[300] ^= 1;
        fs::write(segment, bytes).expect("damage the segment");
    }
    desk.run(&["compact", "s"]).fails(2, &["tophash repair STORE NEW"]);
}
