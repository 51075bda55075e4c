//! Stores with several tables: each is saved under its name, with an index or from the log alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;
use tophash::repair::Report;
use tophash::{Options, Store, Table};

use crate::stores::{Contents, scratch};
use crate::support::*;

/// What the tables of a store hold, the main one under the empty name.
type All = BTreeMap<String, Contents>;

fn contents(table: &Table) -> Contents {
    table.iter().map(|entry| entry.map(|e| (e.key().to_vec(), e.value().to_vec())).unwrap()).collect()
}

fn all(store: &Store) -> All {
    let of = |name: String| {
        let table = store.existing_table(&name).unwrap();
        (name, contents(&table))
    };
    let tables = store.tables().unwrap().into_iter().map(of);
    std::iter::once((String::new(), contents(store))).chain(tables).collect()
}

/// Stores at rest: closed, killed behind the last checkpoint, killed with a checkpoint in the middle and compacted.
fn stores() -> &'static [(PathBuf, All)] {
    static STORES: OnceLock<(TempDir, Vec<(PathBuf, All)>)> = OnceLock::new();
    let made = STORES.get_or_init(|| {
        let dir = scratch();
        let mut stores = Vec::new();
        for (name, checkpoint_before) in [("closed", 3), ("killed early", 2), ("killed late", 9), ("compacted", 5)] {
            let path = dir.path().join(name);
            let store = store_with_tables(&dir.path().join("made"), checkpoint_before);
            if name == "compacted" {
                store.compact().unwrap();
                store.checkpoint().unwrap();
            }
            let expected = all(&store);
            if name != "closed" {
                copy_store(&dir.path().join("made"), &path);
            }
            store.close().unwrap();
            if name == "closed" {
                copy_store(&dir.path().join("made"), &path);
            }
            fs::remove_dir_all(dir.path().join("made")).unwrap();
            stores.push((path, expected));
        }
        (dir, stores)
    });
    &made.1
}

/// A copy of a store, damaged and repaired.
#[track_caller]
fn repair(path: &Path, damage: impl FnOnce(&Files)) -> (Report, All) {
    let dir = scratch();
    let (copy, new) = (dir.path().join("s"), dir.path().join("new"));
    copy_store(path, &copy);
    damage(&Files::new(&copy));
    let disk = crate::watch::Watched::default();
    let report = tophash::repair::repair_disk(&disk, &copy, &new, &options(), tophash::Progress::ignore).unwrap();
    let checked = verify_clean(&new);
    assert_eq!((checked.live_slots, checked.tables), (report.keys, report.tables));
    let store = Options::new().read_only(true).create(false).open(&new).unwrap();
    let found = all(&store);
    assert_eq!(found.values().map(|contents| contents.len() as u64).sum::<u64>(), report.keys);
    (report, found)
}

fn without_index(files: &Files) {
    fs::remove_file(files.index()).unwrap();
}

#[test]
fn every_table_is_saved_under_its_name() {
    for (path, expected) in stores() {
        for with_index in [true, false] {
            println!("{}, with an index: {with_index}", path.display());
            let (report, found) = repair(path, |files| {
                if !with_index {
                    without_index(files)
                }
            });
            assert!(found == *expected, "{report:#?}");
            // Without an index, a segment that was freed looks like one that is lost.
            let gaps = report.losses.iter().filter(|loss| loss.kind == "segment-gap").count() as u64;
            assert_eq!((report.losses_total, report.lost_keys_total), (gaps, 0), "{report:#?}");
            assert!(report.lost_tables.is_empty(), "{report:#?}");
            assert_eq!(report.tables, 3);
            if !path.ends_with("compacted") {
                assert!(report.records_left_out > 100 && report.is_complete(), "dropped and cleared: {report:#?}");
            }
        }
    }
}

/// The live record of a key in a table.
fn live(files: &Files, table: u32, key: &[u8]) -> Record {
    let records = files.all_records();
    let is_it = |record: &&Record| record.table == table && record.kind == 1 && record.key == key;
    records.iter().rfind(is_it).expect("the record").clone()
}

#[test]
fn a_lost_key_is_named_with_its_table() {
    let (path, expected) = &stores()[0];
    for with_index in [true, false] {
        let (report, found) = repair(path, |files| {
            let (_, id) = files.catalog_record("a");
            let record = live(files, id, &45u32.to_le_bytes());
            files.damage(&record.file, record.value_at, &[0x55]);
            if !with_index {
                without_index(files);
            }
        });
        assert_eq!((report.losses_total, report.lost_keys_total), (1, 1), "{report:#?}");
        let lost = &report.lost_keys[0];
        assert_eq!(
            (lost.table.as_deref(), lost.key.as_str(), lost.older_value_kept),
            (Some("a"), "-\\x00\\x00\\x00", false)
        );
        assert_eq!(report.index_entries_lost, with_index.then_some(1));
        let mut expected = expected.clone();
        expected.get_mut("a").unwrap().remove(&45u32.to_le_bytes()[..]);
        assert!(found == expected, "{report:#?}");
    }
}

#[test]
fn a_damaged_record_of_a_table_that_is_gone_costs_nothing() {
    let (path, expected) = &stores()[0];
    let (report, found) = repair(path, |files| {
        let records = files.all_records();
        // The first table of that name was dropped.
        let dropped = records.iter().find(|record| record.table == 4 && record.kind == 1).unwrap();
        files.damage(&dropped.file, dropped.at + 12, &[0x55]);
    });
    assert_eq!(
        (report.losses_total, report.lost_keys_total, report.index_entries_lost),
        (1, 0, Some(0)),
        "{report:#?}"
    );
    assert!(found == *expected && report.lost_tables.is_empty(), "{report:#?}");
}

#[test]
fn a_table_whose_name_is_lost_is_saved_under_another() {
    let (path, expected) = &stores()[0];
    for with_index in [true, false] {
        let mut id = 0;
        let (report, found) = repair(path, |files| {
            let (record, of_a) = files.catalog_record("a");
            id = of_a;
            files.damage(&record.file, record.value_at, &[0x55]);
            if !with_index {
                without_index(files);
            }
        });
        let name = format!("lost table {id}");
        let mut expected = expected.clone();
        let content = expected.remove("a").unwrap();
        let records = content.len() as u64;
        expected.insert(name.clone(), content);
        assert!(found == expected, "{:?} {report:#?}", found.keys());
        let lost = &report.lost_tables[..];
        assert_eq!((lost.len(), lost[0].id, &lost[0].saved_as, lost[0].records), (1, u64::from(id), &name, records));
        // And the name itself is among the lost keys.
        let lost = &report.lost_keys[0];
        assert_eq!((lost.table.as_deref(), lost.key.as_str(), report.lost_keys_total), (Some("(catalog)"), "a", 1));
        assert!(!report.is_complete());
    }
}

/// The last clearing is lost: what the catalog said before counts, and the report says so.
#[test]
fn a_lost_clearing_brings_back_what_was_cleared() {
    let dir = scratch();
    let path = dir.path().join("s");
    let store = options().open(&path).unwrap();
    let table = store.table("t").unwrap();
    table.insert("k", "v").unwrap();
    table.clear().unwrap();
    store.insert("behind", "it").unwrap();
    store.close().unwrap();
    let (report, found) = repair(&path, |files| {
        let (record, _) = files.catalog_record("t");
        files.damage(&record.file, record.value_at + 9, &[0x55]);
    });
    assert_eq!(found["t"].len(), 1, "{report:#?}");
    let lost = &report.lost_keys[0];
    assert_eq!((lost.table.as_deref(), lost.key.as_str(), lost.older_value_kept), (Some("(catalog)"), "t", true));
}
