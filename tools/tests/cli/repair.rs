//! repair: a new store from a damaged one.

use std::fs;

use serde_json::json;

use crate::support::{Desk, contents, eventually};

/// A value that occurs nowhere else in a store's files.
const NEEDLE: &[u8] = b"the needle in the haystack, 40 bytes long";

fn store() -> Desk {
    let desk = Desk::new();
    let lines: String = (0..200).map(|i| format!("key{i}\tvalue{i}\n")).collect();
    desk.run_with(&["import", "s", "--format", "tsv"], lines.as_bytes()).ok();
    desk.run_with(&["set", "s", "needle \u{e9}"], NEEDLE).ok();
    desk.ok(&["set", "s", "last", "one"]);
    desk
}

/// Changes one bit of `NEEDLE` in the log.
fn damage(desk: &Desk) {
    let segment = desk.path("s/log-1/00000001.log");
    let mut bytes = fs::read(&segment).expect("read the segment");
    let at = bytes.windows(NEEDLE.len()).position(|window| window == NEEDLE).expect("the needle");
    bytes[at + 7] ^= 4;
    fs::write(segment, bytes).expect("damage the segment");
}

#[test]
fn a_store_without_an_index_is_saved_whole() {
    let desk = store();
    let before = contents(&desk.path("s"));
    fs::remove_file(desk.path("s/index")).expect("remove the index");
    desk.run(&["get", "s", "key7"]).fails(2, &[]);
    let ran = desk.run(&["repair", "s", "new"]);
    assert!(ran.text().contains("saved 202 keys into new") && ran.text().contains("nothing is lost"), "{}", ran.text());
    ran.ok();
    assert_eq!(contents(&desk.path("new")), before);
    desk.run(&["verify", "new"]).ok();
}

#[test]
fn losses_are_listed_and_make_exit_code_1() {
    let desk = store();
    damage(&desk);
    // The message of a command that comes across the damage names the next one.
    desk.run(&["get", "s", "needle \u{e9}"]).fails(2, &["tophash repair STORE NEW"]);
    let ran = desk.run(&["repair", "s", "new"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), ""));
    for part in
        ["saved 201 keys", "00000001.log", "| needle \\xc3\\xa9 |", "acknowledged", "the last checkpoint: 1 key\n"]
    {
        assert!(ran.text().contains(part), "`{part}` is missing in {}", ran.text());
    }
    let ran = desk.run(&["repair", "s", "again", "--json"]);
    let report = ran.json();
    assert_eq!((ran.code, &report["is_complete"], &report["keys"]), (Some(1), &json!(false), &json!(201)));
    assert_eq!((&report["path"], &report["new_path"]), (&json!("s"), &json!("again")));
    assert_eq!(report["lost_keys"][0]["key"], json!("needle \\xc3\\xa9"));
    assert_eq!(report["losses"][0]["acknowledged"], json!(true));
    desk.run(&["verify", "again"]).ok();
}

#[test]
fn what_cannot_be_done_is_exit_code_2_and_leaves_nothing() {
    let desk = store();
    desk.run(&["repair", "s", "s"]).fails(2, &["s"]);
    desk.write("file", "text");
    desk.run(&["repair", "s", "file"]).fails(2, &["overwrites nothing"]);
    desk.run(&["repair", "file", "new"]).fails(2, &["not a tophash store"]);
    desk.run(&["repair", "missing", "new", "--json"]).fails(2, &["no store at missing"]);
    assert_eq!(desk.names(), ["file", "s"]);
}

#[test]
fn ctrl_c_leaves_no_new_store() {
    use std::process::Stdio;
    let desk = Desk::new();
    // Large enough to take a while.
    let line = |i: u32| format!("key{i}\t{}\n", "v".repeat(200));
    let lines: String = (0..150_000).map(line).collect();
    desk.run_with(&["import", "s", "--format", "tsv"], lines.as_bytes()).ok();
    eventually("a repair that is told to stop before it has finished", || {
        let mut command = desk.command(&["repair", "s", "new"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start the repair");
        // Its unfinished store appears; then it is told to stop.
        let unfinished = || desk.names().iter().any(|name| name.starts_with("new.unfinished"));
        eventually("an unfinished store, or the end", || unfinished() || child.try_wait().unwrap().is_some());
        if child.try_wait().unwrap().is_none() {
            desk.program("kill", &["-INT", &child.id().to_string()], b"").ok();
        }
        let output = child.wait_with_output().expect("wait for the repair");
        let message = String::from_utf8_lossy(&output.stderr);
        if output.status.code() == Some(0) {
            // It was faster than the signal.
            std::fs::remove_dir_all(desk.path("new")).unwrap();
            return false;
        }
        assert_eq!(output.status.code(), Some(130), "{message}");
        assert!(message.contains("interrupted: there is no new"), "{message}");
        true
    });
    assert_eq!(desk.names(), ["s"]);
    desk.run(&["verify", "s"]).ok();
}
