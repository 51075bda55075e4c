//! Whether a store may be read and changed, and why not.

use std::path::{Path, PathBuf};

use crate::error::{Error, Fault, Nature, Result};
use crate::gate::{self, Gate};
use crate::mutant::{Mutant, broken};
use crate::observe;
use crate::sync::{AtomicBool, OnceLock, Ordering, fence};
use crate::sys::ForkGuard;

/// The state that every call looks at first.
#[derive(Debug)]
pub(crate) struct Health {
    path: PathBuf,
    read_only: bool,
    /// Why every change is refused from now on.
    poison: OnceLock<String>,
    fork: ForkGuard,
    /// Shut once the store is being closed.
    gate: Gate,
    /// The log's tail is being replayed: no cut can be made.
    recovering: AtomicBool,
}

/// A call that is inside the gate. Dropping it leaves.
#[derive(Debug)]
#[must_use]
pub(crate) struct Pass<'h> {
    // First, so that a closer who waits for the call to leave finds the poison.
    _call: Unfinished<'h>,
    _inside: gate::Pass<'h>,
}

/// Work that leaves something half done if a panic ends it: then the store is poisoned, because later changes and a clean close
/// would rely on what was not done.
#[derive(Debug)]
pub(crate) struct Unfinished<'h> {
    health: &'h Health,
    what: &'static str,
    /// The work is a part of an unwinding, as where a destructor makes a change.
    was_panicking: bool,
}

impl Drop for Unfinished<'_> {
    #[inline]
    fn drop(&mut self) {
        if std::thread::panicking() && !self.was_panicking {
            self.poison();
        }
    }
}

impl Unfinished<'_> {
    #[cold]
    fn poison(&self) {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("without a name");
        self.health.poison_because(format!("the thread {name} has panicked in {}", self.what));
    }
}

impl Health {
    pub(crate) fn new(path: &Path, read_only: bool) -> Self {
        Health {
            path: path.to_path_buf(),
            read_only,
            poison: OnceLock::new(),
            fork: ForkGuard::new(),
            gate: Gate::default(),
            recovering: AtomicBool::new(false),
        }
    }

    /// True if the store was opened for reading only.
    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Lets in a call that changes the store. The store is not closed before the pass is dropped, so no user code may run
    /// meanwhile: it could close the store, and would wait for itself.
    #[inline]
    pub(crate) fn enter(&self) -> Result<Pass<'_>> {
        let inside = self.gate.enter().ok_or_else(|| self.not_readable())?;
        self.check_writable()?;
        Ok(Pass { _call: self.begin("a call"), _inside: inside })
    }

    /// Work begins that must not be left half done.
    #[inline]
    pub(crate) fn begin(&self, what: &'static str) -> Unfinished<'_> {
        Unfinished { health: self, what, was_panicking: std::thread::panicking() }
    }

    /// Refuses changes where they are not allowed. Work that is under way while the store is being closed goes on.
    #[inline]
    pub(crate) fn check_writable(&self) -> Result<()> {
        if self.read_only || self.poison.get().is_some() || self.fork.is_child() {
            return Err(self.not_writable());
        }
        Ok(())
    }

    /// Refuses reads of a closed store, and in a forked child: its index is that of several moments, and a lock may be held
    /// by a thread that it does not have.
    #[inline]
    pub(crate) fn check_readable(&self) -> std::result::Result<(), Fault> {
        if self.gate.is_shut() || self.fork.is_child() { Err(self.not_readable().into()) } else { Ok(()) }
    }

    /// Refuses what a read has seen, if the store has been closed meanwhile: it may be the next opener's.
    #[inline]
    pub(crate) fn check_open(&self) -> std::result::Result<(), Fault> {
        // What was seen is ordered before the look at the gate.
        fence(Ordering::Acquire);
        if self.gate.is_shut() { Err(self.closed().into()) } else { Ok(()) }
    }

    /// Refuses everything in a forked child.
    pub(crate) fn check_owner(&self) -> Result<()> {
        if self.fork.is_child() { Err(self.forked()) } else { Ok(()) }
    }

    #[cold]
    fn not_readable(&self) -> Error {
        if self.fork.is_child() { self.forked() } else { self.closed() }
    }

    #[cold]
    fn closed(&self) -> Error {
        Error::Closed { path: self.path.clone() }
    }

    #[cold]
    fn forked(&self) -> Error {
        Error::Forked { path: self.path.clone(), owner: self.fork.owner() }
    }

    #[cold]
    fn not_writable(&self) -> Error {
        let path = self.path.clone();
        if self.read_only {
            Error::ReadOnly { path }
        } else if let Some(cause) = self.poison.get() {
            Error::Poisoned { path, cause: cause.clone() }
        } else {
            self.forked()
        }
    }

    /// Poisons the store, if the error leaves unknown what is on disk.
    pub(crate) fn poison_if_unknown(&self, cause: &Error) {
        if cause.nature() == Nature::Unknown {
            self.poison(cause);
        }
    }

    /// What is on disk is unknown from now on: no further change, no checkpoint.
    pub(crate) fn poison(&self, cause: &Error) {
        if broken(Mutant::NotPoisoned) {
            return;
        }
        self.poison_because(cause.to_string());
    }

    /// Something that later changes rely on does not happen any more.
    pub(crate) fn poison_because(&self, cause: String) {
        let _ = self.poison.set(cause.clone());
        observe::poisoned(&self.path, &cause);
    }

    /// From now on every change is refused, although nothing has gone wrong.
    pub(crate) fn forbid_changes(&self, why: &str) {
        let _ = self.poison.set(why.to_string());
    }

    /// Why every change is refused.
    pub(crate) fn poisoned(&self) -> Option<&String> {
        self.poison.get()
    }

    /// Says whether the log's tail is being replayed.
    pub(crate) fn set_recovering(&self, recovering: bool) {
        self.recovering.store(recovering, Ordering::Relaxed);
    }

    /// True while the log's tail is being replayed. The records that are still to be replayed lie below any cut, so that
    /// no checkpoint may run.
    pub(crate) fn is_recovering(&self) -> bool {
        self.recovering.load(Ordering::Relaxed)
    }

    /// Refuses every further call, and returns when those that change the store have ended.
    ///
    /// # Errors
    /// `Closed` for all callers but the first, which has to do the rest.
    pub(crate) fn close(&self) -> Result<()> {
        if !self.gate.shut() {
            return Err(self.closed());
        }
        self.gate.wait_until_empty();
        Ok(())
    }
}
