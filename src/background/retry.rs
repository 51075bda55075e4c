//! When to try again what has failed.

use std::time::Duration;

use crate::sync::Instant;

/// The first and the longest pause after an attempt that failed.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Longer and longer pauses between attempts that fail.
#[derive(Debug)]
pub(super) struct Retry {
    next: Duration,
}

impl Retry {
    pub(super) fn new() -> Self {
        Retry { next: RETRY.0 }
    }

    /// When to try again.
    pub(super) fn later(&mut self) -> Option<Instant> {
        let pause = self.next;
        self.next = (pause * 2).min(RETRY.1);
        after(pause)
    }
}

/// A moment from now; none if it lies beyond all that a clock can tell.
pub(super) fn after(pause: Duration) -> Option<Instant> {
    Instant::now().checked_add(pause)
}
