//! The resources layer: for a moment, the process lacks what calls need: descriptors, memory, mappings, a quota.
//!
//! Each fault of the moment is tried at each call that can meet it: once, for some steps, or until the script ends. While
//! it lasts, a step may fail with the error that says so. Nothing of it is permanent: the store is not poisoned, no
//! record counts as damaged, and a failed step can be repeated as soon as the fault is over, without opening the
//! store again. `verify` finds nothing.

use std::path::Path;

use tophash::{Error, Options, Store};

use crate::counts::counts;
use crate::crash::caught;
use crate::disk::SimDisk;
use crate::faults::{Fault, FaultPlan};
use crate::oracle::{Content, carry_out, content_of, in_main, value_of};
use crate::run::{STORE, blank, kill};
use crate::script::{Op, Script, Value, key};
use crate::world::Call;

/// How long a fault lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasts {
    /// One call fails.
    Once,
    /// Every call that needs the same, for some steps.
    Steps,
    /// Until the script is over.
    Script,
}

/// One fault.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// The number of the first call that fails.
    pub at: u64,
    /// How it fails.
    pub fault: Fault,
    /// For how long.
    pub lasts: Lasts,
}

impl Case {
    /// Tells the cases of a script apart.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.at << 8 | (self.fault as u64) << 4 | self.lasts as u64
    }
}

/// What was done.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Faults that a call met.
    pub faults: u64,
    /// Errors that the store returned for them.
    pub errors: u64,
    /// Steps that were repeated when the fault was over.
    pub repeated: u64,
}

impl Tally {
    /// Adds another one.
    pub fn add(&mut self, other: &Tally) {
        self.faults += other.faults;
        self.errors += other.errors;
        self.repeated += other.repeated;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "faults {}, errors {}, steps repeated {}", self.faults, self.errors, self.repeated)
    }
}

/// Steps after which a fault of some steps is over.
const STEPS: u32 = 6;

/// The calls of a script, in order.
///
/// # Errors
/// If the script fails although no call does.
pub fn calls(script: &Script, seed: u64) -> Result<Vec<Call>, String> {
    let mut run = Run::new(script, seed, Lasts::Once);
    run.disk.set_faults(Some(FaultPlan::count()));
    run.script()?;
    Ok(run.disk.faults().and_then(|plan| plan.log).unwrap_or_default())
}

/// Every fault of the moment at every call that can meet it.
#[must_use]
pub fn cases(calls: &[Call]) -> Vec<Case> {
    let mut all = Vec::new();
    for (at, &call) in calls.iter().enumerate() {
        for fault in Fault::OF_THE_MOMENT.into_iter().filter(|fault| fault.fits(call)) {
            all.extend([Lasts::Once, Lasts::Steps, Lasts::Script].map(|lasts| Case { at: at as u64, fault, lasts }));
        }
    }
    all
}

/// Carries a script out with one fault.
///
/// # Errors
/// In words: what was permanent.
pub fn run(script: &Script, seed: u64, case: Case) -> Result<Tally, String> {
    let mut run = Run::new(script, seed, case.lasts);
    run.disk.set_faults(Some(FaultPlan::new(case.at, case.fault, case.lasts != Lasts::Once)));
    let result = caught(|| {
        let store = run.script()?;
        run.end(store)
    });
    result.map_err(|what| format!("{}, {case:?}: {what}", script.name))?;
    Ok(run.tally)
}

struct Run<'s> {
    script: &'s Script,
    lasts: Lasts,
    disk: SimDisk,
    options: Options,
    content: Content,
    tally: Tally,
}

impl<'s> Run<'s> {
    fn new(script: &'s Script, seed: u64, lasts: Lasts) -> Self {
        let disk = SimDisk::untracked(blank(), seed);
        let options = script.options(&disk);
        Run { script, lasts, disk, options, content: Content::new(), tally: Tally::default() }
    }

    fn heal(&mut self) {
        let hit = self.disk.faults().is_some_and(|plan| plan.hit.is_some());
        self.tally.faults += u64::from(hit);
        self.disk.set_faults(None);
    }

    /// An error must say what the process lacks, and nothing else.
    fn of_the_moment(&mut self, error: &Error) -> Result<(), String> {
        self.tally.errors += 1;
        let hit = self.disk.faults().and_then(|plan| plan.hit.map(|_| plan.fault));
        let fits = match (error, hit) {
            (Error::Io { source, .. }, Some(fault)) => source.raw_os_error() == Some(fault.errno()),
            (Error::DiskFull { .. }, Some(Fault::Quota)) => true,
            _ => false,
        };
        if fits { Ok(()) } else { Err(format!("a fault of the moment is told as: {error:?}")) }
    }

    fn open(&mut self) -> Result<Store, String> {
        let store = match self.options.open(STORE) {
            Ok(store) => store,
            Err(error) => {
                self.of_the_moment(&error)?;
                self.heal();
                self.tally.repeated += 1;
                self.options.open(STORE).map_err(|error| format!("the fault is over, but the open fails: {error}"))?
            }
        };
        self.compare(&store)?;
        Ok(store)
    }

    /// What is in the store is what was put there. No call fails meanwhile.
    fn compare(&self, store: &Store) -> Result<(), String> {
        let plan = self.disk.faults();
        self.disk.set_faults(None);
        let found = content_of(store);
        let read = self.content.iter().try_for_each(|(key, value)| match value_of(store, key) {
            Ok(Some(found)) if *found == **value => Ok(()),
            Ok(_) => Err("a record is lost".to_string()),
            Err(error) => Err(format!("a record that was whole cannot be read: {error}")),
        });
        self.disk.set_faults(plan);
        read?;
        let (found, len) = (found?, store.len());
        if found != self.content || !counts(store, in_main(&found)) {
            return Err(format!("{} entries of {}, or others; {len} by len", found.len(), self.content.len()));
        }
        let stats = store.stats();
        match stats.poisoned {
            None if stats.compaction.damaged_segments == 0 => Ok(()),
            None => Err("a segment counts as damaged".into()),
            Some(cause) => Err(format!("poisoned: {cause}")),
        }
    }

    fn script(&mut self) -> Result<Store, String> {
        let mut store = self.open()?;
        let mut after = 0;
        for (i, op) in self.script.ops.iter().enumerate() {
            after += u32::from(self.disk.faults().is_some_and(|plan| plan.hit.is_some()));
            if after == STEPS && self.lasts == Lasts::Steps {
                self.heal();
                self.compare(&store)?;
            }
            store = self.step(store, op).map_err(|what| format!("step {i}, {op:?}: {what}"))?;
        }
        Ok(store)
    }

    fn step(&mut self, store: Store, op: &Op) -> Result<Store, String> {
        match op {
            Op::Reopen | Op::Offline(..) => {
                if let Err(error) = store.close() {
                    self.of_the_moment(&error)?;
                }
                if let Op::Offline(_, work) = op
                    && let Err(error) = work(Path::new(STORE), &self.options)
                {
                    self.of_the_moment(&error)?;
                }
                self.open()
            }
            Op::Die => {
                kill(&self.disk, store);
                self.open()
            }
            _ => {
                self.carry_out(&store, op)?;
                Ok(store)
            }
        }
    }

    /// One step. If it fails, it has not happened, and it can be repeated when the fault is over; a fault that
    /// lasts goes on after it. A removal of many keys keeps the part that it made.
    fn carry_out(&mut self, store: &Store, op: &Op) -> Result<(), String> {
        let Err(error) = op.carry_out(store) else {
            carry_out(op, &mut self.content);
            return Ok(());
        };
        self.of_the_moment(&error)?;
        let plan = self.disk.faults();
        self.disk.set_faults(None);
        if !matches!(op, Op::RemoveMany(_)) {
            self.compare(store).map_err(|what| format!("failed ({error}), and has changed something: {what}"))?;
        }
        self.tally.repeated += 1;
        op.carry_out(store).map_err(|again| format!("failed ({error}), and when the fault is over: {again}"))?;
        carry_out(op, &mut self.content);
        self.compare(store)?;
        self.disk.set_faults(plan);
        Ok(())
    }

    /// The fault is over, and everything works, without the store being opened again. Then it is, twice.
    fn end(&mut self, store: Store) -> Result<(), String> {
        self.heal();
        self.compare(&store)?;
        let last = [
            Op::Insert(1, Value { len: 300, tag: 77 }),
            Op::Sync,
            Op::Checkpoint,
            Op::Maintain("compact", false, |store| store.compact().map(|_| ())),
            Op::Remove(2),
            Op::Insert(3, Value { len: 1500, tag: 78 }),
        ];
        for op in &last {
            op.carry_out(&store).map_err(|error| format!("the fault is over, and {op:?}: {error}"))?;
            carry_out(op, &mut self.content);
        }
        self.compare(&store)?;
        kill(&self.disk, store);
        let store = self.open()?;
        store.insert(key(4), "after").map_err(|error| format!("after a recovery: {error}"))?;
        self.content.insert(key(4), b"after".to_vec());
        store.close().map_err(|error| format!("close: {error}"))?;
        let report = tophash::verify::verify_disk(&self.disk, STORE, tophash::Progress::ignore)
            .map_err(|e| format!("verify: {e}"))?;
        if !report.is_clean() {
            return Err(format!("verify: {:?}", report.findings));
        }
        self.open().map(drop)
    }
}
