//! When a record expires, as a caller says it and as the log keeps it.

use std::time::{Duration, SystemTime};

/// When what is written from now on expires: see [`Store::expiring`](crate::Table::expiring).
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use tophash::Expiry;
/// assert_eq!(Expiry::from(Duration::from_secs(60)), Expiry::After(Duration::from_secs(60)));
/// assert_eq!(Expiry::from(SystemTime::UNIX_EPOCH), Expiry::At(SystemTime::UNIX_EPOCH));
/// assert_eq!(Expiry::default(), Expiry::Never);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Expiry {
    /// It does not expire.
    #[default]
    Never,
    /// So long after the write.
    After(Duration),
    /// At a time. One that has passed makes the key absent at once.
    At(SystemTime),
}

impl From<Duration> for Expiry {
    fn from(after: Duration) -> Self {
        Expiry::After(after)
    }
}

impl From<SystemTime> for Expiry {
    fn from(at: SystemTime) -> Self {
        Expiry::At(at)
    }
}

/// As what [`Store::expires_at`](crate::Table::expires_at) returns.
impl From<Option<SystemTime>> for Expiry {
    fn from(at: Option<SystemTime>) -> Self {
        at.map_or(Expiry::Never, Expiry::At)
    }
}

impl Expiry {
    /// The deadline of a record that is written now. `now` is asked only if it counts.
    #[inline]
    pub(crate) fn deadline(self, now: impl FnOnce() -> u64) -> Deadline {
        match self {
            Expiry::Never => Deadline::NEVER,
            Expiry::After(after) => Deadline::new(u128::from(now()) + after.as_millis()),
            Expiry::At(at) => Deadline::at(at),
        }
    }
}

/// The moment from which on a record is expired, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Deadline(u64);

impl Deadline {
    /// No deadline.
    pub(crate) const NEVER: Deadline = Deadline(u64::MAX);
    /// The latest deadline that is kept; a later one is none. Sums with it do not overflow.
    const LAST: u64 = 1 << 62;

    fn new(millis: u128) -> Self {
        if millis > u128::from(Self::LAST) { Self::NEVER } else { Deadline(millis as u64) }
    }

    /// The deadline of a time. Before 1970 it is 1970.
    pub(crate) fn at(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // The record lives up to the time, so a part of a millisecond counts.
        Self::new(since.as_nanos().div_ceil(1_000_000))
    }

    /// What a record says.
    pub(crate) fn from_record(millis: u64) -> Self {
        Self::new(u128::from(millis))
    }

    /// Milliseconds since 1970, if there is a deadline.
    #[inline]
    pub(crate) fn millis(self) -> Option<u64> {
        (self != Self::NEVER).then_some(self.0)
    }

    /// The time, if there is a deadline that a clock can show.
    pub(crate) fn time(self) -> Option<SystemTime> {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(self.millis()?))
    }

    /// True if the record is expired at that moment.
    #[inline]
    pub(crate) fn is_over(self, now: u64) -> bool {
        self.0 <= now && self != Self::NEVER
    }
}

/// Milliseconds since 1970 on the system's clock.
pub(crate) fn system_now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_a_time_or_none() {
        let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        assert_eq!(Deadline::at(at(5)), Deadline(5));
        assert_eq!(Deadline::at(at(5) + Duration::from_nanos(1)), Deadline(6));
        assert_eq!(Deadline::at(SystemTime::UNIX_EPOCH - Duration::from_secs(1)), Deadline(0));
        assert_eq!(Expiry::After(Duration::MAX).deadline(|| 7), Deadline::NEVER);
        assert_eq!(Expiry::After(Duration::from_micros(1500)).deadline(|| 7), Deadline(8));
        assert_eq!(Expiry::Never.deadline(|| unreachable!()), Deadline::NEVER);
        assert_eq!(Deadline(5).time(), Some(at(5)));
        assert_eq!(Deadline::NEVER.time(), None);
        assert!(Deadline(5).is_over(5) && !Deadline(5).is_over(4) && !Deadline::NEVER.is_over(u64::MAX));
        assert_eq!(Deadline::from_record(u64::MAX), Deadline::NEVER);
    }
}
