//! **A moment without descriptors, memory or threads became permanent damage.** Splits marked thousands of whole records
//! as damaged because their segment could not be mapped just then; a checkpoint that found no descriptor for its last step
//! poisoned the store. Here the limits are real: a child process (this test binary, run again) lowers its own and
//! raises them again.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tophash::{Error, Options, Store, SyncPolicy};

use crate::common;

/// Tells the test binary that it is the child, and what it is to do.
const CHILD: &str = "TOPHASH_LIMITS_CHILD";
/// Nobody, to whom limits of processes apply.
const NOBODY: u32 = 65_534;

const KEYS: u32 = 3000;

/// Runs something with a limit lowered for a while.
fn with<T>(resource: Resource, limit: u64, work: impl FnOnce() -> T) -> T {
    let before = getrlimit(resource);
    setrlimit(resource, Rlimit { current: Some(limit), maximum: before.maximum }).expect("lower a limit");
    let result = work();
    setrlimit(resource, before).expect("raise the limit again");
    result
}

fn options() -> Options {
    Options::new().sync(SyncPolicy::Manual)
}

fn fill(path: &Path) -> Store {
    let store = common::open(&options(), path);
    (0..KEYS).for_each(|n| drop(store.insert(n.to_le_bytes(), [7; 200]).expect("insert")));
    store
}

fn is_of_the_moment(error: &Error) -> bool {
    // EMFILE, ENOMEM, EAGAIN (no thread).
    matches!(error, Error::Io { source, .. } if [24, 12, 11].contains(&source.raw_os_error().unwrap_or(0)))
}

/// Every key can be read and written, nothing counts as damaged, and nothing is poisoned.
fn is_whole(store: Store, path: &Path) {
    assert_eq!(store.stats().poisoned, None);
    for n in 0..KEYS {
        assert!(store.get(n.to_le_bytes()).expect("a read when the limit is gone").is_some(), "key {n} is lost");
        store.insert(n.to_le_bytes(), "new").unwrap_or_else(|error| panic!("key {n}, when the limit is gone: {error}"));
    }
    store.checkpoint().expect("a checkpoint when the limit is gone");
    store.close().expect("close");
    let report = tophash::verify::verify(path).expect("verify");
    assert!(report.is_clean(), "{report:#?}");
    let store = common::open(&options(), path);
    assert!((0..KEYS).all(|n| store.contains_key(n.to_le_bytes()).expect("a read")));
}

/// What the limit makes of a call: done, or an error of the moment.
fn allowed<T>(what: &str, result: tophash::Result<T>) {
    if let Err(error) = result {
        assert!(is_of_the_moment(&error), "{what}: {error:?}");
    }
}

/// Not a test: the child's part of those below.
#[test]
fn limits_child() {
    let Ok(order) = std::env::var(CHILD) else { return };
    let (what, path) = order.split_once(' ').expect("an order");
    let path = Path::new(path);
    match what {
        "doubling" => {
            fill(path).close().expect("close");
            let store = common::open(&options(), path);
            with(Resource::Nofile, 3, || {
                allowed("reserve", store.reserve(500_000));
                (0..KEYS).for_each(|n| allowed("insert", store.insert(n.to_le_bytes(), [8; 200])));
            });
            is_whole(store, path);
        }
        "checkpoint" => {
            let store = fill(path);
            with(Resource::Nofile, 3, || {
                for round in 0..6u8 {
                    (0..KEYS).for_each(|n| allowed("insert", store.insert(n.to_le_bytes(), [round; 300])));
                    allowed("checkpoint", store.checkpoint());
                    allowed("compact", store.compact());
                }
            });
            is_whole(store, path);
        }
        "open" => {
            drop(fill(path));
            for descriptors in 3..40 {
                with(Resource::Nofile, descriptors, || allowed("open", options().open(path).map(drop)));
            }
            is_whole(common::open(&options(), path), path);
        }
        "memory" => {
            let store = fill(path);
            let pages = std::fs::read_to_string("/proc/self/statm").expect("the size of this process");
            let pages: u64 = pages.split(' ').next().and_then(|word| word.parse().ok()).expect("a number");
            with(Resource::As, pages * 4096 + (256 << 10), || {
                allowed("reserve", store.reserve(50_000_000));
                (0..KEYS).for_each(|n| allowed("insert", store.insert(n.to_le_bytes(), [9; 200])));
                allowed("checkpoint", store.checkpoint());
            });
            is_whole(store, path);
        }
        "threads" => {
            for read_only in [true, false] {
                let opened = with(Resource::Nproc, 1, || options().read_only(read_only).open(path));
                match opened {
                    Ok(store) => {
                        let lost = (0..20_000u32).filter(|n| !matches!(store.get(n.to_le_bytes()), Ok(Some(_))));
                        assert_eq!(lost.count(), 0, "keys that a recovery without threads has lost");
                        assert_eq!(store.len(), 20_000);
                    }
                    Err(error) => assert!(is_of_the_moment(&error), "{error:?}"),
                }
            }
            let store = common::open(&options(), path);
            assert_eq!(store.len(), 20_000);
            store.insert("k", "v").expect("an insert when there are threads again");
        }
        _ => panic!("{order}"),
    }
}

fn child(what: &str, path: &Path, uid: Option<u32>) {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", "limits::limits_child", "--nocapture", "--test-threads=1"]);
    command.env(CHILD, format!("{what} {}", path.display()));
    if let Some(uid) = uid {
        command.uid(uid);
    }
    let output = command.output().expect("run the child");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{what}: {}\n{}{}", output.status, text(&output.stdout), text(&output.stderr));
}

fn without(what: &str) {
    let dir = common::scratch();
    child(what, &dir.path().join("store"), None);
}

#[test]
fn no_descriptors_during_a_doubling() {
    without("doubling");
}

#[test]
fn no_descriptors_during_checkpoints() {
    without("checkpoint");
}

#[test]
fn no_descriptors_during_an_open() {
    without("open");
}

#[test]
fn no_memory() {
    without("memory");
}

/// A recovery without threads lost a quarter of the keys, read-only ones too, and said that all was well.
#[test]
fn no_threads() {
    if !rustix::process::geteuid().is_root() {
        println!("no_threads: skipped, it needs root to become nobody");
        return;
    }
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = common::open(&options(), &path);
    (0..20_000u32).for_each(|n| drop(store.insert(n.to_le_bytes(), "v").expect("insert")));
    let left = dir.path().join("left");
    common::copy_store(&path, &left);
    let names = common::files(dir.path());
    let names = names.iter().flat_map(|name| name.ancestors().map(Path::to_path_buf).collect::<Vec<_>>());
    names.for_each(|name| chown(dir.path().join(name), Some(NOBODY), Some(NOBODY)).expect("give it to nobody"));
    child("threads", &left, Some(NOBODY));
}
