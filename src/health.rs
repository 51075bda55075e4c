//! Whether a store may be read and changed, and why not.

use std::path::{Path, PathBuf};

use crate::error::{Error, Fault, Nature, Result};
use crate::mutant::{Mutant, broken};
use crate::observe;
use crate::sync::{AtomicBool, OnceLock, Ordering};
use crate::sys::ForkGuard;

/// The state that every call looks at first.
#[derive(Debug)]
pub(crate) struct Health {
    path: PathBuf,
    read_only: bool,
    /// Why every change is refused from now on.
    poison: OnceLock<String>,
    fork: ForkGuard,
    /// The log's tail is being replayed: no cut can be made.
    recovering: AtomicBool,
    closed: AtomicBool,
}

impl Health {
    pub(crate) fn new(path: &Path, read_only: bool) -> Self {
        Health {
            path: path.to_path_buf(),
            read_only,
            poison: OnceLock::new(),
            fork: ForkGuard::new(),
            recovering: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    /// True if the store was opened for reading only.
    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Refuses changes where they are not allowed.
    #[inline]
    pub(crate) fn check_writable(&self) -> Result<()> {
        if self.read_only || self.poison.get().is_some() || self.fork.is_child() {
            return Err(self.not_writable());
        }
        Ok(())
    }

    /// Refuses reads in a forked child: its index is that of several moments, and a lock may be held by a thread that it
    /// does not have.
    #[inline]
    pub(crate) fn check_readable(&self) -> std::result::Result<(), Fault> {
        if self.fork.is_child() { Err(self.forked().into()) } else { Ok(()) }
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
        observe::poisoned(&self.path, &cause);
        let _ = self.poison.set(cause);
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

    /// Closes the store. True for the first caller, which has to do the work.
    pub(crate) fn close(&self) -> bool {
        !self.closed.swap(true, Ordering::AcqRel)
    }
}
