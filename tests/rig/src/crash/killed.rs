//! The process is killed, the machine goes on, and then the power fails in what follows.
//!
//! At a boundary of a script the process dies. The next one sees all that it had done, and nothing of that has become
//! durable by it. It opens the store, or compacts it offline before, uses it, and closes it; and at each boundary of
//! this the power fails, with everything that was pending when the first process died still pending. Until the store is
//! open, what was promised before must be kept; afterwards, all that was recovered, because an open promises it.

use super::{Examined, Fate, How, Layer, Nested, Origin, Outcome, Settings, Tally, caught, each_boundary};
use crate::disk::SimDisk;
use crate::image::{Change, ChangeKind};
use crate::random::{Random, mix};
use crate::recorder::Boundary;
use crate::script::{Op, Script};

/// Runs one script through this layer.
#[must_use]
pub fn run(script: &Script, settings: &Settings) -> Outcome {
    each_boundary(script, settings, |layer, boundary, number| layer.kill(boundary, number))
}

/// True for a change that only the fsync of a directory makes durable.
fn is_name(change: &Change) -> bool {
    matches!(change.kind, ChangeKind::Link(..) | ChangeKind::Unlink(_) | ChangeKind::Rename(..))
}

impl Layer<'_> {
    fn kill(&self, boundary: &Boundary, number: u64) {
        let settings = self.settings;
        // Each script chooses for itself: with numbers of their own they would all be killed at the same ones, or at none.
        let own = self.script.name.bytes().fold(settings.seed, |sum, byte| mix(sum ^ u64::from(byte)));
        let mut random = Random::new(own ^ mix(!number));
        // Where names are pending, more can go wrong.
        let names = boundary.pending.iter().any(is_name);
        if !random.one_in(if names { settings.killed_one_in.div_ceil(4) } else { settings.killed_one_in }) {
            return;
        }
        let compacts = self.script.ops.iter().any(|op| matches!(op, Op::Offline(..)));
        let fates = vec![Fate::Kept; boundary.pending.len()];
        let first = Origin { boundary, fates: &fates, history: &self.history, first: None, killed: true };
        let how = How {
            seed: random.word(),
            interrupt: true,
            thorough: random.one_in(2),
            repaired: false,
            compacted: random.one_in(if compacts { 2 } else { 8 }),
            bounds: boundary.bounds,
        };
        let mut tally = Tally { examined: 1, killed: 1, ..Tally::default() };
        let disk = SimDisk::of_killed(boundary, how.seed);
        let mut examined = Examined::default();
        let attempt = caught(|| {
            let recovered = self.open_and_use(&disk, how, first.history, &mut examined)?;
            first.history.check(&recovered, boundary.bounds, true)
        });
        tally.add(&examined.tally);
        if let Err(what) = attempt {
            self.violation(&what, &first);
        }
        if let Some(Nested { opening, using, history }) = examined.nested {
            self.interrupt(&opening, first.history, &first, settings.followed_one_in, &mut tally);
            self.interrupt(&using, &history, &first, settings.followed_one_in, &mut tally);
        }
        self.outcome.lock().tally.add(&tally);
    }
}
