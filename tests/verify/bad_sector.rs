//! Blocks that the device refuses to read: findings, and the rest is checked.

use crate::common::passed_on::passed_on;
use crate::damage::base;
use crate::support::*;
use std::io;
use std::path::Path;
use std::sync::Arc;
use tophash::sys::{Disk, DiskFile, LogMap, OpenMode, RealDisk};

/// The real disk with a bad block in one file.
#[derive(Debug, Clone)]
struct BadDisk {
    file: String,
    block: u64,
}

#[derive(Debug)]
struct BadFile {
    inner: Arc<dyn DiskFile>,
    block: Option<u64>,
}

impl Disk for BadDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let block = path.ends_with(&self.file).then_some(self.block);
        Ok(Arc::new(BadFile { inner: RealDisk.open(path, mode)?, block }))
    }
    passed_on!(RealDisk: create_dir read_dir kind rename unlink sync_dir lock map_anonymous random);
}

impl DiskFile for BadFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let touched = offset / 4096..(offset + buffer.len() as u64).div_ceil(4096);
        match self.block {
            Some(block) if touched.contains(&block) => Err(io::Error::other("medium error")),
            _ => self.inner.read_at(buffer, offset),
        }
    }
    fn map_log(&self, _bytes: usize, _written: u64, _writable: bool) -> io::Result<LogMap> {
        panic!("a check maps nothing")
    }
    passed_on!(self.inner: write_at write_mapped_at len allocated set_len allocate sync_data sync_all map_private map_fresh);
}

#[test]
fn a_bad_block_is_a_finding() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    copy_store(base(), &path);
    let files = Files::new(&path);
    let meta = files.meta();
    let cut = meta.segments.last().unwrap();
    let segment = |entry: &Entry| format!("log-1/{:08}.log", entry.sequence);
    let page = files.find_primary(|page| live_slots(page).len() > 4).1;
    let blob = files.log_files("blob")[0].file_name().unwrap().to_string_lossy().into_owned();
    let blocks = [
        ("index".to_string(), page),
        ("index".to_string(), meta.primary[1]),
        (segment(&meta.segments[0]), 1),
        (segment(&meta.segments[1]), 0),
        (segment(cut), cut.end / 4096),
        (blob, 0),
        ("journal".to_string(), 0),
        ("index".to_string(), 2),
    ];
    for (file, block) in blocks {
        let disk = BadDisk { file: file.clone(), block };
        let report = tophash::verify::verify_disk(&disk, &path, tophash::Progress::ignore).unwrap();
        let found = finding(&report, "unreadable");
        assert!(found.path.ends_with(&file) && found.found.contains("medium error"), "{found:?}");
        assert!(found.offset.is_none_or(|offset| offset == block * 4096), "{found:?}");
        // Before what follows from it: whoever tells one finding for all tells the cause. (An offline compaction once
        // refused a log with a bad block because of "other bytes".)
        let first = report.findings.iter().find(|finding| finding.path.ends_with(&file)).unwrap();
        assert_eq!(first.kind, "unreadable", "{file}: {report:#?}");
        assert!(!report.is_clean() && (report.records > 500 || (file == "index" && block == 2)), "{file}: {report:#?}");
    }
    // A header slot that cannot be read leaves unclear which of the two is the newer one.
    let disk = BadDisk { file: "index".into(), block: 0 };
    assert!(tophash::verify::verify_disk(&disk, &path, tophash::Progress::ignore).is_err());
}
