//! One process writes, or several read.
//!
//! A test binary of its own, because it starts processes: between fork and exec a child shares all descriptors of
//! its parent, the locked ones of other tests included.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use common::{open, refused, says};
use tophash::{Error, Options};

/// Not a test: holds the store that the environment names until its input ends.
#[test]
fn holder() {
    let Ok(order) = std::env::var("TOPHASH_HOLDER") else { return };
    let (mode, path) = order.split_once(' ').unwrap();
    let store = Options::new().read_only(mode == "read").open(path).unwrap();
    if mode == "write" {
        // From here on nothing is changed in the background.
        store.insert("held", "").unwrap();
        store.remove("held").unwrap();
    }
    std::io::stdout().write_all(b"\nheld\n").unwrap();
    let _ = std::io::stdin().read_line(&mut String::new());
    drop(store);
}

/// A process that has a store open.
struct Holder {
    child: std::process::Child,
    /// Kept open, so that the child can say its last words.
    _output: BufReader<std::process::ChildStdout>,
}

impl Holder {
    fn start(mode: &str, path: &Path) -> Holder {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "holder", "--nocapture", "--test-threads=1"])
            .env("TOPHASH_HOLDER", format!("{mode} {}", path.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let held = output.by_ref().lines().map(Result::unwrap).any(|line| line == "held");
        assert!(held, "the other process could not open the store");
        Holder { child, _output: output }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

#[test]
fn one_writer_or_many_readers() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let reading = Options::new().read_only(true);
    let me = std::process::id();

    let store = open(&Options::new(), &path);
    store.insert("key", "value").unwrap();
    for options in [Options::new(), reading.clone()] {
        let error = options.open(&path).unwrap_err();
        assert!(matches!(error, Error::Locked { pid: Some(pid), .. } if pid == me), "{error}");
        says(&error, &["this process already", &me.to_string()]);
    }
    store.close().unwrap();

    let writer = Holder::start("write", &path);
    for options in [Options::new(), reading.clone()] {
        let error = refused(&options, &path, &path);
        assert!(matches!(error, Error::Locked { pid: Some(pid), .. } if pid == writer.child.id()), "{error}");
        says(&error, &[&format!("process {}", writer.child.id())]);
    }
    drop(writer);

    let reader = Holder::start("read", &path);
    let (one, two) = (open(&reading, &path), open(&reading, &path));
    for store in [&one, &two] {
        assert_eq!(store.get("key").unwrap().unwrap(), &b"value"[..]);
    }
    assert!(matches!(refused(&Options::new(), &path, &path), Error::Locked { .. }));
    drop((one, two));
    assert!(matches!(refused(&Options::new(), &path, &path), Error::Locked { .. }));
    drop(reader);
    open(&Options::new(), &path).close().unwrap();
}

/// **Open.** A lock is let go by closing its descriptor. A child that another thread is starting at that moment
/// has a copy of it until it calls exec, and with the copy the lock: opening the store again fails.
#[test]
fn a_process_being_started_does_not_keep_the_lock() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let failed = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                Command::new("true").status().unwrap();
            }
        });
        let failed = (0..500).filter(|_| common::tiny_options().open(&path).is_err()).count();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        failed
    });
    assert_eq!(failed, 0, "of 500 opens");
}

/// **Open.** Readers do not write their process id into LOCK, so that it still tells of the last writer: a writer
/// that finds readers is told to look for a process that may have ended long ago, here for itself.
#[test]
fn a_writer_that_meets_readers_is_not_told_a_stale_id() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    open(&Options::new(), &path).close().unwrap();
    let reader = Holder::start("read", &path);
    match Options::new().open(&path) {
        Err(Error::Locked { pid, .. }) => assert!(pid.is_none_or(|pid| pid == reader.child.id()), "{pid:?}"),
        other => panic!("{other:?}"),
    }
}

/// "Another process" was all that a writer heard of the reader in its way, in this process or not.
#[test]
fn a_writer_is_told_of_readers() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    open(&Options::new(), &path).close().unwrap();
    let kernel_tells = std::fs::File::open("/proc/locks").is_ok();
    let reader = Holder::start("read", &path);
    let error = Options::new().open(&path).unwrap_err();
    assert!(matches!(error, Error::Locked { reading: true, .. }), "{error}");
    says(&error, &["reader"]);
    if kernel_tells {
        says(&error, &[&format!("a reader, process {}", reader.child.id())]);
    }
    let own = open(&Options::new().read_only(true), &path);
    let error = Options::new().open(&path).unwrap_err();
    if kernel_tells {
        says(&error, &["a reader in this process", &std::process::id().to_string()]);
    }
    drop((own, reader));
    open(&Options::new(), &path).close().unwrap();
}

/// **Two writers.** Somebody removed LOCK, or moved it away, while the store was open: the next opener made a new one, and
/// locked that. Both wrote. The directory is locked too now.
#[test]
fn a_new_lock_file_lets_nobody_in() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    open(&Options::new(), &path).close().unwrap();
    let reading = Options::new().read_only(true);
    for (mode, refuses_readers) in [("write", true), ("read", false)] {
        let holder = Holder::start(mode, &path);
        std::fs::remove_file(path.join("LOCK")).unwrap();
        // Whether it is made anew by the opener or by somebody else.
        for made in [false, true] {
            if made {
                std::fs::write(path.join("LOCK"), "").unwrap();
            }
            let error = Options::new().open(&path).unwrap_err();
            // The new file tells nothing of the holder; the kernel's list of locks can.
            let id = holder.child.id();
            let Error::Locked { pid, .. } = error else { panic!("{error}") };
            assert!(pid.is_none_or(|pid| pid == id), "{error}");
            let read = reading.open(&path);
            assert_eq!(matches!(read, Err(Error::Locked { .. })), refuses_readers, "{read:?}");
            drop(read);
        }
        drop(holder);
        open(&Options::new(), &path).close().unwrap();
    }
    // Twice in one process as well.
    let store = open(&Options::new(), &path);
    std::fs::rename(path.join("LOCK"), path.join("LOCK.old")).unwrap();
    assert!(matches!(Options::new().open(&path), Err(Error::Locked { .. })));
    store.insert("key", "value").unwrap();
    store.close().unwrap();
    assert_eq!(open(&reading, &path).len(), 1);
}
