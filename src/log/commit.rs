//! Group commit: one fdatasync for all who wait.
//!
//! Whoever needs a position durable and finds nobody syncing becomes the leader: it notes where the log ends,
//! syncs every segment with unsynced records in order, and wakes all whose position that covered. The others
//! wait. A leader that had company in the last round waits for it to arrive again, for half as long as a sync
//! takes at most, because a sync that starts without the others makes them wait for two: with eight writers, four
//! would always wait for the other four.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::segments::Log;
use crate::address::Position;
use crate::error::Error;
use crate::mutant::{Mutant, broken};
use crate::sync::{AtomicU32, AtomicU64, Condvar, Instant, Mutex, Ordering};

/// How long a leader waits for company at most, however long a sync takes.
const GATHER_MAX: Duration = Duration::from_micros(200);

#[derive(Debug)]
pub(crate) struct Commit {
    /// Everything below this position is durable.
    durable: AtomicU64,
    leader: Mutex<Leader>,
    done: Condvar,
    /// Callers that have come since the last round began: none of its syncs covers them for sure.
    arrived: AtomicU32,
    pub(crate) syncs: AtomicU64,
    pub(crate) waiters: AtomicU64,
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
            durable: AtomicU64::new(0),
            leader: Mutex::new(Leader::default()),
            done: Condvar::new(),
            arrived: AtomicU32::new(0),
            syncs: AtomicU64::new(0),
            waiters: AtomicU64::new(0),
        }
    }

    /// Everything below this position is durable.
    #[inline]
    pub(crate) fn durable(&self) -> Position {
        Position::from_raw(self.durable.load(Ordering::Acquire))
    }

    /// Notes what recovery found or made durable.
    pub(crate) fn set_durable(&self, position: Position) {
        self.durable.fetch_max(position.raw(), Ordering::AcqRel);
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

impl Log {
    /// Bytes behind the last position that is known to be durable; more than there are if that is in another segment.
    pub(crate) fn unsynced_bytes(&self) -> u64 {
        self.tail().raw().saturating_sub(self.commit.durable().raw())
    }

    /// Returns when everything below `target` is durable.
    ///
    /// # Errors
    /// `Io` if a sync failed, for every caller whose position it should have covered. What is on disk is then
    /// unknown: the caller poisons the store.
    pub(crate) fn sync_to(&self, target: Position) -> Result<(), Error> {
        let commit = &self.commit;
        if commit.durable() >= target {
            return Ok(());
        }
        commit.arrived.fetch_add(1, Ordering::Release);
        commit.waiters.fetch_add(1, Ordering::Relaxed);
        let (company, gather) = {
            let mut leader = commit.leader.lock();
            loop {
                if commit.durable() >= target {
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
                commit.done.wait(&mut leader);
            }
        };
        if company > 1 {
            let begun = Instant::now();
            while commit.arrived.load(Ordering::Relaxed) < company && begun.elapsed() < gather {
                crate::sync::yield_now();
            }
        }
        // Whoever is counted here has appended already, so this round covers it.
        let served = commit.arrived.swap(0, Ordering::AcqRel);
        let started = Instant::now();
        let abandoned = Abandoned { commit, dir: self.dir() };
        let round = self.sync_round();
        std::mem::forget(abandoned);
        let gather = (started.elapsed() / 2).min(GATHER_MAX);
        let mut leader = commit.leader.lock();
        leader.syncing = false;
        leader.gather = gather;
        leader.company = served + commit.arrived.load(Ordering::Relaxed);
        let result = match round {
            Ok(end) => {
                commit.set_durable(end);
                Ok(())
            }
            Err((path, source)) => {
                leader.failed = Some((path.clone(), source.kind(), source.to_string()));
                Err(Error::Io { action: "sync", path, source })
            }
        };
        commit.done.notify_all();
        result
    }

    /// Syncs all segments with unsynced records, in order; returns the position that is durable now.
    fn sync_round(&self) -> Result<Position, (PathBuf, io::Error)> {
        let end = self.tail();
        let from = self.commit.durable().sequence();
        let unsynced: Vec<_> =
            self.registry.lock().segments.range(from..=end.sequence()).map(|(_, segment)| segment.clone()).collect();
        for segment in unsynced {
            if broken(Mutant::OnlyLastSegmentSynced) && segment.sequence < end.sequence() {
                continue;
            }
            let Some(file) = segment.file() else { continue };
            file.sync_data().map_err(|error| (segment.path.clone(), error))?;
            if segment.sequence < end.sequence() {
                segment.close_file();
            }
        }
        self.commit.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(end)
    }
}
