//! `tophash doctor`: what it says, where to, and with which exit code.

use serde_json::json;
use tophash::{Options, SyncPolicy, Tuning};

use crate::support::Desk;

/// As many records as fill a small table to just below its growth.
const RECORDS: u64 = 13_200;

fn key(n: u64) -> String {
    format!("key-{n:08}")
}

/// A store that was filled, and emptied but for a tenth, with everything off that frees space. Its figures while it
/// was open are in `stats.json`.
fn littered(desk: &Desk) {
    let tuning = Tuning { rewrite_permille: 1000, shrink_permille: 0, background: false, ..Tuning::default() };
    let options = Options::new().tuning(tuning).log_ratio(f64::INFINITY).segment_bytes(64 << 10);
    let store = options.sync(SyncPolicy::Manual).open(desk.path("s")).expect("make a store");
    for n in 0..RECORDS {
        store.insert(key(n), [7; 100]).expect("insert");
    }
    let most: Vec<_> = (0..RECORDS).filter(|n| n % 10 != 0).map(key).collect();
    store.remove_many(&most).expect("remove");
    desk.write("stats.json", serde_json::to_string(&store.stats()).expect("figures"));
    store.close().expect("close");
}

fn fresh(desk: &Desk) {
    let lines: String = (0..1000).map(|n| format!("{}\tvalue {n}\n", key(n))).collect();
    desk.run_with(&["import", "s", "--format", "tsv"], lines.as_bytes()).ok();
}

#[test]
fn a_fresh_store_passes_the_strictest_check() {
    let desk = Desk::new();
    fresh(&desk);
    let ran = desk.run(&["doctor", "s", "--fail-on", "info"]);
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    assert!(ran.text().contains("1,000 records") && ran.text().contains("no findings"), "{}", ran.text());
    let json = desk.run(&["doctor", "s", "--json"]).json();
    assert_eq!((&json["path"], &json["advice"], &json["slots"]["live"]), (&json!("s"), &json!([]), &json!(1000)));
}

#[test]
fn findings_decide_the_exit_code() {
    let desk = Desk::new();
    littered(&desk);
    assert_eq!(desk.run(&["doctor", "s"]).code, Some(0), "without --fail-on findings are no failure");
    for level in ["info", "warning", "critical"] {
        let ran = desk.run(&["doctor", "s", "--fail-on", level]);
        assert_eq!(ran.code, Some(1), "{level}");
        let text = ran.text();
        for part in ["CRITICAL  dead-log", "CRITICAL  tombstones", "pseudo-full-pages", "`tophash compact s`", "why:"] {
            assert!(text.contains(part), "`{part}` is missing in {text}");
        }
    }
    desk.run(&["doctor", "s", "--fail-on", "fatal"]).fails(2, &["fatal", "critical"]);
}

#[test]
fn figures_of_the_running_store_are_taken_in() {
    let desk = Desk::new();
    littered(&desk);
    let without = desk.run(&["doctor", "s", "--json"]).json();
    assert!(without["stats"].is_null());
    let with = desk.run(&["doctor", "s", "--stats", "stats.json", "--json"]).json();
    assert_eq!(with["stats"]["records"], json!(RECORDS / 10));
    let text = desk.run(&["doctor", "s", "--stats", "stats.json"]).text();
    assert!(text.contains("into a tombstone (emptyOne)"), "{text}");
    // `tophash stats` is no running store: what a writer does is not known to it.
    desk.write("tool.json", desk.ok(&["stats", "s", "--json"]));
    desk.run(&["doctor", "s", "--stats", "tool.json"]).fails(2, &["tool.json", "Store::stats"]);
    desk.write("poisoned.json", {
        let mut stats = with["stats"].clone();
        stats["poisoned"] = json!("EIO");
        stats.to_string()
    });
    let ran = desk.run(&["doctor", "s", "--stats", "poisoned.json"]);
    assert!(ran.text().contains("CRITICAL  poisoned"), "{}", ran.text());
    desk.write("other.json", "{\"a\": 1}");
    desk.run(&["doctor", "s", "--stats", "other.json"]).fails(2, &["other.json"]);
}

#[test]
fn the_page_is_one_file_with_the_pictures() {
    let desk = Desk::new();
    littered(&desk);
    let ran = desk.run(&["doctor", "s", "--stats", "stats.json", "--html", "report.html", "--fail-on", "critical"]);
    assert_eq!(ran.code, Some(1), "the page is written before the verdict");
    let page = String::from_utf8(desk.read("report.html")).expect("text");
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    assert!(page.matches("<svg").count() >= 8, "{} pictures", page.matches("<svg").count());
    for part in ["pseudo-full-pages", "Tombstones", "Segments", "Where inserts went", "<code>tophash compact s</code>"]
    {
        assert!(page.contains(part), "`{part}` is missing");
    }
    for word in ["http:", "https:", "src=", "href=", "@import", "<script"] {
        assert!(!page.contains(word), "{word}");
    }
    desk.run(&["doctor", "s", "--html", "none/report.html"]).fails(2, &["none/report.html"]);
}

#[test]
fn what_cannot_be_diagnosed() {
    let desk = Desk::new();
    desk.run(&["doctor", "s"]).fails(2, &["s"]);
    fresh(&desk);
    let store = Options::new().open(desk.path("s")).expect("open");
    desk.run(&["doctor", "s"]).fails(2, &["s", "use"]);
    store.close().expect("close");
    desk.ok(&["doctor", "s"]);
}
