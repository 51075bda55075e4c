//! What wakes a background thread: a bell for each, with exact deadlines, and no polling.

use super::{AtomicBool, Condvar, Instant, Mutex, Ordering, fence};

/// Wakes the one thread that waits for it.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    /// The thread waits without a deadline.
    resting: bool,
    /// Times that the thread was woken, by a ring or by a deadline.
    wakings: u64,
}

/// What a thread was woken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    /// The bell was rung.
    Work,
    /// The deadline has come.
    Timeout,
    /// The store is being closed.
    Stop,
}

impl Bell {
    /// Wakes the thread, or keeps it from going to sleep. What it is to see was stored before.
    pub(crate) fn ring(&self) {
        // Either this load finds the bell unrung, or the thread that takes the ring away finds what was stored before.
        fence(Ordering::SeqCst);
        if !self.rung.load(Ordering::Relaxed) && !self.rung.swap(true, Ordering::SeqCst) {
            self.notify();
        }
    }

    /// Ends every wait, now and later.
    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_all();
    }

    fn notify(&self) {
        // Taking the lock makes sure that a thread which has just found no ring is waiting.
        drop(self.state.lock());
        self.changed.notify_all();
    }

    /// Waits for a ring, or until a time; without one, for a ring alone.
    pub(crate) fn wait(&self, until: Option<Instant>) -> Woken {
        self.wait_for(true, until)
    }

    /// Waits until a time, or for the end. A ring meanwhile is kept for the next [`wait`](Self::wait).
    pub(crate) fn pause(&self, until: Option<Instant>) -> Woken {
        self.wait_for(false, until)
    }

    fn wait_for(&self, rings: bool, until: Option<Instant>) -> Woken {
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return Woken::Stop;
            }
            if rings && self.rung.swap(false, Ordering::SeqCst) {
                fence(Ordering::SeqCst);
                return Woken::Work;
            }
            let mut over = false;
            match until {
                Some(until) => over = self.changed.wait_until(&mut state, until).timed_out(),
                None => {
                    state.resting = true;
                    self.changed.wait(&mut state);
                    state.resting = false;
                }
            }
            state.wakings += 1;
            if over && !state.stopped {
                return Woken::Timeout;
            }
        }
    }

    /// Times that the thread was woken; and true if only a ring will wake it, and none is pending.
    pub(crate) fn rest(&self) -> (u64, bool) {
        let state = self.state.lock();
        (state.wakings, state.resting && !self.rung.load(Ordering::SeqCst))
    }
}
