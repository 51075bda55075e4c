//! stats and verify.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use crate::support::Desk;

/// A value that occurs nowhere else in a store's files.
const NEEDLE: &[u8] = b"the needle in the haystack, 40 bytes long";

/// Changes one bit of `NEEDLE` in the one file that holds it.
fn damage(desk: &Desk) -> PathBuf {
    let mut found = Vec::new();
    let mut folders = vec![desk.path("s")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("list the store") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let mut bytes = fs::read(&path).expect("read a file of the store");
            if let Some(at) = bytes.windows(NEEDLE.len()).position(|window| window == NEEDLE) {
                bytes[at + 7] ^= 4;
                fs::write(&path, bytes).expect("damage a file of the store");
                found.push(path);
            }
        }
    }
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn store_with_needle() -> Desk {
    let desk = Desk::new();
    let lines: String = (0..200).map(|i| format!("key{i}\tvalue{i}\n")).collect();
    desk.run_with(&["import", "s", "--format", "tsv"], lines.as_bytes()).ok();
    desk.run_with(&["set", "s", "needle"], NEEDLE).ok();
    desk.ok(&["set", "s", "last", "one"]);
    desk
}

#[test]
fn a_whole_store_is_clean() {
    let desk = store_with_needle();
    let ran = desk.run(&["verify", "s"]);
    assert!(ran.text().contains("no damage found"), "{}", ran.text());
    ran.ok();
    let ran = desk.run(&["verify", "s", "--json"]);
    let report = ran.json();
    assert_eq!((&report["is_clean"], &report["findings_total"]), (&json!(true), &json!(0)));
    assert_eq!(report["records"], json!(202));
}

#[test]
fn a_changed_bit_is_found_and_shown() {
    let desk = store_with_needle();
    let path = damage(&desk);
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    let ran = desk.run(&["verify", "s"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.text().contains(&name) || ran.stderr.contains(&name), "{}{}", ran.text(), ran.stderr);
    let ran = desk.run(&["verify", "s", "--json"]);
    assert_eq!((ran.code, &ran.json()["is_clean"]), (Some(1), &json!(false)));
}

#[test]
fn a_rotten_value_is_an_error_and_never_printed() {
    let desk = store_with_needle();
    damage(&desk);
    let ran = desk.run(&["get", "s", "needle"]);
    ran.fails(2, &["damaged", "verify"]);
    assert!(ran.stdout.is_empty());
    // An export stops, and leaves neither a file nor half of one.
    desk.run(&["export", "s", "out", "--format", "tsv"]).fails(2, &["damaged"]);
    assert_eq!(desk.names(), ["s"]);
    assert_eq!(desk.ok(&["get", "s", "key7"]), b"value7");
}

#[test]
fn what_is_no_store_cannot_be_verified() {
    let desk = Desk::new();
    desk.run(&["verify", "s"]).fails(2, &["s"]);
    desk.write("file", "text");
    desk.run(&["verify", "file", "--json"]).fails(2, &["file"]);
}

#[test]
fn stats_in_a_table_and_in_json() {
    let desk = store_with_needle();
    let text = desk.run(&["stats", "s"]).text();
    assert!(text.contains("| records") && text.contains("202") && text.contains("log: segments"), "{text}");
    let stats = desk.run(&["stats", "s", "--json"]).json();
    assert_eq!((&stats["records"], &stats["path"]), (&json!(202), &json!("s")));
    assert!(stats["disk_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{stats}");
    assert!(stats["log"]["segments"].is_u64(), "{stats}");
    // Zeroes that are not true: a reader knows nothing of what writers did.
    assert!(stats["commit"]["syncs"].is_null() && stats["index"]["growths"].is_null(), "{stats}");
    assert!(!text.contains("syncs") && text.contains("not known"), "{text}");
}
