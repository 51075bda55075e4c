//! The simulated disk: [`Disk`] and [`DiskFile`] over a [`World`].

use std::fmt::{self, Debug};
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tophash::sys::{
    Advice, Disk, DiskFile, IndexMap, IndexMemory, LockGuard, LockHolder, LockMode, LockOutcome, LogMap, LogMemory,
    OpenMode, PathKind,
};

use crate::faults::{Fault, FaultPlan};
use crate::image::{Image, Node, NodeId, PAGE};
use crate::recorder::{Boundary, Bounds, Recorder};
use crate::world::{Call, Held, World};

/// A simulated disk. Clones share it.
///
/// A log mapping is looked at without a lock, from inside the calls that the store makes. Beside threads that append,
/// what is seen above the watermark is of no one moment, as it is for the writeback of a kernel.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<World>>);

impl Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimDisk")
    }
}

/// The error of a call that fails and has nothing to fail half.
fn failed(fault: Fault) -> io::Error {
    io::Error::from_raw_os_error(fault.errno())
}

impl SimDisk {
    /// A disk that holds an image and can crash.
    #[must_use]
    pub fn new(image: Image, seed: u64) -> Self {
        SimDisk(Arc::new(Mutex::new(World::new(image, true, seed))))
    }

    /// A disk that nobody will ask what a crash would leave: faster.
    #[must_use]
    pub fn untracked(image: Image, seed: u64) -> Self {
        SimDisk(Arc::new(Mutex::new(World::new(image, false, seed))))
    }

    /// The disk on which a process was killed at a boundary. The machine goes on: all that the process did is seen, and
    /// what was not durable still is not.
    #[must_use]
    pub fn of_killed(boundary: &Boundary, seed: u64) -> Self {
        let mut nodes = boundary.durable.clone();
        boundary.pending.iter().for_each(|change| change.apply(&mut nodes, None));
        let mut world = World::new(Image { nodes }, true, seed);
        world.durable.clone_from(&boundary.durable);
        world.pending.clone_from(&boundary.pending);
        SimDisk(Arc::new(Mutex::new(world)))
    }

    /// From now on every I/O boundary is written down.
    pub fn record(&self) {
        self.0.lock().recorder = Some(Recorder::default());
    }

    /// Several threads will use the store: a private page never shows a later write of the file, because the disk cannot
    /// tell whether the store changes the page just then.
    pub fn serve_threads(&self) {
        self.0.lock().threads = true;
    }

    /// Ends the recording. Returns the boundaries, and how many were met in all.
    pub fn recorded(&self) -> (Vec<Boundary>, u64) {
        self.0.lock().recorder.take().map_or_else(Default::default, |recorder| (recorder.boundaries, recorder.met))
    }

    /// Notes how far the run has come.
    pub fn progress(&self, set: impl FnOnce(&mut Bounds)) {
        if let Some(recorder) = &mut self.0.lock().recorder {
            set(&mut recorder.bounds);
        }
    }

    /// A boundary that is no call: what was stored through mappings since the last one counts too.
    pub fn boundary(&self) {
        let mut world = self.0.lock();
        if world.recorder.is_some() {
            world.boundary(Call::Len);
        }
    }

    /// What a crash now could leave.
    #[must_use]
    pub fn moment(&self) -> Boundary {
        let mut world = self.0.lock();
        world.recorder = Some(Recorder::default());
        world.boundary(Call::Len);
        let recorder = world.recorder.take().expect("just set");
        recorder.boundaries.into_iter().next().expect("a first boundary is always noted")
    }

    /// The disk as the process sees it: what is left when the process dies and the machine does not.
    #[must_use]
    pub fn cached(&self) -> Image {
        let mut world = self.0.lock();
        world.boundary(Call::Len);
        Image { nodes: world.cache.clone() }
    }

    /// Sets the clock, in milliseconds since 1970. A new disk shows [`NOW`](crate::script::NOW).
    pub fn set_clock(&self, millis: u64) {
        self.0.lock().clock = millis;
    }

    /// Without power, every call fails.
    pub fn set_power(&self, on: bool) {
        self.0.lock().dead = !on;
    }

    /// Sets which calls fail.
    pub fn set_faults(&self, plan: Option<FaultPlan>) {
        self.0.lock().faults = plan;
    }

    /// The plan with its counters.
    #[must_use]
    pub fn faults(&self) -> Option<FaultPlan> {
        self.0.lock().faults.clone()
    }

    /// Calls made so far that could change something, or make it durable.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.0.lock().changes
    }

    /// True if the page cache shows something as clean that is not on the disk.
    #[must_use]
    pub fn has_lies(&self) -> bool {
        self.0.lock().has_lies()
    }

    /// True if a directory shows names as durable that are not: its fsync has failed. File systems do not go on then, so
    /// only what the power failure leaves is to be judged.
    #[must_use]
    pub fn has_lying_names(&self) -> bool {
        self.0.lock().lying_names
    }

    /// The name of a file of which an fsync has failed and that is still there. What failed before is forgotten.
    pub fn failed_sync(&self) -> Option<String> {
        let mut world = self.0.lock();
        let failed = std::mem::take(&mut world.failed_syncs);
        let names = world.cache.iter().filter_map(Node::as_dir).flatten();
        names.into_iter().find(|(_, node)| failed.contains(node)).map(|(name, _)| name.to_string())
    }

    /// Begins a call that fails as a whole or not at all.
    fn begin(&self, call: Call) -> io::Result<MutexGuard<'_, World>> {
        let mut world = self.0.lock();
        match world.begin(call)? {
            Some(fault) => Err(failed(fault)),
            None => Ok(world),
        }
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let create = mode == OpenMode::CreateNew;
        let mut world = self.begin(if create { Call::Create } else { Call::Open })?;
        let node = if create {
            world.create(path, Node::file())?
        } else {
            world.find(path).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?
        };
        if world.cache[node as usize].as_file().is_none() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        Ok(Arc::new(SimFile { disk: self.clone(), node, writable: mode != OpenMode::Read }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.begin(Call::CreateDir)?.create(path, Node::dir()).map(|_| ())
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        let world = self.begin(Call::ReadDir)?;
        let node = world.find(path).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let entries = world.cache[node as usize].as_dir();
        let entries = entries.ok_or_else(|| io::Error::from(io::ErrorKind::NotADirectory))?;
        Ok(entries.keys().map(|name| name.to_string()).collect())
    }

    fn kind(&self, path: &Path) -> io::Result<PathKind> {
        let world = self.begin(Call::Kind)?;
        Ok(match world.find(path).map(|node| &world.cache[node as usize]) {
            None => PathKind::Missing,
            Some(Node::Dir(_)) => PathKind::Directory,
            Some(Node::File(_)) => PathKind::Other,
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.begin(Call::Rename)?.rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.begin(Call::Unlink)?.unlink(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.begin(Call::RemoveDir)?.remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut world = self.0.lock();
        match world.begin(Call::SyncDir)? {
            None => world.sync_dir(path),
            Some(fault) => {
                if fault.lies() {
                    world.lie_about_names(path);
                }
                Err(failed(fault))
            }
        }
    }

    fn lock(&self, path: &Path, mode: LockMode) -> io::Result<LockOutcome> {
        let mut world = self.begin(Call::Lock)?;
        let node = match world.find(path) {
            Some(node) => node,
            None if mode == LockMode::Exclusive => world.create(path, Node::file())?,
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        let held = match (world.locks.get(&node), mode) {
            (None, LockMode::Exclusive) => Held::Exclusive,
            (None, LockMode::Shared) => Held::Shared(1),
            (Some(Held::Shared(n)), LockMode::Shared) => Held::Shared(n + 1),
            _ => return Ok(LockOutcome::Busy(LockHolder::default())),
        };
        world.locks.insert(node, held);
        Ok(LockOutcome::Held(Box::new(SimLock { disk: self.clone(), node })))
    }

    fn map_anonymous(&self, bytes: usize) -> io::Result<IndexMap> {
        drop(self.begin(Call::MapAnonymous)?);
        Ok({
            let memory = IndexMemory::new(bytes);
            let zeroes = memory.clone();
            memory.map(Box::new(move |advice, offset, bytes| {
                if advice == Advice::Discard {
                    let words = &zeroes.words()[offset / 8..(offset + bytes) / 8];
                    words.iter().for_each(|word| word.store(0, std::sync::atomic::Ordering::Relaxed));
                }
                Ok(())
            }))
        })
    }

    /// The clock stands still until it is set, so that the same script writes the same bytes.
    fn now(&self) -> u64 {
        self.0.lock().clock
    }
    fn random(&self, buffer: &mut [u8]) -> io::Result<()> {
        let mut world = self.begin(Call::Random)?;
        for bytes in buffer.chunks_mut(8) {
            let word = world.random.word().to_le_bytes();
            bytes.copy_from_slice(&word[..bytes.len()]);
        }
        Ok(())
    }
}

#[derive(Debug)]
struct SimLock {
    disk: SimDisk,
    node: NodeId,
}

impl LockGuard for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut world = self.disk.0.lock();
        match world.locks.get(&self.node) {
            Some(Held::Shared(n)) if *n > 1 => {
                let held = Held::Shared(n - 1);
                world.locks.insert(self.node, held);
            }
            _ => _ = world.locks.remove(&self.node),
        }
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    node: NodeId,
    writable: bool,
}

impl SimFile {
    fn begin(&self, call: Call) -> io::Result<MutexGuard<'_, World>> {
        if call.changes() && !matches!(call, Call::SyncData | Call::SyncAll) {
            assert!(self.writable, "{call:?} of a file that was opened for reading");
        }
        self.disk.begin(call)
    }

    /// Bytes that a call of so many bytes gets through.
    fn shortened(&self, call: Call, bytes: usize) -> io::Result<(MutexGuard<'_, World>, usize)> {
        if call == Call::Write {
            assert!(self.writable, "a write to a file that was opened for reading");
        }
        let mut world = self.disk.0.lock();
        match world.begin(call)? {
            None => Ok((world, bytes)),
            Some(Fault::Short) => Ok((world, (bytes / 2).max(1).min(bytes))),
            Some(fault) => Err(failed(fault)),
        }
    }

    fn sync(&self, call: Call) -> io::Result<()> {
        let mut world = self.disk.0.lock();
        match world.begin(call)? {
            None => world.sync(self.node, call == Call::SyncData),
            Some(fault) => {
                world.lie(self.node);
                return Err(failed(fault));
            }
        }
        Ok(())
    }

    fn write(&self, buffer: &[u8], offset: u64, write: fn(&mut World, NodeId, u64, &[u8])) -> io::Result<usize> {
        assert!(self.writable, "a write to a file that was opened for reading");
        let mut world = self.disk.0.lock();
        let mut bytes = buffer.len();
        match world.begin(Call::Write)? {
            None => {}
            Some(Fault::Short) => bytes = (bytes / 2).max(1).min(bytes),
            // Blocks that were allocated before are not lost.
            Some(Fault::Full | Fault::Quota) if !world.needs_blocks(self.node, offset, bytes as u64) => {}
            Some(fault) => return Err(failed(fault)),
        }
        write(&mut world, self.node, offset, &buffer[..bytes]);
        Ok(bytes)
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let (mut world, bytes) = self.shortened(Call::Read, buffer.len())?;
        Ok(world.read(self.node, offset, &mut buffer[..bytes]))
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        self.write(buffer, offset, World::write)
    }

    fn write_mapped_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        self.write(buffer, offset, World::write_mapped)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.begin(Call::Len)?.file(self.node).len())
    }

    fn allocated(&self) -> io::Result<u64> {
        Ok(self.begin(Call::Allocated)?.file(self.node).len().next_multiple_of(PAGE as u64))
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        let world = self.begin(Call::NextData)?;
        let data = world.file(self.node);
        let page = PAGE as u64;
        let pages = data.len().div_ceil(page);
        let found = (offset / page..pages).find(|&number| data.page(number).is_some());
        Ok(found.map(|number| offset.max(number * page)))
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.begin(Call::SetLen)?.set_len(self.node, bytes);
        Ok(())
    }

    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let mut world = self.disk.0.lock();
        match world.begin(Call::Allocate)? {
            None => {}
            Some(Fault::Full | Fault::Quota) if !world.needs_blocks(self.node, offset, bytes) => {}
            Some(fault) => return Err(failed(fault)),
        }
        world.allocate(self.node, offset, bytes);
        Ok(())
    }

    fn punch_hole(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.begin(Call::PunchHole)?.punch_hole(self.node, offset, bytes);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync(Call::SyncData)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync(Call::SyncAll)
    }

    fn map_private(&self, offset: u64, bytes: usize) -> io::Result<IndexMap> {
        let world = self.begin(Call::MapPrivate)?;
        Ok(self.map_index(world, offset, bytes, false))
    }

    fn map_fresh(&self, offset: u64, bytes: usize) -> io::Result<IndexMap> {
        let world = self.begin(Call::MapFresh)?;
        Ok(self.map_index(world, offset, bytes, true))
    }

    fn map_log(&self, bytes: usize, written: u64, writable: bool) -> io::Result<LogMap> {
        let mut world = self.begin(Call::MapLog)?;
        let (map, view) = LogMemory::new(bytes, &world.bytes(self.node, bytes)).map(written);
        if writable {
            assert!(self.writable, "a writable mapping of a file that was opened for reading");
            world.watch(self.node, view);
        }
        Ok(map)
    }
}

impl SimFile {
    fn map_index(&self, mut world: MutexGuard<'_, World>, offset: u64, bytes: usize, fresh: bool) -> IndexMap {
        let memory = IndexMemory::new(bytes);
        let (number, alive) = world.map_private(self.node, offset, memory.clone(), fresh);
        let disk = Arc::downgrade(&self.disk.0);
        memory.map(Box::new(move |advice, offset, bytes| {
            let _alive = &alive;
            if let Some(world) = disk.upgrade() {
                world.lock().advise(number, advice, offset, bytes);
            }
            Ok(())
        }))
    }
}
