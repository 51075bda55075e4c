//! What a thread did while one of its operations took a millisecond or more.
//!
//! The kernel counts, for each thread, how often it waited, how long it ran, and how long it could have run while others
//! had the processor. A pause with none of the three was spent outside this system: on a virtual machine the host can take a processor
//! away for many milliseconds, and does when others want it, or when the machine's disk is busy.

use std::fs;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Operations between two looks at the counters: what happens in between is ascribed to the pause that ends it.
const LOOK_EVERY: u32 = 128;
/// The same of the one counter that takes longer to look at.
const LOOK_AT_DELAY_EVERY: u32 = 2048;

/// Times of pauses, in nanoseconds, by what the thread did most of all.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Causes {
    /// It waited: for a lock, or for the disk.
    pub waited: u64,
    /// It could run, but another thread had the processor.
    pub preempted: u64,
    /// It ran.
    pub ran: u64,
    /// None of these: the host had the processor.
    pub stolen: u64,
}

impl Causes {
    /// With the names that the tables use.
    pub fn named(&self) -> [(&'static str, u64); 4] {
        [
            ("it waited for a lock or the disk", self.waited),
            ("others had the processor", self.preempted),
            ("it ran", self.ran),
            ("the machine stood still", self.stolen),
        ]
    }

    /// Adds those of another thread.
    pub fn add(&mut self, other: &Causes) {
        self.waited += other.waited;
        self.preempted += other.preempted;
        self.ran += other.ran;
        self.stolen += other.stolen;
    }

    fn ascribe(&mut self, pause: u64, before: Counters, after: Counters) {
        let cause = if after.ran.saturating_sub(before.ran) >= pause / 2 {
            &mut self.ran
        } else if after.delayed.saturating_sub(before.delayed) >= pause / 2 {
            &mut self.preempted
        } else if after.waited > before.waited {
            &mut self.waited
        } else {
            &mut self.stolen
        };
        *cause = cause.saturating_add(pause);
    }
}

/// The kernel's counters of a thread.
#[derive(Debug, Default, Clone, Copy)]
struct Counters {
    waited: i64,
    /// Nanoseconds.
    ran: u64,
    /// Nanoseconds in which it could have run.
    delayed: u64,
}

impl Counters {
    /// Without `delayed`, which stays as it is.
    fn look(&mut self) {
        self.waited = getrusage(UsageWho::RUSAGE_THREAD).map_or(0, |usage| usage.voluntary_context_switches());
        // The times among the usage are those of the last clock tick.
        let ran = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from);
        self.ran = u64::try_from(ran.as_nanos()).unwrap_or(u64::MAX);
    }

    fn look_at_delay(&mut self) {
        // Time on the processor, time in wait for it, turns.
        let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        self.delayed = text.split_whitespace().nth(1).and_then(|nanos| nanos.parse().ok()).unwrap_or(0);
    }
}

/// Looks at the counters now and then, and after each pause.
#[derive(Debug, Default)]
pub struct Watch {
    seen: Counters,
    operations: u32,
    pub causes: Causes,
}

impl Watch {
    /// Before an operation.
    #[inline]
    pub fn before(&mut self) {
        if self.operations.is_multiple_of(LOOK_EVERY) {
            self.seen.look();
        }
        if self.operations.is_multiple_of(LOOK_AT_DELAY_EVERY) {
            self.seen.look_at_delay();
        }
        self.operations = self.operations.wrapping_add(1);
    }

    /// After an operation that was a pause.
    #[cold]
    pub fn after_pause(&mut self, time: Duration) {
        let mut now = Counters::default();
        now.look();
        now.look_at_delay();
        self.causes.ascribe(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), self.seen, now);
        self.seen = now;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// What the causes of one operation are.
    fn of(operation: impl FnOnce()) -> Causes {
        let mut watch = Watch::default();
        watch.before();
        let started = Instant::now();
        operation();
        watch.after_pause(started.elapsed());
        watch.causes
    }

    #[test]
    fn waiting_and_running_are_told_apart() {
        let causes = of(|| std::thread::sleep(Duration::from_millis(20)));
        assert!(causes.waited + causes.preempted >= 20_000_000 && causes.ran + causes.stolen == 0, "{causes:?}");
        // On a busy machine it may not get the processor for half of the time; then it was preempted.
        let causes = of(|| {
            let started = Instant::now();
            while started.elapsed() < Duration::from_millis(20) {}
        });
        assert!(causes.ran + causes.preempted + causes.stolen >= 20_000_000 && causes.waited == 0, "{causes:?}");
    }

    #[test]
    fn each_cause_is_counted_where_it_belongs() {
        let at = |waited, delayed, ran| Counters { waited, ran, delayed };
        let mut causes = Causes::default();
        causes.ascribe(1_000_000, at(1, 1, 0), at(1, 1, 600_000));
        causes.ascribe(2_000_000, at(1, 1, 0), at(2, 1_000_001, 0));
        causes.ascribe(3_000_000, at(1, 1, 0), at(2, 1, 0));
        causes.ascribe(4_000_000, at(1, 1, 0), at(1, 1, 1_000));
        assert_eq!(causes, Causes { ran: 1_000_000, preempted: 2_000_000, waited: 3_000_000, stolen: 4_000_000 });
        let mut sum = causes;
        sum.add(&causes);
        assert_eq!(sum.named().map(|(_, nanos)| nanos), [6_000_000, 4_000_000, 2_000_000, 8_000_000]);
    }
}
