//! Who may use a store's files: permissions and owners, whoever makes the files and when.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Mutex;

use rustix::fs::Mode;
use tophash::{Error, Options, SyncPolicy};

use crate::common::{self, open};

/// The umask is the whole process's.
static UMASK: Mutex<()> = Mutex::new(());

/// Works with a umask.
fn with_umask<T>(mask: u32, work: impl FnOnce() -> T) -> T {
    let before = rustix::process::umask(Mode::from_raw_mode(mask));
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    rustix::process::umask(before);
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Kinds of names below a directory, the directory itself included.
fn kinds(dir: &Path, found: &mut BTreeMap<String, (u32, u32, u32)>) {
    let meta = fs::symlink_metadata(dir).unwrap();
    found.insert(dir.display().to_string(), (meta.mode() & 0o7777, meta.uid(), meta.gid()));
    if meta.is_dir() {
        fs::read_dir(dir).unwrap().for_each(|entry| kinds(&entry.unwrap().path(), found));
    }
}

/// Every file and directory has these permissions. Returns their number.
fn all_have(dir: &Path, file_mode: u32, dir_mode: u32) -> usize {
    let mut found = BTreeMap::new();
    kinds(dir, &mut found);
    for (name, (mode, ..)) in &found {
        let expected = if Path::new(name).is_dir() { dir_mode } else { file_mode };
        assert_eq!(*mode, expected, "{name}: {mode:o}, not {expected:o}");
    }
    found.len()
}

fn small() -> Options {
    common::tiny_options().segment_bytes(8192).sync(SyncPolicy::Manual)
}

/// Segments, a blob, a checkpoint.
fn work(options: &Options, path: &Path, from: u32) {
    let store = open(options, path);
    for n in from..from + 200 {
        store.insert(n.to_le_bytes(), [7; 100]).unwrap();
    }
    store.insert(format!("blob {from}"), vec![1; 10_000]).unwrap();
    store.checkpoint().unwrap();
    store.close().unwrap();
}

#[test]
fn files_are_private_unless_asked_for() {
    let _one = UMASK.lock();
    let dir = common::scratch();
    let cases = [
        (0o022, None, 0o600, 0o700),
        (0o000, None, 0o600, 0o700),
        (0o277, None, 0o400, 0o500),
        (0o022, Some(0o664), 0o644, 0o755),
        (0o077, Some(0o664), 0o600, 0o700),
        (0o000, Some(0o640), 0o640, 0o750),
        (0o000, Some(0o666), 0o666, 0o777),
    ];
    for (i, (mask, mode, file_mode, dir_mode)) in cases.into_iter().enumerate() {
        if mask == 0o277 && !rustix::process::geteuid().is_root() {
            // Root alone gets along with a umask that takes write permission from the owner.
            continue;
        }
        let path = dir.path().join(i.to_string());
        let options = mode.map_or(small(), |mode| small().mode(mode));
        with_umask(mask, || work(&options, &path, 0));
        let names = all_have(&path, file_mode, dir_mode);
        assert!(names > 6, "LOCK, index, journal, log-1, segments, a blob: {names}");
    }
}

#[test]
fn impossible_modes_are_refused() {
    let dir = common::scratch();
    for mode in [0, 0o640 - 0o200, 0o700, 0o1600, 0o4600, 0o440, 0o677] {
        let error = Options::new().mode(mode).open(dir.path().join("store")).unwrap_err();
        assert!(matches!(error, Error::InvalidOption { option: "mode", .. }), "{mode:o}: {error}");
    }
    assert!(!dir.path().join("store").exists());
}

/// The permissions are the store's, not its opener's: a command that knows nothing of them does not lock the group out.
#[test]
fn later_files_follow_the_index() {
    let _one = UMASK.lock();
    let dir = common::scratch();
    let path = dir.path().join("store");
    with_umask(0, || work(&small().mode(0o640), &path, 0));
    with_umask(0o077, || work(&small(), &path, 1000));
    with_umask(0, || work(&small().mode(0o666), &path, 2000));
    all_have(&path, 0o640, 0o750);

    // Temporary names of an offline compaction, while it runs and afterwards.
    let store = open(&small(), &path);
    (0..190u32).for_each(|n| _ = store.remove(n.to_le_bytes()).unwrap());
    store.close().unwrap();
    let mut seen = false;
    let report = with_umask(0o077, || {
        tophash::compact::compact_with(&path, &tophash::compact::Options::new(), |_| {
            let temporary = path.join("compact.tmp");
            if temporary.exists() {
                seen = true;
                common::files(&temporary).iter().for_each(|name| _ = all_have(&temporary.join(name), 0o640, 0));
                // Nobody but the owner has to get in there.
                assert_eq!(fs::metadata(&temporary).unwrap().mode() & 0o077, 0);
            }
            ControlFlow::Continue(())
        })
    });
    assert!(report.unwrap().switched && seen);
    all_have(&path, 0o640, 0o750);

    // Changed by hand, for good.
    for name in common::files(&path) {
        fs::set_permissions(path.join(name), Permissions::from_mode(0o660)).unwrap();
    }
    with_umask(0o077, || work(&small(), &path, 3000));
    all_have(&path, 0o660, 0o750);
}

/// Root may use a service's store, and the service can go on using it.
#[test]
fn later_files_belong_to_the_owner_of_the_index() {
    if !rustix::process::geteuid().is_root() {
        println!("later_files_belong_to_the_owner_of_the_index: skipped: only root gives files away");
        return;
    }
    let dir = common::scratch();
    let path = dir.path().join("store");
    work(&small(), &path, 0);
    let mut names = BTreeMap::new();
    kinds(&path, &mut names);
    names.keys().for_each(|name| std::os::unix::fs::chown(name, Some(4321), Some(8765)).unwrap());
    work(&small(), &path, 1000);
    let store = open(&small(), &path);
    (0..190u32).for_each(|n| _ = store.remove(n.to_le_bytes()).unwrap());
    store.close().unwrap();
    assert!(tophash::compact::compact(&path).unwrap().switched);
    work(&small(), &path, 2000);
    let mut found = BTreeMap::new();
    kinds(&path, &mut found);
    assert_ne!(names.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>(), "nothing new was made");
    for (name, (_, user, group)) in found {
        assert_eq!((user, group), (4321, 8765), "{name}");
    }
}

#[test]
fn a_repaired_store_is_private() {
    let _one = UMASK.lock();
    let dir = common::scratch();
    let (path, new) = (dir.path().join("store"), dir.path().join("new"));
    work(&small(), &path, 0);
    with_umask(0, || tophash::repair::repair(&path, &new)).unwrap();
    all_have(&new, 0o600, 0o700);
}
