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
    for severity in ["info", "warning", "critical"] {
        let ran = desk.run(&["doctor", "s", "--fail-on", severity]);
        assert_eq!(ran.code, Some(1), "{severity}");
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
    assert!(text.contains("| into a tombstone "), "{text}");
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

/// The page showed a log of which 80 % were dead in green, with neither date nor host, and an empty map for tombstones
/// that were not there. Its facts are the report's, and they stand in the order of an operator's questions.
#[test]
fn the_page_has_the_facts_of_the_report() {
    let desk = Desk::new();
    littered(&desk);
    let ran = desk.run(&["doctor", "s", "--stats", "stats.json", "--html", "report.html", "--fail-on", "critical"]);
    assert_eq!(ran.code, Some(1), "the page is written before the verdict");
    let page = String::from_utf8(desk.read("report.html")).expect("text");
    let report = desk.run(&["doctor", "s", "--stats", "stats.json", "--json"]).json();
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());

    // Which store, is it well, where did the disk go, how full: in this order, and the rest is folded.
    let path = desk.path("s").canonicalize().expect("the store");
    let command = format!("<pre><code>tophash compact {}</code></pre>", path.display());
    let parts = [
        &format!("<dd>{}</dd>", path.display()),
        &format!("<dd>{}</dd>", report["uuid"].as_str().expect("a uuid")),
        "<dt>Host</dt>",
        " UTC, by tophash 0.1.0</dd>",
        "closed; all figures are current",
        "class=\"verdict critical\"",
        &*command,
        "<h2>Disk: ",
        "How full and how fast",
        "Details</h2>",
        "Tombstones, page by page",
    ];
    let at = parts.map(|part| page.find(part).unwrap_or_else(|| panic!("`{part}` is missing")));
    assert!(at.is_sorted(), "{at:?}");
    assert!(page[at[9]..].matches("<svg").count() >= 5, "the pictures but one are folded");

    // Findings and figures.
    for advice in report["advice"].as_array().expect("findings") {
        let finding = advice["finding"].as_str().expect("words");
        assert_eq!(page.matches(&finding[1..]).count(), 1, "{finding}");
    }
    let number = |pointer: &str| report.pointer(pointer).and_then(serde_json::Value::as_u64).expect(pointer);
    assert!(page.contains(&format!("<dt>Records</dt><dd><b>{}</b>", number("/records")).replace("1320", "1,320")));
    let (log, dead) = (number("/log/bytes"), number("/log/dead_bytes"));
    let disk: u64 = ["index", "journal", "log", "blobs"].map(|part| number(&format!("/disk/{part}"))).iter().sum();
    for (class, bytes) in [("live", log - dead), ("dead", dead), ("index", number("/disk/index"))] {
        let share = 100.0 * bytes as f64 / disk as f64;
        let title = format!("</td><td>{share:.1} %</td>");
        let row = page.split("<tr>").find(|row| row.contains(&format!("<i class=\"{class}\">"))).expect(class);
        assert!(row.contains(&title), "{class}: {title} in {row}");
        assert!(page.contains(&format!("<rect class=\"{class}\"")), "{class}");
    }
    for word in ["http:", "https:", "src=", "href=", "@import", "<script"] {
        assert!(!page.contains(word), "{word}");
    }
    desk.run(&["doctor", "s", "--html", "none/report.html"]).fails(2, &["none/report.html"]);
}

#[test]
fn the_page_of_a_store_without_faults_shows_no_tombstones() {
    let desk = Desk::new();
    fresh(&desk);
    desk.ok(&["doctor", "s", "--html", "report.html"]);
    let page = String::from_utf8(desk.read("report.html")).expect("text");
    assert!(page.contains("class=\"verdict good\"") && page.contains(">Healthy<") && page.contains("1,000"), "{page}");
    assert!(!page.contains("ombstones") && !page.contains("<pre>"), "{page}");
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
