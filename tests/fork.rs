//! A forked child may neither change nor read its parent's store, and does its parent no harm.
//!
//! A child inherits the mappings and the lock, but not the threads: a write of its own would land in the middle
//! of its parent's log. This test runs without the usual harness, because that has threads, and a process with
//! threads should not fork.

mod common;

use std::pin::Pin;
use std::process::ExitCode;
use std::task::{Context, Poll, Waker};

use tophash::{Batch, Durable, Error, Options, OwnedValue, Store, SyncPolicy, Tuning};

fn is_forked<T>(what: &str, owner: u32, outcome: tophash::Result<T>) {
    match outcome {
        Err(Error::Forked { owner: told, .. }) => assert_eq!(told, owner, "{what}"),
        Err(error) => panic!("{what} in a child: {error}"),
        Ok(_) => panic!("{what} in a child was carried out"),
    }
}

/// The outcome of a future that waits for nothing.
fn polled<T>(future: &mut Durable<T>) -> tophash::Result<T> {
    match Pin::new(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => panic!("a future of a child waits"),
    }
}

/// What the child does with the store that it inherited.
fn child(
    store: Store,
    held: OwnedValue,
    pending: Option<&mut Durable>,
    owner: u32,
    options: &Options,
    path: &std::path::Path,
    drop_it: bool,
) {
    let mut batch = Batch::new();
    batch.insert("child", "batch");
    // Its index would be that of several moments: pages that were changed at the fork are frozen, the others follow the
    // file. And a stripe may be locked by a thread that is only its parent's.
    is_forked("get", owner, store.get("parent"));
    is_forked("get of what is not there", owner, store.get("child"));
    is_forked("get_many", owner, store.get_many(&["parent"]));
    is_forked("contains_key", owner, store.contains_key("parent"));
    is_forked("scan", owner, store.scan(tophash::Cursor::START, 10));
    assert_eq!((store.iter().count(), store.keys().count(), store.values().count()), (1, 1, 1), "iteration goes on");
    is_forked("iter", owner, store.iter().next().unwrap());
    is_forked("keys", owner, store.keys().next().unwrap());
    is_forked("values", owner, store.values().next().unwrap());
    is_forked("insert", owner, store.insert("child", "was here"));
    is_forked("insert of a blob", owner, store.insert("child", vec![0; 1 << 20]));
    is_forked("remove", owner, store.remove("parent"));
    is_forked("update", owner, store.update("parent", |_| Some(b"child".to_vec())));
    is_forked("compare_exchange", owner, store.compare_exchange("child", None, Some(b"child")));
    is_forked("get_or_insert_with", owner, store.get_or_insert_with("child", || "child"));
    is_forked("apply", owner, store.apply(&batch));
    is_forked("remove_many", owner, store.remove_many(&["parent"]));
    is_forked("clear", owner, store.clear());
    is_forked("reserve", owner, store.reserve(1_000_000));
    is_forked("sync", owner, store.sync());
    is_forked("set_async", owner, polled(&mut store.set_async("child", "was here")));
    is_forked("apply_async", owner, polled(&mut store.apply_async(&batch)));
    is_forked("sync_async", owner, polled(&mut store.sync_async()));
    // Its lock may be held by a thread of its parent.
    pending.into_iter().for_each(|pending| is_forked("a future of the parent", owner, polled(pending)));
    is_forked("checkpoint", owner, store.checkpoint());
    // The lock is still its parent's.
    assert!(matches!(options.open(path), Err(Error::Locked { .. })));
    if drop_it {
        drop(store);
    } else {
        is_forked("close", owner, store.close());
    }
    // What was read before the fork is of one moment.
    assert_eq!(held, "before");
}

/// Forks; the child does `work` and is waited for.
fn in_child(work: impl FnOnce()) {
    in_child_beside(work, || {});
}

/// Forks; the child does `work`, the parent something else, and then waits for the child.
#[expect(unsafe_code, reason = "fork has no safe interface")]
fn in_child_beside(work: impl FnOnce(), beside: impl FnOnce()) {
    // SAFETY: with background threads about, the child only uses what they cannot have locked: the allocator,
    // which is made ready for forks, and calls of the store that are refused before they lock anything.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        0 => {
            // SAFETY: no handler is installed. A child that hangs is killed by the signal.
            unsafe { libc::alarm(30) };
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            // SAFETY: leaves without running the parent's destructors.
            unsafe { libc::_exit(i32::from(outcome.is_err())) }
        }
        pid => {
            beside();
            let mut status = 0;
            // SAFETY: waits for the child just made.
            assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
            assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "the child ended with {status:#x}");
        }
    }
}

fn run(name: &str, background: bool, options: &Options) {
    let dir = common::scratch();
    let path = dir.path().join("store");
    for drop_it in [false, true] {
        let store = common::open(options, &path);
        store.insert("parent", "before").unwrap();
        let owner = std::process::id();
        let mut inherited = Some(store);
        let held = inherited.as_ref().unwrap().get("parent").unwrap().unwrap().into_owned();
        let mut pending = inherited.as_ref().unwrap().set_async("parent", "before");
        // Without background threads it is ready, because the call has synced.
        let pending = background.then_some(&mut pending);
        in_child(|| child(inherited.take().unwrap(), held.clone(), pending, owner, options, &path, drop_it));
        assert_eq!(held, "before");
        let store = inherited.unwrap();
        for i in 0..500u32 {
            store.insert(i.to_le_bytes(), "after").unwrap();
        }
        store.sync().unwrap();
        assert!(matches!(options.open(&path), Err(Error::Locked { .. })), "the child gave the lock away");
        assert_eq!(store.get("parent").unwrap().unwrap(), &b"before"[..]);
        assert!(!store.contains_key("child").unwrap());
        store.close().unwrap();
        let store = common::open(options, &path);
        assert!(!store.stats().recovery.was_unclean);
        assert_eq!(store.len(), 501);
        store.close().unwrap();
    }
    println!("test {name} ... ok");
}

/// A child may have stores of its own, and still not its parent's; a grandchild has neither.
fn children_have_their_own(options: &Options) {
    let dir = common::scratch();
    let path = |name: &str| dir.path().join(name);
    let refused = |store: &Store, owner: u32| is_forked("insert", owner, store.insert("child", "was here"));
    let first = common::open(options, &path("parent's"));
    let parent = std::process::id();
    in_child(|| {
        refused(&first, parent);
        let own = common::open(options, &path("child's"));
        own.insert("child", "its own").unwrap();
        refused(&first, parent);
        let child = std::process::id();
        in_child(|| {
            refused(&first, parent);
            refused(&own, child);
        });
        own.insert("child", "again").unwrap();
        own.close().unwrap();
    });
    first.insert("parent", "goes on").unwrap();
    let second = common::open(options, &path("another of the parent's"));
    second.insert("parent", "goes on").unwrap();
    in_child(|| {
        refused(&first, parent);
        refused(&second, parent);
    });
    println!("test children_have_their_own ... ok");
}

/// **Fork.** Values that a child held changed under its reference: the parent knew nothing of them, freed their segment, and
/// wrote the file again under another name. Freed segments are unlinked now, and never written again.
fn held_values_stay() {
    const KEYS: u32 = 200;
    let dir = common::scratch();
    let options = common::tiny_options().log_ratio(1.1);
    let store = common::open(&options, &dir.path().join("store"));
    (0..KEYS).for_each(|key| _ = store.insert(key.to_le_bytes(), [1; 100]).unwrap());
    let held: Vec<_> = (0..KEYS).map(|key| store.get(key.to_le_bytes()).unwrap().unwrap()).collect();
    let held = std::cell::Cell::new(held);
    let (reader, mut writer) = std::io::pipe().unwrap();
    let mut reader = Some(reader);
    in_child_beside(
        || {
            let held = held.take();
            let mut byte = [0];
            std::io::Read::read_exact(&mut reader.take().unwrap(), &mut byte).unwrap();
            assert!(held.iter().all(|value| **value == [1; 100]), "a held value has changed");
        },
        || {
            drop(held.take());
            let freed = store.stats().compaction.freed_segments;
            for round in 2..10 {
                (0..KEYS).for_each(|key| _ = store.insert(key.to_le_bytes(), [round; 100]).unwrap());
                store.compact().unwrap();
                store.checkpoint().unwrap();
            }
            assert!(store.stats().compaction.freed_segments > freed + 8, "no segment was freed");
            std::io::Write::write_all(&mut writer, &[1]).unwrap();
        },
    );
    println!("test held_values_stay ... ok");
}

fn main() -> ExitCode {
    // Listing and filtering, as other test binaries know them.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        println!("a_child_is_refused: test");
        println!("children_have_their_own: test");
        println!("held_values_stay: test");
        return ExitCode::SUCCESS;
    }
    run("a_child_is_refused", false, &common::tiny_options());
    let threads = Tuning { background: true, ..common::tiny() };
    run("a_child_is_refused, threads in the parent", true, &common::tiny_options().tuning(threads));
    run("a_child_is_refused, default options", true, &Options::new().sync(SyncPolicy::default()));
    children_have_their_own(&common::tiny_options());
    held_values_stay();
    ExitCode::SUCCESS
}
