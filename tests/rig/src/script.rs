//! What a script is: a store's setup, and what is done with it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tophash::sys::Disk;
use tophash::{Batch, Options, Store, SyncPolicy, Table, Tuning};

use crate::aligned::Aligned;
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
    /// Sets a key to a value that expires when the clock passes that round. Before, readers see it; to the layers it is absent
    /// at once, because their clocks have passed all rounds.
    Brief(u32, Value, u32),
    /// The clock passes a round, where a run is recorded. All other clocks have passed all of them.
    Pass(u32),
    /// Sets a key to a value that expires far in the future.
    Lasting(u32, Value),
    /// Applies a batch: what each key becomes.
    Apply(Vec<(u32, Option<Value>)>),
    /// Removes many keys at once.
    RemoveMany(Vec<u32>),
    /// Removes everything from the main table.
    Clear,
    /// Makes the table of that number.
    MakeTable(u32),
    /// Drops the table of that number, whether or not it is there.
    DropTable(u32),
    /// A step in a table that is there: `Insert`, `Update`, `Remove`, `Expired`, `Lasting`, `RemoveMany`, `Clear` or `Reserve`.
    InTable(u32, Box<Op>),
    /// Applies a batch across tables that are there: what each key of each table becomes. Number 0 is the main table.
    ApplyAcross(Vec<(u32, u32, Option<Value>)>),
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
            Op::Brief(key, value, round) => write!(f, "insert {key} until {round} ({} bytes)", value.len),
            Op::Pass(round) => write!(f, "the clock passes {round}"),
            Op::Lasting(key, value) => write!(f, "insert {key} for long ({} bytes)", value.len),
            Op::Apply(changes) => write!(f, "batch of {}", changes.len()),
            Op::RemoveMany(keys) => write!(f, "remove_many of {}", keys.len()),
            Op::Clear => f.write_str("clear"),
            Op::MakeTable(table) => write!(f, "make table {table}"),
            Op::DropTable(table) => write!(f, "drop table {table}"),
            Op::InTable(table, op) => write!(f, "in table {table}: {op:?}"),
            Op::ApplyAcross(changes) => write!(f, "batch of {} across tables", changes.len()),
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
            Op::Reserve(_) | Op::Die | Op::Pass(_) => false,
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
            Op::Brief(k, value, round) if k % 2 == 1 => {
                store.apply(Batch::new().insert_expiring(key(*k), value.bytes(), time(end_of(*round))))
            }
            Op::Brief(k, value, round) => store.expiring(time(end_of(*round))).set(key(*k), value.bytes()),
            Op::Pass(_) => Ok(()),
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
            // Records of tables with odd numbers have aligned values.
            Op::MakeTable(table) if table % 2 == 1 => store.table_of::<[u8], Aligned>(&table_name(*table)).map(drop),
            Op::MakeTable(table) => store.table(&table_name(*table)).map(drop),
            Op::DropTable(table) => store.drop_table(&table_name(*table)).map(drop),
            Op::InTable(table, op) => op.carry_out_in(&store.existing_table(&table_name(*table))?),
            Op::ApplyAcross(changes) => store.apply(&batch_across(store, changes)?),
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

impl Op {
    /// Carries the step out in a table.
    fn carry_out_in(&self, table: &Table) -> tophash::Result<()> {
        match self {
            Op::Insert(k, value) => table.insert(key(*k), value.bytes()).map(drop),
            Op::Update(k, value) => table.update(key(*k), |_| Some(value.bytes())).map(drop),
            Op::Remove(k) => table.remove(key(*k)).map(drop),
            Op::Expired(k, value) => table.expiring(SystemTime::UNIX_EPOCH).set(key(*k), value.bytes()),
            Op::Lasting(k, value) => table.expiring(far()).set(key(*k), value.bytes()),
            Op::RemoveMany(keys) => {
                let keys: Vec<_> = keys.iter().map(|&k| key(k)).collect();
                table.remove_many(&keys).map(drop)
            }
            Op::Clear => table.clear(),
            Op::Reserve(n) => table.reserve(*n),
            op => unreachable!("{op:?} is no step of a table"),
        }
    }
}

/// The name of the table of that number.
#[must_use]
pub fn table_name(number: u32) -> String {
    format!("table {number}")
}

fn batch_across(store: &Store, changes: &[(u32, u32, Option<Value>)]) -> tophash::Result<Batch> {
    let mut batch = Batch::new();
    for (table, k, value) in changes {
        let table = match table {
            0 => (**store).clone(),
            number => store.existing_table(&table_name(*number))?,
        };
        let mut changes = batch.table(&table);
        match value {
            Some(value) => changes.insert(key(*k), value.bytes()),
            None => changes.remove(key(*k)),
        };
    }
    Ok(batch)
}

/// The moment at which scripts run, in milliseconds since 1970.
pub const NOW: u64 = 1_700_000_000_000;
/// Rounds of [`Op::Pass`] at the most.
const ROUNDS: u64 = 100;
/// Their length in milliseconds.
const ROUND: u64 = 60_000;

/// The end of a round, in milliseconds since 1970. All rounds have ended at [`NOW`].
#[must_use]
pub fn end_of(round: u32) -> u64 {
    NOW - (ROUNDS - u64::from(round)) * ROUND
}

fn time(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
}

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
    /// When a run of it that is recorded begins, in milliseconds since 1970.
    #[must_use]
    pub fn begins_at(&self) -> u64 {
        let has_rounds = self.ops.iter().any(|op| matches!(op, Op::Pass(_)));
        if has_rounds { end_of(0) - ROUND / 2 } else { NOW }
    }

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
