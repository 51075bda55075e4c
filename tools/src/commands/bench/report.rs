//! What the benchmark publishes: every figure with the settings and the machine that it depends on.

use serde::Serialize;

use super::Phase;
use super::environment::Environment;
use super::latency::Summary;
use super::runner::Pass;
use crate::output;

/// How the figures come about; printed with them, because they mean nothing without.
const METHOD: &str = "\
Throughput: a pass without a clock, deriving keys and values included. Latency: a second pass that times every
operation; deriving is outside, reading and comparing the whole value inside, reading the clock too. The fill's latency
is that of a second store; the durable phase has one pass only. get-many: a call of several keys is timed as one.
churn: one removal and one insertion are one operation.";

/// The settings that the figures depend on.
#[derive(Debug, Clone, Serialize)]
pub struct Settings {
    /// Records of the first filling, and at any time after.
    pub records: u64,
    /// Length of a key.
    pub key_bytes: usize,
    /// Length of a value.
    pub value_bytes: usize,
    /// Threads at work.
    pub threads: u64,
    /// Operations of a pass, fill and durable writes apart.
    pub operations: u64,
    /// Keys of a `get_many` call.
    pub get_many_keys: usize,
    /// Sync policy, durable writes apart.
    pub sync: String,
    /// Where random numbers begin.
    pub seed: u64,
}

/// One phase.
#[derive(Debug, Clone, Serialize)]
pub struct PhaseReport {
    /// Which one.
    pub phase: Phase,
    /// Operations of the throughput pass: keys in get-many, else calls (in churn: pairs of calls).
    pub operations: u64,
    /// Time of that pass.
    pub seconds: f64,
    /// Their ratio.
    pub operations_per_second: u64,
    /// Single operations; calls in get-many.
    pub latency: Option<Summary>,
    /// Wrong answers in both passes: must be 0.
    pub wrong: u64,
    /// What the store takes on disk after the phase.
    pub disk_bytes: u64,
    /// Durable writes: rounds of fdatasync, which concurrent writers share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syncs: Option<u64>,
}

impl PhaseReport {
    /// From the two passes of a phase, with `keys` of them in one operation.
    pub fn new(phase: Phase, throughput: &Pass, latency: &Pass, keys: u64, disk_bytes: u64) -> Self {
        let operations = throughput.operations * keys;
        PhaseReport {
            phase,
            operations,
            seconds: throughput.time.as_secs_f64(),
            operations_per_second: output::per_second(operations, throughput.time),
            latency: latency.latencies.summary(),
            wrong: throughput.wrong + latency.wrong,
            disk_bytes,
            syncs: None,
        }
    }
}

/// The whole benchmark.
#[derive(Debug, Serialize)]
pub struct Report {
    /// How the figures come about.
    pub method: &'static str,
    /// What was asked for.
    pub settings: Settings,
    /// Where it ran.
    pub environment: Environment,
    /// What timing adds to every latency.
    pub clock_cost_nanos: u64,
    /// What deriving key and value and comparing adds to every operation of the throughput pass, in nanoseconds.
    pub derive_cost_nanos: u64,
    /// The phases in order.
    pub phases: Vec<PhaseReport>,
    /// The store's own figures at the end.
    pub stats: Option<tophash::stats::Stats>,
    /// Where the store is, if it was to be kept.
    pub kept: Option<String>,
}

impl Report {
    /// Nothing measured yet.
    pub fn new(settings: Settings, environment: Environment) -> Self {
        Report {
            method: METHOD,
            settings,
            environment,
            clock_cost_nanos: 0,
            derive_cost_nanos: 0,
            phases: Vec::new(),
            stats: None,
            kept: None,
        }
    }

    /// Wrong answers in all phases.
    pub fn wrong(&self) -> u64 {
        self.phases.iter().map(|phase| phase.wrong).sum()
    }

    /// The report for people.
    pub fn text(&self) -> String {
        let mut lines = self.head();
        lines.push(String::new());
        lines.push(self.table().to_string());
        lines.push(String::new());
        for phase in &self.phases {
            if let Some(syncs) = phase.syncs {
                lines.push(format!(
                    "{}: {} in {}, {:.1} each",
                    phase.phase.name(),
                    output::some(phase.operations, "write"),
                    output::some(syncs, "sync"),
                    phase.operations as f64 / syncs.max(1) as f64,
                ));
            }
        }
        lines.push(METHOD.to_string());
        lines.push(format!(
            "The clock adds {} to every latency; deriving and comparing add {} to every operation for throughput.",
            output::duration(self.clock_cost_nanos),
            output::duration(self.derive_cost_nanos),
        ));
        if self.wrong() > 0 {
            lines.push(format!("WRONG ANSWERS: {}", output::count(self.wrong())));
        }
        if let Some(kept) = &self.kept {
            lines.push(format!("the store is kept in {kept}"));
        }
        lines.push(String::new());
        lines.join("\n")
    }

    fn head(&self) -> Vec<String> {
        let (settings, environment) = (&self.settings, &self.environment);
        let unknown = || "unknown".to_string();
        vec![
            format!(
                "tophash {}: {} of {} + {} bytes, {}, {} a pass, sync {}, seed {}",
                environment.version,
                output::records(settings.records),
                settings.key_bytes,
                settings.value_bytes,
                output::some(settings.threads, "thread"),
                output::some(settings.operations, "operation"),
                settings.sync,
                settings.seed,
            ),
            format!(
                "{} ({}), {} memory, Linux {}, {}, load before {}",
                environment.cpu.clone().unwrap_or_else(unknown),
                output::some(environment.cores, "core"),
                environment.memory_bytes.map_or_else(unknown, output::size),
                environment.kernel.clone().unwrap_or_else(unknown),
                environment.file_system.clone().unwrap_or_else(unknown),
                environment.load_before.map_or_else(unknown, |load| format!("{load:.2}")),
            ),
        ]
    }

    fn table(&self) -> comfy_table::Table {
        let mut table =
            output::table(["phase", "ops", "ops/s", "ns/op", "p50", "p99", "p99.9", "p99.99", "max", "disk"]);
        for phase in &self.phases {
            let latency = |figure: fn(&Summary) -> u64| {
                phase.latency.as_ref().map_or_else(String::new, |summary| output::duration(figure(summary)))
            };
            let nanos = if phase.operations > 0 { phase.seconds * 1e9 / phase.operations as f64 } else { 0.0 };
            table.add_row([
                phase.phase.name(),
                output::count(phase.operations),
                output::count(phase.operations_per_second),
                format!("{nanos:.0}"),
                latency(|summary| summary.p50_nanos),
                latency(|summary| summary.p99_nanos),
                latency(|summary| summary.p999_nanos),
                latency(|summary| summary.p9999_nanos),
                latency(|summary| summary.max_nanos),
                output::size(phase.disk_bytes),
            ]);
        }
        output::align_right(&mut table, 1..10);
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bench::latency::Latencies;
    use std::path::Path;
    use std::time::Duration;

    fn pass(operations: u64, wrong: u64) -> Pass {
        let mut latencies = Latencies::new();
        latencies.record(Duration::from_nanos(250));
        Pass { operations, time: Duration::from_secs(2), wrong, latencies }
    }

    fn report() -> Report {
        let settings = Settings {
            records: 1000,
            key_bytes: 16,
            value_bytes: 100,
            threads: 2,
            operations: 500,
            get_many_keys: 32,
            sync: "manual".into(),
            seed: 1,
        };
        let mut report = Report::new(settings, Environment::look(Path::new(".")));
        report.phases.push(PhaseReport::new(Phase::GetMany, &pass(500, 0), &pass(500, 0), 32, 4096));
        report
    }

    #[test]
    fn the_text_has_settings_method_and_figures() {
        let text = report().text();
        for part in ["1,000 records of 16 + 100 bytes", "get-many", "16,000", "8,000", "250 ns", "The clock adds"] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert!(!text.contains("WRONG"), "{text}");
    }

    #[test]
    fn wrong_answers_are_loud() {
        let mut report = report();
        report.phases.push(PhaseReport::new(Phase::ReadHit, &pass(500, 1), &pass(500, 2), 1, 4096));
        assert_eq!(report.wrong(), 3);
        assert!(report.text().contains("WRONG ANSWERS: 3"));
    }
}
