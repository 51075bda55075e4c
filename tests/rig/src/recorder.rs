//! Writing down what a crash could leave at each I/O boundary of a run.

use crate::image::{Change, Node};
use crate::world::Call;

/// How far a run had come, in steps of its history.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bounds {
    /// A store had been opened: it must be there after a crash.
    pub exists: bool,
    /// Steps that were acknowledged as durable.
    pub durable: u32,
    /// Steps that had returned.
    pub returned: u32,
    /// Steps that had begun.
    pub started: u32,
}

/// One moment at which the power may fail.
#[derive(Debug, Clone)]
pub struct Boundary {
    /// What was on the disk.
    pub durable: Vec<Node>,
    /// What may or may not have been.
    pub pending: Vec<Change>,
    /// What was promised.
    pub bounds: Bounds,
    /// The call that was about to be made.
    pub call: Call,
}

/// Collects boundaries.
#[derive(Debug, Default)]
pub struct Recorder {
    /// Moments at which something differed from the one before.
    pub boundaries: Vec<Boundary>,
    /// All I/O boundaries, whether or not anything differed.
    pub met: u64,
    pub(crate) bounds: Bounds,
    last: Option<(u64, Bounds)>,
}

impl Recorder {
    pub(crate) fn note(&mut self, call: Call, version: u64, durable: &[Node], pending: &[Change]) {
        self.met += 1;
        if self.last == Some((version, self.bounds)) {
            return;
        }
        self.last = Some((version, self.bounds));
        let (durable, pending) = (durable.to_vec(), pending.to_vec());
        self.boundaries.push(Boundary { durable, pending, bounds: self.bounds, call });
    }
}
