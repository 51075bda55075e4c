//! The hot paths beside `hashbrown` with boxed keys and values, in one process and in turn.
//!
//! ```text
//! cargo bench --bench hot                    2 M records, 9 rounds
//! cargo bench --bench hot -- 5000000 15      records, rounds
//! cargo bench --bench hot -- 200000 9 check  fails if a ratio is far below what it should be: CI's guard
//! ```
//!
//! Rounds alternate between the two maps, in blocks short enough for the noise of a shared machine to hit both; the
//! ratio is the median of the rounds' ratios. Keys have 16 bytes, values 100; every answer is checked. It is
//! the quick look at a change of a hot path; the comparison with other stores is `benches/peers`.

mod records;

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use hashbrown::HashMap;
use records::{key, mixed, value};
use tophash::{Batch, Options, Store, SyncPolicy};

/// Operations of a block.
const BLOCK: u64 = 100_000;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
type Boxed = HashMap<Box<[u8]>, Box<[u8]>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number = |i: usize, default: u64| -> Result<u64> {
        arguments.get(i).map_or(Ok(default), |text| Ok(text.replace('_', "").parse()?))
    };
    let (records, rounds) = (number(0, 2_000_000)?, number(1, 9)?.max(1));
    let check = arguments.get(2).is_some_and(|argument| argument == "check");
    println!("{records} records of 16 + 100 bytes, {rounds} rounds of {BLOCK} operations\n");
    println!("| | tophash ns | hashbrown ns | hashbrown time / tophash time | worst and best round |");
    println!("|---|---:|---:|---:|---:|");

    let dir = tempfile::tempdir()?;
    let options = Options::new().sync(SyncPolicy::Manual);
    // The floors are about the work of a call. Compaction and checkpoints beside it follow disk and processors of the
    // moment: on some days writers help compaction most of the time, and one commit falls from 0.7 to 0.2.
    let options = if check { options.log_ratio(f64::INFINITY).checkpoint_bytes(1 << 40) } else { options };
    let store = options.open(dir.path().join("hot.tophash"))?;
    let mut map = Boxed::new();
    let mut rows = vec![fill(&store, &mut map, records)?, bulk(dir.path(), records)?];
    let mut pairs = Vec::new();
    for work in [hits, absent, many, updates, sets, churn, deletes] {
        pairs.clear();
        // The first round warms up.
        for round in 0..=rounds {
            pairs.push(work(&store, &mut map, records, round)?);
        }
        rows.push((pairs[1].0, pairs[1..].iter().map(|pair| (pair.1, pair.2)).collect()));
    }
    let mut failed = Vec::new();
    for (name, mut times) in rows {
        let median = |list: &mut Vec<f64>| {
            list.sort_by(f64::total_cmp);
            list[list.len() / 2]
        };
        let mut ratios: Vec<f64> = times.iter().map(|(ours, theirs)| theirs / ours).collect();
        let ratio = median(&mut ratios);
        let ours = median(&mut times.iter().map(|pair| pair.0).collect());
        let theirs = median(&mut times.drain(..).map(|pair| pair.1).collect());
        println!(
            "| {name} | {ours:.0} | {theirs:.0} | {ratio:.2} | {:.2} to {:.2} |",
            ratios[0],
            ratios[ratios.len() - 1]
        );
        failed.extend(FLOORS.iter().filter(|floor| check && floor.0 == name && ratio < floor.1).map(|floor| floor.0));
    }
    if !failed.is_empty() {
        return Err(format!("below the floor: {}", failed.join(", ")).into());
    }
    Ok(())
}

/// What a ratio must not fall below with 200,000 records: half of what it is on a quiet machine, so that noise does not
/// get there, and a lookup that takes a lock or copies a value does.
const FLOORS: [(&str, f64); 8] = [
    ("inserts, growth included", 0.30),
    ("hits", 0.18),
    ("absent keys", 0.24),
    ("hits, 32 in a call (hashbrown: single ones)", 0.40),
    ("updates", 0.36),
    ("updates by set", 0.36),
    ("remove one + insert one", 0.25),
    ("delete one + set one", 0.25),
];

/// Nanoseconds for each of a block's operations.
fn timed(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let started = Instant::now();
    work()?;
    Ok(started.elapsed().as_nanos() as f64 / BLOCK as f64)
}

type Row = (&'static str, f64, f64);

fn fill(store: &Store, map: &mut Boxed, records: u64) -> Result<(&'static str, Vec<(f64, f64)>)> {
    let mut pairs = Vec::new();
    for block in 0..records.div_ceil(BLOCK) {
        let numbers = block * BLOCK..records.min((block + 1) * BLOCK);
        let ours = timed(|| {
            for n in numbers.clone() {
                assert!(store.insert(key(n), value(n))?.is_none());
            }
            Ok(())
        })?;
        let theirs = timed(|| {
            for n in numbers {
                assert!(map.insert(Box::from(key(n)), Box::from(value(n))).is_none());
            }
            Ok(())
        })?;
        pairs.push((ours, theirs));
    }
    let total = pairs.iter().fold((0.0, 0.0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
    let count = pairs.len() as f64;
    // Growth makes blocks differ: here the whole counts, not the median.
    Ok(("inserts, growth included", vec![(total.0 / count, total.1 / count)]))
}

/// All records in one batch, which is made before, into a new store, and synced; into a new map.
fn bulk(dir: &Path, records: u64) -> Result<(&'static str, Vec<(f64, f64)>)> {
    let store = Options::new().sync(SyncPolicy::Manual).open(dir.join("bulk.tophash"))?;
    let mut batch = Batch::new();
    (0..records).for_each(|n| _ = batch.insert(key(n), value(n)));
    let of_all = |started: Instant| started.elapsed().as_nanos() as f64 / records as f64;
    let started = Instant::now();
    store.apply(&batch)?;
    store.sync()?;
    let ours = of_all(started);
    assert_eq!(store.len(), records);
    drop(store);
    std::fs::remove_dir_all(dir.join("bulk.tophash"))?;
    let started = Instant::now();
    let mut map = Boxed::new();
    for n in 0..records {
        map.insert(Box::from(key(n)), Box::from(value(n)));
    }
    Ok(("one batch of all records, synced", vec![(ours, of_all(started))]))
}

/// A number below `records`, another one for each round and step.
fn pick(records: u64, round: u64, i: u64) -> u64 {
    mixed(mixed(round * BLOCK + i + 77)) % records
}

fn hits(store: &Store, map: &mut Boxed, records: u64, round: u64) -> Result<Row> {
    let ours = timed(|| {
        for i in 0..BLOCK {
            let n = pick(records, round, i);
            assert_eq!(store.get(key(n))?.as_deref(), Some(&value(n)[..]));
        }
        Ok(())
    })?;
    let theirs = timed(|| {
        for i in 0..BLOCK {
            let n = pick(records, round, i);
            assert_eq!(map.get(&key(n)[..]).map(|value| &**value), Some(&value(n)[..]));
        }
        Ok(())
    })?;
    Ok(("hits", ours, theirs))
}

fn absent(store: &Store, map: &mut Boxed, records: u64, round: u64) -> Result<Row> {
    let numbers = || (0..BLOCK).map(|i| u64::MAX / 2 + pick(records << 16, round, i));
    let ours = timed(|| {
        for n in numbers() {
            assert!(store.get(key(n))?.is_none());
        }
        Ok(())
    })?;
    let theirs = timed(|| {
        for n in numbers() {
            assert!(map.get(&key(n)[..]).is_none());
        }
        Ok(())
    })?;
    Ok(("absent keys", ours, theirs))
}

fn many(store: &Store, map: &mut Boxed, records: u64, round: u64) -> Result<Row> {
    const KEYS: u64 = 32;
    let ours = timed(|| {
        for i in 0..BLOCK / KEYS {
            let numbers: [u64; KEYS as usize] = std::array::from_fn(|k| pick(records, round, i * KEYS + k as u64));
            for (n, found) in numbers.iter().zip(store.get_many(&numbers.map(key))?) {
                assert_eq!(found.as_deref(), Some(&value(*n)[..]));
            }
        }
        Ok(())
    })?;
    let theirs = timed(|| {
        for i in 0..BLOCK / KEYS * KEYS {
            let n = pick(records, round, i);
            assert_eq!(map.get(&key(n)[..]).map(|value| &**value), Some(&value(n)[..]));
        }
        Ok(())
    })?;
    Ok(("hits, 32 in a call (hashbrown: single ones)", ours, theirs))
}

fn updates(store: &Store, map: &mut Boxed, records: u64, round: u64) -> Result<Row> {
    let ours = timed(|| {
        for i in 0..BLOCK {
            let n = pick(records, round, i);
            assert!(store.insert(key(n), value(n))?.is_some());
        }
        Ok(())
    })?;
    let theirs = timed(|| {
        for i in 0..BLOCK {
            let n = pick(records, round, i);
            assert!(map.insert(Box::from(key(n)), Box::from(value(n))).is_some());
        }
        Ok(())
    })?;
    Ok(("updates", ours, theirs))
}

fn sets(store: &Store, map: &mut Boxed, records: u64, round: u64) -> Result<Row> {
    let ours = timed(|| {
        for i in 0..BLOCK {
            let n = pick(records, round, i);
            store.set(key(n), value(n))?;
        }
        Ok(())
    })?;
    let theirs = timed(|| {
        for i in 0..BLOCK {
            let n = pick(records, round, i);
            map.insert(Box::from(key(n)), Box::from(value(n)));
        }
        Ok(())
    })?;
    Ok(("updates by set", ours, theirs))
}

fn churn(store: &Store, map: &mut Boxed, records: u64, round: u64) -> Result<Row> {
    let steps = || (0..BLOCK).map(|i| (round * BLOCK + i, records + round * BLOCK + i));
    let ours = timed(|| {
        for (old, new) in steps() {
            assert!(store.remove(key(old))?.is_some());
            assert!(store.insert(key(new), value(new))?.is_none());
        }
        Ok(())
    })?;
    let theirs = timed(|| {
        for (old, new) in steps() {
            assert!(map.remove(&key(old)[..]).is_some());
            assert!(black_box(map.insert(Box::from(key(new)), Box::from(value(new)))).is_none());
        }
        Ok(())
    })?;
    Ok(("remove one + insert one", ours, theirs))
}

/// The churn once more, from the other end of the keys, because its first ones are gone.
fn deletes(store: &Store, map: &mut Boxed, records: u64, round: u64) -> Result<Row> {
    let start = u64::MAX / 4 + records;
    let steps = || (0..BLOCK).map(|i| (start + round * BLOCK + i, start + (round + 1) * BLOCK + i));
    if round == 0 {
        for (n, _) in steps() {
            store.set(key(n), value(n))?;
            map.insert(Box::from(key(n)), Box::from(value(n)));
        }
    }
    let ours = timed(|| {
        for (old, new) in steps() {
            assert!(store.delete(key(old))?);
            store.set(key(new), value(new))?;
        }
        Ok(())
    })?;
    let theirs = timed(|| {
        for (old, new) in steps() {
            assert!(map.remove(&key(old)[..]).is_some());
            map.insert(Box::from(key(new)), Box::from(value(new)));
        }
        Ok(())
    })?;
    Ok(("delete one + set one", ours, theirs))
}
