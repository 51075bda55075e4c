//! A store with little in it takes little: on the disk, and of the memory that it was allowed.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{blocks, open, scratch};
use tophash::{Batch, Options, SyncPolicy, Tuning};

/// Bytes that a store's files and its two directories occupy on the disk.
fn occupied(store: &Path) -> u64 {
    let directories = [store.to_path_buf(), store.join("log-1")];
    blocks(store) + directories.map(|path| fs::metadata(path).unwrap().blocks() * 512).iter().sum::<u64>()
}

/// A new store took 592 KiB: meta pages for 8,192 blobs that wait to be unlinked, a table of sixteen pages, a segment of 256 KiB.
#[test]
fn three_records_take_less_than_100_kib() {
    let dir = scratch();
    for (name, sync) in [
        ("manual", SyncPolicy::Manual),
        ("always", SyncPolicy::Always),
        ("every", SyncPolicy::Every(Duration::from_millis(1))),
    ] {
        let (path, options) = (dir.path().join(name), Options::new().sync(sync));
        for round in 0..3u32 {
            let store = open(&options, &path);
            for key in ["one", "two", "three"] {
                store.insert(key, format!("{key}, {round}")).unwrap();
            }
            store.sync().unwrap();
            assert!(occupied(&path) < 100 << 10, "{name}, in use: {} KiB", occupied(&path) >> 10);
            store.checkpoint().unwrap();
            assert!(occupied(&path) < 100 << 10, "{name}, after a checkpoint: {} KiB", occupied(&path) >> 10);
            store.close().unwrap();
            assert!(occupied(&path) < 100 << 10, "{name}, closed: {} KiB", occupied(&path) >> 10);
        }
    }
}

/// The inserts of a small table begin its growth themselves. The resize job had been told that growth was wanted, had left it to
/// them, and rested: it was not told that growth had begun. When no insert came any more, the growth stood still for ever.
/// Found by the comparison with other stores, which waited two minutes for it.
#[test]
fn a_growth_that_an_insert_has_begun_ends_without_further_inserts() {
    let dir = scratch();
    let tuning = Tuning { hash_key: Some((3, 5)), ..Tuning::default() };
    let store = open(&Options::new().sync(SyncPolicy::Manual).tuning(tuning), &dir.path().join("s"));
    let mut growths = 0;
    for n in 0..3_000u64 {
        store.insert(n.to_le_bytes(), []).unwrap();
        let index = store.stats().index;
        if !index.growing && n * 100 > index.slots * 70 {
            // Growth is near: each insert finds the job at rest.
            std::thread::sleep(Duration::from_millis(1));
        }
        if index.growing && index.growths == growths {
            growths += 1;
            let begun = Instant::now();
            while store.stats().index.growing {
                assert!(begun.elapsed() < Duration::from_secs(120), "growth stands still: {:?}", store.stats().index);
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
    assert!(growths > 1, "{growths}");
    store.close().unwrap();
}

/// A store of 1,000 records had 1,008 slots when it was closed. Half of a batch was taken for replacements in a table that had
/// nothing to replace, and single inserts left the growth of two pages to a background thread that had no turn before the end.
#[test]
fn a_small_store_is_not_left_overfull() {
    let dir = scratch();
    let records = |n: u64| (n.to_le_bytes(), n.to_le_bytes());
    for (name, background) in [("alone", false), ("with threads", true)] {
        // The hash of a key says whether its insert moves a page of the growth: the same keys, the same growth.
        let tuning = Tuning { background, hash_key: Some((3, 5)), ..Tuning::default() };
        let options = Options::new().sync(SyncPolicy::Manual).tuning(tuning);
        for count in [420, 900, 1_000, 3_000] {
            let path = dir.path().join(format!("{name} {count}"));
            let store = open(&options, &path);
            store.apply(&(0..count).map(records).collect::<Batch>()).unwrap();
            let index = store.stats().index;
            assert!(count * 100 <= index.slots * 83, "a batch, {name}: {count} in {} slots", index.slots);
            store.clear().unwrap();
            store.shrink_to_fit().unwrap();
            (0..count).for_each(|n| store.set(n.to_le_bytes(), n.to_le_bytes()).unwrap());
            let index = store.stats().index;
            // With threads, one of them can hold what the evacuation of a page takes.
            let grows = background && index.growing;
            assert!(grows || count * 100 <= index.slots * 90, "one by one, {name}: {count} in {} slots", index.slots);
            store.close().unwrap();
        }
    }
}

/// Anonymous memory of this process in bytes.
fn anonymous() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

/// What `memory_bytes` was to bound took three times that much: clean pages that were private, the images of a checkpoint, and
/// the extents of a growing table came on top. A store that grew was killed in a control group with room for the limit.
mod memory {
    use std::process::{Command, ExitStatus, Stdio};

    use super::*;

    const CHILD: &str = "TOPHASH_MEMORY_CHILD";
    const LIMIT: u64 = 2 << 20;
    /// What a process has besides: its heap, its stacks, the buffers of its threads.
    const BESIDES: u64 = 3 << 20;
    /// Pages of files that the kernel has yet to write back: the control groups of version 1 do not slow their writers down.
    const PAGE_CACHE: u64 = 24 << 20;

    /// The child: fills a store, and looks at its memory all the time.
    fn fill(path: &Path, capacity: u64, records: u64) {
        let options = Options::new().memory_bytes(LIMIT).sync(SyncPolicy::Manual).capacity(capacity);
        let (store, before) = (open(&options, path), anonymous());
        let mut most = 0;
        for n in 0..records {
            store.set(n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes(), n.to_le_bytes()).unwrap();
            if n % 500 == 0 {
                most = most.max(anonymous());
            }
        }
        let index = store.stats().index.file_bytes;
        assert!(index > LIMIT + LIMIT / 2, "an index of {} KiB tests nothing", index >> 10);
        println!("{} KiB before, {} KiB at the most, index {} KiB", before >> 10, most >> 10, index >> 10);
        assert!(most < LIMIT + BESIDES, "{} KiB of anonymous memory", most >> 10);
        store.close().unwrap();
    }

    /// A control group for memory. It goes with the value.
    struct Group(std::path::PathBuf);

    impl Group {
        /// A group with this limit, of version 1 or 2, if this process may make one.
        fn new(name: &str, bytes: u64) -> Option<Self> {
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")].into_iter().find_map(
                |(root, limit)| {
                    let path = Path::new(root).join(format!("tophash-{name}-{}", std::process::id()));
                    fs::create_dir(&path).ok()?;
                    let group = Group(path);
                    fs::write(group.0.join(limit), bytes.to_string()).ok()?;
                    Some(group)
                },
            )
        }
    }

    impl Drop for Group {
        fn drop(&mut self) {
            let _ = fs::remove_dir(&self.0);
        }
    }

    fn child(path: &Path, [capacity, records]: [u64; 2], group: Option<&Group>) -> ExitStatus {
        let program = std::env::current_exe().unwrap();
        let test = ["--exact", "memory::the_limit_of_memory_is_one", "--nocapture"];
        let mut child = Command::new("sh");
        // The shell joins the group before it becomes the test.
        let join = group.map_or(String::new(), |group| format!("echo $$ > {}/cgroup.procs && ", group.0.display()));
        child.arg("-c").arg(format!("{join}exec \"$@\"")).arg("sh").arg(program).args(test);
        child.env(CHILD, format!("{capacity} {records} {}", path.display())).stdin(Stdio::null());
        child.status().unwrap()
    }

    #[test]
    fn the_limit_of_memory_is_one() {
        if let Ok(job) = std::env::var(CHILD) {
            let [capacity, records, path] = job.splitn(3, ' ').collect::<Vec<_>>().try_into().unwrap();
            return fill(Path::new(path), capacity.parse().unwrap(), records.parse().unwrap());
        }
        // Not in memory: the pages of such a file system are nobody's to take back.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        for (name, sizes) in [("growing", [0, 200_000]), ("pre-sized", [300_000, 60_000])] {
            let group = Group::new(name, LIMIT + BESIDES + PAGE_CACHE);
            if group.is_none() {
                println!("no control group can be made here: the process measures itself alone");
            }
            let status = child(&dir.path().join(name), sizes, group.as_ref());
            assert!(status.success(), "{name}: {status}");
        }
    }
}
