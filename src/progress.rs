//! How far long work has come, and how a caller ends it.

use std::ops::ControlFlow;

/// How far a long operation has come. The caller's function gets one of these now and then, and answers whether the
/// operation goes on.
///
/// `done` and `total` count bytes in checks, repairs, diagnoses and [`Store::compact_with`](crate::Store::compact_with),
/// and records and bytes of the check before it in [`compact`](crate::compact): what matters is their ratio. `total` can
/// grow while more work comes to light; `done` never exceeds it.
///
/// ```
/// # fn main() -> tophash::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("sessions.tophash");
/// # tophash::Store::open(&path)?.close()?;
/// use std::ops::ControlFlow;
/// use std::time::{Duration, Instant};
/// let end = Instant::now() + Duration::from_secs(600);
/// let report = tophash::verify::verify_with(&path, |progress| {
///     eprintln!("{} of {} bytes", progress.done, progress.total);
///     if Instant::now() < end { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
/// })?;
/// # assert!(report.is_clean());
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Work done.
    pub done: u64,
    /// Work in all, as far as it is known.
    pub total: u64,
}

impl Progress {
    /// Lets the operation go on, whatever its progress: for callers that only want the other arguments of a call.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("sessions.tophash");
    /// # tophash::Store::open(&path)?.close()?;
    /// use tophash::{Progress, compact};
    /// compact::compact_with(&path, &compact::Options::new(), Progress::ignore)?;
    /// # Ok::<(), tophash::Error>(())
    /// ```
    pub fn ignore(self) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// A caller's function.
pub(crate) type OnProgress<'p> = dyn FnMut(Progress) -> ControlFlow<()> + 'p;

/// Tells the caller; `Break` if the operation is to end.
pub(crate) fn tell(progress: &mut OnProgress<'_>, done: u64, total: u64) -> ControlFlow<()> {
    progress(Progress { done: done.min(total), total })
}
