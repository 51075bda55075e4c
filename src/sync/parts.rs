//! The order in which the parts of parallel work begin. The system chooses it, and a busy system chooses badly: a
//! part's thread may begin when all others are done, or not at all. Tests choose it by a [`PartPlan`].

use super::{Condvar, Mutex};

/// Parts of a recovery's work, for tests. The default leaves both to the machine.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartPlan {
    /// How many, however little work there is. 0: as many as there are processors, if the work is worth it.
    pub parts: usize,
    /// When each of them begins.
    pub order: PartOrder,
}

/// When each part of some work begins.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PartOrder {
    /// As the system starts the threads.
    #[default]
    AtOnce,
    /// Each when the one before it is done.
    FirstFirst,
    /// Each when the one behind it is done.
    LastFirst,
    /// This one (modulo their number) when all others are done.
    Late(usize),
    /// This one (modulo their number) before all others, which begin together when it is done.
    Early(usize),
    /// The system refuses a thread to this one (modulo their number).
    NoThreadFor(usize),
    /// The system refuses every thread.
    NoThreads,
}

impl PartOrder {
    /// A part begins when all parts of lower rank are done.
    fn rank(self, part: usize, parts: usize) -> usize {
        match self {
            PartOrder::FirstFirst => part,
            PartOrder::LastFirst => parts - 1 - part,
            PartOrder::Late(late) => usize::from(part == late % parts),
            PartOrder::Early(early) => usize::from(part != early % parts),
            PartOrder::AtOnce | PartOrder::NoThreadFor(_) | PartOrder::NoThreads => 0,
        }
    }

    /// False if the thread of a part is to be refused.
    pub(super) fn has_thread(self, part: usize, parts: usize) -> bool {
        match self {
            PartOrder::NoThreadFor(without) => part != without % parts,
            PartOrder::NoThreads => false,
            _ => true,
        }
    }
}

/// Holds each part back until its turn.
pub(super) struct Turns {
    order: PartOrder,
    parts: usize,
    /// Parts that are done, by rank.
    done: Mutex<Vec<usize>>,
    changed: Condvar,
}

/// A part that runs. It is done when this is dropped, by a panic too.
pub(super) struct Turn<'t> {
    turns: &'t Turns,
    rank: usize,
}

impl Turns {
    pub(super) fn new(order: PartOrder, parts: usize) -> Self {
        Turns { order, parts, done: Mutex::new(Vec::new()), changed: Condvar::new() }
    }

    /// Waits for the turn of a part.
    pub(super) fn wait(&self, part: usize) -> Turn<'_> {
        let rank = self.order.rank(part, self.parts);
        let before = (0..self.parts).filter(|&other| self.order.rank(other, self.parts) < rank).count();
        if before > 0 {
            let mut done = self.done.lock();
            while done.iter().filter(|&&other| other < rank).count() < before {
                self.changed.wait(&mut done);
            }
        }
        Turn { turns: self, rank }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.turns.order != PartOrder::AtOnce {
            self.turns.done.lock().push(self.rank);
            self.turns.changed.notify_all();
        }
    }
}
