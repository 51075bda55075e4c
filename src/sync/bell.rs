//! What wakes a background thread: a bell for each of its jobs, with exact deadlines, and no polling.

use std::sync::Arc;

use super::{AtomicBool, AtomicU32, Condvar, Instant, Mutex, Ordering, fence};

/// Wakes the thread that does a job.
#[derive(Debug, Clone)]
pub(crate) struct Bell {
    sleeper: Arc<Sleeper>,
    /// One bit.
    job: u32,
}

impl Bell {
    /// Wakes the thread, or keeps it from going to sleep. What it is to see was stored before.
    pub(crate) fn ring(&self) {
        self.sleeper.ring(self.job);
    }

    /// A bell that nobody hears.
    #[cfg(test)]
    pub(crate) fn unheard() -> Self {
        Arc::<Sleeper>::default().bell(1)
    }
}

/// Where one thread sleeps until one of its bells is rung.
#[derive(Debug, Default)]
pub(crate) struct Sleeper {
    /// A bit for each job whose bell was rung.
    rung: AtomicU32,
    stopped: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The thread waits without a deadline, for these jobs.
    resting: Option<u32>,
    /// Times that the thread was woken, by a ring or by a deadline.
    wakings: u64,
}

/// What a thread was woken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    /// The bells of these jobs were rung.
    Rung(u32),
    /// The deadline has come.
    Timeout,
    /// The store is being closed.
    Stop,
}

impl Sleeper {
    /// The bell of a job of the thread that sleeps here. `job` is one bit.
    pub(crate) fn bell(self: &Arc<Self>, job: u32) -> Bell {
        debug_assert!(job.is_power_of_two());
        Bell { sleeper: Arc::clone(self), job }
    }

    fn ring(&self, job: u32) {
        // Either this load finds the bell unrung, or the thread that takes the ring away finds what was stored before.
        fence(Ordering::SeqCst);
        if self.rung.load(Ordering::Relaxed) & job == 0 && self.rung.fetch_or(job, Ordering::SeqCst) & job == 0 {
            self.notify();
        }
    }

    /// Ends every wait, now and later.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.notify();
    }

    /// True after [`stop`](Self::stop).
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn notify(&self) {
        // Taking the lock makes sure that a thread which has just found nothing is waiting.
        drop(self.state.lock());
        self.changed.notify_all();
    }

    /// Takes away the rings of these jobs, and returns them.
    pub(crate) fn take(&self, jobs: u32) -> u32 {
        if self.rung.load(Ordering::Relaxed) & jobs == 0 {
            return 0;
        }
        let rung = self.rung.fetch_and(!jobs, Ordering::SeqCst) & jobs;
        fence(Ordering::SeqCst);
        rung
    }

    /// Waits for a ring of one of these jobs, or until a time; without one, for a ring alone. Rings of others are kept for
    /// a later wait.
    pub(crate) fn wait(&self, jobs: u32, until: Option<Instant>) -> Woken {
        let mut state = self.state.lock();
        loop {
            if self.stopped.load(Ordering::SeqCst) {
                return Woken::Stop;
            }
            let rung = self.take(jobs);
            if rung != 0 {
                return Woken::Rung(rung);
            }
            let mut over = false;
            match until {
                Some(until) => over = self.changed.wait_until(&mut state, until).timed_out(),
                None => {
                    state.resting = Some(jobs);
                    self.changed.wait(&mut state);
                    state.resting = None;
                }
            }
            state.wakings += 1;
            if over && !self.stopped.load(Ordering::SeqCst) {
                return Woken::Timeout;
            }
        }
    }

    /// Times that the thread was woken; and true if only a ring will wake it, and none is pending.
    pub(crate) fn rest(&self) -> (u64, bool) {
        let state = self.state.lock();
        let rung = self.rung.load(Ordering::SeqCst);
        (state.wakings, state.resting.is_some_and(|jobs| rung & jobs == 0))
    }
}

/// A ring that is lost would leave a store without checkpoints or growth until the next ring, which may never come.
#[cfg(all(test, shuttle))]
mod schedules {
    use super::*;
    use crate::sync::{AtomicU64, yield_now};

    const JOBS: [u32; 2] = [1, 2];

    /// The thread listens for both jobs, or for one of them while the other is not to be done: each ring leads to a look at
    /// what was stored before it, and nothing else brings one.
    #[test]
    fn each_ring_leads_to_a_look() {
        shuttle::check_random(
            || {
                let sleeper = Arc::new(Sleeper::default());
                let wanted: Arc<[AtomicU64; 2]> = Arc::default();
                let done = Arc::new((Mutex::new([0u64; 2]), Condvar::new()));
                let worker = {
                    let (sleeper, wanted, done) = (Arc::clone(&sleeper), Arc::clone(&wanted), Arc::clone(&done));
                    shuttle::thread::spawn(move || {
                        let mut listens = 3;
                        while let Woken::Rung(rung) = sleeper.wait(listens, None) {
                            assert_eq!(rung & !listens, 0, "a ring of a job that nobody listens for was taken away");
                            for (i, job) in JOBS.into_iter().enumerate().filter(|(_, job)| rung & job != 0) {
                                done.0.lock()[i] = wanted[i].load(Ordering::Relaxed);
                                done.1.notify_all();
                                // The other job alone, once.
                                listens = if listens == 3 && wanted[1 - i].load(Ordering::Relaxed) > 1 {
                                    3 & !job
                                } else {
                                    3
                                };
                            }
                        }
                    })
                };
                let ringers: Vec<_> = JOBS
                    .into_iter()
                    .enumerate()
                    .map(|(i, job)| {
                        let (bell, wanted) = (sleeper.bell(job), Arc::clone(&wanted));
                        shuttle::thread::spawn(move || {
                            for n in 1..=3 {
                                wanted[i].store(n, Ordering::Relaxed);
                                bell.ring();
                                yield_now();
                            }
                        })
                    })
                    .collect();
                ringers.into_iter().for_each(|ringer| ringer.join().unwrap());
                // For the job that is not listened for.
                JOBS.into_iter().for_each(|job| sleeper.bell(job).ring());
                let mut seen = done.0.lock();
                while *seen != [3, 3] {
                    done.1.wait(&mut seen);
                }
                drop(seen);
                sleeper.stop();
                worker.join().unwrap();
            },
            5_000,
        );
    }
}
