//! The real disk.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::{Mmap, MmapMut, MmapOptions};
use rustix::fs::{FallocateFlags, FlockOperation, OFlags};
use rustix::mm::{Advice, MapFlags, ProtFlags};

use super::map::MapOwner;
use super::{Disk, DiskFile, IndexMap, LockGuard, LockMode, LockOutcome, LogMap, OpenMode, PAGE_BYTES, PathKind};
use crate::sync::Mutex;

/// The operating system's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).mode(0o600).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        match mode {
            OpenMode::Read => {}
            OpenMode::Write => _ = options.write(true),
            OpenMode::CreateNew => _ = options.write(true).create_new(true),
        }
        Ok(Arc::new(RealFile { file: Arc::new(options.open(path)?) }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new().mode(0o700).create(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn kind(&self, path: &Path) -> io::Result<PathKind> {
        match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => Ok(PathKind::Directory),
            Ok(_) => Ok(PathKind::Other),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(PathKind::Missing),
            Err(e) => Err(e),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn copy_owner(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, now) = (fs::metadata(from)?, fs::metadata(to)?);
        if (from.uid(), from.gid()) != (now.uid(), now.gid()) {
            match std::os::unix::fs::chown(to, Some(from.uid()), Some(from.gid())) {
                // Only root gives files away; whoever else may open the store goes on owning it.
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
                other => other?,
            }
        }
        if from.mode() & 0o7777 == now.mode() & 0o7777 {
            return Ok(());
        }
        fs::set_permissions(to, from.permissions())
    }

    fn lock(&self, path: &Path, mode: LockMode) -> io::Result<LockOutcome> {
        let mut options = fs::OpenOptions::new();
        options.read(true).mode(0o600).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        let operation = match mode {
            LockMode::Exclusive => {
                options.write(true).create(true).truncate(false);
                FlockOperation::NonBlockingLockExclusive
            }
            LockMode::Shared => FlockOperation::NonBlockingLockShared,
        };
        let mut file = options.open(path)?;
        match rustix::fs::flock(&file, operation) {
            Ok(()) => {}
            Err(e) if e == rustix::io::Errno::WOULDBLOCK => {
                // Readers leave the last writer's id in the file. If a reader's lock can be had, it is readers.
                if rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
                    return Ok(LockOutcome::Busy(None));
                }
                let mut text = String::new();
                let _ = (&mut file).take(32).read_to_string(&mut text);
                return Ok(LockOutcome::Busy(text.trim().parse().ok()));
            }
            Err(e) => return Err(e.into()),
        }
        if mode == LockMode::Exclusive {
            // The id is a courtesy for error messages: a full disk must not keep a store from opening.
            let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        }
        Ok(LockOutcome::Held(Box::new(RealLock { file, owner: std::process::id() })))
    }

    fn map_anonymous(&self, bytes: usize) -> io::Result<IndexMap> {
        let mut map = MmapOptions::new().len(bytes).no_reserve_swap().map_anon()?;
        let memory = non_null(map.as_mut_ptr())?;
        // SAFETY: the mapping is page-aligned and writable, and the owner keeps it; `MmapMut` is never
        // dereferenced again, so only atomics touch it.
        Ok(unsafe { IndexMap::from_raw(memory, bytes, Box::new(Writable { map, file_backed: false })) })
    }

    fn random(&self, buffer: &mut [u8]) -> io::Result<()> {
        getrandom::fill(buffer).map_err(io::Error::other)
    }
}

/// An flock, held until dropped.
#[derive(Debug)]
struct RealLock {
    file: File,
    owner: u32,
}

impl LockGuard for RealLock {}

impl Drop for RealLock {
    /// Unlocks, rather than only closing: a child process that is just being spawned holds a copy of the
    /// descriptor until it executes its program. A forked child must leave its parent's lock alone.
    fn drop(&mut self) {
        if std::process::id() == self.owner {
            // Closing follows; if this fails it does the same, a little later.
            let _ = rustix::fs::flock(&self.file, FlockOperation::NonBlockingUnlock);
        }
    }
}

#[derive(Debug)]
struct RealFile {
    file: Arc<File>,
}

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        self.file.write_at(buffer, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn allocated(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.blocks() * 512)
    }

    #[cfg(target_os = "linux")]
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        // Moves the descriptor's position, which nobody uses.
        match rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Data(offset)) {
            Ok(data) => Ok(Some(data)),
            Err(rustix::io::Errno::NXIO) => Ok(None),
            // A file system that cannot tell: everything may be data.
            Err(_) => Ok(Some(offset)),
        }
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        loop {
            match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), offset, bytes) {
                Ok(()) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn punch_hole(&self, offset: u64, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, bytes) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn map_private(&self, offset: u64, bytes: usize) -> io::Result<IndexMap> {
        // SAFETY: a private mapping; other processes are kept out by the store's lock, our own writes to the
        // file go to pages that are private already or through the same bytes, and the memory is accessed as
        // atomics only. A file truncated by others is SIGBUS, as documented.
        let mut map = unsafe { MmapOptions::new().offset(offset).len(bytes).no_reserve_swap().map_copy(&*self.file)? };
        let memory = non_null(map.as_mut_ptr())?;
        // SAFETY: page-aligned, writable (privately), kept by the owner, accessed as atomics only.
        Ok(unsafe { IndexMap::from_raw(memory, bytes, Box::new(Writable { map, file_backed: true })) })
    }

    fn map_fresh(&self, offset: u64, bytes: usize) -> io::Result<IndexMap> {
        let mut map = MmapOptions::new().len(bytes).no_reserve_swap().map_anon()?;
        let memory = non_null(map.as_mut_ptr())?;
        let owner = Fresh { map, file: Arc::clone(&self.file), offset, replaced: Mutex::default() };
        // SAFETY: the range is a mapping that `owner` owns. Only advice: without huge pages it is slower.
        let _ = unsafe { rustix::mm::madvise(memory.as_ptr().cast(), bytes, Advice::LinuxHugepage) };
        // SAFETY: page-aligned, writable, kept by the owner, accessed as atomics only.
        Ok(unsafe { IndexMap::from_raw(memory, bytes, Box::new(owner)) })
    }

    fn map_log(&self, bytes: usize, written: u64, writable: bool) -> io::Result<LogMap> {
        if writable {
            // SAFETY: the store's lock keeps other processes out; within this one, stores go through the one
            // LogWriter only.
            let mut map = unsafe { MmapOptions::new().len(bytes).map_mut(&*self.file)? };
            let memory = non_null(map.as_mut_ptr())?;
            // SAFETY: mapped readable and writable for `bytes`, kept by the owner.
            return Ok(unsafe {
                LogMap::from_raw(memory, bytes, written, Box::new(Writable { map, file_backed: true }))
            });
        }
        // SAFETY: as above, without stores.
        let map = unsafe { MmapOptions::new().len(bytes).map(&*self.file)? };
        let memory = non_null(map.as_ptr().cast_mut())?;
        // SAFETY: mapped readable for `bytes`, kept by the owner; no LogWriter is made for it.
        Ok(unsafe { LogMap::from_raw(memory, bytes, written, Box::new(ReadOnly { map })) })
    }
}

fn non_null(memory: *mut u8) -> io::Result<NonNull<u8>> {
    NonNull::new(memory).ok_or_else(|| io::Error::other("a mapping at address zero"))
}

/// Dropping works by the page, and only where the system's pages are as small as ours: a larger one would take
/// the neighbours' changes along.
fn one_page(bytes: usize) -> io::Result<()> {
    if bytes == PAGE_BYTES && rustix::param::page_size() == PAGE_BYTES {
        return Ok(());
    }
    Err(io::Error::other("private memory is dropped one page of 4096 bytes at a time"))
}

/// Memory is discarded by whole pages of the system.
fn whole_pages(offset: usize, bytes: usize) -> io::Result<()> {
    let page = rustix::param::page_size();
    if offset.is_multiple_of(page) && bytes.is_multiple_of(page) {
        return Ok(());
    }
    Err(io::Error::other("memory is discarded by whole pages"))
}

/// Owns a mapping that was made writable.
struct Writable {
    map: MmapMut,
    file_backed: bool,
}

impl Writable {
    fn advise(&self, advice: Advice, offset: usize, bytes: usize) -> io::Result<()> {
        assert!(offset + bytes <= self.map.len());
        // SAFETY: the range is inside a mapping that `self` owns. Advice used here (populate, drop private
        // copies) does not unmap; callers of `drop_private` rely on reading the file's bytes afterwards.
        unsafe { rustix::mm::madvise(self.map.as_ptr().add(offset).cast_mut().cast(), bytes, advice)? };
        Ok(())
    }
}

impl MapOwner for Writable {
    fn populate(&self, offset: usize, bytes: usize) -> io::Result<()> {
        self.advise(Advice::LinuxPopulateWrite, offset, bytes)
    }

    fn drop_private(&self, offset: usize, bytes: usize) -> io::Result<()> {
        one_page(bytes)?;
        // Anonymous memory has no file behind it: dropping would lose data.
        if self.file_backed { self.advise(Advice::LinuxDontNeed, offset, bytes) } else { Ok(()) }
    }

    fn discard(&self, offset: usize, bytes: usize) -> io::Result<()> {
        whole_pages(offset, bytes)?;
        self.advise(Advice::LinuxDontNeed, offset, bytes)
    }
}

/// Pieces that a [`Fresh`] can be split into: a process may have 65,530 mappings, and the log needs some.
const PIECES_MAX: u64 = 4096;

/// Owns anonymous memory that stands for a part of a file.
struct Fresh {
    map: MmapMut,
    file: Arc<File>,
    /// Where in the file the memory's first byte belongs.
    offset: u64,
    /// Pages that the file has taken the place of, a bit each.
    replaced: Mutex<Replaced>,
}

#[derive(Default)]
struct Replaced {
    pages: Vec<u64>,
    /// Runs of replaced pages that began with a page of their own.
    pieces: u64,
}

impl Replaced {
    fn has(&self, page: usize) -> bool {
        self.pages.get(page / 64).is_some_and(|word| word & 1 << (page % 64) != 0)
    }

    fn set(&mut self, page: usize) {
        if self.pages.len() <= page / 64 {
            self.pages.resize(page / 64 + 1, 0);
        }
        self.pages[page / 64] |= 1 << (page % 64);
    }
}

impl MapOwner for Fresh {
    fn populate(&self, offset: usize, bytes: usize) -> io::Result<()> {
        assert!(offset + bytes <= self.map.len());
        // SAFETY: the range is inside a mapping that `self` owns.
        unsafe {
            rustix::mm::madvise(self.map.as_ptr().add(offset).cast_mut().cast(), bytes, Advice::LinuxPopulateWrite)?;
        }
        Ok(())
    }

    fn discard(&self, offset: usize, bytes: usize) -> io::Result<()> {
        assert!(offset + bytes <= self.map.len());
        whole_pages(offset, bytes)?;
        // SAFETY: the range is inside a mapping that `self` owns; anonymous pages read as zeroes afterwards,
        // replaced ones as the file does, which the caller has punched a hole into.
        unsafe { rustix::mm::madvise(self.map.as_ptr().add(offset).cast_mut().cast(), bytes, Advice::LinuxDontNeed)? };
        Ok(())
    }

    fn drop_private(&self, offset: usize, bytes: usize) -> io::Result<()> {
        assert!(offset + bytes <= self.map.len());
        one_page(bytes)?;
        let page = offset / PAGE_BYTES;
        let mut replaced = self.replaced.lock();
        if replaced.has(page) {
            // SAFETY: the range is inside a mapping that `self` owns; it shows the file, as below, so dropping
            // the private copy brings the file's bytes back.
            unsafe {
                rustix::mm::madvise(self.map.as_ptr().add(offset).cast_mut().cast(), bytes, Advice::LinuxDontNeed)?
            };
            return Ok(());
        }
        let alone = !(replaced.has(page + 1) || page > 0 && replaced.has(page - 1));
        if alone && replaced.pieces >= PIECES_MAX {
            return Err(io::Error::other("the mapping is in too many pieces"));
        }
        // SAFETY: the range is inside a mapping that `self` owns and stays mapped: the file's pages take the
        // memory's place in one step. They hold the same bytes, as `drop_private`'s callers see to; the
        // mapping is unmapped as a whole when `map` is dropped.
        unsafe {
            rustix::mm::mmap(
                self.map.as_ptr().add(offset).cast_mut().cast(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
                &*self.file,
                self.offset + offset as u64,
            )?;
        }
        replaced.set(page);
        replaced.pieces += u64::from(alone);
        Ok(())
    }
}

/// Owns a mapping that is read-only.
struct ReadOnly {
    map: Mmap,
}

impl MapOwner for ReadOnly {
    fn populate(&self, _offset: usize, _bytes: usize) -> io::Result<()> {
        Ok(())
    }

    fn drop_private(&self, _offset: usize, _bytes: usize) -> io::Result<()> {
        debug_assert!(!self.map.is_empty());
        Ok(())
    }

    fn discard(&self, _offset: usize, _bytes: usize) -> io::Result<()> {
        Ok(())
    }
}

/// The memory that this process may use: the smallest of the machine's and its control groups' limits.
pub(crate) fn memory_limit() -> u64 {
    let number = |path: &str| fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib << 10)
    });
    let mut limit = machine.unwrap_or(4 << 30);
    // Control group v2: every ancestor's limit counts. v1: the memory controller's own file.
    let group = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    for line in group.lines() {
        if let Some(path) = line.strip_prefix("0::") {
            let mut path = Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/'));
            while path.starts_with("/sys/fs/cgroup") {
                limit = limit.min(number(&path.join("memory.max").to_string_lossy()).unwrap_or(u64::MAX));
                if !path.pop() {
                    break;
                }
            }
        }
    }
    limit.min(number("/sys/fs/cgroup/memory/memory.limit_in_bytes").unwrap_or(u64::MAX))
}
