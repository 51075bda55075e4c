//! What import does with input that is not what it should be.

use serde_json::json;

use crate::support::{Desk, contents, dump};

#[test]
fn a_malformed_line_is_named_and_what_came_before_it_is_there() {
    let desk = Desk::new();
    for (name, format, text, line) in [
        ("tsv", "tsv", &b"a\t1\nb\t2\nno tab\nc\t3\n"[..], "line 3: no TAB"),
        (
            "json",
            "jsonl",
            b"{\"key\":\"a\",\"value\":\"1\"}\n{\"key\":\"b\",\"value\":\"2\"}\n{\"key\":\"c\"}\n",
            "line 3: ",
        ),
        (
            "dump",
            "dump",
            b"VERSION=3\nformat=print\nHEADER=END\n a\n 1\n b\n 2\n c\\q\n 3\nDATA=END\n",
            "line 8: bad escape",
        ),
        ("cut", "dump", b"VERSION=3\nformat=print\nHEADER=END\n a\n 1\n b\n 2\n", "line 7: the text ends here"),
    ] {
        let ran = desk.run_with(&["import", name, "--format", format], text);
        ran.fails(1, &[line, "2 records stored before"]);
        let records = contents(&desk.path(name));
        assert_eq!(records, [(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), b"2".to_vec())], "{name}");
    }
}

#[test]
fn the_summary_counts_and_carries_the_error() {
    let desk = Desk::new();
    let ran = desk.run_with(&["import", "s", "--format", "tsv", "--json", "--batch", "2"], b"a\t1\nb\t2\nc\t3\nbad\n");
    assert_eq!(ran.code, Some(1));
    let summary = ran.json();
    assert_eq!((&summary["records"], &summary["imported"]), (&json!(3), &json!(3)));
    assert_eq!(summary["records_in_store"], json!(3));
    assert!(summary["error"].as_str().is_some_and(|error| error.contains("line 4")), "{summary}");
    let summary = desk.run_with(&["import", "s", "--format", "tsv", "--json"], b"a\t1\n").json();
    assert_eq!((&summary["imported"], &summary["error"]), (&json!(1), &json!(null)));
    assert_eq!(summary["records_in_store"], json!(3));
}

#[test]
fn bad_lines_can_be_skipped_and_are_counted() {
    let desk = Desk::new();
    let mut text = String::new();
    for i in 0..100 {
        text.push_str(&if i % 5 == 0 { format!("bad{i}\n") } else { format!("key{i}\t{i}\n") });
    }
    let ran = desk.run_with(&["import", "s", "--format", "tsv", "--skip-bad", "--json"], text.as_bytes());
    let summary = ran.json();
    assert_eq!((&summary["imported"], &summary["skipped"]), (&json!(80), &json!(20)));
    let first = summary["skipped_first"].as_array().expect("a list");
    assert_eq!(first.len(), 10);
    assert_eq!(first[1], json!("line 6: no TAB between key and value"));
    let ran = desk.run_with(&["import", "s", "--format", "tsv", "--skip-bad"], text.as_bytes());
    assert!(
        ran.stderr.contains("skipped line 1: ") && ran.stderr.contains("malformed and skipped: 20 records"),
        "{}",
        ran.stderr
    );
    ran.ok();
    // What leaves no next record to go on with is not skipped.
    let ran = desk.run_with(&["import", "t", "--format", "dump", "--skip-bad"], b"VERSION=4\n");
    ran.fails(1, &["VERSION=4"]);
}

#[test]
fn a_dry_run_reads_everything_and_creates_nothing() {
    let desk = Desk::new();
    let ran = desk.run_with(&["import", "s", "--format", "tsv", "--dry-run"], b"a\t1\nb\t2\n");
    assert!(ran.text().contains("2 records"), "{}", ran.text());
    ran.ok();
    desk.run_with(&["import", "s", "--format", "tsv", "--dry-run"], b"a\t1\nb\n").fails(1, &["line 2"]);
    assert!(desk.names().is_empty());
}

#[test]
fn a_missing_file_creates_no_store() {
    let desk = Desk::new();
    desk.run(&["import", "s", "missing.tsv", "--format", "tsv"]).fails(2, &["missing.tsv"]);
    assert!(desk.names().is_empty());
}

#[test]
fn lines_and_keys_have_a_limit() {
    let desk = Desk::new();
    let args = ["import", "s", "--format", "tsv", "--max-line-bytes", "1K"];
    let text = [&b"a\t1\nb\t"[..], &[b'x'; 2000], b"\n"].concat();
    desk.run_with(&args, &text).fails(1, &["line 2", "longer than 1024 bytes", "--max-line-bytes"]);
    let text = [&b"b\t1\n"[..], &[b'k'; 70_000], b"\t1\nc\t1\n"].concat();
    desk.run_with(&["import", "t", "--format", "tsv"], &text).fails(1, &["line 2", "70000", "65535"]);
    desk.run_with(&["import", "t", "--format", "tsv", "--skip-bad"], &text).ok();
    assert_eq!(contents(&desk.path("t")).len(), 2);
    // The longest key that there is.
    desk.run_with(&["import", "u", "--format", "tsv"], &[&[b'k'; 65_535][..], b"\t1\n"].concat()).ok();
    assert_eq!(contents(&desk.path("u"))[0].0.len(), 65_535);
}

#[test]
fn the_last_of_several_values_stays() {
    let desk = Desk::new();
    desk.run_with(&["import", "s", "--format", "tsv"], b"a\t1\na\t2\n").ok();
    assert_eq!(desk.ok(&["get", "s", "a"]), b"2");
    desk.run_with(&["import", "s", "--format", "tsv"], b"a\t3\n").ok();
    assert_eq!(desk.ok(&["get", "s", "a"]), b"3");
}

#[test]
fn of_several_databases_one_is_chosen() {
    let desk = Desk::new();
    let named = |name: &str, text: &[u8]| {
        let text = String::from_utf8(text.to_vec()).expect("hex");
        text.replace("type=btree", &format!("database={name}\ntype=btree"))
    };
    let one = named("one", &dump(&[(b"a".to_vec(), b"1".to_vec())]));
    let two = named("two", &dump(&[(b"b".to_vec(), b"2".to_vec())]));
    let both = format!("{one}{two}");
    desk.write("both", &both);
    // A file is looked through first; a pipe cannot be.
    desk.run(&["import", "s", "both", "--format", "dump", "--table", "t"])
        .fails(1, &["one, two", "--database", "nothing was imported"]);
    assert_eq!(desk.names(), ["both"]);
    let ran = desk.run_with(&["import", "s", "--format", "dump", "--table", ""], both.as_bytes());
    ran.fails(1, &["--database", "1 record stored before"]);
    desk.ok(&["import", "t", "both", "--format", "dump", "--database", "two"]);
    assert_eq!(contents(&desk.path("t")), [(b"b".to_vec(), b"2".to_vec())]);
    desk.run(&["import", "t", "both", "--format", "dump", "--database", "three"]).fails(1, &["three"]);
}

#[test]
fn duplicates_need_a_decision() {
    let desk = Desk::new();
    let text = b"VERSION=3\nformat=print\nduplicates=1\nHEADER=END\n a\n 1\n a\n 2\nDATA=END\n";
    desk.run_with(&["import", "s", "--format", "dump"], text).fails(1, &["--last-wins"]);
    desk.run_with(&["import", "s", "--format", "dump", "--last-wins"], text).ok();
    assert_eq!(desk.ok(&["get", "s", "a"]), b"2");
}

#[test]
fn a_new_store_gets_the_permissions_that_were_asked_for() {
    use std::os::unix::fs::PermissionsExt;
    let desk = Desk::new();
    let mode = |name: &str| std::fs::metadata(desk.path(name)).unwrap().permissions().mode() & 0o777;
    desk.run_with(&["import", "private", "--format", "tsv"], b"a\t1\n");
    assert_eq!((mode("private"), mode("private/index"), mode("private/log-1/00000001.log")), (0o700, 0o600, 0o600));
    // Bits that any usual umask leaves.
    desk.run_with(&["import", "shared", "--format", "tsv", "--mode", "644"], b"a\t1\n");
    let shared = mode("shared/index");
    assert!(shared == 0o644 || shared == 0o640 || shared == 0o600, "{shared:o}");
    assert_eq!(mode("shared/log-1/00000001.log"), shared);
    desk.run_with(&["set", "shared", "b", "2", "--mode", "600"], b"");
    assert_eq!(mode("shared/index"), shared, "a store that exists keeps its permissions");
    desk.run_with(&["set", "other", "b", "2", "--mode", "755"], b"").fails(2, &["from 600 to 666"]);
}

/// A mark of byte order became part of the first key, or made the text no record; CR LF became part of the values of a
/// printable dump.
#[test]
fn texts_of_other_systems_are_stored_as_what_they_mean() {
    let desk = Desk::new();
    let texts = [
        ("tsv", "a\t1\r\nb\t2\r\n"),
        ("jsonl", "{\"key\":\"a\",\"value\":\"1\"}\r\n{\"key\":\"b\",\"value\":\"2\"}\r\n"),
        ("dump", "VERSION=3\r\nformat=print\r\nHEADER=END\r\n a\r\n 1\r\n b\r\n 2\r\nDATA=END\r\n"),
    ];
    let expected = [(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), b"2".to_vec())];
    for (format, text) in texts {
        desk.run_with(&["import", format, "--format", format], format!("\u{feff}{text}").as_bytes()).ok();
        assert_eq!(contents(&desk.path(format)), expected, "{format}");
        let utf16: Vec<u8> = format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect();
        desk.run_with(&["import", "s", "--format", format], &utf16).fails(1, &["line 1", "UTF-16", "iconv"]);
    }
    // A key that begins like the mark is exported so that it comes back.
    desk.run(&["set", "marked", "\u{feff}a", "1"]).ok();
    let text = desk.ok(&["export", "marked", "--format", "tsv"]);
    desk.run_with(&["import", "again", "--format", "tsv"], &text).ok();
    assert_eq!(contents(&desk.path("again")), contents(&desk.path("marked")));
    // Keys to remove.
    let ran = desk.run_with(&["del", "tsv", "--from", "-"], b"a\r\nb\r\n");
    ran.fails(1, &["2 lines ended with a carriage return"]);
    desk.run_with(&["del", "tsv", "--from", "-"], "\u{feff}a\nb\n".as_bytes()).ok();
}

/// serde takes an array for an object; half a record was stored without a word.
#[test]
fn an_array_is_no_record() {
    let desk = Desk::new();
    let text = b"{\"key\":\"a\",\"value\":\"1\"}\n[\"b\",null,\"2\",null]\n";
    desk.run_with(&["import", "s", "--format", "jsonl"], text).fails(1, &["line 2", "expected an object", "jq -c"]);
}

/// A large value was exported in a line that no import took.
#[test]
fn export_and_import_have_the_same_limit_of_a_line() {
    let desk = Desk::new();
    desk.run_with(&["set", "s", "large", "-"], &[0x80; 3 << 20]).ok();
    desk.run_with(&["set", "s", "zeroes", "-"], &[0; 3 << 20]).ok();
    let expected = contents(&desk.path("s"));
    for format in ["jsonl", "tsv", "dump"] {
        let ran = desk.run(&["export", "s", "file", "--format", format, "--max-line-bytes", "3M"]);
        ran.fails(2, &["3.00 MiB", "`tophash import`", "--max-line-bytes"]);
        assert!(!desk.names().contains(&"file".to_string()));
        // What the message advises works.
        let advised = ran.stderr.split("--max-line-bytes ").nth(1).expect("advice").split(' ').next().expect("a size");
        desk.ok(&["export", "s", "file", "--format", format, "--max-line-bytes", advised]);
        desk.ok(&["import", format, "file", "--format", format, "--max-line-bytes", advised]);
        assert!(contents(&desk.path(format)) == expected, "{format}");
        // Zeroes were six times as long in jsonl.
        assert!(format != "jsonl" || desk.read("file").len() < 9 << 20);
        std::fs::remove_file(desk.path("file")).expect("remove it");
    }
}
