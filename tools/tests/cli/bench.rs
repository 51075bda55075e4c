//! The benchmark, in sizes that take no time: that it works, not what it measures.

use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::{Desk, eventually};

#[test]
fn every_phase_gives_figures_and_right_answers() {
    let desk = Desk::new();
    // More churn than records, so that it goes through several rounds.
    let ran = desk.run(&[
        "bench",
        "--records",
        "3000",
        "--ops",
        "7000",
        "--threads",
        "2",
        "--durable-seconds",
        "1",
        "--sync",
        "manual",
        "--json",
    ]);
    let report = ran.json();
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let phases = report["phases"].as_array().expect("phases");
    let names: Vec<_> = phases.iter().map(|phase| phase["phase"].clone()).collect();
    let expected = ["fill", "read-hit", "read-miss", "get-many", "update", "churn", "durable"].map(|name| json!(name));
    assert_eq!(names, expected);
    for phase in phases {
        assert_eq!(phase["wrong"], json!(0), "{phase}");
        assert!(phase["operations"].as_u64().is_some_and(|operations| operations > 0), "{phase}");
        assert!(phase["operations_per_second"].is_u64(), "{phase}");
        assert!(phase["latency"]["max_nanos"].as_u64() >= phase["latency"]["p50_nanos"].as_u64(), "{phase}");
    }
    assert_eq!(phases[0]["operations"], json!(3000));
    assert_eq!(phases[5]["operations"], json!(7000));
    assert_eq!(report["stats"]["records"], json!(3000));
    assert_eq!(report["settings"]["sync"], json!("manual"));
    assert!(report["environment"]["cores"].is_u64());
    assert!(desk.names().is_empty(), "{:?}", desk.names());
}

#[test]
fn phases_can_be_chosen_and_the_store_kept() {
    let desk = Desk::new();
    let args = [
        "bench",
        "--records",
        "100",
        "--ops",
        "100",
        "--only",
        "read-miss,churn",
        "--value-bytes",
        "0",
        "--keep",
        "--json",
    ];
    let report = desk.run(&args).json();
    let phases = report["phases"].as_array().expect("phases");
    assert_eq!(phases.len(), 2);
    let kept = report["kept"].as_str().expect("where it is");
    let store = format!("{kept}/bench.tophash");
    assert_eq!(desk.run(&["stats", &store, "--json"]).json()["records"], json!(100));
    desk.run(&["verify", &store]).ok();
}

#[test]
fn the_table_names_the_method() {
    let desk = Desk::new();
    let text = desk.run(&["bench", "--records", "100", "--ops", "100", "--only", "fill,read-hit"]).text();
    for part in ["| read-hit", "p99.99", "a pass without a clock", "The clock adds"] {
        assert!(text.contains(part), "`{part}` is missing in\n{text}");
    }
}

#[test]
fn wrong_settings_are_refused() {
    let desk = Desk::new();
    desk.run(&["bench", "--sync", "sometimes"]).fails(2, &["every="]);
    desk.run(&["bench", "--only", "everything"]).fails(2, &["read-hit"]);
    desk.run(&["bench", "--key-bytes", "7"]).fails(2, &["key-bytes"]);
    desk.run(&["bench", "--dir", "missing"]).fails(2, &["missing"]);
}

#[test]
fn ctrl_c_stops_it_and_removes_the_store() {
    let desk = Desk::new();
    let mut child = desk
        .command(&["bench", "--records", "1000", "--only", "durable", "--durable-seconds", "600"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start the tool");
    eventually("a store of the benchmark", || !desk.names().is_empty());
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("send SIGINT");
    assert!(kill.success());
    assert_eq!(child.wait().expect("wait for the tool").code(), Some(130));
    assert!(desk.names().is_empty(), "{:?}", desk.names());
}
