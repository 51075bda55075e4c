//! Recorded traces: the benchmark writes one, doctor reads it, and one that somebody else wrote.

use serde_json::{Value, json};

use crate::support::{Desk, Ran};

fn rules(ran: &Ran) -> Vec<String> {
    let json = ran.json();
    let advice = json["workload"]["advice"].as_array().expect("advice");
    advice.iter().map(|advice| advice["rule"].as_str().expect("a name").to_string()).collect()
}

/// A workload that empties a store key by key.
fn emptying(desk: &Desk) {
    let lines: String = (0..1200).map(|i| format!("{} 0 remove {i:x}\n", i * 100)).collect();
    desk.write("trace", format!("tophash-trace 1\n# by hand\n0 0 open later 5000\n{lines}"));
}

#[test]
fn the_benchmark_records_what_it_does() {
    let desk = Desk::new();
    let args = [
        "bench",
        "--records",
        "60000",
        "--ops",
        "12000",
        "--threads",
        "1",
        "--durable-seconds",
        "1",
        "--record",
        "trace",
    ];
    let ran = desk.run(&[&args[..], &["--json"]].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("recording is part"), "{}", ran.stderr);
    let report = ran.json();
    let durable = report["phases"][6]["operations"].as_u64().expect("durable writes");

    let ran = desk.run(&["doctor", "--trace", "trace", "--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let workload = &ran.json()["workload"];
    let number = |name: &str| workload[name].as_u64().unwrap_or_else(|| panic!("{name} in {workload}"));
    // One pass of each phase: fill, two of reads, many reads, updates, churn; and the durable writes.
    assert_eq!(number("gets"), 2 * 12_000);
    assert_eq!(number("get_many"), 12_000 / 32);
    assert_eq!(number("puts"), 60_000 + 12_000 + 12_000 + durable);
    assert_eq!(number("removals"), 12_000);
    assert_eq!((number("overwrites"), number("same_values")), (12_000, 0));
    // On a disk that syncs at once, more than 60,000 durable writes fit into a second.
    assert_eq!((number("load_longest"), number("load_from")), (60_000.max(durable), 0));
    assert_eq!(number("calls"), 2 * 12_000 + 375 + 60_000 + 24_000 + durable + 12_000 + 2, "and two stores opened");
    let rules = rules(&ran);
    assert!(rules.contains(&"no-reserve".to_string()), "{rules:?}");
    // Whether `lone-durable-writes` speaks depends on the disk: writes more than 10 ms apart wait for nothing. The rule's
    // own tests say when it does.
    for rule in ["unbatched-removals", "same-value", "tiny-batches", "near-limits"] {
        assert!(!rules.contains(&rule.to_string()), "{rule} in {rules:?}");
    }
    let text = desk.read("trace");
    let text = String::from_utf8(text).expect("text");
    assert!(text.starts_with("tophash-trace 1\n# phase fill\n"), "{}", &text[..100]);
    assert!(text.contains("# phase churn\n") && text.contains(" open always 0\n"));
}

#[test]
fn findings_about_a_trace_decide_the_exit_code() {
    let desk = Desk::new();
    emptying(&desk);
    let ran = desk.run(&["doctor", "--trace", "trace"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    for part in ["INFO  unbatched-removals: 1,200 keys", "`Store::remove_many`", "why:", "1,201 calls in 120 ms"] {
        assert!(ran.text().contains(part), "`{part}` is missing in {}", ran.text());
    }
    assert_eq!(desk.run(&["doctor", "--trace", "trace", "--fail-on", "info"]).code, Some(1));
    assert_eq!(desk.run(&["doctor", "--trace", "trace", "--fail-on", "warning"]).code, Some(0));
    desk.write("quiet", "tophash-trace 1\n");
    let ran = desk.run(&["doctor", "--trace", "quiet", "--fail-on", "info"]);
    assert_eq!(ran.code, Some(0));
    assert!(ran.text().contains("no findings about the workload"), "{}", ran.text());
}

#[test]
fn a_store_and_a_trace_are_diagnosed_together() {
    let desk = Desk::new();
    emptying(&desk);
    desk.run(&["set", "s", "key", "value"]).ok();
    let ran = desk.run(&["doctor", "s", "--trace", "trace"]);
    for part in ["1 record", "no findings\n", "unbatched-removals"] {
        assert!(ran.text().contains(part), "`{part}` is missing in {}", ran.text());
    }
    let json = desk.run(&["doctor", "s", "--trace", "trace", "--json"]).json();
    assert_eq!((&json["path"], &json["slots"]["live"], &json["advice"]), (&json!("s"), &json!(1), &json!([])));
    assert_eq!(json["workload"]["mass_removals"], json!(1200));
    assert_eq!(desk.run(&["doctor", "s", "--trace", "trace", "--fail-on", "info"]).code, Some(1));
    // Without a trace nothing is said about a workload.
    assert_eq!(desk.run(&["doctor", "s", "--json"]).json().get("workload"), None::<&Value>);
}

#[test]
fn what_is_no_trace_is_refused() {
    let desk = Desk::new();
    desk.write("broken", "tophash-trace 1\n0 0 open later 0\n1 0 put 12 16 many 0\n");
    desk.run(&["doctor", "--trace", "broken"]).fails(2, &["broken", "line 3", "the value's length", "many"]);
    desk.write("other", "{}\n");
    desk.run(&["doctor", "--trace", "other"]).fails(2, &["other", "tophash-trace 1"]);
    desk.run(&["doctor", "--trace", "missing"]).fails(2, &["missing"]);
    desk.run(&["doctor"]).fails(2, &["STORE"]);
    desk.run(&["doctor", "--trace", "broken", "--html", "page.html"]).fails(2, &["STORE"]);
    desk.run(&["bench", "--record", "none/trace", "--records", "10"]).fails(2, &["none/trace"]);
    assert_eq!(desk.names(), ["broken", "other"]);
}
