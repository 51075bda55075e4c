//! Runs operations in threads, with or without a clock.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use super::latency::{Clock, Latencies, NoClock};
use crate::interrupt;

/// One kind of operation.
pub trait Operation: Sync {
    /// What a thread keeps from one operation to the next: buffers, random numbers.
    type State;

    /// The state of a thread; `thread` makes its random numbers its own.
    fn state(&self, thread: u64) -> Self::State;

    /// Carries out operation `i`, with the store's part inside [`Clock::time`]. False if the store answered wrong.
    fn run(&self, state: &mut Self::State, i: u64, clock: &mut impl Clock) -> tophash::Result<bool>;
}

/// How long to go on.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// Operations in all, shared among the threads.
    Operations(u64),
    /// Every thread goes on for this long.
    Time(Duration),
}

/// What a pass gave.
#[derive(Debug)]
pub struct Pass {
    /// Operations carried out.
    pub operations: u64,
    /// From the first thread's start to the last one's end.
    pub time: Duration,
    /// Wrong answers.
    pub wrong: u64,
    /// Times of the single operations; empty without a clock.
    pub latencies: Latencies,
}

impl Pass {
    /// Nothing yet.
    pub fn empty() -> Self {
        Pass { operations: 0, time: Duration::ZERO, wrong: 0, latencies: Latencies::new() }
    }

    /// Adds a pass that followed this one.
    pub fn append(&mut self, next: &Pass) {
        self.operations += next.operations;
        self.time += next.time;
        self.wrong += next.wrong;
        self.latencies.add(&next.latencies);
    }
}

/// Operations between two looks at whether the user wants to stop, or at the time.
const LOOK_EVERY: u64 = 64;

/// A pass without a clock, for throughput.
pub fn throughput<O: Operation>(operation: &O, threads: u64, until: Until) -> anyhow::Result<Pass> {
    run(operation, threads, until, || NoClock).map(|(pass, _)| pass)
}

/// A pass that times each operation.
pub fn latency<O: Operation>(operation: &O, threads: u64, until: Until) -> anyhow::Result<Pass> {
    let (mut pass, clocks) = run(operation, threads, until, Latencies::new)?;
    for clock in &clocks {
        pass.latencies.add(clock);
    }
    Ok(pass)
}

fn run<O: Operation, C: Clock + Send>(
    operation: &O,
    threads: u64,
    until: Until,
    clock: impl Fn() -> C,
) -> anyhow::Result<(Pass, Vec<C>)> {
    let threads = threads.max(1);
    let barrier = Barrier::new(usize::try_from(threads)?);
    let results: Vec<_> = thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|thread| {
                let (clock, barrier) = (clock(), &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    worker(operation, Share { first: thread, step: threads }, until, clock)
                })
            })
            .collect();
        handles.into_iter().map(thread::ScopedJoinHandle::join).collect()
    });
    interrupt::check()?;

    let mut pass = Pass::empty();
    let mut span: Option<(Instant, Instant)> = None;
    let mut clocks = Vec::new();
    for result in results {
        let worked = match result {
            Ok(worked) => worked?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        pass.operations += worked.operations;
        pass.wrong += worked.wrong;
        let (begin, end) = span.unwrap_or((worked.begin, worked.end));
        span = Some((begin.min(worked.begin), end.max(worked.end)));
        clocks.push(worked.clock);
    }
    pass.time = span.map_or(Duration::ZERO, |(begin, end)| end - begin);
    Ok((pass, clocks))
}

/// The operations of one thread: `first`, `first + step`, ...
#[derive(Debug, Clone, Copy)]
struct Share {
    first: u64,
    step: u64,
}

struct Worked<C> {
    operations: u64,
    wrong: u64,
    begin: Instant,
    end: Instant,
    clock: C,
}

fn worker<O: Operation, C: Clock>(
    operation: &O,
    share: Share,
    until: Until,
    mut clock: C,
) -> tophash::Result<Worked<C>> {
    let mut state = operation.state(share.first);
    let (mut operations, mut wrong) = (0, 0);
    let begin = Instant::now();
    let mut i = share.first;
    loop {
        let is_over = match until {
            Until::Operations(all) => i >= all,
            // Durable writes, which take so long that a look at the time does not count. At least one: a report about
            // nothing has no figures.
            Until::Time(time) => operations > 0 && begin.elapsed() >= time,
        };
        if is_over || (operations % LOOK_EVERY == 0 && interrupt::requested()) {
            break;
        }
        if !operation.run(&mut state, i, &mut clock)? {
            wrong += 1;
        }
        operations += 1;
        i += share.step;
    }
    Ok(Worked { operations, wrong, begin, end: Instant::now(), clock })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Notes which operations were asked for; says that every tenth went wrong.
    struct Noting(Mutex<Vec<u64>>);

    impl Operation for Noting {
        type State = ();

        fn state(&self, _thread: u64) {}

        fn run(&self, (): &mut (), i: u64, clock: &mut impl Clock) -> tophash::Result<bool> {
            clock.time(|| self.0.lock().unwrap().push(i));
            Ok(!i.is_multiple_of(10))
        }
    }

    #[test]
    fn threads_share_the_operations_exactly() {
        for threads in [0, 1, 3] {
            let noting = Noting(Mutex::default());
            let pass = latency(&noting, threads, Until::Operations(100)).unwrap();
            let mut done = noting.0.into_inner().unwrap();
            done.sort_unstable();
            assert_eq!(done, (0..100).collect::<Vec<_>>());
            assert_eq!((pass.operations, pass.wrong), (100, 10));
            assert_eq!(pass.latencies.summary().unwrap().operations, 100);
        }
    }

    #[test]
    fn a_pass_without_a_clock_times_nothing_but_itself() {
        let pass = throughput(&Noting(Mutex::default()), 2, Until::Operations(5)).unwrap();
        assert!(pass.latencies.summary().is_none());
        assert!(pass.time > Duration::ZERO);
        assert_eq!(throughput(&Noting(Mutex::default()), 2, Until::Operations(0)).unwrap().operations, 0);
    }

    #[test]
    fn time_bounds_a_pass() {
        let pass = latency(&Noting(Mutex::default()), 1, Until::Time(Duration::from_millis(5))).unwrap();
        assert!(pass.operations > 0 && pass.time >= Duration::from_millis(5));
    }
}
