//! The disk's own limit for single durable writes: append a little, fdatasync, again.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use memmap2::MmapMut;

use crate::interrupt;
use crate::protocol::Timed;

/// Bytes of one append: a record of a usual size with its header.
pub const APPEND_BYTES: usize = 200;
/// Size of the prepared file; a longer measurement begins at its start again.
const FILE_BYTES: usize = 64 << 20;
/// The file is filled by pieces of this size: the kernel keeps it in such pieces and writes whole ones.
const PIECE_BYTES: usize = 4 << 10;

/// How the bytes get into the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By system call.
    Pwrite,
    /// By a store into a shared mapping.
    Mapping,
}

impl Way {
    /// Both.
    pub const ALL: [Way; 2] = [Way::Pwrite, Way::Mapping];
}

/// A file of zeroes on the disk, allocated and synced, that is overwritten from start to end.
pub struct RawFile {
    way: Way,
    file: File,
    map: MmapMut,
    next: usize,
}

impl RawFile {
    /// Prepares a file.
    pub fn prepare(dir: &Path, way: Way) -> anyhow::Result<Self> {
        let path = dir.join(format!("raw-{way:?}"));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .with_context(|| format!("cannot create {}", path.display()))?;
        for _ in 0..FILE_BYTES / PIECE_BYTES {
            file.write_all(&[0; PIECE_BYTES])?;
        }
        file.sync_all()?;
        // SAFETY: the file is in this run's own folder; nobody else writes or truncates it while it is mapped.
        let map = unsafe { MmapMut::map_mut(&file)? };
        Ok(RawFile { way, file, map, next: 0 })
    }

    /// Appends and syncs for so long.
    pub fn measure(&mut self, seconds: f64) -> anyhow::Result<Timed> {
        interrupt::check()?;
        let started = Instant::now();
        let mut operations: u64 = 0;
        while started.elapsed().as_secs_f64() < seconds {
            self.append(operations as u8 | 1)?;
            operations += 1;
        }
        Ok(Timed { operations, seconds: started.elapsed().as_secs_f64(), latency: None })
    }

    fn append(&mut self, byte: u8) -> anyhow::Result<()> {
        if self.next + APPEND_BYTES > FILE_BYTES {
            self.next = 0;
        }
        let bytes = [byte; APPEND_BYTES];
        match self.way {
            Way::Pwrite => self.file.write_all_at(&bytes, self.next as u64)?,
            Way::Mapping => self.map[self.next..self.next + APPEND_BYTES].copy_from_slice(&bytes),
        }
        self.next += APPEND_BYTES;
        // fdatasync
        Ok(self.file.sync_data()?)
    }
}
