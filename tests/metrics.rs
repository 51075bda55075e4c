//! The figures of the feature `metrics`: what a service's scrape shows is what docs/METRICS.md promises and what the
//! dashboard asks for, by name, kind and meaning.

use std::collections::{BTreeMap, BTreeSet};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tempfile::TempDir;
use tophash::stats::Stats;
use tophash::{Batch, Options, Store, SyncPolicy};

const DOCUMENT: &str = include_str!("../docs/METRICS.md");
const DASHBOARD: &str = include_str!("../docs/grafana.json");

fn recorder() -> (PrometheusRecorder, PrometheusHandle) {
    let suffix = Matcher::Suffix("_seconds".into());
    let builder = PrometheusBuilder::new().set_buckets_for_metric(suffix, &[1e-6, 1e-3, 1.0]).unwrap();
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    (recorder, handle)
}

fn open(recorder: &PrometheusRecorder, path: &std::path::Path) -> Store {
    // Small segments, so that there is something to compact.
    let options = Options::new().sync(SyncPolicy::Always).segment_bytes(64 << 10);
    metrics::with_local_recorder(recorder, || options.open(path).unwrap())
}

/// A store that has done a little of everything.
fn exercise(store: &Store) {
    let mut batch = Batch::new();
    (0..3000).for_each(|i| _ = batch.insert(format!("key {i}"), "v".repeat(20)));
    store.apply(&batch).unwrap();
    store.reserve(100_000).unwrap();
    for i in 0..300 {
        store.insert(format!("key {i}"), "another").unwrap();
        assert!(store.get(format!("key {i}")).unwrap().is_some());
    }
    store.remove_many(&(100..200).map(|i| format!("key {i}")).collect::<Vec<_>>()).unwrap();
    store.compact().unwrap();
    store.checkpoint().unwrap();
}

/// The value of a figure, whatever its labels: the sum.
fn value(text: &str, name: &str) -> f64 {
    let lines = text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// Kind and meaning of every figure that is shown.
fn shown(text: &str) -> BTreeMap<String, (String, String)> {
    let mut figures: BTreeMap<String, (String, String)> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            figures.entry(name.into()).or_default().1 = help.into();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            figures.entry(name.into()).or_default().0 = kind.into();
        }
    }
    figures
}

/// The same from the document's tables.
fn documented() -> BTreeMap<String, (String, String)> {
    let mut kind = String::new();
    let mut figures = BTreeMap::new();
    for line in DOCUMENT.lines() {
        if let Some(title) = line.strip_prefix("##") {
            kind = title.trim_start_matches('#').trim().trim_end_matches('s').to_lowercase();
        }
        if !matches!(kind.as_str(), "counter" | "gauge" | "histogram") {
            continue;
        }
        if let Some((name, rest)) = line.strip_prefix("| `tophash_").and_then(|rest| rest.split_once("` | ")) {
            figures.insert(format!("tophash_{name}"), (kind.clone(), rest.trim_end_matches(" |").to_string()));
        }
    }
    figures
}

/// All names that begin with `tophash_` in a text.
fn names(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c: char| !word(c)).filter(|name| name.starts_with("tophash_")).map(str::to_string).collect()
}

#[test]
fn a_scrape_shows_what_the_document_promises() {
    let dir = TempDir::new().unwrap();
    let (recorder, figures) = recorder();
    let store = open(&recorder, &dir.path().join("s"));
    exercise(&store);
    // The background goes on meanwhile.
    let before = store.stats();
    store.publish_metrics();
    figures.run_upkeep();
    let text = figures.render();
    let after = store.stats();
    assert_eq!(shown(&text), documented());
    let counters = |stats: &Stats| {
        [
            ("tophash_splits_total", stats.index.splits),
            ("tophash_growths_total", stats.index.growths),
            ("tophash_segments_emptied_total", stats.compaction.evacuated_segments),
            ("tophash_checkpoints_total", stats.checkpoint.count),
            ("tophash_checkpoint_seconds_count", stats.checkpoint.count),
            ("tophash_syncs_total", stats.commit.syncs),
        ]
    };
    for ((name, least), (_, most)) in counters(&before).into_iter().zip(counters(&after)) {
        let shown = value(&text, name);
        assert!((least as f64..=most as f64).contains(&shown), "{name}: {least} <= {shown} <= {most}");
    }
    for (name, expected) in
        [("tophash_records", 2900), ("tophash_batch_seconds_count", 2), ("tophash_open", 1), ("tophash_poisoned", 0)]
    {
        assert_eq!(value(&text, name), f64::from(expected), "{name}");
    }
    for name in [
        "tophash_splits_total",
        "tophash_segments_emptied_total",
        "tophash_checkpoints_total",
        "tophash_change_seconds_count",
        "tophash_get_seconds_count",
        "tophash_sync_seconds_count",
        "tophash_wait_seconds_count",
    ] {
        assert!(value(&text, name) > 0.0, "{name}");
    }
    // Samples, not every call.
    assert!(value(&text, "tophash_get_seconds_count") < 10.0);
    drop(store);
    assert_eq!(value(&figures.render(), "tophash_open"), 0.0);
}

#[test]
fn counters_go_on_when_a_store_is_opened_again() {
    let dir = TempDir::new().unwrap();
    let (recorder, figures) = recorder();
    let mut before = 0.0;
    for round in 1..=3 {
        let store = open(&recorder, &dir.path().join("s"));
        exercise(&store);
        let least = before + store.stats().commit.syncs as f64;
        store.close().unwrap();
        let syncs = value(&figures.render(), "tophash_syncs_total");
        assert!(syncs >= least, "round {round}: {syncs} after {least}");

        before = syncs;
    }
    assert!(before > 0.0);
}

#[test]
fn the_dashboard_asks_for_figures_that_exist() {
    let documented = documented();
    let mut asked = names(DASHBOARD);
    assert!(asked.len() > 30, "{asked:?}");
    let series = |name: &str| {
        let plain = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let plain = plain.filter(|plain| documented.get(*plain).is_some_and(|(kind, _)| kind == "histogram"));
        plain.unwrap_or(name).to_string()
    };
    asked = asked.iter().map(|name| series(name)).collect();
    let documented: BTreeSet<String> = documented.into_keys().collect();
    // All of them, in both directions: a figure that nobody looks at is a figure too many.
    assert_eq!(asked, documented);
    // A histogram has no series of its own name.
    for expression in names(DASHBOARD) {
        assert!(!expression.ends_with("_seconds"), "{expression}");
    }
    let parsed: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = parsed["panels"].as_array().unwrap();
    let mut ids: Vec<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), panels.len());
}

#[test]
fn queries_in_the_document_name_figures_that_exist() {
    let documented = documented();
    for name in names(DOCUMENT) {
        let plain = ["_bucket", "_sum", "_count", ""].iter().find_map(|suffix| {
            let plain = name.strip_suffix(suffix)?;
            documented.contains_key(plain).then_some(plain)
        });
        assert!(plain.is_some(), "{name}");
    }
}
