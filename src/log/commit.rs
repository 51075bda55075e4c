//! Group commit: one fdatasync for all who wait.
//!
//! Whoever needs an LSN durable and finds nobody syncing becomes the leader: it notes where the log ends,
//! syncs every segment with unsynced records in order, and wakes all whose LSN that covered. The others
//! wait. A leader that had company in the last round waits for it to arrive again, for half as long as a sync
//! takes at most, because a sync that starts without the others makes them wait for two: with eight writers, four
//! would always wait for the other four.
//!
//! A caller that waits as a future (awaited.rs) arrives and does not stay: the syncing thread calls for all of them.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::address::Lsn;
use crate::error::Error;
use crate::sync::{AtomicU32, AtomicU64, Condvar, Instant, Mutex, Ordering};

/// How long a leader waits for company at most, however long a sync takes.
const GATHER_MAX: Duration = Duration::from_micros(200);

#[derive(Debug)]
pub(super) struct Commit {
    /// Everything below this LSN is durable.
    durable_lsn: AtomicU64,
    leader: Mutex<Leader>,
    done: Condvar,
    /// Callers that have come since the last round began: none of its syncs covers them for sure.
    arrived: AtomicU32,
    syncs: AtomicU64,
    waiters: AtomicU64,
}

#[derive(Debug, Default)]
struct Leader {
    syncing: bool,
    /// Callers that the last round served, and those who came meanwhile.
    company: u32,
    /// How long the next leader waits for them: half of the time that the last sync took.
    gather: Duration,
    /// The last round's failure.
    failed: Option<(PathBuf, io::ErrorKind, String)>,
}

impl Commit {
    pub(crate) fn new() -> Self {
        Commit {
            durable_lsn: AtomicU64::new(0),
            leader: Mutex::new(Leader::default()),
            done: Condvar::new(),
            arrived: AtomicU32::new(0),
            syncs: AtomicU64::new(0),
            waiters: AtomicU64::new(0),
        }
    }

    /// Everything below this LSN is durable.
    #[inline]
    pub(crate) fn durable_lsn(&self) -> Lsn {
        Lsn::from_raw(self.durable_lsn.load(Ordering::Acquire))
    }

    /// Rounds of syncing, and calls that waited for one.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.syncs.load(Ordering::Relaxed), self.waiters.load(Ordering::Relaxed))
    }

    /// Counts a caller that does not stay: a thread calls [`sync_for_others`](Self::sync_for_others) in its place.
    pub(super) fn arrive(&self) {
        self.arrived.fetch_add(1, Ordering::Release);
        self.waiters.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes what recovery found or made durable.
    pub(crate) fn set_durable_lsn(&self, lsn: Lsn) {
        self.durable_lsn.fetch_max(lsn.raw(), Ordering::AcqRel);
    }
}

/// A leader's round. If it ends in a panic, those who wait are told that it has failed, and no other round begins.
struct Abandoned<'c> {
    commit: &'c Commit,
    dir: &'c Path,
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        let mut leader = self.commit.leader.lock();
        leader.syncing = false;
        let thread = std::thread::current().name().unwrap_or("a thread").to_string();
        let why = format!("{thread} has panicked while it synced");
        leader.failed = Some((self.dir.to_path_buf(), io::ErrorKind::Other, why));
        self.commit.done.notify_all();
    }
}

impl Commit {
    /// Returns when everything below `target` is durable. `round` syncs all that is not, and returns the LSN up to
    /// which it did.
    ///
    /// # Errors
    /// `Io` if a sync failed, for every caller whose LSN it should have covered. What is on disk is then
    /// unknown: the caller poisons the store.
    pub(super) fn sync_to(
        &self,
        target: Lsn,
        dir: &Path,
        round: impl FnOnce() -> Result<Lsn, (PathBuf, io::Error)>,
    ) -> Result<(), Error> {
        if self.durable_lsn() >= target {
            return Ok(());
        }
        self.arrive();
        self.sync_for_others(target, dir, round)
    }

    /// The same for callers who have [arrived](Self::arrive).
    pub(super) fn sync_for_others(
        &self,
        target: Lsn,
        dir: &Path,
        round: impl FnOnce() -> Result<Lsn, (PathBuf, io::Error)>,
    ) -> Result<(), Error> {
        let (company, gather) = {
            let mut leader = self.leader.lock();
            loop {
                if self.durable_lsn() >= target {
                    return Ok(());
                }
                if let Some((path, kind, text)) = &leader.failed {
                    let source = io::Error::new(*kind, text.clone());
                    return Err(Error::Io { action: "sync", path: path.clone(), source });
                }
                if !leader.syncing {
                    leader.syncing = true;
                    break (leader.company, leader.gather);
                }
                self.done.wait(&mut leader);
            }
        };
        if company > 1 {
            let begun = Instant::now();
            while self.arrived.load(Ordering::Relaxed) < company && begun.elapsed() < gather {
                crate::sync::yield_now();
            }
        }
        // Whoever is counted here has appended already, so this round covers it.
        let served = self.arrived.swap(0, Ordering::AcqRel);
        let started = Instant::now();
        let abandoned = Abandoned { commit: self, dir };
        let round = round();
        std::mem::forget(abandoned);
        let gather = (started.elapsed() / 2).min(GATHER_MAX);
        let mut leader = self.leader.lock();
        leader.syncing = false;
        leader.gather = gather;
        leader.company = served + self.arrived.load(Ordering::Relaxed);
        let result = match round {
            Ok(end) => {
                self.syncs.fetch_add(1, Ordering::Relaxed);
                self.set_durable_lsn(end);
                Ok(())
            }
            Err((path, source)) => {
                leader.failed = Some((path.clone(), source.kind(), source.to_string()));
                Err(Error::Io { action: "sync", path, source })
            }
        };
        self.done.notify_all();
        result
    }
}
