//! Calls that fail.

use crate::world::Call;

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// EIO. An fsync that fails so lies from then on.
    Io,
    /// ENOSPC.
    Full,
    /// Less is read or written than was asked for.
    Short,
    /// EINTR.
    Interrupted,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 4] = [Fault::Io, Fault::Full, Fault::Short, Fault::Interrupted];

    /// Whether a call can fail so.
    #[must_use]
    pub fn fits(self, call: Call) -> bool {
        use Call::{Allocate, Create, CreateDir, Lock, Read, Rename, SyncAll, SyncData, SyncDir, Write};
        match self {
            Fault::Io => true,
            Fault::Full => {
                [Allocate, Create, CreateDir, Lock, Rename, Write, SyncAll, SyncData, SyncDir].contains(&call)
            }
            Fault::Short => [Read, Write].contains(&call),
            Fault::Interrupted => [Read, Write].contains(&call),
        }
    }
}

/// Which calls fail.
#[derive(Debug, Clone)]
pub struct FaultPlan {
    /// Calls made so far.
    pub calls: u64,
    /// The calls made, by kind, if they are to be written down.
    pub log: Option<Vec<Call>>,
    /// The number of the first call that fails.
    pub at: u64,
    /// How.
    pub fault: Fault,
    /// It is followed by every later call of its kind. A full disk fails whatever needs space.
    pub for_ever: bool,
    /// The kind of call that failed.
    pub hit: Option<Call>,
}

impl FaultPlan {
    /// No fault: calls are only counted.
    #[must_use]
    pub fn count() -> Self {
        FaultPlan { calls: 0, log: Some(Vec::new()), at: u64::MAX, fault: Fault::Io, for_ever: false, hit: None }
    }

    /// The call of that number fails.
    #[must_use]
    pub fn new(at: u64, fault: Fault, for_ever: bool) -> Self {
        FaultPlan { calls: 0, log: None, at, fault, for_ever, hit: None }
    }

    /// The disk is full from now on.
    #[must_use]
    pub fn full() -> Self {
        FaultPlan { calls: 1, hit: Some(Call::Allocate), ..FaultPlan::new(0, Fault::Full, true) }
    }

    /// What becomes of the next call.
    pub(crate) fn next(&mut self, call: Call) -> Option<Fault> {
        let number = self.calls;
        self.calls += 1;
        if let Some(log) = &mut self.log {
            log.push(call);
        }
        if number == self.at && self.fault.fits(call) {
            self.hit = Some(call);
            return Some(self.fault);
        }
        let hit = self.hit.filter(|_| self.for_ever && number > self.at)?;
        let again = match self.fault {
            // What was allocated is there, so syncs go on; whether a write needs more, the disk knows.
            Fault::Full => [Call::Allocate, Call::Create, Call::CreateDir, Call::Write].contains(&call),
            // A call that is interrupted every time is a call that never returns.
            Fault::Interrupted => call == hit && (number - self.at).is_multiple_of(2),
            Fault::Io | Fault::Short => call == hit,
        };
        again.then_some(self.fault)
    }
}
