//! Holding a thread of the background where a busy machine can hold it: between what it has read and the lock under which it
//! acts. Tests choose the moment by a [`Hold`].

use super::{Condvar, Mutex};

/// A moment at which a thread holds no lock, and has read what it will act upon.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The link of an expired large value was read, and is to be removed.
    LargeRead,
    /// A record of a segment that is being emptied was read, and is to be moved or removed.
    RecordRead,
    /// A record with a deadline was read, and is to be counted.
    DeadlineRead,
}

/// Holds one thread at a moment, until the test lets it go.
#[doc(hidden)]
#[derive(Debug)]
pub struct Hold {
    moment: Moment,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nobody is held.
    Open,
    /// The thread is held that comes after this number of others.
    Armed(u64),
    Held,
}

impl Hold {
    /// Holds nobody until it is [armed](Self::arm).
    #[must_use]
    pub fn new(moment: Moment) -> Self {
        Hold { moment, state: Mutex::new(State::Open), changed: Condvar::new() }
    }

    /// The thread is to be held that comes after this number of others.
    pub fn arm(&self, others: u64) {
        *self.state.lock() = State::Armed(others);
    }

    /// True while a thread is held.
    pub fn holds(&self) -> bool {
        *self.state.lock() == State::Held
    }

    /// Lets the thread go, and holds nobody from here on.
    pub fn let_go(&self) {
        *self.state.lock() = State::Open;
        self.changed.notify_all();
    }

    /// A thread has come to a moment.
    #[cold]
    pub(crate) fn pass(&self, moment: Moment) {
        let mut state = self.state.lock();
        match *state {
            State::Armed(others) if moment == self.moment && others > 0 => *state = State::Armed(others - 1),
            State::Armed(_) if moment == self.moment => {
                *state = State::Held;
                while *state == State::Held {
                    self.changed.wait(&mut state);
                }
            }
            _ => {}
        }
    }
}
