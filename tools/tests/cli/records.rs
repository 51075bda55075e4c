//! get, set, del, scan.

use serde_json::json;

use crate::support::{Desk, contents, raw};

#[test]
fn a_value_comes_back_as_it_was_given() {
    let desk = Desk::new();
    desk.ok(&["set", "s", "user:1", "Ada"]);
    assert_eq!(desk.ok(&["get", "s", "user:1"]), b"Ada");
    desk.ok(&["set", "s", "user:1", ""]);
    assert_eq!(desk.ok(&["get", "s", "user:1"]), b"");
}

#[test]
fn any_bytes_are_a_key_and_a_value() {
    let desk = Desk::new();
    let value: Vec<u8> = (0..=255).collect();
    for key in [&b""[..], b"\xff\xfe", b"a\nb", b" "] {
        let ran = desk.run_with(&[raw(b"set"), raw(b"s"), raw(key), raw(b"-")], &value);
        ran.ok();
        assert_eq!(desk.ok(&[raw(b"get"), raw(b"s"), raw(key)]), value, "{key:?}");
    }
    // A NUL does not pass through a command line; hex does.
    desk.ok(&["set", "s", "00ff", "0A00", "--hex"]);
    assert_eq!(desk.ok(&["get", "s", "00FF", "--hex"]), b"0a00\n");
    assert!(contents(&desk.path("s")).contains(&(vec![0, 255], vec![10, 0])));
}

#[test]
fn a_value_from_stdin_keeps_its_line_end() {
    let desk = Desk::new();
    desk.run_with(&["set", "s", "a"], b"line\n").ok();
    assert_eq!(desk.ok(&["get", "s", "a"]), b"line\n");
    desk.run_with(&["set", "s", "b", "-", "--hex"], b"").fails(1, &["the key is not hex"]);
    desk.run_with(&["set", "s", "0b", "-", "--hex"], b"6162\n").ok();
    assert_eq!(desk.ok(&["get", "s", "0b", "--hex"]), b"6162\n");
}

#[test]
fn json_tells_found_from_absent_and_text_from_bytes() {
    let desk = Desk::new();
    let set = desk.run(&["set", "s", "a", "1", "--json"]);
    assert_eq!(set.json(), json!({"replaced": false, "value_bytes": 1}));
    let set = desk.run(&["set", "s", "a", "12", "--json"]);
    assert_eq!(set.json(), json!({"replaced": true, "value_bytes": 2}));
    let get = desk.run(&["get", "s", "a", "--json"]);
    assert_eq!(get.json(), json!({"found": true, "key": "a", "value": "12"}));
    let get = desk.run(&["get", "s", "b", "--json"]);
    assert_eq!((get.json(), get.code), (json!({"found": false, "key": "b"}), Some(1)));
    desk.ok(&["set", "s", "ff", "00ff", "--hex"]);
    let get = desk.run(&["get", "s", "ff", "--hex", "--json"]);
    assert_eq!(get.json(), json!({"found": true, "key_hex": "ff", "value_hex": "00ff"}));
    let get = desk.run(&[raw(b"get"), raw(b"s"), raw(b"\xff"), raw(b"--json")]);
    assert_eq!(get.json(), json!({"found": true, "key_b64": "/w==", "value_b64": "AP8="}));
}

#[test]
fn an_absent_key_is_exit_code_1_and_nothing_on_stdout() {
    let desk = Desk::new();
    desk.ok(&["set", "s", "a", "1"]);
    let ran = desk.run(&["get", "s", "b"]);
    ran.fails(1, &["key not found: b"]);
    assert!(ran.stdout.is_empty());
}

#[test]
fn a_missing_store_is_exit_code_2_and_only_writing_creates_one() {
    let desk = Desk::new();
    for args in [
        &["get", "s", "a"][..],
        &["scan", "s"],
        &["stats", "s"],
        &["verify", "s"],
        &["export", "s", "--format", "tsv"],
        &["del", "s", "a"],
        &["tables", "s"],
        &["tables", "s", "--clear", ""],
        &["set", "s", "a", "1", "--no-create"],
        &["import", "s", "--format", "tsv", "--no-create"],
    ] {
        desk.run(args).fails(2, &["there is no store at s"]);
        assert!(desk.names().is_empty(), "{args:?} left {:?}", desk.names());
    }
}

#[test]
fn a_folder_of_something_else_is_left_alone() {
    let desk = Desk::new();
    desk.write("photos/cat.jpg", "cat");
    desk.run(&["set", "photos", "a", "1"]).fails(2, &["photos"]);
    desk.run(&["get", "photos", "a"]).fails(2, &["photos"]);
    assert_eq!(desk.read("photos/cat.jpg"), b"cat");
}

#[test]
fn a_store_in_use_is_named() {
    let desk = Desk::new();
    let store = tophash::Store::open(desk.path("s")).expect("create a store");
    store.insert("a", "1").expect("insert");
    desk.run(&["get", "s", "a"]).fails(2, &["in use"]);
    desk.run(&["set", "s", "a", "2"]).fails(2, &["in use"]);
    store.close().expect("close");
    assert_eq!(desk.ok(&["get", "s", "a"]), b"1");
}

#[test]
fn del_counts_what_was_there() {
    let desk = Desk::new();
    for key in ["a", "b", "c", "d"] {
        desk.ok(&["set", "s", key, "1"]);
    }
    assert_eq!(desk.ok(&["del", "s", "a"]), b"removed 1 of 1 key\n");
    let ran = desk.run(&["del", "s", "a", "b", "x", "--json"]);
    assert_eq!((ran.json(), ran.code), (json!({"keys": 3, "removed": 1}), Some(1)));
    assert_eq!(contents(&desk.path("s")).len(), 2);
    desk.run(&["del", "s"]).fails(2, &["--from"]);
}

#[test]
fn del_reads_keys_from_a_file_or_a_pipe() {
    let desk = Desk::new();
    for key in ["61", "620a", "ff", "64", ""] {
        desk.ok(&["set", "s", key, "31", "--hex"]);
    }
    desk.write("keys", b"a\n\xff");
    assert_eq!(desk.ok(&["del", "s", "--from", "keys"]), b"removed 2 of 2 keys\n");
    let ran = desk.run_with(&["del", "s", "--from", "-", "--hex"], b"620A\n\n64\n");
    assert_eq!(ran.ok(), b"removed 3 of 3 keys\n");
    assert!(contents(&desk.path("s")).is_empty());
}

#[test]
fn a_bad_line_of_keys_is_named_and_the_keys_before_it_are_removed() {
    let desk = Desk::new();
    desk.ok(&["set", "s", "a", "1"]);
    desk.ok(&["set", "s", "b", "1"]);
    let ran = desk.run_with(&["del", "s", "--from", "-", "--hex"], b"61\nzz\n62\n");
    ran.fails(1, &["line 2", "not hex"]);
    assert_eq!(ran.text(), "removed 1 of 1 key\n");
    assert_eq!(desk.run(&["get", "s", "b"]).code, Some(0));
}

#[test]
fn many_keys_are_removed_in_several_calls() {
    let desk = Desk::new();
    let lines: String = (0..2500).map(|i| format!("key{i}\t{i}\n")).collect();
    desk.run_with(&["import", "s", "--format", "tsv"], lines.as_bytes()).ok();
    let keys: String = (0..2400).map(|i| format!("key{i}\n")).collect();
    let ran = desk.run_with(&["del", "s", "--from", "-", "--json"], keys.as_bytes());
    assert_eq!(ran.json(), json!({"keys": 2400, "removed": 2400}));
    assert_eq!(contents(&desk.path("s")).len(), 100);
}

fn cursor(stderr: &str) -> Option<String> {
    stderr.split_once("--cursor ").map(|(_, cursor)| cursor.trim().to_string())
}

#[test]
fn scans_in_pieces_show_every_record_once() {
    let desk = Desk::new();
    let lines: String = (0..500).map(|i| format!("key{i}\tvalue{i}\n")).collect();
    desk.run_with(&["import", "s", "--format", "tsv"], lines.as_bytes()).ok();
    let mut seen = Vec::new();
    let mut next = Some("0".to_string());
    while let Some(from) = next {
        let ran = desk.run(&["scan", "s", "--limit", "64", "--cursor", &from]);
        let text = ran.text();
        assert!(text.lines().count() <= 64);
        seen.extend(text.lines().map(ToString::to_string));
        next = cursor(&ran.stderr);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    }
    seen.sort();
    let mut expected: Vec<_> = lines.lines().map(ToString::to_string).collect();
    expected.sort();
    assert_eq!(seen, expected);
    let mut whole: Vec<_> = desk.run(&["scan", "s"]).text().lines().map(ToString::to_string).collect();
    whole.sort();
    assert_eq!(whole, expected);
}

#[test]
fn a_prefix_filters_and_the_limit_counts_what_passes() {
    let desk = Desk::new();
    let lines: String = (0..300).map(|i| format!("{}:{i}\t\n", if i % 3 == 0 { "user" } else { "item" })).collect();
    desk.run_with(&["import", "s", "--format", "tsv"], lines.as_bytes()).ok();
    let (mut seen, mut next) = (Vec::new(), Some("0".to_string()));
    while let Some(from) = next {
        let args = ["scan", "s", "--prefix", "user:", "--keys-only", "--json", "--limit", "7", "--cursor", &from];
        let page = desk.run(&args).json();
        let entries = page["entries"].as_array().expect("entries").clone();
        assert!(entries.len() <= 7);
        seen.extend(entries.iter().map(|entry| entry["key"].as_str().expect("a key").to_string()));
        next = page["next_cursor"].as_str().map(ToString::to_string);
    }
    assert_eq!(seen.len(), 100);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 100);
    assert!(seen.iter().all(|key| key.starts_with("user:")));
}

#[test]
fn scans_escape_what_is_not_text() {
    let desk = Desk::new();
    desk.ok(&["set", "s", "00ff", "090a5c", "--hex"]);
    assert_eq!(desk.ok(&["scan", "s"]), b"\\x00\\xff\t\\t\\n\\\\\n");
    assert_eq!(desk.ok(&["scan", "s", "--keys-only"]), b"\\x00\\xff\n");
    assert_eq!(desk.ok(&["scan", "s", "--hex"]), b"00ff\t090a5c\n");
    assert_eq!(desk.ok(&["scan", "s", "--hex", "--prefix", "01"]), b"");
    let page = desk.run(&["scan", "s", "--json"]).json();
    assert_eq!(page, json!({"entries": [{"key_b64": "AP8=", "value": "\t\n\\"}], "next_cursor": null, "skipped": 0}));
    let page = desk.run(&["scan", "s", "--json", "--prefix", "none"]).json();
    assert_eq!(page, json!({"entries": [], "next_cursor": null, "skipped": 0}));
}

#[test]
fn wrong_usage_is_exit_code_2_and_help_is_0() {
    let desk = Desk::new();
    desk.run(&["get", "s"]).fails(2, &["Usage"]);
    desk.run(&["frobnicate"]).fails(2, &["frobnicate"]);
    let help = desk.run(&["--help"]);
    assert_eq!(help.code, Some(0));
    assert!(help.text().contains("Exit codes"), "{}", help.text());
    for command in ["demo", "import", "export", "get", "set", "del", "scan", "stats", "tables", "verify", "bench"] {
        let help = desk.run(&[command, "--help"]);
        assert_eq!(help.code, Some(0));
        assert!(help.text().contains("Example:"), "{command}");
    }
}
