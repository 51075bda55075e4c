//! A large piece of memory that is not there is an error of the call, not the end of the process. A test binary of its own,
//! because its allocator refuses.
//!
//! A vector that finds no memory ends the process. The journal's buffer, the zeroes of a new segment, the pieces of a large
//! batch and those of a log's tail that an open writes again were such vectors, of 256 KiB to 4 MiB. Beside busy processes a
//! test of an address space that was used up hit one of them in one run of thirty.
//!
//! The lists of a batch, which grow with what the caller has put into it, are not among them.

#[allow(dead_code, reason = "other tests count")]
#[path = "common/allocator.rs"]
mod allocator;
mod common;

use allocator::Counting;
use common::{copy_store, scratch};
use tophash::{Batch, Error, Options, Store, SyncPolicy, Tuning};

#[global_allocator]
static ALLOCATOR: Counting = Counting::up_to(usize::MAX);

/// More than this at once is not there.
const SMALL: usize = 100 << 10;

/// Done, or refused for want of memory. Says whether it was refused.
fn done_or_refused<T>(what: &str, result: tophash::Result<T>) -> bool {
    match result {
        Ok(_) => false,
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::OutOfMemory => true,
        Err(error) => panic!("{what}: {error:?}"),
    }
}

fn is_whole(store: &Store, keys: u32) {
    for n in 0..keys {
        let value = store.get(n.to_le_bytes()).unwrap();
        assert_eq!(value.as_deref(), Some(&[n as u8; 200][..]), "{n}");
    }
}

#[test]
fn no_large_piece_of_memory_ends_the_process() {
    const KEYS: u32 = 4_000;
    let dir = scratch();
    for (policy, background) in
        [(SyncPolicy::Manual, false), (SyncPolicy::default(), false), (SyncPolicy::Manual, true)]
    {
        let path = dir.path().join(format!("{policy:?} {background}"));
        let tuning = Tuning { background, ..Tuning::default() };
        let options = Options::new().sync(policy).tuning(tuning).segment_bytes(256 << 10);
        let store = options.open(&path).unwrap();
        let mut batch = Batch::new();
        (0..KEYS).for_each(|n| _ = batch.insert(n.to_le_bytes(), [n as u8; 200]));
        store.apply(&batch).unwrap();
        let refused = ALLOCATOR.with(SMALL, || {
            let mut refused = 0;
            for n in 0..KEYS {
                refused += u32::from(done_or_refused("insert", store.insert(n.to_le_bytes(), [n as u8; 200])));
            }
            refused += u32::from(done_or_refused("checkpoint", store.checkpoint()));
            refused += u32::from(done_or_refused("compact", store.compact()));
            refused + u32::from(done_or_refused("checkpoint", store.checkpoint()))
        });
        assert!(refused > 0, "memory was there all the time");
        // There is memory again, and nothing was refused for good.
        is_whole(&store, KEYS);
        (0..KEYS).for_each(|n| drop(store.insert(n.to_le_bytes(), [n as u8; 200]).unwrap()));
        store.checkpoint().unwrap();
        (0..KEYS / 2).for_each(|n| drop(store.insert(n.to_le_bytes(), [n as u8; 200]).unwrap()));
        store.sync().unwrap();
        // An open after a kill, with much to write again, once without memory and once with it.
        let killed = dir.path().join(format!("{policy:?} {background}, killed"));
        copy_store(&path, &killed);
        store.close().unwrap();
        ALLOCATOR.with(SMALL, || done_or_refused("open", options.open(&killed)));
        let store = options.open(&killed).unwrap();
        is_whole(&store, KEYS);
        store.close().unwrap();
        assert!(tophash::verify::verify(&killed).unwrap().is_clean());
    }
    // The limit ends with the work, also with one that panics.
    let panicked = std::panic::catch_unwind(|| ALLOCATOR.with(SMALL, || panic!("on purpose")));
    assert!(panicked.is_err() && Vec::<u8>::new().try_reserve_exact(SMALL + 1).is_ok());
}
