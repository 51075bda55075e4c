//! Waits for a sync that hold up no thread: what is behind a [`Durable`](crate::Durable).
//!
//! 1. A call publishes its change, whose record ends at an LSN. The call notes that LSN in `asked`, and then rings the bell
//!    of the syncing thread (background/ticker.rs). *The change survives the death of the process.*
//! 2. The syncing thread takes the ring away, and then reads `asked`. So it sees every LSN whose ring it took.
//! 3. It syncs the log up to its end: a round of group commit (log/commit.rs), its own or one that it waited for.
//!    *Everything below the durable LSN survives a power failure.*
//! 4. It notes the durable LSN in the list, and takes out the wakers of all waits below it, both under the list's lock.
//! 5. It lets go of the lock, and calls the wakers.
//!
//! A **poll** takes the list's lock, looks for the outcome, and leaves its waker if there is none, all under one lock. Step 4
//! comes either before that, and the poll sees the outcome, or after it, and takes the waker. So no wake-up is lost.
//! A poll replaces the waker of the one before. A wait that is dropped takes its waker out of the list.
//!
//! The **end** of the list is an outcome for all waits that no sync has covered: a sync that failed, a store that refuses
//! changes, a syncing thread that panicked, a store that is closed. It is set under the same lock, and the wakers are
//! called as in step 5. The first end stays. A wait below the durable LSN is `Ok` whatever the end is.
//!
//! Wakers are code of the caller: they are cloned, called and dropped with no lock held, outside the gate and outside every
//! call of the store. They may poll, change the store, drop its last handle or close it.
//!
//! A wait holds the list and nothing else of the store: no handle, no mapping, no pass of the gate. In a child made by `fork`
//! the lock may be one that nobody is left to release, so nothing is locked there.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::address::Lsn;
use crate::error::{Error, Result};
use crate::mutant::{Mutant, broken, pause_if};
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::sys::ForkGuard;

/// The waits of a store.
#[derive(Debug)]
pub(crate) struct Awaited {
    path: PathBuf,
    fork: ForkGuard,
    /// The highest LSN that is to be durable.
    asked: AtomicU64,
    list: Mutex<List>,
}

#[derive(Debug, Default)]
struct List {
    /// Everything below it is durable.
    durable: Lsn,
    end: Option<End>,
    /// By the LSN that each waits for, and by its ticket.
    wakers: BTreeMap<(Lsn, u64), Waker>,
    tickets: u64,
}

/// Why no sync will cover what still waits.
#[derive(Debug)]
enum End {
    /// A sync failed.
    Failed {
        action: &'static str,
        path: PathBuf,
        kind: io::ErrorKind,
        text: String,
    },
    /// The store refuses changes.
    Poisoned(String),
    Closed,
}

impl Awaited {
    pub(crate) fn new(path: &Path) -> Self {
        Awaited {
            path: path.to_path_buf(),
            fork: ForkGuard::new(),
            asked: AtomicU64::new(0),
            list: Mutex::new(List::default()),
        }
    }

    /// Step 1, without the ring.
    pub(crate) fn ask(&self, lsn: Lsn) {
        self.asked.fetch_max(lsn.raw(), Ordering::AcqRel);
    }

    /// Step 2: the highest LSN that is to be durable.
    pub(crate) fn asked(&self) -> Lsn {
        Lsn::from_raw(self.asked.load(Ordering::Acquire))
    }

    /// True if something was asked for that no sync has covered, and one still may.
    pub(crate) fn is_asked(&self) -> bool {
        let asked = self.asked();
        let list = self.list.lock();
        list.durable < asked && list.end.is_none()
    }

    /// Steps 4 and 5.
    pub(crate) fn settle(&self, durable: Lsn) {
        let mut list = self.list.lock();
        list.durable = list.durable.max(durable);
        let behind = Lsn::from_raw(list.durable.raw().saturating_add(1));
        let waiting = list.wakers.split_off(&(behind, 0));
        let covered = std::mem::replace(&mut list.wakers, waiting);
        drop(list);
        wake(covered);
    }

    /// Ends all waits that no sync has covered, because the sync failed so.
    pub(crate) fn fail(&self, error: &Error) {
        self.end(match error {
            Error::Io { action, path, source } => {
                End::Failed { action, path: path.clone(), kind: source.kind(), text: source.to_string() }
            }
            Error::Poisoned { cause, .. } => End::Poisoned(cause.clone()),
            error => End::Poisoned(error.to_string()),
        });
    }

    /// Ends all waits that no sync has covered, because no thread syncs any more.
    pub(crate) fn give_up(&self, cause: &str) {
        self.end(End::Poisoned(cause.to_string()));
    }

    /// Ends all waits. The store is closed, and everything below the LSN is durable.
    pub(crate) fn close(&self, durable: Lsn, poison: Option<&String>) {
        self.settle(durable);
        self.end(poison.map_or(End::Closed, |cause| End::Poisoned(cause.clone())));
    }

    fn end(&self, end: End) {
        let mut list = self.list.lock();
        list.end.get_or_insert(end);
        let all = std::mem::take(&mut list.wakers);
        drop(list);
        wake(all);
    }

    /// What a wait for this LSN has come to.
    fn outcome(&self, list: &List, lsn: Lsn) -> Option<Result<()>> {
        if list.durable >= lsn {
            return Some(Ok(()));
        }
        let path = self.path.clone();
        Some(Err(match list.end.as_ref()? {
            End::Failed { action, path, kind, text } => {
                Error::Io { action, path: path.clone(), source: io::Error::new(*kind, text.clone()) }
            }
            End::Poisoned(cause) => Error::Poisoned { path, cause: cause.clone() },
            End::Closed => Error::Closed { path },
        }))
    }
}

/// Step 5. A waker that panics is no fault of the others, nor of the store: its panic was told by the panic hook.
fn wake(wakers: BTreeMap<(Lsn, u64), Waker>) {
    for waker in wakers.into_values() {
        let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
    }
}

/// One wait.
#[derive(Debug)]
pub(crate) struct Wait {
    awaited: Arc<Awaited>,
    lsn: Lsn,
    /// Where its waker is in the list, once it was polled.
    ticket: Option<u64>,
}

impl Wait {
    /// Everything below the LSN was asked for.
    pub(crate) fn new(awaited: &Arc<Awaited>, lsn: Lsn) -> Self {
        Wait { awaited: Arc::clone(awaited), lsn, ticket: None }
    }

    /// Looks for the outcome; leaves the task's waker if there is none yet.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        let awaited = &*self.awaited;
        if awaited.fork.is_child() {
            let (path, owner) = (awaited.path.clone(), awaited.fork.owner());
            return Poll::Ready(Err(Error::Forked { path, owner }));
        }
        let waker = context.waker().clone();
        let mut list = awaited.list.lock();
        let outcome = awaited.outcome(&list, self.lsn);
        if broken(Mutant::WakerLeftLate) {
            drop(list);
            pause_if(Mutant::WakerLeftLate);
            list = awaited.list.lock();
        }
        let (poll, replaced) = match outcome {
            Some(outcome) => {
                let ticket = self.ticket.take();
                (Poll::Ready(outcome), ticket.and_then(|ticket| list.wakers.remove(&(self.lsn, ticket))))
            }
            None => {
                let ticket = *self.ticket.get_or_insert_with(|| {
                    list.tickets += 1;
                    list.tickets
                });
                (Poll::Pending, list.wakers.insert((self.lsn, ticket), waker))
            }
        };
        drop(list);
        drop(replaced);
        poll
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.filter(|_| !self.awaited.fork.is_child()) else { return };
        let waker = self.awaited.list.lock().wakers.remove(&(self.lsn, ticket));
        drop(waker);
    }
}
