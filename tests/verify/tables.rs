//! Stores with several tables: whole ones, closed and killed at every point, and damage of what belongs to one table.

use std::path::PathBuf;
use std::sync::OnceLock;

use tempfile::TempDir;
use tophash::verify::{Finding, Report};

use crate::support::*;

/// Nothing is found, not even something harmless, whatever was done to the tables last and wherever the checkpoint lies.
#[test]
fn whole_stores_with_tables_are_clean() {
    for checkpoint_before in 0..=STEPS.len() {
        let dir = crate::common::scratch();
        let store = options().open(dir.path().join("s")).unwrap();
        for (number, step) in STEPS.iter().enumerate() {
            if number == checkpoint_before {
                store.checkpoint().unwrap();
            }
            step(&store);
            let killed = dir.path().join(format!("killed {number}"));
            copy_store(&dir.path().join("s"), &killed);
            let report = verify_clean(&killed);
            assert_eq!(report.tables, store.tables().unwrap().len() as u64, "step {number}");
            let again = options().open(&killed).unwrap();
            again.close().unwrap();
            let report = verify_clean(&killed);
            assert_eq!((report.tables, report.records), (store.stats().tables, store.stats().records), "step {number}");
        }
        store.close().unwrap();
        assert!(verify_clean(&dir.path().join("s")).closed_cleanly);
    }
}

/// Compaction moves records of all tables, and frees those of tables that are gone.
#[test]
fn a_compacted_store_with_tables_is_clean() {
    let dir = crate::common::scratch();
    let path = dir.path().join("s");
    let store = store_with_tables(&path, STEPS.len());
    for _ in 0..3 {
        store.compact().unwrap();
        store.checkpoint().unwrap();
        let copy = dir.path().join("copy");
        copy_store(&path, &copy);
        verify_clean(&copy);
        std::fs::remove_dir_all(copy).unwrap();
    }
    store.close().unwrap();
    verify_clean(&path);
}

/// Closed cleanly, with tables.
fn base() -> PathBuf {
    static STORE: OnceLock<TempDir> = OnceLock::new();
    let dir = STORE.get_or_init(|| {
        let dir = crate::common::scratch();
        store_with_tables(&dir.path().join("s"), STEPS.len()).close().unwrap();
        dir
    });
    dir.path().join("s")
}

/// A copy of the closed store, damaged, and what is said of it.
fn damaged(damage: impl FnOnce(&Files)) -> Report {
    let dir = crate::common::scratch();
    let path = dir.path().join("s");
    copy_store(&base(), &path);
    verify_clean(&path);
    damage(&Files::new(&path));
    verify(&path)
}

/// The finding of a kind, which must be about a table.
#[track_caller]
fn about<'r>(report: &'r Report, kind: &str, table: &str) -> &'r Finding {
    assert!(!report.is_clean());
    let is_it = |finding: &&Finding| finding.kind == kind && finding.table.as_deref() == Some(table);
    report.findings.iter().find(is_it).unwrap_or_else(|| panic!("no {kind} of {table}: {:#?}", report.findings))
}

/// The id of table a, and a page of it with entries.
fn page_of_a(files: &Files) -> (u32, u64) {
    let (_, id) = files.catalog_record("a");
    let (_, number) = files.find_primary_of(files.meta().table(id), |page| live_slots(page).len() > 4);
    (id, number)
}

#[test]
fn a_flipped_bit_in_a_page_of_a_table() {
    let report = damaged(|files| {
        let (_, number) = page_of_a(files);
        files.edit_page(number, |page| page[32] += 1);
    });
    about(&report, "page-live-count", "a");
    let report = damaged(|files| {
        let (_, number) = page_of_a(files);
        files.damage(&files.index(), number * PAGE as u64 + 100, &[0x55]);
    });
    about(&report, "page-checksum", "a");
    // Other tables are still looked at: nothing else is said.
    assert!(report.findings.iter().all(|finding| finding.table.as_deref() == Some("a")), "{:#?}", report.findings);
}

#[test]
fn a_flipped_bit_in_a_bitmap_of_a_table() {
    let report = damaged(|files| {
        let (id, _) = page_of_a(files);
        let bitmap = files.meta().table(id).primary[0];
        files.damage(&files.index(), bitmap * PAGE as u64 + 64, &[0x55]);
    });
    about(&report, "bitmap-page", "a");
}

#[test]
fn a_flipped_bit_in_a_record_of_a_table() {
    let report = damaged(|files| {
        let (id, _) = page_of_a(files);
        let records = files.all_records();
        let live = |record: &&Record| record.table == id && record.kind == 1 && files.slot_of(record.address).is_some();
        let record = records.iter().find(live).unwrap();
        files.damage(&record.file, record.at + 12, &[0x55]);
    });
    about(&report, "log-record", "a");
}

#[test]
fn a_record_of_the_catalog_that_is_damaged() {
    let report = damaged(|files| {
        let (record, _) = files.catalog_record("a");
        files.damage(&record.file, record.value_at, &[0x55]);
    });
    about(&report, "log-record", "(catalog)");
    // Its table has no name any more, and its records are no findings.
    assert_eq!(report.findings_total, 1, "{:#?}", report.findings);
}

/// Checksums are right, contents are not.
#[test]
fn entries_of_the_catalog_that_cannot_be() {
    let edit = |name: &'static str, edit: fn(&mut [u8])| {
        damaged(|files| {
            let (record, _) = files.catalog_record(name);
            let value = (record.value_at - record.at) as usize;
            files.edit_record(&record, |bytes| edit(&mut bytes[value..]));
        })
    };
    for (what, report) in [
        ("a table that is not there", edit("a", |value| value[0] = 77)),
        ("no id of a table", edit("a", |value| value[0] = 1)),
        ("reserved bytes", edit("a", |value| value[4] = 1)),
        ("a table that has a name", {
            let (_, id) = Files::new(&base()).catalog_record("b");
            assert_eq!(id, 3);
            edit("a", |value| value[0] = 3)
        }),
        ("cleared after the entry was written", edit("a", |value| value[12] = 200)),
    ] {
        println!("{what}");
        about(&report, "catalog", "(catalog)");
    }
    // A clear that was not carried out.
    let report = edit("a", |value| value[12] = 200);
    assert_eq!(about(&report, "record-removed", "a").expected, "a key that was not removed");
}

#[test]
fn a_slot_that_names_a_record_of_another_table() {
    let report = damaged(|files| {
        let (_, number) = page_of_a(files);
        let (slot, word) = files.slots(number)[0];
        let records = files.all_records();
        let stranger = records.iter().find(|record| record.table == 0 && record.kind == 1).unwrap();
        let other = word & !((1 << 39) - 1) | stranger.address;
        files.edit_page(number, |page| put(page, 64 + 8 * slot as usize, other));
    });
    about(&report, "record-table", "a");
    // And the record that it should name is missed.
    about(&report, "record-unnamed", "a");
}

#[test]
fn the_count_and_the_extents_of_a_table() {
    let report = damaged(|files| {
        let at = files.meta().table(page_of_a(files).0).at + RECORDS;
        files.edit_page(2, |page| page[at] ^= 1);
    });
    about(&report, "record-count", "a");
    let report = damaged(|files| {
        let meta = files.meta();
        let (own, others) = (meta.table(page_of_a(files).0).at + EXTENTS, meta.primary[0]);
        files.edit_page(2, |page| put(page, own, others));
    });
    assert!(report.findings.iter().any(|finding| finding.kind == "extent-overlap"), "{:#?}", report.findings);
}

/// An open refuses the record, so a check must find it.
#[test]
fn a_record_of_the_tail_whose_table_is_not_there() {
    let dir = crate::common::scratch();
    let path = dir.path().join("s");
    let store = options().open(&path).unwrap();
    store.checkpoint().unwrap();
    store.table("a").unwrap().insert("key", "of the table").unwrap();
    let killed = dir.path().join("killed");
    copy_store(&path, &killed);
    verify_clean(&killed);
    let files = Files::new(&killed);
    let segment = files.segment(1);
    let bytes = std::fs::read(&segment).unwrap();
    let key = bytes.windows(15).position(|bytes| bytes == b"keyof the table").unwrap();
    let at = key as u64 - 12;
    let salt = word(&bytes, 40);
    let record = Record { file: segment, salt, at, address: 0, kind: 1, table: 2, len: 27, value_at: 0, key: vec![] };
    files.edit_record(&record, |bytes| bytes[8] = 9);
    let report = verify(&killed);
    let found = finding(&report, "table-unknown");
    assert_eq!((found.offset, found.found.as_str()), (Some(at), "table 9"));
    assert!(!report.is_clean() && options().open(&killed).is_err());
}

/// Two tables with the same key, and a slot of one that names the record of the other. Every checksum is right.
fn crossed(path: &std::path::Path) -> tophash::Store {
    let store = options().open(path).unwrap();
    store.insert("key", "of the main table").unwrap();
    store.table("a").unwrap().insert("key", "of table a").unwrap();
    store.close().unwrap();
    let files = Files::new(path);
    let (_, id) = files.catalog_record("a");
    let records = files.all_records();
    let address = |table| records.iter().find(|record| record.table == table && record.key == b"key").unwrap().address;
    let (number, slot) = files.slot_of(address(id)).unwrap();
    let other = files.slots(number).iter().find(|&&(i, _)| i == slot).unwrap().1 & !((1 << 39) - 1) | address(0);
    files.edit_page(number, |page| put(page, 64 + 8 * slot as usize, other));
    about(&verify(path), "record-table", "a");
    options().open(path).unwrap()
}

#[test]
fn an_iteration_never_shows_a_record_of_another_table() {
    let dir = crate::common::scratch();
    let store = crossed(&dir.path().join("s"));
    let table = store.existing_table("a").unwrap();
    let found: Vec<_> = table.iter().collect();
    assert!(matches!(&found[..], [Err(error)] if error.is_corruption()), "{found:?}");
}

#[test]
fn a_lookup_never_answers_with_a_record_of_another_table() {
    let dir = crate::common::scratch();
    let store = crossed(&dir.path().join("s"));
    let found = store.existing_table("a").unwrap().get("key").map(|value| value.map(|value| value.to_vec()));
    assert!(!matches!(&found, Ok(Some(_))), "{found:?}");
}
