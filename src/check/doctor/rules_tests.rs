//! Each rule speaks at its thresholds and is silent below.

use super::advice::Severity;
use super::diagnosis::{Diagnosis, SegmentFigures};
use super::rules::{RULES, apply};
use crate::stats::Stats;

/// A store in good shape: a million records, a third of the log dead.
fn healthy() -> Diagnosis {
    let mut d = Diagnosis {
        records: 1_000_000,
        closed_cleanly: true,
        absent_mean: 1.1,
        absent_expected: 1.1,
        ..Diagnosis::default()
    };
    (d.table.level, d.table.level_needed) = (12, 12);
    (d.table.pages, d.table.pages_in_use, d.table.page_slots, d.table.slots) = (4096, 4096, 504, 4096 * 504);
    (d.slots.live, d.slots.empty_rest) = (1_000_000, 4096 * 504 - 1_000_000);
    d.chains = vec![4090, 6];
    d.chain_longest = 1;
    d.segments = vec![segment(64 << 20, 20 << 20); 3];
    (d.log.segments, d.log.bytes, d.log.dead_bytes, d.log.removals) = (3, 192 << 20, 60 << 20, 1000);
    (d.disk.index, d.disk.journal, d.disk.log) = (17 << 20, 17 << 20, 200 << 20);
    (d.reclaimable.log_bytes, d.reclaimable.index_bytes) = (60 << 20, 0);
    d
}

fn segment(bytes: u64, dead_bytes: u64) -> SegmentFigures {
    SegmentFigures { capacity: 64 << 20, bytes, dead_bytes, ..SegmentFigures::default() }
}

/// The severities of a rule's advice as a figure changes.
fn severities(rule: &str, figures: &[u64], set: fn(&mut Diagnosis, u64)) -> Vec<Option<Severity>> {
    let check = |&figure| {
        let mut d = healthy();
        set(&mut d, figure);
        apply(&d).into_iter().find(|advice| advice.rule == rule).map(|advice| advice.severity)
    };
    figures.iter().map(check).collect()
}

const NONE: Option<Severity> = None;
const INFO: Option<Severity> = Some(Severity::Info);
const WARNING: Option<Severity> = Some(Severity::Warning);
const CRITICAL: Option<Severity> = Some(Severity::Critical);

fn stats(d: &mut Diagnosis) -> &mut Stats {
    d.stats.get_or_insert_default()
}

#[test]
fn a_healthy_store_gets_no_advice() {
    let mut d = healthy();
    assert_eq!(apply(&d), []);
    d.include_stats(Stats::default());
    assert_eq!((d.advice.as_slice(), d.worst()), (&[][..], None));
}

#[test]
fn an_empty_diagnosis_divides_by_nothing() {
    let d = Diagnosis { closed_cleanly: true, ..Diagnosis::default() };
    assert_eq!(apply(&d), []);
}

#[test]
fn rules_speak_at_their_thresholds() {
    type Case = (&'static str, &'static [u64], fn(&mut Diagnosis, u64), &'static [Option<Severity>]);
    let cases: &[Case] = &[
        ("unreadable-entries", &[0, 1], |d, n| d.slots.marked = n, &[NONE, CRITICAL]),
        ("not-closed", &[0, 1], |d, n| d.closed_cleanly = n == 0, &[NONE, INFO]),
        (
            "tail-unreadable",
            &[0, 1],
            |d, n| (d.closed_cleanly, d.tail_problem) = (false, (n == 1).then(|| "EIO".into())),
            &[NONE, CRITICAL],
        ),
        // Of 1000 MiB. Four segments' worth is no reason to speak.
        (
            "dead-log",
            &[390, 400, 750],
            |d, n| (d.log.bytes, d.log.dead_bytes) = (1000 << 20, n << 20),
            &[NONE, WARNING, CRITICAL],
        ),
        ("dead-log", &[255, 257], |d, n| (d.log.bytes, d.log.dead_bytes) = (300 << 20, n << 20), &[NONE, CRITICAL]),
        // What has expired counts as what was replaced.
        (
            "dead-log",
            &[390, 400, 750, u64::MAX >> 20],
            |d, n| (d.log.bytes, d.log.dead_bytes, d.log.expired_bytes) = (1000 << 20, 100 << 20, (n - 100) << 20),
            &[NONE, WARNING, CRITICAL, CRITICAL],
        ),
        (
            "empty-segments",
            &[2, 3, 17],
            |d, n| {
                // The last one is not sealed.
                d.segments = vec![segment(60 << 20, 54 << 20); n as usize];
                d.log.dead_bytes = 300 << 20;
            },
            &[NONE, INFO, WARNING],
        ),
        (
            "empty-segments",
            &[53, 54],
            |d, n| {
                let expired = SegmentFigures { expired_bytes: (n - 20) << 20, ..segment(60 << 20, 20 << 20) };
                d.segments = vec![expired; 3];
                d.log.dead_bytes = 300 << 20;
            },
            &[NONE, INFO],
        ),
        (
            "remove-records",
            &[999_999, 1_000_000, 10_000_000],
            |d, n| (d.log.bytes, d.log.removals) = (300 << 20, n),
            &[NONE, INFO, WARNING],
        ),
        ("segments", &[3071, 3072, 3840], |d, n| d.log.segments = n, &[NONE, WARNING, CRITICAL]),
        (
            "tombstones",
            &[19, 20, 100, 250],
            |d, n| (d.slots.live, d.slots.empty_rest, d.slots.empty_one) = (500, 500 - n, n),
            &[NONE, INFO, WARNING, CRITICAL],
        ),
        ("pseudo-full-pages", &[0, 1, 410], |d, n| d.pseudo_full_pages = n, &[NONE, WARNING, CRITICAL]),
        (
            "absent-key-lookups",
            &[194, 196, 241, 376],
            |d, n| (d.absent_mean, d.absent_expected) = (n as f64 / 100.0, 1.5),
            &[NONE, INFO, WARNING, CRITICAL],
        ),
        ("load", &[899, 900, 970], |d, n| (d.records, d.table.slots) = (n, 1000), &[NONE, WARNING, CRITICAL]),
        (
            "chains",
            &[819, 820, 1434, 2458],
            |d, n| d.chains = vec![4096 - n, n - 1, 1],
            &[NONE, INFO, WARNING, CRITICAL],
        ),
        ("long-chain", &[3, 4, 16], |d, n| d.chain_longest = n, &[NONE, WARNING, CRITICAL]),
        ("needless-overflow", &[40, 41, 205], |d, n| d.overflow.needless = n, &[NONE, INFO, WARNING]),
        (
            "stranded-slots",
            &[199, 200, 400],
            |d, n| (d.slots.live, d.slots.empty_rest, d.slots.stranded) = (500, 500, n),
            &[NONE, INFO, WARNING],
        ),
        ("table-too-large", &[13, 14, 18], |d, n| d.table.level = n as u32, &[NONE, WARNING, CRITICAL]),
        ("table-too-large", &[15, 16], |d, n| (d.table.level, d.table.level_floor) = (n as u32, 14), &[NONE, WARNING]),
        (
            "reserved-room",
            &[12, 13, 14],
            |d, n| (d.table.level, d.table.level_floor) = (n as u32, n as u32),
            &[NONE, NONE, INFO],
        ),
        ("resize-under-way", &[0, 1], |d, n| d.table.growing = n == 1, &[NONE, INFO]),
        ("journal", &[149, 150], |d, n| (d.disk.journal, d.disk.index) = (n << 20, 100 << 20), &[NONE, INFO]),
        ("blobs-to-unlink", &[255, 256, 8192], |d, n| d.blobs.dying = n, &[NONE, INFO, WARNING]),
        (
            "compaction-pays",
            &[29, 30, 60],
            |d, n| (d.reclaimable.index_bytes, d.disk.index, d.disk.log) = ((10 * n - 60) << 20, 983 << 20, 0),
            &[NONE, INFO, WARNING],
        ),
        ("poisoned", &[0, 1], |d, n| stats(d).poisoned = (n == 1).then(|| "EIO".into()), &[NONE, CRITICAL]),
        (
            "new-overflow-inserts",
            &[1, 2, 20],
            |d, n| {
                stats(d).index.inserts_into_new_overflow = n;
                stats(d).index.inserts_into_empty_rest = 1000 - n;
            },
            &[NONE, INFO, WARNING],
        ),
        ("damaged-segments", &[0, 1], |d, n| stats(d).compaction.damaged_segments = n, &[NONE, CRITICAL]),
        (
            "pinned-segments",
            &[299, 300, 900],
            |d, n| {
                stats(d).log.held_bytes = n << 20;
                stats(d).log.bytes = 3000 << 20;
            },
            &[NONE, INFO, WARNING],
        ),
        ("writers-throttled", &[0, 1, 1000], |d, n| stats(d).compaction.throttles = n, &[NONE, INFO, WARNING]),
        ("memory-waits", &[0, 1, 100], |d, n| stats(d).waits.memory = n, &[NONE, INFO, WARNING]),
    ];
    for (rule, figures, set, expected) in cases {
        assert_eq!(severities(rule, figures, *set), *expected, "{rule} at {figures:?}");
    }
    // "damage" needs findings, which only a damaged store has: see tests/doctor.rs.
    for rule in RULES.iter().filter(|rule| rule.name != "damage") {
        assert!(cases.iter().any(|case| case.0 == rule.name), "{} is not tested", rule.name);
    }
}

#[test]
fn the_table_is_in_order() {
    for (i, rule) in RULES.iter().enumerate() {
        assert!(rule.thresholds.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1), "{}: severities", rule.name);
        assert!(!RULES[..i].iter().any(|other| other.name == rule.name), "{}: twice", rule.name);
        assert!(rule.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{}", rule.name);
        assert!(!rule.reason.is_empty() && !rule.action.is_empty(), "{}", rule.name);
        // Nothing to say breaks nothing.
        assert!(!(rule.finding)(&Diagnosis::default()).is_empty(), "{}", rule.name);
    }
}

#[test]
fn the_worst_comes_first() {
    let mut d = healthy();
    d.closed_cleanly = false;
    d.log.segments = 4000;
    d.chain_longest = 5;
    d.advise();
    let named: Vec<_> = d.advice.iter().map(|advice| (advice.rule.as_str(), advice.severity)).collect();
    let expected =
        [("segments", Severity::Critical), ("long-chain", Severity::Warning), ("not-closed", Severity::Info)];
    assert_eq!((named.as_slice(), d.worst()), (&expected[..], Some(Severity::Critical)));
}

#[test]
fn severities_are_read_as_they_are_written() {
    for severity in [Severity::Info, Severity::Warning, Severity::Critical] {
        assert_eq!(severity.to_string().parse(), Ok(severity));
    }
    assert!("fatal".parse::<Severity>().is_err());
}
