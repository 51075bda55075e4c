//! A run on the smallest scale: every engine and workload is there, the figures are numbers, every target has a verdict,
//! nothing stays behind; wrong input is refused; Ctrl-C removes the files.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

const WORKLOADS: [&str; 9] = ["limits", "redb", "small", "ycsb", "growth", "churn", "open", "mixed", "threads"];
const ENGINES: [&str; 9] =
    ["tophash", "tophash-100ms", "heed", "redb", "fjall", "candystore", "candystore-nc", "sled", "hashbrown"];

fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tophash-peers"));
    command
        .args(["--smoke", "--step-seconds-max", "120", "--cache-bytes", "67108864", "--dir"])
        .arg(dir)
        .args(arguments);
    command
}

fn run(dir: &Path, arguments: &[&str]) -> Output {
    command(dir, arguments).output().unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn entries(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

#[test]
fn all_engines_and_all_workloads() {
    let (dir, results) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (json, svg) = (results.path().join("figures.json"), results.path().join("pictures"));
    let output = run(dir.path(), &["--json", json.to_str().unwrap(), "--svg", svg.to_str().unwrap()]);
    assert!(output.status.success(), "{}", errors(&output));
    assert_eq!(entries(dir.path()), 0);

    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("`tophash-peers --smoke"), "{text}");
    for heading in WORKLOADS.into_iter().chain(["Targets", "Engines"]) {
        assert!(
            text.lines().any(|line| line.strip_prefix("## ").is_some_and(|line| line.starts_with(heading))),
            "{text}"
        );
    }
    assert!(!text.contains("NaN") && !text.contains("failed"), "{text}");

    let figures: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let names = |list: &Value, key: &str| -> Vec<String> {
        list.as_array().unwrap().iter().map(|entry| entry[key].as_str().unwrap().to_string()).collect()
    };
    assert_eq!(names(&figures["engines"], "name"), ENGINES);
    assert_eq!(names(&figures["sections"], "workload"), WORKLOADS);
    for section in figures["sections"].as_array().unwrap() {
        let workload = section["workload"].as_str().unwrap();
        assert!(section["failures"].as_array().unwrap().is_empty(), "{section}");
        let rows = section["rows"].as_array().unwrap();
        for row in rows {
            let measured = row["figures"].as_object().unwrap();
            assert!(!measured.is_empty(), "{row}");
            assert!(
                measured.values().all(|figure| figure["median"].as_f64().is_some_and(|median| median >= 0.0)),
                "{row}"
            );
        }
        for engine in ENGINES.iter().filter(|engine| is_measured(workload, engine)) {
            assert!(rows.iter().any(|row| row["figures"].get(*engine).is_some()), "{workload} without {engine}");
        }
        assert!(fs::read_to_string(svg.join(format!("{workload}.svg"))).unwrap().starts_with("<svg"));
    }

    let targets = figures["targets"].as_array().unwrap();
    assert!(targets.len() > 30);
    for target in targets {
        assert!(target["is_met"].is_boolean() && target["reached"].is_number(), "{target}");
    }
    let lost = targets.iter().find(|target| target["target"].as_str().unwrap().contains("lost")).unwrap();
    assert_eq!(lost["reached"], 0.0);
}

fn is_measured(workload: &str, engine: &str) -> bool {
    match workload {
        "limits" => false,
        "growth" => true,
        "open" | "mixed" | "threads" => !["tophash-100ms", "hashbrown"].contains(&engine),
        _ => engine != "tophash-100ms",
    }
}

#[test]
fn some_workloads_of_some_engines() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), &["--only", "small", "--engines", "heed,tophash", "--rounds", "2", "--seed", "7"]);
    assert!(output.status.success(), "{}", errors(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("random hits, 1 thread") && text.contains("Seed 7."), "{text}");
    assert!(!text.contains("## redb") && !text.contains("fjall"), "{text}");
    // Each engine begins once.
    let turns: Vec<_> =
        errors(&output).lines().filter_map(|line| line.strip_prefix("small, ")).map(String::from).collect();
    assert_eq!(turns, ["round 1 of 2: heed", "round 1 of 2: tophash", "round 2 of 2: tophash", "round 2 of 2: heed"]);
}

#[test]
fn wrong_input_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (arguments, expected) in [
        (vec!["--only", "nonsense"], "possible values: limits, redb"),
        (vec!["--engines", "heed,heed"], "heed twice"),
        (vec!["--engines", "leveldb"], "possible values: tophash"),
        (vec!["--records", "10"], "10 is not in 1000.."),
        (vec!["--seconds", "soon"], "a number of seconds"),
        (vec!["--json", "/nowhere/figures.json"], "cannot create /nowhere/figures.json"),
    ] {
        let output = run(dir.path(), &arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(errors(&output).contains(expected), "{arguments:?}: {}", errors(&output));
    }
    let output = run(&dir.path().join("missing"), &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(errors(&output).contains("there is no such folder"), "{}", errors(&output));
    assert_eq!(entries(dir.path()), 0);
}

#[test]
fn ctrl_c_removes_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let long = ["--only", "mixed", "--engines", "tophash", "--durable-seconds", "100"];
    let mut child = command(dir.path(), &long).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    let has_store = || fs::read_dir(dir.path()).unwrap().any(|scratch| entries(&scratch.unwrap().path()) > 0);
    while !has_store() {
        assert!(started.elapsed() < Duration::from_secs(60), "it does not begin");
        thread::sleep(Duration::from_millis(20));
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(2), "{status}");
    assert!(started.elapsed() < Duration::from_secs(80));
    assert_eq!(entries(dir.path()), 0);
}
