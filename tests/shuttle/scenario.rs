//! A scenario: a tiny store, some tasks on it, and the verdict on what they saw.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tophash::stats::Stats;
use tophash::{Options, Store, SyncPolicy, Tuning};

use crate::common;
use crate::common::calls::{Calls, Task};
use crate::disk::PointDisk;
use crate::explore::explore;

/// Schedules of one scenario at scale 1.
const SCHEDULES: u64 = 100;
/// Keys of a scenario.
const KEYS: usize = 400;

type Body = Box<dyn Fn(&Task<'_>) + Send + Sync>;
type Shows = fn(&Stats) -> u64;

/// Keys are chosen by their hashes.
type Fits = fn(u64) -> bool;

pub struct Scenario {
    name: &'static str,
    options: Options,
    fits: Fits,
    value_bytes: usize,
    prepare: Option<Body>,
    tasks: Vec<Body>,
    shows: Vec<(&'static str, Shows)>,
    schedules: u64,
    refused: u64,
}

impl Scenario {
    /// Pages of 24 slots, one of them to begin with; no background threads; segments of 4 KiB that are not
    /// compacted; checkpoints only when asked for.
    pub fn new(name: &'static str) -> Self {
        let tuning = Tuning { stripes_log2_max: 2, ..common::tiny() };
        let options = Options::new()
            .tuning(tuning)
            .segment_bytes(4096)
            .checkpoint_bytes(1 << 30)
            .log_ratio(f64::INFINITY)
            .sync(SyncPolicy::Manual);
        Scenario {
            name,
            options,
            fits: |_| true,
            value_bytes: 16,
            prepare: None,
            tasks: Vec::new(),
            shows: Vec::new(),
            schedules: SCHEDULES,
            refused: 0,
        }
    }

    pub fn options(mut self, change: impl FnOnce(Options) -> Options) -> Self {
        self.options = change(self.options);
        self
    }

    /// Changes the tuning, from that of [`new`](Self::new).
    pub fn tuning(self, change: impl FnOnce(Tuning) -> Tuning) -> Self {
        let tuning = change(Tuning { stripes_log2_max: 2, ..common::tiny() });
        self.options(|options| options.tuning(tuning))
    }

    /// Keys are those whose hash fits. By default, any.
    pub fn keys(mut self, fits: Fits) -> Self {
        self.fits = fits;
        self
    }

    /// Bytes of each value, at least 16.
    pub fn value_bytes(mut self, bytes: usize) -> Self {
        self.value_bytes = bytes;
        self
    }

    /// What is done before the tasks begin.
    pub fn prepare(mut self, body: impl Fn(&Task<'_>) + Send + Sync + 'static) -> Self {
        self.prepare = Some(Box::new(body));
        self
    }

    /// Adds a task.
    pub fn task(mut self, body: impl Fn(&Task<'_>) + Send + Sync + 'static) -> Self {
        self.tasks.push(Box::new(body));
        self
    }

    /// Adds the same task some times.
    pub fn tasks(self, times: usize, body: impl Fn(&Task<'_>) + Send + Sync + Clone + 'static) -> Self {
        (0..times).fold(self, |scenario, _| scenario.task(body.clone()))
    }

    /// Something that must have happened while the tasks ran, in some of the schedules.
    pub fn shows(mut self, what: &'static str, shows: Shows) -> Self {
        self.shows.push((what, shows));
        self
    }

    /// While the tasks run, the index finds a full disk `calls` times.
    pub fn refuse_blocks(mut self, calls: u64) -> Self {
        self.refused = calls;
        self
    }

    /// Runs this many times the usual number of schedules, in hundredths.
    pub fn weight(mut self, percent: u64) -> Self {
        self.schedules = SCHEDULES * percent / 100;
        self
    }

    pub fn run(self) {
        let schedules = self.schedules * common::scale() as u64;
        let totals = Arc::new(Totals::default());
        let (name, shows, refused) = (self.name, self.shows.clone(), self.refused);
        let keys: Vec<Vec<u8>> = (0u32..)
            .map(|i| i.to_le_bytes().to_vec())
            .filter(|key| (self.fits)(common::hash(key)))
            .take(KEYS)
            .collect();
        let shared = Arc::clone(&totals);
        let explored = explore(name, schedules, move || self.once(&keys, &shared));
        let shown = lock(&totals.shown).clone();
        let report: Vec<String> =
            shows.iter().zip(&shown).map(|((what, _), count)| format!("{count} {what}")).collect();
        println!(
            "shuttle, {name}: {} schedules ({} run twice), {} choices, {} changes of task, {} calls judged; {}",
            explored.schedules,
            explored.repeated,
            explored.choices,
            explored.changes,
            totals.calls.load(Ordering::Relaxed),
            report.join(", ")
        );
        if explored.schedules < 50 {
            return; // One that is repeated.
        }
        if refused > 0 {
            let unlinked = totals.unlinked.load(Ordering::Relaxed);
            println!("shuttle, {name}: {unlinked} segments given back");
            assert!(unlinked > 0, "{name}: no segment was given back");
        }
        for ((what, _), count) in shows.iter().zip(shown) {
            assert!(count > 0, "{name}: no schedule had any {what}");
        }
    }

    /// One schedule.
    fn once(&self, keys: &[Vec<u8>], totals: &Totals) {
        let disk = PointDisk::default();
        let options = self.options.clone().disk(Arc::new(disk.clone()));
        let dir = common::scratch();
        let path = dir.path().join("store");
        let store = common::open(&options, &path);
        let is_durable = |bytes: &[u8]| disk.is_durable(bytes);
        let calls = Calls::new(&store, keys, self.value_bytes, &is_durable);
        if let Some(prepare) = &self.prepare {
            prepare(&Task::new(&calls, usize::MAX));
        }
        let before: Vec<u64> = self.shows.iter().map(|(_, shows)| shows(&store.stats())).collect();
        let unlinked = disk.segments_unlinked();
        disk.refuse_blocks(self.refused);
        shuttle::thread::scope(|scope| {
            for (number, body) in self.tasks.iter().enumerate() {
                let calls = &calls;
                scope.spawn(move || {
                    let task = Task::new(calls, number);
                    body(&task);
                    task.let_go();
                });
            }
        });
        disk.refuse_blocks(0);
        totals.unlinked.fetch_add(disk.segments_unlinked() - unlinked, Ordering::Relaxed);
        let stats = store.stats();
        for (sum, ((_, shows), before)) in
            lock_resized(&totals.shown, self.shows.len()).iter_mut().zip(self.shows.iter().zip(before))
        {
            *sum += shows(&stats).saturating_sub(before);
        }
        let contents = calls.judge();
        totals.calls.fetch_add(calls.count() as u64, Ordering::Relaxed);
        self.reopen(&options, dir.path(), store, &contents);
    }

    /// The contents must be the same after a crash (what the process has written is in the page cache) and
    /// after closing, and `verify` must find nothing.
    fn reopen(&self, options: &Options, dir: &Path, store: Store, contents: &BTreeMap<Vec<u8>, Vec<u8>>) {
        let (path, copy) = (dir.join("store"), dir.join("copy"));
        assert_eq!(store.stats().poisoned, None);
        common::copy_store(&path, &copy);
        store.close().unwrap();
        let report = tophash::verify::verify(&path).unwrap();
        assert!(report.is_clean(), "{report:#?}");
        let recovered = common::open(&options.clone().read_only(true), &copy);
        assert!(common::contents(&recovered) == *contents, "after a crash the store has other contents");
        assert!(common::counts(&recovered, contents.len() as u64));
    }
}

#[derive(Default)]
struct Totals {
    calls: AtomicU64,
    /// Segments that were unlinked while the tasks ran.
    unlinked: AtomicU64,
    shown: Mutex<Vec<u64>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn lock_resized(mutex: &Mutex<Vec<u64>>, len: usize) -> std::sync::MutexGuard<'_, Vec<u64>> {
    let mut guard = lock(mutex);
    guard.resize(len, 0);
    guard
}
