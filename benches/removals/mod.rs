//! What removals should leave behind: repaired paths, or tombstones and a rewrite of the page past an eighth of them.
//!
//! Two stores with the same hash key take the same steps, one with each policy, and take turns: each round is a block of
//! steps on one, then on the other. A step removes the oldest record and inserts a new one, so the size stays the same. The
//! table neither grows nor shrinks: 512 pages, filled to a part of their slots.
//!
//! The columns:
//! * *ns/step*: processor time of the thread (`/proc/thread-self/schedstat`), so that another process on the same machine
//!   hardly counts. No background threads; checkpoints lie between the blocks.
//! * *lines*: cache lines of slots that a lookup of an absent key reads, 20,000 random hashes.
//! * *ns/absent*: processor time of a lookup of an absent key.
//! * *dirtied*: pages of the index that a removal makes dirty. Removals in groups of 16, each group on a table without a
//!   dirty page.
//! * *moves*: entries that a removal moved. *rewrites*: pages rewritten for each removal.
//!
//! * *ns/removal*: processor time of the removals alone; only where a call removes a thousand keys or more.
//!
//! Medians of the rounds. `fill=`, `level=` and `policy=` (`repair`, `tombstones`, `mixed`, `swept` or `all`) take one filling, another size, one
//! policy: so much is enough for callgrind, which counts the instructions of a block however busy the machine is:
//!
//! ```text
//! valgrind --tool=callgrind --toggle-collect='*block*' target/release/deps/churn-* removals 1 NAME level=5 fill=550 policy=repair
//! ```

use std::time::Duration;

use tempfile::TempDir;
use tophash::{Batch, Options, Removal, Removals, Store, SyncPolicy, Tuning};

use super::Result;
use super::records::{key, mixed};

/// Slots of a page.
const PAGE_SLOTS: u64 = 504;
/// Fillings in thousandths of the slots: light, normal, near the threshold of growth, with overflow pages nearly
/// everywhere. The last one is what pages come to while growth is behind.
const FILLS: [u64; 4] = [250, 550, 800, 910];
/// A call that removes so many keys is timed by itself.
const TIMED: u64 = 1000;
/// Steps of a block, lookups of a block.
const BLOCK: u64 = 100_000;
const LOOKUPS: u64 = 200_000;
/// Removals of a group whose dirty pages are counted, groups of a round.
const GROUP: u64 = 16;
const GROUPS: u64 = 16;

/// The calls that remove.
#[derive(Clone, Copy)]
enum Call {
    /// `remove`, then `insert`.
    Single,
    /// A batch of so many removals and as many insertions.
    Batch(u64),
    /// `remove_many` of so many keys, then `insert` for each.
    Many(u64),
    /// `remove_many` of half the records, then `insert` for each.
    Half,
}

impl Call {
    fn name(self) -> String {
        match self {
            Call::Single => "`remove`".into(),
            Call::Batch(keys) => format!("batch of {keys} + {keys}"),
            Call::Many(keys) => format!("`remove_many` of {keys}"),
            Call::Half => "`remove_many` of half".into(),
        }
    }

    fn keys(self, live: u64) -> u64 {
        match self {
            Call::Single => 1,
            Call::Batch(keys) | Call::Many(keys) => keys,
            Call::Half => live / 2,
        }
    }
}

/// A store under one of the policies.
struct Arm {
    _dir: TempDir,
    store: Store,
    call: Call,
    /// The records `oldest..next` are live.
    oldest: u64,
    next: u64,
    /// Processor time of removals, where a call removes many.
    removing: Duration,
    rows: Vec<[f64; COLUMNS]>,
}

const COLUMNS: usize = 9;
const NAMES: [&str; COLUMNS] =
    ["ns/step", "ns/removal", "lines", "tombstones met", "ns/absent", "dirtied", "moves", "rewrites", "overflow pages"];

/// What is asked for.
struct Wanted {
    rounds: u64,
    level: u8,
    fills: Vec<u64>,
    policies: Vec<Policy>,
}

/// What removals leave behind, and the tombstones past which a page is rewritten, in thousandths.
type Policy = (Removal, u32);

/// Runs the comparison: all calls and fillings, or those whose name contains the second argument.
pub fn run(arguments: &[String]) -> Result<()> {
    let (named, plain): (Vec<_>, Vec<_>) = arguments.iter().partition(|argument| argument.contains('='));
    let of = |name: &str| named.iter().find_map(|text| text.strip_prefix(name)?.strip_prefix('='));
    let only = plain.get(1).map_or("", |text| text.as_str());
    let wanted = Wanted {
        rounds: plain.first().map_or(Ok(9), |text| text.parse())?,
        level: of("level").map_or(Ok(9), str::parse)?,
        fills: of("fill").map_or(Ok(FILLS.to_vec()), |text| text.parse().map(|fill| vec![fill]))?,
        policies: match of("policy") {
            None => vec![(Removal::Repair, 125), (Removal::Tombstone, 125)],
            Some("all") => {
                vec![(Removal::Repair, 125), (Removal::Tombstone, 125), (Removal::Mixed, 125), (Removal::Mixed, 0)]
            }
            Some("repair") => vec![(Removal::Repair, 125)],
            Some("tombstones") => vec![(Removal::Tombstone, 125)],
            Some("mixed") => vec![(Removal::Mixed, 125)],
            Some("swept") => vec![(Removal::Mixed, 0)],
            Some(other) => return Err(format!("no policy {other:?}: repair, tombstones, mixed, swept or all").into()),
        },
    };
    println!("\n## removals: repair | tombstones; medians of {} rounds of {BLOCK} steps\n", wanted.rounds);
    println!("| call | full | {} | time ratio |", NAMES.join(" | "));
    println!("|---|---:|{}---:|", "---:|".repeat(COLUMNS));
    let calls = [
        Call::Single,
        Call::Batch(50),
        Call::Batch(10_000),
        Call::Many(50),
        Call::Many(1_000),
        Call::Many(10_000),
        Call::Half,
    ];
    for call in calls.into_iter().filter(|call| call.name().contains(only)) {
        for &fill in &wanted.fills {
            compare(&wanted, call, fill)?;
        }
    }
    Ok(())
}

fn compare(wanted: &Wanted, call: Call, fill: u64) -> Result<()> {
    let arms = wanted.policies.iter().map(|&policy| Arm::new(wanted.level, call, fill, policy));
    let mut arms = arms.collect::<Result<Vec<_>>>()?;
    for arm in &mut arms {
        // Each page is rewritten some times before anything counts.
        arm.steps((2 * PAGE_SLOTS) << wanted.level)?;
    }
    for round in 0..wanted.rounds {
        // Another one begins in each round.
        arms.reverse();
        arms.iter_mut().try_for_each(|arm| arm.round(round))?;
    }
    if wanted.rounds % 2 == 1 {
        arms.reverse();
    }
    line(call, fill, &arms);
    Ok(())
}

fn line(call: Call, fill: u64, arms: &[Arm]) {
    let (first, last) = (&arms[0], &arms[arms.len() - 1]);
    let mut ratios: Vec<f64> = first.rows.iter().zip(&last.rows).map(|(one, two)| two[0] / one[0]).collect();
    let cells: Vec<String> = (0..COLUMNS)
        .map(|column| {
            let of = |arm: &Arm| median(&mut arm.rows.iter().map(|row| row[column]).collect::<Vec<f64>>());
            let digits = if matches!(column, 0 | 1 | 4 | 8) { 0 } else { 3 };
            arms.iter().map(|arm| format!("{:.digits$}", of(arm))).collect::<Vec<_>>().join(" \\| ")
        })
        .collect();
    println!("| {} | {} % | {} | {:.3} |", call.name(), fill / 10, cells.join(" | "), median(&mut ratios));
}

fn median(list: &mut [f64]) -> f64 {
    list.sort_by(f64::total_cmp);
    list[list.len() / 2]
}

impl Arm {
    fn new(level: u8, call: Call, fill: u64, (removal, rewrite_permille): Policy) -> Result<Self> {
        let tuning = Tuning {
            level_min: level,
            grow_permille: 1000,
            chain_help: 1 << 20,
            shrink_permille: 0,
            background: false,
            hash_key: Some((11, 13)),
            removals: Removals::all(removal),
            rewrite_permille,
            ..Tuning::default()
        };
        let dir = tempfile::tempdir()?;
        let options = Options::new().sync(SyncPolicy::Manual).checkpoint_bytes(1 << 40).log_ratio(f64::INFINITY);
        let store = options.tuning(tuning).open(dir.path().join("removals.tophash"))?;
        let next = (PAGE_SLOTS << level) * fill / 1000;
        for n in 0..next {
            store.insert(key(n), n.to_le_bytes())?;
        }
        Ok(Arm { _dir: dir, store, call, oldest: 0, next, removing: Duration::ZERO, rows: Vec::new() })
    }

    fn steps(&mut self, steps: u64) -> Result<()> {
        let keys = self.keys();
        for _ in 0..(steps / keys).max(1) {
            self.remove(keys, matches!(self.call, Call::Batch(_)))?;
        }
        Ok(())
    }

    /// Keys of a call.
    fn keys(&self) -> u64 {
        self.call.keys(self.next - self.oldest)
    }

    /// The steps that are measured.
    #[inline(never)]
    fn block(&mut self) -> Result<()> {
        self.steps(BLOCK)
    }

    /// Removes the oldest records and inserts as many: in the same batch, or one by one.
    fn remove(&mut self, keys: u64, together: bool) -> Result<()> {
        let (gone, new) = (self.oldest..self.oldest + keys, self.next..self.next + keys);
        (self.oldest, self.next) = (gone.end, new.end);
        match self.call {
            Call::Single => {
                for n in gone {
                    assert!(self.store.remove(key(n))?.is_some(), "key {n} was lost");
                }
            }
            Call::Batch(_) => {
                let mut batch = Batch::new();
                gone.for_each(|n| _ = batch.remove(key(n)));
                if together {
                    new.clone().for_each(|n| _ = batch.insert(key(n), n.to_le_bytes()));
                }
                self.store.apply(&batch)?;
                if together {
                    return Ok(());
                }
            }
            Call::Many(_) | Call::Half => {
                let gone: Vec<[u8; 16]> = gone.map(key).collect();
                let began = if keys >= TIMED { processor_time()? } else { Duration::ZERO };
                assert_eq!(self.store.remove_many(&gone)?, keys);
                self.removing += if keys >= TIMED { processor_time()? - began } else { Duration::ZERO };
            }
        }
        for n in new {
            assert!(self.store.insert(key(n), n.to_le_bytes())?.is_none());
        }
        Ok(())
    }

    fn round(&mut self, round: u64) -> Result<()> {
        self.store.checkpoint()?;
        let before = self.store.stats().index;
        self.removing = Duration::ZERO;
        let began = processor_time()?;
        self.block()?;
        let steps = processor_time()? - began;
        let (index, live) = (self.store.stats().index, self.next - self.oldest);
        assert_eq!(self.store.len(), live);
        let done = (BLOCK / self.keys()).max(1) * self.keys();
        let each = |count: u64| count as f64 / done as f64;
        let (lines, tombstones) = self.store.survey(20_000, round)?;
        let began = processor_time()?;
        for n in 0..LOOKUPS {
            assert!(self.store.get(key(u64::MAX / 2 + mixed(round << 32 | n)))?.is_none());
        }
        let lookups = processor_time()? - began;
        let dirtied = self.dirtied()?;
        self.rows.push([
            each(steps.as_nanos() as u64),
            each(self.removing.as_nanos() as u64),
            lines,
            tombstones,
            lookups.as_nanos() as f64 / LOOKUPS as f64,
            dirtied,
            each(index.repairs - before.repairs),
            each(index.rewrites - before.rewrites),
            index.overflow_pages as f64,
        ]);
        Ok(())
    }

    /// Pages that a removal makes dirty.
    fn dirtied(&mut self) -> Result<f64> {
        let mut pages = 0;
        for _ in 0..GROUPS {
            self.store.checkpoint()?;
            let (oldest, next) = (self.oldest, self.next);
            let clean = self.store.stats().checkpoint.dirty_pages;
            match self.call {
                Call::Single => {
                    for n in oldest..oldest + GROUP {
                        self.store.remove(key(n))?;
                    }
                }
                Call::Batch(_) => {
                    let mut batch = Batch::new();
                    (oldest..oldest + GROUP).for_each(|n| _ = batch.remove(key(n)));
                    self.store.apply(&batch)?;
                }
                Call::Many(_) | Call::Half => {
                    let gone: Vec<[u8; 16]> = (oldest..oldest + GROUP).map(key).collect();
                    self.store.remove_many(&gone)?;
                }
            }
            pages += self.store.stats().checkpoint.dirty_pages - clean;
            for n in next..next + GROUP {
                self.store.insert(key(n), n.to_le_bytes())?;
            }
            (self.oldest, self.next) = (oldest + GROUP, next + GROUP);
        }
        Ok(pages as f64 / (GROUP * GROUPS) as f64)
    }
}

/// The time for which the kernel let this thread run.
fn processor_time() -> Result<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = text.split_whitespace().next().ok_or("an empty schedstat")?.parse()?;
    Ok(Duration::from_nanos(nanos))
}
