//! What a workload could do better: one table, each rule with a name, thresholds, a reason, and what to do.

use tophash::doctor::{Advice, Severity};

use super::profile::Profile;
use crate::output::{count, some};
use Severity::{Info, Warning};

/// A rule. The highest threshold that its figure reaches decides the severity.
pub struct Rule {
    /// Stable name.
    pub name: &'static str,
    /// Severities, the lowest first, and the figure from which on the rule speaks.
    pub thresholds: &'static [(Severity, f64)],
    /// The figure; `None` if there is too little to matter.
    pub measure: fn(&Profile) -> Option<f64>,
    /// What was found, in words.
    pub finding: fn(&Profile) -> String,
    /// Why it matters.
    pub reason: &'static str,
    /// The call or option that acts on it.
    pub action: &'static str,
}

/// All rules.
pub const RULES: &[Rule] = &[
    Rule {
        name: "unbatched-removals",
        thresholds: &[(Info, 1_000.0), (Warning, 100_000.0)],
        measure: |p| Some(p.mass_removals as f64),
        finding: |p| {
            format!(
                "{} keys were removed one by one in long runs, {} in the longest",
                count(p.mass_removals),
                count(p.mass_removal_longest)
            )
        },
        reason: "each single removal takes a lock, an append and a repair of its page; many keys of a page share them",
        action: "`Store::remove_many` with some thousands of keys a call; `Store::clear` if everything goes",
    },
    Rule {
        name: "no-reserve",
        thresholds: &[(Info, 50_000.0), (Warning, 1_000_000.0)],
        measure: |p| Some(p.load_longest as f64),
        finding: |p| {
            format!(
                "{} new keys were inserted in one go into a store of {}, with no room reserved",
                count(p.load_longest),
                count(p.load_from)
            )
        },
        reason: "the table doubles again and again on the way, and every doubling moves all entries",
        action: "`Store::reserve` with the number of new records, before the load",
    },
    Rule {
        name: "same-value",
        thresholds: &[(Info, 0.05), (Warning, 0.25)],
        measure: |p| (p.puts >= 1_000).then(|| share(p.same_values, p.puts)),
        finding: |p| {
            format!(
                "{} of {} wrote the value that was there, to {}; {} of them to key {}",
                count(p.same_values),
                some(p.puts, "put"),
                some(p.same_value_keys, "key"),
                count(p.same_value_hottest_puts),
                p.same_value_hottest.as_deref().unwrap_or("-")
            )
        },
        reason: "such a put appends a record, makes the old one dead, and compaction has to clean up after it",
        action: "`Store::get` first, which takes no lock, and write only what differs; or keep what was written last",
    },
    Rule {
        name: "above-blob-threshold",
        thresholds: &[(Info, 0.001), (Warning, 0.05)],
        measure: |p| (p.values_above_blob >= 10).then(|| share(p.values_above_blob, p.puts)),
        finding: |p| format!("{} of {} values have between 256 and 512 KiB", count(p.values_above_blob), count(p.puts)),
        reason: "a value of more than 256 KiB gets a file of its own, which is created, synced and unlinked for it alone",
        action: "compress such values or cut them in pieces of up to 256 KiB, if they are written often",
    },
    Rule {
        name: "below-blob-threshold",
        thresholds: &[(Info, 0.05)],
        measure: |p| (p.values_below_blob >= 10).then(|| share(p.values_below_blob, p.puts)),
        finding: |p| format!("{} of {} values have 90 % or more of 256 KiB", count(p.values_below_blob), count(p.puts)),
        reason: "if they grow a little, each gets a file of its own, and writing becomes much slower at one stroke",
        action: "cut values in pieces before they get there, or measure writes of 257 KiB: `tophash bench --value-bytes 263168`",
    },
    Rule {
        name: "near-limits",
        thresholds: &[(Warning, 1.0)],
        measure: |p| Some((p.keys_near_limit + p.values_near_limit) as f64),
        finding: |p| {
            format!(
                "{} and {} within a tenth of the limits, 65,535 bytes and 4 GiB",
                some(p.keys_near_limit, "key"),
                some(p.values_near_limit, "value")
            )
        },
        reason: "beyond them a write fails with `KeyTooLong` or `ValueTooLong`",
        action: "use a hash of the long key as the key, with the key itself in the value; cut the value in pieces",
    },
    Rule {
        name: "tiny-batches",
        thresholds: &[(Info, 0.25), (Warning, 0.75)],
        measure: |p| (p.batches >= 100).then(|| share(p.tiny_batches, p.batches)),
        finding: |p| format!("{} of {} batches had one or two changes", count(p.tiny_batches), count(p.batches)),
        reason: "a batch has a frame in the log, locks and looks up all its keys first, and with `SyncPolicy::Always` is \
                 synced by itself",
        action: "collect more changes for each `Store::apply`; a single change needs no batch to be atomic",
    },
    Rule {
        name: "lone-durable-writes",
        thresholds: &[(Info, 100.0), (Warning, 10_000.0)],
        measure: |p| Some(p.lone_durable_writes as f64),
        finding: |p| {
            format!(
                "{} single writes were made durable one by one, in runs of a thread without a pause",
                count(p.lone_durable_writes)
            )
        },
        reason: "the thread waits for the disk at each of them; only writes of other threads at the same time share the sync",
        action: "`Store::apply` with a batch; or `SyncPolicy::Manual` and one `Store::sync` at the end; or `SyncPolicy::Every` if \
                 the last moments may be lost",
    },
    Rule {
        name: "unbatched-reads",
        thresholds: &[(Info, 0.5)],
        measure: |p| (p.gets >= 10_000).then(|| share(p.lone_gets, p.gets)),
        finding: |p| {
            format!("{} of {} reads came in runs of 32 or more, one by one", count(p.lone_gets), count(p.gets))
        },
        reason: "one after another they wait for memory one after another; in one call they wait for it together",
        action: "`Store::get_many`, if the keys are known beforehand: two to three times as fast a key",
    },
];

fn share(part: u64, all: u64) -> f64 {
    part as f64 / all.max(1) as f64
}

/// What the rules say about a trace, the worst first.
pub fn advice(profile: &Profile) -> Vec<Advice> {
    let mut advice: Vec<Advice> = RULES
        .iter()
        .filter_map(|rule| {
            let measured = (rule.measure)(profile)?;
            let &(severity, threshold) = rule.thresholds.iter().rfind(|&&(_, threshold)| measured >= threshold)?;
            let mut advice = Advice::new(rule.name, severity);
            advice.finding = (rule.finding)(profile);
            (advice.reason, advice.action) = (rule.reason.into(), rule.action.into());
            (advice.measured, advice.threshold) = (measured, threshold);
            Some(advice)
        })
        .collect();
    advice.sort_by_key(|advice| std::cmp::Reverse(advice.severity));
    advice
}
