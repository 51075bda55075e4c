//! The demonstration, on a small folder.

use serde_json::json;

use crate::support::{Desk, contents};

fn folder() -> Desk {
    let desk = Desk::new();
    for i in 0..40_usize {
        desk.write(&format!("files/{}/{i}.txt", i % 3), format!("file {i}\n").repeat(i));
    }
    desk.write("files/every byte", (0..=255).collect::<Vec<u8>>());
    desk.write("files/\u{fc}nicode/large", vec![7; 3 << 20]);
    std::os::unix::fs::symlink(desk.path("files/every byte"), desk.path("files/link")).expect("a link");
    desk
}

#[test]
fn everything_is_as_it_should_be_and_nothing_is_left() {
    let desk = folder();
    let ran = desk.run(&["demo", "files"]);
    let text = ran.text();
    for part in ["42 files", "everything is as it should be", "| verify", "links and special files, not followed: 1"] {
        assert!(text.contains(part), "`{part}` is missing in\n{text}");
    }
    ran.ok();
    assert_eq!(desk.names(), ["files"]);
}

#[test]
fn the_json_has_every_step_and_the_store_can_be_kept() {
    let desk = folder();
    let report = desk.run(&["demo", "files", "--store", "kept", "--json"]).json();
    assert_eq!((&report["files"], &report["differences"], &report["findings"]), (&json!(42), &json!(0), &json!(0)));
    let steps: Vec<_> = report["steps"].as_array().expect("steps").iter().map(|step| step["name"].clone()).collect();
    let expected =
        ["store", "read back", "update", "remove", "read after reopening", "iterate", "verify"].map(|name| json!(name));
    assert_eq!(steps, expected);
    assert_eq!(report["steps"][0]["records"], json!(42));
    assert_eq!(report["steps"][2]["records"], json!(11));
    let records = contents(&desk.path("kept"));
    assert_eq!(json!(records.len()), report["records"]);
    assert_eq!(records.len(), 42 - 7);
    // Here is a store now: a second demonstration must not touch it.
    desk.run(&["demo", "files", "--store", "kept"]).fails(2, &["kept"]);
    assert_eq!(contents(&desk.path("kept")).len(), records.len());
}

#[test]
fn the_limit_cuts_and_says_so() {
    let desk = folder();
    let ran = desk.run(&["demo", "files", "--max-bytes", "1M"]);
    assert!(ran.text().contains("left out, because of --max-bytes: 1 file, 3.00 MiB"), "{}", ran.text());
    ran.ok();
}

#[test]
fn without_a_folder_it_finds_one() {
    let desk = folder();
    let mut command = desk.command(&["demo", "--json"]);
    let output = command.env("CARGO_HOME", desk.path("no cargo here")).output().expect("run the tool");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(report["source"].as_str().is_some_and(|source| source.starts_with("the current folder")), "{report}");
    assert_eq!(report["differences"], json!(0));
}

#[test]
fn a_folder_without_files_is_no_demonstration() {
    let desk = Desk::new();
    desk.run(&["demo", "missing"]).fails(2, &["missing"]);
    std::fs::create_dir(desk.path("empty")).expect("a folder");
    desk.run(&["demo", "empty"]).fails(2, &["no files"]);
    assert_eq!(desk.names(), ["empty"]);
}
