//! Hostile names: links, pipes and foreign files in the place of a store's own. Whatever they lead to stays as it is.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode};
use tophash::{Error, Options};

use crate::common::{self, copy_store, open, snapshot};

const SECRET: &[u8] = b"somebody else's bytes";

fn kept(path: &Path) {
    assert_eq!(fs::read(path).unwrap(), SECRET, "{} was written to", path.display());
}

/// A file and a directory of somebody else's. The directory holds files with names such as ours.
fn victims(dir: &Path) -> (PathBuf, PathBuf) {
    let (file, directory) = (dir.join("victim"), dir.join("victims"));
    fs::write(&file, SECRET).unwrap();
    fs::create_dir(&directory).unwrap();
    for name in ["00000001.log", "0000000000000001.blob", "LOCK", "index", "journal", "index.new"] {
        fs::write(directory.join(name), SECRET).unwrap();
    }
    (file, directory)
}

/// Creation in a directory that somebody has prepared.
#[test]
fn creation_follows_no_link() {
    for name in ["LOCK", "journal", "index.new", "index", "log-1"] {
        for target in ["victim", "victims", "nothing"] {
            let dir = common::scratch();
            let (file, directory) = victims(dir.path());
            let path = dir.path().join("store");
            fs::create_dir(&path).unwrap();
            symlink(dir.path().join(target), path.join(name)).unwrap();
            let before = snapshot(&directory);
            let outcome = Options::new().open(&path).and_then(|store| {
                store.insert("key", "value")?;
                store.close()
            });
            assert!(outcome.is_err(), "{name} -> {target}: {outcome:?}");
            assert!(path.join(name).is_symlink(), "{name} -> {target} was removed");
            kept(&file);
            assert_eq!(snapshot(&directory), before);
            assert!(!dir.path().join("nothing").exists(), "{name} made what it leads to");
        }
    }
}

/// A second name of somebody's file as LOCK, into which a process id would be written.
#[test]
fn a_lock_file_with_another_name_is_not_written() {
    let dir = common::scratch();
    let (file, _) = victims(dir.path());
    let path = dir.path().join("store");
    fs::create_dir(&path).unwrap();
    fs::hard_link(&file, path.join("LOCK")).unwrap();
    open(&Options::new(), &path).close().unwrap();
    kept(&file);
}

fn store_with_everything(path: &Path) {
    let store = open(&common::tiny_options(), path);
    for n in 0..100u32 {
        store.insert(n.to_le_bytes(), [7; 100]).unwrap();
    }
    store.insert("blob", vec![1; 10_000]).unwrap();
    store.close().unwrap();
}

/// Whatever of a store is a link or a pipe: it is refused, and nothing is written through it.
#[test]
fn a_store_of_links_or_pipes_is_refused() {
    let dir = common::scratch();
    let whole = dir.path().join("whole");
    store_with_everything(&whole);
    let mut names = common::files(&whole);
    names.push("log-1".into());
    for (i, name) in names.iter().enumerate() {
        for pipe in [false, true] {
            let path = dir.path().join(format!("store {i} {pipe}"));
            copy_store(&whole, &path);
            let (place, away) = (path.join(name), dir.path().join(format!("away {i} {pipe}")));
            fs::rename(&place, &away).unwrap();
            if pipe {
                rustix::fs::mknodat(CWD, &place, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
            } else {
                symlink(&away, &place).unwrap();
            }
            let before = if away.is_dir() { snapshot(&away) } else { snapshot(dir.path().join("whole").as_path()) };
            let bytes = fs::read(&away).ok();
            for options in [common::tiny_options(), common::tiny_options().read_only(true)] {
                let outcome = options.open(&path).and_then(|store| {
                    // A blob is opened when it is read.
                    let read = store.get("blob").map(|value| assert!(value.is_some()));
                    read.and_then(|()| store.insert("key", "value").map(|_| ()))
                });
                let error = outcome.expect_err(&format!("{} is no file of ours", name.display()));
                assert!(matches!(error, Error::Io { .. } | Error::Corrupt { .. }), "{}: {error}", name.display());
            }
            // These wait for nothing, and follow nothing that could be written.
            let _ = tophash::verify::verify(&path);
            let _ = tophash::compact::compact(&path);
            if away.is_dir() {
                assert_eq!(snapshot(&away), before, "{}", name.display());
            }
            assert_eq!(fs::read(&away).ok(), bytes, "{} was written through a link", name.display());
        }
    }
    println!("links: {} names in a store, as links and as pipes", names.len());
}

/// The names that a compaction uses are taken.
#[test]
fn compaction_and_cleaning_up_follow_no_link() {
    for name in ["compact.tmp", "log-2"] {
        for target in ["victim", "victims"] {
            let dir = common::scratch();
            let (file, directory) = victims(dir.path());
            let path = dir.path().join("store");
            store_with_everything(&path);
            let store = open(&common::tiny_options(), &path);
            (0..90u32).for_each(|n| _ = store.remove(n.to_le_bytes()).unwrap());
            store.close().unwrap();
            symlink(dir.path().join(target), path.join(name)).unwrap();
            let before = snapshot(&directory);
            // An open removes what compactions have left, but not this.
            let store = open(&common::tiny_options(), &path);
            assert_eq!(store.len(), 11);
            store.close().unwrap();
            let error = tophash::compact::compact(&path).unwrap_err();
            assert!(matches!(error, Error::Io { .. }), "{name} -> {target}: {error}");
            kept(&file);
            assert_eq!(snapshot(&directory), before);
            assert_eq!(open(&common::tiny_options(), &path).len(), 11);
        }
    }
}

/// A name that is taken by a link that leads nowhere is taken.
#[test]
fn repair_makes_nothing_behind_a_link() {
    let dir = common::scratch();
    let (path, new) = (dir.path().join("store"), dir.path().join("new"));
    store_with_everything(&path);
    symlink(dir.path().join("nothing"), &new).unwrap();
    let error = tophash::repair::repair(&path, &new).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert!(!dir.path().join("nothing").exists());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "something was left behind");
}

/// The store's own directory may be reached by a link.
#[test]
fn a_link_to_a_store_is_a_store() {
    let dir = common::scratch();
    store_with_everything(&dir.path().join("store"));
    symlink("store", dir.path().join("link")).unwrap();
    let path = dir.path().join("link");
    assert_eq!(open(&common::tiny_options(), &path).len(), 101);
    assert!(tophash::verify::verify(&path).unwrap().findings.is_empty());
    tophash::compact::compact(&path).unwrap();
}
