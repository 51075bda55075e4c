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
    /// EMFILE: the process has no descriptor left.
    Descriptors,
    /// ENFILE: the system has none left.
    SystemDescriptors,
    /// ENOMEM: no memory, or no further mapping.
    Memory,
    /// EDQUOT: the owner of the files may not have more of the disk.
    Quota,
}

impl Fault {
    /// Those of the device.
    pub const ALL: [Fault; 4] = [Fault::Io, Fault::Full, Fault::Short, Fault::Interrupted];
    /// Those of the moment: what the process or its owner lacks now, and has again later. Nothing was tried, so no fsync
    /// of a file fails so.
    pub const OF_THE_MOMENT: [Fault; 4] = [Fault::Descriptors, Fault::SystemDescriptors, Fault::Memory, Fault::Quota];

    /// Whether a call can fail so.
    #[must_use]
    pub fn fits(self, call: Call) -> bool {
        use Call::{Allocate, Create, CreateDir, Lock, Read, Rename, SyncAll, SyncData, SyncDir, Write};
        use Call::{MapAnonymous, MapFresh, MapLog, MapPrivate, Open, ReadDir};
        match self {
            Fault::Io => true,
            Fault::Full => {
                [Allocate, Create, CreateDir, Lock, Rename, Write, SyncAll, SyncData, SyncDir].contains(&call)
            }
            Fault::Short => [Read, Write].contains(&call),
            Fault::Interrupted => [Read, Write].contains(&call),
            Fault::Descriptors | Fault::SystemDescriptors => [Open, Create, ReadDir, Lock, SyncDir].contains(&call),
            Fault::Memory => {
                let names = [Open, Create, CreateDir, ReadDir, Lock, SyncDir];
                names.contains(&call) || [MapAnonymous, MapPrivate, MapFresh, MapLog].contains(&call)
            }
            Fault::Quota => [Allocate, Create, CreateDir, Lock, Rename, Write].contains(&call),
        }
    }

    /// Whether a call that fails so has left what it was to write in an unknown state. The others fail before anything
    /// is tried.
    #[must_use]
    pub fn lies(self) -> bool {
        !Fault::OF_THE_MOMENT.contains(&self)
    }

    /// The number of the error.
    #[must_use]
    pub fn errno(self) -> i32 {
        match self {
            Fault::Io | Fault::Short => 5,
            Fault::Full => 28,
            Fault::Interrupted => 4,
            Fault::Descriptors => 24,
            Fault::SystemDescriptors => 23,
            Fault::Memory => 12,
            Fault::Quota => 122,
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
    /// It is followed by every later call of its kind. A full disk fails whatever needs space; without descriptors or
    /// memory, whatever needs one fails.
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
            Fault::Full | Fault::Quota => [Call::Allocate, Call::Create, Call::CreateDir, Call::Write].contains(&call),
            // A call that is interrupted every time is a call that never returns.
            Fault::Interrupted => call == hit && (number - self.at).is_multiple_of(2),
            Fault::Io | Fault::Short => call == hit,
            // Whatever needs one.
            Fault::Descriptors | Fault::SystemDescriptors | Fault::Memory => self.fault.fits(call),
        };
        again.then_some(self.fault)
    }
}
