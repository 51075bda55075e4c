//! The diagnosis: its figures are those that others count, and the rules speak about a store that needs it and
//! are silent about one that does not.

mod common;

use std::ops::ControlFlow;
use std::path::Path;

use common::{bytes, copy_store, scratch, snapshot, tiny_options};
use tophash::doctor::{Diagnosis, Severity};
use tophash::{Error, Options, Store, SyncPolicy, Tuning};

const SEGMENT: u64 = 64 << 10;

fn key(n: u64) -> Vec<u8> {
    format!("key-{n:012}").into_bytes()
}

/// Everything by default but small segments and no threads.
fn options() -> Options {
    let tuning = Tuning { background: false, hash_key: Some((1, 2)), ..Tuning::default() };
    Options::new().segment_bytes(SEGMENT).checkpoint_bytes(1 << 20).sync(SyncPolicy::Manual).tuning(tuning)
}

/// Nothing that frees space is on.
fn littering() -> Options {
    let tuning = Tuning {
        background: false,
        hash_key: Some((1, 2)),
        rewrite_permille: 1000,
        shrink_permille: 0,
        ..Tuning::default()
    };
    options().tuning(tuning).log_ratio(f64::INFINITY)
}

/// As many records as 32 pages hold just before they grow: most buckets are full.
const FULL: u64 = 13_200;

fn fill(table: &tophash::Table, records: u64) {
    for n in 0..records {
        table.insert(key(n), bytes(100, n)).unwrap();
    }
}

/// A store that was filled, and emptied but for a tenth by the path without repair.
fn churn(path: &Path, options: &Options) -> Diagnosis {
    let store = options.open(path).unwrap();
    fill(&store, FULL);
    let keys: Vec<_> = (0..FULL).filter(|n| n % 10 != 0).map(key).collect();
    assert_eq!(store.remove_many(&keys).unwrap(), FULL - FULL / 10);
    store.close().unwrap();
    diagnose(path)
}

/// Diagnoses, and compares the figures with those of verify.
fn diagnose(path: &Path) -> Diagnosis {
    let report = tophash::verify::verify(path).unwrap();
    let d = tophash::doctor::diagnose(path).unwrap();
    assert_eq!((d.records, d.slots.live, d.slots.empty_one), (report.live_slots, report.live_slots, report.tombstones));
    assert_eq!((d.table.pages_in_use, d.overflow.used), (report.pages, report.overflow_pages));
    assert_eq!(d.slots.all(), (report.pages + report.overflow_pages) * d.table.page_slots);
    assert_eq!((d.closed_cleanly, d.generation), (report.closed_cleanly, report.generation));
    assert_eq!(d.load.iter().sum::<u64>(), report.pages);
    assert_eq!(d.chains.iter().sum::<u64>(), report.pages);
    let cells = |get: fn(&tophash::doctor::HeatCell) -> u64| d.heat.cells.iter().map(get).sum::<u64>();
    assert_eq!((cells(|c| c.live), cells(|c| c.tombstones)), (d.slots.live, d.slots.empty_one));
    assert_eq!((cells(|c| c.overflow), cells(|c| c.slots)), (d.overflow.used, d.slots.all()));
    let segments: u64 = d.segments.iter().map(|segment| segment.dead_bytes).sum();
    assert_eq!(segments, d.log.dead_bytes);
    assert!(d.bytes_read < report.bytes_read || d.records == 0, "a diagnosis reads no records");
    d
}

fn severity(d: &Diagnosis, rule: &str) -> Option<Severity> {
    d.advice.iter().find(|advice| advice.rule == rule).map(|advice| advice.severity)
}

#[test]
fn a_fresh_store_needs_nothing() {
    let dir = scratch();
    let path = dir.path().join("store");
    options().open(&path).unwrap().close().unwrap();
    let d = diagnose(&path);
    assert_eq!((d.advice.as_slice(), d.absent_mean), (&[][..], 1.0));
    let store = options().open(&path).unwrap();
    fill(&store, FULL);
    store.close().unwrap();
    let d = diagnose(&path);
    assert_eq!((d.advice.as_slice(), d.worst()), (&[][..], None));
    assert_eq!((d.table.level, d.table.level_needed, d.slots.empty_one), (5, 5, 0));
    // What pages of this load are expected to need is what pages need that were only filled.
    let ratio = d.absent_mean / d.absent_expected;
    assert!(d.absent_mean > 1.1 && ratio > 0.85 && ratio < 1.15, "{} {}", d.absent_mean, d.absent_expected);
    // Sync marks are all that is dead.
    assert!(d.log.dead_bytes < 200 && d.log.removals == 0, "{:?}", d.log);
}

/// The records of a segment expire between two times that the checkpoint keeps, so figures of records of one time are exact.
#[test]
fn expired_records_are_counted_beside_the_dead_ones() {
    use std::time::{Duration, SystemTime};
    let dir = scratch();
    let (path, copy) = (dir.path().join("store"), dir.path().join("copy"));
    for (past, expired) in [(true, 1000 * 136), (false, 0)] {
        let options = littering().segment_bytes(1 << 20);
        let store = options.open(&path).unwrap();
        let deadline = SystemTime::UNIX_EPOCH + Duration::from_secs(if past { 1 } else { 32_503_680_000 });
        // 8 + 8 + 16 + 100 bytes, and 4 to a multiple of 8.
        (0..1000).for_each(|n| store.expiring(deadline).set(key(n), bytes(100, n)).unwrap());
        (1000..1500).for_each(|n| store.set(key(n), bytes(100, n)).unwrap());
        store.sync().unwrap();
        copy_store(&path, &copy);
        store.close().unwrap();
        // Of a closed store, and of one with a tail.
        for path in [&path, &copy] {
            let d = tophash::doctor::diagnose(path).unwrap();
            assert_eq!((d.log.expiring_bytes, d.log.expired_bytes), (1000 * 136, expired), "{:?}", d.log);
            let sums = d.segments.iter().map(|segment| (segment.expiring_bytes, segment.expired_bytes));
            assert_eq!(sums.fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1)), (1000 * 136, expired));
            assert!(d.log.dead_bytes < 200, "{:?}", d.log);
            let live = d.log.bytes - d.log.dead_bytes - expired;
            assert!(d.reclaimable.log_bytes <= d.disk.log - live, "{:?}", d.reclaimable);
            assert!(d.reclaimable.log_bytes >= expired, "{:?}", d.reclaimable);
        }
        std::fs::remove_dir_all(&path).unwrap();
        std::fs::remove_dir_all(&copy).unwrap();
    }
}

#[test]
fn churn_by_the_defaults_needs_nothing() {
    let dir = scratch();
    let path = dir.path().join("store");
    let store = options().open(&path).unwrap();
    fill(&store, FULL);
    for n in 0..2 * FULL {
        store.remove(key(n)).unwrap();
        store.insert(key(n + FULL), bytes(100, n)).unwrap();
    }
    store.close().unwrap();
    let d = diagnose(&path);
    let warnings: Vec<_> = d.advice.iter().filter(|advice| advice.severity > Severity::Info).collect();
    assert!(warnings.is_empty(), "{warnings:#?}");
}

#[test]
fn a_littered_store_gets_the_advice_it_needs() {
    let dir = scratch();
    let d = churn(&dir.path().join("store"), &littering());
    for (rule, expected) in [
        ("dead-log", Severity::Critical),
        ("tombstones", Severity::Critical),
        ("pseudo-full-pages", Severity::Critical),
        ("compaction-pays", Severity::Warning),
        ("empty-segments", Severity::Warning),
        ("remove-records", Severity::Info),
        ("absent-key-lookups", Severity::Warning),
    ] {
        assert!(severity(&d, rule) >= Some(expected), "{rule}: {:#?}", d.advice);
    }
    assert!(severity(&d, "damage").is_none() && severity(&d, "load").is_none(), "{:#?}", d.advice);
    assert_eq!(d.pseudo_full.len(), 16, "the worst are named");
    let worst = &d.pseudo_full[0];
    assert!(worst.tombstones * 4 > d.table.page_slots && worst.live * 4 < d.table.page_slots, "{worst:?}");
    assert!(d.advice.is_sorted_by(|a, b| a.severity >= b.severity));

    // What is promised of compaction is what comes of it.
    let report = tophash::compact::compact(dir.path().join("store")).unwrap();
    let came_back = report.before.disk_bytes - report.after.disk_bytes;
    assert!(came_back.abs_diff(d.reclaimable.bytes()) < came_back / 10, "{came_back} of {:?}", d.reclaimable);
    assert_eq!(report.before.empty_one_slots, d.reclaimable.tombstones);
    let d = diagnose(&dir.path().join("store"));
    assert_eq!((d.advice.as_slice(), d.pseudo_full_pages), (&[][..], 0));

    // The same operations by the defaults: the pages are rewritten, the table shrinks, the log is compacted.
    let d = churn(&dir.path().join("healthy"), &options());
    for rule in ["tombstones", "pseudo-full-pages", "dead-log", "empty-segments", "absent-key-lookups"] {
        assert_eq!(severity(&d, rule), None, "{:#?}", d.advice);
    }
    assert_eq!(d.pseudo_full_pages, 0);
}

#[test]
fn a_table_that_stayed_large_is_noticed() {
    let dir = scratch();
    let emptied = |name: &str, shrink_permille: u32| {
        let path = dir.path().join(name);
        // 24 slots to a page, but the levels are compared with those of the default tuning: 16 pages at least.
        let store = tiny_options().tuning(Tuning { shrink_permille, ..common::tiny() }).open(&path).unwrap();
        fill(&store, 6000);
        store.remove_many(&(200..6000).map(key).collect::<Vec<_>>()).unwrap();
        store.insert(b"one more", b"").unwrap();
        diagnose_closed(store, &path)
    };
    let large = emptied("large", 0);
    assert_eq!((large.table.level, large.table.level_needed), (9, 4), "{:?}", large.table);
    assert_eq!(severity(&large, "table-too-large"), Some(Severity::Warning));
    assert!(large.reclaimable.index_bytes > (512 - 16 - 128) * 4096, "{:?}", large.reclaimable);
    let small = emptied("small", Tuning::default().shrink_permille);
    assert_eq!(severity(&small, "table-too-large"), None, "{:?}", small.table);
}

/// However much of a page one call removes: little is repaired, much is rewritten.
#[test]
fn bulk_removals_leave_no_tombstones() {
    let dir = scratch();
    let path = dir.path().join("store");
    let store = options().open(&path).unwrap();
    fill(&store, FULL);
    let keys: Vec<_> = (0..FULL).map(key).collect();
    for few in keys[..2000].chunks(100) {
        store.remove_many(few).unwrap();
    }
    let index = store.stats().index;
    assert!(index.repairs > 0 && index.rewrites == 0, "{index:?}");
    let d = diagnose_closed(store, &path);
    assert_eq!((d.records, d.slots.empty_one), (FULL - 2000, 0));
    let store = options().open(&path).unwrap();
    store.remove_many(&keys[2000..9000]).unwrap();
    let index = store.stats().index;
    assert!(index.repairs == 0 && index.rewrites > 0, "{index:?}");
    let d = diagnose_closed(store, &path);
    assert_eq!((d.records, d.slots.empty_one), (FULL - 9000, 0));
}

#[cfg(feature = "serde")]
#[test]
fn a_diagnosis_survives_json() {
    let dir = scratch();
    let path = dir.path().join("store");
    let mut d = churn(&path, &littering());
    d.include_stats(Options::new().read_only(true).open(&path).unwrap().stats());
    assert_eq!(serde_json::from_str::<Diagnosis>(&serde_json::to_string(&d).unwrap()).unwrap(), d);
}

#[test]
fn chains_are_counted_and_those_that_packing_would_shorten() {
    let dir = scratch();
    let path = dir.path().join("store");
    // Pages of 24 slots that never grow, so that everything goes into chains.
    let tuning = Tuning { grow_permille: 1_000_000, chain_help: 1 << 20, rewrite_permille: 1000, ..common::tiny() };
    let options = tiny_options().tuning(Tuning { shrink_permille: 0, ..tuning }).log_ratio(f64::INFINITY);
    let store = options.open(&path).unwrap();
    fill(&store, 20);
    let before = diagnose_closed(store, &path);
    assert_eq!((before.chain_longest, before.overflow.needless), (0, 0));
    let store = options.open(&path).unwrap();
    fill(&store, 3000);
    let filled = diagnose_closed(store, &path);
    assert!(filled.chain_longest > 0 && filled.overflow.used > 0, "{filled:#?}");
    assert_eq!(filled.chains.iter().skip(1).sum::<u64>(), filled.chains.iter().sum::<u64>() - filled.chains[0]);
    let store = options.open(&path).unwrap();
    // Of many chains an entry is left in the last page, which keeps that one.
    let most: Vec<_> = (0..3000).filter(|n| n % 3 != 0).map(key).collect();
    store.remove_many(&most).unwrap();
    let emptied = diagnose_closed(store, &path);
    assert!(emptied.overflow.needless > 0 && emptied.overflow.needless <= emptied.overflow.used, "{emptied:#?}");
    // Pages that had become empty at the end of their chains were given back; those that are left hold less.
    let stranded = |d: &Diagnosis| d.slots.stranded as f64 / d.overflow.used as f64;
    assert!(stranded(&emptied) > stranded(&filled), "{} and {}", stranded(&emptied), stranded(&filled));
}

fn diagnose_closed(store: Store, path: &Path) -> Diagnosis {
    store.close().unwrap();
    diagnose(path)
}

#[test]
fn a_store_in_the_middle_of_growth_says_so() {
    let dir = scratch();
    let path = dir.path().join("store");
    let store = options().open(&path).unwrap();
    fill(&store, FULL);
    let mut n = FULL;
    while !store.stats().index.growing {
        store.insert(key(n), b"").unwrap();
        n += 1;
    }
    let d = diagnose_closed(store, &path);
    assert!(
        d.table.growing && d.table.evacuated_pages < 32 && d.table.pages == 32 + d.table.evacuated_pages,
        "{:?}",
        d.table
    );
    assert_eq!(severity(&d, "resize-under-way"), Some(Severity::Info));
}

#[test]
fn room_that_was_reserved_is_no_waste() {
    let dir = scratch();
    let path = dir.path().join("store");
    let store = options().capacity(100_000).open(&path).unwrap();
    fill(&store, 100);
    let d = diagnose_closed(store, &path);
    assert_eq!((d.table.floor, severity(&d, "table-too-large")), (100_000, None));
    assert_eq!(severity(&d, "reserved-room"), Some(Severity::Info));
    assert!(d.table.pages_in_use <= 100 && d.table.pages == 256, "{:?}", d.table);
}

#[test]
fn an_unclean_end_and_damage_are_said() {
    let dir = scratch();
    let path = dir.path().join("store");
    let store = littering().open(&path).unwrap();
    fill(&store, FULL);
    store.checkpoint().unwrap();
    store.insert(b"later", b"").unwrap();
    assert!(matches!(tophash::doctor::diagnose(&path), Err(Error::Locked { .. })), "a writer has it");
    let copy = dir.path().join("copy");
    copy_store(&path, &copy);
    store.close().unwrap();
    let d = tophash::doctor::diagnose(&copy).unwrap();
    assert!(!d.closed_cleanly && d.records == FULL + 1);
    assert_eq!((d.tail_records, d.slots.live, d.index_is_current()), (1, FULL, false));
    assert_eq!((severity(&d, "not-closed"), severity(&d, "damage")), (Some(Severity::Info), None));

    // One page of 32 is damaged: the rest is counted.
    let index = path.join("index");
    let mut file = std::fs::read(&index).unwrap();
    let whole = tophash::doctor::diagnose(&path).unwrap();
    // A primary page of the first extent, which the main table's entry in the meta data names, behind its bitmap page.
    let first = 2 * 4096 + 64 + 104 + 40;
    let page = u64::from_le_bytes(file[first..first + 8].try_into().unwrap()) + 1;
    file[4096 * page as usize + 2000] ^= 1;
    std::fs::write(&index, file).unwrap();
    let d = tophash::doctor::diagnose(&path).unwrap();
    assert_eq!(severity(&d, "damage"), Some(Severity::Critical));
    assert_eq!((d.damage.len(), d.damage[0].kind.as_str(), d.damage[0].page), (1, "page-checksum", Some(page)));
    assert_eq!(d.table.pages_in_use, whole.table.pages_in_use - 1);
    assert!(d.slots.live < whole.slots.live);
}

/// A store that no checkpoint was made of: the diagnosis counted no record, took all of the log for prepared files, and
/// said that compaction would give it back.
#[test]
fn the_tail_of_a_store_that_was_not_closed_counts() {
    let dir = scratch();
    let (path, copy) = (dir.path().join("store"), dir.path().join("copy"));
    let store = options().checkpoint_bytes(1 << 30).open(&path).unwrap();
    fill(&store, 3000);
    (0..300).for_each(|n| _ = store.insert(key(n), bytes(100, n + 7)).unwrap());
    (300..400).for_each(|n| _ = store.remove(key(n)).unwrap());
    store.sync().unwrap();
    // Its sync mark says that what precedes was durable.
    store.insert(b"last", b"").unwrap();
    copy_store(&path, &copy);
    store.close().unwrap();
    let (whole, d) = (tophash::doctor::diagnose(&path).unwrap(), tophash::doctor::diagnose(&copy).unwrap());
    assert_eq!((d.records, d.tail_records, d.tail_problem.clone()), (2901, 3401, None));
    assert_eq!((d.log.bytes, d.log.dead_bytes), (whole.log.bytes, whole.log.dead_bytes));
    assert_eq!((d.log.removals, d.table.level_needed), (whole.log.removals, whole.table.level_needed));
    let live = d.log.bytes - d.log.dead_bytes;
    assert!(d.reclaimable.log_bytes + live <= d.disk.log, "{:?} of {:?}", d.reclaimable, d.disk);
    let advised: Vec<_> = d.advice.iter().map(|advice| advice.rule.as_str()).collect();
    assert!(!advised.contains(&"table-too-large") && !advised.contains(&"load"), "{advised:?}");

    // A tail that cannot be read: what is not known is not advised from.
    let segment = std::fs::read_dir(copy.join("log-1")).unwrap().map(|entry| entry.unwrap().path()).min().unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[128 + 20] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let d = tophash::doctor::diagnose(&copy).unwrap();
    assert!(d.tail_problem.is_some() && !d.log_is_current() && d.reclaimable.bytes() == 0, "{d:?}");
    assert!(d.advice.iter().all(|advice| advice.rule == "tail-unreadable"), "{:?}", d.advice);
}

/// The number of large values was that of the last checkpoint, although the records that link them counted.
#[test]
fn large_values_of_the_tail_count() {
    let dir = scratch();
    let (path, copy) = (dir.path().join("store"), dir.path().join("copy"));
    let store = options().checkpoint_bytes(1 << 30).open(&path).unwrap();
    store.insert(b"before", vec![1; 300_000]).unwrap();
    store.insert(b"removed", vec![2; 310_000]).unwrap();
    store.checkpoint().unwrap();
    store.insert(b"after", vec![3; 320_000]).unwrap();
    store.insert(b"after that", vec![4; 330_000]).unwrap();
    store.remove(b"removed").unwrap();
    copy_store(&path, &copy);
    store.close().unwrap();
    for path in [&copy, &path] {
        let d = tophash::doctor::diagnose(path).unwrap();
        assert_eq!((d.records, d.blobs.count, d.blobs.bytes), (3, 3, 950_000), "{:?}", d.blobs);
        assert_eq!(d.closed_cleanly, path.ends_with("store"));
    }
}

#[test]
fn a_diagnosis_changes_nothing_and_can_be_ended() {
    let dir = scratch();
    let path = dir.path().join("store");
    churn(&path, &littering());
    let before = snapshot(&path);
    tophash::doctor::diagnose(&path).unwrap();
    assert_eq!(snapshot(&path), before);
    let ended = tophash::doctor::diagnose_with(&path, |progress| {
        if progress.done < 100_000 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    assert!(matches!(ended, Err(Error::Aborted { operation: "doctor", .. })), "{ended:?}");
    assert!(matches!(tophash::doctor::diagnose(dir.path().join("none")), Err(Error::NotFound { .. })));
}

/// Sums over all tables, each table in a list, and the worst one named by the rules that judge each.
#[test]
fn each_table_is_diagnosed() {
    let dir = scratch();
    let path = dir.path().join("s");
    let store = littering().open(&path).unwrap();
    fill(&store, 50);
    let large = store.table("large").unwrap();
    fill(&large, FULL);
    (20..FULL).for_each(|n| assert!(large.delete(key(n)).unwrap()));
    fill(&store.table("other").unwrap(), 30);
    store.checkpoint().unwrap();
    let killed = dir.path().join("killed");
    fill(&store.table("of the tail").unwrap(), 7);
    assert!(store.drop_table("other").unwrap());
    copy_store(&path, &killed);
    store.close().unwrap();

    let d = tophash::doctor::diagnose(&path).unwrap();
    let names: Vec<_> = d.tables.iter().map(|table| (table.name.as_deref(), table.records)).collect();
    assert_eq!(names, [(None, 50), (Some("large"), 20), (Some("of the tail"), 7)]);
    assert_eq!((d.records, d.damage.len(), d.table.records), (77, 0, 77));
    let sum = |figure: fn(&tophash::doctor::TableFigures) -> u64| d.tables.iter().map(figure).sum::<u64>();
    // The names of the tables are records of a table that is not listed.
    assert_eq!(d.slots.live, 77 + 2);
    assert!(d.table.pages > sum(|table| table.pages) && d.table.slots > sum(|table| table.slots), "{d:?}");
    assert_eq!(d.heat.cells.iter().map(|cell| cell.live).sum::<u64>(), d.slots.live);
    let finding = |rule: &str| d.advice.iter().find(|advice| advice.rule == rule).map(|advice| &advice.finding[..]);
    let told = finding("table-too-large").expect("a table that did not shrink");
    assert!(told.starts_with("table \"large\": ") && told.contains("20 records"), "{told}");

    // Records are those of now, and tables that the tail made are there.
    let d = tophash::doctor::diagnose(&killed).unwrap();
    let names: Vec<_> = d.tables.iter().map(|table| (table.name.as_deref(), table.records)).collect();
    assert_eq!(names, [(None, 50), (Some("large"), 20), (Some("of the tail"), 7)]);
    assert!(!d.index_is_current() && d.records == 77);

    // Damage names its table.
    let mut index = std::fs::read(path.join("index")).unwrap();
    let last = (0..index.len() / 4096).rfind(|page| index[page * 4096 + 4..][..4] == *b"BKT1").unwrap();
    index[last * 4096 + 2000] ^= 1;
    std::fs::write(path.join("index"), index).unwrap();
    let d = tophash::doctor::diagnose(&path).unwrap();
    assert_eq!(severity(&d, "damage"), Some(Severity::Critical));
    assert!(d.damage.iter().all(|finding| finding.table.is_some()), "{:?}", d.damage);
}
