//! Threads that start together.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

/// What a thread passes when it is ready. A thread that fails before drops it, which lets the others pass too.
pub struct Gate<'g>(&'g Barrier);

impl Drop for Gate<'_> {
    fn drop(&mut self) {
        self.0.wait();
    }
}

/// What a thread's work gave, and when it began and ended.
pub struct Passed<T> {
    result: T,
    begin: Instant,
    end: Instant,
}

impl Gate<'_> {
    /// Waits for the others and does the work.
    pub fn pass<T>(self, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<Passed<T>> {
        drop(self);
        let begin = Instant::now();
        let result = work()?;
        Ok(Passed { result, begin, end: Instant::now() })
    }
}

/// Runs the threads; returns the time from the first one's start to the last one's end, and what each of them gave.
pub fn run<T: Send>(
    threads: u64,
    thread: impl Fn(u64, Gate<'_>) -> anyhow::Result<Passed<T>> + Sync,
) -> anyhow::Result<(Duration, Vec<T>)> {
    let barrier = Barrier::new(usize::try_from(threads)?);
    let passed: Vec<_> = thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|i| {
                let (thread, gate) = (&thread, Gate(&barrier));
                scope.spawn(move || thread(i, gate))
            })
            .collect();
        handles
            .into_iter()
            .map(|handle| handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let passed = passed.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let begin = passed.iter().map(|passed| passed.begin).min();
    let end = passed.iter().map(|passed| passed.end).max();
    let span = begin.zip(end).map_or(Duration::ZERO, |(begin, end)| end - begin);
    Ok((span, passed.into_iter().map(|passed| passed.result).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_threads_give_something() {
        let (span, results) = run(3, |thread, gate| gate.pass(|| Ok(thread * 10))).unwrap();
        assert_eq!(results, [0, 10, 20]);
        assert!(span > Duration::ZERO);
    }

    #[test]
    fn a_thread_that_is_never_ready_holds_up_nobody() {
        let failed = run(2, |thread, gate| {
            anyhow::ensure!(thread == 0, "not ready");
            gate.pass(|| Ok(()))
        });
        assert_eq!(failed.unwrap_err().to_string(), "not ready");
    }
}
