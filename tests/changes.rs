//! The calls that change one key and their errors, and what is about a store's path.

mod common;

use std::cell::Cell;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tophash::{Batch, Error, Options, Store, SyncPolicy};

/// An error of a program.
#[derive(Debug)]
enum Failure {
    Refused,
    Store(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Store(error)
    }
}

fn small(dir: &Path) -> Store {
    Options::new().segment_bytes(64 << 10).sync(SyncPolicy::Manual).open(dir.join("store")).unwrap()
}

#[test]
fn set_and_delete_do_what_insert_and_remove_do() {
    let dir = common::scratch();
    let store = small(dir.path());
    for n in 0..300u32 {
        // Some are too long for a segment.
        let long = common::bytes(if n.is_multiple_of(30) { 20_000 } else { 20 }, n.into());
        store.set(n.to_le_bytes(), &long).unwrap();
        assert_eq!(store.get(n.to_le_bytes()).unwrap().unwrap(), long);
        store.set(n.to_le_bytes(), b"short").unwrap();
        assert_eq!(store.insert(n.to_le_bytes(), &long).unwrap().unwrap(), "short");
    }
    assert_eq!((store.len(), store.stats().log.blobs), (300, 10));
    let dead = store.stats().log.dead_bytes;
    for n in (0..400u32).step_by(2) {
        assert_eq!(store.delete(n.to_le_bytes()).unwrap(), n < 300);
        assert!(store.get(n.to_le_bytes()).unwrap().is_none());
        assert!(!store.delete(n.to_le_bytes()).unwrap());
    }
    let stats = store.stats();
    assert_eq!((store.len(), stats.log.blobs, stats.log.freed_blobs >= 10), (150, 0, true));
    assert!(stats.log.dead_bytes > dead);
    let contents = common::contents(&store);
    store.close().unwrap();
    assert!(tophash::verify::verify(dir.path().join("store")).unwrap().is_clean());
    assert!(common::contents(&small(dir.path())) == contents);
}

#[test]
fn set_and_delete_refuse_what_insert_and_remove_refuse() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = Store::open(&path).unwrap();
    let long = vec![0; 65_536];
    assert!(matches!(store.set(&long, ""), Err(Error::KeyTooLong { len: 65_536, limit: 65_535, .. })));
    assert!(matches!(store.delete(&long), Err(Error::KeyTooLong { .. })));
    store.close().unwrap();
    let store = Options::new().read_only(true).open(&path).unwrap();
    assert!(matches!(store.set("a", ""), Err(Error::ReadOnly { .. })));
    assert!(matches!(store.delete("a"), Err(Error::ReadOnly { .. })));
}

/// What nobody reads cannot be in the way: a rotten value is replaced, a large value whose file is gone too. A rotten link
/// is refused, because it could name the file of another key.
#[test]
fn set_and_delete_do_not_read_the_old_value() {
    for delete in [false, true] {
        let dir = common::scratch();
        let path = dir.path().join("store");
        let store = small(dir.path());
        store.set("rotten", "a value of this test").unwrap();
        store.set("gone", vec![1; 100_000]).unwrap();
        store.set("linked", vec![2; 100_000]).unwrap();
        store.close().unwrap();
        let log = common::segments(&path).pop().unwrap();
        let at = common::find_bytes(&log, b"a value of this test").unwrap();
        common::flip_bit(&log, at + 3, 1);
        let at = common::find_bytes(&log, b"linked").unwrap();
        common::flip_bit(&log, at + 7, 0);
        let blob = std::fs::read_dir(log.parent().unwrap()).unwrap();
        let blob = blob.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "blob"));
        std::fs::remove_file(blob.min().expect("a file for each large value")).unwrap();

        let store = small(dir.path());
        for key in ["rotten", "gone", "linked"] {
            assert!(store.insert(key, "new").unwrap_err().is_corruption(), "{key}");
            assert!(store.remove(key).unwrap_err().is_corruption(), "{key}");
        }
        let change = |key| if delete { store.delete(key).map(|was| assert!(was)) } else { store.set(key, "new") };
        change("rotten").unwrap();
        change("gone").unwrap();
        assert!(change("linked").unwrap_err().is_corruption());
        for key in ["rotten", "gone"] {
            assert_eq!(store.get(key).unwrap().as_deref(), (!delete).then_some(&b"new"[..]));
        }
        assert_eq!(store.len(), if delete { 1 } else { 3 });
    }
}

#[test]
fn a_function_that_fails_changes_nothing() {
    let dir = common::scratch();
    let store = Store::open(dir.path().join("store")).unwrap();
    let before = store.stats().log.end_lsn;
    let refuse = |_: Option<&[u8]>| Err(Failure::Refused);
    assert!(matches!(store.try_update("a", refuse), Err(Failure::Refused)));
    assert!(matches!(store.try_get_or_insert_with("a", || Err::<&str, _>(Failure::Refused)), Err(Failure::Refused)));
    assert_eq!((store.stats().log.end_lsn, store.len()), (before, 0));

    let made = store.try_get_or_insert_with("a", || Ok::<_, Failure>("1")).unwrap();
    assert_eq!(made, "1");
    let there = store.try_get_or_insert_with("a", || Err::<&str, _>(Failure::Refused)).unwrap();
    assert_eq!(there, "1");
    assert!(matches!(store.try_update("a", refuse), Err(Failure::Refused)));
    assert_eq!(store.get("a").unwrap().unwrap(), "1");
    let updated = store.try_update("a", |old| Ok::<_, Failure>(old.map(|old| [old, b"2"].concat()))).unwrap();
    assert_eq!(updated.unwrap(), "12");
    assert!(store.try_update("a", |_| Ok::<_, Failure>(None)).unwrap().is_none());
    assert!(store.is_empty());

    // The second try fails: the change of the other stays.
    let tries = Cell::new(0);
    let outcome = store.try_update("a", |_| {
        tries.set(tries.get() + 1);
        if tries.get() == 1 {
            store.set("a", "of another").map_err(Failure::Store)?;
            return Ok(Some(b"lost".to_vec()));
        }
        Err(Failure::Refused)
    });
    assert!(matches!(outcome, Err(Failure::Refused)) && tries.get() == 2);
    assert_eq!(store.get("a").unwrap().unwrap(), "of another");

    let long = vec![0; 65_536];
    let too_long = store.try_update(&long, |_| Ok::<_, Failure>(Some(Vec::new())));
    assert!(matches!(too_long, Err(Failure::Store(Error::KeyTooLong { .. }))));
    let too_long = store.try_get_or_insert_with(&long, || Ok::<_, Failure>(""));
    assert!(matches!(too_long, Err(Failure::Store(Error::KeyTooLong { .. }))));
}

#[test]
fn a_refused_exchange_tells_what_is_there() {
    let dir = common::scratch();
    let store = Store::open(dir.path().join("store")).unwrap();
    let absent = store.compare_exchange("a", Some(b"1"), Some(b"2")).unwrap().unwrap_err();
    assert_eq!((&absent.current, absent.to_string().contains("absent")), (&None, true));
    store.set("a", "of another").unwrap();
    let refused = store.compare_exchange("a", Some(b"1"), Some(b"2")).unwrap().unwrap_err();
    store.close().unwrap();
    assert_eq!(refused.current.as_deref(), Some(&b"of another"[..]));
    let refused: Box<dyn std::error::Error + Send + Sync> = refused.into();
    assert_eq!(refused.to_string(), "the key has a value of 10 bytes instead of the expected one");
}

#[test]
fn parents_are_created_on_request() {
    let dir = common::scratch();
    let path = dir.path().join("one/two/three/store");
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(&error, Error::Io { path: told, .. } if *told == path), "{error}");
    assert!(!dir.path().join("one").exists());
    let parents = Options::new().create_parents(true);
    // Nothing is made where no store may be.
    for options in [parents.clone().create(false), parents.clone().read_only(true)] {
        assert!(matches!(options.open(&path), Err(Error::NotFound { .. })));
        assert!(!dir.path().join("one").exists());
    }
    let store = parents.clone().mode(0o640).open(&path).unwrap();
    assert_eq!(store.path(), path);
    store.set("a", "1").unwrap();
    store.close().unwrap();
    for made in ["one", "one/two", "one/two/three", "one/two/three/store"] {
        let mode = std::fs::metadata(dir.path().join(made)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777 & !0o750, 0, "{made}: {mode:o}");
    }
    // An existing one is opened as ever; a file in the way is an error that names it.
    assert_eq!(parents.open(&path).unwrap().len(), 1);
    let file = dir.path().join("one/file");
    std::fs::write(&file, "").unwrap();
    let error = parents.open(file.join("two/store")).unwrap_err();
    assert!(matches!(&error, Error::Io { source, .. } if source.kind() == ErrorKind::NotADirectory), "{error}");
    assert!(error.to_string().contains("one/file"), "{error}");
}

#[test]
fn the_path_of_a_store_is_absolute() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let relative = Path::new(dir.path().file_name().unwrap()).join("a/store");
    let store = Options::new().create_parents(true).open(&relative).unwrap();
    assert_eq!(store.path(), std::env::current_dir().unwrap().join(&relative));
}

#[test]
fn the_bytes_of_a_batch_are_those_that_it_takes() {
    let dir = common::scratch();
    let store = Store::open(dir.path().join("store")).unwrap();
    let mut batch = Batch::new();
    assert_eq!(batch.bytes(), 0);
    for n in 0..100u32 {
        batch.insert(n.to_le_bytes(), vec![7; n as usize]).remove((1000 + n).to_le_bytes());
    }
    let before = store.stats().log.bytes;
    store.apply(&batch).unwrap();
    assert_eq!(store.stats().log.bytes - before, batch.bytes());
    assert!(batch.bytes() < Batch::BYTES_MAX);
    batch.clear();
    assert_eq!(batch.bytes(), 0);
}

#[test]
fn operations_are_counted_once_each() {
    let dir = common::scratch();
    let options = common::tiny_options().segment_bytes(16 << 10).checkpoint_bytes(1 << 30);
    let store = options.open(dir.path().join("store")).unwrap();
    store.insert("a", "1").unwrap();
    store.insert("a", "2").unwrap();
    store.set("b", "1").unwrap();
    store.update("b", |_| Some(b"2".to_vec())).unwrap();
    store.get_or_insert_with("c", || "1").unwrap();
    store.get_or_insert_with("c", || "2").unwrap();
    assert!(store.compare_exchange("c", None, Some(b"3")).unwrap().is_err());
    assert!(store.compare_exchange("c", Some(b"1"), None).unwrap().is_ok());
    store.remove("c").unwrap();
    assert!(store.delete("b").unwrap() && !store.delete("b").unwrap());
    let mut batch = Batch::new();
    store.apply(&batch).unwrap();
    batch.insert("a", "3").insert("d", "1").insert("d", "2").remove("nothing").insert("e", "1").remove("a");
    store.apply(&batch).unwrap();
    assert_eq!(store.remove_many(&["d", "e", "f"]).unwrap(), 2);
    let changes = |store: &Store| {
        let operations = store.stats().operations;
        (operations.inserts, operations.replaced, operations.removes, operations.batches)
    };
    assert_eq!(changes(&store), (5, 2, 5, 1));

    // Records that are moved or replayed were asked for once; pages are divided and merged without anybody's change.
    for n in 0..5000u32 {
        store.set(n.to_le_bytes(), [7; 50]).unwrap();
    }
    (0..5000u32).filter(|n| n % 3 > 0).for_each(|n| assert!(store.delete(n.to_le_bytes()).unwrap()));
    store.compact().unwrap();
    assert!(store.stats().compaction.moved_records > 0 && store.stats().index.splits > 0);
    assert_eq!(changes(&store), (5005, 2, 5 + 3333, 1));
    store.clear().unwrap();
    assert_eq!(changes(&store), (5005, 2, 5 + 3333, 1));

    store.set("a", "1").unwrap();
    let before = store.stats().operations;
    assert!(store.get("a").unwrap().is_some() && store.get("b").unwrap().is_none() && store.contains_key("a").unwrap());
    assert_eq!(store.get_many(&["a", "b", "c", "a"]).unwrap().iter().flatten().count(), 2);
    let now = store.stats().operations;
    let reads = (now.hits - before.hits, now.misses - before.misses);
    assert_eq!(reads, if cfg!(feature = "metrics") { (4, 3) } else { (0, 0) });
    let copy = dir.path().join("copy");
    common::copy_store(&dir.path().join("store"), &copy);
    let recovered = options.open(&copy).unwrap();
    assert!(recovered.stats().recovery.replayed_records > 0);
    assert_eq!(recovered.stats().operations, Default::default());
}
