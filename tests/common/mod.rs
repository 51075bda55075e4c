//! What the integration tests share: directories to work in, tiny tuning, reproducible random numbers, copies
//! of stores, and snapshots that tell whether a directory was changed.
//!
//! Three environment variables steer all of them:
//!
//! * `TOPHASH_TEST_SCALE` (default 1): how many histories, rounds or kills to run. The numbers are those of scale 10; see [`share`].
//! * `TOPHASH_TEST_SEED`: the seed of every random choice. Printed by each test that makes one; without the
//!   variable it is a new one for each run.
//! * `TOPHASH_TEST_DIR`: where test stores are made. Default: `/dev/shm` where there is one (nothing that is
//!   tested here depends on a real device), else the system's directory for temporary files.
#![allow(dead_code, reason = "each test binary uses its own part of this module")]

pub mod aligned;
pub mod calls;
pub mod counts;
pub mod futures;
pub mod hooked;
pub mod linear;
pub mod passed_on;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::Hasher;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::SeekFrom;
use siphasher::sip::SipHasher13;
use tempfile::TempDir;
use tophash::{Error, Options, Store, SyncPolicy, Tuning};

pub use self::counts::counts;

/// After this time of waiting, what a test waits for is taken for something that never comes. It judges no speed: what
/// takes a tenth of a second here may take minutes on a machine that others use.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// Waits until a condition holds.
#[track_caller]
pub fn eventually(what: impl std::fmt::Display, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Runs something that must not hang. (If it does, its thread stays.)
#[track_caller]
pub fn returns(what: &str, run: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(run);
    eventually(what, || thread.is_finished());
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Compiles for a type that threads may share, own and see after a panic, and that borrows nothing.
pub fn goes_anywhere<T: Clone + Send + Sync + UnwindSafe + RefUnwindSafe + 'static>() {}

/// `TOPHASH_TEST_SCALE`.
pub fn scale() -> usize {
    let text = std::env::var("TOPHASH_TEST_SCALE").unwrap_or_default();
    text.parse().ok().filter(|&scale| scale > 0).unwrap_or(1)
}

/// How many of something to do, if scale 10 does so many: a twentieth at scale 1, because a debug build is slow.
pub fn share(at_ten: u64) -> u64 {
    let scale = scale() as u64;
    if scale >= 10 { at_ten * scale / 10 } else { (at_ten * scale / 20).max(1) }
}

/// `TOPHASH_TEST_SEED`, or a new seed. Says which one it is.
pub fn seed(test: &str) -> u64 {
    let given = std::env::var("TOPHASH_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let clock = || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |now| now.as_nanos() as u64)
    };
    let seed = given.unwrap_or_else(clock);
    println!("{test}: TOPHASH_TEST_SEED={seed} TOPHASH_TEST_SCALE={}", scale());
    seed
}

/// A directory for a test's stores, removed when dropped.
pub fn scratch() -> TempDir {
    let shared = Path::new("/dev/shm");
    match std::env::var_os("TOPHASH_TEST_DIR") {
        Some(dir) => tempfile::tempdir_in(dir),
        None if shared.is_dir() => tempfile::tempdir_in(shared).or_else(|_| tempfile::tempdir()),
        None => tempfile::tempdir(),
    }
    .expect("a directory to work in")
}

/// A directory on the ordinary disk, for tests in which syncs should cost something.
pub fn disk_scratch() -> TempDir {
    match std::env::var_os("TOPHASH_TEST_DIR") {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    }
    .expect("a directory to work in")
}

/// The hash key of stores made with [`tiny`], so that tests can choose keys by their hashes.
pub const HASH_KEY: (u64, u64) = (0x746f_7068_6173_6821, 0x2174_6573_7473_2121);

/// The hash of a key in a store with [`HASH_KEY`].
pub fn hash(key: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(HASH_KEY.0, HASH_KEY.1);
    hasher.write(key);
    hasher.finish()
}

/// Pages of 24 slots, one page to begin with, no background threads: everything happens all the time, and
/// nothing happens between two calls.
pub fn tiny() -> Tuning {
    Tuning {
        level_min: 0,
        home_buckets: 2,
        stash_buckets: 1,
        overflow_log2_min: 1,
        blob_bytes_min: 600,
        written_bytes_min: 256,
        background: false,
        stripes_log2_max: 3,
        reserve_bytes: 512,
        tiny_pages: 4,
        journal_step: 12,
        hash_key: Some(HASH_KEY),
        ..Tuning::default()
    }
}

/// [`tiny`] with segments and checkpoints to match.
pub fn tiny_options() -> Options {
    Options::new().tuning(tiny()).segment_bytes(4096).checkpoint_bytes(16 << 10).sync(SyncPolicy::Manual)
}

/// Options of a quiet store with ordinary pages: no background threads.
pub fn quiet() -> Options {
    Options::new().tuning(Tuning { background: false, ..Tuning::default() }).sync(SyncPolicy::Manual)
}

/// Opening must fail, and change nothing below `dir`.
pub fn refused(options: &Options, path: &Path, dir: &Path) -> Error {
    let before = snapshot(dir);
    let error = options.open(path).expect_err("the open should be refused");
    assert_eq!(snapshot(dir), before, "a refused open changed something: {error}");
    error
}

/// Fails unless the text has all the words.
pub fn says(error: &Error, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{text:?} does not say {word:?}");
    }
}

/// Reproducible random numbers (SplitMix64).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True `times` out of `of` times.
    pub fn chance(&mut self, times: u64, of: u64) -> bool {
        self.below(of) < times
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        for piece in bytes.chunks_mut(8) {
            piece.copy_from_slice(&self.next().to_le_bytes()[..piece.len()]);
        }
    }
}

/// The bytes that belong to a length and a seed.
pub fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Random(seed).fill(&mut bytes);
    bytes
}

/// All regular files below a directory, by path relative to it.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    fn walk(base: &Path, dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).expect("list a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(base, &path, found);
            } else {
                found.push(path.strip_prefix(base).expect("a path below the directory").to_path_buf());
            }
        }
    }
    let mut found = Vec::new();
    walk(dir, dir, &mut found);
    found.sort();
    found
}

/// Copies a file and keeps its holes.
pub fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let source = File::open(from)?;
    let target = File::create(to)?;
    let len = source.metadata()?.len();
    target.set_len(len)?;
    let mut buffer = vec![0; 64 << 10];
    let mut at = 0;
    while at < len {
        let data = match rustix::fs::seek(&source, SeekFrom::Data(at)) {
            Ok(data) => data,
            // No data behind `at`.
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let hole = rustix::fs::seek(&source, SeekFrom::Hole(data))?;
        at = data;
        while at < hole {
            let piece = &mut buffer[..(hole - at).min(64 << 10) as usize];
            source.read_exact_at(piece, at)?;
            target.write_all_at(piece, at)?;
            at += piece.len() as u64;
        }
    }
    Ok(())
}

/// Copies a store, open or not. Of an open one in which nothing is going on, the copy is what would be left if
/// its process died at this moment: both see the same page cache.
pub fn copy_store(from: &Path, to: &Path) {
    fs::create_dir(to).expect("create the copy's directory");
    for entry in fs::read_dir(from).expect("list a store") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_store(&entry.path(), &target);
        } else {
            copy_file(&entry.path(), &target).expect("copy a file of the store");
        }
    }
}

/// What stands in a directory: per file its bytes' checksum, length and modification time. (Not its blocks: tmpfs
/// counts the pages of holes that somebody reads.)
#[derive(Debug, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<PathBuf, (u32, u64, i64, i64)>);

impl Snapshot {
    /// The same without the modification times of a store's LOCK and journal. A writable open puts its process
    /// id into the one and makes sure that the other's blocks are allocated, before it reads the rest.
    pub fn but_for_opening(self) -> Self {
        self.without_times_of(|name| name.ends_with("LOCK") || name.ends_with("journal"))
    }

    /// The same without any modification times: an open can also make sure of blocks that are there.
    pub fn without_times(self) -> Self {
        self.without_times_of(|_| true)
    }

    fn without_times_of(mut self, is_one: impl Fn(&Path) -> bool) -> Self {
        for (name, (_, _, seconds, nanos)) in &mut self.0 {
            if is_one(name) {
                (*seconds, *nanos) = (0, 0);
            }
        }
        self
    }
}

pub fn snapshot(dir: &Path) -> Snapshot {
    let of = |name: PathBuf| {
        let path = dir.join(&name);
        let meta = fs::metadata(&path).expect("look at a file");
        let crc = crc32fast::hash(&fs::read(&path).expect("read a file"));
        (name, (crc, meta.len(), meta.mtime(), meta.mtime_nsec()))
    };
    Snapshot(files(dir).into_iter().map(of).collect())
}

/// Blocks that all files below a directory occupy, in bytes.
pub fn blocks(dir: &Path) -> u64 {
    files(dir).iter().map(|name| fs::metadata(dir.join(name)).map_or(0, |meta| meta.blocks() * 512)).sum()
}

/// The segment files of a store, in order.
pub fn segments(store: &Path) -> Vec<PathBuf> {
    let named = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "log");
    files(store).into_iter().filter(named).map(|name| store.join(name)).collect()
}

/// Everything that a store's iterator yields. A key that comes twice is a failure.
pub fn contents(store: &Store) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in store.iter() {
        let entry = entry.expect("iterate");
        let twice = found.insert(entry.key().to_vec(), entry.value().to_vec());
        assert!(twice.is_none(), "{entry:?} came twice");
    }
    found
}

/// Opens, and fails with the error's text if that is not possible.
pub fn open(options: &Options, path: &Path) -> Store {
    options.open(path).unwrap_or_else(|error| panic!("open {}: {error}", path.display()))
}

/// Changes one bit of a file.
pub fn flip_bit(path: &Path, offset: u64, bit: u8) {
    let file = File::options().read(true).write(true).open(path).expect("open a file to damage it");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("read the byte to damage");
    byte[0] ^= 1 << bit;
    file.write_all_at(&byte, offset).expect("write the damaged byte");
}

/// Where a sequence of bytes stands in a file.
pub fn find_bytes(path: &Path, needle: &[u8]) -> Option<u64> {
    let bytes = fs::read(path).expect("read a file");
    bytes.windows(needle.len()).position(|window| window == needle).map(|at| at as u64)
}

/// Flips a bit of a value in the log, in place: the store has it mapped.
pub fn rot(store: &Path, value: &[u8]) {
    let flipped = segments(store).iter().any(|file| match find_bytes(file, value) {
        Some(at) => {
            flip_bit(file, at, 0);
            true
        }
        None => false,
    });
    assert!(flipped, "no such value in the log");
}
