//! A store stays the store that was opened, whatever becomes of its path.
//!
//! **What happened.** Every name was resolved by its path, at the moment of the call. A directory was removed and made
//! again while a handle to the old store lived, in a thread that nobody had told. The old handle prepared its next segment,
//! met the new store's file of that name, and unlinked what it took for the rest of its own failed try: 8,000 of 10,000
//! durable records of the new store were gone, without an error. A relative path and a later change of the working
//! directory ended all writes the same way. No layer saw it, because the simulated disk has no second path to anything.

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::Barrier;

use tophash::{Batch, Error, Options, Store, SyncPolicy};

use crate::common::{self, copy_store, open, says, snapshot, tiny_options};
use crate::mounts::Bind;

/// Ordinary pages, small segments and no background threads: what happens, happens in the test's own calls.
fn options() -> Options {
    common::quiet().segment_bytes(64 << 10)
}

fn key(n: u64) -> [u8; 8] {
    n.to_le_bytes()
}

fn fill(store: &Store, count: u64, byte: u8) {
    for start in (0..count).step_by(500) {
        let mut batch = Batch::new();
        (start..count.min(start + 500)).for_each(|n| _ = batch.insert(key(n), [byte; 100]));
        store.apply(&batch).unwrap();
    }
}

/// The store has all its records, and nothing is wrong with its files.
fn whole(path: &Path, count: u64, byte: u8) {
    assert!(tophash::verify::verify(path).unwrap().findings.is_empty(), "{}", path.display());
    let store = open(&options(), path);
    assert_eq!(store.len(), count, "{}", path.display());
    for n in 0..count {
        assert_eq!(store.get(key(n)).unwrap().as_deref(), Some(&[byte; 100][..]), "{n} in {}", path.display());
    }
    store.close().unwrap();
}

/// Removes a store that is open. Its segment thread can make a file in a directory that has just been emptied: then the
/// removal begins again.
fn remove_in_use(path: &Path) {
    while let Err(error) = fs::remove_dir_all(path) {
        assert_eq!(error.kind(), std::io::ErrorKind::DirectoryNotEmpty, "{error}");
    }
}

#[test]
fn an_old_handle_leaves_a_new_store_at_its_path_alone() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    // With background threads and without.
    for old in [options(), Options::new().segment_bytes(64 << 10).sync(SyncPolicy::Manual)] {
        let old = open(&old, &path);
        fill(&old, 2000, 1);
        old.insert("large", vec![1; 1 << 20]).unwrap();
        remove_in_use(&path);
        let new = open(&options(), &path);
        fill(&new, 3000, 7);
        new.sync().unwrap();
        let before = snapshot(&path);
        // The first error is of the directory; with it the store is not poisoned, and does not heal either.
        let error = (0..20_000).find_map(|n| old.insert(key(n % 2000), [2; 100]).err()).expect("an error");
        assert!(matches!(error, Error::Removed { .. }), "{error}");
        says(&error, &[path.to_str().unwrap(), "directory was removed"]);
        assert!(matches!(old.insert("large", vec![2; 1 << 20]), Err(Error::Removed { .. })));
        // What is mapped can be read; a value in a file of its own has gone with its name.
        assert_eq!(old.get(key(1999)).unwrap().unwrap().len(), 100);
        let large = old.get("large").err();
        assert!(matches!(large, Some(Error::Removed { .. })), "{large:?}");
        assert!(Options::new().open(&path).is_err_and(|error| matches!(error, Error::Locked { .. })));
        assert!(matches!(old.close(), Err(Error::Removed { .. })));
        assert_eq!(snapshot(&path), before, "the old handle changed the new store");
        new.close().unwrap();
        whole(&path, 3000, 7);
        fs::remove_dir_all(&path).unwrap();
    }
}

/// Files without a name take every write and every sync: a store whose directory was removed closed with Ok, although
/// nothing of it was left. Whoever only read has lost nothing by closing.
#[test]
fn closing_a_removed_store_says_so() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = open(&options(), &path);
    fill(&store, 100, 1);
    fs::remove_dir_all(&path).unwrap();
    store.sync().unwrap();
    let error = store.close().unwrap_err();
    assert!(matches!(error, Error::Removed { .. }), "{error}");
    says(&error, &["close", path.to_str().unwrap(), "directory was removed"]);

    let store = open(&options(), &path);
    fill(&store, 100, 1);
    store.close().unwrap();
    let reader = open(&Options::new().read_only(true), &path);
    fs::remove_dir_all(&path).unwrap();
    reader.close().unwrap();
    assert!(!path.exists());
}

#[test]
fn a_store_moves_with_its_directory() {
    let dir = common::scratch();
    let (path, moved) = (dir.path().join("store"), dir.path().join("moved"));
    let store = open(&options(), &path);
    fill(&store, 2000, 1);
    fs::rename(&path, &moved).unwrap();
    let other = open(&options(), &path);
    fill(&other, 500, 7);
    other.close().unwrap();
    let before = snapshot(&path);
    // Segments, checkpoints, freed segments, a value in a file of its own: everything that has a name.
    for round in 2..6 {
        fill(&store, 2000, round);
        store.insert("large", vec![round; 1 << 20]).unwrap();
        store.compact().unwrap();
        store.checkpoint().unwrap();
    }
    store.clear().unwrap();
    fill(&store, 2000, 9);
    assert!(store.disk_bytes().unwrap() > 200_000);
    store.close().unwrap();
    assert_eq!(snapshot(&path), before, "the moved store was looked for by its old name");
    whole(&moved, 2000, 9);
}

#[test]
fn an_offline_compaction_stays_with_the_store_that_it_opened() {
    let dir = common::scratch();
    let (path, moved) = (dir.path().join("store"), dir.path().join("moved"));
    let store = open(&options(), &path);
    // Enough that the compaction tells of its progress while it writes.
    fill(&store, 20_000, 0);
    fill(&store, 17_000, 1);
    store.remove_many(&(17_000..20_000).map(key).collect::<Vec<_>>()).unwrap();
    store.close().unwrap();
    let mut before = None;
    let report = tophash::compact::compact_with(&path, &tophash::compact::Options::new(), |progress| {
        // In the second half the store is open and locked.
        if progress.done > progress.total / 2 && before.is_none() {
            fs::rename(&path, &moved).unwrap();
            copy_store(&moved, &path);
            let _ = fs::remove_dir_all(path.join("compact.tmp"));
            before = Some(snapshot(&path));
        }
        ControlFlow::Continue(())
    });
    let report = report.unwrap();
    assert!(report.switched && before.is_some());
    assert_eq!(before.unwrap(), snapshot(&path), "the compaction went to another store");
    whole(&moved, 17_000, 1);
    assert!(!moved.join("compact.tmp").exists());
}

/// Not a test: the child of the next one.
#[test]
fn child_that_changes_its_directory() {
    if std::env::var_os("TOPHASH_TEST_CHDIR").is_none() {
        return;
    }
    let store = open(&options(), Path::new("relative"));
    let all = std::env::current_dir().unwrap().join("relative");
    std::env::set_current_dir("/").unwrap();
    fill(&store, 5000, 3);
    store.checkpoint().unwrap();
    let error = Options::new().open(&all).unwrap_err();
    says(&error, &[all.to_str().unwrap(), "this process already"]);
    fs::write(all.join("log-1/0000000000000001.blob"), "taken").unwrap();
    says(&store.insert("large", vec![3; 1 << 20]).unwrap_err(), &[all.to_str().unwrap()]);
    fs::remove_file(all.join("log-1/0000000000000001.blob")).unwrap();
    store.close().unwrap();
}

#[test]
fn a_relative_path_may_lead_elsewhere_later() {
    let dir = common::scratch();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "moved::child_that_changes_its_directory", "--test-threads=1"])
        .env("TOPHASH_TEST_CHDIR", "1")
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    whole(&dir.path().join("relative"), 5000, 3);
}

#[test]
fn a_bind_mount_may_go_away() {
    let dir = common::scratch();
    let (path, point) = (dir.path().join("store"), dir.path().join("bound"));
    open(&options(), &path).close().unwrap();
    fs::create_dir(&point).unwrap();
    let Ok(bind) = Bind::new(&path, &point).inspect_err(|why| println!("skipped: {why}")) else { return };
    let store = open(&options(), &point);
    fill(&store, 1000, 1);
    bind.detach();
    assert_eq!(fs::read_dir(&point).unwrap().count(), 0);
    fill(&store, 3000, 4);
    store.checkpoint().unwrap();
    assert_eq!(fs::read_dir(&point).unwrap().count(), 0, "something was made below the mount point");
    assert!(matches!(Options::new().open(&path), Err(Error::Locked { .. })));
    store.close().unwrap();
    whole(&path, 3000, 4);
}

/// **Unlinked what it had not made.** A segment or a blob whose name was taken: the failed creation was followed by an
/// unlink of that name. Each failed try took a further sequence number, too.
#[test]
fn a_name_that_is_taken_is_an_error_and_stays() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = open(&tiny_options(), &path);
    let (segment, blob) = (path.join("log-1/00000002.log"), path.join("log-1/0000000000000001.blob"));
    for file in [&segment, &blob] {
        fs::write(file, "somebody's").unwrap();
    }
    let mut errors = vec![store.insert("large", [1; 5000]).unwrap_err()];
    store.insert("large", [1; 5000]).unwrap();
    let mut all = 0u32;
    for _ in 0..3 {
        errors.push(loop {
            match store.insert(all.to_le_bytes(), [1; 100]) {
                Ok(_) => all += 1,
                Err(error) => break error,
            }
        });
    }
    for (n, error) in errors.iter().enumerate() {
        let Error::Io { action: "create", path, source, .. } = error else { panic!("{error}") };
        assert_eq!(path, if n == 0 { &blob } else { &segment });
        assert_eq!(source.kind(), std::io::ErrorKind::AlreadyExists);
    }
    for file in [&segment, &blob] {
        assert_eq!(fs::read(file).unwrap(), b"somebody's", "{}", file.display());
        fs::remove_file(file).unwrap();
    }
    store.insert(all.to_le_bytes(), [1; 100]).unwrap();
    assert!(segment.exists(), "a sequence number was passed over");
    store.close().unwrap();
    assert_eq!(open(&tiny_options(), &path).len(), u64::from(all) + 2);
}

/// A file of somebody's called "journal" was taken for the rest of an interrupted creation, and removed.
#[test]
fn creation_removes_only_what_a_creation_has_left() {
    for name in ["journal", "index.new"] {
        let dir = common::scratch();
        let path = dir.path().join("store");
        fs::create_dir(&path).unwrap();
        fs::write(path.join(name), "a diary").unwrap();
        let error = Options::new().open(&path).unwrap_err();
        says(&error, &["create", path.join(name).to_str().unwrap()]);
        assert_eq!(fs::read(path.join(name)).unwrap(), b"a diary");
        // What was allocated, and not yet written.
        fs::write(path.join(name), [0; 9000]).unwrap();
        open(&options(), &path).close().unwrap();
    }
}

/// Of several openers of a path where nothing is, one creates the store. The others were told of whatever stood half-made
/// at the time: "no store", "the directory exists", "the directory holds no index, but an index".
#[test]
fn one_of_many_creators_creates() {
    const OPENERS: usize = 4;
    let dir = common::scratch();
    for round in 0..40 {
        let path = dir.path().join(format!("store-{round}"));
        let (begin, end) = (Barrier::new(OPENERS), Barrier::new(OPENERS));
        let create_new = round % 2 == 1;
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let opener = || {
                begin.wait();
                let store = tiny_options().create_new(create_new).open(&path);
                // Whoever has it keeps it until all have tried.
                end.wait();
                store.map(|store| store.close().unwrap())
            };
            let openers: Vec<_> = (0..OPENERS).map(|_| scope.spawn(opener)).collect();
            openers.into_iter().map(|opener| opener.join().unwrap()).collect()
        });
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
        for error in outcomes.into_iter().filter_map(Result::err) {
            let expected = matches!(error, Error::Locked { reading: false, .. })
                || (create_new && matches!(error, Error::AlreadyExists { .. }));
            assert!(expected, "{error}");
        }
        assert!(tophash::verify::verify(&path).unwrap().findings.is_empty());
    }
}

/// A directory that is a name for the store, and not the store's own, is none of its business.
#[test]
fn a_handle_holds_one_directory() {
    let dir = common::scratch();
    let (path, link) = (dir.path().join("store"), dir.path().join("link"));
    std::os::unix::fs::symlink("store", &link).unwrap();
    fs::create_dir(&path).unwrap();
    let store = open(&options(), &link);
    // The link leads elsewhere now.
    fs::remove_file(&link).unwrap();
    fs::create_dir(dir.path().join("other")).unwrap();
    std::os::unix::fs::symlink("other", &link).unwrap();
    fill(&store, 2000, 5);
    store.close().unwrap();
    assert_eq!(fs::read_dir(dir.path().join("other")).unwrap().count(), 0);
    assert!(fs::metadata(path.join("index")).unwrap().size() > 0);
    whole(&path, 2000, 5);
}
