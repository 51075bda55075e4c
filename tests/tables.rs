//! Tables: each a map of its own, all of them one store. What a handle may do, what survives a close and a kill, what is told of
//! bad names and dropped tables, and that what a table took comes back.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::{bytes, eventually, open, scratch};
use tophash::{Batch, Error, Options, Store, Table, Tuning};

type Content = BTreeMap<Vec<u8>, Vec<u8>>;

fn contents(table: &Table) -> Content {
    let mut found = Content::new();
    for entry in table {
        let entry = entry.expect("iterate");
        assert!(found.insert(entry.key().to_vec(), entry.value().to_vec()).is_none(), "{entry:?} came twice");
    }
    assert_eq!(found.len() as u64, table.len(), "{:?}", table.name());
    found
}

/// Everything in a store: the main table under the empty name.
fn all(store: &Store) -> BTreeMap<String, Content> {
    let names = store.tables().unwrap();
    let tables = names.into_iter().map(|name| {
        let content = contents(&store.existing_table(&name).unwrap());
        (name, content)
    });
    std::iter::once((String::new(), contents(store))).chain(tables).collect()
}

fn fill(table: &Table, keys: std::ops::Range<u64>, len: usize) {
    for n in keys {
        table.insert(n.to_le_bytes(), bytes(len, n)).unwrap();
    }
}

/// The files as a kill leaves them, opened.
fn killed(store: &Store, copy: &Path) -> Store {
    common::copy_store(store.path(), copy);
    open(&common::tiny_options(), copy)
}

fn verify(path: &Path) {
    let report = tophash::verify::verify(path).unwrap();
    assert!(report.is_clean(), "{report:#?}");
}

#[test]
fn tables_are_maps_of_their_own() {
    let dir = scratch();
    let path = dir.path().join("s");
    let store = open(&common::tiny_options(), &path);
    let (a, b) = (store.table("a").unwrap(), store.table("b").unwrap());
    fill(&store, 0..300, 10);
    fill(&a, 100..2_000, 20);
    fill(&b, 0..50, 300);
    assert_eq!((store.len(), a.len(), b.len()), (300, 1_900, 50));
    for n in 0..300u64 {
        assert_eq!(store.get(n.to_le_bytes()).unwrap().unwrap(), bytes(10, n));
        let found = a.get(n.to_le_bytes()).unwrap();
        assert_eq!(found.map(|value| value.to_vec()), (n >= 100).then(|| bytes(20, n)));
    }
    assert!(a.delete(100u64.to_le_bytes()).unwrap() && !b.delete(100u64.to_le_bytes()).unwrap());
    b.clear().unwrap();
    assert_eq!((store.len(), a.len(), b.len()), (300, 1_899, 0));
    b.insert("k", "v").unwrap();
    let expected = all(&store);
    assert_eq!(store.tables().unwrap(), ["a", "b"]);
    assert_eq!(all(&killed(&store, &dir.path().join("killed"))), expected);
    verify(&dir.path().join("killed"));
    store.close().unwrap();
    assert!(matches!(a.get("k"), Err(Error::Closed { .. })));
    verify(&path);
    let again = open(&common::tiny_options().read_only(true), &path);
    assert_eq!(all(&again), expected);
    assert!(matches!(again.table("c"), Err(Error::NoSuchTable { .. })));
    assert!(matches!(again.table("a").unwrap().insert("x", "y"), Err(Error::ReadOnly { .. })));
}

/// Each step is followed by a kill, with and without a checkpoint between.
#[test]
fn what_became_of_tables_survives_a_kill() {
    for checkpoint_after in 0..9 {
        let dir = scratch();
        let store = open(&common::tiny_options(), &dir.path().join("s"));
        let mut step = 0;
        let mut check = |store: &Store| {
            if step == checkpoint_after {
                store.checkpoint().unwrap();
            }
            step += 1;
            let copy = dir.path().join(format!("killed-{step}"));
            let expected = all(store);
            let again = killed(store, &copy);
            assert_eq!(all(&again), expected, "step {step}");
            again.close().unwrap();
            verify(&copy);
            assert_eq!(all(&open(&common::tiny_options(), &copy)), expected, "step {step}, closed");
        };
        let a = store.table("a").unwrap();
        check(&store);
        fill(&a, 0..500, 30);
        fill(&store, 0..100, 5);
        check(&store);
        a.clear().unwrap();
        check(&store);
        fill(&a, 400..450, 30);
        let b = store.table("b").unwrap();
        fill(&b, 0..200, 30);
        check(&store);
        store.clear().unwrap();
        check(&store);
        assert!(store.drop_table("a").unwrap());
        check(&store);
        let a = store.table("a").unwrap();
        fill(&a, 0..20, 100);
        check(&store);
        assert!(store.drop_table("b").unwrap());
        fill(&store, 7..9, 100);
        check(&store);
    }
}

#[test]
fn a_batch_spans_tables() {
    let dir = scratch();
    let store = open(&common::tiny_options(), &dir.path().join("s"));
    let (a, b) = (store.table("a").unwrap(), store.table("b").unwrap());
    b.insert("gone", "1").unwrap();
    let large = vec![7; 600 << 10];
    let mut batch = Batch::new();
    batch.table(&a).insert("k", "of a").insert("twice", "1").insert("twice", "2");
    batch.insert("k", "of the applied one");
    batch.table(&b).insert("k", &large).remove("gone").remove("never there");
    store.apply(&batch).unwrap();
    let of = |table: &Table, key: &str| table.get(key).unwrap().map(|value| value.to_vec());
    assert_eq!(of(&store, "k").unwrap(), b"of the applied one");
    assert_eq!((of(&a, "k").unwrap(), of(&a, "twice").unwrap()), (b"of a".to_vec(), b"2".to_vec()));
    assert_eq!((of(&b, "k").unwrap(), of(&b, "gone")), (large, None));
    // The changes that name no table are those of the table that it is applied to.
    b.apply(&batch).unwrap();
    assert_eq!(of(&b, "k").unwrap().len(), 600 << 10);
    let c = store.table("c").unwrap();
    c.apply(&batch).unwrap();
    assert_eq!((of(&c, "k").unwrap(), c.len()), (b"of the applied one".to_vec(), 1));
    // One that names the main table stays with it.
    let mut of_main = Batch::new();
    of_main.table(&store).insert("only here", "1").remove("k");
    of_main.insert("only there", "2");
    c.apply(&of_main).unwrap();
    assert_eq!(
        (of(&store, "only here").unwrap(), of(&store, "k"), of(&store, "only there")),
        (b"1".to_vec(), None, None)
    );
    assert_eq!((of(&c, "only here"), of(&c, "only there").unwrap()), (None, b"2".to_vec()));
    let many: Batch = (0..3_000u64).map(|n| (n.to_le_bytes(), bytes(9, n))).collect();
    c.apply(&many).unwrap();
    assert_eq!((c.len(), store.len()), (3_002, 1));
    let expected = all(&store);
    assert_eq!(all(&killed(&store, &dir.path().join("killed"))), expected);
}

#[test]
fn bad_names_and_dropped_tables_are_told() {
    let dir = scratch();
    let store = open(&common::tiny_options(), &dir.path().join("s"));
    let long = "x".repeat(256);
    for name in ["", &long] {
        assert!(matches!(store.table(name), Err(Error::InvalidTableName { .. })), "{name:?}");
    }
    store.table(&long[1..]).unwrap();
    store.table("ä \u{0} \n").unwrap();
    assert!(matches!(store.existing_table("none"), Err(Error::NoSuchTable { .. })));
    assert!(!store.drop_table("none").unwrap());

    let table = store.table("t").unwrap();
    table.insert("k", vec![1; 100]).unwrap();
    let held = table.get("k").unwrap().unwrap().into_owned();
    let mut iter = table.iter();
    let mut batch = Batch::new();
    batch.insert("main", "1").table(&table).insert("k", "2");
    let other = table.clone();
    assert!(store.drop_table("t").unwrap());
    let dropped = |error: Error| assert!(matches!(error, Error::TableDropped { .. }), "{error}");
    dropped(other.get("k").map(drop).unwrap_err());
    dropped(table.insert("k", "2").map(drop).unwrap_err());
    dropped(table.remove("k").map(drop).unwrap_err());
    dropped(table.remove_many(&["k"]).unwrap_err());
    dropped(table.get_many(&["k"]).map(drop).unwrap_err());
    dropped(table.clear().unwrap_err());
    dropped(table.reserve(10_000).unwrap_err());
    dropped(table.update("k", |_| Some(vec![1])).map(drop).unwrap_err());
    dropped(table.scan(tophash::Cursor::START, 10).map(drop).unwrap_err());
    dropped(table.expire("k", std::time::Duration::from_secs(1)).map(drop).unwrap_err());
    dropped(store.apply(&batch).unwrap_err());
    dropped(iter.next().unwrap().unwrap_err());
    assert!(iter.next().is_none());
    assert_eq!((table.len(), table.name().as_deref(), store.get("main").unwrap().is_none()), (0, Some("t"), true));
    assert_eq!(held, vec![1; 100]);
    // A new one of the name is another one.
    store.table("t").unwrap().insert("k", "new").unwrap();
    dropped(table.get("k").map(drop).unwrap_err());

    let elsewhere = open(&common::tiny_options(), &dir.path().join("elsewhere"));
    let foreign = elsewhere.table("t").unwrap();
    let mut batch = Batch::new();
    batch.table(&foreign).insert("k", "v");
    assert!(matches!(store.apply(&batch), Err(Error::ForeignTable { .. })));
    assert_eq!(store.table("t").unwrap().get("k").unwrap().unwrap(), "new");
}

/// A handle of a dropped table met what the table's pages had become: their blocks are given back, and another table can have
/// them. A read of the handle told of damage, which it was not, instead of the drop.
#[test]
fn a_dropped_table_whose_pages_are_another_ones_is_told() {
    let dir = scratch();
    let path = dir.path().join("s");
    let tuning = Tuning { background: false, ..common::tiny() };
    let options = common::tiny_options().tuning(tuning);
    let store = open(&options, &path);
    fill(&store.table("t").unwrap(), 0..2_000, 20);
    store.close().unwrap();
    // Opened again: no page was read yet, so the handle sees the file's bytes of this moment.
    let store = open(&options, &path);
    let table = store.table("t").unwrap();
    assert!(store.drop_table("t").unwrap());
    store.checkpoint().unwrap();
    fill(&store.table("u").unwrap(), 0..2_000, 20);
    store.checkpoint().unwrap();
    for n in 0..2_000u64 {
        let error = table.get(n.to_le_bytes()).map(drop).unwrap_err();
        assert!(matches!(error, Error::TableDropped { .. }), "{error}");
    }
    assert!(matches!(table.iter().next(), Some(Err(Error::TableDropped { .. }))));
}

/// Handles keep the store open, as clones of it do.
#[test]
fn a_table_keeps_its_store_open() {
    let dir = scratch();
    let path = dir.path().join("s");
    let table = open(&Options::new(), &path).table("t").unwrap();
    table.insert("k", "v").unwrap();
    assert!(matches!(Options::new().open(&path), Err(Error::Locked { .. })));
    table.store().insert("m", "v").unwrap();
    drop(table);
    let store = open(&Options::new(), &path);
    assert_eq!((store.len(), store.table("t").unwrap().len()), (1, 1));
}

/// What a table took comes back when it is dropped or cleared: log, large values, index pages. The pages are used again.
#[test]
fn the_space_of_a_table_comes_back() {
    let dir = scratch();
    let path = dir.path().join("s");
    let tuning = Tuning { background: false, ..common::tiny() };
    let options = Options::new().segment_bytes(256 << 10).tuning(tuning);
    let store = open(&options, &path);
    fill(&store, 0..200, 100);
    let kept = store.table("kept").unwrap();
    fill(&kept, 0..200, 100);
    let mut lengths = Vec::new();
    for round in 0..6u64 {
        let table = store.table("t").unwrap();
        fill(&table, 0..20_000, 100);
        table.insert("large", vec![round as u8; 1 << 20]).unwrap();
        store.checkpoint().unwrap();
        let full = store.disk_bytes().unwrap();
        if round % 2 == 0 {
            assert!(store.drop_table("t").unwrap());
        } else {
            table.clear().unwrap();
            table.shrink_to_fit().unwrap();
        }
        store.checkpoint().unwrap();
        store.compact().unwrap();
        store.checkpoint().unwrap();
        let stats = store.stats();
        assert_eq!((stats.log.blobs, stats.log.freed_blobs), (0, 0), "round {round}");
        assert!(stats.log.bytes < 200 << 10, "round {round}: {:?}", stats.log);
        let left = store.disk_bytes().unwrap();
        assert!(left < full / 4, "round {round}: {left} of {full} bytes");
        lengths.push(std::fs::metadata(path.join("index")).unwrap().len());
    }
    assert!(lengths[5] <= lengths[1], "the index file gets longer and longer: {lengths:?}");
    assert_eq!((contents(&store).len(), contents(&kept).len()), (200, 200));
    let expected = all(&store);
    assert_eq!(all(&killed(&store, &dir.path().join("killed"))), expected);
    store.close().unwrap();
    verify(&path);
}

/// The background jobs do for each table what they do for the main one.
#[test]
fn each_table_grows_and_shrinks_by_itself() {
    let dir = scratch();
    let tuning = Tuning { background: true, ..common::tiny() };
    let store = open(&common::tiny_options().tuning(tuning), &dir.path().join("s"));
    let tables: Vec<Table> = (0..5).map(|n| store.table(&format!("t{n}")).unwrap()).collect();
    std::thread::scope(|scope| {
        for table in &tables {
            scope.spawn(move || fill(table, 0..3_000, 10));
        }
    });
    for table in &tables {
        assert_eq!(contents(table).len(), 3_000);
        eventually("growth", || !table.stats().index.growing);
        assert!(table.stats().index.level > 3);
    }
    let before = tables[2].stats().index.level;
    (10..3_000u64).for_each(|n| assert!(tables[2].delete(n.to_le_bytes()).unwrap()));
    eventually("a smaller table", || tables[2].stats().index.level < before);
    assert_eq!(tables[1].stats().index.level, tables[3].stats().index.level);
    store.close().unwrap();
    verify(&dir.path().join("s"));
}

#[test]
fn a_thousand_tables() {
    let dir = scratch();
    let path = dir.path().join("s");
    let store = open(&Options::new(), &path);
    for n in 0..1_000u64 {
        let table = store.table(&format!("table {n}")).unwrap();
        fill(&table, 0..n % 7, 20);
    }
    let expected = all(&store);
    assert_eq!((expected.len(), store.stats().tables), (1_001, 1_000));
    store.close().unwrap();
    verify(&path);
    let store = open(&Options::new(), &path);
    assert_eq!(all(&store), expected);
    for n in (0..1_000u64).filter(|n| n % 3 > 0) {
        assert!(store.drop_table(&format!("table {n}")).unwrap());
    }
    assert_eq!(store.tables().unwrap().len(), 334);
    store.close().unwrap();
    assert_eq!(open(&Options::new(), &path).stats().tables, 334);
}

/// Makers, droppers, clearers and writers of the same tables meet. Whoever has a table that was dropped is told so.
#[test]
fn tables_come_and_go_beside_writers() {
    let dir = scratch();
    let path = dir.path().join("s");
    let tuning = Tuning { background: true, ..common::tiny() };
    let store = open(&common::tiny_options().tuning(tuning).checkpoint_bytes(64 << 10), &path);
    let steady = store.table("steady").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..3u64 {
            let store = &store;
            scope.spawn(move || {
                for n in 0..300u64 {
                    let name = format!("t{}", (n + thread) % 4);
                    let done = match (n + thread) % 23 {
                        0 => store.drop_table(&name).map(drop),
                        7 => store.table(&name).and_then(|table| table.clear()),
                        11 => store.checkpoint(),
                        _ => store.table(&name).and_then(|table| {
                            let mut batch = Batch::new();
                            (0..20u64)
                                .for_each(|i| _ = batch.table(&table).insert((n * 20 + i).to_le_bytes(), [7; 50]));
                            store.apply(&batch)?;
                            table.remove_many(&[(n * 20).to_le_bytes()])?;
                            table.insert("k", vec![1; 20]).map(drop)
                        }),
                    };
                    match done {
                        Ok(()) | Err(Error::TableDropped { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        fill(&steady, 0..2_000, 40);
    });
    assert_eq!(contents(&steady).len(), 2_000);
    // No copy as a kill leaves it: the background threads work while the files are copied.
    let expected = all(&store);
    store.close().unwrap();
    verify(&path);
    assert_eq!(all(&open(&common::tiny_options(), &path)), expected);
}
