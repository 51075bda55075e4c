//! The state of a simulated disk, with its kernel: what is durable, what is only in the page cache, what is
//! mapped.
//!
//! Every change goes into the cache and, as a [`Change`], onto the list of pending ones. fsync and its kin move
//! changes from the list into the durable state; a crash keeps any subset of those that are still pending.

mod mappings;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use tophash::sys::LogView;

use self::mappings::PrivateMap;
use crate::faults::{Fault, FaultPlan};
use crate::image::{Change, ChangeKind, FileData, Image, Node, NodeId, PAGE, SECTOR, find};
use crate::random::Random;
use crate::recorder::Recorder;

/// A system call of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Call {
    Open,
    Create,
    CreateDir,
    ReadDir,
    Kind,
    Rename,
    Unlink,
    RemoveDir,
    SyncDir,
    Lock,
    MapAnonymous,
    Random,
    Read,
    Write,
    Len,
    Allocated,
    NextData,
    SetLen,
    Allocate,
    PunchHole,
    SyncData,
    SyncAll,
    MapPrivate,
    MapFresh,
    MapLog,
}

impl Call {
    /// True for calls that can change something, or make it durable.
    #[must_use]
    pub fn changes(self) -> bool {
        use Call::{Allocate, Create, CreateDir, Lock, PunchHole, RemoveDir, Rename, SetLen, SyncAll, SyncData};
        use Call::{SyncDir, Unlink, Write};
        let names = [Create, CreateDir, RemoveDir, Rename, Unlink, SyncDir, Lock];
        names.contains(&self) || [Write, SetLen, Allocate, PunchHole, SyncData, SyncAll].contains(&self)
    }
}

/// Who holds a lock file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Held {
    Exclusive,
    Shared(u32),
}

/// See the module's text.
#[derive(Debug)]
pub struct World {
    pub(crate) cache: Vec<Node>,
    /// Empty, as is `pending`, where no crash will follow and nobody asks.
    pub(crate) durable: Vec<Node>,
    pub(crate) pending: Vec<Change>,
    tracked: bool,
    /// Sectors that the cache shows and takes for clean, and that are not on the disk: a failed fsync lied.
    lies: BTreeSet<(NodeId, u32)>,
    /// A directory shows names that are not on the disk, and that no fsync brings there any more.
    pub(crate) lying_names: bool,
    /// Pages of each file that have a disk block.
    blocks: BTreeMap<NodeId, BTreeSet<u64>>,
    logs: Vec<(NodeId, LogView)>,
    privates: Vec<PrivateMap>,
    maps_made: u64,
    pub(crate) locks: BTreeMap<NodeId, Held>,
    pub(crate) random: Random,
    /// Changes with whatever a crash could tell apart.
    pub(crate) version: u64,
    /// Calls that could change something, or make it durable.
    pub(crate) changes: u64,
    /// Files of which an fsync has failed.
    pub(crate) failed_syncs: BTreeSet<NodeId>,
    /// Several threads use the store.
    pub(crate) threads: bool,
    /// Power is off: every call fails.
    pub(crate) dead: bool,
    /// The time of day, in milliseconds since 1970. It stands still until it is set.
    pub(crate) clock: u64,
    pub(crate) recorder: Option<Recorder>,
    pub(crate) faults: Option<FaultPlan>,
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl World {
    /// A disk at rest, about to be used. Only a tracked one can crash.
    pub(crate) fn new(image: Image, tracked: bool, seed: u64) -> Self {
        World {
            durable: if tracked { image.nodes.clone() } else { Vec::new() },
            cache: image.nodes,
            pending: Vec::new(),
            tracked,
            lies: BTreeSet::new(),
            lying_names: false,
            blocks: BTreeMap::new(),
            logs: Vec::new(),
            privates: Vec::new(),
            maps_made: 0,
            locks: BTreeMap::new(),
            random: Random::new(seed),
            version: 0,
            changes: 0,
            failed_syncs: BTreeSet::new(),
            threads: false,
            dead: false,
            clock: crate::script::NOW,
            recorder: None,
            faults: None,
        }
    }

    /// Begins a call: notes the boundary, and fails if the power is off or a fault is due.
    pub(crate) fn begin(&mut self, call: Call) -> io::Result<Option<Fault>> {
        if self.dead {
            return Err(io::Error::other("the power is off"));
        }
        self.changes += u64::from(call.changes());
        if self.recorder.is_some() {
            self.boundary(call);
        }
        match &mut self.faults {
            Some(plan) => Ok(plan.next(call)),
            None => Ok(None),
        }
    }

    /// Notes what a crash at this moment can leave.
    pub(crate) fn boundary(&mut self, call: Call) {
        self.look_at_logs(None);
        if let Some(recorder) = &mut self.recorder {
            recorder.note(call, self.version, &self.durable, &self.pending);
        }
    }

    fn push(&mut self, node: NodeId, kind: ChangeKind) {
        self.version += 1;
        if self.tracked {
            self.pending.push(Change { node, kind });
        }
    }

    /// Changes the cache, and notes the change.
    fn change(&mut self, node: NodeId, kind: ChangeKind) {
        self.push(node, kind);
        match self.pending.last() {
            Some(change) if self.tracked => change.apply(&mut self.cache, None),
            _ => unreachable!("an untracked world changes its cache itself"),
        }
    }

    fn apply_untracked(&mut self, node: NodeId, kind: ChangeKind) {
        if self.tracked {
            self.change(node, kind);
        } else {
            self.version += 1;
            Change { node, kind }.apply(&mut self.cache, None);
        }
    }

    // ----- names -----

    pub(crate) fn find(&self, path: &Path) -> Option<NodeId> {
        find(&self.cache, path)
    }

    fn parent(&self, path: &Path) -> io::Result<(NodeId, Arc<str>)> {
        let parent = path.parent().ok_or_else(not_found)?;
        let dir = self.find(parent).ok_or_else(not_found)?;
        let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(not_found)?;
        self.cache[dir as usize].as_dir().ok_or_else(|| io::Error::from(io::ErrorKind::NotADirectory))?;
        Ok((dir, name.into()))
    }

    /// Creates a file or directory that must not exist.
    pub(crate) fn create(&mut self, path: &Path, node: Node) -> io::Result<NodeId> {
        let (dir, name) = self.parent(path)?;
        if self.find(path).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = self.cache.len() as NodeId;
        if self.tracked {
            self.durable.push(node.clone());
        }
        self.cache.push(node);
        self.apply_untracked(dir, ChangeKind::Link(name, id));
        Ok(id)
    }

    pub(crate) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let node = self.find(from).ok_or_else(not_found)?;
        let (from_dir, from_name) = self.parent(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        self.apply_untracked(to_dir, ChangeKind::Rename(from_dir, from_name, to_name, node));
        Ok(())
    }

    pub(crate) fn unlink(&mut self, path: &Path) -> io::Result<()> {
        let node = self.find(path).ok_or_else(not_found)?;
        self.cache[node as usize].as_file().ok_or_else(|| io::Error::from(io::ErrorKind::IsADirectory))?;
        let (dir, name) = self.parent(path)?;
        self.apply_untracked(dir, ChangeKind::Unlink(name));
        Ok(())
    }

    pub(crate) fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        let node = self.find(path).ok_or_else(not_found)?;
        let entries = self.cache[node as usize].as_dir();
        if !entries.ok_or_else(|| io::Error::from(io::ErrorKind::NotADirectory))?.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let (dir, name) = self.parent(path)?;
        self.apply_untracked(dir, ChangeKind::Unlink(name));
        Ok(())
    }

    pub(crate) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let dir = self.find(path).ok_or_else(not_found)?;
        self.flush(|change| change.node == dir);
        if self.tracked {
            // Nobody can ever see files again that are unlinked for good.
            let mut seen = BTreeSet::new();
            let mut dirs = |nodes: &[Node]| {
                nodes.iter().filter_map(Node::as_dir).for_each(|entries| seen.extend(entries.values().copied()));
            };
            dirs(&self.durable);
            dirs(&self.cache);
            for change in &self.pending {
                if let ChangeKind::Link(_, node) | ChangeKind::Rename(_, _, _, node) = change.kind {
                    seen.insert(node);
                }
            }
            self.pending.retain(|change| change.node == crate::image::ROOT || seen.contains(&change.node));
        }
        Ok(())
    }

    // ----- bytes -----

    pub(crate) fn file(&self, node: NodeId) -> &FileData {
        self.cache[node as usize].as_file().expect("a file")
    }

    /// Whether a write into the range needs disk blocks that the file does not have.
    pub(crate) fn needs_blocks(&self, node: NodeId, at: u64, len: u64) -> bool {
        let blocks = self.blocks.get(&node);
        let mut pages = at / PAGE as u64..(at + len).div_ceil(PAGE as u64);
        pages.any(|page| self.file(node).page(page).is_none() && !blocks.is_some_and(|set| set.contains(&page)))
    }

    pub(crate) fn allocate(&mut self, node: NodeId, at: u64, len: u64) {
        // Whether or not a call is to fail now: a later one may be.
        let pages = at / PAGE as u64..(at + len).div_ceil(PAGE as u64);
        self.blocks.entry(node).or_default().extend(pages);
        if self.file(node).len() < at + len {
            self.apply_untracked(node, ChangeKind::Len(at + len));
        }
    }

    /// Whole pages of the range become holes; bytes of the others become zeroes.
    pub(crate) fn punch_hole(&mut self, node: NodeId, at: u64, len: u64) {
        self.look_at_logs(Some(node));
        let end = (at + len).min(self.file(node).len().next_multiple_of(PAGE as u64));
        assert!(at.is_multiple_of(PAGE as u64) && end.is_multiple_of(PAGE as u64), "a hole of whole pages");
        assert!(self.logs.iter().all(|(n, _)| *n != node), "a hole under a mapping of the log");
        for page in at / PAGE as u64..end / PAGE as u64 {
            self.note_private(node, page * PAGE as u64, PAGE);
            if let Some(blocks) = self.blocks.get_mut(&node) {
                blocks.remove(&page);
            }
            if self.file(node).page(page).is_some() {
                self.apply_untracked(node, ChangeKind::Hole(page));
            }
            self.show_private(node, page * PAGE as u64, PAGE);
        }
    }

    pub(crate) fn set_len(&mut self, node: NodeId, len: u64) {
        self.look_at_logs(Some(node));
        // The unused end of a segment is cut off under its mapping; nothing may ever have been stored there.
        let mapped = self.logs.iter().filter(|(n, _)| *n == node).map(|(_, view)| view.bytes() as u64).max();
        let kept = len.next_multiple_of(PAGE as u64);
        if let Some(cut) = mapped.and_then(|mapped| mapped.checked_sub(kept)) {
            let mut bytes = vec![1; cut as usize];
            self.file(node).read(kept, &mut bytes);
            assert!(bytes.iter().all(|&byte| byte == 0), "records are cut off under a mapping");
        }
        if self.file(node).len() != len {
            if let Some(blocks) = self.blocks.get_mut(&node) {
                blocks.retain(|&page| page < len.div_ceil(PAGE as u64));
            }
            self.apply_untracked(node, ChangeKind::Len(len));
        }
    }

    pub(crate) fn read(&mut self, node: NodeId, at: u64, buffer: &mut [u8]) -> usize {
        self.look_at_logs(Some(node));
        let data = self.file(node);
        let n = data.len().saturating_sub(at).min(buffer.len() as u64) as usize;
        data.read(at, &mut buffer[..n]);
        n
    }

    pub(crate) fn write(&mut self, node: NodeId, at: u64, bytes: &[u8]) {
        self.look_at_logs(Some(node));
        for (n, view) in &self.logs {
            let end = (at + bytes.len() as u64).min(view.bytes() as u64);
            if *n == node && at < end {
                let mut now = vec![0; (end - at) as usize];
                self.file(node).read(at, &mut now);
                assert_eq!(now, bytes[..now.len()], "pwrite of other bytes under a live mapping of the log");
            }
        }
        self.write_seen(node, at, bytes);
    }

    pub(super) fn write_seen(&mut self, node: NodeId, at: u64, bytes: &[u8]) {
        self.note_private(node, at, bytes.len());
        let end = at + bytes.len() as u64;
        if self.file(node).len() < end {
            self.apply_untracked(node, ChangeKind::Len(end));
        }
        self.write_sectors(node, at, bytes);
        self.show_private(node, at, bytes.len());
    }

    fn write_sectors(&mut self, node: NodeId, mut at: u64, mut bytes: &[u8]) {
        if !self.tracked {
            self.version += 1;
            if let Node::File(data) = &mut self.cache[node as usize] {
                Arc::make_mut(data).write(at, bytes);
            }
            return;
        }
        while !bytes.is_empty() {
            let (sector, from) = ((at / SECTOR as u64) as u32, (at % SECTOR as u64) as usize);
            let n = bytes.len().min(SECTOR - from);
            let mut new = self.file(node).sector(sector);
            let lied = !self.lies.is_empty() && self.lies.remove(&(node, sector));
            if lied || new[from..from + n] != bytes[..n] {
                new[from..from + n].copy_from_slice(&bytes[..n]);
                self.change(node, ChangeKind::Sector(sector, Arc::new(new)));
            }
            bytes = &bytes[n..];
            at += n as u64;
        }
    }

    /// fsync or fdatasync.
    pub(crate) fn sync(&mut self, node: NodeId, data_only: bool) {
        if !self.tracked {
            return;
        }
        self.look_at_logs(Some(node));
        if !data_only {
            self.flush(|change| change.node == node);
            return;
        }
        // A length is data as far as the data reaches that was written; what was only allocated or set is not.
        let mut durable = self.durable[node as usize].as_file().expect("a file").len();
        let (mut end, mut shrinks) = (0, false);
        for change in self.pending.iter().filter(|change| change.node == node) {
            match change.kind {
                ChangeKind::Sector(sector, _) => end = end.max((u64::from(sector) + 1) * SECTOR as u64),
                ChangeKind::Len(len) => {
                    shrinks |= len < durable;
                    durable = len;
                }
                _ => {}
            }
        }
        if shrinks {
            self.flush(|change| change.node == node);
            return;
        }
        let end = end.min(self.file(node).len());
        self.flush(|change| change.node == node && change.is_sector());
        if let Node::File(data) = &mut self.durable[node as usize]
            && data.len() < end
        {
            Arc::make_mut(data).extend(end);
        }
    }

    /// Moves changes into the durable state.
    fn flush(&mut self, which: impl Fn(&Change) -> bool) {
        if self.pending.iter().any(&which) {
            self.version += 1;
            let durable = &mut self.durable;
            self.pending.retain(|change| {
                let flushed = which(change);
                if flushed {
                    change.apply(durable, None);
                }
                !flushed
            });
        }
    }

    /// A failed fsync: some of the sectors may have been written, the others count as clean from now on and are
    /// not on the disk. A sector that was written behind a hole or a shorter length that is still pending is none of those
    /// that may have been: the disk would have to do the later before the earlier, and then the earlier over it.
    pub(crate) fn lie(&mut self, node: NodeId) {
        self.look_at_logs(Some(node));
        self.version += 1;
        self.failed_syncs.insert(node);
        let mut pending = Vec::new();
        for change in std::mem::take(&mut self.pending) {
            match change.kind {
                ChangeKind::Sector(sector, _) if change.node == node => {
                    let erased = pending.iter().any(|earlier: &Change| earlier.node == node && earlier.erases(sector));
                    if self.random.one_in(4) && !erased {
                        change.apply(&mut self.durable, None);
                        self.lies.remove(&(node, sector));
                    } else {
                        self.lies.insert((node, sector));
                    }
                }
                _ => pending.push(change),
            }
        }
        self.pending = pending;
    }

    /// A failed fsync of a directory: some of its names may have been written, the others are seen and stay seen, and are
    /// not on the disk.
    pub(crate) fn lie_about_names(&mut self, path: &Path) {
        let Some(dir) = self.find(path) else { return };
        self.version += 1;
        let mut pending = Vec::new();
        for change in std::mem::take(&mut self.pending) {
            if change.node != dir {
                pending.push(change);
            } else if self.random.one_in(4) {
                change.apply(&mut self.durable, None);
            } else {
                self.lying_names = true;
            }
        }
        self.pending = pending;
    }

    /// True if the cache shows anything as clean that is not on the disk.
    pub(crate) fn has_lies(&self) -> bool {
        !self.lies.is_empty()
    }
}
