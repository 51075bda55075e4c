//! What a script is: a store's setup, and what is done with it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tophash::sys::Disk;
use tophash::{Batch, Options, Store, SyncPolicy, Tuning};

use crate::awaited::wait;
use crate::disk::SimDisk;
use crate::random::mix;

/// A value, told by its length and by a number that makes it different from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value {
    /// Bytes.
    pub len: u32,
    /// Which of all values of that length.
    pub tag: u32,
}

impl Value {
    /// The bytes.
    #[must_use]
    pub fn bytes(self) -> Vec<u8> {
        let words = self.len.div_ceil(8);
        let word = |i: u32| mix(u64::from(self.tag) << 32 | u64::from(i)).to_le_bytes();
        let mut bytes: Vec<u8> = (0..words).flat_map(word).collect();
        bytes.truncate(self.len as usize);
        bytes
    }
}

/// The bytes of the key of that number. Most are short, a few long, one is empty.
#[must_use]
pub fn key(number: u32) -> Vec<u8> {
    match number {
        0 => Vec::new(),
        n if n % 29 == 28 => format!("key-{n}-{}", "x".repeat(300)).into_bytes(),
        n => format!("key-{n}").into_bytes(),
    }
}

/// One step of a script.
#[derive(Clone)]
pub enum Op {
    /// Sets a key.
    Insert(u32, Value),
    /// Sets a key by `update`, which must see the value that the model has.
    Update(u32, Value),
    /// Removes a key.
    Remove(u32),
    /// Sets a key to a value that is expired: it is absent from then on, whatever it was.
    Expired(u32, Value),
    /// Sets a key to a value that expires far in the future.
    Lasting(u32, Value),
    /// Applies a batch: what each key becomes.
    Apply(Vec<(u32, Option<Value>)>),
    /// Removes many keys at once.
    RemoveMany(Vec<u32>),
    /// Removes everything.
    Clear,
    /// Makes room.
    Reserve(u64),
    /// Makes everything durable.
    Sync,
    /// A step by the call that returns a future, which is waited for: `Insert`, `Update`, `Remove`, `Apply` or `Sync`.
    Awaited(Box<Op>),
    /// Runs a checkpoint.
    Checkpoint,
    /// Closes the store and opens it again.
    Reopen,
    /// The process dies, and the next one opens the store. The machine goes on.
    Die,
    /// Something that leaves the content as it is, done to an open store: its name, whether everything before it
    /// is durable when it returns, and what it does.
    Maintain(&'static str, bool, fn(&Store) -> tophash::Result<()>),
    /// Something that leaves the content as it is, done to a closed store. It is closed before and opened after.
    Offline(&'static str, fn(&Path, &Options) -> tophash::Result<()>),
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Insert(key, value) => write!(f, "insert {key} ({} bytes)", value.len),
            Op::Update(key, value) => write!(f, "update {key} ({} bytes)", value.len),
            Op::Remove(key) => write!(f, "remove {key}"),
            Op::Expired(key, value) => write!(f, "expire {key} ({} bytes)", value.len),
            Op::Lasting(key, value) => write!(f, "insert {key} for long ({} bytes)", value.len),
            Op::Apply(changes) => write!(f, "batch of {}", changes.len()),
            Op::RemoveMany(keys) => write!(f, "remove_many of {}", keys.len()),
            Op::Clear => f.write_str("clear"),
            Op::Reserve(n) => write!(f, "reserve {n}"),
            Op::Sync => f.write_str("sync"),
            Op::Awaited(op) => write!(f, "awaited {op:?}"),
            Op::Checkpoint => f.write_str("checkpoint"),
            Op::Reopen => f.write_str("reopen"),
            Op::Die => f.write_str("die"),
            Op::Maintain(name, ..) | Op::Offline(name, _) => f.write_str(name),
        }
    }
}

impl Op {
    /// Whether everything up to and with this step is durable when it has returned.
    #[must_use]
    pub fn acknowledges(&self, sync: SyncPolicy) -> bool {
        match self {
            Op::Sync | Op::Awaited(_) | Op::Checkpoint | Op::Reopen | Op::Offline(..) => true,
            Op::Maintain(_, durable, _) => *durable,
            Op::Reserve(_) | Op::Die => false,
            _ => sync == SyncPolicy::Always,
        }
    }

    /// Carries the step out, if it is one that an open store can carry out.
    ///
    /// # Errors
    /// Whatever the store says.
    pub fn carry_out(&self, store: &Store) -> tophash::Result<()> {
        match self {
            // Half of the keys by the calls that do not read what was there.
            Op::Insert(k, value) if k % 2 == 1 => store.set(key(*k), value.bytes()),
            Op::Remove(k) if k % 2 == 1 => store.delete(key(*k)).map(drop),
            Op::Insert(k, value) => store.insert(key(*k), value.bytes()).map(|_| ()),
            Op::Update(k, value) => store.update(key(*k), |_| Some(value.bytes())).map(|_| ()),
            Op::Remove(k) => store.remove(key(*k)).map(|_| ()),
            Op::Expired(k, value) => store.expiring(SystemTime::UNIX_EPOCH).set(key(*k), value.bytes()),
            Op::Lasting(k, value) if k % 2 == 1 => {
                store.apply(Batch::new().insert_expiring(key(*k), value.bytes(), far()))
            }
            Op::Lasting(k, value) => store.expiring(far()).set(key(*k), value.bytes()),
            Op::Apply(changes) => store.apply(&batch(changes)),
            Op::RemoveMany(keys) => {
                let keys: Vec<_> = keys.iter().map(|&k| key(k)).collect();
                store.remove_many(&keys).map(|_| ())
            }
            Op::Clear => store.clear(),
            Op::Reserve(n) => store.reserve(*n),
            Op::Sync => store.sync(),
            Op::Awaited(op) => match &**op {
                Op::Insert(k, value) if k % 2 == 1 => wait(store.set_async(key(*k), value.bytes())),
                // The removal of an absent key writes nothing, so it waits for nothing: the step is durable with a sync.
                Op::Remove(k) => {
                    let was_there = match k % 2 {
                        1 => wait(store.delete_async(key(*k)))?,
                        _ => wait(store.remove_async(key(*k)))?.is_some(),
                    };
                    if was_there { Ok(()) } else { wait(store.sync_async()) }
                }
                Op::Insert(k, value) => wait(store.insert_async(key(*k), value.bytes())).map(drop),
                Op::Update(k, value) => wait(store.update_async(key(*k), |_| Some(value.bytes()))).map(drop),
                Op::Apply(changes) => wait(store.apply_async(&batch(changes))),
                Op::Sync => wait(store.sync_async()),
                op => unreachable!("no call of {op:?} returns a future"),
            },
            Op::Checkpoint => store.checkpoint(),
            Op::Maintain(_, _, work) => work(store),
            Op::Reopen | Op::Die | Op::Offline(..) => unreachable!("the runner does these"),
        }
    }
}

/// The moment at which scripts run, in milliseconds since 1970.
pub const NOW: u64 = 1_700_000_000_000;

/// A moment far in the future.
fn far() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(10_000_000_000)
}

fn batch(changes: &[(u32, Option<Value>)]) -> Batch {
    let mut batch = Batch::new();
    for (k, value) in changes {
        match value {
            Some(value) => batch.insert(key(*k), value.bytes()),
            None => batch.remove(key(*k)),
        };
    }
    batch
}

/// A history to be carried out, interrupted and checked.
#[derive(Debug, Clone)]
pub struct Script {
    /// Its name.
    pub name: &'static str,
    /// When writes become durable. `Every` with background threads only.
    pub sync: SyncPolicy,
    /// Constants of the store.
    pub tuning: Tuning,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Log bytes between two checkpoints.
    pub checkpoint_bytes: u64,
    /// How much larger than its live records the log may be.
    pub log_ratio: f64,
    /// What is done.
    pub ops: Vec<Op>,
}

impl Script {
    /// The options with which its store is opened on a simulated disk.
    #[must_use]
    pub fn options(&self, disk: &SimDisk) -> Options {
        if self.tuning.background {
            disk.serve_threads();
        }
        self.options_on(Arc::new(disk.clone()))
    }

    /// The same on any disk.
    #[must_use]
    pub fn options_on(&self, disk: Arc<dyn Disk>) -> Options {
        Options::new()
            .sync(self.sync)
            .tuning(self.tuning)
            .segment_bytes(self.segment_bytes)
            .checkpoint_bytes(self.checkpoint_bytes)
            .log_ratio(self.log_ratio)
            .memory_bytes(1 << 20)
            .disk(disk)
    }
}
