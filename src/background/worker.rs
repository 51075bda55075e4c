//! One thread that does several jobs, a turn of each after the other.

use super::jobs::{Job, Next};
use crate::engine::Engine;
use crate::sync::{Instant, Sleeper, Woken};

/// A job, and when its next turn comes.
struct Planned {
    job: Job,
    next: Next,
}

impl Planned {
    /// The job's bit, if its bell can bring its next turn.
    fn listens(&self) -> u32 {
        if matches!(self.next, Next::Rung(_)) { self.job.bit() } else { 0 }
    }

    fn deadline(&self) -> Option<Instant> {
        match self.next {
            Next::Now => None,
            Next::Rung(until) | Next::At(until) => until,
        }
    }

    /// The bell was rung, or the time has come: it is the job's turn.
    fn call(&mut self, rung: u32, now: Option<Instant>) {
        let is_over = || self.deadline().is_some_and(|deadline| now.is_some_and(|now| now >= deadline));
        if rung & self.listens() != 0 || is_over() {
            self.next = Next::Now;
        }
    }
}

/// Does the jobs until the store is closed. A job that has more to do than a turn gives the others theirs in between.
pub(super) fn work<const N: usize>(engine: &Engine, sleeper: &Sleeper, jobs: [Job; N]) {
    let mut plan = jobs.map(|job| Planned { job, next: Next::Now });
    loop {
        for planned in &mut plan {
            if sleeper.is_stopped() {
                return;
            }
            if planned.next == Next::Now {
                planned.next = planned.job.turn(engine, sleeper);
            }
        }
        let listens = plan.iter().fold(0, |all, planned| all | planned.listens());
        let soonest = plan.iter().filter_map(Planned::deadline).min();
        let rung = if plan.iter().any(|planned| planned.next == Next::Now) {
            sleeper.take(listens)
        } else {
            match sleeper.wait(listens, soonest) {
                Woken::Rung(rung) => rung,
                Woken::Timeout => 0,
                Woken::Stop => return,
            }
        };
        let now = soonest.map(|_| Instant::now());
        plan.iter_mut().for_each(|planned| planned.call(rung, now));
    }
}
