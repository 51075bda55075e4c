//! The rules: one table, each with a name, thresholds, a reason, and what to do.
//!
//! A rule measures one figure of a diagnosis; the highest threshold that it reaches decides the severity. A rule that
//! does not apply (there is nothing to measure, or too little to matter) measures nothing.

use super::advice::{Advice, Severity};
use super::amounts::{count, follow, percent, removals, share, size, slots, things};
use super::diagnosis::Diagnosis;
use super::measures::{
    chained, gone, inserts, load, mostly_dead, pseudo_full, reserved, resizing, tolerated, too_large,
};
use super::worst::{highest, told};
use crate::stats::Stats;
use Severity::{Critical, Info, Warning};

/// A rule.
pub(super) struct Rule {
    /// Stable name.
    pub(super) name: &'static str,
    /// Severities, the lowest first, and the figure from which on the rule speaks.
    pub(super) thresholds: &'static [(Severity, f64)],
    /// The figure; `None` if the rule does not apply.
    pub(super) measure: fn(&Diagnosis) -> Option<f64>,
    /// What was found, in words.
    pub(super) finding: fn(&Diagnosis) -> String,
    /// Why it matters.
    pub(super) reason: &'static str,
    /// The command, option or call that acts on it.
    pub(super) action: &'static str,
}

/// Space that is not worth a word.
const SMALL_BYTES: u64 = 1 << 20;

/// Rules that go by the figures of pages and slots.
const OF_INDEX: &[&str] = &[
    "tombstones",
    "pseudo-full-pages",
    "absent-key-lookups",
    "load",
    "chains",
    "long-chain",
    "needless-overflow",
    "stranded-slots",
    "table-too-large",
    "reserved-room",
    "resize-under-way",
];
/// Rules that go by the figures of records and log.
const OF_LOG: &[&str] =
    &["dead-log", "empty-segments", "remove-records", "table-too-large", "blobs-to-unlink", "compaction-pays"];

/// All rules, in the order of a store's parts.
pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "damage",
        thresholds: &[(Critical, 1.0)],
        measure: |d| Some(d.damage.len() as f64),
        finding: |d| format!("{} of the index or the segments' headers cannot be read", things(d.damage.len(), "part")),
        reason: "the figures leave out what could not be read, and keys behind it fail with an error",
        action: "`tophash verify STORE` lists all damage; restore the store from a copy, or let `tophash repair STORE NEW` \
                 make a new one of what is valid",
    },
    Rule {
        name: "unreadable-entries",
        thresholds: &[(Critical, 1.0)],
        measure: |d| Some(d.slots.marked as f64),
        finding: |d| format!("{} whose record could not be read when the page was split", slots(d.slots.marked)),
        reason: "such a slot is kept twice, and reading its key fails with an error",
        action: "`tophash verify STORE` names the records; restore the store from a copy, or `tophash repair STORE NEW`",
    },
    Rule {
        name: "not-closed",
        thresholds: &[(Info, 1.0)],
        measure: |d| Some(f64::from(u8::from(!d.closed_cleanly && d.log_is_current()))),
        finding: |d| {
            if d.tail_records == 0 {
                return "the store was not closed; nothing follows its last checkpoint".into();
            }
            format!("the store was not closed: {} its last checkpoint", follow(d.tail_records))
        },
        reason: "the next open reads these changes again; the figures of the index are those of the last checkpoint, and \
                 nothing is advised from them",
        action: "open and close the store, then ask again; `Store::checkpoint` before a copy is taken",
    },
    Rule {
        name: "tail-unreadable",
        thresholds: &[(Critical, 1.0)],
        measure: |d| Some(f64::from(u8::from(!d.log_is_current()))),
        finding: |d| {
            let why = d.tail_problem.as_deref().unwrap_or_default();
            format!("the changes after the last checkpoint could not be read: {why}")
        },
        reason: "an open meets the same error; all figures are those of the last checkpoint, and nothing is advised from \
                 them",
        action: "`tophash verify STORE` lists all damage; restore the store from a copy, or let `tophash repair STORE NEW` \
                 make a new one of what is valid",
    },
    Rule {
        name: "dead-log",
        thresholds: &[(Warning, 0.40), (Critical, 0.75)],
        measure: |d| (gone(d) > tolerated(d)).then(|| share(gone(d), d.log.bytes)),
        finding: |d| {
            let expired = if d.log.expired_bytes > 0 { ", or has expired" } else { "" };
            format!(
                "{} of the log is dead: {} of {} hold what was replaced or removed{expired}",
                percent(gone(d), d.log.bytes),
                size(gone(d)),
                size(d.log.bytes)
            )
        },
        reason: "the default bound of the log is 1.5 times its live bytes, which is a third dead, and a few segments",
        action: "`tophash compact STORE` while it is closed, `Store::compact` while it is open; \
                 `Options::log_ratio` bounds the log for good (compaction is off at infinity)",
    },
    Rule {
        name: "empty-segments",
        thresholds: &[(Info, 2.0), (Warning, 16.0)],
        measure: |d| (gone(d) > tolerated(d)).then(|| mostly_dead(d).count() as f64),
        finding: |d| format!("next to nothing is live in {} of the log", things(mostly_dead(d).count(), "segment")),
        reason: "emptying them costs hardly any copying: compaction is off, or has not kept up with the writers",
        action: "`tophash compact STORE`, `Store::compact` while it is open, or a finite `Options::log_ratio`; `Value`s that are held for long keep segments, too",
    },
    Rule {
        name: "remove-records",
        thresholds: &[(Info, 1.0), (Warning, 10.0)],
        measure: |d| (d.log.bytes > tolerated(d)).then(|| d.log.removals as f64 / d.records.max(1) as f64),
        finding: |d| format!("the log keeps {} for {}", removals(d.log.removals), things(d.records, "live record")),
        reason: "a remove-record stays as long as an older put of its key may exist",
        action: "`tophash compact STORE` drops them all; online compaction does as it gets to the oldest segments",
    },
    Rule {
        name: "segments",
        thresholds: &[(Warning, 3072.0), (Critical, 3840.0)],
        measure: |d| Some(d.log.segments as f64),
        finding: |d| format!("{} of 4,096 possible ones", things(d.log.segments, "segment")),
        reason: "with the last one the store takes no more writes (`LimitReached`)",
        action: "`tophash compact STORE`; a larger `Options::segment_bytes`, or none, so that it grows with the store",
    },
    Rule {
        name: "tombstones",
        thresholds: &[(Info, 0.02), (Warning, 0.10), (Critical, 0.25)],
        measure: |d| Some(share(d.slots.empty_one, d.slots.all())),
        finding: |d| {
            format!(
                "tombstones of removed keys take {} of {} in the index ({})",
                count(d.slots.empty_one),
                slots(d.slots.all()),
                percent(d.slots.empty_one, d.slots.all())
            )
        },
        reason: "lookups of absent keys read on past a tombstone; inserts use it only if it lies on their key's path",
        action: "`tophash compact STORE`, or a rewrite of the pages by growth or `Store::shrink_to_fit`; \
                 a `Store::remove_many` call rewrites each page of which it removes more than an eighth",
    },
    Rule {
        name: "pseudo-full-pages",
        thresholds: &[(Warning, 0.000_001), (Critical, 0.10)],
        measure: |d| highest(d, pseudo_full),
        finding: |d| {
            told(d, pseudo_full, |table| {
                format!(
                    "few live keys and many tombstones lie in {} of the index ({}), not rewritten for as many removals",
                    things(table.pseudo_full_pages, "page"),
                    percent(table.pseudo_full_pages, table.pages_in_use)
                )
            })
        },
        reason: "such a page costs lookups as much as a full one and gives its room back to nobody",
        action: "`tophash compact STORE`, or a rewrite of the pages by growth or `Store::shrink_to_fit`; \
                 a `Store::remove_many` call rewrites each page of which it removes more than an eighth",
    },
    Rule {
        name: "absent-key-lookups",
        thresholds: &[(Info, 1.3), (Warning, 1.6), (Critical, 2.5)],
        measure: |d| (d.table.pages_in_use > 0).then(|| d.absent_mean / d.absent_expected.max(1.0)),
        finding: |d| {
            format!(
                "a lookup of an absent key reads {:.2} cache lines on average; {:.2} would do at this load",
                d.absent_mean, d.absent_expected
            )
        },
        reason: "tombstones and chains keep lookups from ending early",
        action: "`tophash compact STORE`; online, growth and `Store::shrink_to_fit` rewrite the pages that they pass",
    },
    Rule {
        name: "load",
        thresholds: &[(Warning, 0.90), (Critical, 0.97)],
        measure: |d| highest(d, load),
        finding: |d| {
            told(d, load, |table| {
                format!(
                    "the index is {} full: {} in {}",
                    percent(table.records, table.slots),
                    things(table.records, "record"),
                    slots(table.slots)
                )
            })
        },
        reason: "growth begins at 82 %; a table that is fuller has not been able to grow",
        action: "look for a full disk or damage (`tophash verify STORE`), then `Store::reserve`",
    },
    Rule {
        name: "chains",
        thresholds: &[(Info, 0.20), (Warning, 0.35), (Critical, 0.60)],
        measure: |d| Some(share(chained(d), d.table.pages_in_use)),
        finding: |d| {
            format!(
                "{} of the index's pages in use ({}) continued in overflow pages; the longest chain has {}",
                percent(chained(d), d.table.pages_in_use),
                count(chained(d)),
                things(d.chain_longest, "overflow page")
            )
        },
        reason: "just before growth about one page in nine has an overflow page; more means that growth is behind, or tombstones",
        action: "`Store::reserve` before a bulk load, so that growth does not fall behind; `tophash compact STORE`",
    },
    Rule {
        name: "long-chain",
        thresholds: &[(Warning, 4.0), (Critical, 16.0)],
        measure: |d| Some(d.chain_longest as f64),
        finding: |d| format!("a chain has {}", things(d.chain_longest, "overflow page")),
        reason: "writers that meet a long chain move growth along; a chain this long means that growth stood still",
        action: "look for a full disk, then `Store::reserve`, or `tophash compact STORE`",
    },
    Rule {
        name: "needless-overflow",
        thresholds: &[(Info, 0.01), (Warning, 0.05)],
        measure: |d| Some(share(d.overflow.needless, d.table.pages_in_use)),
        finding: |d| {
            format!("{} would not be needed if chains were packed", things(d.overflow.needless, "overflow page"))
        },
        reason: "an overflow page is freed only when its last entry has gone",
        action: "`tophash compact STORE`; growth and `Store::shrink_to_fit` pack the pages that they pass",
    },
    Rule {
        name: "stranded-slots",
        thresholds: &[(Info, 0.20), (Warning, 0.40)],
        measure: |d| Some(share(d.slots.stranded, d.slots.all())),
        finding: |d| {
            format!(
                "{} in overflow pages ({} of all)",
                things(d.slots.stranded, "empty slot"),
                percent(d.slots.stranded, d.slots.all())
            )
        },
        reason: "only keys of the one page that the chain belongs to can use them",
        action: "`tophash compact STORE`; `Store::reserve` before bulk loads keeps chains from forming",
    },
    Rule {
        name: "table-too-large",
        thresholds: &[(Warning, 2.0), (Critical, 6.0)],
        measure: |d| highest(d, too_large),
        finding: |d| {
            told(d, too_large, |table| {
                format!(
                    "the index has {} for {}, where {} would do",
                    things(table.pages, "page"),
                    things(table.records, "record"),
                    count(1 << table.level_needed.min(63))
                )
            })
        },
        reason: "a table shrinks by itself when a fifth of its slots are live; this one has not been given the chance, or \
                 was opened by a build that does not shrink",
        action: "`Store::shrink_to_fit` while it is open, `tophash compact STORE` while it is closed",
    },
    Rule {
        name: "reserved-room",
        thresholds: &[(Info, 2.0)],
        measure: |d| highest(d, reserved),
        finding: |d| {
            told(d, reserved, |table| {
                format!(
                    "room for {} is reserved; the store has {}",
                    things(table.floor, "record"),
                    count(table.records)
                )
            })
        },
        reason: "the table does not shrink below what `Store::reserve` or `Options::capacity` asked for",
        action: "`Store::shrink_to_fit` gives the room back, if it is not needed any more",
    },
    Rule {
        name: "resize-under-way",
        thresholds: &[(Info, 1.0)],
        measure: |d| highest(d, resizing),
        finding: |d| {
            told(d, resizing, |table| {
                let what = if table.shrinking { "shrinking" } else { "growing" };
                let all = 1u64 << table.level.min(63);
                format!("the table is {what}: {} of {} are divided", count(table.evacuated_pages), things(all, "page"))
            })
        },
        reason: "a resize goes on with the next writes, or by itself while the store is open",
        action: "nothing need be done",
    },
    Rule {
        name: "journal",
        thresholds: &[(Info, 1.5)],
        measure: |d| (d.disk.journal > 64 << 20).then(|| share(d.disk.journal, d.disk.index)),
        finding: |d| format!("the journal takes {}, the index {}", size(d.disk.journal), size(d.disk.index)),
        reason: "the journal keeps the size of the last checkpoint until nobody writes or the store is closed",
        action: "a close, or `tophash compact STORE`; a smaller `Options::checkpoint_bytes` or `memory_bytes` keeps it small",
    },
    Rule {
        name: "blobs-to-unlink",
        thresholds: &[(Info, 256.0), (Warning, 8192.0)],
        measure: |d| Some(d.blobs.dying as f64),
        finding: |d| format!("{} wait to be unlinked", things(d.blobs.dying, "blob file")),
        reason: "a blob's file goes with the checkpoint after its removal",
        action: "`Store::checkpoint`, or open and close the store",
    },
    Rule {
        name: "compaction-pays",
        thresholds: &[(Info, 0.30), (Warning, 0.60)],
        measure: |d| {
            let floor = SMALL_BYTES + tolerated(d);
            (d.reclaimable.bytes() > floor).then(|| share(d.reclaimable.bytes(), d.disk.all()))
        },
        finding: |d| {
            format!(
                "offline compaction would give back about {} of {}: {} of log, {} of index, {} of journal",
                size(d.reclaimable.bytes()),
                size(d.disk.all()),
                size(d.reclaimable.log_bytes),
                size(d.reclaimable.index_bytes),
                size(d.reclaimable.journal_bytes)
            )
        },
        reason: "what is dead, unused or too large takes room on the disk and in the page cache",
        action: "`tophash compact STORE` (with `--dry-run` it only counts); `Store::compact` and `Store::shrink_to_fit` online",
    },
    Rule {
        name: "poisoned",
        thresholds: &[(Critical, 1.0)],
        measure: |d| d.stats.as_ref().map(|s| f64::from(u8::from(s.poisoned.is_some()))),
        finding: |d| {
            let cause = d.stats.as_ref().and_then(|s| s.poisoned.as_deref()).unwrap_or_default();
            format!("the running store refuses changes: {cause}")
        },
        reason: "after a failed sync or checkpoint nobody knows what is on the disk",
        action: "mend disk or space, close and open the store",
    },
    Rule {
        name: "new-overflow-inserts",
        thresholds: &[(Info, 0.002), (Warning, 0.02)],
        measure: |d| {
            let [rest, one, new] = inserts(d)?;
            (rest + one + new >= 1000).then(|| share(new, rest + one + new))
        },
        finding: |d| {
            let [rest, one, new] = inserts(d).unwrap_or_default();
            format!(
                "of {}, {} took a new overflow page ({}), {} reused a tombstone",
                things(rest + one + new, "insert"),
                count(new),
                percent(new, rest + one + new),
                count(one)
            )
        },
        reason: "an insert takes a new overflow page only if its whole path is full: growth is behind the writers",
        action: "`Store::reserve` before a bulk load",
    },
    Rule {
        name: "damaged-segments",
        thresholds: &[(Critical, 1.0)],
        measure: |d| d.stats.as_ref().map(|s| s.compaction.damaged_segments as f64),
        finding: |d| {
            let segments = d.stats.as_ref().map_or(0, |s| s.compaction.damaged_segments);
            format!("{} kept from compaction by a record that cannot be read", things(segments, "segment"))
        },
        reason: "their space never comes back, and some key in them fails with an error",
        action: "`tophash verify STORE` with the service stopped, then a copy, or `tophash repair STORE NEW`",
    },
    Rule {
        name: "pinned-segments",
        thresholds: &[(Info, 0.10), (Warning, 0.30)],
        measure: |d| {
            let stats = d.stats.as_ref()?;
            (stats.log.held_bytes > tolerated(d)).then(|| share(stats.log.held_bytes, stats.log.bytes))
        },
        finding: |d| {
            let bytes = d.stats.as_ref().map_or(0, |s| s.log.held_bytes);
            format!("{} of emptied segments wait for `Value`s to be dropped", size(bytes))
        },
        reason: "a `Value` keeps its segment's space until it is dropped",
        action: "drop values soon, or copy their bytes where they are kept (caches, sessions)",
    },
    Rule {
        name: "writers-throttled",
        thresholds: &[(Info, 1.0), (Warning, 1000.0)],
        measure: |d| d.stats.as_ref().map(|s| s.compaction.throttles as f64),
        finding: |d| {
            let times = d.stats.as_ref().map_or(0, |s| s.compaction.throttles);
            format!("writers waited {} because the log was over its bound", things(times, "time"))
        },
        reason: "the log grows faster than compaction and checkpoints free it",
        action: "a higher `Options::log_ratio` (more space, less copying), or smaller `Options::checkpoint_bytes`",
    },
    Rule {
        name: "memory-waits",
        thresholds: &[(Info, 1.0), (Warning, 100.0)],
        measure: |d| d.stats.as_ref().map(|s| s.waits.memory as f64),
        finding: |d| {
            let times = d.stats.as_ref().map_or(0, |s| s.waits.memory);
            format!("writers waited {} for a checkpoint", things(times, "time"))
        },
        reason: "the pages that were changed since the last checkpoint had filled `memory_bytes`",
        action: "a larger `Options::memory_bytes`, or a smaller `Options::checkpoint_bytes`",
    },
];

impl Diagnosis {
    /// Adds the figures of a running store (from [`Store::stats`](crate::Store::stats)) and what the rules say about
    /// them: only a running store knows where its inserts went and what its callers waited for.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("sessions.tophash");
    /// let store = tophash::Store::open(&path)?;
    /// store.insert("a", "1")?;
    /// let stats = store.stats();
    /// store.close()?;
    /// let mut diagnosis = tophash::doctor::diagnose(&path)?;
    /// diagnosis.include_stats(stats);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    pub fn include_stats(&mut self, stats: Stats) {
        self.stats = Some(stats);
        self.advise();
    }

    /// Applies the rules.
    pub(super) fn advise(&mut self) {
        self.advice = apply(self);
    }
}

/// What the rules say, the worst first.
pub(super) fn apply(diagnosis: &Diagnosis) -> Vec<Advice> {
    let current = RULES.iter().filter(|rule| rule.speaks_of_now(diagnosis));
    let mut advice: Vec<Advice> = current.filter_map(|rule| rule.check(diagnosis)).collect();
    // Stable: within a severity in the order of the table.
    advice.sort_by_key(|advice| std::cmp::Reverse(advice.severity));
    advice
}

impl Rule {
    /// False if the rule's figures are those of a checkpoint behind which the store was changed.
    fn speaks_of_now(&self, diagnosis: &Diagnosis) -> bool {
        (!OF_INDEX.contains(&self.name) || diagnosis.index_is_current())
            && (!OF_LOG.contains(&self.name) || diagnosis.log_is_current())
    }

    fn check(&self, diagnosis: &Diagnosis) -> Option<Advice> {
        let measured = (self.measure)(diagnosis)?;
        let &(severity, threshold) = self.thresholds.iter().rev().find(|&&(_, threshold)| measured >= threshold)?;
        Some(Advice {
            rule: self.name.into(),
            severity,
            finding: (self.finding)(diagnosis),
            reason: self.reason.into(),
            action: self.action.into(),
            measured,
            threshold,
        })
    }
}
