//! Deadlines: set, shown, exported, imported, counted.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tophash::{Options, Store};

use crate::support::{Desk, contents};

/// A deadline in the year 3000, with milliseconds that a date in seconds would lose.
const FAR: u64 = 32_503_680_000_123;

fn at(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
}

fn now() -> u64 {
    millis(SystemTime::now())
}

fn millis(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_millis()).expect("a time")
}

/// The deadlines in a store, read through the library and not through the tool.
fn deadlines(store: &Path) -> BTreeMap<Vec<u8>, Option<u64>> {
    let store = Options::new().read_only(true).create(false).open(store).expect("open the store");
    let of = |entry: tophash::Entry<'_>| (entry.key().to_vec(), entry.expires_at().map(millis));
    store.iter().map(|entry| of(entry.expect("a whole record"))).collect()
}

/// Records with deadlines to come, one of them in a blob and one too large for a batch of an import; one without; and
/// ten that are expired.
fn mixed(desk: &Desk) {
    let store = Store::open(desk.path("s")).expect("make a store");
    for (n, len) in [(0u64, 3), (1, 300_000), (2, 5 << 20)] {
        store.expiring(at(FAR + n)).set(format!("far {n}"), vec![b'v'; len]).expect("set");
    }
    store.expiring(at(FAR + 3)).set(b"\xff far 3", b"\x00").expect("set");
    store.set("for good", "value").expect("set");
    for n in 0..10 {
        store.expiring(at(1000)).set(format!("past {n}"), "value").expect("set");
    }
    store.close().expect("close");
}

#[test]
fn jsonl_carries_deadlines_there_and_back_exactly() {
    let desk = Desk::new();
    mixed(&desk);
    let expected = deadlines(&desk.path("s"));
    assert_eq!((expected.len(), expected[&b"\xff far 3"[..]]), (5, Some(FAR + 3)));
    // Expired records stay behind, and are no error, though the store counts them.
    let ran = desk.run(&["export", "s", "out", "--format", "jsonl", "--json"]);
    assert_eq!((ran.json()["records"].clone(), ran.json()["deadlines_lost"].clone()), (json!(5), json!(0)));
    assert!(!ran.stderr.contains("deadline"), "{}", ran.stderr);
    let text = String::from_utf8(desk.read("out")).expect("text");
    assert!(text.contains(&format!(",\"expires_ms\":{}}}\n", FAR + 1)), "no deadline in the file");
    assert!(text.contains("{\"key\":\"for good\",\"value\":\"value\"}\n"), "a deadline where none is");
    desk.ok(&["import", "t", "out", "--format", "jsonl"]);
    assert_eq!(deadlines(&desk.path("t")), expected);
    assert_eq!(contents(&desk.path("t")), contents(&desk.path("s")));
    let again = desk.ok(&["export", "t", "--format", "jsonl"]);
    let sorted = |text: &[u8]| {
        let mut lines: Vec<_> = text.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&again), sorted(text.as_bytes()));
}

#[test]
fn formats_without_deadlines_say_what_they_lose() {
    let desk = Desk::new();
    mixed(&desk);
    for (format, more) in [("tsv", &[][..]), ("dump", &["--print"]), ("dump", &["--lmdb"])] {
        let ran = desk.run(&[&["export", "s", "out", "--format", format, "--json"], more].concat());
        ran.fails(0, &["warning: 4 records have a deadline", format, "--format jsonl"]);
        assert_eq!(ran.json()["deadlines_lost"], json!(4));
        let piped = desk.run(&[&["export", "s", "--format", format], more].concat());
        piped.fails(0, &["warning: 4 records have a deadline"]);
        assert_eq!(piped.stdout, desk.read("out"), "{format}");
        let copy = format!("copy {format}{}", more.len());
        desk.ok(&["import", &copy, "out", "--format", format]);
        let found = deadlines(&desk.path(&copy));
        assert!(found.len() == 5 && found.values().all(Option::is_none), "{found:?}");
    }
    // Nothing is lost, nothing is said.
    desk.ok(&["set", "t", "a", "1"]);
    assert_eq!(desk.run(&["export", "t", "--format", "tsv"]).stderr, "");
    desk.ok(&["set", "t", "a", "1", "--expires-in", "1h"]);
    desk.run(&["export", "t", "--format", "tsv"])
        .fails(0, &["warning: 1 record has a deadline, which tsv does not keep"]);
}

#[test]
fn imports_take_deadlines_that_have_passed_and_refuse_what_is_none() {
    let desk = Desk::new();
    desk.ok(&["set", "s", "a", "old"]);
    let lines = "{\"key\":\"a\",\"value\":\"new\",\"expires_ms\":5}\n{\"key\":\"b\",\"value\":\"1\"}\n";
    let ran = desk.run_with(&["import", "s", "--format", "jsonl", "--json"], lines.as_bytes());
    assert_eq!((ran.json()["records"].clone(), ran.json()["expired"].clone()), (json!(2), json!(1)));
    desk.run(&["get", "s", "a"]).fails(1, &["key not found"]);
    let ran = desk.run_with(&["import", "s", "--format", "jsonl"], lines.as_bytes());
    ran.fails(0, &["1 record of those read is expired already"]);
    for (bad, what) in [
        ("-1", "expected u64"),
        ("\"2030-12-24\"", "expected u64"),
        ("1.5", "expected u64"),
        ("4611686018427387905", "the limit is 4611686018427387904"),
    ] {
        let line =
            format!("{{\"key\":\"c\",\"value\":\"1\"}}\n{{\"key\":\"d\",\"value\":\"1\",\"expires_ms\":{bad}}}\n");
        let ran = desk.run_with(&["import", "s", "--format", "jsonl"], line.as_bytes());
        ran.fails(1, &["line 2", what]);
        let ran = desk.run_with(&["import", "s", "--format", "jsonl", "--skip-bad"], line.as_bytes());
        ran.fails(0, &["malformed and skipped: 1 record"]);
    }
    assert_eq!(desk.run(&["get", "s", "d"]).code, Some(1));
}

#[test]
fn set_gives_a_deadline_and_get_and_scan_show_it() {
    let desk = Desk::new();
    let before = now();
    let ran = desk.run(&["set", "s", "a", "1", "--expires-in", "1h 30m", "--json"]);
    let expires_ms = ran.json()["expires_ms"].as_u64().expect("a deadline");
    assert!((before + 5_400_000..=now() + 5_400_000).contains(&expires_ms), "{expires_ms}");
    assert_eq!(deadlines(&desk.path("s"))[&b"a"[..]], Some(expires_ms));
    let entry = json!({"key": "a", "value": "1", "expires_ms": expires_ms});
    let mut found = entry.clone();
    found["found"] = json!(true);
    assert_eq!(desk.run(&["get", "s", "a", "--json"]).json(), found);
    assert_eq!(desk.run(&["scan", "s", "--json"]).json()["entries"], json!([entry]));
    let hex = desk.run(&["scan", "s", "--json", "--hex", "--keys-only"]).json();
    assert_eq!(hex["entries"], json!([{"key_hex": "61", "expires_ms": expires_ms}]));
    let hex = desk.run(&["get", "s", "61", "--json", "--hex"]).json();
    assert_eq!(hex, json!({"found": true, "key_hex": "61", "value_hex": "31", "expires_ms": expires_ms}));

    desk.ok(&["set", "s", "a", "2", "--expires-at", "3000-01-01T00:00:00.123Z"]);
    assert_eq!(desk.run(&["get", "s", "a", "--json"]).json()["expires_ms"], json!(FAR));
    assert_eq!(desk.ok(&["get", "s", "a"]), b"2");
    // A record that is set without one does not expire.
    let ran = desk.run(&["set", "s", "a", "3", "--json"]);
    assert_eq!(ran.json(), json!({"replaced": true, "value_bytes": 1}));
    assert_eq!(desk.run(&["get", "s", "a", "--json"]).json(), json!({"found": true, "key": "a", "value": "3"}));
    desk.ok(&["set", "s", "b", "1", "--expires-in", "1ms"]);
    std::thread::sleep(Duration::from_millis(5));
    desk.run(&["get", "s", "b"]).fails(1, &["key not found: b"]);
    assert_eq!(desk.ok(&["scan", "s"]), b"a\t3\n");
}

#[test]
fn wrong_deadlines_are_explained_and_set_nothing() {
    let desk = Desk::new();
    for (option, bad, what) in [
        ("--expires-in", "30", "as in 90s, 30m"),
        ("--expires-in", "soon", "as in 90s, 30m"),
        ("--expires-in", "", "as in 90s, 30m"),
        ("--expires-in", "1h 30", "as in 90s, 30m"),
        ("--expires-in", "0s", "expires at once"),
        ("--expires-at", "tomorrow", "a time in UTC, as in 2030-12-24T18:00:00Z"),
        ("--expires-at", "3000", "a time in UTC"),
        ("--expires-at", "3000-02-30T00:00:00Z", "a time in UTC"),
        ("--expires-at", "2001-02-03T04:05:06Z", "that time has passed; `tophash del`"),
    ] {
        desk.run(&["set", "s", "a", "1", option, bad]).fails(2, &[option, what]);
    }
    let both = ["set", "s", "a", "1", "--expires-in", "1h", "--expires-at", "3000-01-01T00:00:00Z"];
    desk.run(&both).fails(2, &["cannot be used with"]);
    assert!(desk.names().is_empty(), "{:?}", desk.names());
}

/// A checkpoint keeps of each segment when the first and the last records expire, so figures of segments of one kind are exact.
#[test]
fn stats_and_doctor_count_what_expires() {
    let desk = Desk::new();
    for (name, deadline) in [("past", 1000), ("far", FAR)] {
        let store = Store::open(desk.path(name)).expect("make a store");
        store.set("for good", "value").expect("set");
        for n in 0..10 {
            // 8 + 8 + 5 + 5 bytes.
            store.expiring(at(deadline)).set(format!("key {n}"), "value").expect("set");
        }
        store.close().expect("close");
    }
    for (name, expired) in [("past", 320), ("far", 0)] {
        let stats = desk.run(&["stats", name, "--json"]).json();
        let log = &stats["log"];
        assert_eq!((&log["expiring_bytes"], &log["expired_bytes"]), (&json!(320), &json!(expired)), "{name}");
        assert_eq!(stats["compaction"]["expired_records"], Value::Null, "only a writer knows");
        let text = desk.run(&["stats", name]).text();
        assert!(text.contains("log: expiring bytes") && text.contains("log: expired bytes"), "{text}");

        let report = desk.run(&["doctor", name, "--json", "--html", "page.html"]).json();
        for figures in [&report["log"], &report["segments"][0]] {
            assert_eq!(
                (&figures["expiring_bytes"], &figures["expired_bytes"]),
                (&json!(320), &json!(expired)),
                "{name}"
            );
        }
        let text = desk.run(&["doctor", name]).text();
        assert!(text.contains("records with a deadline: 320 B"), "{text}");
        assert_eq!(text.contains("| expired records "), expired > 0, "{text}");
        let page = String::from_utf8(desk.read("page.html")).expect("text");
        assert!(page.contains("with a deadline"));
        assert_eq!(page.contains("expired records"), expired > 0);
    }
    // A store without deadlines is not told about them.
    desk.ok(&["set", "t", "a", "1"]);
    assert!(!desk.run(&["doctor", "t"]).text().contains("deadline"));
    assert_eq!(desk.run(&["stats", "t", "--json"]).json()["log"]["expiring_bytes"], json!(0));
}
