//! export, and import of what was exported.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::json;

use crate::support::{Desk, Record, contents, dump, nasty_records};

#[test]
fn every_format_carries_every_byte_there_and_back() {
    let desk = Desk::new();
    let records = nasty_records();
    desk.run_with(&["import", "first", "--format", "dump"], &dump(&records)).ok();
    assert_eq!(contents(&desk.path("first")), records);
    for (name, export, import) in [
        ("jsonl", &["--format", "jsonl"][..], "jsonl"),
        ("tsv", &["--format", "tsv"], "tsv"),
        ("hex", &["--format", "dump"], "dump"),
        ("print", &["--format", "dump", "--print", "--database", "a b", "--lmdb"], "dump"),
    ] {
        let store = format!("from-{name}");
        // Once through a file, once through a pipe.
        desk.ok(&[&["export", "first", name], export].concat());
        desk.ok(&["import", &store, name, "--format", import, "--table", ""]);
        assert_eq!(contents(&desk.path(&store)), records, "{name}, file");
        let piped = desk.ok(&[&["export", "first"], export].concat());
        assert_eq!(piped, desk.read(name));
        let store = format!("{store}-piped");
        desk.run_with(&["import", &store, "-", "--format", import, "--table", ""], &piped).ok();
        assert_eq!(contents(&desk.path(&store)), records, "{name}, pipe");
    }
}

#[test]
fn large_values_travel_outside_the_batches() {
    let desk = Desk::new();
    let large = vec![0xab; 5 << 20];
    let records: Vec<Record> =
        vec![(b"after".to_vec(), b"1".to_vec()), (b"before".to_vec(), b"0".to_vec()), (b"large".to_vec(), large)];
    // The large one comes between two small ones; the second put of `before` must stay the last.
    let mut sequence = records.clone();
    sequence.insert(0, (b"before".to_vec(), b"old".to_vec()));
    sequence.rotate_left(1);
    desk.run_with(&["import", "s", "--format", "dump", "--last-wins"], &dump(&sequence)).ok();
    let found = contents(&desk.path("s"));
    assert_eq!(found.len(), 3);
    assert_eq!(found[2], records[2]);
    let text = desk.ok(&["export", "s", "--format", "jsonl"]);
    desk.run_with(&["import", "copy", "--format", "jsonl"], &text).ok();
    assert_eq!(contents(&desk.path("copy")), found);
}

#[test]
fn an_export_appears_whole_and_leaves_nothing_else() {
    let desk = Desk::new();
    desk.ok(&["set", "s", "a", "1"]);
    desk.write("out.tsv", "what was there before");
    let ran = desk.run(&["export", "s", "out.tsv", "--format", "tsv", "--json"]);
    assert_eq!(
        ran.json(),
        json!({"file": "out.tsv", "tables": 1, "records": 1, "record_bytes": 2, "skipped": 0, "deadlines_lost": 0})
    );
    assert_eq!(desk.read("out.tsv"), b"a\t1\n");
    assert_eq!(desk.names(), ["out.tsv", "s"]);
    desk.run(&["export", "s", "missing/out.tsv", "--format", "tsv"]).fails(2, &["missing"]);
    desk.ok(&["export", "s", "/dev/null", "--format", "tsv"]);
}

#[test]
fn an_empty_store_is_exported_and_imported() {
    let desk = Desk::new();
    desk.run_with(&["import", "s", "--format", "tsv"], b"").ok();
    assert_eq!(desk.ok(&["export", "s", "--format", "jsonl"]), b"");
    let text = desk.ok(&["export", "s", "--format", "dump"]);
    assert_eq!(text, b"VERSION=3\nformat=bytevalue\ntype=btree\nHEADER=END\nDATA=END\n");
    desk.run_with(&["import", "t", "--format", "dump"], &text).ok();
    assert!(contents(&desk.path("t")).is_empty());
}

#[test]
fn options_that_do_not_fit_together_are_refused() {
    let desk = Desk::new();
    desk.ok(&["set", "s", "a", "1"]);
    desk.run(&["export", "s", "--format", "tsv", "--lmdb"]).fails(2, &["--format dump"]);
    desk.run(&["export", "s", "--format", "tsv", "--json"]).fails(2, &["FILE"]);
    desk.run(&["export", "s", "--format", "dump", "--database", "a\nb"]).fails(2, &["one line"]);
    desk.run(&["export", "s", "--format", "xml"]).fails(2, &["jsonl"]);
}

#[test]
fn a_closed_pipe_ends_every_stream_quietly() {
    let desk = Desk::new();
    let lines: String = (0..30_000).map(|i| format!("key{i}\t{}\n", "v".repeat(100))).collect();
    desk.run_with(&["import", "s", "--format", "tsv"], lines.as_bytes()).ok();
    desk.run_with(&["set", "s", "large"], &vec![b'x'; 1 << 20]).ok();
    for args in [
        &["export", "s", "--format", "jsonl"][..],
        &["export", "s", "--format", "dump"],
        &["scan", "s"],
        &["scan", "s", "--json"],
        &["get", "s", "large"],
    ] {
        let mut child =
            desk.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start the tool");
        let mut stdout = BufReader::with_capacity(16, child.stdout.take().expect("a pipe from its stdout"));
        assert!(!stdout.fill_buf().expect("read the beginning").is_empty());
        drop(stdout);
        let output = child.wait_with_output().expect("wait for the tool");
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args:?}");
    }
}
